mod ending;

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;
use crate::audit::Audit;
use crate::clock::{Clock, Time};
use crate::config::{self, Problems};
use crate::handle::UserKey;
use crate::keyring::{Keyring, LiveKeyring};
use crate::session::{ActorKind, Live, Parts, Schema};
use crate::store::{Memory, TrailBounds};
use crate::telemetry::Metrics;

const ISSUER: &str = "https://login.example";
const NOW: i64 = 1_795_421_702;
const SECOND: Duration = Duration::from_secs(1);

const CONFIG: &str = "version: 1
routes: []
session:
  max_per_user: 2
  limits: { session: 200B, field: 120B }
  schema:
    version: 1
    fields:
      user_id: { type: string, user: true, writable: false }
      email: { type: string, sensitive: true }
      roles: { type: list, writable: false }
      level: { type: integer }
      theme: { type: string, enum: [light, dark], default: light }
";

struct Desk {
    sessions: Arc<Sessions>,
    clock: Clock,
}

fn desk() -> Desk {
    desk_with(CONFIG)
}

fn desk_with(text: &str) -> Desk {
    let config = config::inspect(text, std::path::Path::new("cloakroom.yaml"), &|_| None).config.unwrap();
    let schema = Schema::compile(&config.session, &mut Problems::default()).unwrap();
    let clock = Clock::by_hand(Time(NOW as u64 * 1000 + 400));
    let parts = Parts {
        store: Arc::new(Memory::new(TrailBounds { keep: 100, retain: Duration::from_secs(60) })),
        schema: Arc::new(schema),
        keys: LiveKeyring::new(Keyring::ephemeral(clock.now()).unwrap()),
        clock: clock.clone(),
        live: Live::default(),
        audit: Audit::default(),
        metrics: Metrics::new(),
    };
    Desk { sessions: Arc::new(Sessions::new(parts, &config)), clock }
}

fn token(claim: &str, value: &str, issued_at: i64) -> Assertion {
    Assertion::sample(ISSUER, "u-1", (claim, value), issued_at).with_claims(&[("user_id", Some(json!("u-1")))])
}

fn of_user(issued_at: i64) -> Assertion {
    token("sub", "u-1", issued_at)
}

fn claiming(claims: &[(&str, Json)], issued_at: i64) -> Assertion {
    let claims: Vec<_> = claims.iter().map(|(field, value)| (*field, Some(value.clone()))).collect();
    of_user(issued_at).with_claims(&claims)
}

impl Desk {
    async fn load(&self, assertion: &Assertion) -> Result<Found, LoadError> {
        self.sessions.load_by_token(assertion, &Actor::new(ActorKind::Client)).await
    }

    async fn enters(&self, assertion: &Assertion) -> Session {
        self.load(assertion).await.unwrap().session
    }

    async fn refuses(&self, assertion: &Assertion) -> LoadError {
        self.load(assertion).await.unwrap_err()
    }

    async fn revoke(&self, session: &Session) {
        self.sessions.revoke(session.handle(), None, &Actor::new(ActorKind::Admin)).await.unwrap();
    }

    async fn revoke_user(&self, issuer: Option<&str>) {
        let keys = self.sessions.keys_of_user(issuer, "u-1");
        self.sessions.revoke_users(&keys, self.clock.now(), &Actor::new(ActorKind::Admin)).await.unwrap();
    }

    async fn start(
        &self,
        assertion: &Assertion,
        old: Option<&Session>,
        fields: &[(&str, Json)],
    ) -> Result<Born, CommitError> {
        let values: Vec<_> = fields.iter().map(|(path, json)| self.value(path, json)).collect();
        let carry = [self.sessions.schema.find("theme").unwrap().0];
        let actor = Actor::new(ActorKind::Backend);
        self.sessions.start_by_token(assertion, old, &values, &carry, &actor).await
    }

    fn value(&self, path: &str, json: &Json) -> (FieldIndex, Value) {
        let (index, field) = self.sessions.schema.find(path).unwrap();
        (index, field.fit(Value::from_json(json).unwrap()).unwrap())
    }

    fn shown(&self, session: &Session, path: &str) -> Json {
        let index = self.sessions.schema.find(path).unwrap().0;
        session.value(index, &self.sessions.schema).map_or(Json::Null, Value::to_json)
    }

    async fn email(&self, session: &Session) -> Option<String> {
        let index = self.sessions.schema.find("email").unwrap().0;
        let plain = self.sessions.resolve(session, index, &Actor::new(ActorKind::Caller)).await.unwrap();
        plain.map(|plain| plain.to_string())
    }

