//! A backend that is down, and comes back.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::house::{Answer, House, Plan};

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn house(port: u16) -> House {
    let own = |name: &str| {
        format!("name: {name}, match: {{ path: /{name} }}, upstream: 'http://127.0.0.1:{port}', session: none")
    };
    Plan::new().route(&own("own")).route(&own("other")).open()
}

#[test]
fn a_backend_that_is_down_turns_requests_away_on_all_its_routes_and_is_back_at_once() {
    let port = closed_port();
    let house = house(port);
    house.get("/own").send().is(502, "upstream-unavailable");
    house.until("requests are turned away", || house.get("/own").send().status == 503);
    let reply = house.get("/other").send();
    assert_eq!(reply.is(503, "upstream-unavailable").header("retry-after"), Some("1"));
    house.get("/public").send().passed();
    let told = |report: &serde_json::Value| report["checks"]["backends"]["reason"].as_str().map(str::to_owned);
    house.until("it is told of", || told(&house.readyz().1).is_some_and(|reason| reason.contains(&port.to_string())));
    assert_eq!(house.readyz().0, 200);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let since = Instant::now();
    house.until("it is tried again", || house.get("/own").send().status == 200);
    assert!(since.elapsed() < Duration::from_secs(10));
    for _ in 0..3 {
        house.get("/other").send().passed();
    }
    house.until("it is told of no more", || told(&house.readyz().1).is_none());
    house.close();
}

#[test]
fn while_it_is_down_callers_wait_for_nothing() {
    // Nobody answers there, and nobody refuses: an address for documentation (RFC 5737).
    let route =
        "name: own, match: { path: /own }, upstream: 'http://192.0.2.1:9', session: none, timeouts: { connect: 150ms }";
    let house = Plan::new().route(route).open();
    let (mut slow, begun) = (0, Instant::now());
    for _ in 0..12 {
        let since = Instant::now();
        let status = house.get("/own").send().status;
        assert!(status == 502 || status == 503, "{status}");
        slow += u64::from(since.elapsed() > Duration::from_millis(140));
    }
    let tries = begun.elapsed().as_secs();
    assert!(slow <= 3 + tries, "{slow} of 12 have waited, in {tries} s");
    house.close();
}

#[test]
fn what_a_backend_answers_and_how_late_never_counts() {
    let house = Plan::new()
        .route(
            "name: own, match: { path: /own }, upstream: 'http://BACKEND', session: none, timeouts: { response: 1s }",
        )
        .open();
    for _ in 0..4 {
        let gate = crate::house::Gate::closed();
        house.backend.next(Answer::ok().held(&gate));
        house.get("/own").send().is(504, "upstream-timeout");
        gate.open();
        house.backend.next(Answer::new(500));
        assert_eq!(house.get("/own").send().status, 500);
    }
    house.get("/own").send().passed();
    house.close();
}
