use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CredentialKind, Period, Rate, Size};

/// Which requests go where, and what their backend may read and write.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique; stands in logs, metrics and the audit trail.
    pub name: String,
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// `http://HOST:PORT`, `https://…`, `h2c://…` (HTTP/2 in clear), or `unix:/path`.
    pub upstream: String,
    /// Whom to believe and what to show over `https`; null: the platform's roots, and nothing.
    #[serde(default)]
    pub upstream_tls: Option<UpstreamTls>,
    #[serde(default)]
    pub rewrite: Rewrite,
    #[serde(default)]
    pub session: SessionUse,
    /// Which kinds of credential count, the first that came; all that is configured by default.
    #[serde(default)]
    pub identity: Option<Vec<CredentialKind>>,
    /// What must hold of the session: field: value, list element, or null for absent.
    #[serde(default)]
    pub require: IndexMap<String, Value>,
    /// Sections or fields that the backend sees.
    #[serde(default)]
    pub read: Vec<String>,
    /// Sections or fields that the backend may change.
    #[serde(default)]
    pub write: Vec<String>,
    /// Header name: field.
    #[serde(default)]
    pub headers: IndexMap<String, String>,
    /// Where browsers without a session are sent; null: nowhere.
    #[serde(default)]
    pub login_url: Option<String>,
    #[serde(default)]
    pub start: Start,
    /// Whether the backend may end sessions.
    #[serde(default)]
    pub end: bool,
    #[serde(default)]
    pub touch: Touch,
    #[serde(default)]
    pub on_reject: OnReject,
    #[serde(default)]
    pub on_revoke: OnRevoke,
    /// Whether a JWT goes on to the backend.
    #[serde(default)]
    pub forward_credential: bool,
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    #[serde(default)]
    pub limits: RouteLimits,
    /// All of them must let a request through.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
}

/// TLS towards a backend. The files are read anew when they change.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Who has to have signed the backend's certificate, in PEM; null: one of the platform's roots.
    pub ca: Option<PathBuf>,
    /// Shown to the backend, with its chain, in PEM; null: nothing is.
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key: Option<PathBuf>,
}

/// Which requests a route takes; everything by default.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `app.example.com`, `*.example.com`, or `*`.
    pub host: Option<String>,
    /// On whole segments.
    pub path: Option<String>,
    pub path_type: PathType,
    /// Any of these; empty: any.
    pub methods: Vec<String>,
    /// All of these: name: value.
    pub headers: IndexMap<String, String>,
}

/// How the path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PathType {
    #[default]
    Prefix,
    Exact,
}

/// What changes in the request on its way to the backend.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Whether the backend does not see `match.path`.
    pub strip_prefix: bool,
}

/// Whether requests need a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionUse {
    #[default]
    Required,
    Optional,
    None,
}

/// Whether the backend may create sessions: `false`, `true`, or how.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Start {
    Allowed(bool),
    With(StartOptions),
}

impl Default for Start {
    fn default() -> Self {
        Self::Allowed(false)
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartOptions {
    /// How the new id travels when none came with the request.
    pub id: IdChoice,
    /// Fields that an anonymous session hands on to the one that follows it.
    pub carry: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdChoice {
    #[default]
    Cookie,
    Header,
}

/// What counts as activity in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Touch {
    #[default]
    Stream,
    Request,
    Never,
}

/// What the client gets when a write-back is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReject {
    #[default]
    Fail,
    Ignore,
}

/// What happens to open streams when their session is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRevoke {
    #[default]
    Close,
    Finish,
}

/// How long the backend may take.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// To open a connection.
    pub connect: Period,
    /// Until the backend's head: language models think.
    pub response: Period,
    /// Between bytes.
    pub idle: Period,
}

impl Default for RouteTimeouts {
    fn default() -> Self {
        Self { connect: Period::secs(1), response: Period::secs(600), idle: Period::secs(600) }
    }
}

/// What requests of a route may use up.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// Of the request; null: none.
    pub body: Option<Size>,
    /// Requests in flight.
    pub concurrency: usize,
    /// Of what goes to the backend.
    pub head: Size,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self { body: None, concurrency: 1024, head: Size::kib(16) }
    }
}

/// How many requests may come.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    pub per: RateLimitPer,
    /// How fast what was used up comes back.
    pub rate: Rate,
    /// At least 1.
    pub burst: std::num::NonZeroU32,
    #[serde(default)]
    pub scope: RateLimitScope,
    /// Of the scope `cluster`: what happens while the store does not count.
    #[serde(default)]
    pub on_failure: Option<RateLimitFailure>,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitPer {
    /// Client address: before identity.
    Client,
    /// All requests of the route: before identity.
    Route,
    /// Once the credential is proven.
    Session,
    /// Once the credential is proven.
    User,
}

/// Who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitScope {
    /// Each sidecar counts for itself.
    #[default]
    Local,
    /// All sidecars of the environment count together, in the store.
    Cluster,
}

/// What becomes of requests that cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitFailure {
    /// They are refused with 503.
    #[default]
    Closed,
    /// They pass.
    Open,
    /// Each sidecar counts for itself.
    Local,
}
