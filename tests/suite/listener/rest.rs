//! Connections on which nothing is asked for a while, and that hold nothing meanwhile.

use std::time::Duration;

use crate::house::{Answer, Authority, House, Plan, RawClient};

/// Longer than it takes until a connection without a request rests.
const A_WHILE: Duration = Duration::from_millis(1300);
const GET: &str = "GET /public HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_connection_goes_on_after_its_rest() {
    let house = House::new();
    house.backend.always(|_| Answer::ok().body("whole"));
    goes_on(&house, house.raw(GET));
    house.close();
}

#[test]
fn so_does_one_of_tls() {
    let authority = Authority::new();
    let house = Plan::new().tls(&authority.issue("app.example"), "").open();
    house.backend.always(|_| Answer::ok().body("whole"));
    let client = house.wire().tls(&authority.client(&[], None), "app.example");
    goes_on(&house, house.raw_over(client, GET.as_bytes()));
    house.close();
}

fn goes_on(house: &House, mut client: RawClient) {
    for _ in 0..2 {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        assert!(client.until("whole").is_some());
        assert!(client.is_silent(A_WHILE));
        // In two pieces, of which the first wakes it.
        client.send(b"GET /pub");
        assert!(client.is_silent(Duration::from_millis(50)));
        client.send(b"lic HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(house.backend.count(), 3);
}

#[test]
fn a_resting_connection_is_closed_when_its_time_is_over_and_with_the_process() {
    let house = Plan::new().listener("limits: { keep_alive: 2s }").open();
    let mut client = house.raw(GET);
    assert!(client.head().is_some());
    client.rest();
    let mut other = house.raw(GET);
    assert!(other.head().is_some());
    assert!(other.is_silent(A_WHILE));
    house.begin_ending();
    house.close();
    other.rest();
}

#[test]
fn the_rest_of_a_body_is_never_taken_for_the_next_request() {
    let house = House::new();
    house.backend.next(Answer::ok().before_body().body("early"));
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = 4 + smuggled.len();
    let mut client = house.raw(&format!("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhalf"));
    assert!(client.until("early").is_some());
    std::thread::sleep(A_WHILE);
    client.send(smuggled.as_bytes());
    client.send(GET.as_bytes());
    client.is_silent(Duration::from_millis(300));
    drop(client);
    house.get("/public/last").send();
    let targets: Vec<_> = house.backend.seen().into_iter().map(|seen| seen.target).collect();
    assert!(targets.iter().all(|target| !target.contains("smuggled")), "{targets:?}");
    house.close();
}
