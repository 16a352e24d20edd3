//! How long sessions live, and what they outlive.

use std::path::Path;
use std::time::Duration;

use cloakroom::keyring::Keyring;
use serde_json::json;

use crate::house::{Answer, BEGIN, Fault, Gate, Guest, House, Plan};

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

#[test]
fn sessions_and_revocations_outlive_the_process() {
    let house = Plan::new().embedded().open();
    house.sensitive("jane@example.org");
    let living = house.guest(json!({ "email": "jane@example.org", "step": 1, "user_id": "u-1" }));
    let (revoked, of_user) = (house.visitor(), house.guest(json!({ "user_id": "u-2" })));
    house.backend.next(Answer::set("step=2"));
    house.get("/chat").cookie(&living).send().passed();
    house.revoke(&revoked);
    house.clock.advance(MILLISECOND);
    house.revoke_user("u-2");
    let handle = house.field_handle(&living, "email");
    let house = house.reopen(Plan::new().embedded());
    house.get("/chat").cookie(&living).send().passed();
    let context = house.backend.last().header("cloakroom-context").unwrap().to_owned();
    assert!(context.contains(&format!("email={handle}")) && context.contains("step=2"), "{context}");
    assert_eq!(house.resolved(&living, "email"), "jane@example.org");
    for guest in [&revoked, &of_user] {
        house.get("/chat").cookie(guest).send().is(401, "session-revoked");
    }
    assert!(house.verify(&living).whole);
    house.close();
}

fn schema(version: u32, fields: &str, migrations: &str, read: &str) -> Plan {
    let text = format!("\n    version: {version}\n    fields: {{ {fields} }}\n    migrations: [ {migrations} ]");
    let route = format!("name: all, upstream: 'http://BACKEND', read: [{read}], write: [{read}]");
    Plan::new().embedded().schema(&text).route(&route)
}

const OLD: &str = "project: { type: string }, step: { type: string }, bad: { type: string }, legacy: { type: string }";
const NEW: &str =
    "current_project_id: { type: string }, step: { type: integer }, bad: { type: integer }, theme: { type: string }";
const MIGRATION: &str = "{ to: 2, rename: { project: current_project_id }, convert: { step: integer, bad: integer }, \
                         set: { theme: light }, drop: [legacy] }";

#[test]
fn an_old_session_is_migrated_when_it_is_read() {
    let house = schema(1, OLD, "", "project").open();
    let guest = house.guest(json!({ "project": "p", "step": "4", "bad": "four", "legacy": "x" }));
    let house = house.reopen(schema(2, NEW, MIGRATION, "current_project_id, step, bad, theme"));
    house.get("/").cookie(&guest).send().passed();
    let seen = house.backend.last();
    let expected = "current_project_id=\"p\", step=4, theme=\"light\"";
    assert_eq!(seen.header("cloakroom-context"), Some(expected));
    assert_eq!((seen.header("cloakroom-etag"), seen.header("cloakroom-schema")), (Some("\"2\""), Some("2")));
    let trail = house.trail(&guest);
    assert_eq!((trail.len(), &trail[1]["action"]), (2, &json!("migrate")));
    house.get("/").cookie(&guest).send().passed();
    assert_eq!(house.revision(&guest), 2, "once");
    house.close();
}

#[test]
fn a_newer_session_is_served_and_what_is_unknown_stays_untouched() {
    let house = schema(2, NEW, MIGRATION, "theme").open();
    let guest = house.guest(json!({ "current_project_id": "p", "step": 4, "theme": "dark" }));
    let house = house.reopen(schema(1, "step: { type: integer }", "", "step"));
    house.backend.next(Answer::set("step=5"));
    house.get("/").cookie(&guest).send().passed();
    let seen = house.backend.last();
    assert_eq!((seen.header("cloakroom-context"), seen.header("cloakroom-schema")), (Some("step=4"), Some("1")));
    let house = house.reopen(schema(2, NEW, MIGRATION, "theme"));
    assert_eq!((house.field(&guest, "current_project_id"), house.field(&guest, "theme")), (json!("p"), json!("dark")));
    assert_eq!((house.field(&guest, "step"), house.revision(&guest)), (json!(5), 2));
    house.close();
}

