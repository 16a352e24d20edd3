use super::*;

pub(super) const ROUTE: &str = "name: a, upstream: \"http://127.0.0.1:9000\"";
pub(super) const LOCAL: &str = "upstream: \"http://127.0.0.1:9000\"";

/// Asserts that a sound file with this line more is refused, or warned about, at the mark.
#[track_caller]
fn line(line: &str, message: &str) {
    reported(&format!("{SOUND}{line}\n"), &[message]);
}

/// The same for one route, in which `ROUTE` stands for a name and an upstream.
#[track_caller]
pub(super) fn route(route: &str, message: &str) {
    let route = route.replace("ROUTE", ROUTE);
    reported(&format!("{SESSION}routes: [{{ {route} }}]\n"), &[message]);
}

/// The same for the routes.
#[track_caller]
pub(super) fn routes(routes: &str, message: &str) {
    reported(&format!("{SESSION}routes: [{}]\n", routes.replace("LOCAL", LOCAL)), &[message]);
}

#[track_caller]
fn accepted(line: &str) {
    assert_eq!(all(&format!("{SOUND}{line}\n")), []);
}

#[track_caller]
pub(super) fn route_accepted(route: &str) {
    let route = route.replace("ROUTE", ROUTE);
    assert_eq!(all(&format!("{SESSION}routes: [{{ {route} }}]\n")), []);
}

#[test]
fn the_version_is_1() {
    reported(&SOUND.replace("version: 1\ns", "version: ‸2\ns"), &["this version of the format is not known"]);
}

#[test]
fn names_are_lower_case_words() {
    for name in ["Prod", "-a", "_a", "a b", "a.b", "\"\"", "é", "\"a:b\""] {
        line(&format!("environment: ‸{name}"), "this is not a name");
        route(&format!("name: ‸{name}, {LOCAL}"), "this is not a name");
    }
    accepted("environment: 9-staging_2");
}

#[test]
fn routes_are_there_and_have_names_of_their_own() {
    reported(&format!("{SESSION}routes: ‸[]\n"), &["without a route every request is answered with 404"]);
    routes("{ name: a, LOCAL }, { name: ‸a, match: { path: /b }, LOCAL }", "another route has this name already");
}

#[test]
fn addresses_are_hosts_with_ports() {
    const MESSAGE: &str = "this is not an address to listen on";
    for address in [
        "8080",
        "\":8080\"",
        "0.0.0.0",
        "\"0.0.0.0:70000\"",
        "\"0.0.0.0:http\"",
        "\"::1:80\"",
        "\"300.1.1.1:80\"",
        "\"http://a:80\"",
    ] {
        let expected = if address == "8080" { "text is expected here, not a number" } else { MESSAGE };
        line(&format!("listeners: [{{ address: ‸{address} }}]"), expected);
    }
    line("admin: { address: ‸nowhere }", MESSAGE);
    line("status: { address: ‸nowhere }", MESSAGE);
    accepted("listeners: [{ address: \"[::]:8080\" }, { address: \"localhost:8081\" }]");
}

#[test]
fn listeners_are_there_and_do_not_take_each_others_addresses() {
    const MESSAGE: &str = "another listener has this address already";
    line("listeners: ‸[]", "without a listener nothing can arrive");
    line("listeners: [{ address: \"0.0.0.0:80\" }, { address: ‸\"0.0.0.0:80\" }]", MESSAGE);
    line("listeners: [{ address: \"0.0.0.0:80\" }, { address: ‸\"127.0.0.1:80\" }]", MESSAGE);
    line("admin: { address: ‸\"127.0.0.1:8080\" }", MESSAGE);
    line("status: { address: ‸\"127.0.0.1:9900\" }", MESSAGE);
    accepted(
        "listeners: [{ address: \"0.0.0.0:80\" }, { address: \"[::]:80\" }, { address: \"10.0.0.1:81\" }, { address: \"10.0.0.2:81\" }]",
    );
    accepted(
        "listeners: [{ address: \"127.0.0.1:0\" }]\nadmin: { address: \"127.0.0.1:0\" }\nstatus: { address: \"127.0.0.1:0\" }",
    );
}

#[test]
fn an_admin_listener_that_others_reach_is_warned_about() {
    let text = format!("{SOUND}admin: {{ address: \"0.0.0.0:9900\" }}\n");
    let found = all(&text);
    assert_eq!((found.len(), found[0].severity, found[0].column), (1, Severity::Warning, 19));
    accepted("admin: { address: \"[::1]:9900\" }");
    accepted("admin: { address: \"localhost:9900\" }");
}

