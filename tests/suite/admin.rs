//! The admin and status listeners, asked in process.

mod command;
mod desk;
mod handles;
mod keys;
mod listener;
mod openapi;
mod sessions;
mod users;

use http::StatusCode;
use serde_json::json;

use desk::{Answer, Away, Desk, OPERATOR};

#[tokio::test]
async fn health_readiness_and_figures_need_no_token() {
    let desk = Desk::open().await;
    for on in [Desk::admin as fn(&Desk) -> axum::Router, Desk::status] {
        assert_eq!(desk.plain(on(&desk), "GET", "/healthz").await.status, StatusCode::OK);
        let figures = desk.plain(on(&desk), "GET", "/metrics").await;
        assert_eq!(figures.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert!(figures.text.contains("\ncloakroom_touches_total 0\n"));
        assert_eq!(desk.plain(on(&desk), "GET", "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn readiness_tells_the_reasons() {
    let desk = Desk::open().await;
    let ready = || desk.plain(desk.status(), "GET", "/readyz");
    let checks = json!({ "store": { "ready": false, "reason": "it has not been looked at yet" } });
    let answer = ready().await;
    assert_eq!((answer.status.as_u16(), answer.json()), (503, json!({ "ready": false, "checks": checks })));
    desk.readiness.holds("store");
    let answer = ready().await;
    assert_eq!((answer.status.as_u16(), answer.json()["ready"].clone()), (200, json!(true)));
    desk.readiness.draining();
    assert_eq!(ready().await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_status_listener_has_nothing_else() {
    let desk = Desk::open().await;
    for path in ["/openapi.json", "/v1/sessions", "/v1/keys", "/v1/handles", "/", "/healthz/"] {
        let answer = desk.ask_on(desk.status(), "GET", path, OPERATOR, None).await;
        answer.is_problem(404, "not-found");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_and_nothing_is_cached() {
    let desk = Desk::open().await;
    desk.get("/v1/nothing").await.is_problem(404, "not-found");
    let answer = desk.ask("PUT", "/v1/sessions", OPERATOR, Some(json!({}))).await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "POST");
    for path in ["/healthz", "/v1/nothing", "/openapi.json", "/v1/keys"] {
        assert_eq!(desk.get(path).await.header("cache-control"), "no-store", "{path}");
    }
    let described = desk.plain(desk.admin(), "GET", "/openapi.json").await;
    assert_eq!(described.json()["openapi"], "3.1.0");
}

/// Every endpoint that needs the admin token, by method and path.
fn guarded() -> Vec<(&'static str, String)> {
    let session = format!("/v1/sessions/ses_{}", "A".repeat(22));
    vec![
        ("POST", "/v1/sessions".into()),
        ("GET", session.clone()),
        ("PATCH", session.clone()),
        ("DELETE", session.clone()),
        ("GET", format!("{session}/audit")),
        ("GET", format!("{session}/audit/verify")),
        ("GET", "/v1/users/u-1/sessions".into()),
        ("DELETE", "/v1/users/u-1/sessions".into()),
        ("POST", "/v1/revocations".into()),
        ("GET", "/v1/keys".into()),
        ("POST", "/v1/keys/reseal".into()),
    ]
}

#[tokio::test]
async fn data_is_for_the_admin_token_alone() {
    let desk = Desk::open().await;
    for (method, path) in guarded() {
        let missing = desk.ask(method, &path, None, Some(json!({}))).await;
        missing.is_problem(401, "credential-missing");
        assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"cloakroom\"", "{method} {path}");
        for wrong in
            ["Bearer admin-secret-tokeN", "Bearer admin-secret-token2", "Bearer billing-secret-token", "Bearer "]
        {
            let refused = desk.ask(method, &path, Some(wrong), Some(json!({}))).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {path} {wrong}");
        }
        let basic = desk.ask(method, &path, Some("Basic admin-secret-token"), None).await;
        basic.is_problem(401, "credential-missing");
    }
    for (method, path) in guarded() {
        let passed = desk.ask(method, &path, OPERATOR, Some(json!({}))).await;
        assert!(![401, 403].contains(&passed.status.as_u16()), "{method} {path}");
    }
}

#[tokio::test]
async fn without_a_configured_token_data_is_closed() {
    let desk = Desk::without_tokens().await;
    for (method, path) in guarded() {
        desk.ask(method, &path, OPERATOR, Some(json!({}))).await.is_problem(403, "forbidden");
        desk.ask(method, &path, Some("Bearer "), Some(json!({}))).await.is_problem(403, "forbidden");
    }
    desk.ask("POST", "/v1/handles", desk::BILLING, Some(json!({}))).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn bodies_are_json_of_the_right_shape_and_size() {
    let desk = Desk::open().await;
    let send = |kind, body| desk.send("POST", "/v1/sessions", OPERATOR, kind, body);
    let json_type = Some("application/json");
    for broken in ["", "{", "{} {}", "{\"fields\":}", "\u{feff}{}"] {
        send(json_type, broken.to_owned()).await.is_problem(400, "request-malformed");
    }
    for misshapen in ["[]", "null", "{\"field\":{}}", "{\"fields\":[]}", "{\"lifetime\":{\"idle\":30}}"] {
        send(json_type, misshapen.to_owned()).await.is_problem(422, "unprocessable");
    }
    send(Some("text/plain"), "{}".into()).await.is_problem(415, "unsupported-media-type");
    let large = format!("{{\"fields\":{{\"a\":\"{}\"}}}}", "x".repeat(64 << 10));
    send(json_type, large).await.is_problem(413, "content-too-large");
    // What `curl -d` says is taken from whoever has a token.
    let form = Some("application/x-www-form-urlencoded");
    desk.send("POST", "/v1/sessions", None, form, "{}".into()).await.is_problem(401, "credential-missing");
    let charset = Some("application/json; charset=utf-8");
    for kind in [None, json_type, charset, Some("Application/Merge-Patch+JSON"), form] {
        assert_eq!(send(kind, "{}".into()).await.status, StatusCode::CREATED, "{kind:?}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_without_quoting_it() {
    let desk = Desk::open().await;
    let body = format!("{{\"lifetime\":\"{}\"}}", desk::SENSITIVE);
    let answer: Answer = desk.send("POST", "/v1/sessions", OPERATOR, None, body).await;
    answer.is_problem(422, "unprocessable");
    assert!(answer.text.contains("lifetime"));
}

#[tokio::test]
async fn an_outage_is_told_as_one() {
    let desk = Desk::over(std::sync::Arc::new(Away)).await;
    for (method, path) in guarded() {
        let body = match path.as_str() {
            "/v1/revocations" => json!({ "user": "u-1" }),
            _ => json!({}),
        };
        let answer = desk.ask(method, &path, OPERATOR, Some(body)).await;
        if path != "/v1/keys/reseal" {
            answer.is_problem(503, "store-unavailable");
            assert_eq!(answer.header("retry-after"), "1", "{method} {path}");
        }
    }
}
