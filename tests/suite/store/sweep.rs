//! What homes in this process remove when its time is over, going by the clock set by hand.

use std::time::Duration;

use cloakroom::clock::Time;
use cloakroom::handle::Birth;
use cloakroom::store::{Change, Effect, Outcome, Record, Revocation, Revoked};

use super::fixture::*;

/// Makes a commit elsewhere, which is what a home sweeps beside.
async fn sweep(home: &Home) {
    home.clock.advance(SECOND);
    let bystander = Record { ends_at: Time::MAX, idle: u64::MAX, ..record(home.now()) };
    home.session_with(bystander).await;
}

pub async fn dead_sessions_are_swept(home: Home) {
    let owner = user();
    let session = home.session_with(Record { user: Some(owner), ..record(home.now()) }).await;
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_some());
    home.clock.advance(IDLE + TOUCH_INTERVAL);
    assert!(home.entry(session.handle).await.is_some());
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_none());
    assert_eq!(home.store.sessions_of(owner).await.unwrap(), []);
    assert!(!home.store.handles(None, 9).await.unwrap().contains(&session.handle));
}

pub async fn touched_session_is_not_swept(home: Home) {
    let session = home.session().await;
    for _ in 0..5 {
        home.clock.advance(IDLE);
        assert!(session.touch(home.now()).await);
        sweep(&home).await;
    }
    assert_done(&session.set(1, "a", "1").await, 2, 2);
    home.clock.advance(IDLE + TOUCH_INTERVAL);
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_none());
}

pub async fn tombstones_are_swept_after_their_time(home: Home) {
    let session = home.session().await;
    session.revoke(home.now().plus(ABSOLUTE * 2)).await;
    home.clock.advance(ABSOLUTE);
    sweep(&home).await;
    assert_eq!(session.set(1, "a", "1").await, Outcome::Revoked);
    home.clock.advance(ABSOLUTE);
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_none());
}

pub async fn trail_outlives_its_session_for_a_while(home: Home) {
    let session = home.session().await;
    session.set(1, "a", "1").await;
    let over_at = session.record().await.dead_at();
    home.clock.advance(over_at.since(home.now()));
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_none());
    home.clock.advance(RETAIN - Duration::from_secs(2));
    sweep(&home).await;
    assert!(home.now() == over_at.plus(RETAIN));
    assert_eq!(home.trail(session.handle).await.len(), 0);
}

pub async fn trail_of_a_revoked_session_goes_before_its_tombstone(home: Home) {
    let session = home.session().await;
    session.revoke(home.now().plus(RETAIN * 2)).await;
    home.clock.advance(RETAIN - SECOND * 2);
    sweep(&home).await;
    assert_eq!(home.trail(session.handle).await.len(), 2);
    sweep(&home).await;
    assert_eq!(home.trail(session.handle).await.len(), 0);
    assert_eq!(session.tombstone().await.seq, 2);
    home.clock.advance(RETAIN);
    sweep(&home).await;
    sweep(&home).await;
    assert!(home.entry(session.handle).await.is_none());
    assert_eq!(home.trail(session.handle).await.len(), 0);
}

pub async fn new_session_keeps_the_trail_before_it(home: Home) {
    let session = home.session().await;
    session.revoke(home.now().plus(SECOND)).await;
    // Due to be removed by the very commit that brings the next session.
    home.clock.advance(RETAIN);
    let next = record(home.now());
    assert_done(&home.commit(session.handle, create(next.clone())).await, 1, 1);
    let trail = home.trail(session.handle).await;
    assert_eq!(trail[0]["seq"], 1);
    let next = Session { birth: next.birth, ..session };
    assert_done(&next.set(1, "a", "1").await, 2, 2);
    sweep(&home).await;
    sweep(&home).await;
    assert_eq!(home.trail(session.handle).await.len(), trail.len() + 1);
    home.clock.advance(IDLE * 2);
    sweep(&home).await;
    home.clock.advance(RETAIN);
    sweep(&home).await;
    assert_eq!(home.trail(session.handle).await.len(), 0);
}

pub async fn ended_revocations_are_swept(home: Home) {
    let of = Revoked::Session { handle: handle(), birth: Birth::random().unwrap() };
    let start = home.now();
    home.store.revoke(Revocation { of, until: start.plus(IDLE) }).await.unwrap();
    home.clock.advance(IDLE);
    assert_eq!(home.store.revocations(start).await.unwrap().len(), 1);
    sweep(&home).await;
    assert_eq!(home.store.revocations(start).await.unwrap(), []);
}

pub async fn oldest_remembered_commit_is_forgotten(home: Home) {
    let session = home.session().await;
    let set = Effect::Change(Box::new(Change { set: fields(&[("a", "1")]), ..session.at(1) }));
    let first = commit(session.handle, home.now(), set);
    assert_done(&home.ask(&first).await, 2, 2);
    for seq in 3..=17 {
        home.commit(session.handle, Effect::Note { birth: session.birth }).await;
        assert_eq!(home.ask(&first).await, Outcome::Done { revision: 2, seq: 2, record: None }, "at {seq}");
    }
    home.commit(session.handle, Effect::Note { birth: session.birth }).await;
    assert!(matches!(home.ask(&first).await, Outcome::Conflict(_)));
}

pub async fn many_dead_sessions_are_swept_in_turns(home: Home) {
    for _ in 0..30 {
        futures_util::future::join_all((0..50).map(|_| home.session())).await;
    }
    assert_eq!(home.store.handles(None, usize::MAX).await.unwrap().len(), 1500);
    home.clock.advance(ABSOLUTE);
    let mut turns = 0;
    while home.store.handles(None, usize::MAX).await.unwrap().len() > turns {
        sweep(&home).await;
        turns += 1;
        assert!(turns < 20, "sweeping does not get on");
    }
}
