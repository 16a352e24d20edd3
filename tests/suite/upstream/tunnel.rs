//! Connections that have changed protocol, and their session.

use std::time::Duration;

use crate::house::{Answer, Gate, Guest, House, Plan, RawClient};

const MINUTE: Duration = Duration::from_secs(60);

fn house() -> House {
    let finish = "name: finish, match: { path: /finish }, upstream: 'http://BACKEND', on_revoke: finish";
    Plan::new().session("lifetime: { idle: 30m, absolute: 12h }").route(finish).open()
}

/// A tunnel that passes bytes.
fn tunnel(house: &House, path: &str, guest: &Guest) -> RawClient {
    house.backend.next_to(path, Answer::new(101).header("connection", "upgrade").header("upgrade", "websocket"));
    let lines = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
    let mut client = house.raw_with_cookie(&lines, guest, "\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert!(echoes(&mut client));
    client
}

fn echoes(client: &mut RawClient) -> bool {
    client.send(b"ping");
    client.until("PING").is_some()
}

#[test]
fn an_open_tunnel_keeps_its_session_alive() {
    let house = house();
    let guest = house.visitor();
    let mut client = tunnel(&house, "/chat", &guest);
    for round in 1..=3 {
        house.clock.advance(20 * MINUTE);
        house.until("the tunnel has touched its session", || house.metric("cloakroom_touches_total") == round);
    }
    assert!(echoes(&mut client));
    client.end();
    assert_eq!(client.rest(), "");
    assert!(house.load(&guest).is_ok());
    house.close();
}

#[test]
fn a_tunnel_ends_at_its_sessions_absolute_expiry() {
    let house = house();
    let guest = house.visitor();
    let mut client = tunnel(&house, "/chat", &guest);
    house.clock.advance(12 * 60 * MINUTE);
    assert_eq!(client.rest(), "");
    house.close();
}

#[test]
fn a_tunnel_may_outlive_its_session_where_the_route_says_so() {
    let house = house();
    let guest = house.visitor();
    let mut client = tunnel(&house, "/finish", &guest);
    let mut other = tunnel(&house, "/chat", &guest);
    house.revoke(&guest);
    assert_eq!(other.rest(), "", "the register was looked through");
    assert!(echoes(&mut client));
    client.end();
    assert_eq!(client.rest(), "");
    house.close();
}

#[test]
fn a_tunnel_whose_client_reads_no_more_ends_with_its_session_too() {
    let house = house();
    let guest = house.visitor();
    let mut client = tunnel(&house, "/chat", &guest);
    // What comes back fills every buffer, and then nothing moves.
    client.send_until_full();
    house.revoke(&guest);
    house.until("its end", || house.metric("cloakroom_active_streams") == 0);
    house.close();
}

#[test]
fn an_open_tunnel_may_end_while_the_process_does() {
    let house = house();
    let guest = house.visitor();
    let mut client = tunnel(&house, "/chat", &guest);
    house.begin_ending();
    assert!(echoes(&mut client), "it is not cut off");
    client.end();
    assert_eq!(client.rest(), "");
    house.close();
}

#[test]
fn a_stream_over_http_2_ends_with_its_session_and_the_connection_does_not() {
    let house = house();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate));
    let mut stream = house.get("/chat").cookie(&guest).http2().start();
    assert_eq!(stream.text(), "one");
    house.revoke(&guest);
    let error = stream.broken().expect("it breaks off");
    assert!(error.contains("stream error"), "{error}");
    gate.open();
    house.close();
}
