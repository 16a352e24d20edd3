//! The tree against the schema: every structural problem, and a value that always deserialises.
//!
//! Where the file has nothing usable, the value has a stand-in, so that what is sound is checked in the same
//! run. What a later check says about a stand-in is dropped: its path is among the broken ones.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::document::{Entry, Kind, Node, Origin, Scalar};
use super::finding::{Finding, meant, quoted};
use super::form::{Format, Forms, MapForm};
use super::plain;
use super::pointer::{Pointer, below};
use super::unsupported::unknown;
use super::veil::Veil;

pub(super) struct Walk<'w> {
    pub definitions: &'w Value,
    pub findings: &'w mut Vec<Finding>,
    pub veil: &'w mut Veil,
    pub path: Pointer,
    /// Paths whose values are stand-ins.
    pub broken: Vec<String>,
}

impl<'w> Walk<'w> {
    /// The value of this node, read as the schema says.
    pub fn value(&mut self, node: &Node, key: Option<&Entry>, schema: &'w Value) -> Value {
        let forms = Forms::of(schema, self.definitions);
        if forms.text == Some(Format::Secret) {
            self.veil.hide(node);
        }
        match &node.kind {
            Kind::Refused => self.stand_in(&forms),
            Kind::Scalar(scalar) => self.scalar(node, key, scalar, &forms),
            Kind::List { items, .. } => match forms.list {
                Some(each) => self.list(items, each),
                None if forms.anything => self.list(items, &Value::Bool(true)),
                None => self.mismatch(node, key, "a list", &forms),
            },
            Kind::Map { entries, .. } => match &forms.map {
                Some(form) => self.map(node, key, entries, form),
                None if forms.anything => self.free_map(entries, &Value::Bool(true)),
                None => self.mismatch(node, key, "a mapping", &forms),
            },
        }
    }

    fn scalar(&mut self, node: &Node, key: Option<&Entry>, scalar: &Scalar, forms: &Forms<'w>) -> Value {
        let by_reference = scalar.origin != Origin::Written;
        if forms.text == Some(Format::Secret) && scalar.origin != Origin::Reference {
            let null = scalar.plain && plain::value(&scalar.text).is_null();
            return if null && forms.nullable { Value::Null } else { self.in_clear(node, key, null, forms) };
        }
        let value = match scalar.plain && !by_reference {
            true => plain::value(&scalar.text),
            false => Value::String(scalar.text.clone()),
        };
        match &value {
            _ if forms.anything => value,
            Value::Null if forms.nullable => value,
            Value::Bool(_) if forms.boolean => value,
            Value::Number(number) if forms.number || forms.integer.is_some() => {
                let found = number.clone();
                self.number(node, found, forms)
            }
            Value::String(text) if forms.text.is_some() || !forms.choices.is_empty() => {
                self.text(node, text, by_reference, forms)
            }
            Value::Null => self.mismatch(node, key, "nothing", forms),
            Value::Bool(_) => self.mismatch(node, key, "a boolean", forms),
            Value::Number(_) => match forms.text.and_then(|format| format.refusal(&scalar.text)) {
                // A number without its unit.
                Some(refusal) => self.broken(Finding::error(node.span.clone(), refusal), forms),
                None => self.mismatch(node, key, "a number", forms),
            },
            _ => self.mismatch(node, key, "text", forms),
        }
    }

    fn text(&mut self, node: &Node, text: &str, by_reference: bool, forms: &Forms<'w>) -> Value {
        if forms.choices.contains(&text) {
            return Value::String(text.into());
        }
        let Some(format) = forms.text else { return self.no_choice(node, text, by_reference, forms) };
        match format.refusal(text) {
            None => Value::String(text.into()),
            Some(refusal) => self.broken(Finding::error(node.span.clone(), refusal), forms),
        }
    }

