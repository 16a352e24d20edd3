//! Sessions that tokens lead to, from the first request to the last.

use std::time::Duration;

use cloakroom::handle::Handle;
use serde_json::{Value as Json, json};

use crate::house::{Answer, Ask, Fault, Gate, Guest, House, Plan, Reply};
use crate::identity::login::{Login, changed, claims_at};

pub const SECOND: Duration = Duration::from_secs(1);

/// What of the issuer's tokens goes into the session.
pub const CLAIMS: &str = "claims: { user_id: sub, email: email, features: roles }";

fn open(login: &Login, members: &str) -> House {
    login.plan(&format!("{CLAIMS}{members}")).open()
}

/// A token of now: a login of this very moment, unless it says otherwise.
pub fn token(login: &Login, house: &House, changes: Json) -> String {
    let now = house.clock.now();
    let claims = changed(claims_at(&login.name(), now), json!({ "auth_time": now.seconds() }));
    login.ec.token(&changed(claims, changes))
}

fn bearing<'h>(ask: Ask<'h>, token: &str) -> Ask<'h> {
    ask.header("authorization", &format!("Bearer {token}"))
}

pub fn enters(house: &House, token: &str) -> Guest {
    house.with_token("/chat", token).send().passed();
    last(house)
}

/// The session that the backend was last told of.
fn last(house: &House) -> Guest {
    let seen = house.backend.last();
    let handle = Handle::parse(seen.header("cloakroom-session").expect("a session")).expect("a handle");
    Guest { id: String::new(), handle }
}

fn refuses(house: &House, token: &str, code: &str) -> Reply {
    let reply = house.with_token("/chat", token).send();
    reply.is(401, code);
    reply
}

fn start(house: &House, path: &str, token: &str, fields: &str) -> Reply {
    house.backend.next_to(path, Answer::ok().header("cloakroom-start", fields));
    house.with_token(path, token).send()
}

fn logout(house: &House, token: &str) {
    house.backend.next(Answer::ok().header("cloakroom-end", "?1"));
    let reply = bearing(house.post("/logout"), token).send();
    assert_eq!(reply.passed().header("set-cookie"), None);
}

fn actions(house: &House, guest: &Guest) -> Vec<Json> {
    house.trail(guest).iter().map(|record| record["action"].clone()).collect()
}

#[test]
fn a_token_makes_its_session_of_its_claims_and_a_refreshed_one_finds_it() {
    let login = Login::new();
    let house = open(&login, "");
    house.sensitive("ada@example.com");
    let claims = json!({ "email": "ada@example.com", "roles": ["admin", "dev"], "jti": "j-1" });
    let guest = enters(&house, &token(&login, &house, claims.clone()));
    let seen = house.backend.last();
    let handle = house.field_handle(&guest, "email");
    let expected = format!(
        "user_id=\"u-456\", auth_status=\"anonymous\", email={handle}, ui_preferences.theme=\"light\", \
         ui_preferences.language=\"en\", features=(\"admin\" \"dev\")"
    );
    assert_eq!(seen.header("cloakroom-context"), Some(&*expected));
    assert_eq!((seen.header("authorization"), seen.header("cloakroom-etag")), (None, Some("\"1\"")));
    house.clock.advance(60 * SECOND);
    let again = enters(&house, &token(&login, &house, changed(claims, json!({ "jti": "j-2" }))));
    assert_eq!(again.handle, guest.handle);
    assert_eq!(house.backend.last().header("cloakroom-context"), Some(&*expected));
    let trail = house.trail(&guest);
    assert_eq!((trail.len(), &trail[0]["action"], &trail[0]["base"]), (1, &json!("create"), &json!(0)));
    assert_eq!((&trail[0]["actor"]["kind"], &trail[0]["actor"]["route"]), (&json!("client"), &json!("chat")));
    assert_eq!(house.metric("cloakroom_sessions_started_total"), 1);
    house.close();
}

#[test]
fn first_requests_at_once_make_one_session() {
    let login = Login::new();
    for embedded in [false, true] {
        let plan = login.plan(CLAIMS);
        let house = if embedded { plan.embedded() } else { plan }.open();
        let token = token(&login, &house, json!({}));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(house.with_token("/chat", &token).send().status, 200));
            }
        });
        let seen = house.backend.seen();
        assert_eq!(seen.len(), 16);
        assert!(seen.iter().all(|one| one.header("cloakroom-session") == seen[0].header("cloakroom-session")));
        assert_eq!(actions(&house, &last(&house)), ["create"]);
        house.close();
    }
}

