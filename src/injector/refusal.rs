//! Why a pod cannot have its sidecar, said to whoever creates it.

use super::DOMAIN;

/// What to change is said along with what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the pod cannot be read: {0}")]
    Unreadable(String),
    #[error("the annotation {DOMAIN}{key} {problem}")]
    Annotation { key: String, problem: String },
    #[error("the pod has a container named cloakroom that the injector did not add; give it another name")]
    NameTaken,
    #[error("the pod has a volume named {0}, which the sidecar needs; give it another name")]
    VolumeTaken(&'static str),
    #[error("no container has a port named {name}: {}; the annotation {DOMAIN}port names another", told(known))]
    NoPort { name: String, known: Vec<String> },
    #[error(
        "the containers {first} and {second} both have a port named {name}: it cannot be told which one is to move"
    )]
    TwoPorts { name: String, first: String, second: String },
    #[error("the port {name} of container {container} is {protocol}: cloakroom speaks HTTP over TCP")]
    Protocol { name: String, container: String, protocol: String },
    #[error(
        "the port {name} of container {container} has hostPort {number}, which leads around the sidecar; remove it"
    )]
    HostPort { name: String, container: String, number: u16 },
    #[error(
        "container {container} has port {number}, which is the sidecar's {purpose} port: the two share an address{}",
        remedy(purpose)
    )]
    Clash { container: String, number: u16, purpose: &'static str },
    #[error("container {container} has a port named {name}, which is a name of the sidecar's; give it another")]
    PortNameTaken { container: String, name: &'static str },
    #[error(
        "the pod has hostNetwork: the sidecar's ports would be the node's, and the application open to all beside it"
    )]
    HostNetwork,
    #[error("the pod is for Windows: there is no such sidecar")]
    Windows,
    #[error(
        "the pod ends by itself (restartPolicy {0}), which a sidecar that is an ordinary container would keep it from; \
         it needs a native sidecar, of Kubernetes 1.29 or later"
    )]
    NeverEnds(String),
}

fn told(known: &[String]) -> String {
    match known {
        [] => "none has a name".into(),
        known => format!("there are {}", known.join(", ")),
    }
}

fn remedy(purpose: &str) -> &'static str {
    match purpose {
        "listening" => "; the annotation cloakroom.dev/listen-port gives the sidecar another",
        _ => "; give the application another",
    }
}
