//! Reads that cost nothing, and are right all the same.

use std::sync::Arc;

use cloakroom::clock::Time;
use cloakroom::store::{Entry, Revocation, Revoked};

use super::*;
use crate::redis_server::Raw;
use crate::store::fixture::*;

pub(super) async fn load(home: &Home, session: &Session<'_>) -> Arc<Entry> {
    home.store.load(session.handle).await.unwrap().unwrap()
}

/// Ends every connection of that name, as an operator would.
pub(super) fn cut(raw: &mut Raw, name: &str) {
    let clients: String = raw.say("CLIENT LIST");
    for client in clients.lines().filter(|client| client.contains(&format!(" name=cloakroom-{name} "))) {
        let id = client.split_whitespace().next().unwrap().trim_start_matches("id=");
        // It may be gone already.
        raw.say::<u64>(&format!("CLIENT KILL ID {id}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_reads_ask_nothing() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    let mut raw = server.raw();
    until("a proven cache", async || Arc::ptr_eq(&load(&home, &session).await, &load(&home, &session).await)).await;
    let before = raw.calls("hgetall");
    let first = load(&home, &session).await;
    for _ in 0..1000 {
        assert!(Arc::ptr_eq(&first, &load(&home, &session).await));
    }
    assert_eq!(raw.calls("hgetall"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_writes_is_seen_at_once_and_read_once() {
    let (writer, reader, _server, _) = two().await;
    let session = writer.session().await;
    for revision in 1..50 {
        load(&reader, &session).await;
        assert_done(&session.set(revision, "count", &revision.to_string()).await, revision + 1, revision + 1);
        let took = until("the other's write", async || match &*load(&reader, &session).await {
            Entry::Living(record) => record.revision == revision + 1,
            Entry::Revoked(_) => false,
        })
        .await;
        assert!(took < SECOND, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn own_write_is_read_back_by_the_next_read() {
    let (home, _, _server, _) = two().await;
    let session = home.session().await;
    for revision in 1..100 {
        load(&home, &session).await;
        session.set(revision, "count", "1").await;
        assert_eq!(session.record().await.revision, revision + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_one_session_read_once() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    home.store.reachable().await.unwrap();
    let mut raw = server.raw();
    let before = raw.calls("hgetall");
    futures_util::future::join_all((0..200).map(|_| load(&home, &session))).await;
    let asked = raw.calls("hgetall") - before;
    assert!(asked <= 2, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_server_has_nothing_to_serve() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    load(&home, &session).await;
    server.raw().say::<()>("FLUSHALL");
    let took = until("an empty store", async || home.entry(session.handle).await.is_none()).await;
    assert!(took < SECOND, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_reaches_the_other_within_a_second() {
    let (first, second, _server, _) = two().await;
    let heard = heard(&second);
    let session = first.session().await;
    load(&second, &session).await;
    session.revoke(first.now().plus(IDLE)).await;
    let took = until("the tombstone", async || matches!(*load(&second, &session).await, Entry::Revoked(_))).await;
    assert!(took < SECOND, "{took:?}");
    let of = Revoked::Session { handle: session.handle, birth: session.birth };
    let told = until("the feed", async || heard.lock().unwrap().iter().any(|revocation| revocation.of == of)).await;
    assert!(took + told < SECOND, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_reaches_the_other_though_its_links_are_cut() {
    for link in ["reads", "feed"] {
        let server = Server::start();
        let (first, second) = (home(&server.url(), "prod").await, home(&server.url(), "prod").await);
        let heard = heard(&second);
        let session = first.session().await;
        load(&second, &session).await;
        let mut raw = server.raw();
        cut(&mut raw, link);
        session.revoke(first.now().plus(IDLE)).await;
        let took = until("the tombstone", async || {
            matches!(
                second.store.load(session.handle).await.as_ref().map(Option::as_deref),
                Ok(Some(Entry::Revoked(_)))
            )
        })
        .await;
        let told = until("the feed", async || !heard.lock().unwrap().is_empty()).await;
        assert!(took + told < SECOND, "{link}: {took:?} {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_late_is_told_the_whole_feed() {
    let (first, _, server, env) = two().await;
    let (now, user) = (first.now(), user());
    let of = || Revoked::User { user, not_before: now };
    let (over, user) = (Revocation { of: of(), until: Time(1) }, Revocation { of: of(), until: now.plus(ABSOLUTE) });
    for revocation in [&over, &user] {
        first.store.revoke(revocation.clone()).await.unwrap();
    }
    let late = home(&server.url(), &env).await;
    let heard = heard(&late);
    until("the feed", async || !heard.lock().unwrap().is_empty()).await;
    assert_eq!(*heard.lock().unwrap(), [user]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_touches_at_once_are_one() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let session = home.session().await;
    let mut raw = server.raw();
    let before = raw.calls("evalsha") + raw.calls("eval");
    let now = home.now();
    let touched = futures_util::future::join_all((0..100).map(|_| session.touch(now))).await;
    assert!(touched.into_iter().all(|touched| touched));
    assert_eq!(session.record().await.last_active, now);
    let asked = raw.calls("evalsha") + raw.calls("eval") - before;
    assert!(asked <= 2, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracking_an_entry_is_a_second_old_at_most() {
    let server = Server::start();
    let writer = home(&server.url(), "prod").await;
    let reader = home_with(with_mode(&server.url(), CacheMode::Ttl), "prod").await;
    let session = writer.session().await;
    let first = load(&reader, &session).await;
    assert!(Arc::ptr_eq(&first, &load(&reader, &session).await));
    session.set(1, "a", "1").await;
    let took = until("the other's write", async || !Arc::ptr_eq(&first, &load(&reader, &session).await)).await;
    assert!(took < SECOND + SECOND / 10, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_every_read_asks() {
    let server = Server::start();
    let home = home_with(with_mode(&server.url(), CacheMode::Off), "prod").await;
    let session = home.session().await;
    let mut raw = server.raw();
    let before = raw.calls("hgetall");
    for _ in 0..10 {
        load(&home, &session).await;
    }
    assert_eq!(raw.calls("hgetall") - before, 10);
}