/// A House whose session has a sealed value, opened again with another keyring beside its own.
fn reopened_with(keys: impl FnOnce(&Path)) -> (House, Guest) {
    let house = Plan::new().embedded().open();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "email": "jane@example.org", "step": 1 }));
    keys(house.path());
    (house.reopen(Plan::new().embedded().section("keyring: { path: other.json }")), guest)
}

#[test]
fn a_value_under_a_key_that_is_not_there_is_an_outage_and_no_absence() {
    let (house, guest) = reopened_with(|folder| {
        let own = std::fs::read_to_string(folder.join("sessions.keyring.json")).unwrap();
        let id = serde_json::from_str::<serde_json::Value>(&own).unwrap()["sealing_keys"][0]["id"].clone();
        let other = folder.join("other.json");
        std::fs::copy(folder.join("sessions.keyring.json"), &other).unwrap();
        std::fs::write(&other, own.replace(id.as_str().unwrap(), "another")).unwrap();
    });
    for path in ["/chat", "/visit"] {
        let reply = house.get(path).cookie(&guest).send();
        reply.is(503, "store-unavailable");
        assert_eq!((reply.header("retry-after"), reply.header("set-cookie")), (Some("1"), None));
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_value_that_does_not_open_under_its_key_is_not_shown() {
    let (house, guest) = reopened_with(|folder| {
        // Keys of the same names, and of other bytes.
        Keyring::load_or_create(&folder.join("other.json"), Duration::ZERO, BEGIN).unwrap();
    });
    house.get("/chat").cookie(&guest).send().passed();
    let context = house.backend.last().header("cloakroom-context").unwrap().to_owned();
    assert!(context.contains("step=1") && !context.contains("email"), "{context}");
    assert!(house.logged().contains("a stored value is not shown"));
    house.close();
}

#[test]
fn an_outage_is_never_a_logout() {
    let house = Plan::new()
        .route("name: page, match: { path: /page }, upstream: 'http://BACKEND', login_url: 'https://login.example/'")
        .open();
    let guest = house.visitor();
    house.faults.set(Fault::Down);
    for path in ["/chat", "/visit", "/login", "/page"] {
        let reply = house.get(path).cookie(&guest).header("accept", "text/html").send();
        reply.is(503, "store-unavailable");
        assert_eq!((reply.header("retry-after"), reply.header("set-cookie")), (Some("1"), None), "{path}");
        assert_eq!((reply.header("cloakroom-action"), reply.header("www-authenticate")), (None, None), "{path}");
    }
    assert_eq!(house.backend.count(), 0);
    house.get("/public").send().passed();
    house.faults.set(Fault::None);
    assert_eq!(asks(&house, "/chat", &guest), 200);
    house.close();
}

#[test]
fn what_cannot_be_written_is_503_or_passes_where_failures_are_ignored() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    house.faults.set(Fault::Writes);
    house.backend.next(Answer::set("step=2"));
    let reply = house.get("/chat").cookie(&guest).send();
    reply.is(503, "store-unavailable");
    assert_eq!((reply.header("retry-after"), reply.header("set-cookie")), (Some("1"), None));
    house.backend.next(Answer::set("step=2"));
    house.get("/lenient").cookie(&guest).send().passed();
    house.backend.next(Answer::new(422).header("cloakroom-set", "step=2"));
    assert_eq!(asks(&house, "/chat", &guest), 422);
    house.backend.next(Answer::ok().header("cloakroom-start", "auth_status=\"authenticated\""));
    let reply = house.get("/login").cookie(&guest).send();
    assert!(!reply.is(503, "store-unavailable").has_new_id());
    house.faults.set(Fault::None);
    assert_eq!(house.field(&guest, "step"), 1);
    house.close();
}
