//! The injector's configuration, compiled; and what of it holds for one pod.

use serde_json::json;

use crate::config::kubernetes::repository_of;
use crate::config::{Injector, KubernetesVersion, OnRefusal, PullPolicy, Quantity, SidecarMode};

use super::draft::Draft;
use super::pod::Pod;
use super::port::Application;
use super::{Refusal, annotation, sidecar};

/// What Kubernetes gives a pod to end in, where it says nothing.
const GRACE: i64 = 30;

/// What holds for every pod.
#[derive(Debug)]
pub struct Policy {
    pub on_refusal: OnRefusal,
    /// Whether the sidecar is an init container that keeps running.
    pub native: bool,
    /// Whether services find the named ports of such init containers.
    pub services_see_native_ports: bool,
    /// Whether a hook may sleep without a program to do so in the image.
    pub hooks_sleep: bool,
    pub pull_policy: PullPolicy,
    pub address: std::net::IpAddr,
    pub status_port: u16,
    pub admin_port: u16,
    pub user: Option<u32>,
    pub check: bool,
    /// In seconds; zero: the application's end is not delayed.
    pre_stop: i64,
    pub data: Quantity,
    /// Where annotations may take images from.
    pub repositories: Vec<String>,
    pub most_cpu: Quantity,
    pub most_memory: Quantity,
    defaults: Settings,
}

/// What holds for one pod.
#[derive(Debug, Clone)]
pub struct Settings {
    pub image: String,
    /// The name of the application's port that moves.
    pub app_port: String,
    /// Whether the pod itself named that port.
    pub names_port: bool,
    pub port: u16,
    pub config_map: String,
    pub secret: Option<String>,
    pub log_level: String,
    pub cpu: Amounts,
    pub memory: Amounts,
}

#[derive(Debug, Clone, Default)]
pub struct Amounts {
    pub request: Option<Quantity>,
    pub limit: Option<Quantity>,
}

impl Policy {
    /// None where the configuration has errors, which its check tells.
    pub fn compile(config: &Injector) -> Option<Self> {
        let raw = &config.sidecar;
        let version = KubernetesVersion::parse(&config.kubernetes)?;
        let amounts = |request: &Option<String>, limit: &Option<String>| {
            let read = |text: &Option<String>| text.as_deref().and_then(Quantity::parse);
            Amounts { request: read(request), limit: read(limit) }
        };
        let resources = &raw.resources;
        let defaults = Settings {
            image: raw.image.clone(),
            app_port: raw.app_port.clone(),
            names_port: false,
            port: raw.port,
            config_map: raw.config_map.clone(),
            secret: raw.secret.clone(),
            log_level: raw.log_level.clone(),
            cpu: amounts(&resources.cpu_request, &resources.cpu_limit),
            memory: amounts(&resources.memory_request, &resources.memory_limit),
        };
        let own = std::iter::once(repository_of(&raw.image).to_owned());
        Some(Self {
            on_refusal: config.on_refusal,
            native: match raw.mode {
                SidecarMode::Auto => version.is_at_least(1, 29),
                SidecarMode::Native => true,
                SidecarMode::Classic => false,
            },
            // Endpoints leave them out before (kubernetes/kubernetes#127958, #128850).
            services_see_native_ports: version.is_at_least(1, 33),
            // KEP-3960, on by default from then on.
            hooks_sleep: version.is_at_least(1, 30),
            pull_policy: raw.pull_policy,
            address: raw.address.parse().ok()?,
            status_port: raw.status_port,
            admin_port: raw.admin_port,
            user: raw.user,
            check: raw.check,
            pre_stop: i64::try_from(raw.pre_stop.0.as_secs()).ok()?,
            data: Quantity::parse(&raw.data)?,
            repositories: own.chain(config.bounds.images.iter().cloned()).collect(),
            most_cpu: Quantity::parse(&config.bounds.cpu)?,
            most_memory: Quantity::parse(&config.bounds.memory)?,
            defaults,
        })
    }

    /// The defaults, and what the pod says otherwise.
    pub fn settings(&self, pod: &Pod) -> Result<Settings, Refusal> {
        let mut settings = self.defaults.clone();
        annotation::apply(pod, self, &mut settings)?;
        Ok(settings)
    }

    /// Refuses pods in which a sidecar would not work, or would not be in the way.
    pub fn refuse_misfits(&self, pod: &Pod) -> Result<(), Refusal> {
        if pod.is_on_the_nodes_network() {
            return Err(Refusal::HostNetwork);
        }
        if pod.is_for_windows() {
            return Err(Refusal::Windows);
        }
        let restarts = pod.spec.restart_policy.as_deref().unwrap_or("Always");
        if !self.native && restarts != "Always" {
            return Err(Refusal::NeverEnds(restarts.to_owned()));
        }
        if let Some(name) = sidecar::VOLUMES.into_iter().find(|name| pod.has_volume(name)) {
            return Err(Refusal::VolumeTaken(name));
        }
        match pod.has_container(sidecar::CHECK) {
            true => Err(Refusal::NameTaken),
            false => Ok(()),
        }
    }

    /// Has the application go on for a while once its pod is to end, unless it does something then already: endpoints
    /// take their time to catch up, and a native sidecar is only told to end after it.
    pub fn delay_end(&self, draft: &mut Draft, pod: &Pod, application: &Application<'_>) {
        // A hook may not last as long as all that the pod has.
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(GRACE);
        let seconds = self.pre_stop.min(grace / 2);
        let lifecycle = format!("{}/lifecycle", application.pointer());
        let has_hook = draft.object_at(&lifecycle).and_then(|hooks| hooks.get("preStop")).is_some_and(|h| !h.is_null());
        if seconds <= 0 || has_hook {
            return;
        }
        let hook = match self.hooks_sleep {
            true => json!({ "sleep": { "seconds": seconds } }),
            // Where the image has no such program the hook fails, and the end is as it was.
            false => json!({ "exec": { "command": ["sleep", seconds.to_string()] } }),
        };
        draft.put(&lifecycle, "preStop", hook);
    }
}
