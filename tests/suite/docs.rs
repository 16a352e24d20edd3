//! What the pages say holds: configurations pass the check, and links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cloakroom::config::{self, Problems};
use cloakroom::exchange::Rooms;
use cloakroom::listener::Terms;
use serde_json::Value as Json;

use crate::house::Authority;

/// What a part of a configuration may leave out.
const REST: [(&str, &str); 3] = [
    ("version", "version: 1\n"),
    (
        "session",
        "session:\n  schema:\n    version: 1\n    fields:\n\
         \x20     user_id: { type: string, section: auth, user: true, writable: false }\n\
         \x20     auth_status: { type: string, section: auth, default: anonymous }\n\
         \x20     email: { type: string, section: auth, sensitive: true }\n\
         \x20     step: { type: integer, section: task }\n",
    ),
    ("routes", "routes:\n  - name: agent\n    upstream: http://127.0.0.1:9000\n"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn pages() -> Vec<(PathBuf, String)> {
    let paths = [files_in("", "md"), files_in("docs", "md")].concat();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a page in that language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fences = page.split("\n```").skip(1).step_by(2);
    fences
        .filter_map(|block| block.split_once('\n').filter(|(info, _)| *info == language))
        .map(|(_, text)| text)
        .collect()
}

/// What a configuration's check says, warnings included; nothing if it is content.
fn complaints(text: &str) -> String {
    // Certificates stand in /tls on the pages, and a pod's secrets where its Secret is mounted.
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let certificate = authority.issue("app.example");
    for (name, pem) in [("tls.crt", &certificate.chain), ("tls.key", &certificate.key), ("ca.crt", &authority.pem)] {
        fs::write(folder.path().join(name), pem).unwrap();
    }
    for entry in ["admin-token", "redis-password"] {
        fs::write(folder.path().join(entry), format!("{entry}-of-sixteen-and-more-characters")).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    let text = text.replace("/tls/", &here).replace("/var/run/secrets/cloakroom/", &here);
    let environment = |name: &str| match name {
        "CLOAKROOM_LISTEN" => Some("0.0.0.0:8080".to_owned()),
        "CLOAKROOM_UPSTREAM" => Some("http://127.0.0.1:8000".to_owned()),
        "CLOAKROOM_LOG_LEVEL" => Some("info".to_owned()),
        _ => Some(format!("{name}-of-sixteen-and-more-characters")),
    };
    let inspected = config::inspect(&text, Path::new("cloakroom.yaml"), &environment);
    let mut problems = Problems::default();
    if let Some(config) = &inspected.config {
        Rooms::compile(config, &mut problems);
        Terms::compile(&config.listeners, &mut problems);
    }
    inspected.source.diagnose(problems).render(false)
}

#[test]
fn every_configuration_in_the_pages_passes_the_check() {
    let mut seen = 0;
    for (path, page) in pages() {
        for block in blocks(&page, "yaml") {
            let mut text = format!("{block}\n");
            match block.lines().next().unwrap() {
                "# cloakroom.yaml" => {}
                "# cloakroom.yaml, in part" => {
                    let missing = |key: &str| !block.lines().any(|line| line.starts_with(&format!("{key}:")));
                    text.extend(REST.iter().filter(|(key, _)| missing(key)).map(|(_, rest)| *rest));
                }
                "# injector.yaml" => {
                    let inspected = config::inspect_injector(block, Path::new("injector.yaml"), &|_| None);
                    let problems = inspected.source.diagnose(Problems::default());
                    assert!(problems.is_empty() && inspected.config.is_some(), "{}:\n{problems}", path.display());
                    continue;
                }
                // Held against the chart, by its own tests.
                "# values.yaml, in part" | "# Chart.yaml, in part" | "# templates/deployment.yaml, in part" => continue,
                other => panic!("{}: a YAML block begins with '{other}', not with its file's name", path.display()),
            }
            let complaints = complaints(&text);
            assert!(complaints.is_empty(), "{}:\n{complaints}\n{text}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} blocks were found");
}

#[test]
fn every_configuration_among_the_examples_passes_the_check() {
    let files = files_in("examples", "yaml");
    assert!(!files.is_empty());
    for path in files {
        let complaints = complaints(&fs::read_to_string(&path).unwrap());
        assert!(complaints.is_empty(), "{}:\n{complaints}", path.display());
    }
}

#[test]
fn the_check_of_the_pages_finds_what_is_wrong() {
    let sound: String = REST.iter().map(|(_, text)| *text).collect();
    assert_eq!(complaints(&sound), "");
    assert!(complaints(&format!("{sound}    reed: [auth]\n")).contains("reed"));
    assert!(complaints(&format!("{sound}    read: [tasks]\n")).contains("tasks"));
    assert_eq!(blocks("a\n```yaml\nb: 1\n```\n```sh\nc\n```\n```yaml\nd: 1\n```\n", "yaml"), ["b: 1", "d: 1"]);
}

/// The names of all keys that a JSON Schema knows, wherever they stand in it.
fn keys(schema: &Json, into: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        into.extend(properties.keys().cloned());
    }
    match schema {
        Json::Object(members) => members.values().for_each(|child| keys(child, into)),
        Json::Array(members) => members.iter().for_each(|child| keys(child, into)),
        _ => {}
    }
}

#[test]
fn the_page_on_configuration_names_every_key() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut names = BTreeSet::new();
    keys(&config::json_schema(), &mut names);
    let code = page.split('`').skip(1).step_by(2);
    let words: BTreeSet<&str> = code.flat_map(|span| span.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    let missing: Vec<_> = names.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(names.len() > 50 && missing.is_empty(), "{missing:?}");
}

/// The name that a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line.trim_start_matches('#').trim()) == wanted)
}

#[test]
fn every_link_within_the_pages_leads_somewhere() {
    let mut seen = 0;
    for (path, page) in pages() {
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
            let place = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            assert!(place.exists(), "{}: {target} leads nowhere", path.display());
            assert!(
                wanted.is_empty() || has_anchor(&place, wanted),
                "{}: {target} has no such heading",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} links were found");
}
