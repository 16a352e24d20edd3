//! What one commits is at hand afterwards as the server has it, and what others do to it is heard all the same.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::store::{Change, Effect, Entry, Growth, Proof, Record, Resealed, Rotate, TokenProof};
use serde_json::Value as Json;

use super::cache::{cut, load};
use super::*;
use crate::store::fixture::*;

fn living(entry: &Entry) -> &Record {
    match entry {
        Entry::Living(record) => record,
        Entry::Revoked(_) => panic!("a tombstone"),
    }
}

fn revision_at_hand(home: &Home, session: &Session<'_>) -> Option<u64> {
    home.store.at_hand(session.handle).map(|entry| living(&entry).revision)
}

async fn at_hand_at_last(home: &Home, session: &Session<'_>) {
    let held = async || {
        load(home, session).await;
        home.store.at_hand(session.handle).is_some()
    };
    until("a proven cache", held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_write_is_at_hand_and_costs_no_read() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    at_hand_at_last(&home, &session).await;
    let mut raw = server.raw();
    let before = raw.calls("hgetall");
    for revision in 1..=100 {
        session.set(revision, "count", &revision.to_string()).await;
        assert_eq!(revision_at_hand(&home, &session), Some(revision + 1));
        load(&home, &session).await;
    }
    // The script's own.
    assert_eq!(raw.calls("hgetall") - before, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_is_heard_after_every_own_write() {
    let (own, other, _server, _) = two().await;
    let session = own.session().await;
    let there = Session { home: &other, ..session };
    at_hand_at_last(&own, &session).await;
    let mut kept = 0;
    for revision in (1..100).step_by(2) {
        session.set(revision, "a", "1").await;
        // None where the other's write before it was told of only now.
        kept += u32::from(revision_at_hand(&own, &session) == Some(revision + 1));
        assert_eq!(living(&*load(&own, &session).await).revision, revision + 1);
        there.set(revision + 1, "b", &revision.to_string()).await;
        let heard = async || living(&*load(&own, &session).await).revision == revision + 2;
        let took = until("the other's write", heard).await;
        assert!(took < SECOND, "{took:?}");
        at_hand_at_last(&own, &session).await;
    }
    assert!(kept > 20, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_write_is_at_hand_no_longer_than_its_connection_stands() {
    let server = Server::start();
    let (own, other) = (home(&server.url(), "prod").await, home(&server.url(), "prod").await);
    let session = own.session().await;
    let there = Session { home: &other, ..session };
    at_hand_at_last(&own, &session).await;
    session.set(1, "a", "1").await;
    assert_eq!(revision_at_hand(&own, &session), Some(2));
    cut(&mut server.raw(), "writes");
    there.set(2, "a", "2").await;
    let took = until("the other's write", async || living(&*load(&own, &session).await).revision == 3).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_own_writes_at_once_leave_what_the_server_has() {
    let (own, fresh, _server, _) = two().await;
    for round in 0..20 {
        let session = own.session().await;
        at_hand_at_last(&own, &session).await;
        let set = |n: usize| session.set(1, ["a", "b", "c", "d", "e", "f", "g", "h"][n], "1");
        futures_util::future::join_all((0..8).map(set)).await;
        let kept = load(&own, &session).await;
        assert_eq!(told(&kept), told(&*load(&fresh, &session).await), "round {round}");
        assert_eq!(living(&kept).revision, 9);
    }
}

/// A session whose token has claims.
fn of_a_token(home: &Home) -> Record {
    let (issuer, subject) = ("i".to_owned(), "s".to_owned());
    let proof = Proof::Token(TokenProof { issuer, subject, claims_at: 1, ..TokenProof::default() });
    Record { proof, ..record(home.now()) }
}

fn told(entry: &Entry) -> Json {
    serde_json::to_value(living(entry)).unwrap()
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// One of all things that may happen to a session and leave it there.
fn effect(dice: &mut Dice, record: &Record, step: u64) -> Effect {
    let field = ["a", "b", "c"][dice.throw(3) as usize];
    let base = change(record.birth, record.revision);
    let changed = |change: Change| Effect::Change(Box::new(change));
    match dice.throw(8) {
        0 => changed(Change { unset: vec![field.into()], ..base }),
        1 => Effect::Note { birth: record.birth },
        2 => changed(Change { schema: Some(step as u32), ..base }),
        3 => changed(Change { user: Some(Some(user())), ..base }),
        4 => changed(Change { claims_at: Some(step), ..base }),
        5 => match record.fields.get(field) {
            Some(stored) => {
                let (path, before, after) = (field.into(), stored.json.clone(), step.to_string().into());
                Effect::Reseal { birth: record.birth, values: vec![Resealed { path, before, after }] }
            }
            None => Effect::Note { birth: record.birth },
        },
        6 => {
            let growth = Growth { from: 10, at: record.revision, to: 10 + step, most: 1 << 20 };
            let set = fields(&[(field, &step.to_string())]);
            changed(Change { set, growth: Some(growth), ..base })
        }
        _ => match &record.proof {
            Proof::Secret { hash, .. } => {
                let rotate = Rotate { current: *hash, next: secret(), grace_until: record.ends_at };
                changed(Change { rotate: Some(rotate), ..base })
            }
            Proof::Token(_) => {
                changed(Change { claims_at: Some(step), set: fields(&[(field, &step.to_string())]), ..base })
            }
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_two_do_in_turns_both_have_what_the_server_has() {
    let (first, second, server, environment) = two().await;
    let fresh = home_with(with_mode(&server.url(), CacheMode::Off), &environment).await;
    for (seed, record) in [(1, record(first.now())), (2, of_a_token(&first))] {
        let (mut dice, mut kept) = (Dice(seed), 0);
        let session = first.session_with(record).await;
        for step in 2..200 {
            let (actor, other) = if dice.throw(2) == 0 { (&first, &second) } else { (&second, &first) };
            let before = fresh.entry(session.handle).await.unwrap();
            if dice.throw(8) == 0 {
                let later = living(&before).last_active.plus(Duration::from_secs(2));
                assert!(actor.store.touch(session.handle, session.birth, later).await.unwrap());
            } else {
                actor.commit(session.handle, effect(&mut dice, living(&before), step)).await;
                kept += u32::from(actor.store.at_hand(session.handle).is_some());
            }
            let truth = told(&*load(&fresh, &session).await);
            assert_eq!(told(&*load(actor, &session).await), truth, "seed {seed}, step {step}");
            let heard = async || told(&*load(other, &session).await) == truth;
            let took = until("what the other did", heard).await;
            assert!(took < SECOND, "seed {seed}, step {step}: {took:?}");
        }
        assert!(kept > 60, "{kept}");
    }
}

/// What changes without an audit record, by another and at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_touches_meanwhile_is_not_lost() {
    let (own, other, server, environment) = two().await;
    let fresh = home_with(with_mode(&server.url(), CacheMode::Off), &environment).await;
    let session = own.session_with(of_a_token(&own)).await;
    let there = Session { home: &other, ..session };
    for round in 1..150 {
        at_hand_at_last(&own, &session).await;
        let later = living(&*load(&own, &session).await).last_active.plus(Duration::from_secs(2));
        let claims = Change { claims_at: Some(1 + round), ..session.at(round) };
        // After its own write the server tells of the next change on both connections, else on that of the reads alone.
        let first = round % 2 == 0;
        if first {
            session.set(round, "a", "1").await;
        }
        let set = async {
            if !first {
                session.set(round, "a", "1").await;
            }
        };
        let (_, touched, ()) = tokio::join!(there.change(claims), there.touch(later), set);
        assert!(touched);
        let truth = told(&*load(&fresh, &session).await);
        let took = until("what both did", async || told(&*load(&own, &session).await) == truth).await;
        assert!(took < SECOND, "round {round}: {took:?}");
    }
}

/// After a failover the server may have lost what it had answered: then other commits have the same numbers.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_has_lost_is_not_gone_on_with() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let fresh = home_with(with_mode(&server.url(), CacheMode::Off), "prod").await;
    let mut raw = server.raw();
    for _ in 0..10 {
        let session = home.session().await;
        at_hand_at_last(&home, &session).await;
        let keys = ["sessions", "audit"].map(|kind| format!("prod:{kind}:{{{}}}", session.handle));
        keys.iter().for_each(|key| assert_eq!(raw.say::<u64>(&format!("COPY {key} copy:{key}")), 1));
        session.set(1, "lost", "1").await;
        assert_eq!(revision_at_hand(&home, &session), Some(2));
        ["reads", "writes"].iter().for_each(|link| cut(&mut raw, link));
        keys.iter().for_each(|key| assert_eq!(raw.say::<u64>(&format!("COPY copy:{key} {key} REPLACE")), 1));
        tokio::join!(session.set(1, "a", "1"), session.set(1, "b", "1"));
        let truth = told(&*load(&fresh, &session).await);
        assert_eq!(truth["fields"].as_object().unwrap().len(), 2);
        assert_eq!(told(&*load(&home, &session).await), truth);
    }
}

/// A bound for faults that nobody has thought of: it counts from the last reading, however often one writes.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_one_writes_all_of_it_is_read_again_now_and_then() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    at_hand_at_last(&home, &session).await;
    let mut raw = server.raw();
    let before = raw.calls("hgetall");
    let (begun, mut revision) = (Instant::now(), 1);
    while begun.elapsed() < 31 * SECOND {
        assert_done(&session.set(revision, "a", "1").await, revision + 1, revision + 1);
        load(&home, &session).await;
        revision += 1;
        tokio::time::sleep(SECOND / 4).await;
    }
    // The scripts read once each.
    let read = raw.calls("hgetall") - before - (revision - 1);
    assert!((1..=2).contains(&read), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_told_of_is_not_kept() {
    let server = Server::start();
    for mode in [CacheMode::Ttl, CacheMode::Off] {
        let home = home_with(with_mode(&server.url(), mode), "prod").await;
        let session = home.session().await;
        load(&home, &session).await;
        session.set(1, "a", "1").await;
        assert!(home.store.at_hand(session.handle).is_none(), "{mode:?}");
        assert_eq!(session.record().await.revision, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_that_ends_or_begins_anew_is_not_taken_for_what_it_was() {
    let (own, fresh, _server, _) = two().await;
    let session = own.session().await;
    at_hand_at_last(&own, &session).await;
    session.set(1, "a", "1").await;
    session.revoke(own.now().plus(IDLE)).await;
    assert!(matches!(&*load(&own, &session).await, Entry::Revoked(_)));
    let session = own.session().await;
    at_hand_at_last(&own, &session).await;
    let asked = cloakroom::store::Replace {
        birth: session.birth,
        record: record(own.now()),
        ended: cloakroom::store::Draft::new(r#"{"action":"revoke"}"#).unwrap(),
    };
    own.commit(session.handle, Effect::Replace(Box::new(asked))).await;
    let kept: Arc<Entry> = load(&own, &session).await;
    assert_ne!(living(&kept).birth, session.birth);
    assert_eq!(told(&kept), told(&*load(&fresh, &session).await));
}
