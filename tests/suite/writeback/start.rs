//! Sessions that backends begin, renew and end.

use std::time::Duration;

use serde_json::json;

use crate::house::{Answer, Gate, Guest, House, Plan, Reply};

fn starts(fields: &str) -> Answer {
    Answer::ok().header("cloakroom-start", fields)
}

fn login(house: &House, guest: Option<&Guest>) -> Reply {
    house.backend.next(starts("user_id=\"u-456\", auth_status=\"authenticated\""));
    let ask = house.post("/login");
    match guest {
        Some(guest) => ask.cookie(guest).send(),
        None => ask.send(),
    }
}

fn is_dead(house: &House, guest: &Guest) {
    house.get("/chat").cookie(guest).send().is(401, "session-revoked");
}

#[test]
fn a_session_begins_with_its_fields_and_its_cookie() {
    let house = House::new();
    let reply = login(&house, None);
    assert_eq!(reply.passed().header("cache-control"), Some("no-store"));
    let cookie = reply.header("set-cookie").unwrap().to_owned();
    let guest = reply.guest();
    let mut parts: Vec<_> = cookie.split("; ").collect();
    parts.sort_unstable();
    let value = format!("__Host-session={}", guest.id);
    assert_eq!(parts, ["HttpOnly", "Path=/", "SameSite=Lax", "Secure", &*value]);
    house.get("/chat").cookie(&guest).send().passed();
    let seen = house.backend.last();
    assert!(seen.header("cloakroom-context").unwrap().starts_with("user_id=\"u-456\", auth_status=\"authenticated\""));
    assert_eq!(seen.header("cloakroom-etag"), Some("\"1\""));
    let trail = house.trail(&guest);
    assert_eq!((trail.len(), &trail[0]["action"], &trail[0]["base"]), (1, &json!("create"), &json!(0)));
    house.close();
}

#[test]
fn an_id_that_cloakroom_did_not_make_is_never_adopted() {
    let house = House::new();
    let chosen = Guest::of(&cloakroom::handle::SessionId::random().unwrap().reveal());
    let made = login(&house, Some(&chosen)).guest();
    assert_ne!(made.handle, chosen.handle);
    house.get("/chat").cookie(&chosen).send().is(401, "session-not-found");
    // The name of a living session with another secret neither ends it nor takes it over.
    let victim = house.visitor();
    let made = login(&house, Some(&victim.impostor())).guest();
    assert_ne!(made.handle, victim.handle);
    house.get("/chat").cookie(&victim).send().passed();
    house.close();
}

#[test]
fn the_session_before_dies_at_once_and_hands_on_only_what_may_be_carried() {
    let house = House::new();
    let visitor = house.guest(json!({ "ui_preferences.theme": "dark", "ui_preferences.language": "fr", "step": 3 }));
    let guest = login(&house, Some(&visitor)).guest();
    assert_ne!(guest.handle, visitor.handle);
    assert_eq!(house.field(&guest, "ui_preferences.theme"), "dark");
    assert_eq!(
        (house.field(&guest, "ui_preferences.language"), house.field(&guest, "step")),
        (json!("en"), json!(null))
    );
    is_dead(&house, &visitor);
    house.close();
}

#[test]
fn another_users_state_is_never_carried() {
    let house = House::new();
    let before = house.guest(json!({ "user_id": "u-1", "ui_preferences.theme": "dark" }));
    let guest = login(&house, Some(&before)).guest();
    assert_eq!(house.field(&guest, "ui_preferences.theme"), "light");
    is_dead(&house, &before);
    house.close();
}

#[test]
fn what_the_start_sets_wins_over_what_is_carried() {
    let house = House::new();
    let visitor = house.guest(json!({ "ui_preferences.theme": "dark" }));
    house.backend.next(starts("ui_preferences.theme=\"light\", features=(\"beta\")"));
    let guest = house.get("/login").cookie(&visitor).send().guest();
    assert_eq!(house.field(&guest, "ui_preferences.theme"), "light");
    assert_eq!(house.field(&guest, "features"), json!(["beta"]), "writable: false fields may be set at birth");
    house.close();
}

