//! Fields as they nest in JSON: shown, given, patched.

use serde_json::{Map, Value as Json, json};

use crate::session::{Field, FieldIndex, Held, Misfit, Proposal, Schema, Session, Sessions, fits_at_birth};
use crate::structured::Value;

use super::problem::{FieldError, Problem};

/// An unknown name is told in part only: it may be anything.
const TOLD_OF_A_NAME: usize = 64;

/// What a session stores, sensitive values as their handles. Defaults are not stored, and not shown.
pub fn shown(sessions: &Sessions, session: &Session) -> Map<String, Json> {
    let mut fields = Map::new();
    for (index, field) in sessions.schema.fields() {
        match session.held(index) {
            Held::Absent | Held::Unreadable => {}
            Held::Value(held) => place(&mut fields, &field.path, held.value.to_json()),
            Held::Sealed(_) => place(&mut fields, &field.path, Json::Object(handle(sessions, session, field))),
        }
    }
    fields
}

fn handle(sessions: &Sessions, session: &Session, field: &Field) -> Map<String, Json> {
    let handle = sessions.keyring().field_handle(session.handle(), session.birth(), &field.path);
    [("handle".to_owned(), json!(handle))].into_iter().collect()
}

/// Puts a value at a dotted path.
pub fn place(object: &mut Map<String, Json>, path: &str, value: Json) {
    let Some((first, rest)) = path.split_once('.') else {
        object.insert(path.to_owned(), value);
        return;
    };
    let inner = object.entry(first).or_insert_with(|| Json::Object(Map::new()));
    // No path is the beginning of another, so what stands there is an object.
    if let Some(inner) = inner.as_object_mut() {
        place(inner, rest, value);
    }
}

/// The values that a new session is to have.
pub fn values(schema: &Schema, given: &Map<String, Json>) -> Result<Vec<(FieldIndex, Value)>, Problem> {
    let mut found = Found::in_object(schema, given);
    let mut values = Vec::new();
    for (index, field, json) in std::mem::take(&mut found.leaves) {
        match fit(field, json) {
            Ok(value) => values.push((index, value)),
            Err(misfit) => found.refuse(&field.path, misfit.to_string()),
        }
    }
    if !found.errors.is_empty() {
        return Err(Problem::fields(found.errors));
    }
    if fits_at_birth(&values, schema) { Ok(values) } else { Err(too_large()) }
}

/// What a merge patch (RFC 7396) of the fields that are shown proposes.
pub fn proposal(
    sessions: &Sessions,
    session: &Session,
    patch: &Map<String, Json>,
) -> Result<Proposal, Vec<FieldError>> {
    let mut found = Found::in_object(&sessions.schema, patch);
    let mut proposal = Proposal::default();
    for (index, field, json) in std::mem::take(&mut found.leaves) {
        match json {
            Json::Null => proposal.unset.push(index),
            Json::Object(given) if is_shown_already(sessions, session, (index, field), given) => {}
            json => match fit(field, json) {
                Ok(value) => proposal.set.push((index, value)),
                Err(misfit) => found.refuse(&field.path, misfit.to_string()),
            },
        }
    }
    if found.errors.is_empty() { Ok(proposal) } else { Err(found.errors) }
}

/// Whether an object merged into a sensitive field's handle leaves it as it is.
fn is_shown_already(
    sessions: &Sessions,
    session: &Session,
    (index, field): (FieldIndex, &Field),
    given: &Map<String, Json>,
) -> bool {
    let Held::Sealed(_) = session.held(index) else { return false };
    let shown = handle(sessions, session, field);
    given.iter().all(|(name, value)| shown.get(name).unwrap_or(&Json::Null) == value)
}

fn fit(field: &Field, json: &Json) -> Result<Value, Misfit> {
    Value::from_json(json).ok_or(Misfit::Type).and_then(|value| field.fit(value))
}

/// A session over its size: no single field is to blame.
pub fn too_large() -> Problem {
    Problem::unprocessable("The session would be over its size (session.limits.session); nothing was written.")
}

/// The schema's fields in a nested object, and what is in it beside them.
struct Found<'a> {
    schema: &'a Schema,
    leaves: Vec<(FieldIndex, &'a Field, &'a Json)>,
    errors: Vec<FieldError>,
}

impl<'a> Found<'a> {
    fn in_object(schema: &'a Schema, object: &'a Map<String, Json>) -> Self {
        let mut found = Self { schema, leaves: Vec::new(), errors: Vec::new() };
        found.look("", object);
        found
    }

    fn look(&mut self, group: &str, object: &'a Map<String, Json>) {
        for (name, json) in object {
            let path = if group.is_empty() { name.clone() } else { format!("{group}.{name}") };
            if name.contains('.') {
                self.refuse(&path, "fields nest: what stands before a dot is an object");
            } else if let Some((index, field)) = self.schema.find(&path) {
                self.leaves.push((index, field, json));
            } else {
                self.look_into(&path, json);
            }
        }
    }

    /// What stands where no field does: a group of fields, or nothing that is known.
    fn look_into(&mut self, path: &str, json: &'a Json) {
        let beneath = |field: &Field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let mut group = self.schema.fields().filter(|(_, field)| beneath(field)).peekable();
        if group.peek().is_none() {
            return self.refuse(path, "the schema has no such field");
        }
        match json {
            Json::Null => self.leaves.extend(group.map(|(index, field)| (index, field, json))),
            Json::Object(inner) => self.look(path, inner),
            _ => self.refuse(path, "is a group of fields, and so an object"),
        }
    }

    fn refuse(&mut self, path: &str, detail: impl Into<std::borrow::Cow<'static, str>>) {
        let field = path.chars().take(TOLD_OF_A_NAME).collect();
        self.errors.push(FieldError { field, detail: detail.into() });
    }
}