#[test]
fn bounds_and_lengths_of_time_that_let_nothing_through_are_refused() {
    const NOTHING: &str = "zero would let nothing through";
    const TIME: &str = "a duration above zero is needed here";
    for (text, message) in [
        ("listeners: [{ limits: { connections: ‸0 } }]", NOTHING),
        ("listeners: [{ limits: { connections_per_peer: ‸0 } }]", NOTHING),
        ("listeners: [{ limits: { head: ‸0B } }]", NOTHING),
        ("listeners: [{ limits: { headers: ‸0 } }]", NOTHING),
        ("listeners: [{ limits: { streams: ‸0 } }]", NOTHING),
        ("listeners: [{ limits: { first_byte: ‸0s } }]", TIME),
        ("listeners: [{ limits: { head_time: ‸0s } }]", TIME),
        ("listeners: [{ limits: { keep_alive: ‸0s } }]", TIME),
        ("store: { timeout: ‸0ms }", TIME),
        ("audit: { keep: ‸0 }", NOTHING),
        ("identity: { bad_credentials: { burst: ‸0 } }", NOTHING),
    ] {
        line(text, message);
    }
    for (text, message) in [
        ("timeouts: { connect: ‸0s }", TIME),
        ("timeouts: { response: ‸0s }", TIME),
        ("timeouts: { idle: ‸0s }", TIME),
        ("limits: { concurrency: ‸0 }", NOTHING),
        ("limits: { head: ‸0KiB }", NOTHING),
        ("rate_limits: [{ per: client, rate: 1/s, burst: ‸0 }]", "this is less than 1"),
    ] {
        route(&format!("ROUTE, {text}"), message);
    }
    accepted("shutdown: { grace: 0s, drain: 0s }\nidentity: { bad_credentials: null }");
}

#[test]
fn callers_have_names_tokens_and_fields_of_their_own() {
    let callers = |callers: &str| format!("admin: {{ token: \"${{env:TOKEN}}\", callers: [{callers}] }}");
    let other = "token: \"${env:OTHER}\"";
    for (text, message) in [
        (format!("{{ name: a, {other}, resolve: ‸[] }}"), "a caller that may resolve no field has no use"),
        (format!("{{ name: ‸\" \", {other}, resolve: [a] }}"), "a caller needs a name, for the audit trail"),
        ("{ name: a, token: ‸\"${env:TOKEN}\", resolve: [a] }".into(), "this token is somebody else's already"),
    ] {
        line(&callers(&text), message);
    }
    reported(
        &format!(
            "{SOUND}{}\n",
            callers(&format!(
                "{{ name: a, {other}, resolve: [a] }}, {{ name: ‸a, token: ‸\"${{env:OTHER}}\", resolve: [a] }}"
            ))
        ),
        &["another caller has this name already", "this token is somebody else's already"],
    );
    let warned = read(&format!("{SOUND}admin: {{ token: \"${{env:SHORT}}\" }}\n")).unwrap();
    let warnings = warned.source.diagnose(Problems::default()).render(false);
    assert!(warnings.contains("warning: this token has fewer than 16 characters"), "{warnings}");
    line("admin: { token: \"${env:TOKEN}‸${env:NOWHERE}\" }", "the environment variable `NOWHERE` is not set");
}

#[test]
fn a_token_that_no_header_can_carry_is_refused() {
    let spaced = |_: &str| Some("0123456789 0123456789".to_owned());
    let text = format!("{SOUND}admin: {{ token: \"${{env:A}}\" }}\n");
    let found = parse(&text, Path::new("x"), &spaced).unwrap_err();
    assert!(found.iter().next().unwrap().message.starts_with("this token cannot be sent"));
}

#[test]
fn a_host_cookie_has_no_domain() {
    line("cookie: { domain: ‸example.com }", "browsers drop a `__Host-` cookie that has a domain");
    line("cookie: { domain: ‸\"https://a\" }\nidentity: { session_id: { cookie: sid } }", "this is not a domain");
    accepted("cookie: { domain: example.com }\nidentity: { session_id: { cookie: __Secure-session } }");
    accepted("cookie: { domain: example.com, secure: false }");
}

#[test]
fn a_cookie_for_other_sites_is_secure() {
    line("cookie: { same_site: ‸none, secure: false }", "`none` needs a secure cookie");
    line(
        "cookie: { secure: false }\nidentity: { session_id: { cookie: ‸__Secure-a } }",
        "browsers drop a `__Secure-` cookie that is not secure",
    );
    line("identity: { session_id: { cookie: ‸\"a;b\" } }", "this is not a cookie name");
    accepted("cookie: { same_site: none }");
    accepted("cookie: { secure: false }");
}