#[test]
fn roles_follow_the_tokens() {
    let login = Login::new();
    let house = open(&login, "");
    let admin = token(&login, &house, json!({ "roles": ["admin"], "email": "a@b.example" }));
    let guest = enters(&house, &admin);
    house.clock.advance(SECOND);
    let user = token(&login, &house, json!({ "roles": [], "email": "a@b.example" }));
    enters(&house, &user);
    assert_eq!((house.field(&guest, "features"), house.revision(&guest)), (json!([]), 2));
    // The older token is as good as ever, and brings nothing back.
    enters(&house, &admin);
    assert_eq!(house.field(&guest, "features"), json!([]));
    house.clock.advance(SECOND);
    enters(&house, &token(&login, &house, json!({ "roles": "admin", "email": 5 })));
    assert_eq!((house.field(&guest, "features"), house.resolved(&guest, "email")), (json!(null), json!(null)));
    assert_eq!(actions(&house, &guest), ["create", "claims", "claims"]);
    let changes = house.trail(&guest)[1]["changes"].clone();
    assert_eq!(changes.as_array().map(Vec::len), Some(1), "what did not change is no change: {changes}");
    assert!(house.verify(&guest).whole);
    house.close();
}

#[test]
fn logging_in_again_after_a_logout_works_for_a_user_and_never_revives_a_login() {
    let login = Login::new();
    let house = open(&login, "");
    for (session, revives) in [(json!({}), true), (json!({ "sid": "s-1" }), false)] {
        let first = token(&login, &house, session.clone());
        let guest = enters(&house, &first);
        logout(&house, &first);
        refuses(&house, &first, "session-revoked");
        let early = house.clock.now().seconds();
        house.clock.advance(5 * SECOND);
        let refreshed = token(&login, &house, changed(session.clone(), json!({ "auth_time": early })));
        refuses(&house, &refreshed, "session-revoked");
        let again = token(&login, &house, session);
        if revives {
            assert_eq!(enters(&house, &again).handle, guest.handle);
            refuses(&house, &refreshed, "session-revoked");
            assert_eq!(actions(&house, &guest), ["create", "revoke", "create"]);
        } else {
            refuses(&house, &again, "session-revoked");
        }
    }
    house.close();
}

#[test]
fn under_reinit_a_backend_begins_the_session_and_no_id_travels() {
    let login = Login::new();
    let house = open(&login, ", on_missing: reinit");
    let bearer = token(&login, &house, json!({}));
    let reply = refuses(&house, &bearer, "session-not-found");
    assert_eq!((reply.header("cloakroom-action"), reply.json()["action"].clone()), (Some("reinit"), json!("reinit")));
    assert!(!reply.clears_cookie());
    house.with_token("/visit", &bearer).send().passed();
    assert_eq!(
        house.backend.last().header("cloakroom-session"),
        None,
        "it counts as none where a route can do without"
    );
    let reply = start(&house, "/login", &bearer, "auth_status=\"authenticated\"");
    assert!(!reply.passed().has_new_id());
    assert_eq!(reply.header("set-cookie"), None);
    let guest = enters(&house, &bearer);
    assert_eq!(house.field(&guest, "auth_status"), "authenticated");
    assert_eq!(house.field(&guest, "user_id"), "u-456", "the claims are in it as well");
    assert_eq!(house.rejected("session-not-found"), 0, "a good token uses up no failures");
    house.close();
}

#[test]
fn a_start_replaces_a_tokens_session_in_place_and_closes_what_was_open() {
    let login = Login::new();
    let house = open(&login, "");
    let bearer = token(&login, &house, json!({ "email": "a@b.example" }));
    let guest = enters(&house, &bearer);
    let before = house.field_handle(&guest, "email");
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("begun").wait(&gate));
    let stream = house.with_token("/chat", &bearer).start();
    let reply = start(&house, "/login", &bearer, "ui_preferences.theme=\"dark\"");
    assert!(!reply.passed().has_new_id());
    assert!(stream.breaks_off());
    gate.open();
    assert_eq!(enters(&house, &bearer).handle, guest.handle);
    assert_ne!(house.field_handle(&guest, "email"), before);
    assert_eq!((house.field(&guest, "ui_preferences.theme"), house.revision(&guest)), (json!("dark"), 1));
    assert_eq!(actions(&house, &guest), ["create", "revoke", "create"]);
    house.close();
}