    fn no_choice(&mut self, node: &Node, text: &str, by_reference: bool, forms: &Forms<'w>) -> Value {
        let said = if by_reference { "this".into() } else { quoted(text) };
        let choices = forms.choices.iter().map(|c| format!("`{c}`"));
        let allowed: Vec<String> = choices.chain(forms.map.iter().map(MapForm::in_short)).collect();
        let message = format!("{said} is not one of {}", allowed.join(", "));
        let finding = Finding::error(node.span.clone(), message);
        let finding = match meant(text, forms.choices.iter().copied()) {
            Some(word) if !by_reference => finding.help(format!("did you mean `{word}`?")),
            _ => finding,
        };
        self.broken(finding, forms)
    }

    fn number(&mut self, node: &Node, number: serde_json::Number, forms: &Forms<'w>) -> Value {
        let Some((least, most)) = forms.integer else { return Value::Number(number) };
        let finding = match number.as_i128() {
            Some(whole) if whole < least => format!("this is less than {least}"),
            Some(whole) if whole > most => format!("this is more than {most}"),
            Some(_) => return Value::Number(number),
            None if number.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() > 1e18) => {
                "this number is too large".into()
            }
            None => "a whole number is expected here".into(),
        };
        self.broken(Finding::error(node.span.clone(), finding), forms)
    }

    fn list(&mut self, items: &[Node], each: &'w Value) -> Value {
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push(&index.to_string());
            values.push(self.value(item, None, each));
            self.path.pop();
        }
        Value::Array(values)
    }

    fn map(&mut self, node: &Node, key: Option<&Entry>, entries: &[Entry], form: &MapForm<'w>) -> Value {
        if let (None, Some(rest)) = (form.properties, form.rest) {
            return self.free_map(entries, rest);
        }
        let mut values = Map::new();
        let mut misspelt = HashSet::new();
        for entry in entries.iter().filter(|e| !e.repeated) {
            self.path.push(&entry.key);
            match (form.property(&entry.key), form.rest) {
                (Some(schema), _) | (None, Some(schema)) => {
                    values.insert(entry.key.clone(), self.value(&entry.value, Some(entry), schema));
                }
                (None, None) => {
                    self.unknown_key(entry, form);
                    misspelt.extend(meant(&entry.key, form.keys()));
                }
            }
            self.path.pop();
        }
        // What was meant has not been read either.
        self.broken.extend(misspelt.iter().map(|key| below(&self.path.to_string(), key)));
        for required in form.required.iter().filter(|r| !values.contains_key(**r)).copied().collect::<Vec<_>>() {
            let schema = form.property(required).unwrap_or(&Value::Bool(true));
            let value = self.missing(node, key, required, schema, !misspelt.contains(required));
            values.insert(required.into(), value);
        }
        Value::Object(values)
    }

    /// A mapping whose keys are the user's own.
    fn free_map(&mut self, entries: &[Entry], each: &'w Value) -> Value {
        let mut values = Map::new();
        for entry in entries.iter().filter(|e| !e.repeated) {
            self.path.push(&entry.key);
            values.insert(entry.key.clone(), self.value(&entry.value, Some(entry), each));
            self.path.pop();
        }
        Value::Object(values)
    }

    fn unknown_key(&mut self, entry: &Entry, form: &MapForm<'w>) {
        let beside_secrets = form
            .properties
            .into_iter()
            .flat_map(Map::values)
            .any(|p| Forms::of(p, self.definitions).text == Some(Format::Secret));
        if beside_secrets {
            self.veil.hide(&entry.value);
        }
        let mut finding = unknown(entry, form.keys(), &self.path);
        if let Some(home) = self.home(&entry.key, form) {
            finding = finding.help(format!("`{}` belongs under `{home}`", entry.key));
        }
        self.findings.push(finding);
        self.broken.push(self.path.to_string());
    }

    /// The key here that leads to a mapping with this key.
    fn home(&self, key: &str, form: &MapForm<'w>) -> Option<&'w str> {
        let leads = |schema| Forms::of(schema, self.definitions).map.is_some_and(|m| m.property(key).is_some());
        form.properties?.iter().find(|(_, schema)| leads(schema)).map(|(home, _)| home.as_str())
    }

    /// `report` is false where a misspelt key is reported in its stead.
    fn missing(&mut self, node: &Node, key: Option<&Entry>, name: &str, schema: &'w Value, report: bool) -> Value {
        let forms = Forms::of(schema, self.definitions);
        self.path.push(name);
        if report {
            let finding = Finding::error(place(node, key), format_args!("the key `{name}` is missing here"));
            self.findings.push(finding.at_path(self.path.to_string()));
        }
        let value = self.stand_in(&forms);
        self.path.pop();
        value
    }

    fn in_clear(&mut self, node: &Node, key: Option<&Entry>, null: bool, forms: &Forms<'w>) -> Value {
        let finding = match null {
            true => Finding::error(place(node, key), "a secret is expected here"),
            false => Finding::error(place(node, key), "a secret is written out here"),
        };
        self.broken(finding.help("give it by reference alone: ${env:NAME} or ${file:PATH}"), forms)
    }

    fn mismatch(&mut self, node: &Node, key: Option<&Entry>, found: &str, forms: &Forms<'w>) -> Value {
        let finding =
            Finding::error(place(node, key), format_args!("{} is expected here, not {found}", forms.in_words()));
        let finding = match (&node.kind, found) {
            (Kind::Scalar(s), _) if s.origin != Origin::Written => finding.help("what comes by reference is text"),
            (Kind::Scalar(s), _) if forms.boolean && yes_or_no(&s.text) => finding.help("write `true` or `false`"),
            (_, "a number" | "a boolean") if forms.text.is_some() => finding.help("put it in quotes"),
            (Kind::Scalar(s), "text") if forms.integer.is_some() && !s.plain => finding.help("take the quotes away"),
            (_, "nothing") => finding.help("remove the key to have its default"),
            _ => finding,
        };
        self.broken(finding, forms)
    }

    fn broken(&mut self, finding: Finding, forms: &Forms<'w>) -> Value {
        self.findings.push(finding.at_path(self.path.to_string()));
        self.stand_in(forms)
    }

    fn stand_in(&mut self, forms: &Forms<'w>) -> Value {
        self.broken.push(self.path.to_string());
        stand_in(forms, self.definitions)
    }
}

