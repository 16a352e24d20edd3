use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Size};
use crate::secret::Secret;

/// One address that clients connect to.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// `HOST:PORT`, such as `0.0.0.0:8080` or `[::]:8080`; or `unix:/path`.
    pub address: String,
    /// null: HTTP in clear.
    pub tls: Option<ListenerTls>,
    /// Whether each connection begins with a PROXY header, version 1 or 2, which says who its client is.
    pub proxy_protocol: bool,
    pub limits: ListenerLimits,
}

/// TLS towards clients. The files are read anew when they change.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate with its chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Who has to have signed the certificates of clients; null: clients need none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

impl Listener {
    pub(super) fn defaults() -> Vec<Self> {
        vec![Self::default()]
    }
}

impl Default for Listener {
    fn default() -> Self {
        Self { address: "0.0.0.0:8080".into(), tls: None, proxy_protocol: false, limits: ListenerLimits::default() }
    }
}

/// What a listener's connections may use up.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Open at once.
    pub connections: usize,
    /// Of one client address; null: no bound of its own.
    pub connections_per_peer: Option<usize>,
    /// The request line and the headers.
    pub head: Size,
    /// In one request.
    pub headers: usize,
    /// From the connection to the first byte.
    pub first_byte: Period,
    /// To the end of the head.
    pub head_time: Period,
    /// Between two requests.
    pub keep_alive: Period,
    /// While a client takes nothing of what is sent to it.
    pub stall: Period,
    /// At once on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: None,
            head: Size::kib(32),
            headers: 100,
            first_byte: Period::secs(10),
            head_time: Period::secs(15),
            keep_alive: Period::secs(75),
            stall: Period::secs(300),
            streams: 100,
        }
    }
}

/// The listener for people and tools on this host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// `HOST:PORT`; on loopback, unless something else keeps others away.
    pub address: String,
    /// Required for the endpoints that show or change sessions.
    pub token: Option<Secret>,
    /// Who may have handles resolved.
    pub callers: Vec<Caller>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: "127.0.0.1:9900".into(), token: None, callers: Vec::new() }
    }
}

/// A named program that may have the handles of some fields resolved.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Stands in the audit trail.
    pub name: String,
    pub token: Secret,
    /// The fields whose values it may have.
    pub resolve: Vec<String>,
}

/// Health, readiness and metrics only: for the kubelet and Prometheus.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    /// `HOST:PORT`.
    pub address: String,
}

impl Default for Status {
    fn default() -> Self {
        Self { address: "0.0.0.0:9901".into() }
    }
}

/// How the process ends.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long new connections are still accepted, so that endpoints catch up.
    pub grace: Period,
    /// How long requests in flight may then take.
    pub drain: Period,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Period::secs(5), drain: Period::secs(20) }
    }
}