#[test]
fn a_session_id_can_arrive_where_a_route_needs_one() {
    let none = "identity: { session_id: ‸{ cookie: null, bearer: false } }";
    line(none, "no session id can arrive, and a route needs one");
    let text = format!("{SESSION}routes: [{{ {ROUTE}, session: none }}]\n{}\n", none.replace(HERE, ""));
    assert_eq!(all(&text), []);
}

#[test]
fn headers_that_mean_something_already_carry_no_session() {
    for name in ["cookie", "Authorization", "connection", "content-length", "x-request-id", "TE"] {
        line(&format!("identity: {{ session_id: {{ header: ‸{name} }} }}"), "this header has a meaning of its own");
        let text = format!("{SESSION}routes: [{{ {ROUTE}, headers: {{ ‸{name}: user_id }} }}]\n");
        reported(&text, &["this header has a meaning of its own"]);
    }
    line("identity: { session_id: { header: ‸\"a b\" } }", "this is not a header name");
    accepted("identity: { session_id: { header: x-session-id } }");
    route_accepted("ROUTE, headers: { X-User-Id: user_id }");
    route("ROUTE, headers: { X-User: user_id, ‸x-user: user_id }", "this header is set already");
    route("ROUTE, headers: { ‸\"a b\": user_id }", "this is not a header name");
}

#[test]
fn the_prefix_swallows_no_header_of_others() {
    for prefix in ["cloakroom", "Cloakroom-", "\"\"", "\"-\"", "\"a b-\""] {
        line(&format!("headers: {{ prefix: ‸{prefix} }}"), "this is not a prefix");
    }
    for (prefix, name) in
        [("x-", "x-content-type-options"), ("content-", "content-disposition"), ("x_-", ""), ("sec-", "sec-fetch-dest")]
    {
        if name.is_empty() {
            accepted(&format!("headers: {{ prefix: {prefix} }}"));
        } else {
            let message = format!("the header `{name}` begins so too, and nobody could send it any more");
            line(&format!("headers: {{ prefix: ‸{prefix} }}"), &message);
        }
    }
    accepted("headers: { prefix: x-session- }");
}

#[test]
fn origins_are_written_as_browsers_send_them() {
    for origin in [
        "null",
        "\"*\"",
        "app.example.com",
        "https://app.example.com/",
        "https://App.example.com",
        "https://a:443",
        "https://u@a",
    ] {
        let expected =
            if origin == "null" { "text is expected here, not nothing" } else { "no browser sends this origin" };
        line(&format!("origins: [‸{origin}]"), expected);
    }
    accepted(
        "origins: [\"https://app.example.com\", \"http://localhost:3000\", \"http://[::1]:3000\", \"capacitor://localhost\"]",
    );
}

#[test]
fn a_bound_on_a_users_sessions_needs_a_user() {
    let session = |bound: &str| SOUND.replace("session: { ", &format!("session: {{ max_per_user: {bound}, "));
    reported(&session("‸5"), &["no field says whose session it is"]);
    let fields = "fields: { u: { type: string, user: true, writable: false }, ";
    sound(&session("5").replace("fields: { ", fields));
    reported(&session("‸0").replace("fields: { ", fields), &["zero would let nothing through"]);
}

#[test]
fn lifetimes_fit_into_each_other() {
    let session = |lifetime: &str| SOUND.replace("session: { ", &format!("session: {{ lifetime: {{ {lifetime} }}, "));
    for (lifetime, message) in [
        ("idle: ‸13h", "the idle lifetime is longer than the absolute one"),
        ("touch_interval: ‸500ms", "a touch every second is the most"),
        ("idle: 1m, touch_interval: ‸1m", "sessions would expire before they are touched"),
        ("idle: ‸0s", "a duration above zero is needed here"),
    ] {
        reported(&session(lifetime), &[message]);
    }
    assert_eq!(all(&session("idle: 1h, absolute: 1h, touch_interval: 1s")), []);
    let limits = SOUND.replace("session: { ", "session: { limits: { field: ‸8KiB }, ");
    reported(&limits, &["one field may be larger than all of them together"]);
}

#[test]
fn keys_beside_the_database_are_warned_about_where_they_were_put_there() {
    let found = all(&format!("{SOUND}keyring: {{ path: ./keyring.json }}\n"));
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
    accepted("keyring: { path: keys/keyring.json }");
    accepted("keyring: { path: null }");
    accepted("keyring: { path: ./keyring.json }\nstore: { kind: memory }");
}

