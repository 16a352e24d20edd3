use std::time::Duration;

use cloakroom::handle::SessionId;
use http::StatusCode;
use serde_json::json;

use super::desk::{Desk, OPERATOR, SENSITIVE};

#[tokio::test]
async fn a_created_session_is_the_clients_to_use_and_shown_with_its_handles() {
    let desk = Desk::open().await;
    let fields =
        json!({ "user_id": "u-1", "email": SENSITIVE, "ui_preferences": { "theme": "dark" }, "features": ["a", 1] });
    let made = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "fields": fields }))).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let body = made.json();
    let id = SessionId::parse(body["session_id"].as_str().unwrap()).unwrap();
    let handle = id.handle().to_string();
    assert_eq!(body["session"], handle);
    assert_eq!((body["revision"].clone(), body["expires_at"].clone()), (json!(1), json!("2026-11-23T08:45:02Z")));
    let cookie = body["set_cookie"].as_str().unwrap();
    assert!(cookie.starts_with(&format!("__Host-session={}; ", body["session_id"].as_str().unwrap())), "{cookie}");
    assert_eq!((made.header("location"), made.header("etag")), (format!("/v1/sessions/{handle}").as_str(), "\"1\""));
    desk.sessions.load(&id).await.unwrap();

    let shown = desk.get(&format!("/v1/sessions/{handle}")).await;
    assert_eq!(shown.header("etag"), "\"1\"");
    let mut document = shown.json();
    let email = document["fields"]["email"].take();
    assert!(email["handle"].as_str().unwrap().starts_with("hdl_"), "{email}");
    assert_eq!(
        document,
        json!({
            "session": handle, "schema": 1, "revision": 1,
            "created_at": "2026-11-23T08:15:02Z", "last_active_at": "2026-11-23T08:15:02Z",
            "expires_at": "2026-11-23T08:45:02Z",
            "fields": { "user_id": "u-1", "email": null, "ui_preferences": { "theme": "dark" }, "features": ["a", 1] },
        })
    );
    let created = &desk.trail(&handle).await[0];
    assert_eq!((created["action"].clone(), created["actor"]["kind"].clone()), (json!("create"), json!("admin")));
}

#[tokio::test]
async fn a_lifetime_may_be_given() {
    let desk = Desk::open().await;
    let expiry = async |lifetime| {
        let made = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "lifetime": lifetime }))).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        made.json()["expires_at"].as_str().unwrap().to_owned()
    };
    assert_eq!(expiry(json!({ "idle": "5m" })).await, "2026-11-23T08:20:02Z");
    assert_eq!(expiry(json!({ "idle": "5m", "absolute": "1m" })).await, "2026-11-23T08:16:02Z");
    assert_eq!(expiry(json!({ "absolute": "1m" })).await, "2026-11-23T08:16:02Z");
    for nothing in [json!({ "idle": "0s" }), json!({ "absolute": "0s" }), json!({ "idle": "soon" })] {
        let refused = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "lifetime": nothing }))).await;
        refused.is_problem(422, "unprocessable");
    }
}

#[tokio::test]
async fn all_fields_that_do_not_fit_are_told_at_once_and_nothing_is_made() {
    let desk = Desk::open().await;
    let fields = json!({
        "user_id": 7, "auth_status": "root", "email": "hdl_x", "step": "4", "note": "x".repeat(2000), "nobody": 1,
        "ui_preferences": { "theme": null, "colour": "red" }, "ui_preferences.language": "en", "features": { "a": 1 },
    });
    let refused = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "fields": fields }))).await;
    refused.is_problem(422, "unprocessable");
    let named = [
        "auth_status",
        "email",
        "features",
        "nobody",
        "note",
        "step",
        "ui_preferences.colour",
        "ui_preferences.language",
        "ui_preferences.theme",
        "user_id",
    ];
    assert_eq!(refused.refused_fields(), named);
    assert!(desk.audited().is_empty());
    let group = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "fields": { "ui_preferences": "x" } }))).await;
    assert_eq!(group.refused_fields(), ["ui_preferences"]);
}

