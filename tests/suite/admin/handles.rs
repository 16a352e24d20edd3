use http::StatusCode;
use serde_json::{Value as Json, json};

use super::desk::{Answer, BILLING, Desk, OPERATOR, SENSITIVE};

async fn resolve(desk: &Desk, token: Option<&str>, handle: &Json, session: &str, purpose: &str) -> Answer {
    let body = json!({ "handle": handle, "session": session, "purpose": purpose });
    desk.ask("POST", "/v1/handles", token, Some(body)).await
}

/// A session with two sensitive values, and their handles.
async fn session(desk: &Desk) -> (String, Json, Json) {
    let session = desk.session(json!({ "user_id": "u-1", "email": SENSITIVE, "phone": "+49 30 1" })).await;
    let fields = desk.show(&session).await["fields"].clone();
    (session, fields["email"]["handle"].clone(), fields["phone"]["handle"].clone())
}

#[tokio::test]
async fn a_caller_has_its_fields_resolved_and_the_trail_says_who_and_why() {
    let desk = Desk::open().await;
    let (session, email, _) = session(&desk).await;
    let answer = resolve(&desk, BILLING, &email, &session, " invoice 7 ").await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "value": SENSITIVE })));
    assert_eq!(answer.header("cache-control"), "no-store");
    let record = desk.trail(&session).await[0].clone();
    assert_eq!((record["action"].clone(), record["revision"].clone()), (json!("resolve"), json!(1)));
    assert_eq!(record["actor"]["kind"], "caller");
    assert_eq!((&record["actor"]["name"], &record["actor"]["purpose"]), (&json!("billing-tool"), &json!("invoice 7")));
    let changes = record["changes"].as_array().unwrap();
    assert_eq!((changes.len(), &changes[0]["field"], &changes[0]["op"]), (1, &json!("email"), &json!("resolve")));
    assert!(changes[0]["before"].as_str().unwrap().starts_with("fp:"));
    let verdict = desk.get(&format!("/v1/sessions/{session}/audit/verify")).await.json();
    assert_eq!(verdict["whole"], true);
}

#[tokio::test]
async fn nobody_else_has() {
    let desk = Desk::open().await;
    let (session, email, phone) = session(&desk).await;
    for token in [None, OPERATOR, Some("Bearer billing-secret-tokeN")] {
        assert_eq!(resolve(&desk, token, &email, &session, "p").await.status, StatusCode::UNAUTHORIZED, "{token:?}");
    }
    let refused = resolve(&desk, BILLING, &phone, &session, "p").await;
    refused.is_problem(403, "forbidden");
    assert_eq!(resolve(&desk, Some("Bearer mailer-secret-token"), &phone, &session, "p").await.status, StatusCode::OK);
    assert_eq!(desk.trail(&session).await.len(), 2);
    let attempt = desk.audited().into_iter().find(|record| record["outcome"] == "forbidden").unwrap();
    assert_eq!((&attempt["action"], &attempt["actor"]["name"]), (&json!("resolve"), &json!("billing-tool")));
}

#[tokio::test]
async fn a_handle_stands_for_something_in_its_own_living_session_only() {
    let desk = Desk::open().await;
    let (session, email, _) = session(&desk).await;
    let other = desk.session(json!({ "email": "x@y.example" })).await;
    for (handle, session) in [
        (email.clone(), other.as_str()),
        (email.clone(), "nonsense"),
        (json!("hdl_AAAAAAAAAAAAAAAAAAAAAA"), session.as_str()),
        (json!("email"), session.as_str()),
    ] {
        resolve(&desk, BILLING, &handle, session, "p").await.is_problem(404, "handle-not-found");
    }
    desk.patch(&session, json!({ "email": null })).await;
    resolve(&desk, BILLING, &email, &session, "p").await.is_problem(404, "handle-not-found");
    desk.patch(&session, json!({ "email": SENSITIVE })).await;
    assert_eq!(resolve(&desk, BILLING, &email, &session, "p").await.status, StatusCode::OK);
    desk.ask("DELETE", &format!("/v1/sessions/{session}"), OPERATOR, None).await;
    resolve(&desk, BILLING, &email, &session, "p").await.is_problem(404, "handle-not-found");
}

#[tokio::test]
async fn a_purpose_is_needed_and_bounded() {
    let desk = Desk::open().await;
    let (session, email, _) = session(&desk).await;
    for unfit in ["", "  ", "two\nlines", &"x".repeat(257)] {
        resolve(&desk, BILLING, &email, &session, unfit).await.is_problem(422, "unprocessable");
    }
    let none = desk.ask("POST", "/v1/handles", BILLING, Some(json!({ "handle": email, "session": session }))).await;
    none.is_problem(422, "unprocessable");
    assert_eq!(desk.trail(&session).await.len(), 1);
}

#[tokio::test]
async fn one_callers_haste_is_bounded_and_no_others() {
    let desk = Desk::open().await;
    let (session, email, phone) = session(&desk).await;
    let mut limited = None;
    // Far above the burst, whatever is given back while this runs.
    for _ in 0..2000 {
        let answer = resolve(&desk, BILLING, &email, &session, "").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.unwrap();
    limited.is_problem(429, "rate-limited");
    assert_eq!(limited.header("retry-after"), "1");
    assert_eq!(resolve(&desk, Some("Bearer mailer-secret-token"), &phone, &session, "p").await.status, StatusCode::OK);
}
