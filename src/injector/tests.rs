use serde_json::{Value as Json, json};

use super::*;
use crate::config::{Injector, inspect_injector};

const SMALLEST: &str = "version: 1\nkubernetes: \"1.33\"\ntls: { certificate: tls.crt, key: tls.key }\n\
                        sidecar: { image: \"ghcr.io/acme/cloakroom:0.1.0\" }\n";

fn config(text: &str) -> Injector {
    let inspected = inspect_injector(text, std::path::Path::new("/etc/injector.yaml"), &|_| None);
    let problems = inspected.source.diagnose(crate::config::Problems::default());
    assert!(problems.is_empty(), "{problems}");
    inspected.config.unwrap()
}

fn policy() -> Policy {
    on("1.33")
}

fn on(version: &str) -> Policy {
    Policy::compile(&config(&SMALLEST.replace("1.33", version))).unwrap()
}

/// A pod of a Deployment with one port of that name, probed by name.
fn pod(annotations: Json) -> Json {
    let probe = json!({ "httpGet": { "path": "/health", "port": "http" } });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "agent-7d9-", "annotations": annotations },
        "spec": { "containers": [{
            "name": "agent",
            "image": "agent:1",
            "ports": [{ "name": "http", "containerPort": 8000, "protocol": "TCP" }],
            "livenessProbe": probe,
            "readinessProbe": { "tcpSocket": { "port": "http" } },
            "startupProbe": { "httpGet": { "path": "/", "port": 8000 } },
        }] },
    })
}

fn asking(more: Json) -> Json {
    let mut annotations = json!({ "cloakroom.dev/inject": "true" });
    annotations.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod(annotations)
}

/// What becomes of a pod, the patch applied by somebody else's code.
#[track_caller]
fn injected(policy: &Policy, object: &Json) -> Json {
    let verdict = examine(policy, Scope::Annotated, object);
    let Ok(Verdict::Patch(operations)) = verdict else { panic!("{verdict:?}") };
    let patch: json_patch::Patch = serde_json::from_value(Json::Array(operations)).unwrap();
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}

#[track_caller]
fn refused(policy: &Policy, object: &Json) -> String {
    match examine(policy, Scope::Annotated, object) {
        Err(refusal) => refusal.to_string(),
        Ok(verdict) => panic!("{verdict:?}"),
    }
}

fn sidecar(pod: &Json) -> &Json {
    let mut all = pod["spec"]["initContainers"].as_array().unwrap().iter();
    all.find(|container| container["name"] == "cloakroom").unwrap()
}

#[test]
fn the_named_port_moves_and_the_application_is_reached_on_loopback() {
    let pod = injected(&policy(), &asking(json!({})));
    let app = &pod["spec"]["containers"][0];
    assert_eq!(app["ports"], json!([{ "containerPort": 8000, "protocol": "TCP" }]));
    let sidecar = sidecar(&pod);
    assert_eq!(sidecar["ports"][0], json!({ "name": "http", "containerPort": 8080, "protocol": "TCP" }));
    assert_eq!(sidecar["restartPolicy"], "Always");
    let environment = sidecar["env"].as_array().unwrap();
    let says = |name: &str, value: &str| environment.contains(&json!({ "name": name, "value": value }));
    assert!(says("CLOAKROOM_UPSTREAM", "http://127.0.0.1:8000") && says("CLOAKROOM_LISTEN", "0.0.0.0:8080"));
    assert_eq!(pod["metadata"]["labels"]["cloakroom.dev/sidecar"], "true");
    assert_eq!(pod["metadata"]["annotations"]["cloakroom.dev/status"], "injected");
}

#[test]
fn probes_that_called_the_port_by_name_get_its_number() {
    let pod = injected(&policy(), &asking(json!({})));
    let app = &pod["spec"]["containers"][0];
    assert_eq!(app["livenessProbe"]["httpGet"], json!({ "path": "/health", "port": 8000 }));
    assert_eq!(app["readinessProbe"]["tcpSocket"]["port"], 8000);
    assert_eq!(app["startupProbe"]["httpGet"]["port"], 8000);
}

#[test]
fn hooks_that_called_the_port_by_name_get_its_number_and_stay() {
    let mut object = asking(json!({}));
    let hook = json!({ "preStop": { "httpGet": { "port": "http", "path": "/bye" } } });
    object["spec"]["containers"][0]["lifecycle"] = hook;
    let pod = injected(&policy(), &object);
    let expected = json!({ "preStop": { "httpGet": { "port": 8000, "path": "/bye" } } });
    assert_eq!(pod["spec"]["containers"][0]["lifecycle"], expected);
}

