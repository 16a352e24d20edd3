//! Whose session a request means, and that no credential goes further.

mod attack;
mod introspection;
mod keys;
mod libraries;
pub mod login;

use std::time::Duration;

use serde_json::json;

use crate::house::{Guest, House, Plan};

fn header_plan() -> Plan {
    Plan::new().section("identity: { session_id: { header: X-Key } }")
}

#[test]
fn a_session_id_comes_as_cookie_as_bearer_or_in_a_header() {
    let house = header_plan().open();
    let guest = house.visitor();
    house.get("/chat").cookie(&guest).send().passed();
    house.get("/chat").bearer(&guest).send().passed();
    house.get("/chat").header("authorization", &format!("bEARER  {}", guest.id)).send().passed();
    house.get("/chat").header("x-key", &guest.id).send().passed();
    for seen in house.backend.seen() {
        assert_eq!(seen.header("cloakroom-session"), Some(&*guest.handle.to_string()));
        assert_eq!((seen.header("authorization"), seen.header("cookie"), seen.header("x-key")), (None, None, None));
    }
    house.close();
}

#[test]
fn every_credential_is_taken_out_on_every_route_and_other_cookies_stay_byte_for_byte() {
    let house = header_plan().open();
    let (one, two, three) = (house.visitor(), house.visitor(), house.visitor());
    for path in ["/chat", "/visit", "/public", "/login"] {
        let cookies = format!("a=1;  b=\"x y\" ;__Host-session={}; c;d==; __host-session=other", one.id);
        let ask = house.get(path).header("cookie", &cookies).header("cookie", "e=2").bearer(&two);
        ask.header("x-key", &three.id).send().passed();
        let seen = house.backend.last();
        assert_eq!(seen.lines("cookie"), ["a=1;  b=\"x y\" ; c;d==; __host-session=other", "e=2"], "{path}");
        assert_eq!((seen.header("authorization"), seen.header("x-key")), (None, None), "{path}");
    }
    let handles: Vec<_> =
        house.backend.seen().iter().map(|seen| seen.header("cloakroom-session").map(str::to_owned)).collect();
    let first = Some(one.handle.to_string());
    assert_eq!(handles, [first.clone(), first.clone(), None, first], "the cookie decides");
    house.close();
}

#[test]
fn an_authorization_that_is_not_ours_passes() {
    let house = House::new();
    let guest = house.visitor();
    for value in ["Bearer sk-live-1234567890", "Basic eDp5", "Bearer cr", "AWS4-HMAC-SHA256 Credential=cr_x"] {
        house.get("/chat").cookie(&guest).header("authorization", value).send().passed();
        assert_eq!(house.backend.last().header("authorization"), Some(value));
    }
    house.close();
}

#[test]
fn a_session_id_reaches_no_backend_under_another_scheme_either_and_proves_nothing_there() {
    let house = House::new();
    let guest = house.visitor();
    for value in [guest.id.clone(), format!("Token {}", guest.id), format!("Bearer \"{}\"", guest.id)] {
        house.get("/public").header("authorization", &value).send().passed();
        assert_eq!(house.backend.last().header("authorization"), None);
        house.get("/chat").header("authorization", &value).send().is(401, "credential-missing");
    }
    house.close();
}

