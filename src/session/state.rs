//! A session as it was read: its fields by the schema, and what it was read at.

use std::sync::Arc;

use crate::clock::Time;
use crate::handle::{Birth, Handle, SecretHash, UserKey};
use crate::store::{Base, Record};
use crate::structured::Value;

use super::revocations::{Bearing, Believed};
use super::schema::{FieldIndex, Schema};
use super::vault::{self, Closed, Vault};

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Its default applies, if it has one.
    Absent,
    Value(Value),
    /// A sensitive value that opens; its size in bytes as it would be sent.
    Sealed(usize),
    /// What is stored does not fit the schema, or a sealed value does not open: kept, and never shown.
    Unreadable,
}

/// Which secret the request came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// By the current one, so that it may be replaced.
    Current(SecretHash),
    /// By the one before, within its grace.
    Previous,
    /// By a token.
    Token(Bearing),
    /// By nothing of a client's: the admin API.
    Otherwise,
}

/// A living session that was read, proven and brought to the current schema.
#[derive(Debug)]
pub struct Session {
    handle: Handle,
    record: Arc<Record>,
    fields: Arc<Fields>,
    pub(super) proven: Proven,
}

/// The fields of one revision, decoded.
#[derive(Debug)]
pub struct Fields(Vec<Held>);

impl Fields {
    /// Decodes a record by the schema. Sealed values are opened to see that they can be, and not kept.
    pub(super) fn decode(record: &Record, schema: &Schema, vault: &Vault<'_>) -> Result<Self, String> {
        let mut fields = Vec::with_capacity(schema.len());
        for (_, field) in schema.fields() {
            fields.push(match record.fields.get(&field.path) {
                None => Held::Absent,
                Some(stored) if field.sensitive => match vault.open(&field.path, &stored.json) {
                    Ok(plain) => match field.read(&plain) {
                        Some(value) => Held::Sealed(value.size(&field.path)),
                        None => unreadable(vault.session, &field.path, "does not fit its type"),
                    },
                    Err(Closed::UnknownKey(id)) => return Err(id),
                    Err(Closed::Damaged) => unreadable(vault.session, &field.path, "does not open under its key"),
                },
                Some(stored) if vault::is_sealed(&stored.json) => {
                    unreadable(vault.session, &field.path, "is sealed, and the field is not sensitive")
                }
                Some(stored) => match field.read(&stored.json) {
                    Some(value) => Held::Value(value),
                    None => unreadable(vault.session, &field.path, "does not fit its type"),
                },
            });
        }
        Ok(Self(fields))
    }

    fn held(&self, index: FieldIndex) -> &Held {
        self.0.get(index.position()).unwrap_or(&Held::Absent)
    }
}

fn unreadable(session: Handle, path: &str, why: &'static str) -> Held {
    tracing::warn!(target: "cloakroom::session", %session, field = path, why, "a stored value is not shown");
    Held::Unreadable
}

impl Session {
    pub(super) fn new(handle: Handle, record: Arc<Record>, fields: Arc<Fields>, proven: Proven) -> Self {
        Self { handle, record, fields, proven }
    }

    pub fn handle(&self) -> Handle {
        self.handle
    }

    pub fn birth(&self) -> Birth {
        self.record.birth
    }

    /// The schema version that it is written in; newer than ours, if a newer sidecar wrote it.
    pub fn schema_version(&self) -> u32 {
        self.record.schema
    }

    /// The revision that was read.
    pub fn revision(&self) -> u64 {
        self.record.revision
    }

    pub fn user(&self) -> Option<UserKey> {
        self.record.user
    }

    /// Whose tokens made it; none where no token did.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.record.proof.token().map(|token| &*token.issuer)
    }

    /// What revocations may be about.
    pub(super) fn believed(&self) -> Believed {
        let bearing = match self.proven {
            Proven::Token(bearing) => Some(bearing),
            Proven::Current(_) | Proven::Previous | Proven::Otherwise => None,
        };
        Believed { user: self.record.user, created_at: self.record.created_at, bearing }
    }

    pub fn created_at(&self) -> Time {
        self.record.created_at
    }

    pub fn last_active(&self) -> Time {
        self.record.last_active
    }

    pub fn ends_at(&self) -> Time {
        self.record.ends_at
    }

    pub fn touch_interval(&self) -> u64 {
        self.record.touch_interval
    }

    /// When it will be over unless it is used: the moment promised, without the touch interval's margin.
    pub fn expires_at(&self) -> Time {
        self.record.last_active.plus(std::time::Duration::from_millis(self.record.idle)).min(self.record.ends_at)
    }

    pub fn held(&self, index: FieldIndex) -> &Held {
        self.fields.held(index)
    }

    /// The decoded fields: the very same for as long as nothing of the session has changed.
    pub fn fields(&self) -> &Arc<Fields> {
        &self.fields
    }

    /// The value that applies: the field's own or its default; none for a sensitive or unreadable one.
    pub fn value<'a>(&'a self, index: FieldIndex, schema: &'a Schema) -> Option<&'a Value> {
        match self.held(index) {
            Held::Value(value) => Some(value),
            Held::Absent => schema.field(index)?.default.as_ref(),
            Held::Sealed(_) | Held::Unreadable => None,
        }
    }

    /// The bytes of all its fields, as they would be sent.
    pub fn size(&self, schema: &Schema) -> usize {
        schema.fields().map(|(index, field)| self.size_of(index, &field.path)).sum()
    }

    /// The bytes of one field, as it would be sent.
    pub fn size_of(&self, index: FieldIndex, path: &str) -> usize {
        match self.held(index) {
            Held::Absent => 0,
            Held::Value(value) => value.size(path),
            Held::Sealed(size) => *size,
            Held::Unreadable => self.record.fields.get(path).map_or(0, |stored| path.len() + 1 + stored.json.len()),
        }
    }

    /// What a change to it is based on; `own` is the revision that the same exchange committed since it was read.
    pub fn base(&self, own: Option<u64>) -> Base {
        Base { birth: self.record.birth, revision: self.record.revision, own }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }
}
