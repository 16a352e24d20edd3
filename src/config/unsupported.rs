//! What the format has and this version does not: refused at its place, never ignored, never called unknown.
//!
//! A line leaves the table when its feature comes.

use serde_json::{Value, json};

use super::document::{Entry, Kind, Node};
use super::finding::{Finding, meant, quoted};
use super::plain;
use super::pointer::Pointer;

struct Rule {
    /// Keys from the root; `*` stands for any index.
    place: &'static str,
    refuses: Refuses,
}

enum Refuses {
    /// The key, unless it says what holds anyway.
    Unless(fn() -> Value),
    /// Such a value of a key that is there otherwise.
    Value(fn(&str) -> bool, &'static str),
}

use Refuses::{Unless, Value as Such};

const UNIX: Refuses = Such(|text| text.starts_with("unix:"), "Unix sockets are not supported yet");

#[rustfmt::skip]
const TABLE: &[Rule] = &[
    Rule { place: "admin/address", refuses: UNIX },
    Rule { place: "status/address", refuses: UNIX },
    Rule { place: "tracing", refuses: Unless(|| json!({ "otlp": null, "sample": 0.01 })) },
];

/// Takes what is not supported out of the tree; what is left is what the schema knows.
pub(super) fn refuse(root: &mut Node, findings: &mut Vec<Finding>) {
    for rule in TABLE {
        let steps: Vec<&str> = rule.place.split('/').collect();
        visit(root, &steps, rule, &mut Pointer::root(), findings);
    }
}

fn visit(node: &mut Node, steps: &[&str], rule: &Rule, path: &mut Pointer, findings: &mut Vec<Finding>) {
    let Some((step, below)) = steps.split_first() else {
        return value(node, rule, path, findings);
    };
    match &mut node.kind {
        Kind::List { items, .. } if *step == "*" => {
            for (index, item) in items.iter_mut().enumerate() {
                path.push(&index.to_string());
                visit(item, below, rule, path, findings);
                path.pop();
            }
        }
        Kind::Map { entries, .. } => {
            let is_it = |e: &Entry| e.key == *step;
            path.push(step);
            if below.is_empty() && !matches!(rule.refuses, Such(..)) {
                entries.iter().filter(|e| is_it(e) && !e.repeated).for_each(|e| key(e, rule, path, findings));
                entries.retain(|e| !is_it(e));
            } else if let Some(entry) = entries.iter_mut().find(|e| is_it(e)) {
                visit(&mut entry.value, below, rule, path, findings);
            }
            path.pop();
        }
        _ => {}
    }
}

fn value(node: &mut Node, rule: &Rule, path: &Pointer, findings: &mut Vec<Finding>) {
    let (Such(refuses, message), Kind::Scalar(scalar)) = (&rule.refuses, &node.kind) else { return };
    if refuses(&scalar.text) {
        findings.push(Finding::error(node.span.clone(), message).at_path(path.to_string()));
        node.kind = Kind::Refused;
    }
}

fn key(entry: &Entry, rule: &Rule, path: &mut Pointer, findings: &mut Vec<Finding>) {
    if let Unless(default) = rule.refuses {
        unless(entry, &default(), path, findings);
    }
}

/// Accepts what says the default, whole or in part.
fn unless(entry: &Entry, default: &Value, path: &mut Pointer, findings: &mut Vec<Finding>) {
    match (&entry.value.kind, default) {
        (Kind::Refused, _) => {}
        (Kind::Map { entries, .. }, Value::Object(defaults)) => {
            for entry in entries.iter().filter(|e| !e.repeated) {
                path.push(&entry.key);
                match defaults.get(&entry.key) {
                    Some(default) => unless(entry, default, path, findings),
                    None => findings.push(unknown(entry, defaults.keys().map(String::as_str), path)),
                }
                path.pop();
            }
        }
        (kind, default) if says(kind, default) => {}
        _ => not_yet(entry, default, path, findings),
    }
}

fn says(kind: &Kind, default: &Value) -> bool {
    match kind {
        Kind::Scalar(scalar) if scalar.plain => plain::value(&scalar.text) == *default,
        Kind::Scalar(scalar) => default.as_str() == Some(&scalar.text),
        Kind::List { items, .. } => items.is_empty() && (default.is_null() || *default == json!([])),
        Kind::Map { .. } | Kind::Refused => false,
    }
}

fn not_yet(entry: &Entry, default: &Value, path: &Pointer, findings: &mut Vec<Finding>) {
    let finding = Finding::error(entry.key_span.clone(), format_args!("{} is not supported yet", quoted(&entry.key)));
    let said = !default.is_null() && !default.is_object();
    let help = if said { format!("remove it; {default} holds") } else { "remove it".into() };
    findings.push(finding.help(help).at_path(path.to_string()));
}

/// An unknown key among known ones.
pub(super) fn unknown<'k>(entry: &Entry, known: impl Iterator<Item = &'k str> + Clone, path: &Pointer) -> Finding {
    let help = match meant(&entry.key, known.clone()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("the keys here are {}", known.map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
    };
    Finding::error(entry.key_span.clone(), format_args!("unknown key {}", quoted(&entry.key)))
        .help(help)
        .at_path(path.to_string())
}