#[test]
fn the_application_is_kept_for_a_while_as_its_version_of_kubernetes_can() {
    let lifecycle =
        |policy: &Policy, object: &Json| injected(policy, object)["spec"]["containers"][0]["lifecycle"].clone();
    let mut object = asking(json!({}));
    assert_eq!(lifecycle(&policy(), &object), json!({ "preStop": { "sleep": { "seconds": 5 } } }));
    assert_eq!(lifecycle(&on("1.29"), &object), json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } }));
    object["spec"]["terminationGracePeriodSeconds"] = json!(6);
    assert_eq!(lifecycle(&policy(), &object)["preStop"]["sleep"]["seconds"], 3);
    object["spec"]["terminationGracePeriodSeconds"] = json!(1);
    assert_eq!(lifecycle(&policy(), &object), Json::Null);
    object["spec"]["containers"][0]["lifecycle"] = json!({ "postStart": { "exec": { "command": ["a"] } } });
    object["spec"]["terminationGracePeriodSeconds"] = Json::Null;
    assert_eq!(lifecycle(&policy(), &object)["postStart"]["exec"]["command"], json!(["a"]));
    assert_eq!(lifecycle(&policy(), &object)["preStop"]["sleep"]["seconds"], 5);
}

#[test]
fn before_services_see_ports_of_native_sidecars_the_name_stays_where_they_look() {
    let pod = injected(&on("1.31"), &asking(json!({})));
    let expected = json!([{ "name": "http", "containerPort": 8080, "protocol": "TCP" }]);
    assert_eq!(pod["spec"]["containers"][0]["ports"], expected);
    assert_eq!(sidecar(&pod)["ports"][0]["containerPort"], 8080);
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], 8000);
}

#[test]
fn before_native_sidecars_it_is_one_container_more() {
    let pod = injected(&on("1.28"), &asking(json!({})));
    let containers = pod["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers[1]["name"], "cloakroom");
    assert_eq!(containers[1].get("restartPolicy"), None);
    assert_eq!(containers[0]["ports"], json!([{ "containerPort": 8000, "protocol": "TCP" }]));
    assert_eq!(pod["spec"]["initContainers"].as_array().unwrap().len(), 1);
    let mut job = asking(json!({}));
    job["spec"]["restartPolicy"] = json!("Never");
    assert!(refused(&on("1.28"), &job).contains("restartPolicy Never"));
    injected(&on("1.29"), &job);
}

#[test]
fn an_injected_pod_is_left_as_it_is() {
    for version in ["1.28", "1.31", "1.33"] {
        let policy = on(version);
        let pod = injected(&policy, &asking(json!({})));
        assert_eq!(examine(&policy, Scope::Annotated, &pod), Ok(Verdict::Untouched(None)), "{version}");
        assert_eq!(examine(&policy, Scope::Namespace, &pod), Ok(Verdict::Untouched(None)), "{version}");
    }
}

#[test]
fn a_mark_without_a_sidecar_is_not_believed() {
    let pod = injected(&policy(), &asking(json!({ "cloakroom.dev/status": "injected" })));
    assert_eq!(sidecar(&pod)["name"], "cloakroom");
    let mut object = asking(json!({}));
    object["spec"]["containers"][0]["name"] = json!("cloakroom");
    assert!(refused(&policy(), &object).contains("container named cloakroom"));
}

#[test]
fn pods_choose_and_namespaces_choose_for_those_that_do_not() {
    let untouched = Ok(Verdict::Untouched(None));
    let silent = pod(json!({}));
    assert_eq!(examine(&policy(), Scope::Annotated, &silent), untouched);
    assert!(matches!(examine(&policy(), Scope::Namespace, &silent), Ok(Verdict::Patch(_))));
    let declining = pod(json!({ "cloakroom.dev/inject": "false" }));
    assert_eq!(examine(&policy(), Scope::Namespace, &declining), untouched);
    let unclear = pod(json!({ "cloakroom.dev/inject": "yes" }));
    assert!(refused(&policy(), &unclear).contains("is \"true\" or \"false\", not \"yes\""));
    let mut other = pod(Json::Null);
    assert!(matches!(examine(&policy(), Scope::Namespace, &other), Ok(Verdict::Patch(_))));
    other["spec"]["containers"][0]["ports"] = Json::Null;
    assert!(matches!(examine(&policy(), Scope::Namespace, &other), Ok(Verdict::Untouched(Some(_)))));
    other["metadata"]["annotations"] = json!({ "cloakroom.dev/port": "web" });
    assert!(examine(&policy(), Scope::Namespace, &other).is_err());
}

#[test]
fn annotations_change_what_is_added() {
    let wishes = json!({
        "cloakroom.dev/port": "web",
        "cloakroom.dev/listen-port": "15080",
        "cloakroom.dev/config-map": "mine",
        "cloakroom.dev/secret": "keys",
        "cloakroom.dev/image": "ghcr.io/acme/cloakroom:0.2.0",
        "cloakroom.dev/log-level": "debug",
        "cloakroom.dev/cpu-limit": "1",
        "cloakroom.dev/memory-limit": "0.5Gi",
    });
    let mut object = asking(wishes);
    object["spec"]["containers"][0]["ports"] = json!([{ "name": "web", "containerPort": 8080 }]);
    let pod = injected(&policy(), &object);
    let added = sidecar(&pod);
    assert_eq!(added["ports"][0], json!({ "name": "web", "containerPort": 15080, "protocol": "TCP" }));
    assert_eq!(added["image"], "ghcr.io/acme/cloakroom:0.2.0");
    assert_eq!(added["resources"]["limits"], json!({ "cpu": "1", "memory": "0.5Gi" }));
    assert_eq!(added["resources"]["requests"], json!({ "cpu": "50m", "memory": "64Mi" }));
    assert!(added["env"].as_array().unwrap().contains(&json!({ "name": "CLOAKROOM_LOG_LEVEL", "value": "debug" })));
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({ "name": "cloakroom-config", "configMap": { "name": "mine" } })));
    assert!(volumes.contains(&json!({ "name": "cloakroom-secret", "secret": { "secretName": "keys" } })));
}

