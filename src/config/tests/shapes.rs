use super::*;

#[test]
fn unknown_keys_come_with_what_was_meant_or_what_there_is() {
    assert_eq!(helped(&format!("{SOUND}‸lissteners: []\n"), "unknown key `lissteners`"), "did you mean `listeners`?");
    assert_eq!(
        helped(&format!("{SOUND}cookie: {{ ‸same-site: lax }}\n"), "unknown key `same-site`"),
        "did you mean `same_site`?"
    );
    assert_eq!(
        helped(&format!("{SOUND}log: {{ ‸colour: true }}\n"), "unknown key `colour`"),
        "the keys here are `level`, `format`"
    );
    let route = format!("{SESSION}routes: [{{ name: a, upstream: \"http://127.0.0.1\", ‸path: /a }}]\n");
    assert_eq!(helped(&route, "unknown key `path`"), "`path` belongs under `match`");
}

#[test]
fn merge_keys_are_unknown_keys() {
    reported(&format!("{SOUND}log: {{ ‸<<: {{ level: info }} }}\n"), &["unknown key `<<`"]);
}

#[test]
fn a_misspelt_required_key_is_reported_once() {
    let route = format!("{SESSION}routes: [{{ name: a, ‸upstrem: \"http://127.0.0.1\" }}]\n");
    assert_eq!(helped(&route, "unknown key `upstrem`"), "did you mean `upstream`?");
}

#[test]
fn missing_keys_are_reported_at_the_mapping_that_lacks_them() {
    let routes = "routes: [{ name: a, upstream: \"http://127.0.0.1\" }]";
    reported(&format!("‸version: 1\n{routes}\n"), &["the key `session` is missing here"]);
    reported(
        &format!(
            "{SESSION}routes:\n  - name: a\n    upstream: http://127.0.0.1\n    rate_limits: [‸{{ per: client, burst: 1 }}]\n"
        ),
        &["the key `rate` is missing here"],
    );
    reported(
        &format!("version: 1\nsession:\n  ‸schema:\n    version: 1\n{routes}\n"),
        &["the key `fields` is missing here"],
    );
    assert_eq!(all(&format!("{routes}\n")).len(), 2);
}

#[test]
fn wrong_types_say_what_is_expected_and_what_is_there() {
    for (line, message) in [
        ("listeners: ‸none", "a list is expected here, not text"),
        ("‸listeners:", "a list is expected here, not nothing"),
        ("audit: { keep: ‸1.5 }", "a whole number is expected here"),
        ("audit: { keep: ‸-1 }", "this is less than 0"),
        ("audit: { keep: ‸4294967296 }", "this is more than 4294967295"),
        ("audit: { keep: ‸99999999999999999999 }", "this number is too large"),
        ("audit: { keep: ‸\"10\" }", "a whole number is expected here, not text"),
        ("environment: ‸7", "text is expected here, not a number"),
        ("environment: ‸true", "text is expected here, not a boolean"),
        ("environment: ‸[prod]", "text is expected here, not a list"),
        ("cookie: ‸[]", "a mapping is expected here, not a list"),
        ("cookie: { secure: ‸yes }", "true or false is expected here, not text"),
        ("cookie: { secure: ‸null }", "true or false is expected here, not nothing"),
        ("cookie: { domain: ‸5 }", "text or null is expected here, not a number"),
        ("origins: [‸5]", "text is expected here, not a number"),
        ("log: ‸!custom { level: info }", "tags have no meaning here"),
        ("log: { ‸? [a] : b }", "a key is plain text"),
    ] {
        let text = format!("{SOUND}{line}\n").replace("{ ‸? [a]", "{ ? ‸[a]");
        reported(&text.replace("‸!custom {", "!custom ‸{"), &[message]);
    }
}

#[test]
fn help_is_given_for_the_usual_yaml_surprises() {
    let yes = helped(&format!("{SOUND}cookie: {{ secure: ‸on }}\n"), "true or false is expected here, not text");
    assert_eq!(yes, "write `true` or `false`");
    let number = helped(&format!("{SOUND}environment: ‸1\n"), "text is expected here, not a number");
    assert_eq!(number, "put it in quotes");
    let empty = helped(&format!("{SOUND}‸admin:\n"), "a mapping is expected here, not nothing");
    assert_eq!(empty, "remove the key to have its default");
}

