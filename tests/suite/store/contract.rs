//! What every home promises, one function each.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::Time;
use cloakroom::handle::{Birth, Handle};
use cloakroom::store::{
    Base, Change, Conflict, Effect, Entry, Growth, Outcome, PreviousSecret, Proof, Record, Resealed, Revocation,
    Revoked, Rotate, Stored, TokenProof,
};

use super::fixture::*;

fn conflict_on(path: &str) -> Outcome {
    Outcome::Conflict(Conflict::Field(path.into()))
}

fn stored(json: &str, revision: u64) -> Stored {
    Stored { json: json.into(), revision }
}

fn seqs(trail: &[serde_json::Value]) -> Vec<u64> {
    trail.iter().map(|record| record["seq"].as_u64().unwrap()).collect()
}

pub async fn new_session_reads_back(home: Home) {
    let mut new = record(home.now());
    new.user = Some(user());
    new.fields.insert("step".into(), stored("3", 1));
    let session = home.session_with(new.clone()).await;
    let read = session.record().await;
    assert_eq!((read.birth, read.revision, read.seq, read.schema), (new.birth, 1, 1, 1));
    assert_eq!((read.user, read.created_at, read.last_active), (new.user, new.created_at, new.last_active));
    assert_eq!((read.ends_at, read.idle, read.touch_interval), (new.ends_at, new.idle, new.touch_interval));
    assert_eq!(read.fields, new.fields);
    assert!(secret_of(&read) == secret_of(&new));
}

fn secret_of(record: &Record) -> cloakroom::handle::SecretHash {
    match &record.proof {
        Proof::Secret { hash, .. } => *hash,
        Proof::Token(_) => panic!("proven by a token"),
    }
}

pub async fn absent_session_is_not_found(home: Home) {
    let (handle, birth) = (handle(), Birth::random().unwrap());
    assert!(home.entry(handle).await.is_none());
    for effect in [
        Effect::Change(Box::new(change(birth, 1))),
        Effect::Revoke { birth: None, until: Time::MAX },
        Effect::Note { birth },
    ] {
        assert_eq!(home.commit(handle, effect).await, Outcome::NotFound);
    }
    assert!(!home.store.touch(handle, birth, home.now()).await.unwrap());
    assert_eq!(home.trail(handle).await.len(), 0);
}

pub async fn living_session_stands_in_the_way_of_another(home: Home) {
    let session = home.session().await;
    assert_eq!(home.commit(session.handle, create(record(home.now()))).await, Outcome::Exists);
    assert_eq!(session.record().await.birth, session.birth);
}

pub async fn expired_session_gives_way_to_another(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    home.clock.advance(IDLE + TOUCH_INTERVAL);
    assert_eq!(session.set(2, "a", "2").await, Outcome::NotFound);
    let next = record(home.now());
    assert_done(&home.commit(session.handle, create(next.clone())).await, 1, 1);
    let read = session.record().await;
    assert_eq!((read.birth, read.revision, read.fields.len()), (next.birth, 1, 0));
    assert_eq!(session.set(1, "a", "1").await, Outcome::Conflict(Conflict::Birth));
}

pub async fn tombstone_stands_in_the_way_until_its_time(home: Home) {
    let session = home.session().await;
    session.revoke(home.now().plus(SECOND)).await;
    assert_eq!(home.commit(session.handle, create(record(home.now()))).await, Outcome::Revoked);
    home.clock.advance(SECOND);
    assert_done(&home.commit(session.handle, create(record(home.now()))).await, 1, 1);
}

pub async fn commit_asked_for_again_is_answered_as_before(home: Home) {
    let session = home.session().await;
    // Based on what is not there any more when it is asked for again.
    let asked = Change { set: fields(&[("a", "1")]), if_match: Some(1), ..session.at(1) };
    let first = commit(session.handle, home.now(), Effect::Change(Box::new(asked)));
    assert_done(&home.ask(&first).await, 2, 2);
    assert_done(&session.set(2, "a", "2").await, 3, 3);
    assert_eq!(home.ask(&first).await, Outcome::Done { revision: 2, seq: 2, record: None });
    let read = session.record().await;
    assert_eq!((read.revision, read.seq, &*read.fields["a"].json), (3, 3, "2"));
    assert_eq!(home.trail(session.handle).await.len(), 3);
}

