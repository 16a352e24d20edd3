use super::*;

#[test]
fn a_file_that_is_no_yaml_is_refused_where_it_stops_being_yaml() {
    reported("version: 1\nroutes: ‸[\n", &["this is not YAML: unclosed bracket '['"]);
    let found = all("version: 1\nname: chat: x\n");
    assert_eq!((found.len(), found[0].line), (1, 2));
    let tab = all("version: 1\nsession:\n\tschema: {}\n");
    assert_eq!((tab[0].line, tab[0].help.as_deref()), (3, Some("indent with spaces")));
}

#[test]
fn an_empty_file_is_refused() {
    reported("‸", &["the file is empty"]);
    assert_eq!(all("# nothing\n")[0].message, "the file is empty");
}

#[test]
fn a_second_document_is_refused() {
    let found = all(&format!("{SOUND}---\nversion: 1\n"));
    assert_eq!((found.len(), found[0].line), (1, 4));
    assert!(found[0].message.contains("one document"));
}

#[test]
fn a_mapping_inside_mappings_without_end_is_refused() {
    let found = all(&"[".repeat(100_000));
    assert_eq!(found[0].message, "lists and mappings lie more than 32 deep in each other here");
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let below = level - 1;
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(", "));
    }
    assert_eq!(all(&laughs)[0].message, "the file stands for more than 50000 values");
    assert_eq!(all("a: &a [*a]\n")[0].message, "this alias lies inside what it names");
}

#[test]
fn an_alias_is_a_copy_and_its_mistakes_are_reported_where_they_are_written() {
    let text = format!(
        "{SESSION}routes:\n  - {{ name: a, upstream: &u http://127.0.0.1:9000, timeouts: &t {{ idle: 5s }} }}\n"
    );
    let config = sound(&format!("{text}  - {{ name: b, match: {{ path: /b }}, upstream: *u, timeouts: *t }}\n"));
    assert_eq!(config.routes[1].timeouts.idle, Period::secs(5));
    let again = "  - { name: b, match: { path: /b }, upstream: *u, timeouts: *t }\n";
    reported(
        &format!("{}{again}", text.replace("5s", "‸5x")),
        &["a duration is a whole number with ms, s, m, h or d behind it, such as 30s"],
    );
    reported(&format!("{SOUND}log: {{ level: ‸*nowhere }}\n"), &["this alias names nothing before it"]);
}

#[test]
fn everything_is_reported_at_once_and_in_the_order_of_the_lines() {
    reported(
        "version: ‸one
‸environmnt: prod
listeners:
  - address: ‸nowhere
    limits: { head: ‸3kb, ‸head: 4KiB }
store: { ‸clustr: true }
admin: { token: ‸secret-in-clear }
session:
  schema: { version: 1, fields: { a: { type: ‸strin } } }
routes:
  - name: ‸Chat Room
    upstream: ‸${env:NOWHERE}
    session: ‸requird
    require: { a: 1 }
  - ‸name: second
    match: { path: /second }
",
        &[
            "a whole number is expected here, not text",
            "unknown key `environmnt`",
            "this is not an address to listen on",
            "a size is a whole number with B, KiB, MiB or GiB behind it, such as 4KiB",
            "`head` is given twice",
            "unknown key `clustr`",
            "a secret is written out here",
            "`strin` is not one of `string`, `integer`, `decimal`, `boolean`, `list`",
            "this is not a name",
            "the environment variable `NOWHERE` is not set",
            "`requird` is not one of `required`, `optional`, `none`",
            "the key `upstream` is missing here",
        ],
    );
}

#[test]
fn columns_are_counted_in_characters() {
    reported(
        &format!("{SOUND}log: {{ \"lévél\": info, ‸x: 1 }}\n").replace("\"l", "‸\"l"),
        &["unknown key `lévél`", "unknown key `x`"],
    );
    let found = all("\u{feff}vrsion: 1\n");
    assert!(found.iter().any(|d| (d.line, d.column, d.message.as_str()) == (1, 1, "unknown key `vrsion`")));
}

#[test]
fn the_picture_shows_file_line_column_the_line_and_a_mark_below_the_place() {
    let text = format!("{SOUND}log: {{ level: info, formt: json }}\n");
    let picture = problems(&text).render(false);
    let expected = "\
error: unknown key `formt`
 --> /etc/cloakroom/cloakroom.yaml:4:21
  |
4 | log: { level: info, formt: json }
  |                     ^^^^^
  |
  = help: did you mean `format`?
";
    assert_eq!(picture, expected);
}

#[test]
fn colour_comes_only_when_it_is_asked_for() {
    let diagnostics = problems("version: 2");
    assert!(!diagnostics.render(false).contains('\u{1b}'));
    assert!(diagnostics.render(true).contains('\u{1b}'));
}