#[tokio::test]
async fn a_session_over_its_size_is_refused_at_birth_and_later() {
    let desk = Desk::open().await;
    let large = "x".repeat(1000);
    let fields = json!({ "note": large, "note_b": large, "note_c": large, "note_d": large, "note_e": large });
    let refused = desk.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "fields": fields }))).await;
    refused.is_problem(422, "unprocessable");
    let session = desk.session(json!({ "note": large, "note_b": large, "note_c": large, "note_d": large })).await;
    desk.patch(&session, json!({ "note_e": large })).await.is_problem(422, "unprocessable");
    assert_eq!(desk.patch(&session, json!({ "note_e": large, "note": null })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_patch_merges_sets_and_unsets() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "user_id": "u-1", "note": "a", "ui_preferences": { "language": "en" } })).await;
    let patch = json!({ "note": null, "step": 4, "features": ["b"], "ui_preferences": { "theme": "dark" } });
    let answer = desk.patch(&session, patch).await;
    assert_eq!((answer.status, answer.header("etag")), (StatusCode::OK, "\"2\""));
    let fields = json!({
        "user_id": "u-1", "step": 4, "features": ["b"], "ui_preferences": { "language": "en", "theme": "dark" },
    });
    assert_eq!((answer.json()["fields"].clone(), answer.json()["revision"].clone()), (fields, json!(2)));
    let group = desk.patch(&session, json!({ "ui_preferences": null })).await;
    assert_eq!(group.json()["fields"].get("ui_preferences"), None);

    let trail = desk.trail(&session).await;
    assert_eq!(trail.iter().map(|record| record["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
    let write = &trail[1];
    assert_eq!((write["action"].clone(), write["actor"]["kind"].clone()), (json!("admin-write"), json!("admin")));
    let theme = write["changes"].as_array().unwrap().iter().find(|change| change["field"] == "ui_preferences.theme");
    assert_eq!(
        *theme.unwrap(),
        json!({ "field": "ui_preferences.theme", "op": "set", "before": null, "after": "dark" })
    );
}

#[tokio::test]
async fn a_patch_that_changes_nothing_writes_nothing() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "step": 4 })).await;
    let whole = desk.show(&session).await;
    for patch in [json!({}), whole, json!({ "fields": { "step": 4, "note": null } })] {
        let answer = desk.ask("PATCH", &format!("/v1/sessions/{session}"), OPERATOR, Some(patch)).await;
        assert_eq!((answer.status, answer.header("etag")), (StatusCode::OK, "\"1\""), "{}", answer.text);
    }
    assert_eq!(desk.trail(&session).await.len(), 1);
}

#[tokio::test]
async fn only_fields_may_change() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "step": 4 })).await;
    let patch = json!({ "revision": 9, "session": null, "colour": "red", "schema": 1, "fields": { "step": "x" } });
    let answer = desk.ask("PATCH", &format!("/v1/sessions/{session}"), OPERATOR, Some(patch)).await;
    answer.is_problem(422, "unprocessable");
    assert_eq!(answer.refused_fields(), ["colour", "revision", "session", "step"]);
    for removed in [json!({ "fields": null }), json!({ "fields": [] })] {
        let answer = desk.ask("PATCH", &format!("/v1/sessions/{session}"), OPERATOR, Some(removed)).await;
        assert_eq!(answer.refused_fields(), ["fields"]);
    }
    assert_eq!(desk.show(&session).await["revision"], 1);
}

