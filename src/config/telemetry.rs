use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// Where copies of the audit records go, and how much of the trail the store keeps.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// `stdout`, or `file: PATH` for JSON lines.
    pub sinks: Vec<AuditSink>,
    /// Records kept per session.
    pub keep: u32,
    /// How long a trail outlives its session.
    pub retain: Period,
}

impl Default for Audit {
    fn default() -> Self {
        Self { sinks: vec![AuditSink::Stdout], keep: 1000, retain: Period::secs(7 * 86_400) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditSink {
    Stdout,
    File(PathBuf),
}

/// What cloakroom says about itself.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,cloakroom::access=off`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Json }
    }
}

/// One JSON object per line, or text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Pretty,
}
