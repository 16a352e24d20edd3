use super::rules::{LOCAL, ROUTE, route, route_accepted, routes};
use super::*;

#[test]
fn upstreams_are_plain_http_addresses() {
    for upstream in [
        "127.0.0.1:9000",
        "http://",
        "http://a/",
        "http://a/b",
        "http://a?b",
        "http://u@a",
        "http://a:0",
        "http://a:99999",
        "ftp://a",
        "HTTP://a",
    ] {
        route(&format!("name: a, upstream: ‸\"{upstream}\""), "this is not an upstream");
    }
    for local in ["http://127.0.0.1", "http://127.9.9.9:1", "http://localhost:9000", "http://[::1]:9000"] {
        route_accepted(&format!("name: a, upstream: \"{local}\""));
    }
    let found = all(&format!("{SESSION}routes: [{{ name: a, upstream: \"http://backend:9000\" }}]\n"));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
}

#[test]
fn paths_are_such_as_requests_can_have() {
    for (path, message) in [
        ("chat", "a path begins with `/`"),
        ("/a?b", "a path has no query and no fragment"),
        ("\"/a#b\"", "a path has no query and no fragment"),
        ("/a%2Fb", "a path is written here without escapes"),
        ("/a/../b", "a path has no `.` and `..` here"),
        ("/a/.", "a path has no `.` and `..` here"),
        ("'/a\\b'", "this character cannot stand in a path"),
        ("/ü", "this character cannot stand in a path"),
    ] {
        route(&format!("ROUTE, match: {{ path: ‸{path} }}"), message);
    }
    route("ROUTE, match: { path_type: ‸exact }", "there is no path to match exactly");
    route_accepted("ROUTE, match: { path: /v1/chat.completions/..x }");
}

#[test]
fn hosts_methods_and_headers_are_such_as_requests_can_have() {
    for host in ["\"a:80\"", "\"http://a\"", "\"*a\"", "\"a.*.b\"", "\"\""] {
        route(&format!("ROUTE, match: {{ host: ‸{host} }}"), "this is not a host");
    }
    route_accepted("ROUTE, match: { host: \"*.example.com\" }");
    route("ROUTE, match: { methods: [GET, ‸post] }", "methods are written in capitals");
    route("ROUTE, match: { methods: [‸\"A B\"] }", "this is not a method");
    route("ROUTE, match: { methods: [‸CONNECT] }", "`CONNECT` is never forwarded");
    route("ROUTE, match: { headers: { ‸\"a b\": x } }", "this is not a header name");
    route("ROUTE, match: { headers: { x-a: ‸\"a\\nb\" } }", "no header can have this value");
}

#[test]
fn a_route_behind_one_that_takes_all_of_its_requests_is_refused() {
    const MESSAGE: &str = "this route can never be chosen";
    routes("{ name: a, LOCAL }, ‸{ name: b, LOCAL }", MESSAGE);
    for (first, second) in [
        ("{ path: /a }", "{ path: /a }"),
        ("{ path: /a/ }", "{ path: /a }"),
        ("{ path: / }", "{ host: \"*\" }"),
        ("{ host: A.example }", "{ host: a.example }"),
        ("{ methods: [GET, POST] }", "{ methods: [POST] }"),
        ("{ headers: { X-A: b } }", "{ headers: { x-a: b } }"),
    ] {
        routes(&format!("{{ name: a, LOCAL, match: {first} }}, {{ name: b, LOCAL, match: ‸{second} }}"), MESSAGE);
    }
    for (first, second) in [
        ("{ path: /a }", "{ path: /a, path_type: exact }"),
        ("{ path: /a/, path_type: exact }", "{ path: /a, path_type: exact }"),
        ("{ methods: [GET] }", "{ methods: [GET, POST] }"),
        ("{ methods: [GET] }", "{ }"),
        ("{ }", "{ methods: [GET] }"),
        ("{ headers: { x-a: b } }", "{ headers: { x-a: c } }"),
    ] {
        let text = format!("{{ name: a, {LOCAL}, match: {first} }}, {{ name: b, {LOCAL}, match: {second} }}");
        assert_eq!(all(&format!("{SESSION}routes: [{text}]\n")), []);
    }
}

