//! A home with a clock set by hand, and short ways to write commits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, Time};
use cloakroom::config;
use cloakroom::handle::{Birth, CommitId, Handle, SecretHash, SessionId, UserKey};
use cloakroom::store::{
    Base, Change, Commit, Counts, Draft, Effect, Embedded, Entry, Memory, Outcome, Proof, Record, Redis, Store,
    Tombstone, Trail, TrailBounds,
};
use tempfile::TempDir;

use crate::redis_server::{Cluster, Server, environment};

pub const KEEP: u64 = 100;
pub const RETAIN: Duration = Duration::from_secs(3600);
pub const IDLE: Duration = Duration::from_secs(60);
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(2);
pub const ABSOLUTE: Duration = Duration::from_secs(600);
pub const SECOND: Duration = Duration::from_secs(1);

pub fn bounds() -> TrailBounds {
    TrailBounds { keep: KEEP as u32, retain: RETAIN }
}

/// A store and the clock that its callers go by.
#[derive(Clone)]
pub struct Home {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// What it lives in, dropped after it.
    _ground: Option<Arc<dyn Send + Sync>>,
}

impl Home {
    pub fn memory() -> Self {
        Self { store: Arc::new(Memory::new(bounds())), clock: clock(), _ground: None }
    }

    pub fn embedded() -> Self {
        let (folder, path) = file();
        let clock = clock();
        let store = Embedded::open(&path, "test", bounds(), clock.clone()).unwrap();
        Self { store: Arc::new(store), clock, _ground: Some(Arc::new(folder)) }
    }

    /// In an environment of its own, on a server that others share.
    pub async fn redis() -> Self {
        let server = Server::shared();
        Self::redis_at(&server.url(), &environment()).await.on(server)
    }

    pub async fn redis_at(url: &str, environment: &str) -> Self {
        let (config, clock) = (redis_config(url), clock());
        let store = Redis::open(&config, environment, bounds(), clock.clone(), Counts::default()).await.unwrap();
        Self::of(Arc::new(store), clock)
    }

    /// The same in a cluster.
    pub async fn cluster() -> Self {
        let (cluster, clock) = (Cluster::shared(), clock());
        let config = cluster_config(&cluster);
        let store = Redis::open(&config, &environment(), bounds(), clock.clone(), Counts::default()).await.unwrap();
        Self { _ground: Some(cluster), ..Self::of(Arc::new(store), clock) }
    }

    pub fn of(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock, _ground: None }
    }

    fn on(self, server: Arc<Server>) -> Self {
        Self { _ground: Some(server), ..self }
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub async fn commit(&self, handle: Handle, effect: Effect) -> Outcome {
        self.ask(&commit(handle, self.now(), effect)).await
    }

    pub async fn ask(&self, commit: &Commit) -> Outcome {
        self.store.commit(commit.clone()).await.unwrap()
    }

    /// Creates a session without fields under a new handle.
    pub async fn session(&self) -> Session<'_> {
        self.session_with(record(self.now())).await
    }

    pub async fn session_with(&self, record: Record) -> Session<'_> {
        let session = Session { home: self, handle: handle(), birth: record.birth };
        assert_done(&self.commit(session.handle, create(record)).await, 1, 1);
        session
    }

    pub async fn trail(&self, handle: Handle) -> Vec<serde_json::Value> {
        let Trail { records, next } = self.store.trail(handle, None, usize::MAX).await.unwrap();
        assert_eq!(next, None);
        records.iter().map(|record| serde_json::from_str(record).unwrap()).collect()
    }

    pub async fn entry(&self, handle: Handle) -> Option<Entry> {
        self.store.load(handle).await.unwrap().map(|entry| Entry::clone(&entry))
    }
}

/// A session in a home.
#[derive(Clone, Copy)]
pub struct Session<'h> {
    pub home: &'h Home,
    pub handle: Handle,
    pub birth: Birth,
}

