//! What the format has and this version does not: refused at its place, never ignored, never called unknown.
//!
//! A line leaves the table when its feature comes.

use super::document::{Entry, Kind, Node};
use super::finding::{Finding, meant, quoted};
use super::pointer::Pointer;

struct Rule {
    /// Keys from the root; `*` stands for any index.
    place: &'static str,
    refuses: fn(&str) -> bool,
    message: &'static str,
}

const UNIX: &str = "Unix sockets are not supported yet";

fn is_unix(text: &str) -> bool {
    text.starts_with("unix:")
}

const TABLE: &[Rule] = &[
    Rule { place: "admin/address", refuses: is_unix, message: UNIX },
    Rule { place: "status/address", refuses: is_unix, message: UNIX },
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
            path.push(step);
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *step) {
                visit(&mut entry.value, below, rule, path, findings);
            }
            path.pop();
        }
        _ => {}
    }
}

fn value(node: &mut Node, rule: &Rule, path: &Pointer, findings: &mut Vec<Finding>) {
    let Kind::Scalar(scalar) = &node.kind else { return };
    if (rule.refuses)(&scalar.text) {
        findings.push(Finding::error(node.span.clone(), rule.message).at_path(path.to_string()));
        node.kind = Kind::Refused;
    }
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
