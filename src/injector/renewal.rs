//! Keeps a Secret with the webhook's certificate, and has the webhook's configuration trust it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::clock::Time;

use super::api::{Api, ApiError};
use super::issue::{Issued, RENEW_AFTER, issue};

/// Says in the Secret when the certificate is to be renewed.
const RENEW: &str = "cloakroom.dev/renew-after";

/// What is to be kept.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// The namespace of Secret and Service
    #[arg(long)]
    pub namespace: String,
    /// The Secret, which is made where it is missing
    #[arg(long)]
    pub secret: String,
    /// The Service that the certificate is for
    #[arg(long)]
    pub service: String,
    /// The MutatingWebhookConfiguration that is to trust it; without one, nothing is renewed
    #[arg(long)]
    pub webhook: Option<String>,
}

/// Why the certificate is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("a certificate could not be made: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the webhook configuration {0} is not there")]
    NoWebhook(String),
    #[error(
        "the Secret {0} has no usable ca.crt, and no cloakroom.dev/renew-after by which it would be ours to replace"
    )]
    Foreign(String),
}

/// Makes what is missing or too old. May be repeated; says what was done.
///
/// Whoever verifies is told first, and goes on believing the certificate of before, which the webhook serves until its
/// mounted files change.
pub async fn keep(api: &Api, wanted: &Wanted, now: Time) -> Result<&'static str, RenewalError> {
    let secrets = format!("/api/v1/namespaces/{}/secrets", wanted.namespace);
    let path = format!("{secrets}/{}", wanted.secret);
    let known = api.find(&path).await?;
    let Some(known) = known else {
        let made = issue(&names(wanted), now.into())?;
        trust(api, wanted, &made.authority).await?;
        api.create(&secrets, &secret(wanted, &made, &made.authority, None, now)).await?;
        return Ok("a certificate was made");
    };
    let authority = authority_of(&known);
    if !is_due(&known, now) || wanted.webhook.is_none() {
        let authority = authority.ok_or_else(|| RenewalError::Foreign(wanted.secret.clone()))?;
        trust(api, wanted, &authority).await?;
        return Ok("the certificate is good for some time yet");
    }
    let made = issue(&names(wanted), now.into())?;
    let before = authority.as_deref().map(first).unwrap_or_default();
    let both = format!("{}{before}", made.authority);
    trust(api, wanted, &both).await?;
    let version = known.pointer("/metadata/resourceVersion").cloned();
    api.replace(&path, &secret(wanted, &made, &both, version, now)).await?;
    Ok("the certificate was renewed")
}

fn names(wanted: &Wanted) -> Vec<String> {
    let name = format!("{}.{}.svc", wanted.service, wanted.namespace);
    vec![format!("{name}.cluster.local"), name]
}

/// A Secret that is not ours never is.
fn is_due(secret: &Json, now: Time) -> bool {
    let said = secret.pointer("/metadata/annotations").and_then(|all| all.get(RENEW)?.as_str());
    said.is_some_and(|said| Time::parse(said).is_none_or(|due| due <= now))
}

fn authority_of(secret: &Json) -> Option<String> {
    let encoded = secret.pointer("/data/ca.crt")?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok().filter(|pem| pem.contains("BEGIN CERTIFICATE"))
}

/// The first certificate of several: the one in use.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    let end = pem.find(END).map_or(pem.len(), |at| at + END.len());
    pem.get(..end).unwrap_or(pem)
}

fn secret(wanted: &Wanted, made: &Issued, authority: &str, version: Option<Json>, now: Time) -> Json {
    let Issued { certificate, key, .. } = made;
    let mut metadata = json!({
        "name": wanted.secret,
        "namespace": wanted.namespace,
        "labels": { "app.kubernetes.io/name": "cloakroom", "app.kubernetes.io/component": "certificate" },
        "annotations": { RENEW: now.plus(RENEW_AFTER).to_string() },
    });
    // Somebody else who is at it makes the server refuse, and the job comes again.
    if let (Some(version), Some(members)) = (version, metadata.as_object_mut()) {
        members.insert("resourceVersion".into(), version);
    }
    let encoded = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": metadata,
        "data": { "ca.crt": encoded(authority), "tls.crt": encoded(certificate), "tls.key": encoded(key) },
    })
}

/// Has every webhook of the configuration believe this authority.
async fn trust(api: &Api, wanted: &Wanted, authority: &str) -> Result<(), RenewalError> {
    let Some(name) = &wanted.webhook else { return Ok(()) };
    let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
    let known = api.find(&path).await?.ok_or_else(|| RenewalError::NoWebhook(name.clone()))?;
    let bundle = json!(STANDARD.encode(authority));
    let webhooks = known.get("webhooks").and_then(Json::as_array).into_iter().flatten().enumerate();
    let stale = webhooks.filter(|(_, webhook)| webhook.pointer("/clientConfig/caBundle") != Some(&bundle));
    let operations = stale.flat_map(|(index, webhook)| {
        let webhook_name = webhook.get("name").cloned().unwrap_or_default();
        [
            // Their order may change between the look and the patch.
            json!({ "op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook_name }),
            json!({ "op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle }),
        ]
    });
    let operations: Vec<Json> = operations.collect();
    if !operations.is_empty() {
        api.patch(&path, &Json::Array(operations)).await?;
    }
    Ok(())
}
