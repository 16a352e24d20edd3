//! A cluster that changes under way: slots move, primaries die, and everybody follows.

use std::time::Instant;

use cloakroom::handle::Handle;
use cloakroom::quota::Quota;
use cloakroom::store::{Entry, Outcome, Revocation, Revoked, Taken};

use super::fault::{Writers, setting};
use super::*;
use crate::redis_server::Cluster;
use crate::store::fixture::*;

/// Within which the store is back after a primary has died: the nodes take a second to notice and another to vote.
const FAILOVER: Duration = Duration::from_secs(8);

async fn in_cluster(cluster: &Cluster) -> Home {
    home_with(cluster_config(cluster), "prod").await
}

/// A session whose key that primary serves.
async fn session_at<'h>(home: &'h Home, cluster: &Cluster, place: usize) -> Session<'h> {
    loop {
        let session = home.session().await;
        if cluster.place_of(&key(session.handle)) == place {
            return session;
        }
    }
}

fn key(handle: Handle) -> String {
    format!("prod:sessions:{{{handle}}}")
}

async fn is_living(home: &Home, session: &Session<'_>) -> Option<bool> {
    let entry = home.store.load(session.handle).await.ok()??;
    Some(matches!(&*entry, Entry::Living(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_every_primary_are_found() {
    let cluster = Cluster::start();
    let home = in_cluster(&cluster).await;
    let mut made = Vec::new();
    for place in 0..3 {
        made.push(session_at(&home, &cluster, place).await.handle);
    }
    for (place, raw) in cluster.raws().iter_mut().enumerate() {
        assert_eq!(raw.say::<u64>(&format!("EXISTS {}", key(made[place]))), 1);
    }
    let listed = home.store.handles(None, usize::MAX).await.unwrap();
    assert!(made.iter().all(|handle| listed.contains(handle)));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_every_primary_are_shared() {
    let cluster = Cluster::start();
    let (first, second) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    let one = Quota { burst: std::num::NonZeroU32::MIN, period: Duration::from_secs(3600) };
    for n in 0..12 {
        let key = format!("a:client:192.0.2.{n}");
        assert_eq!(first.store.take(&key, one).unwrap().await, Ok(Taken::One));
        assert!(matches!(second.store.take(&key, one).unwrap().await, Ok(Taken::NoneFor(_))));
    }
    let held: Vec<u64> = cluster.raws().iter_mut().map(|raw| raw.say("DBSIZE")).collect();
    assert!(held.iter().all(|keys| *keys > 0) && held.iter().sum::<u64>() == 12, "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_reads_ask_no_node() {
    let cluster = Cluster::start();
    let home = in_cluster(&cluster).await;
    let sessions = [session_at(&home, &cluster, 0).await, session_at(&home, &cluster, 2).await];
    for session in &sessions {
        until("a proven cache", async || {
            let (one, other) = (home.store.load(session.handle).await, home.store.load(session.handle).await);
            matches!((one, other), (Ok(Some(one)), Ok(Some(other))) if Arc::ptr_eq(&one, &other))
        })
        .await;
    }
    let asked = || cluster.raws().iter_mut().map(|raw| raw.calls("hgetall")).sum::<u64>();
    let before = asked();
    for _ in 0..1000 {
        for session in &sessions {
            home.store.load(session.handle).await.unwrap();
        }
    }
    assert_eq!(asked(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_writes_on_any_node_is_seen_within_a_second() {
    let cluster = Cluster::start();
    let (writer, reader) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    for place in 0..3 {
        let session = session_at(&writer, &cluster, place).await;
        assert_eq!(is_living(&reader, &session).await, Some(true));
        session.revoke(writer.now().plus(IDLE)).await;
        let took = until("the tombstone", async || is_living(&reader, &session).await == Some(false)).await;
        assert!(took < SECOND, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_lose_nothing_while_their_slot_moves() {
    let cluster = Cluster::start();
    let (home, reader) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    let session = session_at(&home, &cluster, 0).await;
    let slot = cluster.slot_of(&key(session.handle));
    let writers = Writers::begin(&home, &session, 6, 60);
    let mut at = 0;
    for to in [1, 2, 0, 1] {
        assert_eq!(is_living(&reader, &session).await, Some(true));
        cluster.begin_move(slot, at, to);
        // One key at a time: for a while the session is there and its trail is here.
        while cluster.move_keys(slot, at, to, 1) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.finish_move(slot, at, to);
        at = to;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    writers.all_landed(&home, &session).await;
    session.revoke(home.now().plus(IDLE)).await;
    let took = until("the tombstone", async || is_living(&reader, &session).await == Some(false)).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_that_is_half_way_to_another_node_is_read_and_written() {
    let cluster = Cluster::start();
    let home = in_cluster(&cluster).await;
    let session = session_at(&home, &cluster, 1).await;
    let slot = cluster.slot_of(&key(session.handle));
    cluster.begin_move(slot, 1, 2);
    cluster.move_keys(slot, 1, 2, 100);
    // Until somebody finishes it, every question goes to the one node and is sent on to the other.
    for revision in 1..4 {
        assert_done(&session.set(revision, "a", "1").await, revision + 1, revision + 1);
        assert_eq!(session.record().await.revision, revision + 1);
    }
    assert!(session.touch(home.now()).await);
    assert_eq!(home.trail(session.handle).await.len(), 4);
    cluster.finish_move(slot, 1, 2);
    assert_done(&session.set(4, "a", "1").await, 5, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn feed_is_followed_to_where_it_moves() {
    let cluster = Cluster::start();
    let (first, second) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    let heard = heard(&second);
    let feed = "prod:revocations";
    let (slot, from) = (cluster.slot_of(feed), cluster.place_of(feed));
    let to = (from + 1) % 3;
    let revoke = async |what: &str| {
        let user = user();
        let of = Revoked::User { user, not_before: first.now() };
        let revocation = Revocation { of, until: first.now().plus(ABSOLUTE) };
        first.store.revoke(revocation.clone()).await.unwrap();
        let took = until(what, async || heard.lock().unwrap().contains(&revocation)).await;
        assert!(took < SECOND, "{what}: {took:?}");
    };
    revoke("before").await;
    cluster.begin_move(slot, from, to);
    revoke("about to move").await;
    cluster.move_keys(slot, from, to, 100);
    revoke("half way").await;
    until("a proof", async || second.store.reachable().await.is_ok()).await;
    cluster.finish_move(slot, from, to);
    revoke("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_takes_over_from_a_primary_that_dies() {
    let cluster = Cluster::with_replicas(3);
    let (home, reader) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    let feed = cluster.place_of("prod:revocations");
    for (place, by_kill) in [(feed, true), ((feed + 1) % 3, false)] {
        let (session, bystander) =
            (session_at(&home, &cluster, place).await, session_at(&home, &cluster, (place + 2) % 3).await);
        session.set(1, "a", "1").await;
        assert_eq!(is_living(&reader, &session).await, Some(true));
        wait_for_replicas(&cluster, place).await;
        if by_kill {
            cluster.primaries[place].kill();
        } else {
            cluster.primaries[place].freeze();
        }
        let lost = Instant::now();
        let commit = setting(&session, "b");
        until("the new primary", async || matches!(home.store.commit(commit.clone()).await, Ok(Outcome::Done { .. })))
            .await;
        until("the feed", async || reader.store.reachable().await.is_ok()).await;
        assert!(lost.elapsed() < FAILOVER, "{:?}", lost.elapsed());
        // What was written before is there, once; the other sidecar follows as well.
        until("the reader", async || reader.store.load(session.handle).await.is_ok()).await;
        let read = session.record().await;
        assert_eq!((read.revision, read.seq), (3, 3));
        session.revoke(home.now().plus(IDLE)).await;
        let took = until("the tombstone", async || is_living(&reader, &session).await == Some(false)).await;
        assert!(took < SECOND, "{took:?}");
        assert_done(&bystander.set(1, "a", "1").await, 2, 2);
        if !by_kill {
            // What woke up believes for a moment that it is the primary; nobody is served what it knows.
            cluster.primaries[place].thaw();
            for _ in 0..200 {
                assert_ne!(is_living(&reader, &session).await, Some(true));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

async fn wait_for_replicas(cluster: &Cluster, place: usize) {
    let mut raw = cluster.primaries[place].raw();
    // The write of a link of its own, then all replicas' word for it.
    raw.say::<()>(&format!("CLUSTER COUNTKEYSINSLOT {}", place * 16384 / 3));
    until("a replica", async || raw.say::<u64>("WAIT 1 100") >= 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn primary_that_is_told_to_step_down_is_left_at_once() {
    let cluster = Cluster::with_replicas(1);
    let (home, reader) = (in_cluster(&cluster).await, in_cluster(&cluster).await);
    let session = session_at(&home, &cluster, 0).await;
    assert_eq!(is_living(&reader, &session).await, Some(true));
    let writers = Writers::begin(&home, &session, 4, 60);
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.replicas[0].raw().say::<()>("CLUSTER FAILOVER");
    writers.all_landed(&home, &session).await;
    session.revoke(home.now().plus(IDLE)).await;
    let took = until("the tombstone", async || is_living(&reader, &session).await == Some(false)).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_is_found_by_whichever_node_is_there() {
    let cluster = Cluster::start();
    let dead = Server::start();
    dead.kill();
    let mut config = cluster_config(&cluster);
    config.urls = vec![dead.url().into(), config.urls[1].clone()];
    let home = home_with(config, "prod").await;
    until("the store", async || home.store.reachable().await.is_ok()).await;
    home.session().await;
}