pub async fn creation_asked_for_again_is_answered_as_before(home: Home) {
    let first = commit(handle(), home.now(), create(record(home.now())));
    assert_done(&home.ask(&first).await, 1, 1);
    assert_eq!(home.ask(&first).await, Outcome::Done { revision: 1, seq: 1, record: None });
    let other = commit(first.handle, home.now(), first.effect.clone());
    assert_eq!(home.ask(&other).await, Outcome::Exists);
}

pub async fn tombstone_remembers_the_commits_of_its_session(home: Home) {
    let session = home.session().await;
    let set = Effect::Change(Box::new(Change { set: fields(&[("a", "1")]), ..session.at(1) }));
    let set = commit(session.handle, home.now(), set);
    let revoke = commit(session.handle, home.now(), Effect::Revoke { birth: None, until: home.now().plus(IDLE) });
    assert_done(&home.ask(&set).await, 2, 2);
    assert_done(&home.ask(&revoke).await, 2, 3);
    for (commit, seq) in [(&set, 2), (&revoke, 3)] {
        assert_eq!(home.ask(commit).await, Outcome::Done { revision: 2, seq, record: None });
    }
    assert_eq!(home.trail(session.handle).await.len(), 3);
}

pub async fn refused_commit_leaves_nothing(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let before = session.record().await;
    let refused = Change {
        set: fields(&[("b", "2"), ("a", "2")]),
        unset: vec!["c".into()],
        schema: Some(9),
        user: Some(Some(user())),
        end: Some(Time::MAX),
        ..session.at(1)
    };
    assert_eq!(session.change(refused).await, conflict_on("a"));
    let read = session.record().await;
    assert_eq!((read.revision, read.seq, read.schema, read.user), (2, 2, 1, None));
    assert_eq!((read.fields, read.unset.len()), (before.fields, 0));
    assert_eq!(home.trail(session.handle).await.len(), 2);
}

pub async fn disjoint_fields_merge(home: Home) {
    let session = home.session().await;
    assert_done(&session.set(1, "a", "1").await, 2, 2);
    assert_done(&session.set(1, "b", "2").await, 3, 3);
    let read = session.record().await;
    assert_eq!((read.fields["a"].clone(), read.fields["b"].clone()), (stored("1", 2), stored("2", 3)));
}

pub async fn field_changed_after_the_base_conflicts_whatever_its_value(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    assert_eq!(session.set(1, "a", "1").await, conflict_on("a"));
    let unset = Change { unset: vec!["a".into()], ..session.at(1) };
    assert_eq!(session.change(unset).await, conflict_on("a"));
    assert_done(&session.set(2, "a", "2").await, 3, 3);
}

pub async fn field_unset_after_the_base_conflicts(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    assert_done(&session.change(Change { unset: vec!["a".into()], ..session.at(2) }).await, 3, 3);
    assert!(session.record().await.fields.is_empty());
    assert_eq!(session.set(2, "a", "2").await, conflict_on("a"));
    assert_done(&session.set(3, "a", "2").await, 4, 4);
}

pub async fn first_conflicting_field_is_named(home: Home) {
    let session = home.session().await;
    let all = Change { set: fields(&[("a", "1"), ("b", "1"), ("c", "1")]), ..session.at(1) };
    assert_done(&session.change(all).await, 2, 2);
    let late = Change { set: fields(&[("d", "2"), ("c", "2")]), unset: vec!["a".into()], ..session.at(1) };
    assert_eq!(session.change(late).await, conflict_on("c"));
}

