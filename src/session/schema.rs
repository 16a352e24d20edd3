//! The schema, compiled: which fields a session may have, and what may stand in them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::config::{self, FieldType, Problems};
use crate::handle::FIELD_HANDLE_PREFIX;
use crate::structured::{Scalar, Value};

use super::migrate::Migration;
use super::vault;

/// The longest path, so that names stay names.
const PATH_BYTES: usize = 64;
/// More fields than this are a document, not a session.
const FIELDS: usize = 256;

/// A field's place in the schema, and so in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldIndex(u16);

impl FieldIndex {
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Debug)]
pub struct Schema {
    pub version: u32,
    fields: Vec<Field>,
    by_path: BTreeMap<Arc<str>, FieldIndex>,
    pub(super) migrations: Vec<Migration>,
    user: Option<FieldIndex>,
    /// All fields of a session, in bytes as they would be sent.
    pub session_limit: usize,
}

#[derive(Debug)]
pub struct Field {
    pub path: Arc<str>,
    pub kind: FieldType,
    section: Option<String>,
    choices: Option<Vec<Value>>,
    pub default: Option<Value>,
    pub writable: bool,
    pub sensitive: bool,
    /// Whether the audit trail shows values rather than fingerprints.
    pub audit_value: bool,
    /// In bytes as it would be sent, name included.
    pub max: usize,
}

/// Why a value may not stand in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("is of the wrong type")]
    Type,
    #[error("is not one of the allowed values")]
    Choice,
    #[error("is over its size")]
    Size,
    #[error("looks like a handle")]
    Handle,
    #[error("looks like a sealed value")]
    Sealed,
}

impl Field {
    /// Brings a value to the field's type, or says why it does not fit. Only a decimal takes another type: integers.
    pub fn fit(&self, value: Value) -> Result<Value, Misfit> {
        let value = typed(self.kind, value).ok_or(Misfit::Type)?;
        if value.strings().any(|text| text.starts_with(FIELD_HANDLE_PREFIX)) {
            return Err(Misfit::Handle);
        }
        if value.strings().any(vault::looks_sealed) {
            return Err(Misfit::Sealed);
        }
        if self.choices.as_ref().is_some_and(|choices| !allowed(choices, &value)) {
            return Err(Misfit::Choice);
        }
        if value.size(&self.path) > self.max {
            return Err(Misfit::Size);
        }
        Ok(value)
    }

    /// A value that this field may be compared with: one of its type, or a member for a list.
    pub(super) fn comparable(&self, value: Value) -> Option<Value> {
        let value = match (self.kind, value) {
            (FieldType::List, scalar @ Value::Scalar(_)) => scalar,
            (kind, value) => typed(kind, value)?,
        };
        let possible = self.choices.as_ref().is_none_or(|choices| allowed(choices, &value));
        possible.then_some(value)
    }

    /// Reads a value from the text of its JSON, without regard to choices and size: what is stored stays.
    pub fn read(&self, json: &str) -> Option<Value> {
        typed(self.kind, Value::from_json(&serde_json::from_str(json).ok()?)?)
    }
}

fn allowed(choices: &[Value], value: &Value) -> bool {
    match value {
        Value::Scalar(_) => choices.contains(value),
        Value::List(members) => members.iter().all(|one| choices.contains(&Value::Scalar(one.clone()))),
    }
}

/// The value as that type, where no conversion is needed but from integer to decimal.
pub(super) fn typed(kind: FieldType, value: Value) -> Option<Value> {
    match (kind, value) {
        (FieldType::Decimal, Value::Scalar(Scalar::Integer(integer))) => {
            let thousandths = i64::from(integer).checked_mul(1000)?;
            let decimal = sfv::Decimal::from_integer_scaled_1000(sfv::Integer::try_from(thousandths).ok()?);
            Some(Value::Scalar(Scalar::Decimal(decimal)))
        }
        (FieldType::String, value @ Value::Scalar(Scalar::String(_)))
        | (FieldType::Integer, value @ Value::Scalar(Scalar::Integer(_)))
        | (FieldType::Decimal, value @ Value::Scalar(Scalar::Decimal(_)))
        | (FieldType::Boolean, value @ Value::Scalar(Scalar::Boolean(_)))
        | (FieldType::List, value @ Value::List(_)) => Some(value),
        _ => None,
    }
}