#[test]
fn a_new_id_travels_as_the_old_one_came() {
    let house = Plan::new().section("identity: { session_id: { header: X-Key } }").open();
    let start = |ask: crate::house::Ask<'_>| {
        house.backend.next(starts("auth_status=\"authenticated\""));
        let reply = ask.send();
        assert_eq!(reply.passed().header("cache-control"), Some("no-store"));
        (reply.header("set-cookie").is_some(), reply.header("cloakroom-session-id").is_some())
    };
    let guest = || house.visitor();
    assert_eq!(start(house.get("/token")), (false, true), "the route's own choice");
    assert_eq!(start(house.get("/login")), (true, false), "the default");
    assert_eq!(start(house.get("/login").bearer(&guest())), (false, true));
    let other = guest();
    assert_eq!(start(house.get("/login").header("x-key", &other.id)), (false, true));
    assert_eq!(start(house.get("/token").cookie(&guest())), (true, false));
    house.close();
}

#[test]
fn a_start_that_is_refused_leaves_the_session_before_alone() {
    let house = House::new();
    let guest = house.visitor();
    for fields in
        ["nonsense=1", "auth_status=\"nobody\"", "step=\"x\"", "email=hdl_AAAAAAAAAAAAAAAAAAAAAA", "=", "step"]
    {
        house.backend.next(starts(fields));
        let reply = house.get("/login").cookie(&guest).send();
        assert!(!reply.is(502, "write-back-rejected").has_new_id());
    }
    house.get("/chat").cookie(&guest).send().passed();
    house.close();
}

#[test]
fn a_backend_cannot_set_the_sessions_cookie_itself() {
    let house = House::new();
    let answer = Answer::ok()
        .header("set-cookie", "__Host-session=evil; Path=/")
        .header("set-cookie", "other=1; Path=/")
        .header("set-cookie", " __Host-session =evil")
        .header("cloakroom-start", "auth_status=\"authenticated\"");
    house.backend.next(answer);
    let reply = house.get("/login").send();
    let lines = reply.lines("set-cookie");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.contains(&"other=1; Path=/") && !lines.iter().any(|line| line.contains("evil")));
    house.backend.next(Answer::ok().header("set-cookie", "__Host-session=evil; Path=/"));
    assert_eq!(house.get("/public").send().header("set-cookie"), None);
    house.close();
}

#[test]
fn a_new_id_is_never_cached_whatever_the_backend_says() {
    let house = House::new();
    house.backend.next(starts("step=1").header("cache-control", "public, max-age=60"));
    assert_eq!(house.get("/login").send().passed().header("cache-control"), Some("no-store"));
    let guest = house.visitor();
    house.backend.next(rotates().header("cache-control", "public, max-age=60"));
    assert_eq!(house.get("/chat").bearer(&guest).send().passed().header("cache-control"), Some("no-store"));
    house.close();
}

#[test]
fn in_development_the_cookie_has_a_name_that_plain_http_may_carry() {
    let house = Plan::new().section("cookie: { secure: false, same_site: strict }").open();
    house.backend.next(starts("step=1"));
    let reply = house.get("/login").send();
    let cookie = reply.header("set-cookie").unwrap().to_owned();
    let guest = reply.guest();
    assert!(cookie.starts_with(&format!("session={};", guest.id)), "{cookie}");
    assert!(
        cookie.contains("SameSite=Strict") && cookie.contains("HttpOnly") && !cookie.contains("Secure"),
        "{cookie}"
    );
    house.get("/chat").header("cookie", &format!("session={}", guest.id)).send().passed();
    house.get("/chat").cookie(&guest).send().is(401, "credential-missing");
    house.close();
}

fn rotates() -> Answer {
    Answer::ok().header("cloakroom-rotate", "?1")
}

#[test]
fn a_rotation_gives_a_new_secret_to_the_same_session() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let old = house.guest(json!({ "step": 3, "email": "jane@example.org" }));
    let handle = house.field_handle(&old, "email");
    house.backend.next(rotates().header("cloakroom-set", "step=4"));
    let reply = house.get("/chat").cookie(&old).send();
    assert_eq!(reply.passed().header("cache-control"), Some("no-store"));
    let new = reply.guest();
    assert_eq!(new.handle, old.handle);
    assert_ne!(new.id, old.id);
    assert_eq!((house.field(&new, "step"), house.revision(&new)), (json!(4), 2));
    assert_eq!(house.field_handle(&new, "email"), handle);
    house.get("/chat").cookie(&new).send().passed();
    // Parallel requests go on, for a while.
    house.clock.advance(Duration::from_millis(9_999));
    house.get("/chat").cookie(&old).send().passed();
    house.clock.advance(Duration::from_millis(1));
    let reply = house.get("/chat").cookie(&old).send();
    assert!(!reply.is(401, "credential-invalid").clears_cookie());
    house.get("/chat").cookie(&new).send().passed();
    let trail = house.trail(&new);
    assert_eq!((trail.len(), &trail[1]["action"]), (2, &json!("rotate")));
    house.close();
}

