//! The dashboard and the alerts ask for nothing that cloakroom does not tell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value as Json, json};

use super::sidecar::{Sidecar, ask};
use crate::house::Answer;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const RULES: &str = "charts/cloakroom/rules/cloakroom.yaml";
const RULES_TEST: &str = "tests/rules/cloakroom.yaml";

fn promtool(words: &[&str]) -> String {
    let output = Command::new("promtool").args(words).output().expect("promtool, which tests/prepare installs");
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{told}");
    told
}

fn dashboard() -> Json {
    serde_json::from_str(&std::fs::read_to_string(file("charts/cloakroom/dashboards/cloakroom.json")).unwrap()).unwrap()
}

/// What the panels ask for, Grafana's variables filled in.
fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let filled = |expression: &str| {
        let filled = expression.replace("$__rate_interval", "5m").replace("$__range", "3h");
        filled.replace("$job", ".*").replace("$route", ".*")
    };
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

/// The names of cloakroom's figures in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("cloakroom_"));
    words.map(str::to_owned).collect()
}

#[test]
fn alerts_are_sound_and_fire_when_they_should_and_only_then() {
    promtool(&["check", "rules", &file(RULES).display().to_string()]);
    promtool(&["test", "rules", &file(RULES_TEST).display().to_string()]);
}

#[test]
fn every_alert_is_tested_and_says_what_it_means_and_what_to_do() {
    let (rules, tests) =
        (std::fs::read_to_string(file(RULES)).unwrap(), std::fs::read_to_string(file(RULES_TEST)).unwrap());
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} is not tested");
        for part in ["severity: ", "summary: ", "impact: ", "runbook: >-"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn every_panel_asks_something_that_prometheus_understands() {
    let rules: Vec<Json> = queries().iter().map(|query| json!({ "record": "a", "expr": query })).collect();
    assert!(rules.len() > 30);
    let groups: Vec<Json> =
        rules.iter().enumerate().map(|(number, rule)| json!({ "name": number.to_string(), "rules": [rule] })).collect();
    let written = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(written.path(), json!({ "groups": groups }).to_string()).unwrap();
    promtool(&["check", "rules", &written.path().display().to_string()]);
    let dashboard = dashboard();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = &panel["gridPos"];
        assert!(at["x"].as_u64().unwrap() + at["w"].as_u64().unwrap() <= 24, "{} is too wide", panel["title"]);
    }
}

#[test]
fn every_figure_that_is_asked_for_is_there() {
    let sidecar = Sidecar::run("store: { kind: memory }");
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    sidecar.backend.next(Answer::set("step=1"));
    assert_eq!(sidecar.get("/chat", &guest).status, 200);
    assert_eq!(sidecar.ask("GET", "/chat", &[("authorization", "Bearer cr_x")], "").status, 401);
    (0..4).for_each(|_| drop(ask(sidecar.binary.proxy, "GET", "/narrow", &[], "")));
    let figures = sidecar.until("all is counted", |figures| figures.sum("requests_total") == 6.0);
    let told: BTreeSet<&str> = figures.names().into_iter().collect();
    let rules = std::fs::read_to_string(file(RULES)).unwrap();
    let expressions: String = queries().join("\n") + &rules;
    // Targets of the log are named by words of the same beginning, with a colon behind it.
    let asked = named(&expressions);
    assert!(asked.len() > 20, "{asked:?}");
    for name in &asked {
        assert!(told.contains(name.as_str()), "{name} is asked for, and not among {told:?}");
    }
    // And each figure has its place in the pictures, and in the page that says what it is.
    let page = std::fs::read_to_string(file("docs/operations.md")).unwrap();
    for name in told.iter().filter(|name| name.starts_with("cloakroom_")) {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(page.contains(&format!("`{stem}`")), "docs/operations.md says nothing of {stem}");
        assert!(asked.iter().any(|asked| asked.starts_with(stem)), "nothing is asked of {stem}");
    }
}
