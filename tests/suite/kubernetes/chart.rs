//! The chart: rendered, held against Kubernetes' schemas, and compared with what it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};

use super::tools::{documents, root, run, stdout, tool, validate};
use crate::binary::Binary;

/// Before native sidecars, before services see their ports, and the newest.
const VERSIONS: [&str; 3] = ["1.28", "1.31", "1.37"];

fn chart() -> PathBuf {
    root().join("charts/cloakroom")
}

fn template(version: &str, arguments: &[&str]) -> Command {
    let mut helm = tool("helm");
    helm.arg("template").arg("demo").arg(chart()).args(["--namespace", "cloakroom"]);
    helm.args(["--kube-version", &format!("{version}.0")]).args(arguments);
    helm
}

fn rendered(version: &str, arguments: &[&str]) -> String {
    stdout(template(version, arguments), "")
}

/// The values files, one for each feature.
fn features() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(chart().join("ci")).expect("the folder of values");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().replace("-values", "");
    files.into_iter().map(|path| (name(&path), path)).collect()
}

fn objects<'d>(all: &'d [Json], kind: &str) -> Vec<&'d Json> {
    all.iter().filter(|object| object["kind"] == kind).collect()
}

/// Compares with the file of that name; `UPDATE_SNAPSHOTS=1` has it written instead.
#[track_caller]
fn snapshot(name: &str, text: &str) {
    let path = root().join("tests/suite/kubernetes/snapshots").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, text).expect("a snapshot");
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    let differs = known.lines().zip(text.lines()).position(|(was, is)| was != is);
    let line = differs.unwrap_or(known.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
    assert!(
        known == text,
        "{name}, line {}: it was\n{}\nand is\n{}\nUPDATE_SNAPSHOTS=1 takes it on",
        line + 1,
        at(&known),
        at(text)
    );
}

#[test]
fn every_feature_is_linted_and_renders_as_it_did() {
    let features = features();
    assert!(features.len() >= 15, "{features:?}");
    for (name, path) in &features {
        let mut lint = tool("helm");
        lint.args(["lint", "--strict"]).arg(chart()).arg("--values").arg(path);
        stdout(lint, "");
        snapshot(name, &rendered("1.33", &["--values", &path.display().to_string()]));
    }
    let kept = fs::read_dir(root().join("tests/suite/kubernetes/snapshots")).expect("snapshots").count();
    assert_eq!(kept, features.len(), "a snapshot is left over");
}

#[test]
fn every_feature_is_valid_in_every_version() {
    for version in VERSIONS {
        let all: Vec<String> =
            features().iter().map(|(_, path)| rendered(version, &["--values", &path.display().to_string()])).collect();
        validate(version, &all.join("\n---\n"));
    }
}

#[test]
fn the_files_are_tidy() {
    let mut lint = tool("yamllint");
    let rules = "{extends: default, rules: {line-length: disable, document-start: disable, braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}";
    lint.args(["--strict", "--config-data", rules]).args([
        chart().join("values.yaml"),
        chart().join("ci"),
        chart().join("Chart.yaml"),
    ]);
    stdout(lint, "");
}

#[test]
fn values_that_do_not_fit_are_refused_with_their_path() {
    for (set, expected) in [
        ("injector.onRefusal=maybe", &["injector.onRefusal", "\"deny\", \"admit\""][..]),
        ("injector.failurePolicy=Sometimes", &["injector.failurePolicy", "\"Fail\", \"Ignore\""]),
        ("injector.replicas=many", &["injector.replicas", "Expected: integer"]),
        ("ports.proxy=80", &["ports.proxy", "1024"]),
        ("gatway.enabled=true", &["Additional property gatway"]),
        ("sidecar.portName=way-too-long-a-name", &["sidecar.portName", "15"]),
        ("image.digest=latest", &["image.digest"]),
        ("injector.certificate.source=luck", &["injector.certificate.source", "\"job\", \"certManager\", \"secret\""]),
        ("injector.enabled=true,injector.certificate.source=secret", &["secretName and caBundle"]),
        ("sidecar.enabled=true", &["config: cloakroom's configuration is needed"]),
        ("secret.existing=a,secret.entries.b=c", &["either existing or entries"]),
        ("user=0", &["user", "1"]),
    ] {
        let output = run(template("1.33", &["--set", set]), "");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{set} was taken");
        for part in expected {
            assert!(told.contains(part), "{set}: {told}");
        }
    }
}

