//! What clients are told when a request goes no further.

mod grpc;

use serde_json::json;

use crate::house::{Answer, House, Plan};

fn page() -> Plan {
    Plan::new()
        .route(
            "name: page, match: { path: /page }, upstream: 'http://BACKEND', login_url: 'https://login.example/start?a=1'",
        )
        .route(
            "name: vip, match: { path: /vip }, upstream: 'http://BACKEND', \
             require: { auth_status: authenticated, features: beta, notes: null }",
        )
        .route("name: open, match: { path: /open }, upstream: 'http://BACKEND', session: optional, require: { auth_status: anonymous }")
}

#[test]
fn a_problem_says_what_it_is_and_what_to_do() {
    let house = House::new();
    let reply = house.get("/chat").send();
    reply.is(401, "credential-missing");
    let problem = reply.json();
    assert_eq!(problem["status"], 401);
    assert_eq!(problem["action"], "reauth");
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    let logged = house.logged();
    assert!(logged.contains(problem["request_id"].as_str().unwrap()), "the log knows it by the same id");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"cloakroom\""));
    assert_eq!(reply.header("cloakroom-action"), Some("reauth"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let problem = house.get("/nowhere").send().json();
    assert_eq!(problem.get("action"), None);
    house.close();
}

#[test]
fn every_401_has_its_challenge_and_its_action() {
    let house = House::new();
    let guest = house.visitor();
    let unknown = crate::house::Guest::of(&cloakroom::handle::SessionId::random().unwrap().reveal());
    let revoked = house.visitor();
    house.revoke(&revoked);
    for (guest, code, clears) in [
        (&guest.impostor(), "credential-invalid", false),
        (&unknown, "session-not-found", true),
        (&revoked, "session-revoked", true),
    ] {
        let reply = house.get("/chat").cookie(guest).send();
        reply.is(401, code);
        let challenge = "Bearer realm=\"cloakroom\", error=\"invalid_token\"";
        assert_eq!(reply.header("www-authenticate"), Some(challenge), "{code}");
        assert_eq!(reply.header("cloakroom-action"), Some("reauth"), "{code}");
        assert_eq!(reply.json()["action"], "reauth", "{code}");
        assert_eq!(reply.clears_cookie(), clears, "{code}");
        assert_eq!(house.get("/chat").bearer(guest).send().is(401, code).header("set-cookie"), None, "{code}");
    }
    house.close();
}

#[test]
fn requirements_are_403_and_without_a_session_401() {
    let house = page().open();
    let with = |fields| {
        let guest = house.guest(fields);
        house.get("/vip").cookie(&guest).send()
    };
    with(json!({ "auth_status": "authenticated", "features": ["alpha", "beta"] })).passed();
    with(json!({ "features": ["beta"] })).is(403, "forbidden");
    with(json!({ "auth_status": "authenticated", "features": ["alpha"] })).is(403, "forbidden");
    with(json!({ "auth_status": "authenticated", "features": ["beta"], "notes": "n" })).is(403, "forbidden");
    house.get("/vip").send().is(401, "credential-missing");
    house.get("/open").send().is(401, "credential-missing");
    let visitor = house.visitor();
    house.get("/open").cookie(&visitor).send().passed();
    house.close();
}

#[test]
fn a_browser_going_to_a_page_is_sent_to_log_in() {
    let house = page().open();
    let to = |target: &str, accept: &str| house.get(target).header("accept", accept).send();
    let html = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
    let reply = to("/page/x?b=2&c=3", html);
    assert_eq!(reply.status, 303);
    let location = "https://login.example/start?a=1&return_to=%2Fpage%2Fx%3Fb%3D2%26c%3D3";
    assert_eq!(reply.header("location"), Some(location));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    to("/page", "application/json, text/html;q=0.5").is(401, "credential-missing");
    to("/page", "*/*").is(401, "credential-missing");
    to("/chat", html).is(401, "credential-missing");
    house.post("/page").header("accept", html).send().is(401, "credential-missing");
    let upgrade = house.get("/page").header("connection", "upgrade").header("upgrade", "websocket");
    upgrade.header("accept", html).send().is(401, "credential-missing");
    let guest = house.visitor();
    house.revoke(&guest);
    let reply = house.get("/page").cookie(&guest).header("accept", html).send();
    assert_eq!((reply.status, reply.clears_cookie()), (303, true));
    house.close();
}

#[test]
fn the_way_back_begins_with_exactly_one_slash() {
    let house = Plan::new()
        .route("name: all, match: { path: / }, upstream: 'http://BACKEND', login_url: 'https://login.example/'")
        .open();
    for target in ["//evil.example/a", "///evil.example/a", "/evil.example/a"] {
        let reply = house.get(target).header("host", "app.example").header("accept", "text/html").send();
        let location = reply.header("location").unwrap_or_else(|| panic!("{target}: {}", reply.status));
        assert_eq!(location, "https://login.example/?return_to=%2Fevil%2Eexample%2Fa", "{target}");
    }
    house.close();
}

#[test]
fn grpc_has_its_own_statuses() {
    let house = Plan::new()
        .route("name: vip, match: { path: /vip }, upstream: 'http://BACKEND', require: { auth_status: authenticated }")
        .route("name: narrow, match: { path: /narrow }, upstream: 'http://BACKEND', session: none, rate_limits: [{ per: route, rate: 1/h, burst: 1 }]")
        .route("name: gone, match: { path: /gone }, upstream: 'http://127.0.0.1:1', session: none")
        .route("name: slow, match: { path: /slow }, upstream: 'http://BACKEND', session: none, timeouts: { response: 50ms }")
        .open();
    let guest = house.visitor();
    let ask = |path: &str| {
        let reply = house.post(path).header("content-type", "application/grpc+proto").cookie(&guest).send();
        let text = |name| reply.header(name).map(str::to_owned);
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{path}");
        assert_eq!(text("content-type").as_deref(), Some("application/grpc"));
        (text("grpc-status").unwrap(), text("grpc-message").unwrap())
    };
    let is = |path: &str, status: &str, code: &str| assert_eq!(ask(path), (status.to_owned(), code.to_owned()));
    is("/vip", "7", "forbidden");
    is("/nowhere", "12", "route-not-found");
    is("/gone", "14", "upstream-unavailable");
    is("/chat/%2e", "3", "request-malformed");
    let gate = crate::house::Gate::closed();
    house.backend.next_to("/slow", Answer::ok().held(&gate));
    is("/slow", "4", "upstream-timeout");
    gate.open();
    house.post("/narrow").header("content-type", "application/grpc").send();
    is("/narrow", "8", "rate-limited");
    house.backend.next_to("/chat", Answer::set("step=1").header("cloakroom-if-match", "\"9\""));
    is("/chat", "10", "session-conflict");
    house.backend.next_to("/chat", Answer::set("nonsense=1"));
    is("/chat", "14", "write-back-rejected");
    house.faults.set(crate::house::Fault::Down);
    is("/chat", "14", "store-unavailable");
    house.faults.set(crate::house::Fault::None);
    house.revoke(&guest);
    is("/chat", "16", "session-revoked");
    house.close();
}

#[test]
fn a_head_request_is_refused_without_a_body() {
    let house = House::new();
    let reply = house.ask("HEAD", "/chat").send();
    assert_eq!((reply.status, reply.body.len(), reply.complete), (401, 0, true));
    assert_eq!(reply.header("cloakroom-action"), Some("reauth"));
    house.close();
}
