//! The server dies, hangs, forgets or refuses, or the way to it breaks; no write is lost, doubled or made up.

use std::time::Instant;

use cloakroom::store::{Change, Effect, Entry, Outcome, StoreError};

use super::relay::Relay;
use super::*;
use crate::store::fixture::*;

/// Within which the store is back after the server is.
const RECOVERY: Duration = Duration::from_secs(1);

pub fn setting(session: &Session<'_>, path: &str) -> cloakroom::store::Commit {
    let change = Change { set: fields(&[(path, "1")]), ..session.at(1) };
    commit(session.handle, session.home.now(), Effect::Change(Box::new(change)))
}

async fn serves(home: &Home, session: &Session<'_>) -> bool {
    home.store.load(session.handle).await.is_ok() && home.store.reachable().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_scripts_are_told_again() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    for revision in 1..4 {
        server.raw().say::<()>("SCRIPT FLUSH");
        assert_done(&session.set(revision, "a", "1").await, revision + 1, revision + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_is_told_at_once_and_found_again() {
    let server = Server::start();
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    session.set(1, "a", "1").await;
    server.kill();
    until("the outage", async || home.store.load(session.handle).await.is_err()).await;
    until("a reason", async || matches!(home.store.reachable().await, Err(StoreError::Unavailable(_)))).await;
    let begun = Instant::now();
    assert!(matches!(home.store.load(session.handle).await, Err(StoreError::Unavailable(_))));
    // The link for writes may learn of it only by this, and then nobody knows.
    let answer = home.store.commit(setting(&session, "b")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown)), "{answer:?}");
    assert!(begun.elapsed() < TIMEOUT / 2, "nobody waits for what is known to be down: {:?}", begun.elapsed());
    server.revive();
    let took = until("the store", async || serves(&home, &session).await).await;
    assert!(took < RECOVERY, "{took:?}");
    assert_eq!(session.record().await.revision, 2);
    assert_done(&session.set(2, "a", "2").await, 3, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_server_holds_nobody_longer_than_the_timeout() {
    let server = Server::start();
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    until("a kept session", async || serves(&home, &session).await).await;
    server.freeze();
    let frozen = Instant::now();
    let begun = Instant::now();
    let answer = home.store.commit(setting(&session, "a")).await;
    assert_eq!(answer, Err(StoreError::Unknown));
    assert!(begun.elapsed() < TIMEOUT + TIMEOUT / 4, "{:?}", begun.elapsed());
    until("the outage", async || home.store.load(session.handle).await.is_err()).await;
    assert!(frozen.elapsed() < Duration::from_secs(2), "served unproven for {:?}", frozen.elapsed());
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = home.store.load(session.handle).await;
        assert!(matches!(answer, Err(StoreError::Timeout | StoreError::Unavailable(_))), "{answer:?}");
        assert!(begun.elapsed() < TIMEOUT + TIMEOUT / 4, "{:?}", begun.elapsed());
    }
    server.thaw();
    let took = until("the store", async || serves(&home, &session).await).await;
    assert!(took < RECOVERY, "{took:?}");
    // Asked for twice while nobody heard, it was done once.
    let read = session.record().await;
    assert!((read.revision, read.seq) == (2, 2) || (read.revision, read.seq) == (1, 1), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_whose_answer_was_lost_is_done_once() {
    let server = Server::start();
    let relay = Relay::open(server.port).await;
    let home = home(&relay.url(), "prod").await;
    let session = home.session().await;
    for revision in 1..20 {
        relay.cut_after_next_script();
        let outcome = session.set(revision, "a", &revision.to_string()).await;
        assert!(relay.has_lost());
        assert_done(&outcome, revision + 1, revision + 1);
    }
    assert_eq!(home.trail(session.handle).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_on_a_half_open_connection_is_done_once() {
    let server = Server::start();
    let relay = Relay::open(server.port).await;
    let home = hasty_home(&relay.url()).await;
    let session = home.session().await;
    relay.silence_after_next_script();
    let begun = Instant::now();
    let outcome = session.set(1, "a", "1").await;
    assert!(relay.has_lost() && begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    assert_done(&outcome, 2, 2);
    assert_eq!(home.trail(session.handle).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_whose_answer_was_lost_is_told_to_the_others() {
    let server = Server::start();
    let relay = Relay::open(server.port).await;
    let (first, second) = (home(&relay.url(), "prod").await, home(&server.url(), "prod").await);
    let heard = heard(&second);
    let session = first.session().await;
    relay.cut_after_next_script();
    let outcome = session.revoke(first.now().plus(IDLE)).await;
    assert_done(&outcome, 1, 2);
    until("the feed", async || !heard.lock().unwrap().is_empty()).await;
    assert!(matches!(second.entry(session.handle).await, Some(Entry::Revoked(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_without_memory_refuses_commits_whole_and_goes_on_reading() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    let mut raw = server.raw();
    raw.say::<()>("CONFIG SET maxmemory 1");
    let refused = home.store.commit(setting(&session, "a")).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(reason)) if reason.contains("OOM")), "{refused:?}");
    assert_eq!((session.record().await.revision, home.trail(session.handle).await.len()), (1, 1));
    raw.say::<()>("CONFIG SET maxmemory 0");
    assert_done(&session.set(1, "a", "1").await, 2, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_became_a_replica_is_dialled_again() {
    let server = Server::start();
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    let mut raw = server.raw();
    raw.say::<()>("REPLICAOF 127.0.0.1 1");
    let refused = home.store.commit(setting(&session, "a")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_) | StoreError::Timeout)), "{refused:?}");
    raw.say::<()>("REPLICAOF NO ONE");
    let took = until("a primary", async || home.store.commit(setting(&session, "a")).await.is_ok()).await;
    assert!(took < RECOVERY, "{took:?}");
    until("the store", async || serves(&home, &session).await).await;
    assert_eq!(session.record().await.revision, 2);
}

/// Many who each write fields of their own into one session, and ask until they are answered.
pub struct Writers {
    tasks: tokio::task::JoinSet<Vec<u64>>,
    all: u64,
}

impl Writers {
    pub fn begin(home: &Home, session: &Session<'_>, writers: usize, each: usize) -> Self {
        let (handle, birth) = (session.handle, session.birth);
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let home = home.clone();
            tasks.spawn(async move {
                let session = Session { home: &home, handle, birth };
                let mut acknowledged = Vec::new();
                for number in 0..each {
                    let commit = setting(&session, &format!("field_{writer}_{number}"));
                    // Asked for until it is answered, always as the same commit.
                    loop {
                        match home.store.commit(commit.clone()).await {
                            Ok(Outcome::Done { revision, .. }) => break acknowledged.push(revision),
                            Ok(other) => panic!("{other:?}"),
                            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                        }
                    }
                }
                acknowledged
            });
        }
        Self { tasks, all: (writers * each) as u64 }
    }

    /// Every one of them was answered.
    pub async fn tasks_end(self) {
        assert_eq!(self.tasks.join_all().await.into_iter().flatten().count() as u64, self.all);
    }

    /// Every one of them was applied once, and nothing else was.
    pub async fn all_landed(self, home: &Home, session: &Session<'_>) {
        let mut revisions: Vec<u64> = self.tasks.join_all().await.into_iter().flatten().collect();
        revisions.sort_unstable();
        assert_eq!(revisions, (2..self.all + 2).collect::<Vec<_>>());
        until("the store", async || serves(home, session).await).await;
        let read = session.record().await;
        assert_eq!((read.revision, read.seq, read.fields.len() as u64), (self.all + 1, self.all + 1, self.all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_lose_nothing_while_the_server_is_killed() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    let writers = Writers::begin(&home, &session, 8, 40);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.kill();
        server.revive();
    }
    writers.all_landed(&home, &session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_sessions_are_served_for_a_while_and_nothing_is_written() {
    const STALE_FOR: Duration = Duration::from_secs(3);
    let server = Server::start();
    let stale = config::Store {
        timeout: Period::millis(TIMEOUT.as_millis() as u64),
        on_failure: config::StoreFailure::Stale,
        stale_for: Period::secs(STALE_FOR.as_secs()),
        ..redis_config(&server.url())
    };
    let home = home_with(stale, "prod").await;
    let (session, unread) = (home.session().await, home.session().await);
    until("a kept session", async || serves(&home, &session).await).await;
    let kept = session.record().await;
    server.freeze();
    let frozen = Instant::now();
    let mut served = Duration::ZERO;
    let known = async |handle| home.store.load(handle).await.ok().flatten().or_else(|| home.store.last_known(handle));
    while let Some(entry) = known(session.handle).await {
        assert!(matches!(&*entry, Entry::Living(record) if record.birth == kept.birth));
        served = frozen.elapsed();
        if served < Duration::from_secs(2) && home.store.reachable().await.is_err() {
            assert!(home.store.commit(setting(&session, "a")).await.is_err());
            assert!(known(unread.handle).await.is_none());
        }
    }
    assert!(served > STALE_FOR - SECOND && served < STALE_FOR + SECOND, "{served:?}");
    server.thaw();
    let took = until("the store", async || serves(&home, &session).await).await;
    assert!(took < RECOVERY, "{took:?}");
}
