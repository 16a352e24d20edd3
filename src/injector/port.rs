//! The application's port, which services find by its name: the name moves to the sidecar, the number stays.

use serde_json::{Value as Json, json};

use super::draft::Draft;
use super::pod::{Container, Pod, Port};
use super::policy::{Policy, Settings};
use super::{Refusal, sidecar};

/// Where probes and hooks call a port by its name, in the order of a container's fields.
const CALLERS: [&str; 5] =
    ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];
/// Kinds of calls that go to a port.
const CALLS: [&str; 2] = ["httpGet", "tcpSocket"];

/// The application's port, and the container that has it.
#[derive(Debug)]
pub struct Application<'p> {
    container: &'p Container,
    /// Among the pod's containers.
    index: usize,
    /// Among the container's ports.
    port_index: usize,
    /// What the application listens on.
    pub port: u16,
}

impl Application<'_> {
    /// The container's place in the pod.
    pub fn pointer(&self) -> String {
        format!("/spec/containers/{}", self.index)
    }
}

/// Finds the one port of that name.
pub fn application<'p>(pod: &'p Pod, name: &str) -> Result<Application<'p>, Refusal> {
    let ports = pod.spec.containers.iter().enumerate().flat_map(|(index, container)| {
        container.ports().iter().enumerate().map(move |(port_index, port)| (index, container, port_index, port))
    });
    let mut named = ports.clone().filter(|(.., port)| port.name.as_deref() == Some(name));
    let Some((index, container, port_index, port)) = named.next() else {
        let known = ports.filter_map(|(.., port)| port.name.clone()).collect();
        return Err(Refusal::NoPort { name: name.to_owned(), known });
    };
    if let Some((_, other, ..)) = named.next() {
        let (first, second) = (container.name.clone(), other.name.clone());
        return Err(Refusal::TwoPorts { name: name.to_owned(), first, second });
    }
    leads_only_here(name, container, port)?;
    Ok(Application { container, index, port_index, port: port.container_port })
}

fn leads_only_here(name: &str, container: &Container, port: &Port) -> Result<(), Refusal> {
    let (name, container) = (name.to_owned(), container.name.clone());
    if !port.is_tcp() {
        let protocol = port.protocol.clone().unwrap_or_default();
        return Err(Refusal::Protocol { name, container, protocol });
    }
    match port.host_port.filter(|number| *number > 0) {
        Some(number) => Err(Refusal::HostPort { name, container, number }),
        None => Ok(()),
    }
}

/// Refuses a pod of which something listens where the sidecar would.
pub fn refuse_clashes(pod: &Pod, settings: &Settings, policy: &Policy) -> Result<(), Refusal> {
    let taken = [(settings.port, "listening"), (policy.status_port, "status"), (policy.admin_port, "admin")];
    for container in pod.all_containers() {
        for port in container.ports().iter().filter(|port| port.is_tcp()) {
            let container = container.name.clone();
            if let Some((number, purpose)) = taken.iter().find(|(number, _)| *number == port.container_port) {
                return Err(Refusal::Clash { container, number: *number, purpose });
            }
            if port.name.as_deref() == Some(sidecar::STATUS_PORT) {
                return Err(Refusal::PortNameTaken { container, name: sidecar::STATUS_PORT });
            }
        }
    }
    Ok(())
}

/// Takes the name from the application's port, and has those who called the application by it go on reaching it.
///
/// The kubelet looks for a name among the ports of the very container that it probes, so probes get the number.
pub fn rewire(draft: &mut Draft, policy: &Policy, settings: &Settings, application: &Application<'_>) {
    let pointer = application.pointer();
    for caller in CALLERS {
        let place = format!("/{caller}");
        let found = CALLS.into_iter().find(|call| calls(application.container, caller, call, &settings.app_port));
        if let Some(call) = found {
            draft.put(&format!("{pointer}{place}/{call}"), "port", json!(application.port));
        }
    }
    let port = format!("{pointer}/ports/{}", application.port_index);
    if policy.native && !policy.services_see_native_ports {
        // The name stays where endpoints look, with the sidecar's number: a pod's containers share their ports.
        draft.put(&port, "containerPort", json!(settings.port));
    } else {
        draft.remove(&port, "name");
    }
}

fn calls(container: &Container, caller: &str, call: &str, name: &str) -> bool {
    let mut steps = caller.split('/');
    let first = steps.next().and_then(|step| container.rest.get(step));
    let hook = steps.fold(first, |found, step| found?.get(step));
    hook.and_then(|hook| hook.get(call)?.get("port")).and_then(Json::as_str) == Some(name)
}
