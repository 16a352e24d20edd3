use super::*;

#[test]
fn references_are_replaced_in_any_text_quoted_or_not_and_more_than_once() {
    let text = SOUND.replace("127.0.0.1:9000", "127.0.0.1:${env:PORT}");
    assert_eq!(sound(&text).routes[0].upstream, "http://127.0.0.1:9000");
    let config = sound(&format!("{SOUND}environment: p${{env:PORT}}-${{env:PORT}}\n"));
    assert_eq!(config.environment, "p9000-9000");
    assert_eq!(sound(&format!("{SOUND}environment: 'x${{env:EMPTY}}'\n")).environment, "x");
}

#[test]
fn what_comes_by_reference_is_text_and_is_not_read_again() {
    let help =
        helped(&format!("{SOUND}audit: {{ keep: ‸\"${{env:PORT}}\" }}\n"), "a whole number is expected here, not text");
    assert_eq!(help, "what comes by reference is text");
    let nested = |name: &str| (name == "A").then(|| "${env:TOKEN}".to_owned());
    let text = format!("{SOUND}origins: [\"${{env:A}}\"]\n");
    let found = parse(&text, Path::new("x"), &nested).unwrap_err();
    assert_eq!(found.iter().next().unwrap().message, "no browser sends this origin");
}

#[test]
fn a_reference_that_leads_nowhere_is_refused_at_its_place() {
    for (value, message) in [
        ("a‸${env:NOWHERE}b", "the environment variable `NOWHERE` is not set"),
        ("‸${env:not-a-name}", "`not-a-name` cannot be the name of an environment variable"),
        ("‸${env:}", "`` cannot be the name of an environment variable"),
        ("‸${file:nowhere}", "the file `nowhere` cannot be read: no such file or directory"),
        ("‸${file:}", "this reference names no file"),
        ("‸${TOKEN}", "this is no reference that is known here"),
        ("a‸${env:TOKEN", "this reference has no closing brace"),
    ] {
        reported(&format!("{SOUND}environment: \"{value}\"\n"), &[message]);
    }
    let help = helped(&format!("{SOUND}environment: ‸${{HOME}}\n"), "this is no reference that is known here");
    assert_eq!(help, "a reference is ${env:NAME} or ${file:PATH}");
}

#[test]
fn files_are_found_beside_the_configuration_and_lose_one_line_feed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(folder.path().join("crlf"), "prod\r\n").unwrap();
    let text = format!("{SOUND}admin: {{ token: \"${{file:secrets/token}}\" }}\nenvironment: ${{file:./crlf}}\n");
    let path = folder.path().join("cloakroom.yaml");
    std::fs::write(&path, text).unwrap();
    let config = load(&path).unwrap().config;
    assert_eq!(config.admin.token.unwrap().reveal(), TOKEN);
    assert_eq!(config.environment, "prod");
}

#[test]
fn a_file_that_is_no_text_or_far_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::write(folder.path().join("large"), vec![b'a'; 70_000]).unwrap();
    for (name, reason) in
        [("binary", "it is not UTF-8 text"), ("large", "it is larger than 64 KiB"), (".", "is a directory")]
    {
        let text = format!("{SOUND}environment: ${{file:{name}}}\n");
        let found = parse(&text, &folder.path().join("c.yaml"), &environment).unwrap_err();
        let message = &found.iter().next().unwrap().message;
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = format!(
        "{SOUND}store: {{ path: ./data/../db }}\nkeyring: {{ path: keys/ring.json }}\naudit: {{ sinks: [{{ file: a.jsonl }}, {{ file: /var/a }}] }}\n"
    );
    let config = sound(&text);
    assert_eq!(config.store.path, Path::new("/etc/cloakroom/data/../db"));
    assert_eq!(config.keyring.path.as_deref(), Some(Path::new("/etc/cloakroom/keys/ring.json")));
    let files = [AuditSink::File("/etc/cloakroom/a.jsonl".into()), AuditSink::File("/var/a".into())];
    assert_eq!(config.audit.sinks, files);
    assert_eq!(sound(SOUND).store.path, Path::new("/etc/cloakroom/cloakroom.db"));
}

#[test]
fn a_reference_without_quotes_in_a_flow_mapping_is_explained() {
    let found = all(&format!("{SOUND}log: {{ level: ${{env:LEVEL}} }}\n"));
    assert_eq!(found[0].help.as_deref(), Some("inside `{ }` and `[ ]` a reference needs quotes"));
}
