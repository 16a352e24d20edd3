//! What of a pod the injector looks at.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{LABEL, Refusal, STATUS};

/// A pod as it is about to be created; whatever is not named here is left alone.
#[derive(Debug, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: Option<String>,
    pub generate_name: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Named>>,
    host_network: Option<bool>,
    pub restart_policy: Option<String>,
    pub termination_grace_period_seconds: Option<i64>,
    os: Option<Named>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    ports: Option<Vec<Port>>,
    /// Probes and hooks, in which ports may be called by their names.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Json>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    pub name: Option<String>,
    pub container_port: u16,
    pub host_port: Option<u16>,
    pub protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Pod {
    pub fn read(object: &Json) -> Result<Self, Refusal> {
        Self::deserialize(object).map_err(|error| Refusal::Unreadable(error.to_string()))
    }

    /// What it is called where it is told about; the end of a generated name is not known yet.
    pub fn name(&self) -> &str {
        let Metadata { name, generate_name, .. } = &self.metadata;
        name.as_deref().or(generate_name.as_deref()).unwrap_or("(unnamed)")
    }

    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.annotations.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether the injector, or the chart's template, has said that the sidecar is there.
    pub fn is_marked(&self) -> bool {
        let labelled = self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL));
        labelled || self.annotations().any(|(key, _)| key == STATUS)
    }

    /// All that may listen: ordinary containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten())
    }

    pub fn has_container(&self, name: &str) -> bool {
        self.all_containers().any(|container| container.name == name)
    }

    pub fn has_volume(&self, name: &str) -> bool {
        self.spec.volumes.iter().flatten().any(|volume| volume.name == name)
    }

    pub fn is_on_the_nodes_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    pub fn is_for_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

impl Container {
    pub fn ports(&self) -> &[Port] {
        self.ports.as_deref().unwrap_or_default()
    }
}

impl Port {
    /// TCP, unless it says otherwise.
    pub fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }
}
