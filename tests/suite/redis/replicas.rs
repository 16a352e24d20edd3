//! Commits that wait for copies of themselves.

use std::time::Instant;

use cloakroom::store::Counts;

use super::*;
use crate::store::fixture::*;

fn durable(url: &str, timeout: u64) -> config::Store {
    let durability = config::Durability { wait_replicas: 1, timeout: Period::millis(timeout) };
    config::Store { durability, ..redis_config(url) }
}

async fn open(config: &config::Store, counts: &Counts) -> Home {
    let clock = Clock::system();
    let store = Redis::open(config, "prod", bounds(), clock.clone(), counts.clone()).await.unwrap();
    Home::of(Arc::new(store), clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_is_answered_when_a_replica_has_it() {
    let primary = Server::start();
    let of = primary.port.to_string();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &of, "--repl-diskless-sync-delay", "0"]);
    let mut raw = replica.raw();
    until("a replica", async || raw.say::<String>("INFO replication").contains("master_link_status:up")).await;
    let counts = Counts::default();
    let home = open(&durable(&primary.url(), 5000), &counts).await;
    let session = home.session().await;
    for revision in 1..30 {
        session.set(revision, "a", "1").await;
        // The replica answers at once for what it has.
        let there: String = raw.say(&format!("HGET prod:sessions:{{{}}} @revision", session.handle));
        assert_eq!(there, (revision + 1).to_string());
    }
    assert_eq!(counts.unreplicated.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_without_replicas_stands_and_is_counted() {
    let server = Server::start();
    let counts = Counts::default();
    let home = open(&durable(&server.url(), 100), &counts).await;
    let session = home.session().await;
    assert_eq!(counts.unreplicated.get(), 1);
    let begun = Instant::now();
    let all = futures_util::future::join_all((0..50).map(|n| {
        let session = &session;
        async move { session.set(1, &format!("f{n}"), "1").await }
    }));
    for outcome in all.await {
        assert!(matches!(outcome, cloakroom::store::Outcome::Done { .. }), "{outcome:?}");
    }
    // They wait beside each other, and nothing else waits for them.
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!((counts.unreplicated.get(), session.record().await.revision), (51, 51));
    let begun = Instant::now();
    assert!(session.touch(home.now()).await);
    assert!(begun.elapsed() < Duration::from_millis(90), "{:?}", begun.elapsed());
}