#[test]
fn two_credentials_in_one_carrier_are_400() {
    let house = header_plan().open();
    let (one, two) = (house.visitor(), house.visitor());
    let both = format!("__Host-session={}; __Host-session={}", one.id, two.id);
    for path in ["/chat", "/visit", "/public"] {
        house.get(path).cookie(&one).cookie(&two).send().is(400, "request-malformed");
        house.get(path).cookie(&one).cookie(&one).send().is(400, "request-malformed");
        house.get(path).header("cookie", &both).send().is(400, "request-malformed");
        house.get(path).bearer(&one).header("authorization", "Basic eDp5").send().is(400, "request-malformed");
        house.get(path).header("x-key", &one.id).header("x-key", &two.id).send().is(400, "request-malformed");
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_required_session_has_to_be_proven() {
    let house = House::new();
    let guest = house.visitor();
    house.get("/chat").send().is(401, "credential-missing");
    house.get("/chat").cookie(&guest.impostor()).send().is(401, "credential-invalid");
    house.get("/chat").bearer(&guest.impostor()).send().is(401, "credential-invalid");
    let long = format!("cr_{}", "A".repeat(17 << 10));
    for malformed in ["cr_", "cr_short", "nothing", "", &guest.handle.to_string(), &long] {
        let reply = house.get("/chat").header("cookie", &format!("__Host-session={malformed}")).send();
        reply.is(401, "credential-invalid");
        assert!(!reply.clears_cookie());
    }
    house.get("/chat").bearer(&stranger()).send().is(401, "session-not-found");
    assert_eq!(house.backend.count(), 0);
    house.close();
}

fn stranger() -> Guest {
    Guest::of(&cloakroom::handle::SessionId::random().unwrap().reveal())
}

#[test]
fn on_an_optional_route_a_session_that_is_none_counts_as_none() {
    let house = House::new();
    let (living, revoked, expired) = (house.visitor(), house.visitor(), house.visitor());
    house.revoke(&revoked);
    let malformed = house.get("/visit").header("authorization", "Bearer cr_nonsense").send();
    malformed.passed();
    for guest in [living.impostor(), stranger(), revoked] {
        house.get("/visit").cookie(&guest).send().passed();
    }
    house.clock.advance(Duration::from_secs(13 * 3600));
    house.get("/visit").cookie(&expired).send().passed();
    assert_eq!(house.backend.count(), 5);
    for seen in house.backend.seen() {
        assert_eq!(seen.context_names(), [""; 0]);
        assert_eq!((seen.header("authorization"), seen.header("cookie")), (None, None));
    }
    house.close();
}

#[test]
fn on_an_optional_route_a_living_session_is_injected() {
    let house = House::new();
    let guest = house.visitor();
    house.get("/visit").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-session"), Some(&*guest.handle.to_string()));
    house.close();
}

#[test]
fn an_address_with_no_tries_left_gets_in_only_with_what_proved_good_before() {
    let house = Plan::new().section("identity: { bad_credentials: { rate: 1/h, burst: 3 } }").open();
    let (known, unknown) = (house.visitor(), house.visitor());
    house.get("/chat").bearer(&known).send().passed();
    for _ in 0..3 {
        house.get("/chat").bearer(&known.impostor()).send().is(401, "credential-invalid");
    }
    let reply = house.get("/chat").bearer(&known.impostor()).send();
    reply.is(429, "rate-limited");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    house.get("/chat").bearer(&unknown).send().is(429, "rate-limited");
    house.get("/visit").bearer(&unknown).send().is(429, "rate-limited");
    house.get("/chat").bearer(&known).send().passed();
    house.get("/public").bearer(&unknown).send().passed();
    house.get("/chat").send().is(401, "credential-missing");
    house.close();
}

#[test]
fn a_page_of_a_foreign_origin_cannot_use_the_cookie() {
    let house = Plan::new().section("origins: ['https://friend.example']").open();
    let guest = house.visitor();
    let from = |origin: &str| house.post("/chat").cookie(&guest).header("origin", origin).send();
    for origin in ["https://evil.example", "null", "https://app.example.evil.example", "https://app.example:444"] {
        from(origin).is(403, "forbidden");
    }
    for origin in ["https://app.example", "http://app.example", "https://friend.example"] {
        from(origin).passed();
    }
    let cross = |ask: crate::house::Ask<'_>| ask.header("sec-fetch-site", "cross-site").send();
    cross(house.post("/chat").cookie(&guest)).is(403, "forbidden");
    cross(house.get("/chat").cookie(&guest)).passed();
    cross(house.post("/chat").bearer(&guest)).passed();
    house.post("/chat").cookie(&guest).header("sec-fetch-site", "same-site").send().passed();
    house.post("/chat").cookie(&guest).send().passed();
    house.get("/chat").cookie(&guest).header("origin", "https://evil.example").send().passed();
    house.close();
}

#[test]
fn a_page_of_a_foreign_origin_cannot_log_in() {
    let house = House::new();
    house.post("/login").header("origin", "https://evil.example").send().is(403, "forbidden");
    house.post("/login").header("sec-fetch-site", "cross-site").send().is(403, "forbidden");
    house.get("/login").header("origin", "https://evil.example").send().passed();
    house.post("/visit").header("origin", "https://evil.example").send().passed();
    house.close();
}

#[test]
fn a_page_of_a_foreign_origin_cannot_open_a_web_socket() {
    let house = House::new();
    let guest = house.visitor();
    let ask = || house.get("/chat").cookie(&guest).header("connection", "upgrade").header("upgrade", "websocket");
    ask().header("origin", "https://evil.example").send().is(403, "forbidden");
    house.close();
}

#[test]
fn a_preflight_passes_without_a_session_and_takes_nothing_back() {
    let house = Plan::new()
        .route("name: put, match: { path: /chat/put, methods: [PUT] }, upstream: 'http://BACKEND', write: [task]")
        .open();
    let guest = house.guest(json!({ "step": 1 }));
    let ask = |path: &str, method: &str| {
        let ask = house.ask("OPTIONS", path).header("origin", "https://evil.example");
        ask.header("access-control-request-method", method).cookie(&guest)
    };
    house.backend.next(crate::house::Answer::new(200).header("cloakroom-set", "step=2").header("x-kept", "1"));
    let reply = ask("/chat/put", "PUT").send();
    reply.passed();
    assert_eq!((reply.header("cloakroom-set"), reply.header("x-kept")), (None, Some("1")));
    let seen = house.backend.last();
    assert_eq!((seen.context_names(), seen.header("cookie")), (vec![], None));
    assert_eq!(house.revision(&guest), 1);
    ask("/nowhere", "PUT").send().is(404, "route-not-found");
    // Without the method it asks for, it is a request like any other.
    house.ask("OPTIONS", "/chat").header("origin", "https://app.example").send().is(401, "credential-missing");
    house.close();
}
