//! What sessions outlive: the process, their schema, an outage of their store.

use std::path::Path;
use std::time::Duration;

use cloakroom::keyring::Keyring;
use cloakroom::session::{Actor, ActorKind, Moved};
use serde_json::json;

use crate::house::{Answer, BEGIN, Fault, Guest, House, Plan};

use super::{MILLISECOND, asks};

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
fn what_an_older_sidecar_writes_after_a_conversion_is_converted_too() {
    let mut house = schema(2, NEW, MIGRATION, "step").open();
    let guest = house.guest(json!({ "step": 4 }));
    for (written, seen) in [("\"804\"", Some("step=804")), ("\"many\"", None)] {
        let older = house.reopen(schema(1, OLD, "", "step"));
        older.backend.next(Answer::set(&format!("step={written}")));
        older.get("/").cookie(&guest).send().passed();
        house = older.reopen(schema(2, NEW, MIGRATION, "step"));
        house.get("/").cookie(&guest).send().passed();
        assert_eq!(house.backend.last().header("cloakroom-context"), seen);
        assert_eq!(house.trail(&guest).last().unwrap()["action"], "migrate");
    }
    house.close();
}

#[test]
fn what_became_sensitive_is_sealed_on_the_way_to_the_version_that_says_so() {
    let fields = |more: &str| format!("mail: {{ type: string{more} }}, step: {{ type: integer }}");
    let house = schema(1, &fields(""), "", "mail").open();
    let [guest, swept] = [(); 2].map(|()| house.guest(json!({ "mail": "jane@example.org" })));
    let house = house.reopen(schema(2, &fields(", sensitive: true"), "{ to: 2 }", "mail"));
    house.wait_for(async {
        let mut moved = Moved::default();
        house.sessions().reseal(None, &mut moved).await.unwrap();
        assert_eq!((moved.resealed, moved.skipped), (2, 0));
    });
    for guest in [&guest, &swept] {
        house.get("/").cookie(guest).send().passed();
        let shown = format!("mail={}", house.field_handle(guest, "mail"));
        assert_eq!(house.backend.last().header("cloakroom-context"), Some(&*shown));
        assert_eq!(house.resolved(guest, "mail"), json!("jane@example.org"));
    }
    house.close();
}

#[test]
fn no_session_is_given_up_for_one_that_cannot_begin() {
    let house = Plan::new().open();
    let guest = house.visitor();
    let sessions = house.sessions();
    let (keys, until) = (sessions.keys_of_user(None, "u-9"), house.clock.now().plus(Duration::from_secs(60)));
    house.wait_for(sessions.revoke_users(&keys, until, &Actor::new(ActorKind::Admin))).unwrap();
    let start = || Answer::ok().header("cloakroom-start", "user_id=\"u-9\"");
    house.backend.next(start());
    house.get("/login").cookie(&guest).send().is(401, "session-revoked");
    assert!(house.load(&guest).is_ok());
    // A later login is none of what was revoked.
    house.clock.advance(Duration::from_secs(61));
    house.backend.next(start());
    house.get("/login").cookie(&guest).send().passed();
    assert!(house.load(&guest).is_err());
    house.close();
}

#[test]
fn a_value_in_clear_of_a_sensitive_field_is_damage() {
    // The same version, which no session of it can have been written by.
    let fields = |more: &str| format!("mail: {{ type: string{more} }}");
    let house = schema(1, &fields(""), "", "mail").open();
    let guest = house.guest(json!({ "mail": "jane@example.org" }));
    let house = house.reopen(schema(1, &fields(", sensitive: true"), "", "mail"));
    house.get("/").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), None);
    assert_eq!(house.metric("cloakroom_values_damaged_total"), 1);
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
        let (own, other) = (folder.join("sessions.keyring.json"), folder.join("other.json"));
        // Copied first, for a keyring that others can read is refused.
        std::fs::copy(&own, &other).unwrap();
        let mut keys: serde_json::Value = serde_json::from_slice(&std::fs::read(&own).unwrap()).unwrap();
        keys["sealing_keys"][0]["id"] = json!("another");
        std::fs::write(&other, keys.to_string()).unwrap();
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

#[test]
fn a_migration_lays_no_sealed_value_open() {
    let old = "mail: { type: string, sensitive: true }";
    let house = schema(1, old, "", "mail").open();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "mail": "jane@example.org" }));
    let rename = "{ to: 2, rename: { mail: contact } }";
    let house = house.reopen(schema(2, "contact: { type: string }", rename, "contact"));
    house.get("/").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), None);
    let house = house.reopen(schema(2, "contact: { type: string }", rename, "contact"));
    house.get("/").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-etag"), Some("\"2\""));
    house.close();
}
