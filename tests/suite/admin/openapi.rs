//! The admin API against its own description, by a program that knows nothing else of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::telemetry::sidecar::{Sidecar, TOKEN};

/// What has to hold of every answer. That valid requests are accepted is not among it: which fields there are says the
/// configuration, and not the description. Nor that what was deleted is gone: a trail outlives its session.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,negative_data_rejection,ignored_auth,\
                      missing_required_header,unsupported_method";

/// Requests for each operation and kind.
const EXAMPLES: &str = "12";

#[test]
fn every_answer_is_as_the_description_says() {
    let sidecar = Sidecar::run("store: { kind: memory }\naudit: { sinks: [] }");
    let cache = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|_| Path::new(&std::env::var("HOME").expect("a home")).join(".cache"));
    let program = cache.join("cloakroom/schemathesis/bin/schemathesis");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&program)
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("http://{}/openapi.json", sidecar.binary.admin))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--checks", CHECKS, "--no-color"])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--generation-deterministic", "--workers", "1"])
        .output()
        .unwrap_or_else(|error| panic!("{}, which tests/prepare installs: {error}", program.display()));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("Tested: 15"), "not every operation was tested:\n{told}");
}
