//! How long the backend and the client may take, each on its part of an exchange.

use std::time::{Duration, Instant};

use crate::house::{Answer, Gate, House, Plan, RawAnswer};

fn plan(timeouts: &str) -> Plan {
    let of = |name: &str, to: &str| {
        format!(
            "name: {name}, match: {{ path: /{name} }}, upstream: 'http://{to}', session: optional, timeouts: {{ {timeouts} }}"
        )
    };
    Plan::new().route(&of("own", "BACKEND")).route(&of("bytes", "RAW"))
}

const UPLOAD: &str = "POST /own HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends a piece now and then, for `time`.
fn trickle(client: &mut crate::house::RawClient, time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        client.send(b"1\r\na\r\n");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_response_is_waited_for_from_the_end_of_the_request() {
    let house = plan("response: 800ms, idle: 10s").open();
    let mut client = house.raw(UPLOAD);
    trickle(&mut client, Duration::from_millis(1000));
    client.send(b"0\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"), "an upload may take longer");
    let gate = Gate::closed();
    house.backend.next(Answer::ok().held(&gate));
    let mut client = house.raw(UPLOAD);
    trickle(&mut client, Duration::from_millis(60));
    client.send(b"0\r\n\r\n");
    let since = Instant::now();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 504"));
    assert!(since.elapsed() > Duration::from_millis(600));
    gate.open();
    drop(client);
    house.close();
}

#[test]
fn a_client_that_sends_no_more_of_its_request_is_not_waited_for() {
    let house = plan("idle: 100ms").open();
    let mut client = house.raw(UPLOAD);
    client.send(b"1\r\na\r\n");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    client.rest();
    house.close();
}

#[test]
fn a_backend_that_takes_no_more_of_a_request_is_504() {
    let house = plan("idle: 1s").open();
    // It reads the head, and a body larger than any buffer stays unread.
    let gate = Gate::closed();
    house.backend.next(Answer::ok().before_body().held(&gate));
    let body = "x".repeat(16 << 20);
    house.post("/own").body(&body).send().is(504, "upstream-timeout");
    gate.open();
    house.close();
}

#[test]
fn an_upload_that_goes_on_is_no_silence_of_the_response() {
    let house = plan("idle: 1s").open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().before_body().body("one").wait(&gate).body("two"));
    let mut client = house.raw(UPLOAD);
    assert!(client.until("one").is_some());
    trickle(&mut client, Duration::from_millis(1500));
    gate.open();
    assert!(client.until("two").is_some(), "the stream was not broken off");
    client.send(b"0\r\n\r\n");
    drop(client);
    house.close();
}

#[test]
fn a_tunnel_is_open_for_as_long_as_anything_passes() {
    let house = plan("idle: 1s").open();
    let switching = Answer::new(101).header("connection", "upgrade").header("upgrade", "websocket");
    house.backend.next(switching);
    let mut client = house.raw("GET /own HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(house.metric("cloakroom_active_streams"), 1);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(200));
        client.send(b"a");
        assert_eq!(client.until("A").as_deref(), Some("A"));
    }
    let since = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(since.elapsed() > Duration::from_millis(800));
    house.close();
}

#[test]
fn a_body_over_the_routes_bound_is_413_however_it_comes() {
    let route = "name: own, match: { path: /own }, upstream: 'http://BACKEND', session: none, limits: { body: 10B }";
    let house = Plan::new().route(route).open();
    house.post("/own").body("ten bytes.").send().passed();
    house.post("/own").body("eleven byte").send().is(413, "content-too-large");
    let chunked = format!("{UPLOAD}6\r\nsix by\r\n6\r\ntes an\r\n0\r\n\r\n");
    assert_eq!(house.raw_status(&chunked), Some(413));
    assert_eq!(house.backend.count(), 1, "it was never whole");
    house.close();
}

#[test]
fn a_backend_that_stops_within_its_head_is_504() {
    let house: House = plan("response: 100ms").open();
    house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-"));
    house.get("/bytes").send().is(504, "upstream-timeout");
    house.close();
}