#[test]
fn a_shared_store_needs_a_server_and_keys_that_all_have() {
    const KEYS: &str = "keyring: { path: keys/keyring.json }";
    let redis = |rest: &str| format!("{KEYS}\nstore: {{ kind: redis, {rest} }}");
    line(&format!("{KEYS}\nstore: {{ kind: ‸redis }}"), "this store needs a server");
    line("store: { kind: ‸redis, url: \"redis://redis\" }", "sidecars that share a store need the same keys");
    line("store: { url: ‸\"redis://redis\" }", "only the store `redis` has a server");
    for url in ["redis", "http://redis", "redis://", "redis://redis:x", "redis://redis/first", "redis+sentinel://a"] {
        line(&redis(&format!("url: ‸\"{url}\"")), "this is no URL of a Redis server");
    }
    line(&redis("url: \"redis://redis\", cache: { sessions: ‸0 }"), "zero would let nothing through");
    line(&redis("url: \"redis://redis\", connect_timeout: ‸0s"), "a duration above zero is needed here");
    let nothing = "url: \"redis://redis\", cache: { mode: off }, on_failure: ‸stale";
    line(&redis(nothing), "without a cache there is nothing to serve");
    accepted(&redis("url: \"redis://redis\", on_failure: stale, stale_for: 1m"));
    for url in
        ["redis://10.0.0.1:6379/3", "rediss://[::1]", "redis://u:${env:TOKEN}@redis/0", "rediss+sentinel://a,b:1/c"]
    {
        accepted(&redis(&format!("url: \"{url}\", cache: {{ sessions: 5, mode: ttl }}")));
    }
    let config = sound(&format!("{SOUND}{}\n", redis("url: \"redis://u:${env:TOKEN}@redis/0\"")));
    assert_eq!(config.store.url.unwrap().reveal(), format!("redis://u:{TOKEN}@redis/0"));
}

#[test]
fn several_servers_are_a_cluster_or_sentinels_of_one_service() {
    const KEYS: &str = "keyring: { path: keys/keyring.json }";
    let redis = |rest: &str| format!("{KEYS}\nstore: {{ kind: redis, {rest} }}");
    line(&redis("urls: [\"redis://a\", ‸\"redis://b\"]"), "these are several servers");
    line(
        &redis("cluster: true, urls: [\"redis://a\", ‸\"rediss://b\"]"),
        "this and the first URL differ in more than host and port",
    );
    line(
        &redis("urls: [\"redis+sentinel://a/x\", ‸\"redis+sentinel://b/y\"]"),
        "this and the first URL differ in more than host and port",
    );
    line(&redis("cluster: true, urls: [‸\"redis://a/1\"]"), "a cluster has one database, and no sentinels");
    line(&redis("cluster: true, url: ‸\"redis+sentinel://a/x\""), "a cluster has one database, and no sentinels");
    line(&redis("url: \"redis://a\", ca: ‸ca.crt"), "without TLS nothing is certified; rediss:// speaks it");
    line(
        &redis("url: \"redis://a\", durability: { wait_replicas: 1, timeout: ‸1s }"),
        "this is to be less than store.timeout, of which it is a part",
    );
    for (key, value) in [("cluster", "true"), ("ca", "ca.crt"), ("durability", "{ wait_replicas: 1 }")] {
        line(&format!("store: {{ {key}: ‸{value} }}"), "only the store `redis` has servers to which this applies");
    }
    accepted(&redis("cluster: true, urls: [\"rediss://a\", \"rediss://b:7000\"], ca: ca.crt"));
    accepted(&redis("urls: [\"redis+sentinel://a/x\", \"redis+sentinel://b:1/x\"]"));
    accepted(&redis("url: \"redis://a\", durability: { wait_replicas: 1 }"));
}

#[test]
fn the_log_level_is_a_level_or_a_filter() {
    for level in ["verbose", "warning", "\"\"", "\"info,\"", "\"cloakroom=loud\"", "\"[\""] {
        line(&format!("log: {{ level: ‸{level} }}"), "this is neither a level nor a filter");
    }
    accepted("log: { level: \"info,cloakroom::access=off\" }");
    accepted("log: { level: WARN }");
}

#[test]
fn everybody_as_a_trusted_proxy_is_warned_about() {
    line("trusted_proxies: [10.0.0.0/8, ‸0.0.0.0/0]", "forwarding headers are believed from everybody");
}