#[test]
fn a_rotation_alone_raises_no_revision_and_travels_as_the_id_came() {
    let house = House::new();
    let old = house.visitor();
    house.backend.next(rotates());
    let reply = house.get("/chat").bearer(&old).send();
    assert!(reply.header("cloakroom-session-id").is_some() && reply.header("set-cookie").is_none());
    assert_eq!(house.revision(&old), 1);
    house.backend.next(Answer::ok().header("cloakroom-rotate", "?0"));
    assert!(!house.get("/chat").bearer(&reply.guest()).send().has_new_id());
    house.close();
}

#[test]
fn the_old_id_cannot_rotate_again() {
    let house = House::new();
    let old = house.visitor();
    house.backend.next(rotates());
    let new = house.get("/chat").cookie(&old).send().guest();
    house.backend.next(rotates().header("cloakroom-set", "step=1"));
    let reply = house.get("/chat").cookie(&old).send();
    assert!(!reply.passed().has_new_id());
    assert_eq!(house.field(&new, "step"), 1, "what stood beside it counts");
    assert_eq!(house.metric("cloakroom_rotations_ignored_total"), 1);
    house.get("/chat").cookie(&new).send().passed();
    house.close();
}

#[test]
fn of_two_parallel_rotations_one_is_passed_over() {
    let house = House::new();
    let old = house.visitor();
    let gate = Gate::closed();
    house.backend.next_to("/chat/a", rotates().held(&gate));
    house.backend.next_to("/chat/b", rotates().held(&gate));
    let replies = std::thread::scope(|scope| {
        let send = |path: &'static str| scope.spawn(|| house.get(path).cookie(&old).send());
        let asked = [send("/chat/a"), send("/chat/b")];
        house.backend.wait_for(2);
        gate.open();
        asked.map(|reply| reply.join().unwrap())
    });
    let ids: Vec<Guest> = replies.iter().filter(|reply| reply.passed().has_new_id()).map(Reply::guest).collect();
    let [new] = ids.as_slice() else { panic!("{} new ids", ids.len()) };
    house.get("/chat").cookie(new).send().passed();
    assert_eq!(house.metric("cloakroom_rotations_ignored_total"), 1);
    house.close();
}

#[test]
fn an_end_kills_at_once_and_clears_the_cookie() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(Answer::ok().header("cloakroom-end", "?1").body("bye"));
    let reply = house.post("/logout").cookie(&guest).send();
    assert_eq!(reply.passed().text(), "bye");
    assert!(reply.clears_cookie() && !reply.has_new_id());
    is_dead(&house, &guest);
    let bearer = house.visitor();
    house.backend.next(Answer::ok().header("cloakroom-end", "?1"));
    assert_eq!(house.post("/logout").bearer(&bearer).send().passed().header("set-cookie"), None);
    is_dead(&house, &bearer);
    assert_eq!(house.trail(&guest)[1]["action"], "revoke");
    house.close();
}

#[test]
fn an_end_with_changes_is_one_step() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    house.backend.next(Answer::set("step=2").header("cloakroom-end", "?1"));
    house.post("/logout").cookie(&guest).send().passed();
    is_dead(&house, &guest);
    let guest = house.visitor();
    house.backend.next(Answer::set("nonsense=2").header("cloakroom-end", "?1"));
    house.post("/logout").cookie(&guest).send().is(502, "write-back-rejected");
    house.get("/chat").cookie(&guest).send().passed();
    house.close();
}

#[test]
fn a_rotation_beside_an_end_hands_out_no_id() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(Answer::ok().header("cloakroom-end", "?1").header("cloakroom-rotate", "?1"));
    let reply = house.get("/logout").cookie(&guest).send();
    assert!(reply.passed().clears_cookie() && !reply.has_new_id());
    house.get("/chat").cookie(&guest).send().is(401, "session-revoked");
    house.close();
}
