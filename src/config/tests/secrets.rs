use super::*;

const CLEAR: &str = "hunter2hunter2hunter2";

#[track_caller]
fn unseen(text: &str, secret: &str) -> String {
    let found = inspect(text, Path::new("x.yaml"), &environment).source.diagnose(Problems::default());
    assert!(found.has_errors(), "nothing is wrong with\n{text}");
    for shown in [found.render(false), found.render(true), found.to_json().to_string()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    found.render(false)
}

#[test]
fn a_secret_written_out_is_refused_and_not_shown() {
    let help = helped(&format!("{SOUND}admin: {{ token: ‸{CLEAR} }}\n"), "a secret is written out here");
    assert_eq!(help, "give it by reference alone: ${env:NAME} or ${file:PATH}");
    let shown = unseen(&format!("{SOUND}admin: {{ token: {CLEAR} }}\n"), CLEAR);
    assert!(shown.contains("4 | admin: { token: … }"), "{shown}");
}

#[test]
fn a_password_in_the_url_of_the_store_is_a_reference() {
    let text =
        |url: &str| format!("{SOUND}keyring: {{ path: keys/keyring.json }}\nstore: {{ kind: redis, url: {url} }}\n");
    for user in ["user:", ":"] {
        let url = format!("\"redis://{user}{CLEAR}@redis:6379/0\"");
        let help = helped(&text(&format!("‸{url}")), "a password is written out here");
        assert_eq!(help, "give it by reference: redis://USER:${env:NAME}@HOST:6379/0");
        unseen(&text(&url), CLEAR);
    }
    sound(&text("\"redis://user:${env:TOKEN}@redis\""));
}

#[test]
fn a_secret_is_a_reference_and_nothing_else() {
    for value in ["12345678901234567890", "\"x${env:TOKEN}\"", "true", "\"\"", "[hunter2]"] {
        let found = all(&format!("{SOUND}admin: {{ token: {value} }}\n"));
        assert_eq!((found.len(), found[0].line, found[0].column), (1, 4, 17), "{found:?}");
    }
    assert!(sound(&format!("{SOUND}admin: {{ token: null }}\n")).admin.token.is_none());
    let joined = sound(&format!("{SOUND}admin: {{ token: \"${{env:SHORT}}${{env:TOKEN}}\" }}\n"));
    assert_eq!(joined.admin.token.unwrap().reveal(), format!("0123{TOKEN}"));
}

#[test]
fn no_line_shows_a_secret_whatever_else_is_wrong_on_it() {
    for line in [
        format!("admin: {{ token: {CLEAR}, x: 1 }}"),
        format!("admin: {{ x: 1, token: \"{CLEAR}\" }}"),
        format!("admin: {{ tokn: {CLEAR} }}"),
        format!("admin: {{ pin: {CLEAR} }}"),
        format!("admin: {{ token: \"${{env:TOKEN}}\", token: {CLEAR} }}"),
        format!("admin: {{ token: [{CLEAR}] }}"),
        format!("admin: {{ callers: [{{ name: a, token: {CLEAR}, resolv: [] }}] }}"),
        format!("log: {{ level: &s {CLEAR}, x: 1 }}\nadmin: {{ token: *s }}"),
        format!("identity: {{ introspection: [{{ url: x, client_secret: {CLEAR} }}] }}"),
        format!("identity: {{ jwt: [{{ jwks: {{ keys: [{{ k: {CLEAR} }}] }} }}] }}"),
        format!("store: {{ url: \"rediss://user:{CLEAR}@redis:6379/0\" }}"),
        format!("store: {{ url: \"redis://{CLEAR}@redis\" }}"),
        format!("store: {{ urls: [\"redis://:{CLEAR}@redis\"] }}"),
        format!("origins: [\"http://a:{CLEAR}@b\"]"),
        format!("password: {CLEAR}"),
    ] {
        unseen(&format!("{SOUND}{line}\n"), CLEAR);
    }
}

#[test]
fn a_file_that_is_no_yaml_shows_no_secret_either() {
    for lines in [
        format!("admin:\n  token: {CLEAR}: x\n"),
        format!("admin: {{ token: \"{CLEAR}\" x }}\n"),
        format!("admin:\n  token: \"{CLEAR}\n"),
        format!("admin:\n  token: \"abc\n{CLEAR}\n"),
        format!("admin:\n  token:\n    {CLEAR}: x: y\n"),
        format!("admin:\n  token: |\n    abc\n   {CLEAR}\n"),
        format!("store: {{ url: redis://a:{CLEAR}@b: c: d\n"),
    ] {
        unseen(&format!("{SOUND}{lines}"), CLEAR);
    }
}

#[test]
fn what_came_by_reference_is_in_no_message() {
    for line in [
        "environment: ${env:TOKEN}x!",
        "environment: ${env:TOKEN} ",
        "log: { level: \"${env:TOKEN}=nolevel\" }",
        "log: { format: \"${env:TOKEN}\" }",
        "audit: { retain: \"${env:TOKEN}\" }",
        "origins: [\"${env:TOKEN}\"]",
        "identity: { session_id: { header: \"${env:TOKEN} \" } }",
        "listeners: [{ address: \"${env:TOKEN}\" }]",
    ] {
        let text = format!("{SOUND}{line}\n");
        if read(&text).is_err() {
            unseen(&text, TOKEN);
        }
    }
    let loaded = read(&format!("{SOUND}log: {{ level: info }}\nadmin: {{ token: \"${{env:TOKEN}}\" }}\n")).unwrap();
    let mut rooms = Problems::default();
    rooms.error("/log", format!("careless: {TOKEN}"));
    let said = loaded.source.diagnose(rooms).render(false);
    assert!(said.contains("careless: …") && !said.contains(TOKEN));
}

#[test]
fn a_short_value_by_reference_hides_words_but_not_letters() {
    let loaded = parse(&format!("{SOUND}environment: ${{env:A}}\n"), Path::new("x"), &|_| Some("a".into())).unwrap();
    let mut rooms = Problems::default();
    rooms.error("/log", "what a name");
    assert_eq!(loaded.source.diagnose(rooms).iter().next().unwrap().message, "what … name");
}

#[test]
fn a_reference_itself_is_shown() {
    let shown = unseen(&format!("{SOUND}admin: {{ token: \"${{env:TOKEN}}\", x: 1 }}\n"), TOKEN);
    assert!(shown.contains("${env:TOKEN}"));
}

#[test]
fn the_column_is_that_of_the_file_though_something_before_it_is_hidden() {
    let (text, places) = marked(&format!("{SOUND}admin: {{ token: {CLEAR}, ‸x: 1 }}\n"));
    let shown = problems(&text).render(false);
    assert!(shown.contains(&format!("cloakroom.yaml:{}:{}", places[0].0, places[0].1)), "{shown}");
}