/// The simplest value that the schema allows.
fn stand_in(forms: &Forms<'_>, definitions: &Value) -> Value {
    if forms.nullable || forms.anything {
        return Value::Null;
    }
    if let Some(word) = forms.choices.first() {
        return Value::String((*word).into());
    }
    if let Some(format) = forms.text {
        return Value::String(format.stand_in().into());
    }
    if let Some((least, _)) = forms.integer {
        return Value::from(u64::try_from(least).unwrap_or(0));
    }
    if let Some(form) = &forms.map {
        let required = form.required.iter().filter_map(|r| Some((*r, form.property(r)?)));
        return required
            .map(|(key, schema)| (key.to_owned(), stand_in(&Forms::of(schema, definitions), definitions)))
            .collect();
    }
    match (&forms.list, forms.boolean) {
        (Some(_), _) => Value::Array(Vec::new()),
        (None, true) => Value::Bool(false),
        (None, false) => Value::from(0),
    }
}

fn yes_or_no(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n" | "true" | "false")
}

/// What to mark: the value itself, or its key where the value is empty or begins on a later line.
pub(super) fn place(node: &Node, key: Option<&Entry>) -> std::ops::Range<usize> {
    let elsewhere = matches!(node.kind, Kind::List { block: true, .. } | Kind::Map { block: true, .. });
    match key {
        Some(entry) if elsewhere || node.span.is_empty() => entry.key_span.clone(),
        _ => node.span.clone(),
    }
}
