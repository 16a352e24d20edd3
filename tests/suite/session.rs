//! How long sessions live.

mod bound;
pub mod by_token;
mod kept;

use std::time::Duration;

use serde_json::json;

use crate::house::{Answer, Fault, Gate, Guest, House, Plan};

const MINUTE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Routes that differ in what they do about touches and ends.
fn plan() -> Plan {
    Plan::new()
        .route("name: quiet, match: { path: /quiet }, upstream: 'http://BACKEND', touch: never, read: [task]")
        .route("name: once, match: { path: /once }, upstream: 'http://BACKEND', touch: request")
        .route("name: finish, match: { path: /finish }, upstream: 'http://BACKEND', on_revoke: finish, write: [task]")
}

fn asks(house: &House, path: &str, guest: &Guest) -> u16 {
    house.get(path).cookie(guest).send().status
}

fn touches(house: &House) -> u64 {
    house.metric("cloakroom_touches_total")
}

#[test]
fn a_session_that_nobody_uses_ends_after_its_idle_time_and_one_interval() {
    let house = plan().open();
    let guest = house.visitor();
    house.clock.advance(30 * MINUTE + MINUTE - MILLISECOND);
    assert_eq!(asks(&house, "/quiet", &guest), 200);
    house.clock.advance(MILLISECOND);
    let reply = house.get("/quiet").cookie(&guest).send();
    assert!(reply.is(401, "session-not-found").clears_cookie());
    assert_eq!(reply.json()["action"], "reauth");
    house.close();
}

#[test]
fn use_slides_the_idle_expiry_and_never_the_absolute_one() {
    let house = plan().open();
    let guest = house.visitor();
    for _ in 0..28 {
        house.clock.advance(25 * MINUTE);
        assert_eq!(asks(&house, "/chat", &guest), 200);
    }
    house.clock.advance(20 * MINUTE - MILLISECOND);
    assert_eq!(asks(&house, "/chat", &guest), 200);
    house.clock.advance(MILLISECOND);
    house.get("/chat").cookie(&guest).send().is(401, "session-not-found");
    house.close();
}

#[test]
fn a_touch_is_written_once_an_interval_and_not_once_a_request() {
    let house = plan().open();
    let guest = house.visitor();
    house.clock.advance(MINUTE - MILLISECOND);
    for path in ["/chat", "/once", "/quiet"] {
        assert_eq!(asks(&house, path, &guest), 200);
    }
    assert_eq!(touches(&house), 0);
    house.clock.advance(MILLISECOND);
    assert_eq!((asks(&house, "/quiet", &guest), touches(&house)), (200, 0));
    for _ in 0..5 {
        assert_eq!(asks(&house, "/once", &guest), 200);
    }
    assert_eq!(touches(&house), 1);
    assert_eq!(house.trail(&guest).len(), 1, "touches are not audited");
    assert_eq!(house.revision(&guest), 1);
    house.close();
}

#[test]
fn a_set_interval_counts() {
    let house = Plan::new().session("lifetime: { idle: 10m, absolute: 1h, touch_interval: 2m }").open();
    let guest = house.visitor();
    house.clock.advance(2 * MINUTE - MILLISECOND);
    assert_eq!((asks(&house, "/chat", &guest), touches(&house)), (200, 0));
    house.clock.advance(MILLISECOND);
    assert_eq!((asks(&house, "/chat", &guest), touches(&house)), (200, 1));
    house.clock.advance(12 * MINUTE - MILLISECOND);
    assert!(house.load(&guest).is_ok());
    house.clock.advance(MILLISECOND);
    assert!(house.load(&guest).is_err());
    house.close();
}

#[test]
fn an_open_stream_keeps_its_session_alive() {
    let house = plan().open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one");
    for round in 1..=4 {
        house.clock.advance(20 * MINUTE);
        house.until("the stream has touched its session", || touches(&house) == round);
    }
    gate.open();
    assert!(stream.finish().complete);
    assert_eq!(asks(&house, "/quiet", &guest), 200);
    house.close();
}

#[test]
fn a_request_that_waits_for_its_backend_keeps_its_session_alive() {
    let house = plan().open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::set("step=1").held(&gate));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| house.get("/chat").cookie(&guest).send());
        house.backend.wait_for(1);
        for round in 1..=3 {
            house.clock.advance(20 * MINUTE);
            house.until("the request has touched its session", || touches(&house) == round);
        }
        gate.open();
        waiting.join().unwrap().passed();
    });
    assert_eq!(house.field(&guest, "step"), 1);
    house.close();
}