#[test]
fn a_failing_injector_never_holds_up_a_whole_cluster() {
    let output = run(template("1.27", &["--set", "injector.enabled=true"]), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("would keep every pod of the cluster waiting"));
    for set in ["injector.enabled=true", "injector.enabled=true,injector.failurePolicy=Ignore"] {
        let all = documents(&rendered("1.33", &["--set", set]));
        let webhooks = objects(&all, "MutatingWebhookConfiguration")[0]["webhooks"].as_array().unwrap();
        assert_eq!(webhooks.len(), 2);
        for webhook in webhooks {
            let selectors = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
            let labelled = selectors.iter().any(|s| s["key"] == "cloakroom.dev/inject" && s["operator"] == "In");
            let conditional = webhook["matchConditions"].as_array().is_some_and(|c| !c.is_empty());
            assert!(labelled || conditional, "{webhook}");
            let excluded = selectors.iter().find(|s| s["key"] == "kubernetes.io/metadata.name").unwrap();
            let names = excluded["values"].as_array().unwrap();
            assert!(names.iter().any(|n| n == "kube-system") && names.iter().any(|n| n == "cloakroom"));
        }
    }
}

/// The schema of a sidecar's configuration as the chart has it: in draft 7, which is all that helm knows.
///
/// It says of what it knows which type and which form it has. Keys and words that it does not know, and keys that are
/// missing, are left to the check in the pod, so that a chart goes with more than one version of the image. A text may
/// always hold a reference instead.
fn lenient(schema: &Json) -> Json {
    const DROPPED: [&str; 10] = [
        "$schema",
        "title",
        "description",
        "default",
        "examples",
        "format",
        "additionalProperties",
        "required",
        "enum",
        "const",
    ];
    match schema {
        Json::Object(members) => {
            let is_schema = !members.values().all(Json::is_object) || members.contains_key("$ref");
            let kept = members.iter().filter(|(key, value)| {
                let closes = *key == "additionalProperties" && value.is_object();
                !is_schema || closes || !DROPPED.contains(&key.as_str())
            });
            let converted: serde_json::Map<_, _> = kept
                .map(|(key, value)| match (key.as_str(), value.as_str()) {
                    ("$ref", Some(target)) => (key.clone(), json!(target.replace("#/$defs/", "#/definitions/config"))),
                    // Without the words that tell them apart, more than one may fit.
                    ("oneOf", _) => ("anyOf".to_owned(), lenient(value)),
                    _ => (key.clone(), lenient(value)),
                })
                .collect();
            let closed = is_schema && converted.contains_key("pattern");
            let reference = json!({ "type": "string", "pattern": "[$][{]" });
            if closed { json!({ "anyOf": [converted, reference] }) } else { Json::Object(converted) }
        }
        Json::Array(items) => items.iter().map(lenient).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_configuration_given_as_values_is_held_against_its_own_schema() {
    let path = chart().join("values.schema.json");
    let mut schema: Json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let own = cloakroom::config::json_schema();
        let definitions = schema["definitions"].as_object_mut().unwrap();
        definitions.retain(|name, _| !name.starts_with("config"));
        for (name, definition) in own["$defs"].as_object().unwrap() {
            definitions.insert(format!("config{name}"), lenient(definition));
        }
        let mut root = lenient(&own);
        root.as_object_mut().unwrap().remove("$defs");
        root["type"] = json!(["string", "object", "null"]);
        schema["properties"]["config"] = root;
        fs::write(&path, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    let values = |text: &str| {
        let text = text.lines().map(|line| format!("  {line}\n")).collect::<String>();
        fs::write(&file, format!("sidecar: {{ enabled: true }}\nconfig:\n{text}")).unwrap();
        run(template("1.33", &["--values", &file.display().to_string()]), "")
    };
    let configurations = fs::read_dir(root().join("config")).unwrap().map(|entry| entry.unwrap().path());
    for path in configurations.filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let output = values(&fs::read_to_string(&path).unwrap());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: UPDATE_SNAPSHOTS=1 may help\n{told}", path.display());
    }
    for (text, expected) in [
        ("store: { path: 7 }", &["config.store.path", "Expected: string"][..]),
        ("shutdown: { grace: soon }", &["config.shutdown.grace"]),
        ("session: { limits: { field: 5 } }", &["config.session.limits.field"]),
        ("routes: [{ name: a, upstream: 7 }]", &["config.routes.0.upstream", "Expected: string"]),
        ("listeners: {}", &["config.listeners", "Expected: array"]),
    ] {
        let output = values(text);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text} was taken");
        expected.iter().for_each(|part| assert!(told.contains(part), "{text}: {told}"));
    }
}

#[test]
fn rules_and_dashboards_pass_through_untouched() {
    let read = |folder: &str| {
        let files = fs::read_dir(chart().join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path());
        files.map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    for (set, folder) in [("prometheusRule.enabled=true", "rules"), ("dashboard.enabled=true", "dashboards")] {
        let files = read(folder);
        let output = run(template("1.33", &["--set", set]), "");
        if files.is_empty() {
            assert!(String::from_utf8_lossy(&output.stderr).contains("this build of the chart has no"), "{output:?}");
            continue;
        }
        let all = documents(&String::from_utf8_lossy(&output.stdout));
        let groups =
            objects(&all, "PrometheusRule").into_iter().flat_map(|rule| rule["spec"]["groups"].as_array().unwrap());
        let written = files.iter().flat_map(|text| documents(text)).collect::<Vec<_>>();
        match folder {
            "rules" => assert!(groups.eq(written.iter().flat_map(|file| file["groups"].as_array().unwrap()))),
            _ => {
                let data = objects(&all, "ConfigMap")[0]["data"].as_object().unwrap();
                let shown = data.values().flat_map(|text| documents(text.as_str().unwrap()));
                assert!(shown.eq(written));
            }
        }
    }
}

#[test]
fn what_prometheus_asks_is_a_port_that_pods_have() {
    let set = "podMonitor.enabled=true,injector.enabled=true,gateway.enabled=true,config.version=1";
    let all = documents(&rendered("1.33", &["--set", set]));
    let monitors = objects(&all, "PodMonitor");
    assert_eq!(monitors.len(), 2);
    let injected = super::injector::injected_by_the_chart();
    let pods = objects(&all, "Deployment").into_iter().map(|deployment| &deployment["spec"]["template"]);
    for pod in pods.chain([&injected]) {
        let spec = &pod["spec"];
        let containers =
            ["containers", "initContainers"].iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
        let ports: Vec<_> = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten()).collect();
        let selected = monitors.iter().filter(|monitor| {
            let selector = &monitor["spec"]["selector"];
            let labels = &pod["metadata"]["labels"];
            let same = selector["matchLabels"].as_object().unwrap().iter().all(|(key, value)| labels[key] == *value);
            let within =
                |rule: &Json| rule["values"].as_array().unwrap().contains(&labels[rule["key"].as_str().unwrap()]);
            same && selector["matchExpressions"].as_array().into_iter().flatten().all(within)
        });
        let asked: Vec<_> = selected.flat_map(|m| m["spec"]["podMetricsEndpoints"].as_array().unwrap()).collect();
        assert_eq!(asked.len(), 1, "{}", pod["metadata"]);
        assert!(ports.iter().any(|port| port["name"] == asked[0]["port"]), "{}", pod["metadata"]);
    }
}

#[test]
fn a_configuration_passes_through_untouched() {
    let text = fs::read_to_string(root().join("config/chat-agent.yaml")).unwrap();
    let file = root().join("config/chat-agent.yaml");
    let all = documents(&rendered(
        "1.33",
        &["--set", "sidecar.enabled=true", "--set-file", &format!("config={}", file.display())],
    ));
    assert_eq!(objects(&all, "ConfigMap")[0]["data"]["cloakroom.yaml"].as_str().unwrap().trim_end(), text.trim_end());
}

#[test]
fn the_injectors_file_that_the_chart_writes_passes_its_check() {
    let folder = tempfile::tempdir().unwrap();
    for (name, path) in features() {
        let all = documents(&rendered("1.33", &["--values", &path.display().to_string()]));
        let files = objects(&all, "ConfigMap").into_iter().filter_map(|map| map["data"]["injector.yaml"].as_str());
        for text in files {
            let file = folder.path().join("injector.yaml");
            fs::write(&file, text).unwrap();
            let output = Binary::run(&["injector", "--check", "--config", &file.display().to_string()]);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Somebody's own chart, with ours as a dependency.
fn including(version: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("agent");
    copy(&root().join("tests/suite/kubernetes/app-chart"), &own);
    copy(&chart(), &own.join("charts/cloakroom"));
    let mut helm = tool("helm");
    helm.arg("template").arg("demo").arg(&own).args(["--kube-version", &format!("{version}.0")]).args(arguments);
    stdout(helm, "")
}

/// The YAML blocks of the page on Kubernetes that begin so, without that line.
fn blocks(first: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let fences: Vec<_> = page.split("\n```").skip(1).step_by(2).map(str::to_owned).collect();
    fences.iter().filter_map(|block| Some(block.strip_prefix("yaml\n")?.strip_prefix(first)?.to_owned())).collect()
}

#[test]
fn the_values_in_the_documentation_render() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks("# values.yaml, in part\n");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let file = folder.path().join("values.yaml");
        // Those of a chart that includes ours are one level deeper.
        let (own, text) = match block.trim_start().strip_prefix("cloakroom:\n") {
            Some(rest) => (true, format!("cloakroom:\n{rest}")),
            None => (false, block),
        };
        fs::write(&file, text).unwrap();
        let arguments = ["--values", &file.display().to_string()];
        let rendered = if own { including("1.33", &arguments) } else { rendered("1.33", &arguments) };
        validate("1.33", &rendered);
    }
}

#[test]
fn the_documentation_shows_the_template_as_the_test_includes_it() {
    let own = fs::read_to_string(root().join("tests/suite/kubernetes/app-chart/templates/deployment.yaml")).unwrap();
    let shown = blocks("# templates/deployment.yaml, in part\n").remove(0);
    for line in shown.lines().filter(|line| line.contains("include")) {
        assert!(own.lines().any(|known| known == line), "{line}");
    }
}

#[test]
fn the_page_names_every_key_of_the_injectors_file_and_every_annotation() {
    let shown = blocks("# injector.yaml\n").remove(0);
    let values = fs::read_to_string(chart().join("templates/injector/_injector.tpl")).unwrap();
    let keys = values.lines().filter_map(|line| line.trim().split_once(": ").map(|(key, _)| key));
    for key in keys.filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')) {
        assert!(shown.contains(&format!("{key}:")), "{key}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn another_chart_includes_the_sidecar_with_one_line() {
    for version in VERSIONS {
        let text = including(version, &[]);
        validate(version, &text);
        let all = documents(&text);
        let spec = &objects(&all, "Deployment")[0]["spec"]["template"]["spec"];
        let list = if version == "1.28" { "containers" } else { "initContainers" };
        let found = spec[list].as_array().unwrap().iter().any(|container| container["name"] == "cloakroom");
        assert!(found, "{version}: {text}");
        assert_eq!(objects(&all, "NetworkPolicy").len(), 1);
    }
}

#[test]
fn the_template_and_the_injector_add_the_same() {
    let text = including("1.33", &[]);
    let all = documents(&text);
    let included = &objects(&all, "Deployment")[0]["spec"]["template"]["spec"];
    let injected = super::injector::injected_by_the_chart();
    for list in ["initContainers", "volumes"] {
        assert_eq!(included[list], injected["spec"][list], "{list}");
    }
}

#[test]
fn the_notes_say_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("cloakroom");
    copy(&chart(), &own);
    // `helm template` does not print them, and nothing else works without a cluster.
    fs::copy(own.join("templates/NOTES.txt"), own.join("notes.txt")).unwrap();
    let object = r#"{ "apiVersion": "v1", "kind": "ConfigMap", "data": { "notes": "{{ tpl (.Files.Get \"notes.txt\") . | b64enc }}" } }"#;
    let notes = |set: &str| {
        let mut helm = tool("helm");
        helm.arg("template").arg("demo").arg(&own).args(["--kube-version", "1.33.0", "--set", set]);
        helm.args(["--set-json", &format!("extraObjects=[{object}]")]);
        let all = documents(&stdout(helm, ""));
        let found = all.iter().find_map(|object| object["data"]["notes"].as_str()).unwrap().to_owned();
        let mut decode = tool("python");
        decode.args(["-c", "import sys, base64; sys.stdout.write(base64.b64decode(sys.stdin.read()).decode())"]);
        stdout(decode, &found)
    };
    assert!(notes("user=1").contains("Nothing is enabled"));
    let injector = notes("injector.enabled=true,injector.failurePolicy=Ignore");
    assert!(injector.contains("cloakroom.dev/inject") && injector.contains("targetPort: http"));
    assert!(injector.contains("have no sidecar"));
    let sidecar = notes("sidecar.enabled=true,config.version=1");
    assert!(
        sidecar.contains(r#"{{- include "cloakroom.sidecar" . | nindent 6 }}"#) && sidecar.contains("secret.existing")
    );
}