#[test]
fn what_was_meant_for_the_session_before_does_not_land_in_the_one_after() {
    let login = Login::new();
    let finish = "name: finish, match: { path: /finish }, upstream: 'http://BACKEND', write: [task], on_revoke: finish";
    let house = login.plan(CLAIMS).route(finish).open();
    let bearer = token(&login, &house, json!({}));
    let guest = enters(&house, &bearer);
    let gate = Gate::closed();
    house.backend.next_to("/finish", Answer::set("step=9").held(&gate));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| house.with_token("/finish", &bearer).send());
        house.backend.wait_for(2);
        start(&house, "/login", &bearer, "step=1").passed();
        gate.open();
        late.join().unwrap().is(409, "session-conflict");
    });
    assert_eq!(house.field(&guest, "step"), 1);
    house.close();
}

#[test]
fn a_session_that_expires_under_its_request_may_be_begun_anew() {
    let login = Login::new();
    let finish = "name: finish, match: { path: /finish }, upstream: 'http://BACKEND', write: [task], on_revoke: finish";
    let house = login.plan(CLAIMS).route(finish).open();
    for path in ["/finish", "/chat"] {
        let claims = json!({ "exp": house.clock.now().seconds() + 2 * 86_400 });
        let (bearer, arrived) = (token(&login, &house, claims), house.backend.count());
        let gate = Gate::closed();
        house.backend.next_to(path, Answer::set("step=9").held(&gate));
        std::thread::scope(|scope| {
            let late = scope.spawn(|| house.with_token(path, &bearer).send());
            house.backend.wait_for(arrived + 1);
            house.clock.advance(12 * 3600 * SECOND);
            if path == "/finish" {
                gate.open();
            }
            let reply = late.join().unwrap();
            assert_eq!(reply.is(401, "session-not-found").header("cloakroom-action"), Some("reinit"));
        });
        gate.open();
        assert_eq!(house.field(&enters(&house, &bearer), "step"), json!(null));
    }
    house.close();
}

#[test]
fn a_token_cannot_be_rotated() {
    let login = Login::new();
    let house = open(&login, "");
    let bearer = token(&login, &house, json!({}));
    enters(&house, &bearer);
    for answer in [Answer::ok(), Answer::set("step=1")] {
        house.backend.next(answer.header("cloakroom-rotate", "?1"));
        house.with_token("/chat", &bearer).send().is(502, "write-back-rejected");
    }
    house.backend.next(Answer::set("step=1").header("cloakroom-rotate", "?0"));
    house.with_token("/chat", &bearer).send().passed();
    house.close();
}

#[test]
fn anybody_elses_token_that_leads_to_a_session_is_a_bad_credential() {
    let login = Login::new();
    let house = open(&login, "");
    enters(&house, &token(&login, &house, json!({ "sid": "s-1" })));
    let thief = token(&login, &house, json!({ "sid": "s-1", "sub": "u-999" }));
    refuses(&house, &thief, "credential-invalid");
    house.with_token("/visit", &thief).send().is(401, "credential-invalid");
    house.close();
}

#[test]
fn a_token_that_is_older_than_revocations_are_remembered_is_a_bad_credential() {
    let login = Login::new();
    let house = login.plan(CLAIMS).session("remember_revoked: 13h").open();
    let claims = json!({ "exp": house.clock.now().seconds() + 86_400 });
    let bearer = token(&login, &house, claims);
    enters(&house, &bearer);
    house.clock.advance(13 * 3600 * SECOND);
    enters(&house, &bearer);
    house.clock.advance(SECOND);
    refuses(&house, &bearer, "credential-invalid");
    house.close();
}

#[test]
fn a_revoked_token_is_401_also_where_a_route_can_do_without() {
    let login = Login::new();
    let house = open(&login, "");
    let bearer = token(&login, &house, json!({}));
    enters(&house, &bearer);
    logout(&house, &bearer);
    house.with_token("/visit", &bearer).send().is(401, "session-revoked");
    start(&house, "/login", &bearer, "step=1").is(401, "session-revoked");
    house.close();
}