pub async fn field_set_again_is_no_longer_unset(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    session.change(Change { unset: vec!["a".into()], ..session.at(2) }).await;
    assert_eq!(session.record().await.unset, [(Arc::from("a"), 3)].into());
    session.set(3, "a", "2").await;
    let read = session.record().await;
    assert!(read.unset.is_empty());
    assert_eq!(read.changed_at("a"), 4);
}

pub async fn trailers_do_not_conflict_with_their_own_head(home: Home) {
    let session = home.session().await;
    let head = Change { set: fields(&[("a", "1")]), if_match: Some(1), ..session.at(1) };
    assert_done(&session.change(head).await, 2, 2);
    let base = Base { birth: session.birth, revision: 1, own: Some(2) };
    let trailers = Change { base, set: fields(&[("a", "2")]), if_match: Some(1), ..session.at(1) };
    assert_done(&session.change(trailers).await, 3, 3);
    assert_eq!(session.record().await.fields["a"], stored("2", 3));
}

pub async fn trailers_conflict_with_a_writer_after_their_head(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    session.set(2, "b", "1").await;
    let base = Base { birth: session.birth, revision: 1, own: Some(2) };
    let trailers = |path| Change { base: base.clone(), set: fields(&[(path, "2")]), ..session.at(1) };
    assert_eq!(session.change(trailers("b")).await, conflict_on("b"));
    let exactly = Change { if_match: Some(1), ..trailers("a") };
    assert_eq!(session.change(exactly).await, Outcome::Conflict(Conflict::Revision));
    assert_done(&session.change(trailers("a")).await, 4, 4);
}

pub async fn if_match_holds_also_without_changes(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    for wrong in [0, 1, 3] {
        let asked = Change { if_match: Some(wrong), ..session.at(2) };
        assert_eq!(session.change(asked).await, Outcome::Conflict(Conflict::Revision));
    }
    let asked = Change { if_match: Some(2), ..session.at(2) };
    assert_eq!(session.change(asked).await, Outcome::Unchanged { revision: 2 });
}

pub async fn checks_come_in_their_order(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let rotate = Rotate { current: secret(), next: secret(), grace_until: home.now() };
    let other = Base { birth: Birth::random().unwrap(), revision: 1, own: None };
    let mut asked =
        Change { base: other, if_match: Some(7), set: fields(&[("a", "2")]), rotate: Some(rotate), ..session.at(1) };
    let wrong = asked.clone();
    assert_eq!(session.change(asked.clone()).await, Outcome::Conflict(Conflict::Birth));
    asked.base.birth = session.birth;
    assert_eq!(session.change(asked.clone()).await, Outcome::Conflict(Conflict::Revision));
    asked.if_match = Some(2);
    assert_eq!(session.change(asked.clone()).await, conflict_on("a"));
    asked.base.revision = 2;
    assert_eq!(session.change(asked.clone()).await, Outcome::SecretChanged);
    session.revoke(home.now().plus(SECOND)).await;
    assert_eq!(session.change(wrong.clone()).await, Outcome::Revoked);
    home.clock.advance(SECOND);
    assert_eq!(session.change(wrong).await, Outcome::NotFound);
}

pub async fn change_without_effect_is_not_recorded(home: Home) {
    let owner = user();
    let session = home.session_with(Record { user: Some(owner), ..record(home.now()) }).await;
    let nothing = Change { schema: Some(1), user: Some(Some(owner)), ..session.at(1) };
    assert_eq!(session.change(nothing).await, Outcome::Unchanged { revision: 1 });
    assert_eq!(session.record().await.seq, 1);
    assert_eq!(home.trail(session.handle).await.len(), 1);
}

pub async fn setting_the_same_value_is_a_change(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    assert_done(&session.set(2, "a", "1").await, 3, 3);
    let unset = Change { unset: vec!["never".into()], ..session.at(3) };
    assert_done(&session.change(unset).await, 4, 4);
}