    async fn actions(&self, session: &Session) -> Vec<String> {
        let trail = self.sessions.trail(session.handle(), None, 100).await.unwrap();
        let action = |text: &String| serde_json::from_str::<Json>(text).unwrap()["action"].as_str().unwrap().to_owned();
        trail.records.iter().rev().map(action).collect()
    }
}

#[tokio::test]
async fn a_token_makes_its_session_and_a_refreshed_one_finds_it() {
    let desk = desk();
    let first = desk.load(&of_user(NOW)).await.unwrap();
    assert!(first.is_new);
    let again = desk.load(&of_user(NOW + 60).with_token_id("another")).await.unwrap();
    assert!(!again.is_new);
    assert_eq!((again.session.handle(), again.session.birth()), (first.session.handle(), first.session.birth()));
    let keyring = desk.sessions.keyring();
    assert_eq!(first.session.handle(), keyring.token_handle(ISSUER, "sub", "u-1"));
    assert_eq!(first.session.user(), Some(keyring.user_key(Some(ISSUER), "u-1")));
    assert_eq!(desk.actions(&again.session).await, ["create"]);
    // The same value under another claim, or of another issuer, is another session.
    assert_ne!(desk.enters(&token("sid", "u-1", NOW)).await.handle(), first.session.handle());
    let other = Assertion::sample("https://other.example", "u-1", ("sub", "u-1"), NOW);
    assert_ne!(desk.enters(&other).await.handle(), first.session.handle());
}

#[tokio::test]
async fn many_first_requests_make_one_session() {
    let desk = desk();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let sessions = desk.sessions.clone();
        tasks.spawn(async move {
            let found = sessions.load_by_token(&of_user(NOW), &Actor::new(ActorKind::Client)).await.unwrap();
            (found.session.birth(), found.is_new)
        });
    }
    let found = tasks.join_all().await;
    assert_eq!(found.iter().filter(|(_, is_new)| *is_new).count(), 1);
    assert!(found.iter().all(|(birth, _)| *birth == found[0].0));
}

#[tokio::test]
async fn claims_become_fields_where_they_fit() {
    let desk = desk();
    let claims = [
        ("user_id", json!("u-1")),
        ("email", json!("ada@example.com")),
        ("roles", json!(["admin", "dev"])),
        ("level", json!("three")),
        ("theme", json!("purple")),
    ];
    let session = desk.enters(&claiming(&claims, NOW)).await;
    assert_eq!(desk.shown(&session, "roles"), json!(["admin", "dev"]));
    assert_eq!((desk.shown(&session, "level"), desk.shown(&session, "theme")), (Json::Null, json!("light")));
    assert_eq!(desk.email(&session).await.as_deref(), Some("\"ada@example.com\""));
    let misfits = [json!({ "a": 1 }), json!(null), json!(1.5), json!("hdl_x"), json!("x".repeat(500)), json!([[]])];
    for (n, misfit) in (1..).zip(misfits) {
        let session = desk.enters(&claiming(&[("email", misfit.clone()), ("roles", misfit)], NOW + n)).await;
        assert_eq!((desk.email(&session).await, desk.shown(&session, "roles")), (None, Json::Null));
    }
}

#[tokio::test]
async fn claims_that_have_no_room_are_left_out() {
    let desk = desk();
    let long = json!("x".repeat(90));
    let claims = [("user_id", json!("u-1")), ("email", long.clone()), ("roles", json!([long])), ("level", json!(3))];
    let session = desk.enters(&claiming(&claims, NOW)).await;
    assert!(desk.email(&session).await.is_some());
    assert_eq!((desk.shown(&session, "roles"), desk.shown(&session, "level")), (Json::Null, json!(3)));
}