impl Session<'_> {
    /// An empty change based on that revision.
    pub fn at(&self, revision: u64) -> Change {
        change(self.birth, revision)
    }

    pub async fn change(&self, change: Change) -> Outcome {
        self.home.commit(self.handle, Effect::Change(Box::new(change))).await
    }

    /// Sets one field, based on that revision.
    pub async fn set(&self, revision: u64, path: &str, json: &str) -> Outcome {
        self.change(Change { set: fields(&[(path, json)]), ..self.at(revision) }).await
    }

    pub async fn revoke(&self, until: Time) -> Outcome {
        self.home.commit(self.handle, Effect::Revoke { birth: None, until }).await
    }

    pub async fn record(&self) -> Record {
        match self.home.entry(self.handle).await {
            Some(Entry::Living(record)) => Arc::unwrap_or_clone(record),
            other => panic!("no living session but {other:?}"),
        }
    }

    pub async fn tombstone(&self) -> Tombstone {
        match self.home.entry(self.handle).await {
            Some(Entry::Revoked(tombstone)) => tombstone,
            other => panic!("no tombstone but {other:?}"),
        }
    }

    pub async fn touch(&self, now: Time) -> bool {
        self.home.store.touch(self.handle, self.birth, now).await.unwrap()
    }
}

/// With time to spare: what is tested here is what is answered, not how soon.
pub fn redis_config(url: &str) -> config::Store {
    let timeout = config::Period::secs(10);
    config::Store { kind: config::StoreKind::Redis, url: Some(url.to_owned().into()), timeout, ..Default::default() }
}

pub fn cluster_config(cluster: &Cluster) -> config::Store {
    let urls = cluster.urls().into_iter().map(Into::into).collect();
    config::Store { url: None, urls, cluster: true, ..redis_config("") }
}

pub fn clock() -> Clock {
    // The true time, so that a home with a clock of its own would find nothing expired.
    Clock::by_hand(Clock::system().now())
}

pub fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    (folder, path)
}

pub fn handle() -> Handle {
    SessionId::random().unwrap().handle()
}

pub fn secret() -> SecretHash {
    SessionId::random().unwrap().hash()
}

pub fn user() -> UserKey {
    UserKey(Birth::random().unwrap().0)
}

pub fn record(now: Time) -> Record {
    Record {
        birth: Birth::random().unwrap(),
        schema: 1,
        revision: 1,
        seq: 1,
        size: None,
        proof: Proof::Secret { hash: secret(), previous: None },
        user: None,
        created_at: now,
        last_active: now,
        ends_at: now.plus(ABSOLUTE),
        idle: IDLE.as_millis() as u64,
        touch_interval: TOUCH_INTERVAL.as_millis() as u64,
        fields: Default::default(),
        unset: Default::default(),
        recent: Default::default(),
    }
}

pub fn commit(handle: Handle, now: Time, effect: Effect) -> Commit {
    let record = Draft::new(r#"{"action":"write"}"#).unwrap();
    Commit { id: CommitId::random().unwrap(), handle, now, effect, record }
}

pub fn create(record: Record) -> Effect {
    Effect::Create(Box::new(record))
}

pub fn change(birth: Birth, revision: u64) -> Change {
    Change {
        base: Base { birth, revision, own: None },
        if_match: None,
        set: Vec::new(),
        unset: Vec::new(),
        schema: None,
        claims_at: None,
        user: None,
        rotate: None,
        end: None,
        growth: None,
    }
}

pub fn fields(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
    pairs.iter().map(|(path, json)| ((*path).into(), (*json).into())).collect()
}

#[track_caller]
pub fn assert_done(outcome: &Outcome, revision: u64, seq: u64) {
    let record = format!(r#"{{"action":"write","seq":{seq},"revision":{revision}}}"#);
    assert_eq!(*outcome, Outcome::Done { revision, seq, record: Some(record) });
}