pub async fn only_field_changes_raise_the_revision(home: Home) {
    let new = record(home.now());
    let current = secret_of(&new);
    let session = home.session_with(new).await;
    assert_done(&session.change(Change { schema: Some(2), ..session.at(1) }).await, 1, 2);
    assert_done(&session.change(Change { user: Some(Some(user())), ..session.at(1) }).await, 1, 3);
    let rotate = Some(Rotate { current, next: secret(), grace_until: home.now() });
    assert_done(&session.change(Change { rotate, ..session.at(1) }).await, 1, 4);
    assert_done(&home.commit(session.handle, Effect::Note { birth: session.birth }).await, 1, 5);
    assert_done(&session.set(1, "a", "1").await, 2, 6);
    assert_done(&session.revoke(Time::MAX).await, 2, 7);
    assert_eq!(seqs(&home.trail(session.handle).await), [7, 6, 5, 4, 3, 2, 1]);
}

pub async fn schema_is_never_lowered(home: Home) {
    let session = home.session().await;
    session.change(Change { schema: Some(5), ..session.at(1) }).await;
    session.change(Change { schema: Some(3), set: fields(&[("a", "1")]), ..session.at(1) }).await;
    assert_eq!(session.record().await.schema, 5);
    assert_eq!(session.change(Change { schema: Some(3), ..session.at(2) }).await, Outcome::Unchanged { revision: 2 });
}

pub async fn rotation_keeps_the_secret_before_for_a_while(home: Home) {
    let new = record(home.now());
    let (current, next) = (secret_of(&new), secret());
    let session = home.session_with(new).await;
    let grace_until = home.now().plus(SECOND);
    let rotate = Some(Rotate { current, next, grace_until });
    assert_done(&session.change(Change { rotate, ..session.at(1) }).await, 1, 2);
    match session.record().await.proof {
        Proof::Secret { hash, previous: Some(PreviousSecret { hash: before, until }) } => {
            assert!(hash == next && before == current && until == grace_until);
        }
        other => panic!("{other:?}"),
    }
}

pub async fn only_the_current_secret_may_be_replaced(home: Home) {
    let new = record(home.now());
    let (first, second) = (secret_of(&new), secret());
    let session = home.session_with(new).await;
    let grace_until = home.now().plus(SECOND);
    let rotate = |current, next| Change {
        rotate: Some(Rotate { current, next, grace_until }),
        set: fields(&[("a", "1")]),
        ..session.at(2)
    };
    assert_done(&session.change(rotate(first, second)).await, 2, 2);
    // The one before still passes, but whoever holds it may not rotate the other's away.
    assert_eq!(session.change(rotate(first, secret())).await, Outcome::SecretChanged);
    let read = session.record().await;
    assert!(secret_of(&read) == second);
    assert_eq!((read.revision, read.seq), (2, 2));
}

/// Sets a field, having read a session of size 20 at revision 1 where 100 is the most.
fn growing(session: Session<'_>, path: &str, to: u64) -> Change {
    Change { set: fields(&[(path, "1")]), growth: Some(Growth { from: 20, at: 1, to, most: 100 }), ..session.at(1) }
}

pub async fn writers_of_disjoint_fields_share_the_room_there_is(home: Home) {
    let session = home.session().await;
    assert_done(&session.change(growing(session, "a", 70)).await, 2, 2);
    assert_eq!(session.change(growing(session, "b", 60)).await, Outcome::TooLarge);
    let read = session.record().await;
    assert_eq!((read.revision, read.size, read.fields.contains_key("b")), (2, Some(70), false));
    assert_done(&session.change(growing(session, "b", 50)).await, 3, 3);
    assert_eq!(session.record().await.size, Some(100));
    // A conflict is told before a lack of room.
    assert_eq!(session.change(growing(session, "a", 100)).await, conflict_on("a"));
    assert_done(&session.change(Change { growth: None, ..growing(session, "c", 0) }).await, 4, 4);
    assert_eq!(session.record().await.size, None);
}

