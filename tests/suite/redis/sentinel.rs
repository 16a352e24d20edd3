//! Sentinels that make another server the primary; all links follow.

use std::time::Instant;

use cloakroom::store::{Entry, Outcome, StoreError};

use super::fault::{Writers, setting};
use super::*;
use crate::redis_server::Watched;
use crate::store::fixture::*;

/// Within which all links have followed: the sentinel takes half a second to notice, and then asks and waits.
const FAILOVER: Duration = Duration::from_secs(8);

async fn is_living(home: &Home, session: &Session<'_>) -> Option<bool> {
    let entry = home.store.load(session.handle).await.ok()??;
    Some(matches!(&*entry, Entry::Living(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_links_follow_a_failover() {
    let watched = Watched::start();
    let (home, reader) = (home(&watched.url(), "prod").await, home(&watched.url(), "prod").await);
    let heard = heard(&reader);
    for by_kill in [false, true] {
        let session = home.session().await;
        session.set(1, "a", "1").await;
        until("the session", async || is_living(&reader, &session).await == Some(true)).await;
        let primary = watched.primary();
        watched.servers[primary].raw().say::<u64>("WAIT 1 1000");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if by_kill {
            watched.servers[primary].kill();
        } else {
            watched.fail_over();
        }
        let lost = Instant::now();
        until("another primary", async || watched.primary() != primary).await;
        let told = Instant::now();
        let new = &watched.servers[1 - primary];
        for link in ["reads", "writes", "feed"] {
            let name = format!("name=cloakroom-{link} ");
            until(link, async || new.raw().say::<String>("CLIENT LIST").matches(&name).count() == 2).await;
        }
        // By command, the old primary goes on as one for a while: only who is told in time leaves it.
        assert!(by_kill || told.elapsed() < SECOND, "{:?}", told.elapsed());
        let commit = setting(&session, "b");
        until("the new primary", async || matches!(home.store.commit(commit.clone()).await, Ok(Outcome::Done { .. })))
            .await;
        assert!(lost.elapsed() < FAILOVER, "{:?}", lost.elapsed());
        until("the session", async || home.store.load(session.handle).await.is_ok()).await;
        let read = session.record().await;
        assert_eq!((read.revision, read.seq), (3, 3));
        let before = heard.lock().unwrap().len();
        session.revoke(home.now().plus(IDLE)).await;
        let took = until("the tombstone", async || is_living(&reader, &session).await == Some(false)).await;
        let told = until("the feed", async || heard.lock().unwrap().len() > before).await;
        assert!(took + told < SECOND, "{took:?} {told:?}");
        if !by_kill {
            // The old primary is to be a replica by the next turn.
            let old = &watched.servers[primary];
            until("a replica", async || old.raw().say::<String>("INFO replication").contains("master_link_status:up"))
                .await;
            until("a replica that is known", async || {
                let known: Vec<Vec<String>> = watched.raw().say("SENTINEL REPLICAS sessions");
                known.iter().any(|one| one.windows(2).any(|pair| pair == ["master-link-status", "ok"]))
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_that_slept_through_a_failover_is_not_believed() {
    let watched = Watched::start();
    let (home, reader) = (hasty_home(&watched.url()).await, hasty_home(&watched.url()).await);
    let session = home.session().await;
    until("the session", async || is_living(&reader, &session).await == Some(true)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    watched.servers[0].freeze();
    until("another primary", async || watched.primary() == 1).await;
    let end = cloakroom::store::Effect::Revoke { birth: None, until: home.now().plus(IDLE) };
    let end = commit(session.handle, home.now(), end);
    until("the revocation", async || matches!(home.store.commit(end.clone()).await, Ok(Outcome::Done { .. }))).await;
    watched.servers[0].thaw();
    for _ in 0..500 {
        let loaded = reader.store.load(session.handle).await;
        assert!(!matches!(loaded.as_ref().map(Option::as_deref), Ok(Some(Entry::Living(_)))), "{loaded:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(is_living(&reader, &session).await, Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_lose_nothing_while_the_primary_changes() {
    let watched = Watched::start();
    let home = home(&watched.url(), "prod").await;
    let session = home.session().await;
    // A failover by command waits for the replica: what was acknowledged goes along.
    let writers = Writers::begin(&home, &session, 4, 100);
    tokio::time::sleep(Duration::from_millis(50)).await;
    watched.fail_over();
    writers.tasks_end().await;
    until("the store", async || home.store.reachable().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sentinels_are_asked_until_one_knows() {
    let watched = Watched::start();
    let dead = Server::start();
    dead.kill();
    let urls = vec![format!("redis+sentinel://127.0.0.1:{}/sessions", dead.port).into(), watched.url().into()];
    let config = config::Store { url: None, urls, ..redis_config("") };
    let home = home_with(config, "prod").await;
    home.session().await;
    let both = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{}/sessions", dead.port, watched.port);
    super::home(&both, "prod").await.session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_ask_for_a_password_get_the_servers() {
    let options = ["--requirepass", "shared-word", "--masterauth", "shared-word"];
    let lines = "sentinel auth-pass sessions shared-word\nrequirepass shared-word\n";
    let watched = Watched::start_with(&options, lines);
    let url = watched.url().replace("//", "//:shared-word@");
    let home = home(&url, "prod").await;
    until("the store", async || home.store.reachable().await.is_ok()).await;
    home.session().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_are_away_are_waited_for() {
    let dead = Server::start();
    dead.kill();
    let home = home(&format!("redis+sentinel://127.0.0.1:{}/sessions", dead.port), "prod").await;
    let reason = home.store.reachable().await;
    assert_eq!(reason, Err(StoreError::Unavailable("no sentinel can be reached".into())));
}
