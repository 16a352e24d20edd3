mod arbitrary;
mod defaults;
mod places;
mod reference;
mod route_rules;
mod rules;
mod secrets;
mod shapes;
mod token_rules;
mod unsupported;

use std::path::Path;

use super::*;

/// Stands before the place at which a problem is expected; taken out before the text is read.
const HERE: char = '‸';
/// The beginning of a sound file that has no routes yet.
const SESSION: &str = "version: 1\nsession: { schema: { version: 1, fields: { user_id: { type: string } } } }\n";
/// A sound file, for what may follow it.
const SOUND: &str = "version: 1\nsession: { schema: { version: 1, fields: { user_id: { type: string } } } }\nroutes: [{ name: a, upstream: \"http://127.0.0.1:9000\" }]\n";
const TOKEN: &str = "0123456789abcdef-token";

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some(TOKEN.into()),
        "OTHER" => Some("fedcba9876543210-token".into()),
        "SHORT" => Some("0123".into()),
        "PORT" => Some("9000".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Loaded, Diagnostics> {
    parse(text, Path::new("/etc/cloakroom/cloakroom.yaml"), &environment)
}

fn sound(text: &str) -> Config {
    read(text).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).config
}

fn problems(text: &str) -> Diagnostics {
    read(text).err().unwrap_or_else(|| panic!("nothing is wrong with\n{text}"))
}

/// Every problem, with nothing left out.
fn all(text: &str) -> Vec<Diagnostic> {
    inspect(text, Path::new("/etc/cloakroom/cloakroom.yaml"), &environment)
        .source
        .diagnose(Problems::default())
        .iter()
        .cloned()
        .collect()
}

/// The text without its marks, and the line and column of each.
fn marked(text: &str) -> (String, Vec<(usize, usize)>) {
    let mut plain = String::new();
    let mut places = Vec::new();
    for c in text.chars() {
        if c == HERE {
            let line = plain.rsplit('\n').next().unwrap_or_default();
            places.push((plain.matches('\n').count() + 1, line.chars().count() + 1));
        } else {
            plain.push(c);
        }
    }
    (plain, places)
}

/// Asserts that exactly these are reported, each at its mark.
#[track_caller]
fn reported(text: &str, messages: &[&str]) {
    let (plain, places) = marked(text);
    let found = all(&plain);
    let said: Vec<_> = found.iter().map(|d| ((d.line, d.column), d.message.as_str())).collect();
    let expected: Vec<_> = places.into_iter().zip(messages.iter().copied()).collect();
    assert_eq!(said, expected, "\n{plain}");
}

/// Asserts that exactly one problem is reported, at the mark, and returns its help.
#[track_caller]
fn helped(text: &str, message: &str) -> String {
    reported(text, &[message]);
    all(&marked(text).0)[0].help.clone().unwrap_or_default()
}
