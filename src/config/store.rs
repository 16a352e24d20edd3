use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use crate::secret::Secret;

/// Where sessions are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub kind: StoreKind,
    /// The embedded store's file.
    pub path: PathBuf,
    /// The server of the redis store: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// over TLS; or
    /// redis+sentinel://USER:PASSWORD@HOST:PORT/SERVICE, a sentinel that knows it.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// Several nodes of a cluster, or several sentinels, any of which may be away.
    #[serde(skip_serializing)]
    #[schemars(with = "Vec<String>")]
    pub urls: Vec<Secret>,
    /// Whether the servers are a Redis Cluster.
    pub cluster: bool,
    /// Who certifies the servers; the platform's authorities, if not said.
    pub ca: Option<PathBuf>,
    /// One operation, its retries included.
    pub timeout: Period,
    /// One attempt to reach the server.
    pub connect_timeout: Period,
    pub cache: StoreCache,
    /// What becomes of requests while the redis store is away.
    pub on_failure: StoreFailure,
    /// How old a session may be that is served while the store is away.
    pub stale_for: Period,
    pub durability: Durability,
}

impl Store {
    /// Every URL that names a server, and its place in the file.
    pub fn server_urls(&self) -> impl Iterator<Item = (String, &Secret)> {
        let one = self.url.iter().map(|url| ("/store/url".to_owned(), url));
        one.chain(self.urls.iter().enumerate().map(|(index, url)| (format!("/store/urls/{index}"), url)))
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            path: "./cloakroom.db".into(),
            url: None,
            urls: Vec::new(),
            cluster: false,
            ca: None,
            timeout: Period::millis(250),
            connect_timeout: Period::secs(1),
            cache: StoreCache::default(),
            on_failure: StoreFailure::Closed,
            stale_for: Period::secs(30),
            durability: Durability::default(),
        }
    }
}

/// What keeps the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One file, for one process.
    Embedded,
    /// Nothing outlives the process.
    Memory,
    /// Redis or Valkey, shared by every sidecar.
    Redis,
}

/// What becomes of requests while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoreFailure {
    /// They are refused.
    Closed,
    /// Those with a session that is at hand are served, and change nothing.
    Stale,
}

/// How many copies a change has before it is answered.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Durability {
    /// Replicas of the redis store that have it by then.
    pub wait_replicas: u32,
    /// How long they are waited for.
    pub timeout: Period,
}

impl Default for Durability {
    fn default() -> Self {
        Self { wait_replicas: 0, timeout: Period::millis(100) }
    }
}

/// Sessions of the redis store that are served without asking it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreCache {
    /// How many.
    pub sessions: u32,
    pub mode: CacheMode,
}

impl Default for StoreCache {
    fn default() -> Self {
        Self { sessions: 10_000, mode: CacheMode::Tracking }
    }
}

/// How long a session is served without asking the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Until the server tells that it has changed.
    Tracking,
    /// For a second at most.
    Ttl,
    /// Not at all.
    Off,
}

/// The file that holds the keys.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keyring {
    /// Made beside the database for embedded and memory stores.
    pub path: Option<PathBuf>,
    /// How old a new key is before it seals, so that every sidecar has it by then.
    pub activate_after: Period,
}

impl Default for Keyring {
    fn default() -> Self {
        Self { path: None, activate_after: Period::secs(600) }
    }
}