#[tokio::test]
async fn a_sensitive_field_takes_a_plain_value_and_its_own_handle_leaves_it_alone() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "email": "old@secret.example" })).await;
    let shown = desk.show(&session).await["fields"]["email"].clone();
    for same in [shown.clone(), json!({})] {
        let answer = desk.patch(&session, json!({ "email": same })).await;
        assert_eq!((answer.status, answer.header("etag")), (StatusCode::OK, "\"1\""));
    }
    let others = [
        json!({ "handle": "hdl_AAAAAAAAAAAAAAAAAAAAAA" }),
        json!({ "handle": null }),
        json!({ "handle": shown["handle"], "more": 1 }),
        shown["handle"].clone(),
    ];
    for other in others {
        let answer = desk.patch(&session, json!({ "email": other })).await;
        answer.is_problem(422, "unprocessable");
        assert_eq!(answer.refused_fields(), ["email"]);
    }
    // A handle where there is no value stands for nothing.
    assert_eq!(desk.patch(&session, json!({ "phone": shown })).await.refused_fields(), ["phone"]);
    let set = desk.patch(&session, json!({ "email": SENSITIVE })).await;
    assert_eq!((set.header("etag"), set.json()["fields"]["email"].clone()), ("\"2\"", shown));
    let unset = desk.patch(&session, json!({ "email": null })).await;
    assert_eq!(unset.json()["fields"], json!({}));
}

#[tokio::test]
async fn if_match_lets_only_its_revision_be_changed() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "step": 1 })).await;
    let patch = async |tag: &str| desk.patch_if(&session, tag, json!({ "step": 2 })).await;
    for other in ["\"2\"", "W/\"1\"", "\"abc\""] {
        patch(other).await.is_problem(412, "session-conflict");
    }
    patch("1").await.is_problem(400, "request-malformed");
    assert_eq!(desk.show(&session).await["revision"], 1);
    assert_eq!(patch("\"1\"").await.header("etag"), "\"2\"");
    patch("\"1\"").await.is_problem(412, "session-conflict");
    assert_eq!(patch("\"9\", \"2\"").await.status, StatusCode::OK);
    assert_eq!(patch("*").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let desk = Desk::open().await;
    let unknown = format!("ses_{}", "A".repeat(22));
    for name in [unknown.as_str(), "nonsense", "ses_%00"] {
        desk.get(&format!("/v1/sessions/{name}")).await.is_problem(404, "session-not-found");
        desk.patch(name, json!({ "step": 1 })).await.is_problem(404, "session-not-found");
        desk.get(&format!("/v1/sessions/{name}/audit")).await.is_problem(404, "session-not-found");
        desk.get(&format!("/v1/sessions/{name}/audit/verify")).await.is_problem(404, "session-not-found");
    }
    let session = desk.session(json!({})).await;
    desk.clock.advance(Duration::from_secs(24 * 3600));
    desk.get(&format!("/v1/sessions/{session}")).await.is_problem(404, "session-not-found");
}

#[tokio::test]
async fn a_revocation_may_be_repeated() {
    let desk = Desk::open().await;
    let session = desk.session(json!({})).await;
    let path = format!("/v1/sessions/{session}");
    for _ in 0..2 {
        let answer = desk.ask("DELETE", &path, OPERATOR, None).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    let never = format!("/v1/sessions/ses_{}", "A".repeat(22));
    assert_eq!(desk.ask("DELETE", &never, OPERATOR, None).await.status, StatusCode::NO_CONTENT);
    desk.get(&path).await.is_problem(404, "session-revoked");
    desk.patch(&session, json!({ "step": 1 })).await.is_problem(404, "session-revoked");
    let trail = desk.trail(&session).await;
    assert_eq!((trail.len(), trail[0]["action"].clone()), (2, json!("revoke")));
}

#[tokio::test]
async fn a_trail_is_paged_newest_first_and_whole() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "step": 0 })).await;
    for step in 1..5 {
        desk.patch(&session, json!({ "step": step })).await;
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk.get(&format!("/v1/sessions/{session}/audit?limit=2{after}")).await.json();
        seen.extend(page["records"].as_array().unwrap().iter().map(|record| record["seq"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    for wrong in ["limit=0", "limit=1001", "limit=x", "after=-1", "colour=red"] {
        desk.get(&format!("/v1/sessions/{session}/audit?{wrong}")).await.is_problem(400, "request-malformed");
    }
    let verdict = desk.get(&format!("/v1/sessions/{session}/audit/verify")).await.json();
    assert_eq!(verdict, json!({ "whole": true, "records": 5, "findings": [], "end_checked": true }));
}
