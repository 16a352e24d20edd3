//! A session as it was read: its fields by the schema, and what it was read at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::clock::Time;
use crate::handle::{Birth, Handle, SecretHash, UserKey};
use crate::headers::Lines;
use crate::route::RouteIndex;
use crate::store::{Base, Entry, Record};
use crate::structured::Value;

use super::revocations::{Bearing, Believed};
use super::schema::{FieldIndex, Schema};
use super::vault::{self, Closed, Vault};

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Its default applies, if it has one.
    Absent,
    Value(Arc<Value>),
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
    decoded: Arc<Decoded>,
    pub(super) proven: Proven,
    /// Whether it was loaded without asking the store.
    pub at_hand: bool,
}

/// What was made of an entry, for as long as the store holds that very entry.
///
/// All that a request needs of a session stands in one place: with a thousand sessions in turn, a request waits for memory
/// more than for anything else of its session's.
#[derive(Debug)]
pub struct Decoded {
    pub(super) entry: Arc<Entry>,
    pub(super) record: Arc<Record>,
    fields: Fields,
    /// Whether its current secret has been shown since.
    was_proven: AtomicBool,
    shown: OnceLock<Shown>,
}

/// What the backend of one route is shown of a session.
#[derive(Debug)]
pub struct Shown {
    pub route: RouteIndex,
    pub lines: Lines,
}

impl Decoded {
    pub(super) fn new(entry: Arc<Entry>, record: Arc<Record>, fields: Fields) -> Self {
        Self { entry, record, fields, was_proven: AtomicBool::new(false), shown: OnceLock::new() }
    }

    /// The value of a field, if the same is stored in another record. Not of a sealed one: its key may be gone since.
    fn same(&self, index: FieldIndex, path: &str, other: &Record) -> Option<&Held> {
        let is_stored = self.record.fields.get(path)?.json == other.fields.get(path)?.json;
        let held = self.fields.held(index);
        (is_stored && matches!(held, Held::Value(_))).then_some(held)
    }
}

/// The fields of one revision, decoded.
#[derive(Debug)]
pub struct Fields {
    held: Vec<Held>,
    /// The sensitive fields whose values do not open under their key: something has altered or moved them.
    pub(super) damaged: Vec<Arc<str>>,
}

impl Fields {
    /// Decodes a record by the schema. Sealed values are opened to see that they can be, and not kept. What stood the
    /// same in the revision `before` is not decoded again.
    pub(super) fn decode(
        record: &Record,
        schema: &Schema,
        vault: &Vault<'_>,
        before: Option<&Decoded>,
    ) -> Result<Self, String> {
        let before = before.filter(|before| before.record.birth == record.birth);
        let mut held = Vec::with_capacity(schema.len());
        let mut damaged = Vec::new();
        for (index, field) in schema.fields() {
            let stood = before.and_then(|before| before.same(index, &field.path, record));
            if let Some(stood) = stood {
                held.push(stood.clone());
                continue;
            }
            held.push(match record.fields.get(&field.path) {
                None => Held::Absent,
                Some(stored) if field.sensitive => match vault.open(&field.path, &stored.json) {
                    Ok(plain) => match field.read(&plain) {
                        Some(value) => Held::Sealed(value.size(&field.path)),
                        None => unreadable(vault.session, &field.path, "does not fit its type"),
                    },
                    Err(Closed::UnknownKey(id)) => return Err(id),
                    Err(Closed::Damaged) => {
                        damaged.push(field.path.clone());
                        unreadable(vault.session, &field.path, "does not open under its key")
                    }
                },
                Some(stored) if vault::is_sealed(&stored.json) => {
                    unreadable(vault.session, &field.path, "is sealed, and the field is not sensitive")
                }
                Some(stored) => match field.read(&stored.json) {
                    Some(value) => Held::Value(value.into()),
                    None => unreadable(vault.session, &field.path, "does not fit its type"),
                },
            });
        }
        Ok(Self { held, damaged })
    }

    fn held(&self, index: FieldIndex) -> &Held {
        self.held.get(index.position()).unwrap_or(&Held::Absent)
    }
}

fn unreadable(session: Handle, path: &str, why: &'static str) -> Held {
    tracing::warn!(target: "cloakroom::session", %session, field = path, why, "a stored value is not shown");
    Held::Unreadable
}

impl Session {
    pub(super) fn new(handle: Handle, decoded: Arc<Decoded>, proven: Proven) -> Self {
        Self { handle, decoded, proven, at_hand: false }
    }

    /// What was made of the entry that it was read from: the very same for as long as nothing of the session has changed.
    pub fn decoded(&self) -> &Arc<Decoded> {
        &self.decoded
    }

    /// What the first route's backend was shown of it, which is made here if nothing was shown yet.
    pub fn shown(&self, show: impl FnOnce() -> Shown) -> &Shown {
        self.decoded.shown.get_or_init(show)
    }

    /// Whether its secret is one that it had not been proven by, as far as can be told here.
    pub fn is_proven_anew(&self) -> bool {
        !matches!(self.proven, Proven::Current(_)) || !self.decoded.was_proven.swap(true, Ordering::Relaxed)
    }

    pub fn handle(&self) -> Handle {
        self.handle
    }

    pub fn birth(&self) -> Birth {
        self.record().birth
    }

    /// The schema version that it is written in; newer than ours, if a newer sidecar wrote it.
    pub fn schema_version(&self) -> u32 {
        self.record().schema
    }

    /// The revision that was read.
    pub fn revision(&self) -> u64 {
        self.record().revision
    }

    pub fn user(&self) -> Option<UserKey> {
        self.record().user
    }

    /// Whose tokens made it; none where no token did.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.record().proof.token().map(|token| &*token.issuer)
    }

    /// What revocations may be about.
    pub(super) fn believed(&self) -> Believed {
        let bearing = match self.proven {
            Proven::Token(bearing) => Some(bearing),
            Proven::Current(_) | Proven::Previous | Proven::Otherwise => None,
        };
        Believed { user: self.record().user, created_at: self.record().created_at, bearing }
    }

    pub fn created_at(&self) -> Time {
        self.record().created_at
    }

    pub fn last_active(&self) -> Time {
        self.record().last_active
    }

    pub fn ends_at(&self) -> Time {
        self.record().ends_at
    }

    pub fn touch_interval(&self) -> u64 {
        self.record().touch_interval
    }

    /// When it will be over unless it is used: the moment promised, without the touch interval's margin.
    pub fn expires_at(&self) -> Time {
        self.record().last_active.plus(std::time::Duration::from_millis(self.record().idle)).min(self.record().ends_at)
    }

    pub fn held(&self, index: FieldIndex) -> &Held {
        self.decoded.fields.held(index)
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
            Held::Unreadable => self.record().fields.get(path).map_or(0, |stored| path.len() + 1 + stored.json.len()),
        }
    }

    /// What a change to it is based on; `own` is the revision that the same exchange committed since it was read.
    pub fn base(&self, own: Option<u64>) -> Base {
        Base { birth: self.record().birth, revision: self.record().revision, own }
    }

    pub(super) fn record(&self) -> &Record {
        &self.decoded.record
    }
}
