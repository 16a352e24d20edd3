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
    /// The server of the redis store, with user, password and database number: redis://USER:PASSWORD@HOST:PORT/0.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// One operation, its retries included.
    pub timeout: Period,
    /// One attempt to reach the server.
    pub connect_timeout: Period,
    pub cache: StoreCache,
    /// What becomes of requests while the redis store is away.
    pub on_failure: StoreFailure,
    /// How old a session may be that is served while the store is away.
    pub stale_for: Period,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Embedded,
            path: "./cloakroom.db".into(),
            url: None,
            timeout: Period::millis(250),
            connect_timeout: Period::secs(1),
            cache: StoreCache::default(),
            on_failure: StoreFailure::Closed,
            stale_for: Period::secs(30),
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
