use std::time::Duration;

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::desk::{Away, BILLING, Desk, OPERATOR, SENSITIVE};

async fn keys(desk: &Desk) -> Json {
    let answer = desk.get("/v1/keys").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// Id, activity, values and records of each key.
fn told(keys: &Json) -> Vec<(&str, bool, u64, u64)> {
    let keys = keys["keys"].as_array().unwrap().iter();
    let number = |key: &Json, name: &str| key[name].as_u64().unwrap();
    keys.map(|key| {
        (key["id"].as_str().unwrap(), key["active"].as_bool().unwrap(), number(key, "values"), number(key, "records"))
    })
    .collect()
}

async fn swept(desk: &Desk) -> Json {
    let answer = desk.ask("POST", "/v1/keys/reseal", OPERATOR, None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    // The drain waits for the sweep that it tracks, though it lets no page after the current one begin.
    while keys(desk).await["sweep"]["state"] == "running" {
        tokio::task::yield_now().await;
    }
    keys(desk).await
}

#[tokio::test]
async fn a_sweep_seals_anew_what_older_keys_sealed_and_changes_nothing_else() {
    let desk = Desk::open().await;
    let session = desk.session(json!({ "email": SENSITIVE, "phone": "+49 30 1", "note": "n" })).await;
    for _ in 0..300 {
        desk.session(json!({ "email": "x@y.example" })).await;
    }
    let before = desk.show(&session).await;
    let desk = desk.rotated();
    let listed = keys(&desk).await;
    assert_eq!(told(&listed), [("k2", true, 0, 0), ("k1", false, 302, 301)]);
    assert_eq!((&listed["complete"], &listed["sweep"]["state"]), (&json!(true), &json!("idle")));
    assert_eq!(listed["keys"][0]["created_at"], "2026-11-23T08:15:03Z");

    let done = swept(&desk).await;
    assert_eq!(told(&done), [("k2", true, 302, 301), ("k1", false, 0, 301)]);
    let sweep = &done["sweep"];
    assert_eq!(sweep["state"], "done");
    assert_eq!([&sweep["sessions"], &sweep["resealed"], &sweep["skipped"]], [&json!(301), &json!(302), &json!(0)]);
    assert_eq!(desk.show(&session).await, before);

    let record = desk.trail(&session).await[0].clone();
    assert_eq!((&record["action"], &record["actor"]["kind"]), (&json!("reseal"), &json!("cloakroom")));
    assert_eq!((&record["seq"], &record["revision"], &record["key"]), (&json!(2), &json!(1), &json!("k2")));
    let fields: Vec<_> = record["changes"].as_array().unwrap().iter().map(|change| change["field"].clone()).collect();
    assert_eq!(fields, ["email", "phone"]);
    let verdict = desk.get(&format!("/v1/sessions/{session}/audit/verify")).await.json();
    assert_eq!(verdict["whole"], true);

    let handle = before["fields"]["email"]["handle"].clone();
    let wanted = json!({ "handle": handle, "session": session, "purpose": "to see that it opens" });
    assert_eq!(desk.ask("POST", "/v1/handles", BILLING, Some(wanted)).await.json(), json!({ "value": SENSITIVE }));

    let again = swept(&desk).await;
    assert_eq!(again["sweep"]["resealed"], 0);
    assert_eq!(desk.trail(&session).await.len(), 3);
}

#[tokio::test]
async fn a_session_read_before_the_sweep_commits_without_conflict_after_it() {
    use cloakroom::session::{Action, Actor, ActorKind, Proposal};
    let desk = Desk::open().await;
    let session = desk.session(json!({ "email": SENSITIVE })).await;
    let desk = desk.rotated();
    let handle = cloakroom::handle::Handle::parse(&session).unwrap();
    let read = desk.sessions.find(handle).await.unwrap();
    swept(&desk).await;
    let (email, _) = desk.sessions.schema.find("email").unwrap();
    let proposal = Proposal { unset: vec![email], if_match: Some(1), ..Proposal::default() };
    let actor = Actor::new(ActorKind::Backend);
    let committed = desk.sessions.commit(&read, read.base(None), &proposal, Action::Write, &actor).await.unwrap();
    assert_eq!(committed.revision, Some(2));
}

#[tokio::test]
async fn a_sweep_that_the_store_fails_is_stopped_and_may_be_started_again() {
    let desk = Desk::over(std::sync::Arc::new(Away)).await;
    for _ in 0..2 {
        let answer = desk.ask("POST", "/v1/keys/reseal", OPERATOR, None).await;
        assert_eq!((answer.status, answer.json()["state"].clone()), (StatusCode::ACCEPTED, json!("running")));
        // Until the sweep's one page has failed.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(desk.drain.finish(Duration::from_secs(5)).await);
}
