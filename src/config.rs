//! The configuration file as data: one section per room, compiled by that room.
//!
//! Nothing here knows what a key does. `load` turns text into a [`Config`] or into every problem that
//! the file has; each room compiles its own section and reports [`Problem`]s by path, which the loader
//! places on a line and column.

mod clear;
mod diagnostic;
mod document;
mod finding;
mod form;
mod identity;
mod injector;
pub mod kubernetes;
mod lines;
mod listener;
mod load;
mod plain;
mod pointer;
mod problem;
mod published;
mod quantity;
mod reference;
mod route;
mod scalar;
mod server;
mod session;
mod shape;
mod source;
mod store;
mod telemetry;
mod unsupported;
mod validate;
mod veil;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use identity::{
    Algorithm, BadCredentials, CookieAttributes, CredentialKind, Identity, InlineKey, Introspection, Issuer, KeySource,
    LoginTime, Names, OnMissing, SameSite, SessionIdCarriers,
};
pub use injector::{Bounds, Injector, OnRefusal, PullPolicy, Resources, Sidecar, SidecarMode, WebhookTls};
pub use kubernetes::KubernetesVersion;
pub use listener::{Admin, Caller, Listener, ListenerLimits, ListenerTls, Shutdown, Status};
pub use load::{Inspected, Loaded, inspect, inspect_file, inspect_injector, inspect_injector_file, load, parse};
pub use pointer::below;
pub use problem::{Problem, Problems, Severity};
pub use published::json_schema;
pub use quantity::Quantity;
pub use reference::Environment;
pub use route::{
    IdChoice, Match, OnReject, OnRevoke, PathType, RateLimit, RateLimitFailure, RateLimitPer, RateLimitScope, Rewrite,
    Route, RouteLimits, RouteTimeouts, SessionUse, Start, StartOptions, Touch, UpstreamTls,
};
pub use scalar::{Period, Rate, Size};
pub use server::{ServerAddress, ServerUrl};
pub use session::{Field, FieldAudit, FieldType, Lifetime, Limits, Migration, Schema, Session};
pub use source::Source;
pub use store::{CacheMode, Durability, Keyring, Store, StoreCache, StoreFailure, StoreKind};
pub use telemetry::{Audit, AuditSink, Log, LogFormat, Tracing};
pub use validate::is_server_url;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format.
    pub version: u32,
    /// Namespaces every key in the store.
    #[serde(default = "prod")]
    pub environment: String,
    /// Where clients connect.
    #[serde(default = "Listener::defaults")]
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub status: Status,
    #[serde(default)]
    pub store: Store,
    #[serde(default)]
    pub keyring: Keyring,
    #[serde(default)]
    pub identity: Identity,
    #[serde(default)]
    pub cookie: CookieAttributes,
    /// Further origins that browsers may come from.
    #[serde(default)]
    pub origins: Vec<String>,
    pub session: Session,
    #[serde(default)]
    pub headers: Headers,
    /// Peers whose forwarding headers are believed. Nobody by default.
    #[serde(default)]
    #[schemars(with = "Vec<scalar::Network>")]
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// The most specific match wins.
    pub routes: Vec<Route>,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub tracing: Tracing,
    #[serde(default)]
    pub shutdown: Shutdown,
}

/// The names of the headers between cloakroom and the backend.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// What every one of cloakroom's own header names begins with.
    pub prefix: String,
}

impl Default for Headers {
    fn default() -> Self {
        Self { prefix: "cloakroom-".into() }
    }
}

fn prod() -> String {
    "prod".into()
}

#[cfg(test)]
mod tests;
