//! Other people's programs, which `tests/prepare` installs; one that is missing fails the test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value as Json;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the pinned tools are.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let prepared = Command::new(root().join("tests/prepare")).output().expect("tests/prepare");
        assert!(prepared.status.success(), "tests/prepare: {}", String::from_utf8_lossy(&prepared.stderr));
        root().join("target/tools")
    })
}

pub fn tool(name: &str) -> Command {
    Command::new(folder().join("bin").join(name))
}

/// Runs a program to its end, with that on its standard input.
pub fn run(mut command: Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    // Beside the reading of its output, so that neither waits for the other.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("no panic");
    output
}

/// What it prints, if it is content.
#[track_caller]
pub fn stdout(command: Command, input: &str) -> String {
    let told = format!("{command:?}");
    let output = run(command, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{stderr}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The documents of a YAML stream, read by another reader than ours.
pub fn documents(yaml: &str) -> Vec<Json> {
    let program = "import sys, json, yaml\nprint(json.dumps([d for d in yaml.safe_load_all(sys.stdin) if d]))";
    let mut python = tool("python");
    python.args(["-c", program]);
    serde_json::from_str(&stdout(python, yaml)).expect("JSON")
}

/// Holds manifests against the schemas of a version of Kubernetes, in which nothing may be unknown.
#[track_caller]
pub fn validate(version: &str, manifests: &str) {
    let mut validator = tool("kubernetes-validate");
    validator.args(["--strict", "--kubernetes-version", version, "-"]);
    let output = run(validator, manifests);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // Kinds of operators have no schema there.
    let foreign = |line: &str| {
        line.contains("Couldn't find schema")
            && (line.contains("monitoring.coreos.com") || line.contains("cert-manager.io"))
    };
    let bad: Vec<_> = told.lines().filter(|line| !line.starts_with("INFO") && !foreign(line)).collect();
    assert!(output.status.success() && bad.is_empty(), "{version}: {}", bad.join("\n"));
    assert!(told.contains("passed"), "{version}: nothing was looked at:\n{told}");
}
