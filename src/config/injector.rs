//! The injector's own file, which is smaller than a sidecar's and has nothing of it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Log, Period, Shutdown, Status};

/// The whole file of `cloakroom injector`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Injector {
    /// The version of this format.
    pub version: u32,
    /// Where the API server connects, over TLS.
    #[serde(default = "webhook")]
    pub address: String,
    pub tls: WebhookTls,
    #[serde(default)]
    pub status: Status,
    /// The cluster's version, such as `"1.33"`.
    pub kubernetes: String,
    /// What becomes of a pod that asks for a sidecar and cannot have it.
    #[serde(default)]
    pub on_refusal: OnRefusal,
    pub sidecar: Sidecar,
    #[serde(default)]
    pub bounds: Bounds,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub shutdown: Shutdown,
}

/// Both files are taken on again when they change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRefusal {
    /// The pod is not created; whoever creates it is told why.
    #[default]
    Deny,
    /// The pod is created as it is, without a sidecar, with a warning.
    Admit,
}

/// What is added to a pod, unless its annotations say otherwise.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    pub image: String,
    #[serde(default)]
    pub pull_policy: PullPolicy,
    #[serde(default)]
    pub mode: SidecarMode,
    /// The name of the application's port that moves to the sidecar.
    #[serde(default = "http")]
    pub app_port: String,
    /// The IP address that the sidecar listens on: all of IPv4 (`0.0.0.0`), or both families (`::`).
    #[serde(default = "everywhere")]
    pub address: String,
    #[serde(default = "port")]
    pub port: u16,
    /// Has to be the port of `status.address` in the sidecar's configuration.
    #[serde(default = "status_port")]
    pub status_port: u16,
    /// Has to be the port of `admin.address` in the sidecar's configuration.
    #[serde(default = "admin_port")]
    pub admin_port: u16,
    /// In the pod's namespace, with the configuration as `cloakroom.yaml`.
    #[serde(default = "cloakroom")]
    pub config_map: String,
    /// In the pod's namespace: keyring, admin token, passwords. Null: none is mounted.
    #[serde(default = "secret")]
    pub secret: Option<String>,
    #[serde(default = "info")]
    pub log_level: String,
    #[serde(default)]
    pub resources: Resources,
    /// The user and group that it runs as; null: the cluster's choice.
    #[serde(default = "nonroot")]
    pub user: Option<u32>,
    /// Whether the configuration is checked by an init container first, which then tells what is wrong with it.
    #[serde(default = "yes")]
    pub check: bool,
    /// How long the application is kept from ending, so that endpoints catch up; `0s`: not at all.
    #[serde(default = "pre_stop")]
    pub pre_stop: Period,
    /// How much the embedded store may hold; it ends with its pod.
    #[serde(default = "data")]
    pub data: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SidecarMode {
    /// Native where the cluster has it.
    #[default]
    Auto,
    /// An init container that keeps running: Kubernetes 1.29 or later.
    Native,
    /// One container more.
    Classic,
}

/// What the sidecar asks for and may use up. Null: nothing is said.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub cpu_request: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_request: Option<String>,
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: Some("50m".into()),
            cpu_limit: None,
            memory_request: Some("64Mi".into()),
            memory_limit: Some("256Mi".into()),
        }
    }
}

/// How far annotations may go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Repositories of images, beside the sidecar's own: `ghcr.io/acme/cloakroom`, without a tag.
    pub images: Vec<String>,
    pub cpu: String,
    pub memory: String,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { images: Vec::new(), cpu: "2".into(), memory: "1Gi".into() }
    }
}

fn webhook() -> String {
    "0.0.0.0:8443".into()
}
fn http() -> String {
    "http".into()
}
fn everywhere() -> String {
    "0.0.0.0".into()
}
fn port() -> u16 {
    8080
}
fn status_port() -> u16 {
    9901
}
fn admin_port() -> u16 {
    9900
}
fn cloakroom() -> String {
    "cloakroom".into()
}
fn secret() -> Option<String> {
    Some(cloakroom())
}
fn info() -> String {
    "info".into()
}
/// As distroless images have it.
#[expect(clippy::unnecessary_wraps, reason = "it is the default of an optional key")]
fn nonroot() -> Option<u32> {
    Some(65_532)
}
fn yes() -> bool {
    true
}
fn pre_stop() -> Period {
    Period::secs(5)
}
fn data() -> String {
    "128Mi".into()
}