#[test]
fn a_route_without_a_session_uses_none() {
    for used in [
        "‸read: [user_id]",
        "‸write: [user_id]",
        "‸require: { user_id: a }",
        "‸headers: { X-U: user_id }",
        "start: ‸true",
        "end: ‸true",
    ] {
        let used = match used.strip_prefix('‸') {
            Some(rest) => rest.replace(": ", ": ‸"),
            None => used.into(),
        };
        route(
            &format!("ROUTE, session: none, {used}")
                .replace("{ user_id: ‸", "{ user_id: ")
                .replace("{ X-U: ‸", "{ X-U: "),
            "this route has no session",
        );
    }
    route("ROUTE, session: none, rate_limits: [{ per: ‸user, rate: 1/s, burst: 1 }]", "this route has no session");
    route_accepted("ROUTE, session: none, rate_limits: [{ per: client, rate: 1/s, burst: 1 }]");
}

#[test]
fn rate_limits_are_such_as_can_be_counted() {
    let year = "at this rate, what is used up would not be back within a year";
    route("ROUTE, rate_limits: [{ per: user, rate: 1/h, burst: ‸8785 }]", year);
    route_accepted("ROUTE, rate_limits: [{ per: user, rate: 1/h, burst: 8784, scope: local }]");
    let fast = "no more than a thousand million a second can be counted";
    route("ROUTE, rate_limits: [{ per: user, rate: ‸4000000000/s, burst: 1 }]", fast);
    reported(&format!("{SOUND}identity: {{ bad_credentials: {{ rate: 1/h, burst: ‸4000000000 }} }}\n"), &[year]);
    let alone = "a limit of one sidecar does not fail";
    route("ROUTE, rate_limits: [{ per: user, rate: 1/s, burst: 1, on_failure: ‸open }]", alone);
}

#[test]
fn a_limit_that_nobody_shares_is_warned_of() {
    let text = |store: &str| {
        format!(
            "{SESSION}{store}routes: [{{ {ROUTE}, rate_limits: [{{ per: user, rate: 1/s, burst: 1, scope: cluster, on_failure: local }}] }}]\n"
        )
    };
    let found = all(&text(""));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
    assert_eq!(found[0].message, "no other sidecar shares this store; it counts as `local` does");
    let redis = "store: { kind: redis, url: \"redis://127.0.0.1\" }\nkeyring: { path: k.json }\n";
    assert_eq!(all(&text(redis)), []);
}

#[test]
fn a_started_session_can_come_back() {
    let text = |ids: &str, start: &str| {
        format!(
            "{SESSION}identity: {{ session_id: {{ {ids} }} }}\nroutes: [{{ {ROUTE}, session: optional, start: {start} }}]\n"
        )
    };
    let cookie = "the new id would travel in a cookie, and none is allowed";
    reported(&text("cookie: null", "‸true"), &[cookie]);
    reported(&text("cookie: null", "‸{ carry: [user_id] }"), &[cookie]);
    reported(&text("bearer: false", "‸{ id: header }"), &["the client would get an id that it cannot send"]);
    assert_eq!(all(&text("cookie: null", "{ id: header }")), []);
    assert_eq!(all(&text("bearer: true", "true")), []);
}

#[test]
fn the_credentials_of_a_route_are_known_ones() {
    route("ROUTE, identity: [‸password]", "`password` is not one of `session_id`, `jwt`, `introspection`");
    route("ROUTE, identity: [session_id, ‸session_id]", "this kind is in the list already");
    route("ROUTE, identity: ‸[]", "no credential counts on a route that needs one");
    route_accepted("ROUTE, identity: [session_id]");
}

#[test]
fn only_a_prefix_that_is_there_is_stripped() {
    const MESSAGE: &str = "there is no prefix to strip";
    route("ROUTE, rewrite: { strip_prefix: ‸true }", MESSAGE);
    route("ROUTE, match: { path: /a, path_type: exact }, rewrite: { strip_prefix: ‸true }", MESSAGE);
    route_accepted("ROUTE, match: { path: /a }, rewrite: { strip_prefix: true }");
}

#[test]
fn browsers_can_be_sent_to_the_login_page() {
    for url in ["login", "//evil.example", "ftp://a", "https://", "javascript:alert(1)", "'/a\\b'", "\"/a#b\""] {
        route(&format!("ROUTE, login_url: ‸{url}"), "browsers cannot be sent here");
    }
    route_accepted("ROUTE, login_url: /login");
    route_accepted("ROUTE, login_url: \"https://login.example.com:8443/start?a=b\"");
}