impl Schema {
    /// Compiles the `session` section, noting every problem; none if there was an error.
    pub fn compile(section: &config::Session, problems: &mut Problems) -> Option<Self> {
        let raw = &section.schema;
        let mut own = Problems::default();
        if raw.fields.is_empty() || raw.fields.len() > FIELDS {
            own.error("/session/schema/fields", format!("a schema has 1 to {FIELDS} fields"));
        }
        check_paths(raw, &mut own);
        let fields: Vec<Field> =
            raw.fields.iter().map(|(path, field)| compile_field(path, field, &section.limits, &mut own)).collect();
        let by_path = fields.iter().zip(0..).map(|(field, at)| (field.path.clone(), FieldIndex(at))).collect();
        let mut schema = Self {
            version: raw.version,
            fields,
            by_path,
            migrations: Vec::new(),
            user: the_user(raw, &mut own),
            session_limit: section.limits.session.bytes(),
        };
        schema.migrations = Migration::compile_all(raw, &schema, &mut own);
        let sound = !own.has_errors();
        problems.append(own);
        sound.then_some(schema)
    }

    pub fn fields(&self) -> impl Iterator<Item = (FieldIndex, &Field)> {
        (0..).map(FieldIndex).zip(&self.fields)
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field at an index that this schema gave out.
    pub fn field(&self, index: FieldIndex) -> Option<&Field> {
        self.fields.get(index.position())
    }

    /// Its fields in the order of their paths.
    pub fn by_path(&self) -> impl Iterator<Item = (FieldIndex, &Field)> {
        self.by_path.values().filter_map(|index| Some((*index, self.field(*index)?)))
    }

    pub fn find(&self, path: &str) -> Option<(FieldIndex, &Field)> {
        let index = *self.by_path.get(path)?;
        Some((index, self.fields.get(index.position())?))
    }

    /// The field that says whose session it is.
    pub fn user(&self) -> Option<FieldIndex> {
        self.user
    }

    /// The fields that a list of sections and fields names, in the order of the schema.
    pub fn select(&self, names: &[String], pointer: &str, problems: &mut Problems) -> Vec<FieldIndex> {
        let mut chosen = HashSet::new();
        for (at, name) in names.iter().enumerate() {
            let before = chosen.len();
            let named = |field: &Field| *field.path == **name || field.section.as_deref() == Some(name);
            chosen.extend(self.fields().filter(|(_, field)| named(field)).map(|(index, _)| index));
            if chosen.len() == before && !self.fields.iter().any(named) {
                self.unknown(name, format!("{pointer}/{at}"), problems);
            }
        }
        let mut chosen: Vec<_> = chosen.into_iter().collect();
        chosen.sort_unstable();
        chosen
    }

    /// The one field of that name, or a problem.
    pub fn one(&self, name: &str, pointer: String, problems: &mut Problems) -> Option<FieldIndex> {
        let found = self.find(name).map(|(index, _)| index);
        if found.is_none() {
            self.unknown(name, pointer, problems);
        }
        found
    }

    /// The sections that fields of that list belong to.
    pub fn sections(&self, chosen: &[FieldIndex]) -> HashSet<&str> {
        chosen.iter().filter_map(|index| self.field(*index)?.section.as_deref()).collect()
    }

    fn unknown(&self, name: &str, pointer: String, problems: &mut Problems) {
        let names = self.fields.iter().flat_map(|field| [Some(&*field.path), field.section.as_deref()]).flatten();
        let near = names.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
        let message = format!("the schema has no field or section '{name}'");
        match near.filter(|(distance, _)| *distance <= 3) {
            Some((_, known)) => problems.error_with_help(pointer, message, format!("did you mean '{known}'?")),
            None => problems.error(pointer, message),
        }
    }
}

fn field_pointer(path: &str) -> String {
    format!("/session/schema/fields/{path}")
}

pub fn is_path(path: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    path.len() <= PATH_BYTES && path.split('.').all(part)
}

fn check_paths(raw: &config::Schema, problems: &mut Problems) {
    if raw.version == 0 {
        problems.error("/session/schema/version", "schema versions begin at 1");
    }
    for path in raw.fields.keys() {
        if !is_path(path) {
            problems.error(
                field_pointer(path),
                format!("'{path}' is not a field path: parts of a-z, 0-9 and _, each beginning with a letter, joined by dots, at most {PATH_BYTES} characters"),
            );
        }
        for (dot, _) in path.match_indices('.') {
            if let Some(parent) = path.get(..dot).filter(|parent| raw.fields.contains_key(*parent)) {
                problems.error(
                    field_pointer(path),
                    format!("'{parent}' is a field already, and no path is the beginning of another"),
                );
            }
        }
    }
}

fn the_user(raw: &config::Schema, problems: &mut Problems) -> Option<FieldIndex> {
    let mut users = raw.fields.iter().zip(0..).filter(|((_, field), _)| field.user);
    let ((_, first), at) = users.next()?;
    for ((path, _), _) in users {
        problems.error(format!("{}/user", field_pointer(path)), "only one field says whose session it is");
    }
    if !matches!(first.kind, FieldType::String | FieldType::Integer) {
        problems.error("/session/schema/fields", "the field that says whose session it is is a string or an integer");
    }
    Some(FieldIndex(at))
}

fn compile_field(path: &str, raw: &config::Field, limits: &config::Limits, problems: &mut Problems) -> Field {
    let at = field_pointer(path);
    let field = Field {
        path: path.into(),
        kind: raw.kind,
        section: raw.section.clone(),
        choices: raw.choices.as_ref().map(|choices| compile_choices(&at, raw.kind, choices, problems)),
        default: None,
        writable: raw.writable,
        sensitive: raw.sensitive,
        audit_value: raw.audit == config::FieldAudit::Value,
        max: raw.max.unwrap_or(limits.field).bytes(),
    };
    if raw.sensitive && field.audit_value {
        problems.error(format!("{at}/audit"), "a sensitive field's value never stands in the audit trail");
    }
    if raw.sensitive && raw.default.is_some() {
        problems.error(format!("{at}/default"), "a sensitive field has no default: it would stand here in clear");
    }
    if raw.user && raw.writable {
        problems.warning(
            at.clone(),
            "a backend may change whose session this is; writable: false keeps that to logins and claims",
        );
    }
    if field.max > limits.session.bytes() {
        let place = if raw.max.is_some() { format!("{at}/max") } else { "/session/limits/field".into() };
        problems.error(place, format!("'{path}' may be larger than a whole session (limits.session)"));
    }
    let default = raw.default.as_ref().and_then(|json| match Value::from_json(json).map(|value| field.fit(value)) {
        Some(Ok(value)) => Some(value),
        Some(Err(misfit)) => {
            problems.error(format!("{at}/default"), format!("the default {misfit}"));
            None
        }
        None => {
            problems.error(format!("{at}/default"), "the default is no value that a field can have");
            None
        }
    });
    Field { default, ..field }
}

/// The values of `enum`; for a list, what its members may be.
fn compile_choices(at: &str, kind: FieldType, raw: &[serde_json::Value], problems: &mut Problems) -> Vec<Value> {
    if raw.is_empty() {
        problems.error(format!("{at}/enum"), "an empty enum allows no value at all");
    }
    let choice = |json: &serde_json::Value| {
        let scalar = Scalar::from_json(json).map(Value::Scalar)?;
        if kind == FieldType::List { Some(scalar) } else { typed(kind, scalar) }
    };
    let mut choices = Vec::with_capacity(raw.len());
    for (n, json) in raw.iter().enumerate() {
        match choice(json) {
            Some(value) => choices.push(value),
            None => problems.error(format!("{at}/enum/{n}"), "is not of the field's type"),
        }
    }
    choices
}