pub async fn session_that_is_too_large_may_shrink(home: Home) {
    let session = home.session().await;
    let growth = |from, to| Some(Growth { from, at: 1, to, most: 100 });
    for (from, to, outcome) in [(300, 301, Some(Outcome::TooLarge)), (300, 299, None)] {
        let change = Change { growth: growth(from, to), ..growing(session, "a", 0) };
        match outcome {
            Some(outcome) => assert_eq!(session.change(change).await, outcome),
            None => assert_done(&session.change(change).await, 2, 2),
        }
    }
    assert_eq!(session.record().await.size, Some(299));
}

pub async fn size_that_nobody_counted_is_as_it_was_read(home: Home) {
    let session = home.session().await;
    session.set(1, "z", "1").await;
    assert_eq!(session.change(growing(session, "a", 101)).await, Outcome::TooLarge);
    assert_done(&session.change(growing(session, "a", 100)).await, 3, 3);
    assert_eq!(session.record().await.size, Some(100));
}

pub async fn session_of_a_token_has_no_secret_to_replace(home: Home) {
    let proof = Proof::Token(TokenProof::default());
    let session = home.session_with(Record { proof, ..record(home.now()) }).await;
    let rotate = Some(Rotate { current: secret(), next: secret(), grace_until: home.now() });
    assert_eq!(session.change(Change { rotate, ..session.at(1) }).await, Outcome::SecretChanged);
}

pub async fn change_that_ends_the_session_leaves_a_tombstone(home: Home) {
    let session = home.session().await;
    let until = home.now().plus(ABSOLUTE);
    let ending = Change { set: fields(&[("a", "1")]), end: Some(until), ..session.at(1) };
    assert_done(&session.change(ending).await, 2, 2);
    let tombstone = session.tombstone().await;
    assert_eq!((tombstone.birth, tombstone.seq), (session.birth, 2));
    assert_eq!((tombstone.revoked_at, tombstone.until), (home.now(), until));
    let other = home.session().await;
    assert_done(&other.change(Change { end: Some(until), ..other.at(1) }).await, 1, 2);
    assert_eq!(other.set(1, "a", "1").await, Outcome::Revoked);
}

pub async fn revocation_needs_no_revision_but_the_birth_it_names(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let until = home.now().plus(ABSOLUTE);
    let revoke = |birth| Effect::Revoke { birth: Some(birth), until };
    let other = Birth::random().unwrap();
    assert_eq!(home.commit(session.handle, revoke(other)).await, Outcome::Conflict(Conflict::Birth));
    assert_done(&home.commit(session.handle, revoke(session.birth)).await, 2, 3);
    let tombstone = session.tombstone().await;
    assert_eq!((tombstone.birth, tombstone.seq), (session.birth, 3));
    assert_eq!((tombstone.revoked_at, tombstone.until), (home.now(), until));
}

pub async fn revoked_session_stays_revoked(home: Home) {
    let session = home.session().await;
    session.revoke(home.now().plus(IDLE)).await;
    home.clock.advance(SECOND);
    let before = session.tombstone().await;
    assert_eq!(session.revoke(Time::MAX).await, Outcome::Revoked);
    assert_eq!(session.set(1, "a", "1").await, Outcome::Revoked);
    assert_eq!(home.commit(session.handle, Effect::Note { birth: session.birth }).await, Outcome::Revoked);
    assert!(!session.touch(home.now()).await);
    let after = session.tombstone().await;
    assert_eq!((after.revoked_at, after.until, after.seq), (before.revoked_at, before.until, 2));
    assert_eq!(home.trail(session.handle).await.len(), 2);
}

pub async fn note_is_recorded_in_a_living_session_only(home: Home) {
    let session = home.session().await;
    let note = |birth| Effect::Note { birth };
    assert_done(&home.commit(session.handle, note(session.birth)).await, 1, 2);
    let other = Birth::random().unwrap();
    assert_eq!(home.commit(session.handle, note(other)).await, Outcome::Conflict(Conflict::Birth));
    home.clock.advance(ABSOLUTE);
    assert_eq!(home.commit(session.handle, note(session.birth)).await, Outcome::NotFound);
    assert_eq!(session.revoke(Time::MAX).await, Outcome::NotFound);
}

