//! A session as it was read: its fields by the schema, and what it was read at.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::clock::Time;
use crate::handle::{Birth, Handle, SecretHash, UserKey};
use crate::headers::Lines;
use crate::keyring::Keyring;
use crate::route::RouteIndex;
use crate::store::{Base, Entry, Record};
use crate::structured::Value;

use super::revocations::{Bearing, Believed};
use super::schema::{Field, FieldIndex, Schema};
use super::vault::{self, Closed, Vault};

/// What a field holds.
#[derive(Debug, Clone)]
pub enum Held {
    /// Its default applies, if it has one.
    Absent,
    Value(Arc<Member<Value>>),
    /// A sensitive value that opens, and is not kept.
    Sealed(Arc<Member<()>>),
    /// What is stored does not fit the schema, or a sealed value does not open: kept, and never shown.
    Unreadable,
}

impl Held {
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A field with something in it: one and the same in all revisions in which it stood so.
pub struct Member<T> {
    pub value: T,
    /// What is stored of it.
    json: Arc<str>,
    /// The bytes of `path=value` as it would be sent.
    size: usize,
    text: OnceLock<Box<str>>,
}

/// Its size alone: what is in it is nobody's to read in a log.
impl<T> fmt::Debug for Member<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("size", &self.size).finish_non_exhaustive()
    }
}

impl<T> Member<T> {
    fn new(value: T, json: &Arc<str>, size: usize) -> Arc<Self> {
        Arc::new(Self { value, json: json.clone(), size, text: OnceLock::new() })
    }

    /// How it stands in the context, which is made here if it was not shown yet.
    pub fn text(&self, make: impl FnOnce() -> String) -> &str {
        self.text.get_or_init(|| make().into())
    }
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
    /// What its sealed values were opened with.
    keyring: Arc<Keyring>,
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
    pub(super) fn new(entry: Arc<Entry>, record: Arc<Record>, fields: Fields, keyring: Arc<Keyring>) -> Self {
        Self { entry, record, fields, keyring, was_proven: AtomicBool::new(false), shown: OnceLock::new() }
    }

    /// What a field holds, if that text is stored in it. A sealed one is opened anew under another keyring: its key may
    /// be gone.
    fn same(&self, index: FieldIndex, json: &Arc<str>, keyring: &Arc<Keyring>) -> Option<&Held> {
        let held = self.fields.held(index);
        let before = match held {
            Held::Value(member) => &member.json,
            Held::Sealed(member) if Arc::ptr_eq(&self.keyring, keyring) => &member.json,
            Held::Sealed(_) | Held::Absent | Held::Unreadable => return None,
        };
        (Arc::ptr_eq(before, json) || before == json).then_some(held)
    }
}

/// The fields of one revision, decoded.
#[derive(Debug)]
pub struct Fields {
    held: Vec<Held>,
    /// Where each of the stored fields belongs, in their order; none of what the schema does not know.
    places: Arc<[Option<FieldIndex>]>,
    /// The sensitive fields whose values do not open under their key: something has altered or moved them.
    pub(super) damaged: Vec<Arc<str>>,
}

impl Fields {
    /// Decodes a record by the schema. Sealed values are opened to see that they can be, and not kept. What stood the
    /// same in the revision `before` is not made again.
    pub(super) fn decode(
        record: &Record,
        schema: &Schema,
        vault: &Vault<'_>,
        before: Option<&Decoded>,
    ) -> Result<Self, String> {
        let before = before.filter(|before| before.record.birth == record.birth);
        let places = before.filter(|before| has_same_paths(&before.record, record));
        let places = places.map_or_else(|| places_of(record, schema), |before| before.fields.places.clone());
        let (mut held, mut damaged) = (vec![Held::Absent; schema.len()], Vec::new());
        for (stored, index) in record.fields.values().zip(&*places) {
            let Some(index) = *index else { continue };
            let (Some(place), Some(field)) = (held.get_mut(index.position()), schema.field(index)) else { continue };
            let stood = before.and_then(|before| before.same(index, &stored.json, &vault.keyring));
            *place = match stood {
                Some(stood) => stood.clone(),
                // Of an older version it may be that it was not sensitive then; it is sealed on the way to this one.
                None if field.sensitive && record.schema == schema.version && !vault::is_sealed(&stored.json) => {
                    damaged.push(field.path.clone());
                    unreadable(field, vault, "stands in clear, and the field is sensitive")
                }
                None => hold(field, &stored.json, vault, &mut damaged)?,
            };
        }
        Ok(Self { held, places, damaged })
    }

    fn held(&self, index: FieldIndex) -> &Held {
        self.held.get(index.position()).unwrap_or(&Held::Absent)
    }
}

/// Whether both have the very same paths, as one revision has of the one that it was made of: told without a look at any,
/// as for a thousand sessions in turn they are not in the processor's caches.
fn has_same_paths(one: &Record, other: &Record) -> bool {
    let same = |(one, other): (&Arc<str>, &Arc<str>)| Arc::ptr_eq(one, other);
    one.fields.len() == other.fields.len() && one.fields.keys().zip(other.fields.keys()).all(same)
}

fn places_of(record: &Record, schema: &Schema) -> Arc<[Option<FieldIndex>]> {
    // Both in the same order, so that nothing is looked for.
    let mut known = schema.by_path().peekable();
    let place = |path: &Arc<str>| {
        while known.next_if(|(_, field)| field.path < *path).is_some() {}
        known.next_if(|(_, field)| field.path == *path).map(|(index, _)| index)
    };
    record.fields.keys().map(place).collect()
}

/// Reads what is stored of a field.
///
/// # Errors
///
/// The id of a key that is not there.
fn hold(field: &Field, json: &Arc<str>, vault: &Vault<'_>, damaged: &mut Vec<Arc<str>>) -> Result<Held, String> {
    let unreadable = |why| Ok(unreadable(field, vault, why));
    if field.sensitive {
        return match vault.open(&field.path, json) {
            Ok(plain) => match field.read(&plain) {
                Some(value) => Ok(Held::Sealed(Member::new((), json, value.size(&field.path)))),
                None => unreadable("does not fit its type"),
            },
            Err(Closed::UnknownKey(id)) => Err(id),
            Err(Closed::Damaged) => {
                damaged.push(field.path.clone());
                unreadable("does not open under its key")
            }
        };
    }
    if vault::is_sealed(json) {
        return unreadable("is sealed, and the field is not sensitive");
    }
    match field.read(json) {
        Some(value) => {
            let size = value.size(&field.path);
            Ok(Held::Value(Member::new(value, json, size)))
        }
        None => unreadable("does not fit its type"),
    }
}

fn unreadable(field: &Field, vault: &Vault<'_>, why: &'static str) -> Held {
    tracing::warn!(
        target: "cloakroom::session", session = %vault.session, field = &*field.path, why, "a stored value is not shown"
    );
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
            Held::Value(member) => Some(&member.value),
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
            Held::Value(member) => member.size,
            Held::Sealed(member) => member.size,
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
