//! The Kubernetes admission webhook: a pod in, and what has to change for it to have a sidecar out.
//!
//! It knows nothing but what stands in the request and in its own configuration, asks no API server, and so needs no
//! rights in the cluster. A pod is changed whole or not at all:
//!
//! ```text
//! review -> scope, annotations -> pod -> the application's port -> clashes -> draft -> patch
//! ```

mod annotation;
mod api;
mod certificate;
mod draft;
mod figures;
mod issue;
mod pod;
mod policy;
mod port;
mod refusal;
mod renewal;
mod review;
mod sidecar;
mod status;
mod webhook;

pub use api::{ACCOUNT, Api, ApiError};
pub use certificate::Certificate;
pub use figures::Figures;
pub use policy::Policy;
pub use refusal::Refusal;
pub use renewal::{RenewalError, Wanted, keep};
pub use status::status_router;
pub use webhook::{router, serve};

use serde_json::{Value as Json, json};

use annotation::Choice;
use draft::Draft;
use pod::Pod;
use port::Application;

/// Every annotation and label of ours begins with it.
const DOMAIN: &str = "cloakroom.dev/";
/// The name of the sidecar's container.
const CONTAINER: &str = "cloakroom";
/// The label that network policies and pod monitors select.
const LABEL: &str = "cloakroom.dev/sidecar";
/// Says on a pod that the injector has changed it.
const STATUS: &str = "cloakroom.dev/status";

/// Who wants the sidecar, where a pod itself says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nobody: only annotated pods get one.
    Annotated,
    /// The namespace, by its label.
    Namespace,
}

/// What is to be done with a pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is taken as it is, for a reason worth telling, or for none.
    Untouched(Option<&'static str>),
    /// These JSON Patch operations (RFC 6902), in this order.
    Patch(Vec<Json>),
}

/// Looks at a pod that is about to be created.
///
/// # Errors
/// It asks for a sidecar, or its namespace does, and cannot have it.
fn examine(policy: &Policy, scope: Scope, object: &Json) -> Result<Verdict, Refusal> {
    let pod = Pod::read(object)?;
    let wanted = match annotation::choice(&pod)? {
        Choice::Yes => true,
        Choice::No => return Ok(Verdict::Untouched(None)),
        Choice::Unsaid if scope == Scope::Namespace => false,
        Choice::Unsaid => return Ok(Verdict::Untouched(None)),
    };
    if pod.has_container(CONTAINER) {
        return match pod.is_marked() {
            true => Ok(Verdict::Untouched(None)),
            false => Err(Refusal::NameTaken),
        };
    }
    let settings = policy.settings(&pod)?;
    let application = match port::application(&pod, &settings.app_port) {
        // What has no such port gets no traffic through one: most pods of a namespace that are no agents.
        Err(Refusal::NoPort { .. }) if !wanted && !settings.names_port => {
            return Ok(Verdict::Untouched(Some("no container has a port of that name")));
        }
        found => found?,
    };
    policy.refuse_misfits(&pod)?;
    port::refuse_clashes(&pod, &settings, policy)?;
    let mut draft = Draft::of(object);
    change(&mut draft, policy, &settings, &pod, &application);
    Ok(Verdict::Patch(draft.into_operations()))
}

fn change(draft: &mut Draft, policy: &Policy, settings: &policy::Settings, pod: &Pod, application: &Application<'_>) {
    draft.put("/metadata/labels", LABEL, json!("true"));
    draft.put("/metadata/annotations", STATUS, json!("injected"));
    port::rewire(draft, policy, settings, application);
    policy.delay_end(draft, pod, application);
    for volume in sidecar::volumes(policy, settings) {
        draft.append("/spec/volumes", volume);
    }
    if policy.check {
        draft.append("/spec/initContainers", sidecar::check(policy, settings, application));
    }
    let list = if policy.native { "/spec/initContainers" } else { "/spec/containers" };
    draft.append(list, sidecar::container(policy, settings, application));
}

#[cfg(test)]
mod tests;