fn reseal(birth: Birth, values: &[(&str, &str, &str)]) -> Effect {
    let resealed = |&(path, before, after): &(&str, &str, &str)| Resealed {
        path: path.into(),
        before: before.into(),
        after: after.into(),
    };
    Effect::Reseal { birth, values: values.iter().map(resealed).collect() }
}

pub async fn values_sealed_anew_raise_no_revision_and_conflict_with_nobody(home: Home) {
    let session = home.session().await;
    session.change(Change { set: fields(&[("a", "1"), ("b", "2")]), ..session.at(1) }).await;
    let anew = reseal(session.birth, &[("a", "1", "10"), ("b", "2", "20")]);
    assert_done(&home.commit(session.handle, anew).await, 2, 3);
    let record = session.record().await;
    assert_eq!((record.revision, record.seq), (2, 3));
    assert_eq!((&record.fields["a"], &record.fields["b"]), (&stored("10", 2), &stored("20", 2)));
    let pinned = Change { set: fields(&[("a", "3")]), if_match: Some(2), ..session.at(2) };
    assert_done(&session.change(pinned).await, 3, 4);
    assert_eq!(seqs(&home.trail(session.handle).await), [4, 3, 2, 1]);
}

pub async fn values_are_sealed_anew_all_or_none_and_only_as_they_were_read(home: Home) {
    let session = home.session().await;
    session.change(Change { set: fields(&[("a", "1"), ("b", "2")]), ..session.at(1) }).await;
    for (stale, named) in [(("b", "1", "20"), "b"), (("c", "3", "30"), "c")] {
        let anew = reseal(session.birth, &[("a", "1", "10"), stale]);
        assert_eq!(home.commit(session.handle, anew).await, conflict_on(named));
    }
    let record = session.record().await;
    assert_eq!((record.seq, &record.fields["a"], &record.fields["b"]), (2, &stored("1", 2), &stored("2", 2)));
}

pub async fn only_a_living_session_of_that_birth_is_sealed_anew(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let anew = |birth| reseal(birth, &[("a", "1", "10")]);
    let other = Birth::random().unwrap();
    assert_eq!(home.commit(session.handle, anew(other)).await, Outcome::Conflict(Conflict::Birth));
    assert_eq!(home.commit(handle(), anew(session.birth)).await, Outcome::NotFound);
    session.revoke(Time::MAX).await;
    assert_eq!(home.commit(session.handle, anew(session.birth)).await, Outcome::Revoked);
}

pub async fn user_index_follows_the_session(home: Home) {
    let (first, second) = (user(), user());
    let session = home.session_with(Record { user: Some(first), ..record(home.now()) }).await;
    let listed = async |user| home.store.sessions_of(user).await.unwrap();
    assert_eq!((listed(first).await, listed(second).await), (vec![session.handle], vec![]));
    session.change(Change { user: Some(Some(second)), ..session.at(1) }).await;
    assert_eq!((listed(first).await, listed(second).await), (vec![], vec![session.handle]));
    session.set(1, "a", "1").await;
    assert_eq!(listed(second).await, [session.handle]);
    session.change(Change { user: Some(None), ..session.at(1) }).await;
    assert_eq!(listed(second).await, []);
    session.change(Change { user: Some(Some(first)), ..session.at(1) }).await;
    assert_eq!(listed(first).await, [session.handle]);
    session.revoke(Time::MAX).await;
    assert_eq!(listed(first).await, []);
}

pub async fn user_index_lists_the_oldest_first(home: Home) {
    let owner = user();
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(home.session_with(Record { user: Some(owner), ..record(home.now()) }).await.handle);
        home.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(home.store.sessions_of(owner).await.unwrap(), created);
}

