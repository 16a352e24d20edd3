use std::time::Duration;

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::desk::{Desk, NOW, OPERATOR};

async fn sessions_of(desk: &Desk, user: &str) -> Vec<Json> {
    let answer = desk.get(&format!("/v1/users/{user}/sessions")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["sessions"].as_array().unwrap().iter().map(|session| session["session"].clone()).collect()
}

async fn revoke(desk: &Desk, body: Json) -> StatusCode {
    desk.ask("POST", "/v1/revocations", OPERATOR, Some(body)).await.status
}

#[tokio::test]
async fn a_users_living_sessions_are_listed_and_revoked_together() {
    let desk = Desk::open().await;
    let first = desk.session(json!({ "user_id": "a/b ü" })).await;
    desk.clock.advance(Duration::from_secs(1));
    let second = desk.session(json!({ "user_id": "a/b ü" })).await;
    let other = desk.session(json!({ "user_id": "u-2" })).await;
    let user = "a%2Fb%20%C3%BC";
    assert_eq!(sessions_of(&desk, user).await, [json!(first), json!(second)]);
    desk.ask("DELETE", &format!("/v1/sessions/{first}"), OPERATOR, None).await;
    assert_eq!(sessions_of(&desk, user).await, [json!(second)]);
    for _ in 0..2 {
        let answer = desk.ask("DELETE", &format!("/v1/users/{user}/sessions"), OPERATOR, None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    assert!(sessions_of(&desk, user).await.is_empty());
    desk.get(&format!("/v1/sessions/{second}")).await.is_problem(404, "session-revoked");
    assert_eq!(sessions_of(&desk, "u-2").await, [json!(other)]);
    assert_eq!(desk.trail(&second).await[0]["action"], "revoke");
}

#[tokio::test]
async fn a_user_of_an_issuer_is_another_user() {
    let desk = Desk::open().await;
    desk.session(json!({ "user_id": "u-1" })).await;
    assert!(sessions_of(&desk, "u-1").await.len() == 1);
    let narrowed = desk.get("/v1/users/u-1/sessions?issuer=https%3A%2F%2Flogin.example").await;
    assert_eq!(narrowed.json(), json!({ "sessions": [] }));
    desk.get("/v1/users/u-1/sessions?isuer=x").await.is_problem(400, "request-malformed");
    desk.get("/v1/users/%ff/sessions").await.is_problem(400, "request-malformed");
}

#[tokio::test]
async fn a_revocation_by_user_spares_what_came_after_its_time() {
    for time in [json!("2026-11-23T08:15:12Z"), json!(1_795_421_712)] {
        let desk = Desk::open().await;
        let before = desk.session(json!({ "user_id": "u-1" })).await;
        desk.clock.advance(Duration::from_secs(10));
        let after = desk.session(json!({ "user_id": "u-1" })).await;
        desk.clock.advance(Duration::from_secs(10));
        for _ in 0..2 {
            assert_eq!(revoke(&desk, json!({ "user": "u-1", "not_before": time })).await, StatusCode::NO_CONTENT);
        }
        desk.get(&format!("/v1/sessions/{before}")).await.is_problem(404, "session-revoked");
        assert_eq!(sessions_of(&desk, "u-1").await, [json!(after)]);
        assert_eq!(revoke(&desk, json!({ "user": "u-1" })).await, StatusCode::NO_CONTENT);
        assert!(sessions_of(&desk, "u-1").await.is_empty());
        let later = desk.session(json!({ "user_id": "u-1" })).await;
        assert_eq!(sessions_of(&desk, "u-1").await, [json!(later)]);
    }
}

#[tokio::test]
async fn a_revocation_is_of_a_user_or_of_a_token() {
    let desk = Desk::open().await;
    for unfit in [
        json!({}),
        json!({ "user": "u-1", "jti": "t" }),
        json!({ "user": "u-1", "exp": 1 }),
        json!({ "not_before": 1 }),
        json!({ "user": "u-1", "not_before": "yesterday" }),
        json!({ "user": "u-1", "session": "x" }),
        json!({ "jti": "t" }),
        json!({ "jti": "", "exp": 1 }),
        json!({ "jti": "t".repeat(1025), "exp": 1 }),
        json!({ "jti": "t", "exp": 1, "issuer": "x" }),
        json!({ "jti": "t", "exp": 1, "not_before": 1 }),
    ] {
        assert_eq!(revoke(&desk, unfit.clone()).await, StatusCode::UNPROCESSABLE_ENTITY, "{unfit}");
    }
}

#[tokio::test]
async fn a_tokens_revocation_is_in_the_feed_until_the_token_is_over() {
    let desk = Desk::open().await;
    for (exp, stands) in
        [(NOW.seconds() + 600, Some(600)), (NOW.seconds() + 86_400 * 365, Some(86_400 * 365)), (1, None)]
    {
        let before = desk.store.revocations(NOW).await.unwrap().len();
        let body = json!({ "jti": format!("t-{exp}"), "exp": exp });
        assert_eq!(revoke(&desk, body).await, StatusCode::NO_CONTENT);
        let feed = desk.store.revocations(NOW).await.unwrap();
        let added = feed.get(before).map(|revocation| revocation.until.since(NOW).as_secs());
        assert_eq!(added, stands);
        assert!(!serde_json::to_string(&feed).unwrap().contains("t-1"), "a token's id is not written down");
    }
}
