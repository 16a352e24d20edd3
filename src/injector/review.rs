//! AdmissionReview of `admission.k8s.io/v1`: what the API server asks, and what it is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::config::OnRefusal;

use super::pod::Pod;
use super::{Policy, Scope, Verdict, examine};

const API: &str = "admission.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: Option<String>,
    operation: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    object: Json,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    kind: String,
}

/// What came of one pod, for the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Injected,
    /// It did not ask, has its sidecar already, or is nothing that is created as a pod.
    Untouched,
    Refused,
    /// It cannot have what it asked for, and is taken without.
    Admitted,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Untouched => "untouched",
            Self::Refused => "refused",
            Self::Admitted => "admitted",
        }
    }
}

/// An answer, and what to count and log of it.
pub struct Answer {
    pub review: Json,
    pub outcome: Outcome,
    pub pod: String,
    pub namespace: String,
    /// Why the pod has no sidecar although one was asked for.
    pub reason: Option<String>,
}

/// Answers one review.
///
/// # Errors
/// It is none, or of another version; the text says so.
pub fn answer(policy: &Policy, scope: Scope, body: &[u8]) -> Result<Answer, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
    if review.kind != "AdmissionReview" || review.api_version != API {
        return Err(format!("only AdmissionReview of {API} is answered here"));
    }
    let request = review.request;
    let verdict = match is_new_pod(&request) {
        true => examine(policy, scope, &request.object),
        false => Ok(Verdict::Untouched(None)),
    };
    let mut response = json!({ "uid": request.uid, "allowed": true });
    let mut reason = None;
    let outcome = match verdict {
        Ok(Verdict::Patch(operations)) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Json::Array(operations).to_string()));
            Outcome::Injected
        }
        Ok(Verdict::Untouched(why)) => {
            reason = why.map(str::to_owned);
            Outcome::Untouched
        }
        Err(refusal) => {
            reason = Some(refusal.to_string());
            refuse(policy.on_refusal, &refusal.to_string(), &mut response)
        }
    };
    response["auditAnnotations"] = json!({ "outcome": outcome.word() });
    let pod = Pod::read(&request.object).map_or_else(|_| String::new(), |pod| pod.name().to_owned());
    Ok(Answer {
        review: json!({ "apiVersion": API, "kind": "AdmissionReview", "response": response }),
        outcome,
        pod,
        namespace: request.namespace.unwrap_or_default(),
        reason,
    })
}

fn is_new_pod(request: &Request) -> bool {
    let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
    is_pod && request.operation == "CREATE" && request.sub_resource.as_deref().is_none_or(str::is_empty)
}

fn refuse(on_refusal: OnRefusal, reason: &str, response: &mut Json) -> Outcome {
    match on_refusal {
        OnRefusal::Admit => {
            response["warnings"] = json!([format!("cloakroom: no sidecar was added: {reason}")]);
            Outcome::Admitted
        }
        OnRefusal::Deny => {
            response["allowed"] = json!(false);
            // 422, as the API server itself says it of an object that is not as it has to be.
            response["status"] = json!({ "code": 422, "reason": "Invalid", "message": format!("cloakroom: {reason}") });
            Outcome::Refused
        }
    }
}
