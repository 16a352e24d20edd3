use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Period, Size};

/// The session: its shape, its life, its bounds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    #[serde(default)]
    pub lifetime: Lifetime,
    #[serde(default)]
    pub limits: Limits,
    /// One more session than this revokes the user's oldest.
    #[serde(default)]
    pub max_per_user: Option<u32>,
    /// How long a revocation is remembered where no absolute lifetime bounds it.
    #[serde(default = "thirty_days")]
    pub remember_revoked: Period,
    /// How long the old id goes on working after a rotation.
    #[serde(default = "ten_seconds")]
    pub rotate_grace: Period,
    pub schema: Schema,
}

/// How long a session lives.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lifetime {
    /// Slides with activity.
    pub idle: Period,
    /// Never moves.
    pub absolute: Period,
    /// How old the last touch is before another is written; null: idle/30, at least 1 s.
    pub touch_interval: Option<Period>,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { idle: Period::secs(30 * 60), absolute: Period::secs(12 * 3600), touch_interval: None }
    }
}

/// What a session may take up, in the bytes that are sent.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// One field, as it would be sent.
    pub field: Size,
    /// All fields of a session.
    pub session: Size,
    /// All headers injected on one route.
    pub context: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self { field: Size::kib(1), session: Size::kib(4), context: Size::kib(8) }
    }
}

/// What a session holds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Rises with every change that needs a migration.
    pub version: u32,
    /// In the order in which the context lists them.
    pub fields: IndexMap<String, Field>,
    /// In order, up to this version.
    #[serde(default)]
    pub migrations: Vec<Migration>,
}

/// One value in a session.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Field {
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// The unit of access that this field belongs to.
    #[serde(default)]
    pub section: Option<String>,
    /// The only values; null: any of the type.
    #[serde(default, rename = "enum")]
    pub choices: Option<Vec<Value>>,
    /// What backends see where the field is absent; null: nothing.
    #[serde(default)]
    pub default: Option<Value>,
    /// False: set at creation, by claims or by the admin API, never by a backend's write-back.
    #[serde(default = "yes")]
    pub writable: bool,
    /// Sealed at rest and shown to backends as a handle only.
    #[serde(default)]
    pub sensitive: bool,
    /// The one field that says whose session it is.
    #[serde(default)]
    pub user: bool,
    #[serde(default)]
    pub audit: FieldAudit,
    /// Overrides `limits.field`.
    #[serde(default)]
    pub max: Option<Size>,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    String,
    Integer,
    Decimal,
    Boolean,
    List,
}

/// What the audit trail says of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldAudit {
    #[default]
    Fingerprint,
    Value,
}

/// What brings a session of an older schema to version `to`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// The version that a session has afterwards.
    pub to: u32,
    /// Old path: new path.
    #[serde(default)]
    pub rename: IndexMap<String, String>,
    /// Path: new type. What cannot be converted is dropped.
    #[serde(default)]
    pub convert: IndexMap<String, FieldType>,
    /// Where absent.
    #[serde(default)]
    pub set: IndexMap<String, Value>,
    /// Paths that are no more.
    #[serde(default)]
    pub drop: Vec<String>,
}

fn thirty_days() -> Period {
    Period::secs(30 * 86_400)
}

fn ten_seconds() -> Period {
    Period::secs(10)
}

fn yes() -> bool {
    true
}