#[test]
fn annotations_go_no_further_than_the_bounds() {
    for (key, value, said) in [
        ("image", "docker.io/evil/cloakroom:1", "is an image of ghcr.io/acme/cloakroom"),
        ("image", "ghcr.io/acme/cloakroom-evil:1", "is an image of"),
        ("cpu-limit", "3", "is at most 2, not \"3\""),
        ("memory-limit", "2Gi", "is at most 1Gi"),
        ("memory-request", "512Mi", "the request, which is 512Mi; it is 256Mi"),
        ("cpu-request", "lots", "is an amount such as"),
        ("log-level", "info,hyper=trace", "is one of error, warn"),
        ("listen-port", "80", "is a port from 1024"),
        ("listen-port", "9901", "status and admin ports"),
        ("port", "8000", "names a port"),
        ("config-map", "../x", "names an object"),
        ("configmap", "x", "did you mean cloakroom.dev/config-map?"),
        ("upstream", "x", "there are inject, port"),
    ] {
        let object = asking(json!({ format!("cloakroom.dev/{key}"): value }));
        let told = refused(&policy(), &object);
        assert!(told.starts_with("the annotation cloakroom.dev/") && told.contains(said), "{key}: {told}");
    }
}

#[test]
fn a_pod_in_which_it_would_not_work_is_refused_with_the_reason() {
    let cases: [(&str, Json, &str); 9] = [
        ("/spec/hostNetwork", json!(true), "hostNetwork"),
        ("/spec/os", json!({ "name": "windows" }), "Windows"),
        ("/spec/volumes", json!([{ "name": "cloakroom-config", "emptyDir": {} }]), "volume named cloakroom-config"),
        ("/spec/containers/0/ports/0/hostPort", json!(80), "hostPort 80"),
        ("/spec/containers/0/ports/0/protocol", json!("UDP"), "is UDP"),
        ("/spec/containers/0/ports/0/name", json!("web"), "no container has a port named http: there are web"),
        ("/spec/containers/0/ports/0/containerPort", json!(8080), "cloakroom.dev/listen-port"),
        ("/spec/containers/0/ports/0/containerPort", json!(70_000), "cannot be read"),
        ("/spec/initContainers", json!([{ "name": "m", "ports": [{ "containerPort": 9901 }] }]), "status port"),
    ];
    for (place, value, said) in cases {
        let mut object = asking(json!({}));
        let (parent, key) = place.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        let told = refused(&policy(), &object);
        assert!(told.contains(said), "{place}: {told}");
    }
    let mut object = asking(json!({}));
    let again = object["spec"]["containers"][0].clone();
    object["spec"]["containers"].as_array_mut().unwrap().push(again);
    assert!(refused(&policy(), &object).contains("both have a port named http"));
}

#[test]
fn the_sidecar_may_do_nothing_but_its_work() {
    let pod = injected(&policy(), &asking(json!({})));
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init.iter().map(|container| &container["name"]).collect::<Vec<_>>(), ["cloakroom-check", "cloakroom"]);
    for container in init {
        let context = &container["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["runAsUser"], 65_532);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(context["seccompProfile"], json!({ "type": "RuntimeDefault" }));
        // Something is there already, so that no service account's token is put there.
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"));
    }
    assert_eq!(pod["spec"]["securityContext"], Json::Null);
}
