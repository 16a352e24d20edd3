use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// Where sessions are kept.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    pub kind: StoreKind,
    /// The embedded store's file.
    pub path: PathBuf,
    /// One operation, its retries included.
    pub timeout: Period,
}

impl Default for Store {
    fn default() -> Self {
        Self { kind: StoreKind::Embedded, path: "./cloakroom.db".into(), timeout: Period::millis(250) }
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
    #[schemars(skip)]
    Redis,
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