#[test]
fn control_characters_of_the_file_do_not_reach_the_terminal() {
    let diagnostics = problems(&format!("{SOUND}\"\\e[31m\": 1\n\u{7f}x: 1\n"));
    assert!(!diagnostics.render(false).chars().any(|c| c.is_control() && c != '\n'), "{diagnostics:?}");
}

#[test]
fn a_very_long_line_is_cut_to_what_is_near_the_mark() {
    let text = format!("{SOUND}origins: [{}\"x\"]\n", "\"https://example.com\", ".repeat(5000));
    let diagnostics = problems(&text);
    let found = diagnostics.iter().next().unwrap();
    assert_eq!((found.line, found.column), (4, 11 + 23 * 5000));
    assert!(diagnostics.render(false).len() < 1000);
    assert!(diagnostics.render(false).contains("\"x\"]"));
}

#[test]
fn a_machine_reads_the_same_as_json() {
    let json = problems(&format!("{SOUND}log: {{ levl: info }}\n")).to_json();
    let expected = serde_json::json!([{
        "file": "/etc/cloakroom/cloakroom.yaml", "line": 4, "column": 8, "severity": "error",
        "message": "unknown key `levl`", "help": "did you mean `level`?", "path": "/log/levl",
    }]);
    assert_eq!(json, expected);
}

#[test]
fn problems_of_rooms_stand_at_their_value_their_key_or_their_closest_ancestor() {
    let text = "version: 1
session:
  schema:
    version: 1
    fields: { user_id: { type: string } }
routes:
  - name: a
    upstream: http://127.0.0.1:9000
    read:
      - nothing
    require: { usr: x }
    headers: { X~User/Id: usr }
";
    let loaded = read(&text.replace("X~User/Id", "X~User")).unwrap();
    let mut rooms = Problems::default();
    rooms.error("/routes/0/read/0", "value");
    rooms.error("/routes/0/read", "block list");
    rooms.error_at_key("/routes/0/require/usr", "key", None);
    rooms.error("/routes/0/require/usr", "its value");
    rooms.error(below("/routes/0/headers", "X~User"), "escaped");
    rooms.warning("/routes/0/limits/head", "default");
    rooms.error("/session/limits", "absent section");
    rooms.error("", "the file");
    let placed = loaded.source.diagnose(rooms);
    let places: Vec<_> = placed.iter().map(|d| (d.message.as_str(), d.line, d.column)).collect();
    let expected = [
        ("the file", 1, 1),
        ("absent section", 2, 1),
        ("default", 7, 5),
        ("block list", 9, 5),
        ("value", 10, 9),
        ("key", 11, 16),
        ("its value", 11, 21),
        ("escaped", 12, 24),
    ];
    assert_eq!(places, expected);
    assert!(placed.has_errors());
}

#[test]
fn problems_of_rooms_with_what_could_not_be_read_are_dropped() {
    let text = format!("{SOUND}audit: {{ keep: many }}\nlog: {{ level: info }}\n");
    let inspected = inspect(&text, Path::new("x"), &environment);
    assert!(inspected.config.is_some());
    let mut rooms = Problems::default();
    rooms.error("/audit/keep", "about a stand-in");
    rooms.error("/log/level", "about a value");
    let said: Vec<_> = inspected.source.diagnose(rooms).iter().map(|d| d.message.clone()).collect();
    assert_eq!(said, ["a whole number is expected here, not text", "about a value"]);
}

#[test]
fn without_the_fields_there_is_nothing_for_rooms_to_check() {
    let text = "version: 1\nsession: { schema: { version: 1 } }\nroutes: []\n";
    assert!(inspect(text, Path::new("x"), &environment).config.is_none());
}

#[test]
fn warnings_alone_do_not_fail_and_are_kept() {
    let loaded = read(&SOUND.replace("127.0.0.1:9000", "backend:9000")).unwrap();
    let diagnostics = loaded.source.diagnose(Problems::default());
    assert!(!diagnostics.has_errors() && !diagnostics.is_empty());
    assert!(diagnostics.render(false).starts_with("warning: "));
}

#[test]
fn a_file_that_cannot_be_read_is_reported_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    let missing = load(&path).unwrap_err().render(false);
    assert!(missing.starts_with("error: the configuration cannot be read: no such file"), "{missing}");
    assert!(missing.contains(&path.display().to_string()));
    std::fs::write(&path, b"version: 1 # \xff\n").unwrap();
    assert!(load(&path).unwrap_err().render(false).contains("UTF-8"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(&path).unwrap_err().render(false).contains("larger than 1 MiB"));
}

#[test]
fn of_very_many_problems_the_first_are_shown_and_the_others_counted() {
    let text = format!("{SOUND}origins: [{}]\n", "x, ".repeat(20_000));
    let found = problems(&text);
    assert_eq!(found.iter().count(), 501);
    assert_eq!(found.iter().last().unwrap().message, "19500 more problems are not shown");
}
