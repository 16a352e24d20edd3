//! Opaque tokens, and the server that is asked about them.

use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::login::changed;
use crate::house::{BEGIN, House, Issuer, Plan, Says};

const TOKEN: &str = "opaque-token+with/odd~chars=and.one-dot";
const SECRET: &str = "a secret: 100% ü";

fn open(server: &Issuer, more: &str) -> House {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let entry = format!(
        "url: '{}', client_id: 'agents:1', client_secret: '${{file:{}}}', claims: {{ user_id: sub }}",
        server.url("/introspect"),
        path.display()
    );
    let section = format!("identity: {{ bad_credentials: null, introspection: [{{ {entry} }}{more}] }}");
    let house = Plan::new().section(&section).open();
    house.sensitive(SECRET);
    house.sensitive(TOKEN);
    house
}

fn active(changes: Json) -> Says {
    let now = BEGIN.seconds();
    let says =
        json!({ "active": true, "sub": "u-456", "exp": now + 600, "iat": now - 10, "iss": "https://evil.example" });
    Says::Json(changed(says, changes), None)
}

fn bearer(house: &House, token: &str) -> crate::house::Reply {
    house.get("/chat").header("authorization", &format!("Bearer {token}")).send()
}

#[test]
fn an_active_token_leads_to_a_session_and_is_asked_about_once() {
    let server = Issuer::open();
    server.says("/introspect", active(json!({})));
    let house = open(&server, "");
    bearer(&house, TOKEN).passed();
    let seen = house.backend.last();
    assert_eq!(seen.header("authorization"), None);
    assert!(seen.header("cloakroom-context").is_some_and(|context| context.contains("user_id=\"u-456\"")));
    let asked = server.asked("/introspect").remove(0);
    let basic = STANDARD.encode("agents%3A1:a%20secret%3A%20100%25%20%C3%BC");
    assert_eq!(asked.authorization.as_deref(), Some(&*format!("Basic {basic}")));
    assert_eq!(asked.body, "token=opaque-token%2Bwith%2Fodd~chars%3Dand.one-dot&token_type_hint=access_token");
    house.clock.advance(Duration::from_secs(29));
    bearer(&house, TOKEN).passed();
    assert_eq!(server.times_asked("/introspect"), 1);
    house.clock.advance(Duration::from_secs(1));
    bearer(&house, TOKEN).passed();
    assert_eq!(server.times_asked("/introspect"), 2);
    server.says("/introspect", Says::Json(json!({ "active": false }), None));
    house.clock.advance(Duration::from_secs(30));
    bearer(&house, TOKEN).is(401, "credential-invalid");
    bearer(&house, TOKEN).is(401, "credential-invalid");
    assert_eq!(server.times_asked("/introspect"), 3, "a no is remembered too");
    assert_eq!(house.rejected("inactive"), 2);
    house.close();
}

#[test]
fn an_answer_holds_no_longer_than_the_token() {
    let server = Issuer::open();
    server.says("/introspect", active(json!({ "exp": BEGIN.seconds() + 5 })));
    let house = open(&server, "");
    bearer(&house, TOKEN).passed();
    house.clock.advance(Duration::from_secs(5));
    bearer(&house, TOKEN).is(401, "credential-invalid");
    assert_eq!(server.times_asked("/introspect"), 2);
    house.close();
}

#[test]
fn requests_that_come_at_once_ask_once() {
    let server = Issuer::open();
    server.says("/introspect", active(json!({})));
    server.close_gate();
    let house = open(&server, "");
    thread::scope(|scope| {
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(|| bearer(&house, TOKEN).status)).collect();
        house.until("the server is asked", || server.times_asked("/introspect") == 1);
        thread::sleep(Duration::from_millis(50));
        server.open_gate();
        asking.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), 200));
    });
    assert_eq!(server.times_asked("/introspect"), 1);
    house.close();
}

#[test]
fn what_is_no_answer_is_an_outage() {
    let server = Issuer::open();
    let long =
        format!("HTTP/1.1 200 OK\r\ncontent-length: 70000\r\n\r\n{{\"active\":true,\"x\":\"{}\"}}", "x".repeat(69_977));
    let house = open(&server, "");
    for (case, says) in [
        ("401: our secret is wrong", Says::Status(401)),
        ("500", Says::Status(500)),
        ("a redirect", Says::RedirectTo(server.url("/elsewhere"))),
        ("a hang-up", Says::Hangup),
        ("no JSON", Says::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue".to_vec())),
        ("over 64 KiB", Says::Bytes(long.into_bytes())),
        ("active as a text", Says::Json(json!({ "active": "true", "sub": "u" }), None)),
        ("nothing of active", Says::Json(json!({ "sub": "u" }), None)),
        (
            "active twice",
            Says::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"active\":false,\"active\":true}".to_vec()),
        ),
    ] {
        server.says("/introspect", says);
        let reply = bearer(&house, TOKEN);
        assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true), "{case}");
        reply.is(503, "identity-unavailable");
        house.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(server.times_asked("/elsewhere"), 0);
    server.says("/introspect", active(json!({})));
    bearer(&house, TOKEN).passed();
    house.close();
}

#[test]
fn what_an_answer_says_has_to_be_sound() {
    let server = Issuer::open();
    let house = open(&server, "");
    let now = BEGIN.seconds();
    for (n, changes) in [
        json!({ "sub": null }),
        json!({ "sub": 5 }),
        json!({ "exp": now }),
        json!({ "exp": "soon" }),
        json!({ "exp": now as f64 + 5.5 }),
        json!({ "nbf": now + 31 }),
        json!({ "iat": now + 31 }),
    ]
    .into_iter()
    .enumerate()
    {
        server.says("/introspect", active(changes.clone()));
        let reply = bearer(&house, &format!("token-{n}"));
        assert_eq!(reply.status, 401, "{changes}");
    }
    server.says("/introspect", active(json!({ "exp": null, "iat": null })));
    bearer(&house, "without-times").passed();
    house.close();
}

#[test]
fn the_next_server_is_asked_where_one_says_no() {
    let (one, two) = (Issuer::open(), Issuer::open());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let second = format!(
        ", {{ url: '{}', client_id: two, client_secret: '${{file:{}}}' }}",
        two.url("/introspect"),
        path.display()
    );
    let house = open(&one, &second);
    let no = || Says::Json(json!({ "active": false }), None);
    one.says("/introspect", no());
    two.says("/introspect", active(json!({})));
    bearer(&house, "of-the-second").passed();
    // While one is away, nobody knows.
    one.says("/introspect", Says::Status(500));
    two.says("/introspect", no());
    bearer(&house, "of-nobody").is(503, "identity-unavailable");
    two.says("/introspect", active(json!({})));
    bearer(&house, "of-the-second-too").passed();
    house.close();
}

#[test]
fn a_session_id_is_never_asked_about() {
    let server = Issuer::open();
    server.says("/introspect", active(json!({})));
    let house = open(&server, "");
    house.get("/chat").bearer(&house.visitor()).send().passed();
    house.get("/chat").header("authorization", "Basic eDp5").cookie(&house.visitor()).send().passed();
    assert_eq!(house.backend.last().header("authorization"), Some("Basic eDp5"));
    bearer(&house, "cr_x").is(401, "credential-invalid");
    bearer(&house, "two words").is(401, "credential-invalid");
    bearer(&house, &"x".repeat(17 << 10)).is(401, "credential-invalid");
    assert_eq!(server.times_asked("/introspect"), 0);
    house.close();
}
