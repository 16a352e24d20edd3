//! A checked wish to change a session.

use crate::store::Growth;
use crate::structured::Value;

use super::schema::{FieldIndex, Schema};
use super::state::Session;

/// Changes whose types and permissions were checked, not yet compared with what others wrote.
#[derive(Debug, Clone, Default)]
pub struct Proposal {
    pub set: Vec<(FieldIndex, Value)>,
    pub unset: Vec<FieldIndex>,
    /// Commit only at that very revision.
    pub if_match: Option<u64>,
    /// Give the client a new secret for the same session.
    pub rotate: bool,
    /// Revoke the session.
    pub end: bool,
}

impl Proposal {
    /// Leaves out what changes nothing.
    ///
    /// A value that the field had when it was read, be it its default, is no change, except under `If-Match`,
    /// and except in a sensitive field, whose value is never compared. Unsetting an absent field is none either.
    pub fn against(mut self, session: &Session, schema: &Schema) -> Self {
        let pinned = self.if_match.is_some();
        self.set.retain(|(index, value)| pinned || session.value(*index, schema) != Some(value));
        self.unset.retain(|index| !session.held(*index).is_absent());
        self
    }

    /// Whether there is neither anything to do nor anything to check.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && self.if_match.is_none() && !self.rotate && !self.end
    }

    /// What it does to the session's size.
    pub fn growth(&self, session: &Session, schema: &Schema) -> Growth {
        let held = |index: &FieldIndex| schema.field(*index).map_or(0, |field| session.size_of(*index, &field.path));
        let before: usize = self.set.iter().map(|(index, _)| index).chain(&self.unset).map(held).sum();
        let from = session.size(schema);
        let to = from - before + size_at_birth(&self.set, schema);
        let (from, to, most) = (from as u64, to as u64, schema.session_limit as u64);
        Growth { from, at: session.revision(), to, most }
    }

    /// Whether the session would still be within its bound, had nobody else written since.
    pub fn fits(&self, session: &Session, schema: &Schema) -> bool {
        self.growth(session, schema).of(session.revision(), None).is_some()
    }
}

/// Whether a new session with these values is within its bound.
pub fn fits_at_birth(values: &[(FieldIndex, Value)], schema: &Schema) -> bool {
    size_at_birth(values, schema) <= schema.session_limit
}

/// The bytes of these values, as they would be sent.
pub(super) fn size_at_birth(values: &[(FieldIndex, Value)], schema: &Schema) -> usize {
    let size = |(index, value): &(FieldIndex, Value)| schema.field(*index).map_or(0, |field| value.size(&field.path));
    values.iter().map(size).sum()
}
