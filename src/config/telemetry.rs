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

/// Spans of what exchanges take, for a collector.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// The collector's address for OTLP over gRPC, such as `http://collector:4317`. Nothing is sent without one.
    pub otlp: Option<String>,
    /// The share of traces that begin here of which spans are sent, from 0 to 1. What a client's trace says of
    /// itself goes before.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { otlp: None, sample: 0.01 }
    }
}
