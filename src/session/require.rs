//! What must hold of a session on a route.

use serde_json::Value as Json;

use crate::config::{self, Problems};
use crate::structured::Value;

use super::schema::{FieldIndex, Schema};
use super::state::Session;

/// The conditions of one route, all of which must hold.
#[derive(Debug, Default)]
pub struct Requirements(Vec<(FieldIndex, Wanted)>);

#[derive(Debug)]
enum Wanted {
    /// The field, or its default, is this value, or a list that holds it.
    Value(Value),
    /// The field has neither a value nor a default.
    Absent,
}

impl Requirements {
    pub fn compile(at: usize, route: &config::Route, schema: &Schema, problems: &mut Problems) -> Self {
        let mut conditions = Vec::new();
        for (path, json) in &route.require {
            let pointer = format!("/routes/{at}/require/{path}");
            let Some(index) = schema.one(path, pointer.clone(), problems) else { continue };
            let Some(field) = schema.field(index) else { continue };
            let value = match json {
                Json::Null if field.default.is_some() => None,
                Json::Null => Some(Wanted::Absent),
                _ if field.sensitive => {
                    problems.error(pointer, "a sensitive field's value would stand here in clear");
                    continue;
                }
                json => Value::from_json(json).and_then(|value| field.comparable(value)).map(Wanted::Value),
            };
            match value {
                Some(wanted) => conditions.push((index, wanted)),
                None => problems.error(pointer, format!("'{path}' can never have this value")),
            }
        }
        Self(conditions)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn hold(&self, session: &Session, schema: &Schema) -> bool {
        self.0.iter().all(|(index, wanted)| match wanted {
            Wanted::Value(wanted) => session.value(*index, schema).is_some_and(|value| value.is_or_holds(wanted)),
            Wanted::Absent => session.held(*index).is_absent() && session.value(*index, schema).is_none(),
        })
    }
}
