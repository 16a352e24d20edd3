//! What stands in the server, as an operator finds it there.

use std::collections::HashMap;
use std::time::Duration;

use cloakroom::handle::Handle;
use cloakroom::store::{Change, Effect, Outcome, Proof, Record, StoreError, TokenProof};

use super::*;
use crate::store::fixture::*;

type Hash = HashMap<String, String>;

#[tokio::test(flavor = "multi_thread")]
async fn session_can_be_read_by_an_operator() {
    let (home, _, server, env) = two().await;
    let owner = user();
    let session = home.session_with(Record { user: Some(owner), ..record(home.now()) }).await;
    session.change(Change { set: fields(&[("theme", "\"dark\""), ("step", "3")]), ..session.at(1) }).await;
    session.change(Change { unset: vec!["step".into()], ..session.at(2) }).await;
    let mut raw = server.raw();
    let key = format!("{env}:sessions:{{{}}}", session.handle);
    let hash: Hash = raw.say(&format!("HGETALL {key}"));
    assert_eq!((hash["theme"].as_str(), hash.get("step")), ("\"dark\"", None));
    assert_eq!((hash["@revision"].as_str(), hash["@seq"].as_str(), hash["@schema"].as_str()), ("3", "3", "1"));
    assert_eq!((hash["@revision:theme"].as_str(), hash["@revision:step"].as_str()), ("2", "3"));
    assert_eq!((hash["@birth"].clone(), hash["@user"].clone()), (session.birth.to_string(), owner.to_string()));
    assert!(hash.keys().all(|name| name == "theme" || name.starts_with('@')));

    let trail: Vec<(String, Hash)> = raw.say(&format!("XRANGE {env}:audit:{{{}}} - +", session.handle));
    assert_eq!(trail.len(), 3);
    assert!(trail.iter().all(|(_, fields)| fields.len() == 1 && fields["record"].ends_with('}')));
    let listed: Vec<(String, f64)> = raw.say(&format!("ZRANGE {env}:users:{owner} 0 -1 WITHSCORES"));
    assert_eq!(listed, [(session.handle.to_string(), session.record().await.ends_at.0 as f64)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stand_as_long_as_what_they_hold() {
    let (home, _, server, env) = two().await;
    let session = home.session().await;
    let mut raw = server.raw();
    let (key, trail) =
        (format!("{env}:sessions:{{{}}}", session.handle), format!("{env}:audit:{{{}}}", session.handle));
    let mut left = |key: &str| Duration::from_millis(raw.say::<u64>(&format!("PTTL {key}")));
    let idle = IDLE + TOUCH_INTERVAL;
    let near = |left: Duration, whole: Duration| left <= whole && left > whole - Duration::from_secs(10);
    assert!(near(left(&key), idle) && near(left(&trail), idle + RETAIN));
    assert!(!session.touch(home.now().plus(ABSOLUTE - IDLE)).await);
    // Late in its life no touch makes it outlive its absolute expiry.
    let old = Record { ends_at: home.now().plus(IDLE / 2), ..record(home.now()) };
    let old = home.session_with(old).await;
    assert!(old.touch(home.now().plus(SECOND)).await);
    assert!(near(left(&format!("{env}:sessions:{{{}}}", old.handle)), IDLE / 2));
    session.revoke(home.now().plus(ABSOLUTE)).await;
    assert!(near(left(&key), ABSOLUTE) && near(left(&trail), RETAIN));
    assert!(left(&format!("{env}:revocations")) > ABSOLUTE / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_session_is_gone_from_the_server() {
    let (home, _, server, env) = two().await;
    let short = Record { idle: 40, touch_interval: 10, user: Some(user()), ..record(home.now()) };
    let session = home.session_with(short).await;
    let mut raw = server.raw();
    until("expiry", async || raw.say::<u64>(&format!("EXISTS {env}:sessions:{{{}}}", session.handle)) == 0).await;
    assert!(home.entry(session.handle).await.is_none());
    assert_eq!(session.set(1, "a", "1").await, Outcome::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_stands_when_the_session_after_it_is_gone_from_the_server() {
    let (home, _, server, env) = two().await;
    let of = |login: Option<u64>| {
        let token = TokenProof { yields: true, login, ..TokenProof::default() };
        create(Record { proof: Proof::Token(token), ..record(home.now()) })
    };
    let session = home.session().await;
    let handle = handle();
    assert_done(&home.commit(handle, of(None)).await, 1, 1);
    let later = Some(home.now().seconds() + 1);
    assert_done(&home.commit(handle, Effect::Revoke { birth: None, until: home.now().plus(ABSOLUTE) }).await, 1, 2);
    assert_done(&home.commit(handle, of(later)).await, 1, 1);
    let mut raw = server.raw();
    raw.say::<u64>(&format!("DEL {env}:sessions:{{{handle}}}"));
    assert_eq!(home.commit(handle, of(Some(0))).await, Outcome::Revoked);
    assert_done(&home.commit(handle, of(later)).await, 1, 1);
    let left = Duration::from_millis(raw.say(&format!("PTTL {env}:revoked:{{{handle}}}")));
    assert!(left <= ABSOLUTE && left > ABSOLUTE / 2, "{left:?}");
    assert_eq!(raw.say::<u64>(&format!("EXISTS {env}:revoked:{{{}}}", session.handle)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn index_is_put_right_when_it_is_used() {
    let (home, _, server, env) = two().await;
    let owner = user();
    let session = home.session_with(Record { user: Some(owner), ..record(home.now()) }).await;
    let other = home.session_with(Record { user: Some(user()), ..record(home.now()) }).await;
    let mut raw = server.raw();
    let key = format!("{env}:users:{owner}");
    for stray in [other.handle.to_string(), handle().to_string(), "nonsense".into()] {
        raw.say::<u64>(&format!("ZADD {key} 99999999999999 {stray}"));
    }
    assert_eq!(home.store.sessions_of(owner).await.unwrap(), [session.handle]);
    assert_eq!(raw.say::<u64>(&format!("ZCARD {key}")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_environments_on_one_server_never_meet() {
    let server = Server::shared();
    let first = home(&server.url(), &environment()).await;
    let second = home(&server.url(), &environment()).await;
    let owner = user();
    let session = first.session_with(Record { user: Some(owner), ..record(first.now()) }).await;
    assert!(second.entry(session.handle).await.is_none());
    assert_eq!(second.store.sessions_of(owner).await.unwrap(), []);
    assert_eq!(second.trail(session.handle).await.len(), 0);
    assert_done(&second.commit(session.handle, create(record(second.now()))).await, 1, 1);
    assert_done(&session.set(1, "a", "1").await, 2, 2);
    session.revoke(first.now().plus(IDLE)).await;
    assert_eq!(first.store.revocations(first.now()).await.unwrap().len(), 1);
    assert_eq!(second.store.revocations(second.now()).await.unwrap(), []);
    assert_eq!(second.store.handles(None, 9).await.unwrap(), [session.handle]);
    assert!(matches!(second.entry(session.handle).await, Some(cloakroom::store::Entry::Living(_))));
}

/// Whatever stands under a session's key that is no session.
const FOREIGN: [&str; 7] = [
    "SET KEY hello",
    "HSET KEY hello world",
    "HSET KEY @birth AAAAAAAAAAAAAAAAAAAAAA @seq 1",
    "HSET KEY @birth ? @seq 1 @revoked_at 1 @until 99999999999999",
    "HSET KEY @birth AAAAAAAAAAAAAAAAAAAAAA @seq nan @revoked_at 1 @until inf",
    "RPUSH KEY 1 2 3",
    "ZADD KEY 1 a",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_session_is_refused_and_left_alone() {
    let (home, _, server, env) = two().await;
    let mut raw = server.raw();
    for line in FOREIGN {
        let handle = handle();
        raw.say::<redis::Value>(&line.replace("KEY", &format!("{env}:sessions:{{{handle}}}")));
        let dump =
            |raw: &mut crate::redis_server::Raw| raw.say::<Vec<u8>>(&format!("DUMP {env}:sessions:{{{handle}}}"));
        let before = dump(&mut raw);
        let damaged = Err(StoreError::Damaged(handle));
        assert_eq!(
            home.store.load(handle).await.map(|entry| entry.is_some()),
            damaged.clone().map(|()| true),
            "{line}"
        );
        if line.contains("? @seq") {
            continue;
        }
        let new = commit(handle, home.now(), create(record(home.now())));
        assert_eq!(home.store.commit(new).await.map(drop), damaged, "{line}");
        let birth = record(home.now()).birth;
        let note = commit(handle, home.now(), Effect::Note { birth });
        assert_eq!(home.store.commit(note).await.map(drop), damaged, "{line}");
        assert!(!matches!(home.store.touch(handle, birth, home.now()).await, Ok(true)), "{line}");
        assert_eq!(dump(&mut raw), before, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_trail_lets_no_commit_through_unrecorded() {
    let (home, _, server, env) = two().await;
    let session = home.session().await;
    let mut raw = server.raw();
    raw.say::<()>(&format!("SET {env}:audit:{{{}}} hello", session.handle));
    let set = Change { set: fields(&[("a", "1")]), ..session.at(1) };
    let set = commit(session.handle, home.now(), Effect::Change(Box::new(set)));
    assert_eq!(home.store.commit(set).await, Err(StoreError::Damaged(session.handle)));
    assert_eq!(session.record().await.revision, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_handles_are_listed_among_keys_of_others() {
    let (home, other, server, env) = two().await;
    let mut all: Vec<Handle> = Vec::new();
    for _ in 0..20 {
        all.push(home.session().await.handle);
    }
    let mut raw = server.raw();
    raw.say::<()>(&format!("SET {env}:sessions:{{ses_}} x"));
    raw.say::<()>(&format!("SET {env}:sessions:{{ses_*}}x x"));
    all.sort_unstable();
    assert_eq!(other.store.handles(None, 100).await.unwrap(), all);
    assert_eq!(other.store.handles(Some(all[4]), 5).await.unwrap(), all[5..10]);
}
