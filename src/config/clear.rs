//! Passwords inside of texts that are no secrets as a whole.

use super::document::{Kind, Node};
use super::finding::Finding;
use super::veil::shows_password;

/// Refuses a password that is written out in one of the store's URLs; the rest of the URL may be.
pub(super) fn refuse(root: &Node, text: &str, findings: &mut Vec<Finding>) {
    let Some(store) = below(root, "store") else { return };
    if let Some(url) = below(store, "url") {
        shown(url, "/store/url".into(), text, findings);
    }
    if let Some(Node { kind: Kind::List { items, .. }, .. }) = below(store, "urls") {
        for (index, url) in items.iter().enumerate() {
            shown(url, format!("/store/urls/{index}"), text, findings);
        }
    }
}

fn shown(url: &Node, path: String, text: &str, findings: &mut Vec<Finding>) {
    if text.get(url.span.clone()).is_some_and(shows_password) {
        let finding = Finding::error(url.span.clone(), "a password is written out here").at_path(path);
        findings.push(finding.help("give it by reference: redis://USER:${env:NAME}@HOST:6379/0"));
    }
}

fn below<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map { entries, .. } = &node.kind else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}
