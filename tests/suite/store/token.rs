//! What every home promises of sessions that tokens prove, one function each.

use cloakroom::clock::Time;
use cloakroom::handle::{Birth, Handle};
use cloakroom::store::{Change, Conflict, Draft, Effect, Outcome, Past, Proof, Record, Replace, TokenProof};

use super::fixture::*;

/// How long tombstones stand here.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// A session of a token, whose tombstone yields to the user's next login or does not.
fn of_token(now: Time, yields: bool, login: Option<u64>) -> Record {
    let (issuer, subject) = ("https://issuer".to_owned(), "u-1".to_owned());
    let token = TokenProof { issuer, subject, login, claims_at: 100, yields, after: None };
    Record { proof: Proof::Token(token), ..record(now) }
}

fn token(record: &Record) -> &TokenProof {
    record.proof.token().expect("a session of a token")
}

async fn begin(home: &Home, handle: Handle, login: Option<u64>) -> Outcome {
    home.commit(handle, create(of_token(home.now(), true, login))).await
}

fn replace(birth: Birth, record: Record) -> Effect {
    let ended = Draft::new(r#"{"action":"revoke"}"#).unwrap();
    Effect::Replace(Box::new(Replace { birth, record, ended }))
}

pub async fn session_of_a_token_reads_back(home: Home) {
    let plain = of_token(home.now(), false, None);
    assert_eq!(token(&home.session_with(plain.clone()).await.record().await), token(&plain));
    let mut whole = of_token(home.now(), true, Some(7));
    if let Proof::Token(token) = &mut whole.proof {
        token.after = Some(Past { at: Time(5), until: Time(9_007_199_254_740_993) });
    }
    assert_eq!(token(&home.session_with(whole.clone()).await.record().await), token(&whole));
}

pub async fn tombstone_yields_to_a_later_login_where_it_may(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let (revoked_at, until) = (home.now(), home.now().plus(REMEMBERED));
    session.revoke(until).await;
    assert!(session.tombstone().await.yields);
    home.clock.advance(2 * SECOND);
    let second = revoked_at.seconds();
    for login in [None, Some(0), Some(second - 1), Some(second)] {
        assert_eq!(begin(&home, session.handle, login).await, Outcome::Revoked, "{login:?}");
    }
    assert_eq!(home.commit(session.handle, create(record(home.now()))).await, Outcome::Revoked);
    assert_done(&begin(&home, session.handle, Some(second + 1)).await, 1, 1);
    let read = session.record().await;
    assert_eq!(token(&read).after, Some(Past { at: revoked_at, until }));
    assert_eq!(token(&read).login, Some(second + 1));
}

pub async fn tombstone_that_may_not_never_yields(home: Home) {
    for record in [of_token(home.now(), false, None), record(home.now())] {
        let session = home.session_with(record).await;
        session.revoke(home.now().plus(REMEMBERED)).await;
        assert!(!session.tombstone().await.yields);
        assert_eq!(begin(&home, session.handle, Some(home.now().seconds() + 9)).await, Outcome::Revoked);
    }
}

pub async fn change_that_ends_a_session_leaves_a_tombstone_that_yields(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let end = Some(home.now().plus(REMEMBERED));
    assert_done(&session.change(Change { end, ..session.at(1) }).await, 1, 2);
    assert!(session.tombstone().await.yields);
    assert_done(&begin(&home, session.handle, Some(home.now().seconds() + 1)).await, 1, 1);
}

pub async fn revocation_outlives_the_session_that_came_after_it(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let (revoked_at, until) = (home.now(), home.now().plus(REMEMBERED));
    session.revoke(until).await;
    let (before, later) = (Some(revoked_at.seconds()), Some(revoked_at.seconds() + 1));
    for _ in 0..2 {
        assert_done(&begin(&home, session.handle, later).await, 1, 1);
        let birth = session.record().await.birth;
        home.clock.advance(IDLE + TOUCH_INTERVAL);
        let note = Effect::Note { birth };
        assert_eq!(home.commit(session.handle, note.clone()).await, Outcome::Revoked);
        assert_eq!(begin(&home, session.handle, before).await, Outcome::Revoked);
        // Also where what is over was swept meanwhile.
        home.clock.advance(2 * SECOND);
        home.session().await;
        assert_eq!(home.commit(session.handle, note).await, Outcome::Revoked);
        assert_eq!(begin(&home, session.handle, before).await, Outcome::Revoked);
        assert!(!home.store.touch(session.handle, birth, home.now()).await.unwrap());
    }
    home.clock.advance(until.since(home.now()));
    assert_done(&begin(&home, session.handle, before).await, 1, 1);
    assert_eq!(token(&session.record().await).after, None);
}

pub async fn session_is_replaced_in_its_place(home: Home) {
    let (first, second) = (user(), user());
    let session = home.session_with(Record { user: Some(first), ..of_token(home.now(), true, None) }).await;
    session.set(1, "a", "1").await;
    let next = Record { user: Some(second), ..of_token(home.now(), true, Some(3)) };
    let outcome = home.commit(session.handle, replace(session.birth, next.clone())).await;
    let record = r#"{"action":"write","seq":1,"revision":1}"#.to_owned();
    let ended = Some(r#"{"action":"revoke","seq":3,"revision":2}"#.to_owned());
    assert_eq!(outcome, Outcome::Replaced { ended, record });
    let read = session.record().await;
    assert_eq!((read.birth, read.revision, read.seq, read.fields.len()), (next.birth, 1, 1, 0));
    assert_eq!(token(&read), token(&next));
    let trail = home.trail(session.handle).await;
    let told: Vec<_> =
        trail.iter().map(|record| (record["action"].as_str().unwrap(), record["seq"].as_u64())).collect();
    assert_eq!(told, [("write", Some(1)), ("revoke", Some(3)), ("write", Some(2)), ("write", Some(1))]);
    assert_eq!(session.set(2, "a", "2").await, Outcome::Conflict(Conflict::Birth));
    assert_eq!(home.store.sessions_of(first).await.unwrap(), []);
    assert_eq!(home.store.sessions_of(second).await.unwrap(), [session.handle]);
}

pub async fn replacement_keeps_the_revocation_before_it(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    session.revoke(home.now().plus(REMEMBERED)).await;
    assert_done(&begin(&home, session.handle, Some(home.now().seconds() + 1)).await, 1, 1);
    let before = session.record().await;
    let next = of_token(home.now(), true, Some(home.now().seconds() + 1));
    home.commit(session.handle, replace(before.birth, next)).await;
    assert!(token(&before).after.is_some());
    assert_eq!(token(&session.record().await).after, token(&before).after);
}

pub async fn only_a_living_session_of_that_birth_is_replaced(home: Home) {
    let next = |home: &Home| of_token(home.now(), true, Some(home.now().seconds() + 1));
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let other = Birth::random().unwrap();
    let outcome = home.commit(session.handle, replace(other, next(&home))).await;
    assert_eq!(outcome, Outcome::Conflict(Conflict::Birth));
    assert_eq!(home.commit(handle(), replace(session.birth, next(&home))).await, Outcome::NotFound);
    session.revoke(home.now().plus(REMEMBERED)).await;
    assert_eq!(home.commit(session.handle, replace(session.birth, next(&home))).await, Outcome::Revoked);
    assert_eq!(home.trail(session.handle).await.len(), 2);
}

pub async fn replacement_asked_for_again_is_answered_as_before(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let set = Effect::Change(Box::new(Change { set: fields(&[("a", "1")]), ..session.at(1) }));
    let set = commit(session.handle, home.now(), set);
    home.ask(&set).await;
    let asked = commit(session.handle, home.now(), replace(session.birth, of_token(home.now(), true, None)));
    assert!(matches!(home.ask(&asked).await, Outcome::Replaced { .. }));
    assert_eq!(home.ask(&asked).await, Outcome::Done { revision: 1, seq: 1, record: None });
    assert_eq!(home.ask(&set).await, Outcome::Done { revision: 2, seq: 2, record: None });
    assert_eq!(home.trail(session.handle).await.len(), 4);
}

pub async fn claims_of_a_later_token_alone_are_applied(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let claims = |at, value: &str| Change { claims_at: Some(at), set: fields(&[("role", value)]), ..session.at(1) };
    for stale in [99, 100] {
        assert_eq!(session.change(claims(stale, "1")).await, Outcome::Unchanged { revision: 1 });
    }
    assert!(session.record().await.fields.is_empty());
    assert_done(&session.change(claims(101, "2")).await, 2, 2);
    assert_eq!(token(&session.record().await).claims_at, 101);
    // What another has applied already is no conflict.
    assert_eq!(session.change(claims(101, "2")).await, Outcome::Unchanged { revision: 2 });
    let conflict = Outcome::Conflict(Conflict::Field("role".into()));
    assert_eq!(session.change(claims(102, "3")).await, conflict);
    assert_eq!(token(&session.record().await).claims_at, 101);
}

pub async fn claims_that_change_nothing_are_noted_without_a_record(home: Home) {
    let session = home.session_with(of_token(home.now(), true, None)).await;
    let noted = Change { claims_at: Some(200), ..session.at(1) };
    assert_eq!(session.change(noted).await, Outcome::Unchanged { revision: 1 });
    let read = session.record().await;
    assert_eq!((token(&read).claims_at, read.seq, read.revision), (200, 1, 1));
    assert_eq!(home.trail(session.handle).await.len(), 1);
    session.set(1, "a", "1").await;
    assert_eq!(token(&session.record().await).claims_at, 200);
}

pub async fn session_of_a_secret_knows_no_claims(home: Home) {
    let session = home.session().await;
    let noted = Change { claims_at: Some(200), ..session.at(1) };
    assert_eq!(session.change(noted).await, Outcome::Unchanged { revision: 1 });
    assert!(session.record().await.proof.token().is_none());
}