pub async fn trail_is_paged_newest_first(home: Home) {
    let session = home.session().await;
    for revision in 1..7 {
        session.set(revision, "a", "1").await;
    }
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let page = home.store.trail(session.handle, before, 3).await.unwrap();
        let records: Vec<_> = page.records.iter().map(|record| serde_json::from_str(record).unwrap()).collect();
        pages.push(seqs(&records));
        before = page.next;
        if before.is_none() {
            break;
        }
        // What comes meanwhile does not shift the pages.
        home.commit(session.handle, Effect::Note { birth: session.birth }).await;
    }
    assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    let exact = home.store.trail(session.handle, None, 9).await.unwrap();
    assert_eq!((exact.records.len(), exact.next), (9, None));
}

pub async fn trail_is_trimmed_exactly(home: Home) {
    let session = home.session().await;
    for seq in 2..=KEEP + 30 {
        assert_done(&home.commit(session.handle, Effect::Note { birth: session.birth }).await, 1, seq);
        if seq == KEEP {
            assert_eq!(home.trail(session.handle).await.len() as u64, KEEP);
        }
    }
    let kept: Vec<_> = (31..=KEEP + 30).rev().collect();
    assert_eq!(seqs(&home.trail(session.handle).await), kept);
}

pub async fn trail_goes_on_over_births(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    home.clock.advance(ABSOLUTE);
    home.commit(session.handle, create(record(home.now()))).await;
    assert_eq!(seqs(&home.trail(session.handle).await), [1, 2, 1]);
    let page = home.store.trail(session.handle, None, 1).await.unwrap();
    let rest = home.store.trail(session.handle, page.next, 9).await.unwrap();
    assert_eq!(rest.records.len(), 2);
}

pub async fn touch_slides_the_idle_expiry_and_nothing_else(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let before = session.record().await;
    home.clock.advance(IDLE);
    assert!(session.touch(home.now()).await);
    let read = session.record().await;
    assert_eq!(read.last_active, home.now());
    assert_eq!(read.dead_at(), home.now().plus(IDLE + TOUCH_INTERVAL));
    assert_eq!((read.revision, read.seq, read.fields), (before.revision, before.seq, before.fields));
    assert_eq!(home.trail(session.handle).await.len(), 2);
}

pub async fn touch_never_moves_back(home: Home) {
    let session = home.session().await;
    let early = home.now();
    home.clock.advance(SECOND);
    assert!(session.touch(home.now()).await);
    assert!(session.touch(early).await);
    assert_eq!(session.record().await.last_active, home.now());
    // Nor does a commit by a clock that is behind.
    let set = Effect::Change(Box::new(Change { set: fields(&[("a", "1")]), ..session.at(1) }));
    assert_done(&home.ask(&commit(session.handle, early, set)).await, 2, 2);
    assert_eq!(session.record().await.last_active, home.now());
}

pub async fn touch_never_revives(home: Home) {
    let session = home.session().await;
    let other = Birth::random().unwrap();
    assert!(!home.store.touch(session.handle, other, home.now()).await.unwrap());
    home.clock.advance(IDLE + TOUCH_INTERVAL);
    assert!(!session.touch(home.now()).await);
    assert_eq!(session.set(1, "a", "1").await, Outcome::NotFound);

    let revoked = home.session().await;
    assert!(revoked.touch(home.now().plus(SECOND)).await);
    revoked.revoke(Time::MAX).await;
    assert!(!revoked.touch(home.now().plus(SECOND)).await);
    assert_eq!(revoked.set(1, "a", "1").await, Outcome::Revoked);
}

pub async fn touch_is_kept_by_the_next_commit(home: Home) {
    let session = home.session().await;
    for _ in 0..4 {
        home.clock.advance(IDLE);
        assert!(session.touch(home.now()).await);
    }
    // Long past what the record said when it was created.
    assert_done(&session.set(1, "a", "1").await, 2, 2);
    assert_eq!(session.record().await.last_active, home.now());
}

