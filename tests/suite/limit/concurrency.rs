//! How long a request holds its place among those in flight.

use crate::house::{Answer, Gate, House, Plan};

/// A route for one at a time.
fn one() -> House {
    let base = "match: { path: /one }, upstream: 'http://BACKEND', limits: { concurrency: 1 }";
    Plan::new()
        .route(&format!("name: one, session: optional, {base}"))
        .route("name: vip, match: { path: /vip }, upstream: 'http://BACKEND', limits: { concurrency: 1 }, require: { user_id: ada }")
        .open()
}

const UPGRADE: &str = "GET /one HTTP/1.1\r\nHost: app.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

fn is_full(house: &House) {
    assert_eq!(house.get("/one").send().is(503, "overloaded").header("retry-after"), Some("1"));
}

fn becomes_free(house: &House) {
    house.until("the place is free", || house.get("/one").send().status == 200);
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let house = one();
    for http2 in [false, true] {
        let gate = Gate::closed();
        // In the middle of a stream that says nothing more.
        house.backend.next_to("/one", Answer::ok().body("first").wait(&gate));
        let ask = house.get("/one");
        let mut stream = if http2 { ask.http2() } else { ask }.start();
        assert_eq!(stream.text(), "first");
        is_full(&house);
        drop(stream);
        becomes_free(&house);
        gate.open();
    }
    // Before there is an answer.
    let (gate, before) = (Gate::closed(), house.backend.count());
    house.backend.next_to("/one", Answer::ok().held(&gate));
    house.get("/one").leave_once(|| {
        house.backend.wait_for(before + 1);
        is_full(&house);
    });
    becomes_free(&house);
    gate.open();
    house.close();
}

#[test]
fn a_backend_that_breaks_off_gives_the_place_back() {
    let house = one();
    let gate = Gate::closed();
    house.backend.next_to("/one", Answer::ok().body("first").wait(&gate).break_off());
    let mut stream = house.get("/one").start();
    assert_eq!(stream.text(), "first");
    gate.open();
    assert!(stream.breaks_off());
    becomes_free(&house);
    house.close();
}

#[test]
fn an_open_web_socket_holds_its_place() {
    let house = one();
    let guest = house.visitor();
    let switching = || Answer::new(101).header("connection", "upgrade").header("upgrade", "websocket");
    for revoked in [false, true] {
        house.backend.next_to("/one", switching());
        let mut client = house.raw_with_cookie(UPGRADE, &guest, "\r\n");
        client.head().unwrap();
        client.send(b"hello");
        assert_eq!(client.until("HELLO").as_deref(), Some("HELLO"));
        is_full(&house);
        if revoked {
            house.revoke(&guest)
        } else {
            client.end()
        }
        becomes_free(&house);
    }
    house.close();
}

#[test]
fn who_is_refused_takes_no_place() {
    let house = one();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next_to("/one", Answer::ok().body("first").wait(&gate));
    let mut stream = house.get("/one").start();
    assert_eq!(stream.text(), "first");
    for _ in 0..3 {
        is_full(&house);
        house.get("/vip").cookie(&guest).send().is(403, "forbidden");
        house.get("/vip").send().is(401, "credential-missing");
    }
    gate.open();
    assert!(stream.finish().complete);
    becomes_free(&house);
    house.close();
}

#[test]
fn answers_without_a_body_hold_no_place() {
    let house = one();
    for _ in 0..5 {
        house.backend.next_to("/one", Answer::new(204).body(""));
        assert_eq!(house.get("/one").send().status, 204);
        house.until("the record is closed", || house.metric("cloakroom_active_requests") == 0);
        assert_eq!(house.ask("HEAD", "/one").send().status, 200);
        house.until("the record is closed", || house.metric("cloakroom_active_requests") == 0);
    }
    house.close();
}
