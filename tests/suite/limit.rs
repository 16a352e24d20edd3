//! How much may be asked for.

mod cluster;
mod concurrency;

use serde_json::json;

use crate::house::{Answer, Gate, Guest, House, Plan, Reply};

fn limited(per: &str) -> House {
    Plan::new()
        .route(&format!(
            "name: few, match: {{ path: /few }}, upstream: 'http://BACKEND', session: optional, \
             rate_limits: [{{ per: {per}, rate: 1/h, burst: 2 }}]"
        ))
        .open()
}

fn few(house: &House, guest: &Guest) -> Reply {
    house.get("/few").bearer(guest).send()
}

#[test]
fn over_a_rate_is_429_and_says_how_long_to_wait() {
    let house = limited("client");
    house.get("/few").send().passed();
    house.get("/few").send().passed();
    let reply = house.get("/few").send();
    reply.is(429, "rate-limited");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((3590..=3600).contains(&wait), "{wait}");
    assert_eq!(reply.header("ratelimit"), Some(&*format!("\"client\";r=0;t={wait}")));
    assert_eq!(reply.header("ratelimit-policy"), Some("\"client\";q=2;w=7200"));
    assert_eq!(house.metric("cloakroom_rate_limited_total{route=\"few\",per=\"client\"}"), 1);
    house.get("/public").send().passed();
    house.close();
}

#[test]
fn a_route_is_limited_for_all_together() {
    let house = limited("route");
    let guest = house.visitor();
    few(&house, &guest).passed();
    house.get("/few").send().passed();
    assert_eq!(few(&house, &guest).is(429, "rate-limited").header("ratelimit-policy"), Some("\"route\";q=2;w=7200"));
    house.close();
}

#[test]
fn a_sessions_limit_is_used_up_by_its_owner_only() {
    let house = limited("session");
    let (guest, other) = (house.visitor(), house.visitor());
    for _ in 0..5 {
        few(&house, &guest.impostor());
    }
    few(&house, &guest).passed();
    few(&house, &guest).passed();
    few(&house, &guest).is(429, "rate-limited");
    few(&house, &other).passed();
    house.get("/few").send().passed();
    house.close();
}

#[test]
fn a_users_sessions_share_their_limit() {
    let house = limited("user");
    let of = |user: &str| house.guest(json!({ "user_id": user }));
    let (one, two, other) = (of("u-1"), of("u-1"), of("u-2"));
    few(&house, &one).passed();
    few(&house, &two).passed();
    few(&house, &one).is(429, "rate-limited");
    few(&house, &other).passed();
    let visitor = house.visitor();
    for _ in 0..3 {
        few(&house, &visitor).passed();
    }
    house.close();
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let house = Plan::new()
        .section("trusted_proxies: [127.0.0.1/32]")
        .route("name: few, match: { path: /few }, upstream: 'http://BACKEND', session: none, rate_limits: [{ per: client, rate: 1/h, burst: 1 }]")
        .open();
    let from = |client: &str| house.get("/few").header("x-forwarded-for", client).send().status;
    assert_eq!((from("203.0.113.1"), from("203.0.113.2"), from("203.0.113.1")), (200, 200, 429));
    assert_eq!((from("2001:db8::1"), from("2001:db8::2"), from("2001:db8:0:1::1")), (200, 429, 200));
    house.close();
}

#[test]
fn over_its_concurrency_a_route_is_overloaded_until_somebody_is_done() {
    let house = Plan::new()
        .route(
            "name: one, match: { path: /one }, upstream: 'http://BACKEND', session: none, limits: { concurrency: 1 }",
        )
        .open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("first").wait(&gate));
    let mut stream = house.get("/one").start();
    assert_eq!(stream.text(), "first");
    let reply = house.get("/one").send();
    assert_eq!(reply.is(503, "overloaded").header("retry-after"), Some("1"));
    gate.open();
    assert!(stream.finish().complete);
    house.until("the place is free", || house.metric("cloakroom_active_requests") == 0);
    house.get("/one").send().passed();
    house.close();
}

#[test]
fn a_body_over_its_bound_is_413() {
    let house = Plan::new()
        .route("name: small, match: { path: /small }, upstream: 'http://BACKEND', session: none, limits: { body: 10B }")
        .open();
    house.post("/small").body("0123456789").send().passed();
    house.post("/small").body("0123456789x").send().is(413, "content-too-large");
    assert_eq!(house.backend.count(), 1, "a length that is too large goes no further");
    // Without a length it shows on the way.
    house.post("/small").body("0123456789x").trailer("x-sum", "1").send().is(413, "content-too-large");
    assert_eq!(house.backend.count(), 1);
    house.close();
}

#[test]
fn a_head_over_its_listeners_bound_is_431_however_small_that_is() {
    for (bound, http2) in [("1KiB", false), ("1KiB", true), ("16KiB", false)] {
        let house = Plan::new().listener(&format!("limits: {{ head: {bound} }}")).open();
        let bytes = if bound == "1KiB" { 1 << 10 } else { 16 << 10 };
        for (large, status) in [(bytes / 2, 200), (bytes, 431)] {
            let ask = house.get("/public").header("x-large", &"x".repeat(large));
            let ask = if http2 { ask.http2() } else { ask };
            assert_eq!(ask.send().status, status, "{bound} {http2}");
        }
        assert_eq!(house.backend.count(), 1);
        house.close();
    }
}

#[test]
fn a_head_over_its_bound_is_431() {
    let house = Plan::new()
        .route(
            "name: small, match: { path: /small }, upstream: 'http://BACKEND', session: none, limits: { head: 1KiB }",
        )
        .open();
    house.get("/small").header("x-large", &"x".repeat(300)).send().passed();
    house.get("/small").header("x-large", &"x".repeat(1000)).send().is(431, "headers-too-large");
    assert_eq!(house.backend.count(), 1);
    house.close();
}