#[test]
fn where_only_requests_touch_an_open_stream_does_not() {
    let house = plan().open();
    let (guest, other) = (house.visitor(), house.visitor());
    let gate = Gate::closed();
    let answer = || Answer::ok().body("one").wait(&gate);
    house.backend.next_to("/once", answer());
    house.backend.next_to("/chat", answer());
    let mut streams = [house.get("/once").cookie(&guest).start(), house.get("/chat").cookie(&other).start()];
    streams.iter_mut().for_each(|stream| assert_eq!(stream.text(), "one"));
    house.clock.advance(20 * MINUTE);
    // The other stream's touch shows that the register was looked through.
    house.until("the other stream has touched its session", || touches(&house) == 1);
    house.clock.advance(11 * MINUTE);
    assert!(house.load(&guest).is_err());
    assert!(house.load(&other).is_ok());
    gate.open();
    streams.into_iter().for_each(|stream| assert!(stream.finish().complete));
    house.close();
}

#[test]
fn a_touch_that_fails_fails_no_request() {
    let house = plan().open();
    let guest = house.visitor();
    house.clock.advance(2 * MINUTE);
    house.faults.set(Fault::Touches);
    assert_eq!((asks(&house, "/chat", &guest), touches(&house)), (200, 0));
    house.close();
}

#[test]
fn an_open_stream_ends_with_its_session() {
    let house = plan().open();
    let gate = Gate::closed();
    let open = |path: &str| {
        let guest = house.visitor();
        house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
        let mut stream = house.get(path).cookie(&guest).start();
        assert_eq!(stream.text(), "one");
        (stream, guest)
    };
    let (revoked, guest) = open("/chat");
    let (mut other, _) = open("/chat");
    house.revoke(&guest);
    assert!(revoked.breaks_off());
    assert!(other.is_silent(), "another's stream stays open");
    let (finishing, guest) = open("/finish");
    house.revoke(&guest);
    gate.open();
    assert!(finishing.finish().complete);
    assert!(other.finish().complete);
    house.close();
}

#[test]
fn a_stream_whose_client_reads_no_more_ends_with_its_session_too() {
    let house = plan().open();
    let guest = house.visitor();
    house.backend.next(Answer::ok().body(&"x".repeat(64 << 20)));
    let mut client = house.raw_with_cookie("GET /chat HTTP/1.1\r\nHost: a\r\n", &guest, "\r\n");
    client.head().unwrap();
    assert_eq!(house.metric("cloakroom_active_requests"), 1);
    house.revoke(&guest);
    house.until("its end", || house.metric("cloakroom_active_requests") == 0);
    house.close();
}

#[test]
fn an_open_stream_ends_at_its_sessions_absolute_expiry() {
    let house = plan().open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).trailer("cloakroom-set", "step=1"));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one");
    house.clock.advance(12 * 60 * MINUTE - MILLISECOND);
    assert!(stream.is_silent());
    house.clock.advance(MILLISECOND);
    assert!(stream.breaks_off());
    gate.open();
    house.close();
}

#[test]
fn a_request_whose_session_is_revoked_while_it_waits_is_401() {
    let house = plan().open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().held(&gate));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| house.get("/chat").cookie(&guest).send());
        house.backend.wait_for(1);
        house.revoke(&guest);
        let reply = waiting.join().unwrap();
        assert!(reply.is(401, "session-revoked").clears_cookie());
    });
    gate.open();
    house.close();
}

#[test]
fn a_request_whose_session_expires_while_it_waits_is_401_and_writes_nothing() {
    let house = plan().open();
    for path in ["/chat", "/finish"] {
        let (guest, arrived) = (house.visitor(), house.backend.count());
        let gate = Gate::closed();
        house.backend.next(Answer::set("step=1").held(&gate));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| house.get(path).cookie(&guest).send());
            house.backend.wait_for(arrived + 1);
            house.clock.advance(12 * 60 * MINUTE);
            if path == "/finish" {
                gate.open();
            }
            let reply = waiting.join().unwrap();
            assert!(reply.is(401, "session-not-found").clears_cookie());
        });
        gate.open();
    }
    house.close();
}

#[test]
fn a_revoked_session_is_revoked_until_its_absolute_expiry_and_unknown_then() {
    let house = House::new();
    let guest = house.visitor();
    house.revoke(&guest);
    let reply = house.get("/chat").cookie(&guest).send();
    assert!(reply.is(401, "session-revoked").clears_cookie());
    house.clock.advance(12 * 60 * MINUTE - MILLISECOND);
    house.get("/chat").cookie(&guest).send().is(401, "session-revoked");
    house.clock.advance(MILLISECOND);
    house.get("/chat").cookie(&guest).send().is(401, "session-not-found");
    house.close();
}

#[test]
fn all_of_a_users_sessions_can_be_revoked_at_once() {
    let house = House::new();
    let of = |user: &str| house.guest(json!({ "user_id": user }));
    let (one, two, other) = (of("u-456"), of("u-456"), of("u-789"));
    house.clock.advance(MILLISECOND);
    house.revoke_user("u-456");
    for guest in [&one, &two] {
        house.get("/chat").cookie(guest).send().is(401, "session-revoked");
    }
    assert_eq!(asks(&house, "/chat", &other), 200);
    assert_eq!(asks(&house, "/chat", &of("u-456")), 200);
    house.close();
}