#[test]
fn an_outage_is_no_logout_for_a_token_either() {
    let login = Login::new();
    let house = open(&login, "");
    let (known, new) = (token(&login, &house, json!({})), token(&login, &house, json!({ "sub": "u-2" })));
    enters(&house, &known);
    for fault in [Fault::Down, Fault::Writes] {
        house.faults.set(fault);
        let reply = house.with_token("/chat", &new).send();
        assert!(reply.is(503, "store-unavailable").header("retry-after").is_some());
    }
    // A younger token that changes nothing needs no write.
    house.clock.advance(SECOND);
    enters(&house, &token(&login, &house, json!({})));
    let promoted = token(&login, &house, json!({ "roles": ["admin"] }));
    house.with_token("/chat", &promoted).send().is(503, "store-unavailable");
    house.faults.set(Fault::None);
    enters(&house, &promoted);
    house.close();
}

#[test]
fn revocations_of_tokens_and_users_outlive_the_process() {
    let login = Login::new();
    let plan = || login.plan(CLAIMS).embedded();
    let house = plan().open();
    let revoked = token(&login, &house, json!({ "jti": "j-1" }));
    let of_user = token(&login, &house, json!({ "sub": "u-2", "sid": "s-2" }));
    enters(&house, &revoked);
    house.revoke_token("j-1", 600);
    house.clock.advance(SECOND);
    house.revoke_user("u-2");
    let house = house.reopen(plan());
    refuses(&house, &revoked, "session-revoked");
    refuses(&house, &of_user, "session-revoked");
    enters(&house, &token(&login, &house, json!({ "jti": "j-2" })));
    house.close();
}

#[test]
fn a_revocation_closes_what_is_open_under_its_token_and_nothing_else() {
    let login = Login::new();
    let house = open(&login, "");
    let bearer = |jti: &str| token(&login, &house, json!({ "jti": jti }));
    let (one, two) = (bearer("j-1"), bearer("j-2"));
    let gate = Gate::closed();
    let stream = |token: &str| {
        house.backend.next(Answer::ok().body("begun").wait(&gate));
        house.with_token("/chat", token).start()
    };
    let (first, second) = (stream(&one), stream(&two));
    house.revoke_token("j-1", 600);
    assert!(first.breaks_off());
    gate.open();
    assert!(!second.breaks_off());
}

#[test]
fn requirements_hold_of_lists_and_of_absence() {
    let login = Login::new();
    let admins = "name: admins, match: { path: /admins }, upstream: 'http://BACKEND', require: { features: admin }";
    let newcomers =
        "name: new, match: { path: /new }, upstream: 'http://BACKEND', require: { current_project_id: null }";
    let house = login.plan(CLAIMS).route(admins).route(newcomers).open();
    let admin = token(&login, &house, json!({ "roles": ["dev", "admin"] }));
    let user = token(&login, &house, json!({ "sub": "u-2", "roles": ["administrator"] }));
    house.with_token("/admins", &admin).send().passed();
    house.with_token("/admins", &user).send().is(403, "forbidden");
    house.with_token("/new", &user).send().passed();
    house.backend.next(Answer::set("current_project_id=\"p-1\""));
    house.with_token("/chat", &user).send().passed();
    house.with_token("/new", &user).send().is(403, "forbidden");
    // A role that the issuer took away is gone with the next token.
    house.clock.advance(SECOND);
    house.with_token("/admins", &token(&login, &house, json!({ "roles": ["dev"] }))).send().is(403, "forbidden");
    house.close();
}

#[test]
fn a_tokens_user_is_another_than_the_same_name_of_no_issuer() {
    let login = Login::new();
    let house = login.plan(CLAIMS).session("max_per_user: 1").open();
    let guest = house.guest(json!({ "user_id": "u-456" }));
    let bearer = token(&login, &house, json!({}));
    enters(&house, &bearer);
    house.get("/chat").cookie(&guest).send().passed();
    // Both are that user to the admin API, unless it is narrowed.
    house.clock.advance(SECOND);
    house.revoke_user("u-456");
    house.get("/chat").cookie(&guest).send().is(401, "session-revoked");
    refuses(&house, &bearer, "session-revoked");
    house.close();
}

#[test]
fn a_plan_without_tokens_takes_none() {
    let house = Plan::new().open();
    house.get("/visit").header("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.").send().passed();
    assert_eq!(house.backend.last().header("cloakroom-session"), None);
    house.close();
}
