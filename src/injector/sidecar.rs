//! The sidecar's containers and volumes, as the chart's template has them too.

use serde_json::{Map, Value as Json, json};

use super::CONTAINER;
use super::policy::{Amounts, Policy, Settings};
use super::port::Application;

/// Checks the configuration before anything else of cloakroom's starts.
pub const CHECK: &str = "cloakroom-check";
/// The name of the port that Prometheus and the kubelet ask.
pub const STATUS_PORT: &str = "cr-status";
const CONFIG_VOLUME: &str = "cloakroom-config";
const SECRET_VOLUME: &str = "cloakroom-secret";
const DATA_VOLUME: &str = "cloakroom-data";
const NO_TOKEN_VOLUME: &str = "cloakroom-no-token";
pub const VOLUMES: [&str; 4] = [CONFIG_VOLUME, SECRET_VOLUME, DATA_VOLUME, NO_TOKEN_VOLUME];

/// Where the files are, which the configuration may refer to.
const CONFIG_FOLDER: &str = "/etc/cloakroom";
const SECRET_FOLDER: &str = "/var/run/secrets/cloakroom";
const DATA_FOLDER: &str = "/var/lib/cloakroom";
/// Where a service account's token would be put, were nothing there. The sidecar has no use for one.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub fn volumes(policy: &Policy, settings: &Settings) -> Vec<Json> {
    let secret = |name| json!({ "name": SECRET_VOLUME, "secret": { "secretName": name } });
    let mut volumes = vec![json!({ "name": CONFIG_VOLUME, "configMap": { "name": settings.config_map } })];
    volumes.extend(settings.secret.iter().map(secret));
    volumes.push(json!({ "name": DATA_VOLUME, "emptyDir": { "sizeLimit": policy.data.to_string() } }));
    volumes.push(json!({ "name": NO_TOKEN_VOLUME, "emptyDir": {} }));
    volumes
}

/// Tells what is wrong with the configuration, in the pod's status too, and is done.
pub fn check(policy: &Policy, settings: &Settings, application: &Application<'_>) -> Json {
    // One that listens elsewhere would leave the service without an answer, and nobody would know why.
    let arguments = json!(["check", "--serves", settings.port.to_string()]);
    Json::Object(base(CHECK, arguments, policy, settings, application))
}

pub fn container(policy: &Policy, settings: &Settings, application: &Application<'_>) -> Json {
    let mut container = base(CONTAINER, json!(["run"]), policy, settings, application);
    let probe = |path: &str| json!({ "path": path, "port": policy.status_port });
    let ports = json!([
        { "name": settings.app_port, "containerPort": settings.port, "protocol": "TCP" },
        { "name": STATUS_PORT, "containerPort": policy.status_port, "protocol": "TCP" },
    ]);
    let more = [
        ("ports", ports),
        // The application starts when this holds, and the pod waits a minute for it before the sidecar is restarted.
        ("startupProbe", json!({ "httpGet": probe("/readyz"), "periodSeconds": 1, "failureThreshold": 60 })),
        ("readinessProbe", json!({ "httpGet": probe("/readyz"), "periodSeconds": 5, "failureThreshold": 2 })),
        ("livenessProbe", json!({ "httpGet": probe("/healthz"), "periodSeconds": 10, "failureThreshold": 3 })),
    ];
    container.extend(more.map(|(key, value)| (key.to_owned(), value)));
    if policy.native {
        container.insert("restartPolicy".into(), json!("Always"));
    }
    Json::Object(container)
}

/// What both containers have.
fn base(
    name: &str,
    arguments: Json,
    policy: &Policy,
    settings: &Settings,
    application: &Application<'_>,
) -> Map<String, Json> {
    let listen = std::net::SocketAddr::new(policy.address, settings.port);
    let environment = json!([
        { "name": "CLOAKROOM_CONFIG", "value": format!("{CONFIG_FOLDER}/cloakroom.yaml") },
        { "name": "CLOAKROOM_LISTEN", "value": listen.to_string() },
        { "name": "CLOAKROOM_UPSTREAM", "value": format!("http://127.0.0.1:{}", application.port) },
        { "name": "CLOAKROOM_LOG_LEVEL", "value": settings.log_level },
    ]);
    let fields = [
        ("name", json!(name)),
        ("image", json!(settings.image)),
        ("imagePullPolicy", json!(policy.pull_policy)),
        ("args", arguments),
        ("env", environment),
        ("resources", resources(settings)),
        ("securityContext", security(policy.user)),
        ("volumeMounts", mounts(settings)),
        ("terminationMessagePolicy", json!("FallbackToLogsOnError")),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn mounts(settings: &Settings) -> Json {
    let mut mounts = vec![json!({ "name": CONFIG_VOLUME, "mountPath": CONFIG_FOLDER, "readOnly": true })];
    if settings.secret.is_some() {
        mounts.push(json!({ "name": SECRET_VOLUME, "mountPath": SECRET_FOLDER, "readOnly": true }));
    }
    mounts.push(json!({ "name": DATA_VOLUME, "mountPath": DATA_FOLDER }));
    mounts.push(json!({ "name": NO_TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true }));
    Json::Array(mounts)
}

fn resources(settings: &Settings) -> Json {
    let part = |of: fn(&Amounts) -> Option<String>| {
        let amounts = [("cpu", &settings.cpu), ("memory", &settings.memory)];
        let said = amounts.into_iter().filter_map(|(kind, amounts)| Some((kind.to_owned(), json!(of(amounts)?))));
        said.collect::<Map<_, _>>()
    };
    let requests = part(|amounts| amounts.request.as_ref().map(ToString::to_string));
    let limits = part(|amounts| amounts.limit.as_ref().map(ToString::to_string));
    let parts = [("requests", requests), ("limits", limits)];
    parts
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(key, part)| (key.to_owned(), Json::Object(part)))
        .collect()
}

/// The restricted Pod Security Standard, and a root file system that cannot be written.
fn security(user: Option<u32>) -> Json {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if let (Some(user), Some(members)) = (user, context.as_object_mut()) {
        members.insert("runAsUser".into(), json!(user));
        members.insert("runAsGroup".into(), json!(user));
    }
    context
}