#[tokio::test]
async fn claims_of_a_later_token_are_applied_once_and_unset_what_is_missing() {
    let desk = desk();
    let first =
        [("user_id", json!("u-1")), ("email", json!("a@b.c")), ("roles", json!(["admin"])), ("level", json!(1))];
    let session = desk.enters(&claiming(&first, NOW)).await;
    let later = [("user_id", json!("u-1")), ("email", json!("a@b.c")), ("roles", json!([])), ("level", json!("x"))];
    for _ in 0..2 {
        let found = desk.load(&claiming(&later, NOW + 1)).await.unwrap();
        assert!(!found.is_new);
        let session = found.session;
        assert_eq!((desk.shown(&session, "roles"), desk.shown(&session, "level")), (json!([]), Json::Null));
        assert_eq!(session.revision(), 2);
    }
    // An older token takes nothing back, even after one that changed nothing.
    desk.enters(&claiming(&later, NOW + 9)).await;
    for stale in [NOW, NOW + 5, NOW + 9] {
        assert_eq!(desk.shown(&desk.enters(&claiming(&first, stale)).await, "roles"), json!([]));
    }
    let trail = desk.sessions.trail(session.handle(), None, 9).await.unwrap();
    let record: Json = serde_json::from_str(&trail.records[0]).unwrap();
    assert_eq!((&record["action"], &record["base"], trail.records.len()), (&json!("claims"), &json!(1), 2));
    let fields: Vec<_> = record["changes"].as_array().unwrap().iter().map(|one| (&one["field"], &one["op"])).collect();
    assert_eq!(fields, [(&json!("roles"), &json!("set")), (&json!("level"), &json!("unset"))]);
    assert_eq!(record["actor"]["kind"], json!("client"));
}

#[tokio::test]
async fn racing_applications_of_one_token_leave_one_record() {
    let desk = desk();
    let session = desk.enters(&claiming(&[("level", json!(1))], NOW)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let sessions = desk.sessions.clone();
        tasks.spawn(async move {
            let assertion = claiming(&[("level", json!(2))], NOW + 1);
            sessions.load_by_token(&assertion, &Actor::new(ActorKind::Client)).await.unwrap().session.revision()
        });
    }
    assert!(tasks.join_all().await.into_iter().all(|revision| revision == 2));
    assert_eq!(desk.actions(&session).await, ["create", "claims"]);
}

#[tokio::test]
async fn a_session_is_its_issuers_and_subjects() {
    let desk = desk();
    desk.enters(&token("sid", "s-1", NOW)).await;
    let thief = Assertion::sample(ISSUER, "u-2", ("sid", "s-1"), NOW + 1);
    assert_eq!(desk.refuses(&thief).await, LoadError::Foreign);
}

#[tokio::test]
async fn under_reinit_no_token_makes_a_session_but_a_start_does() {
    let desk = desk();
    let assertion = of_user(NOW).on_missing_reinit();
    assert_eq!(desk.refuses(&assertion).await, LoadError::Uninitialised);
    desk.start(&assertion, None, &[("level", json!(3))]).await.unwrap();
    let session = desk.enters(&assertion).await;
    assert_eq!((desk.shown(&session, "level"), desk.shown(&session, "user_id")), (json!(3), json!("u-1")));
    assert_eq!(desk.start(&assertion, None, &[]).await.unwrap_err(), CommitError::Exists);
}

#[tokio::test]
async fn a_start_replaces_the_tokens_session_in_its_place() {
    let desk = desk();
    let assertion = claiming(&[("user_id", json!("u-1")), ("level", json!(1))], NOW);
    let old = desk.enters(&assertion).await;
    desk.start(&assertion, Some(&old), &[("level", json!(7))]).await.unwrap();
    let new = desk.enters(&assertion).await;
    assert_eq!(new.handle(), old.handle());
    assert_ne!(new.birth(), old.birth());
    assert_eq!((new.revision(), desk.shown(&new, "level")), (1, json!(7)), "what the start says wins over a claim");
    assert_eq!(desk.actions(&new).await, ["create", "revoke", "create"]);
    assert!(desk.sessions.verify(new.handle()).await.unwrap().whole);
    // A start on what is gone revives nothing.
    desk.revoke(&new).await;
    assert_eq!(desk.start(&assertion, Some(&new), &[]).await.unwrap_err(), CommitError::Revoked);
    assert_eq!(desk.start(&assertion, None, &[]).await.unwrap_err(), CommitError::Revoked);
}

#[tokio::test]
async fn only_a_session_without_a_user_hands_something_on() {
    let desk = desk();
    let anonymous = of_user(NOW).with_claims(&[]);
    for (fields, expected) in [(vec![], "dark"), (vec![("user_id", json!("u-9"))], "light")] {
        let mut given = vec![("theme", json!("dark"))];
        given.extend(fields);
        let old = desk.load(&anonymous).await.ok().map(|found| found.session);
        desk.start(&anonymous, old.as_ref(), &given).await.unwrap();
        let old = desk.enters(&anonymous).await;
        desk.start(&anonymous, Some(&old), &[]).await.unwrap();
        assert_eq!(desk.shown(&desk.enters(&anonymous).await, "theme"), json!(expected));
    }
}
