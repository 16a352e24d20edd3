//! Which requests go where, and which go nowhere.

use crate::house::{House, Plan};

const SHOP: &str = "upstream: 'http://BACKEND', session: none";

fn reached(house: &House, method: &str, host: &str, target: &str) -> (u16, Option<String>) {
    let before = house.backend.count();
    let reply = house.ask(method, target).header("host", host).header("x-tier", "gold").send();
    let target = (house.backend.count() > before).then(|| house.backend.last().target);
    (reply.status, target)
}

#[test]
fn no_route_is_404_and_no_method_405() {
    let house = Plan::new().route(&format!("name: m, match: {{ path: /m, methods: [PUT, GET] }}, {SHOP}")).open();
    house.get("/nowhere").send().is(404, "route-not-found");
    house.get("/chatter").send().is(404, "route-not-found");
    let reply = house.ask("DELETE", "/m").send();
    assert_eq!(reply.is(405, "method-not-allowed").header("allow"), Some("GET, PUT"));
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn the_most_specific_route_wins() {
    let route = |name: &str, matches: &str| {
        format!("name: {name}, match: {{ {matches} }}, rewrite: {{ strip_prefix: true }}, {SHOP}")
    };
    let house = Plan::new()
        .route(&route("any", "path: /s"))
        .route(&route("wild", "host: '*.example', path: /s"))
        .route(&route("host", "host: one.example, path: /s"))
        .route(&route("long", "path: /s/long"))
        .route(&route("method", "path: /s/long, methods: [POST]"))
        .route(&route("tier", "path: /s/long, methods: [POST], headers: { x-tier: gold }"))
        .route(&format!("name: exact, match: {{ path: /s/long, path_type: exact }}, {SHOP}"))
        .open();
    let route_of = |method: &str, host: &str, target: &str| {
        assert_eq!(reached(&house, method, host, target).0, 200);
        let logs = house.logged();
        let last = logs.lines().rfind(|line| line.contains("cloakroom::access")).unwrap().to_owned();
        last.split("route=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    assert_eq!(route_of("GET", "x", "/s/a"), "any");
    assert_eq!(route_of("GET", "two.EXAMPLE:80", "/s/long/a"), "wild");
    assert_eq!(route_of("GET", "One.Example", "/s/long"), "host");
    assert_eq!(route_of("GET", "x", "/s/long/a"), "long");
    assert_eq!(route_of("POST", "x", "/s/long/a"), "tier");
    assert_eq!(route_of("GET", "x", "/s/long"), "exact");
    house.close();
}

#[test]
fn a_prefix_is_stripped_where_the_route_says_so_and_the_rest_stays_as_it_is() {
    let house = Plan::new()
        .route(&format!("name: s, match: {{ path: /strip }}, rewrite: {{ strip_prefix: true }}, {SHOP}"))
        .open();
    let to = |target: &str| reached(&house, "GET", "a", target).1.unwrap();
    assert_eq!(to("/strip/a/b?c"), "/a/b?c");
    assert_eq!(to("/strip"), "/");
    assert_eq!(to("/strip?x=1"), "/?x=1");
    assert_eq!(to("/public/%7e%20a;b=1//c?d=%2F..%2F&e=a/../b"), "/public/%7e%20a;b=1//c?d=%2F..%2F&e=a/../b");
    house.close();
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_400() {
    let house = House::new();
    for path in [
        "/public/a%2fb",
        "/public/a%2Fb",
        "/public/a%5cb",
        "/public/a\\b",
        "/public/../chat",
        "/public/%2e%2e/chat",
        "/public/.%2E/chat",
        "/public/./x",
        "/public/%00",
        "/public/%",
        "/public/%4",
        "/public/%zz",
        "/public/x#y",
        "/public/..;/chat",
        "/public/%2e;x=1/chat",
        "/..",
    ] {
        let status = house.raw_status(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(status, Some(400), "{path}");
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn there_is_exactly_one_valid_host() {
    let house = House::new();
    for lines in [
        "GET /public HTTP/1.1\r\n\r\n",
        "GET /public HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /public HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /public HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET /public HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET http://a/public HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(house.raw_status(lines), Some(400), "{lines:?}");
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn an_absolute_target_overrides_the_host() {
    let house = Plan::new().route(&format!("name: one, match: {{ host: one.example, path: /one }}, {SHOP}")).open();
    let text = "GET http://one.example/one HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n";
    assert_eq!(house.raw_status(text), Some(200));
    assert_eq!(house.backend.last().header("host"), Some("one.example"));
    house.close();
}

#[test]
fn connect_and_trace_are_refused() {
    let house = House::new();
    assert_eq!(house.raw_status("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), Some(400));
    assert_eq!(house.raw_status("TRACE /public HTTP/1.1\r\nHost: a\r\n\r\n"), Some(405));
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_path_that_another_reading_would_send_elsewhere_is_400() {
    let house = House::new();
    for path in ["/ch%61t", "/%63hat/x", "//chat", "/chat;x=1", "/public/..%3b/chat", "/pub%6cic"] {
        let status = house.raw_status(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(status, Some(400), "{path}");
    }
    assert_eq!(house.backend.count(), 0);
    // Where every reading leads to the same route, it is the client's to spell.
    house.get("/public/%61//b;c=1").send().passed();
    assert_eq!(house.backend.last().target, "/public/%61//b;c=1");
    house.close();
}

#[test]
fn the_roots_dot_does_not_lead_around_a_host() {
    let plan = Plan::new()
        .route("name: closed, match: { host: adm.example }, upstream: 'http://BACKEND'")
        .route("name: open, upstream: 'http://BACKEND', session: none");
    let house = plan.open();
    for host in ["adm.example", "adm.example.", "ADM.example.:80"] {
        let status = house.raw_status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(status, Some(401), "{host}");
    }
    house.close();
}