#[test]
fn words_that_are_no_choice_are_refused_with_the_choices() {
    let help =
        helped(&format!("{SOUND}cookie: {{ same_site: ‸Lax }}\n"), "`Lax` is not one of `lax`, `strict`, `none`");
    assert_eq!(help, "did you mean `lax`?");
    reported(&format!("{SOUND}audit: {{ sinks: [‸syslog] }}\n"), &["`syslog` is not one of `stdout`, `{ file: … }`"]);
    reported(&format!("{SOUND}audit: {{ sinks: [{{ file: a, ‸mode: 1 }}] }}\n"), &["unknown key `mode`"]);
    let start = format!("{SESSION}routes: [{{ name: a, upstream: \"http://127.0.0.1\", start: ‸maybe }}]\n");
    reported(&start, &["true, false or a mapping is expected here, not text"]);
}

#[test]
fn texts_that_stand_for_numbers_are_refused_with_an_example() {
    const DURATION: &str = "a duration is a whole number with ms, s, m, h or d behind it, such as 30s";
    const SIZE: &str = "a size is a whole number with B, KiB, MiB or GiB behind it, such as 4KiB";
    for (line, message) in [
        ("audit: { retain: ‸7 days }", DURATION),
        ("audit: { retain: ‸1.5h }", DURATION),
        ("audit: { retain: ‸99999999999999999999d }", "the duration is too large or not a whole number"),
        ("audit: { retain: ‸30 }", DURATION),
        ("session: { schema: { version: 1, fields: {} }, limits: { field: ‸1KB } }", SIZE),
        (
            "identity: { bad_credentials: { rate: ‸20 per s } }",
            "a rate is a whole number above 0 with /s, /m or /h behind it, such as 10/s",
        ),
        (
            "identity: { bad_credentials: { rate: ‸0/s } }",
            "a rate is a whole number above 0 with /s, /m or /h behind it, such as 10/s",
        ),
        ("trusted_proxies: [‸10.0.0.0]", "a network is an address and the length of its prefix, such as 10.0.0.0/8"),
    ] {
        let text = SOUND.replace("session: { schema: { version: 1, fields: { user_id: { type: string } } } }\n", "");
        let text = if line.starts_with("session") { text } else { SOUND.to_owned() };
        reported(&format!("{text}{line}\n"), &[message]);
    }
}

#[test]
fn a_repeated_key_is_refused_and_the_first_one_holds() {
    let help = helped(&format!("{SOUND}log: {{ level: info, ‸level: 7 }}\n"), "`level` is given twice");
    assert_eq!(help, "it is on line 4 already");
}

#[test]
fn the_file_as_a_whole_is_a_mapping() {
    reported("‸[]\n", &["a mapping is expected here, not a list"]);
    reported("‸hello\n", &["a mapping is expected here, not text"]);
}

#[test]
fn plain_words_are_read_by_the_core_schema_of_yaml_1_2() {
    let fields = "session: { schema: { version: 0x1, fields: { a: { type: list, enum: [yes, No, 012, 0o17, 1e3, .5, ~, 1_0, 2026-11-23, +3] } } } }\n";
    let text = SOUND.replace(SESSION.lines().nth(1).unwrap(), fields.trim_end());
    let config = sound(&text);
    let expected = serde_json::json!(["yes", "No", 12, 15, 1000.0, 0.5, null, "1_0", "2026-11-23", 3]);
    assert_eq!(serde_json::json!(config.session.schema.fields["a"].choices), expected);
}

#[test]
fn fields_keep_the_order_of_the_file() {
    let fields = "session: { schema: { version: 1, fields: { z: { type: string }, a: { type: string }, m: { type: string } } } }";
    let config = sound(&SOUND.replace(SESSION.lines().nth(1).unwrap(), fields));
    assert_eq!(config.session.schema.fields.keys().collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn the_walk_and_the_types_agree_on_every_key_of_the_schema() {
    let schema = json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    for (name, definition) in definitions {
        if let Some(properties) = definition["properties"].as_object() {
            assert_eq!(definition["additionalProperties"], false, "{name} takes unknown keys");
            assert!(!properties.is_empty(), "{name}");
        }
    }
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["environment"]["default"], "prod");
    assert_eq!(definitions["RouteTimeouts"]["properties"]["idle"]["default"], "10m");
}

#[test]
fn every_key_of_the_published_schema_is_described() {
    let schema = json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut bare = Vec::new();
    for (name, object) in definitions.iter().chain([(&"file".to_owned(), &schema)]) {
        for (key, property) in object["properties"].as_object().into_iter().flatten() {
            let target = property["$ref"].as_str().and_then(|r| definitions.get(r.trim_start_matches("#/$defs/")));
            if property["description"].is_null() && target.is_none_or(|t| t["description"].is_null()) {
                bare.push(format!("{name}.{key}"));
            }
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}
