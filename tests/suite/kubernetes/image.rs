//! The image's recipe, as far as it can be looked at without an engine.

use std::fs;
use std::process::Command;

use super::tools::{root, stdout, tool};

/// What the base of the final image has (distroless `cc` of Debian 12).
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];
/// The C library's minor version there.
const GLIBC: u32 = 36;

fn dockerfile() -> String {
    fs::read_to_string(root().join("Dockerfile")).unwrap()
}

/// The instructions, those that go on over several lines in one.
fn instructions() -> Vec<(String, String)> {
    let text = dockerfile().replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).map(|(verb, rest)| (verb.to_owned(), rest.to_owned())).collect()
}

fn said(verb: &str) -> String {
    let all = instructions();
    all.iter().rev().find(|(found, _)| found == verb).unwrap_or_else(|| panic!("no {verb}")).1.clone()
}

#[test]
fn the_linter_has_nothing_to_say() {
    let mut lint = tool("hadolint");
    lint.args(["--failure-threshold", "style"]).arg(root().join("Dockerfile"));
    assert_eq!(stdout(lint, ""), "");
}

#[test]
fn it_runs_one_binary_as_a_user_that_is_not_root() {
    assert_eq!(said("ENTRYPOINT"), r#"["/cloakroom"]"#);
    assert_eq!(said("CMD"), r#"["run"]"#);
    assert_eq!(said("USER"), "65532:65532");
    assert!(said("HEALTHCHECK").ends_with(r#"CMD ["/cloakroom", "health"]"#));
    let values = fs::read_to_string(root().join("charts/cloakroom/values.yaml")).unwrap();
    assert!(values.contains("\nuser: 65532\n"));
    assert!(said("FROM").starts_with("gcr.io/distroless/cc-debian12"));
}

#[test]
fn it_is_built_with_a_version_of_rust_that_is_new_enough_and_named_whole() {
    let all = instructions();
    let build = &all.iter().find(|(verb, _)| verb == "FROM").unwrap().1;
    let version = build.strip_prefix("rust:").and_then(|rest| rest.split('-').next()).unwrap();
    let least = env!("CARGO_PKG_RUST_VERSION");
    assert!(version.starts_with(&format!("{least}.")), "{version} is not of {least}");
    assert!(build.contains("bookworm"), "another Debian than that of the final image");
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = fs::read_to_string(root().join("charts/cloakroom/Chart.yaml")).unwrap();
    assert!(dockerfile().contains(&format!("ARG VERSION={version}\n")));
    assert!(chart.contains(&format!("\nappVersion: {version}\n")), "{chart}");
}

#[test]
fn the_context_has_what_is_copied_and_nothing_else() {
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let let_in: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"));
    let all = instructions();
    let copies = all.iter().filter(|(verb, rest)| verb == "COPY" && !rest.starts_with("--from"));
    let copied: Vec<_> = copies.flat_map(|(_, rest)| rest.split(' ').rev().skip(1).collect::<Vec<_>>()).collect();
    assert_eq!(copied.iter().collect::<std::collections::BTreeSet<_>>(), let_in.iter().collect());
    for place in &let_in {
        assert!(root().join(place).exists(), "{place}");
    }
    // What the source includes has to be within.
    let out = Command::new("grep")
        .args(["-rnE", "--exclude-dir=tests", r#"include_(str|bytes)!\("(\.\./)*(docs|config|README)"#])
        .arg(root().join("src"))
        .output();
    assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), "");
}

#[test]
fn the_layer_of_dependencies_can_be_built_from_the_two_files_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root().join(file), folder.path().join(file)).unwrap();
    }
    let all = instructions();
    let first = &all.iter().find(|(verb, _)| verb == "RUN").unwrap().1;
    let (before, build) = first.split_once("&& cargo ").expect("a build");
    let mut shell = Command::new("sh");
    // The same package, read instead of built, which takes minutes.
    shell
        .current_dir(folder.path())
        .args(["-ec", &format!("{before}; cargo metadata --locked --offline --no-deps --format-version 1")]);
    let metadata: serde_json::Value = serde_json::from_str(&stdout(shell, "")).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap();
    let names: Vec<_> = targets.iter().map(|target| target["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cloakroom", "cloakroom"], "a library and a program");
    assert!(build.contains("--locked --release --bin cloakroom"));
}

#[test]
fn the_binarys_libraries_are_all_in_the_final_image() {
    let binary = env!("CARGO_BIN_EXE_cloakroom");
    let mut ldd = Command::new("ldd");
    ldd.arg(binary);
    let told = stdout(ldd, "");
    let names =
        told.lines().filter_map(|line| line.trim().split(' ').next()).map(|path| path.rsplit('/').next().unwrap());
    let foreign: Vec<_> = names.filter(|name| !LIBRARIES.contains(name) && !name.starts_with("linux-vdso")).collect();
    assert!(told.contains("libc.so.6") && foreign.is_empty(), "{foreign:?}\n{told}");
    let bytes = fs::read(binary).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let versions = text
        .split("GLIBC_2.")
        .skip(1)
        .filter_map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok());
    let newest = versions.max().unwrap();
    assert!(newest <= GLIBC, "it needs glibc 2.{newest}");
}