pub async fn absolute_expiry_is_not_touched(home: Home) {
    let session = home.session().await;
    let created_at = home.now();
    while home.now() < created_at.plus(ABSOLUTE) {
        assert!(session.touch(home.now()).await);
        home.clock.advance(IDLE);
    }
    assert!(!session.touch(home.now()).await);
    assert_eq!(session.set(1, "a", "1").await, Outcome::NotFound);
}

const WRITERS: u64 = 64;

pub async fn writers_of_disjoint_fields_all_land(home: Home) {
    let session = home.session().await;
    let (handle, birth) = (session.handle, session.birth);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let home = home.clone();
        tasks.spawn(async move {
            let session = Session { home: &home, handle, birth };
            session.set(1, &format!("field_{writer}"), "1").await
        });
    }
    let mut numbers: Vec<_> = tasks.join_all().await.into_iter().map(done).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (2..WRITERS + 2).map(|number| (number, number)).collect::<Vec<_>>());
    assert_eq!(seqs(&home.trail(handle).await), (1..WRITERS + 2).rev().collect::<Vec<_>>());
    let read = session.record().await;
    assert_eq!((read.revision, read.seq, read.fields.len() as u64), (WRITERS + 1, WRITERS + 1, WRITERS));
}

fn done(outcome: Outcome) -> (u64, u64) {
    match outcome {
        Outcome::Done { revision, seq, record: Some(_) } => (revision, seq),
        other => panic!("{other:?}"),
    }
}

pub async fn one_writer_wins_each_revision(home: Home) {
    let session = home.session().await;
    session.set(1, "count", "0").await;
    let (handle, birth) = (session.handle, session.birth);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let home = home.clone();
        tasks.spawn(async move { increment(&Session { home: &home, handle, birth }).await });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (3..WRITERS + 3).collect::<Vec<_>>());
    let read = session.record().await;
    assert_eq!(*read.fields["count"].json, *WRITERS.to_string());
}

/// Adds one to `count`, reading again where somebody else was first.
async fn increment(session: &Session<'_>) -> u64 {
    // Each other writer can be first once, and a fresh read never conflicts with what was answered before it.
    for _ in 0..=WRITERS {
        let read = session.record().await;
        let count: u64 = read.fields["count"].json.parse().unwrap();
        match session.set(read.revision, "count", &(count + 1).to_string()).await {
            Outcome::Done { revision, .. } => return revision,
            outcome => assert_eq!(outcome, conflict_on("count")),
        }
    }
    panic!("others were first more often than there are others");
}

pub async fn feed_lists_what_stands_oldest_first(home: Home) {
    assert_eq!(home.store.revocations(home.now()).await.unwrap(), []);
    let now = home.now();
    let session = |until| Revocation {
        of: Revoked::Session { handle: handle(), birth: Birth::random().unwrap() },
        until: now.plus(Duration::from_secs(until)),
    };
    let user = Revocation { of: Revoked::User { user: user(), not_before: now }, until: now.plus(ABSOLUTE) };
    let feed = [session(9), user, session(2), session(5)];
    for revocation in &feed {
        home.store.revoke(revocation.clone()).await.unwrap();
    }
    assert_eq!(home.store.revocations(now).await.unwrap(), feed);
    let later = now.plus(Duration::from_secs(2));
    assert_eq!(home.store.revocations(later).await.unwrap(), [feed[0].clone(), feed[1].clone(), feed[3].clone()]);
}

pub async fn handles_are_listed_in_pages(home: Home) {
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(home.session().await.handle);
    }
    home.session().await.revoke(Time::MAX).await;
    let mut listed: Vec<Handle> = Vec::new();
    loop {
        let page = home.store.handles(listed.last().copied(), 3).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert!(listed.is_sorted());
    assert_eq!(listed.len(), 8);
    assert!(all.iter().all(|handle| listed.contains(handle)));
    assert!(matches!(home.entry(listed[0]).await, Some(Entry::Living(_) | Entry::Revoked(_))));
}
