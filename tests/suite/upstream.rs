//! Backends: reached, not reached, slow, wrong.

mod circuit;
mod conformance;
mod protocol;
mod retry;
mod streaming;
mod timeout;
mod tunnel;

use crate::house::{Answer, Gate, House, Plan, RawAnswer};

fn plan() -> Plan {
    Plan::new()
        .route("name: gone, match: { path: /gone }, upstream: 'http://127.0.0.1:1', session: none")
        .route("name: bytes, match: { path: /bytes }, upstream: 'http://RAW', session: none")
        .route("name: slow, match: { path: /slow }, upstream: 'http://BACKEND', session: none, timeouts: { response: 100ms }")
        .route("name: silent, match: { path: /silent }, upstream: 'http://BACKEND', session: none, timeouts: { idle: 100ms }")
}

#[test]
fn a_backend_that_is_not_there_is_502() {
    let house = plan().open();
    let reply = house.get("/gone").send();
    assert_eq!(reply.is(502, "upstream-unavailable").header("retry-after"), None);
    house.close();
}

#[test]
fn a_backend_that_breaks_off_before_its_head_is_502() {
    let house = plan().open();
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Le", "nonsense\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n"] {
        house.raw_backend.next(RawAnswer::close(answer));
        house.get("/bytes").send().is(502, "upstream-unavailable");
    }
    house.close();
}

#[test]
fn a_backend_that_changes_the_protocol_unasked_is_502() {
    let house = plan().open();
    house
        .raw_backend
        .next(RawAnswer::close("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"));
    house.get("/bytes").send().is(502, "upstream-unavailable");
    house.close();
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    let house = plan().open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().held(&gate));
    house.get("/slow").send().is(504, "upstream-timeout");
    gate.open();
    house.close();
}

#[test]
fn a_stream_that_falls_silent_is_ended_abnormally() {
    let house = plan().open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate));
    let mut stream = house.get("/silent").start();
    assert_eq!(stream.text(), "one");
    assert!(stream.breaks_off());
    gate.open();
    house.close();
}

#[test]
fn a_body_that_breaks_off_breaks_off_at_the_client() {
    let house = plan().open();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        house.raw_backend.next(RawAnswer::close(answer));
        assert!(house.get("/bytes").start().breaks_off());
    }
    house.close();
}

#[test]
fn a_response_without_a_length_ends_with_its_connection() {
    let house = plan().open();
    house.raw_backend.next(RawAnswer::close("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nto the end"));
    let reply = house.get("/bytes").send();
    assert_eq!((reply.passed().text(), reply.header("x-old")), ("to the end", Some("1")));
    house.close();
}

#[test]
fn hop_by_hop_headers_of_a_response_end_here() {
    let house = plan().open();
    house.raw_backend.next(RawAnswer::close(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: close\r\nX-Kept: a\r\nX-Kept: b\r\n\r\nok",
    ));
    let reply = house.get("/bytes").send();
    for name in ["x-private", "keep-alive", "proxy-connection"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
    assert_eq!((reply.lines("x-kept"), reply.text()), (vec!["a", "b"], "ok"));
    house.close();
}

#[test]
fn a_connection_is_kept_and_used_again() {
    let house = plan().open();
    for n in 0..3 {
        house.raw_backend.next(RawAnswer::keep(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}")));
        assert_eq!(house.get("/bytes").send().text(), n.to_string());
    }
    assert_eq!(house.raw_backend.connections(), 1);
    house.close();
}

#[test]
fn a_kept_connection_that_the_backend_has_closed_fails_no_request() {
    let house = plan().open();
    for n in 0..5 {
        // It says nothing of closing, and closes.
        house.raw_backend.next(RawAnswer::close(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}")));
        assert_eq!(house.get("/bytes").send().passed().text(), n.to_string());
    }
    house.close();
}

#[test]
fn what_follows_a_response_on_its_connection_is_nobodys_answer() {
    let house = plan().open();
    house.raw_backend.next(RawAnswer::keep(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ));
    assert_eq!(house.get("/bytes").send().text(), "one");
    house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"));
    assert_eq!(house.get("/bytes").send().text(), "two");
    house.close();
}

#[test]
fn statuses_without_a_body_have_none() {
    let house = House::new();
    for status in [204, 304] {
        house.backend.next(Answer::new(status).header("etag", "\"x\"").body(""));
        let reply = house.get("/public").send();
        assert_eq!((reply.status, reply.body.len(), reply.complete), (status, 0, true));
        assert_eq!(reply.header("etag"), Some("\"x\""));
    }
    house.backend.next(Answer::ok().body("twelve bytes"));
    let reply = house.ask("HEAD", "/public").send();
    assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (200, 0, Some("12")));
    house.close();
}

#[test]
fn a_response_head_of_any_usual_size_passes() {
    let house = House::new();
    let value = "x".repeat(60 << 10);
    house.backend.next(Answer::ok().header("x-large", &value));
    assert_eq!(house.get("/public").send().passed().header("x-large"), Some(&*value));
    house.close();
}

#[test]
fn a_large_body_passes_both_ways_unchanged() {
    let house = House::new();
    let body: String = (0..200_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let answer = body.clone();
    house.backend.always(move |_| Answer::ok().body(&answer));
    assert_eq!(house.post("/public").body(&body).send().passed().text(), body);
    assert_eq!(house.backend.last().body, body.as_bytes());
    assert_eq!(house.post("/public").http2().body(&body).send().passed().text(), body);
    assert_eq!(house.backend.last().body, body.as_bytes());
    house.close();
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

fn switching() -> Answer {
    Answer::new(101).header("connection", "upgrade").header("upgrade", "websocket")
}

#[test]
fn an_upgrade_passes_bytes_both_ways_once_the_session_is_proven() {
    let house = House::new();
    house.raw(&format!("{UPGRADE}\r\n")).head().filter(|head| head.starts_with("HTTP/1.1 401")).unwrap();
    assert_eq!(house.backend.count(), 0);
    let guest = house.visitor();
    house.backend.next(switching().header("cloakroom-set", "step=1"));
    let mut client = house.raw_with_cookie(UPGRADE, &guest, "\r\n");
    let head = client.head().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n") && !head.contains("cloakroom"), "{head}");
    assert_eq!(house.field(&guest, "step"), 1, "written before it is passed on");
    let seen = house.backend.last();
    assert_eq!((seen.header("upgrade"), seen.header("cookie")), (Some("websocket"), None));
    assert!(seen.header("cloakroom-session").is_some());
    for word in ["hello", "again"] {
        client.send(word.as_bytes());
        assert_eq!(client.until(&word.to_uppercase()), Some(word.to_uppercase()));
    }
    client.end();
    assert_eq!(client.rest(), "");
    house.close();
}

#[test]
fn a_tunnel_is_closed_when_its_session_is_revoked() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(switching());
    let mut client = house.raw_with_cookie(UPGRADE, &guest, "\r\n");
    client.head().unwrap();
    client.send(b"hello");
    assert_eq!(client.until("HELLO").as_deref(), Some("HELLO"));
    house.revoke(&guest);
    assert_eq!(client.rest(), "");
    house.close();
}

#[test]
fn a_backend_may_decline_an_upgrade() {
    let house = House::new();
    let guest = house.visitor();
    let mut client = house.raw_with_cookie(UPGRADE, &guest, "\r\n");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    drop(client);
    house.close();
}
