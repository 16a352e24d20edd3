//! What servers say when they do not do what they are asked.

use std::io::{Read, Write};
use std::net::TcpListener;

use cloakroom::store::{Counts, Effect, Entry, StoreError};

use super::*;
use crate::store::fixture::*;

/// Within which the store is back after the server is willing again.
const RECOVERY: Duration = Duration::from_secs(1);

async fn reason(home: &Home) -> Option<String> {
    match home.store.reachable().await {
        Err(StoreError::Unavailable(reason)) => Some(reason),
        _ => None,
    }
}

/// Waits until the store says that, and what contains it.
async fn told(home: &Home, words: &str) {
    until(words, async || reason(home).await.is_some_and(|reason| reason.contains(words))).await;
}

/// A server that says the same to whatever it is asked.
fn liar(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut asked = [0; 4096];
                while stream.read(&mut asked).is_ok_and(|read| read > 0) {
                    // One answer for each command, each of which begins with its number of words.
                    let commands = asked.iter().filter(|byte| **byte == b'*').count().max(1);
                    if stream.write_all(answer.repeat(commands).as_bytes()).is_err() {
                        return;
                    }
                    asked.fill(0);
                }
            });
        }
    });
    port
}

async fn refused(url: &str) -> String {
    match Redis::open(&redis_config(url), "prod", bounds(), Clock::system(), Counts::default()).await {
        Ok(_) => panic!("it was taken"),
        Err(unusable) => unusable.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_too_old_is_refused() {
    let old = liar("-ERR unknown command `HELLO`, with args beginning with: `3`\r\n");
    let said = refused(&format!("redis://127.0.0.1:{old}")).await;
    assert_eq!(said, "store.url: the server is too old: Redis 6 or Valkey is needed, for RESP3");
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_that_is_none_and_the_other_way_round_are_refused() {
    let single = Server::start();
    let config = config::Store { cluster: true, ..redis_config(&single.url()) };
    let error = Redis::open(&config, "prod", bounds(), Clock::system(), Counts::default()).await.err().unwrap();
    assert_eq!(error.to_string(), "store.cluster: the server is not part of a cluster");
    let cluster = crate::redis_server::Cluster::shared();
    let said = refused(&cluster.urls()[0]).await;
    assert_eq!(said, "store.cluster: the server is part of a cluster, which this has to say");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_that_no_sentinel_knows_is_refused() {
    let watched = crate::redis_server::Watched::start();
    let said = refused(&watched.url().replace("/sessions", "/sesions")).await;
    assert_eq!(said, "store.url: the sentinels know no service of the name sesions");
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_is_told_as_that() {
    let server = Server::start();
    let replica = Server::start_with(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    let home = hasty_home(&replica.url()).await;
    told(&home, "it is a replica, and takes no writes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_loads_is_waited_for() {
    let server = Server::start_with(&["--key-load-delay", "100"]);
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    let fill = "for--[[]]i=1,20000--[[]]do--[[]]redis.call('SET','x'..i,i)--[[]]end";
    server.raw().say::<()>(&format!("EVAL {fill} 0"));
    server.kill();
    server.begin_to_revive();
    told(&home, "LOADING").await;
    let loaded = home.store.load(session.handle).await;
    assert!(matches!(loaded, Err(StoreError::Unavailable(_))), "{loaded:?}");
    let mut raw = server.raw();
    until("the end of loading", async || raw.say::<String>("INFO persistence").contains("\nloading:0")).await;
    let took = until("the store", async || home.store.load(session.handle).await.is_ok()).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_asks_for_a_password_all_at_once_is_told_and_found_again() {
    let server = Server::start();
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    let mut raw = server.raw();
    raw.say::<()>("CONFIG SET requirepass another-word");
    raw.say::<u64>("CLIENT KILL TYPE normal SKIPME yes");
    told(&home, "the server asks for a password").await;
    assert!(home.store.load(session.handle).await.is_err());
    // Nothing empties a requirepass but words that a line cannot have.
    raw.say::<()>("ACL SETUSER default nopass");
    let took = until("the store", async || home.store.load(session.handle).await.is_ok()).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_takes_no_more_clients_is_told_and_found_again() {
    let server = Server::start();
    let home = hasty_home(&server.url()).await;
    let session = home.session().await;
    let mut raw = server.raw();
    raw.say::<()>("CONFIG SET maxclients 1");
    raw.say::<u64>("CLIENT KILL TYPE normal SKIPME yes");
    told(&home, "maxclients is reached").await;
    raw.say::<()>("CONFIG SET maxclients 1000");
    let took = until("the store", async || home.store.load(session.handle).await.is_ok()).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_does_not_tell_of_changes_an_entry_is_a_second_old_at_most() {
    let server = Server::start();
    let mut raw = server.raw();
    raw.say::<()>("ACL SETUSER untold on >secret-word ~* &* +@all -client|tracking");
    let writer = home(&server.url(), "prod").await;
    let reader = home(&format!("redis://untold:secret-word@127.0.0.1:{}/0", server.port), "prod").await;
    let session = writer.session().await;
    until("the reader", async || reader.store.reachable().await.is_ok()).await;
    let remark = reader.store.remark().unwrap();
    assert_eq!(remark, "the server refuses CLIENT TRACKING (NOPERM): sessions are read anew every second");
    assert_eq!(writer.store.remark(), None);
    let load = async || reader.store.load(session.handle).await.unwrap().unwrap();
    let first = load().await;
    assert!(Arc::ptr_eq(&first, &load().await));
    session.set(1, "a", "1").await;
    let took = until("the other's write", async || !Arc::ptr_eq(&first, &load().await)).await;
    assert!(took < SECOND + SECOND / 10, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_session_is_counted_and_left_as_it_is() {
    let (server, counts, clock) = (Server::start(), Counts::default(), Clock::system());
    let opened = Redis::open(&redis_config(&server.url()), "prod", bounds(), clock.clone(), counts.clone()).await;
    let home = Home::of(Arc::new(opened.unwrap()), clock);
    let (handle, mut raw) = (handle(), server.raw());
    let key = format!("prod:sessions:{{{handle}}}");
    for line in [format!("SET {key} foreign"), format!("HSET {key} a 1"), format!("HSET {key} @birth x @seq 1")] {
        raw.say::<u64>(&format!("DEL {key}"));
        raw.try_say::<redis::Value>(&line).unwrap();
        let before: Vec<u8> = raw.say(&format!("DUMP {key}"));
        let counted = counts.damaged.get();
        until("an answer", async || home.store.load(handle).await.err() == Some(StoreError::Damaged(handle))).await;
        let refused = home.store.commit(commit(handle, home.now(), create(record(home.now())))).await;
        assert_eq!(refused, Err(StoreError::Damaged(handle)), "{line}");
        assert!(counts.damaged.get() >= counted + 2);
        assert_eq!(raw.say::<Vec<u8>>(&format!("DUMP {key}")), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_days_change_no_lifetime() {
    const DAYS: Duration = Duration::from_secs(3 * 86_400);
    let server = Server::start();
    let now = Clock::system().now();
    for off in [now.plus(DAYS), now.minus(DAYS)] {
        let clock = Clock::by_hand(off);
        let environment = if off > now { "ahead" } else { "behind" };
        let config = redis_config(&server.url());
        let store = Redis::open(&config, environment, bounds(), clock.clone(), Counts::default()).await.unwrap();
        let home = Home::of(Arc::new(store), clock);
        let session = home.session().await;
        let left: u64 = server.raw().say(&format!("PTTL {environment}:sessions:{{{}}}", session.handle));
        let whole = (IDLE + TOUCH_INTERVAL).as_millis() as u64;
        assert!(left <= whole && left + 5000 > whole, "{environment}: {left}");
        assert_done(&session.set(1, "a", "1").await, 2, 2);
        session.revoke(home.now().plus(IDLE)).await;
        assert!(matches!(home.entry(session.handle).await, Some(Entry::Revoked(_))));
        assert_eq!(home.store.revocations(home.now()).await.unwrap().len(), 1);
        home.clock.advance(IDLE);
        let again = home.commit(session.handle, create(record(home.now()))).await;
        assert_done(&again, 1, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_whose_answer_was_lost_is_known_after_many_others() {
    let server = Server::start();
    let home = home(&server.url(), "prod").await;
    let relay = super::relay::Relay::open(server.port).await;
    let far = hasty_home(&relay.url()).await;
    let session = home.session().await;
    let change = cloakroom::store::Change { set: fields(&[("a", "1")]), ..session.at(1) };
    let mut lost = commit(session.handle, home.now(), Effect::Change(Box::new(change)));
    let text = format!(r#"{{"action":"write","commit":"{}"}}"#, lost.id);
    lost.record = cloakroom::store::Draft::new(&text).unwrap();
    // Its first answer is lost, and its second question never arrives.
    relay.silence_every_script();
    assert_eq!(far.store.commit(lost.clone()).await, Err(StoreError::Unknown));
    until("the write", async || session.record().await.revision == 2).await;
    for revision in 2..60 {
        session.set(revision, "b", "1").await;
    }
    relay.heal();
    let answer = async || far.store.commit(lost.clone()).await;
    let mut told = Err(StoreError::Unknown);
    until("an answer", async || {
        told = answer().await;
        told.is_ok()
    })
    .await;
    let record = Some(format!("{},\"seq\":2,\"revision\":2}}", text.trim_end_matches('}')));
    assert_eq!(told, Ok(cloakroom::store::Outcome::Done { revision: 2, seq: 2, record }));
    assert_eq!(session.record().await.revision, 60);
}
