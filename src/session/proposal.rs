//! A checked wish to change a session.

use crate::structured::Value;

use super::schema::{FieldIndex, Schema};
use super::state::{Held, Session};

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
        self.unset.retain(|index| *session.held(*index) != Held::Absent);
        self
    }

    /// Whether there is neither anything to do nor anything to check.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && self.if_match.is_none() && !self.rotate && !self.end
    }

    /// Whether the session would still be within its bound.
    pub fn fits(&self, session: &Session, schema: &Schema) -> bool {
        let mut size = session.size(schema);
        let mut before = 0;
        for (index, value) in &self.set {
            let Some(field) = schema.field(*index) else { continue };
            before += session.size_of(*index, &field.path);
            size += value.size(&field.path);
        }
        for index in &self.unset {
            let Some(field) = schema.field(*index) else { continue };
            before += session.size_of(*index, &field.path);
        }
        size.saturating_sub(before) <= schema.session_limit
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
