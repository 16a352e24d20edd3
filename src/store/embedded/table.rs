//! The tables of the file, their keys, and how they are read.
//!
//! Keys and values are bytes alone, so that the file does not depend on how the database encodes types: numbers
//! big-endian, so that they sort, names as their 16 bytes, everything else as JSON.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition};

use crate::clock::Time;
use crate::handle::{Handle, UserKey};
use crate::store::{Entry, Revocation, StoreError, Trail};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Handle to entry.
pub(super) const ENTRIES: Definition = TableDefinition::new("entries");
/// Time an entry may be swept, and its handle.
pub(super) const EXPIRY: Definition = TableDefinition::new("expiry");
/// User, time of creation, handle.
pub(super) const USERS: Definition = TableDefinition::new("users");
/// Handle and position to audit record.
pub(super) const AUDIT: Definition = TableDefinition::new("audit");
/// Handle to the last position in its trail and the time the trail may be swept, 0 while the session lives.
pub(super) const TRAILS: Definition = TableDefinition::new("trails");
/// Time a trail may be swept, and its handle.
pub(super) const TRAIL_EXPIRY: Definition = TableDefinition::new("trail_expiry");
/// Time a revocation may be forgotten, and its number, to the revocation.
pub(super) const REVOCATIONS: Definition = TableDefinition::new("revocations");
/// Single values under the names below.
pub(super) const META: Definition = TableDefinition::new("meta");

pub(super) const ALL: [Definition; 8] = [ENTRIES, EXPIRY, USERS, AUDIT, TRAILS, TRAIL_EXPIRY, REVOCATIONS, META];

/// Under this name, the version of the file's layout.
pub(super) const LAYOUT: &[u8] = b"layout";
/// The environment whose sessions these are.
pub(super) const ENVIRONMENT: &[u8] = b"environment";
/// Under this name, the last number given to a revocation.
pub(super) const LAST_REVOCATION: &[u8] = b"last_revocation";

/// What a key for no value stands for.
pub(super) const NOTHING: &[u8] = &[];

/// A decoded entry and the size of its text.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub entry: Arc<Entry>,
    pub bytes: usize,
}

/// The key of an index by time: expiry by handle, the feed by number.
pub(super) fn at(time: Time, rest: &[u8]) -> Vec<u8> {
    [&time.0.to_be_bytes(), rest].concat()
}

pub(super) fn position(handle: Handle, position: u64) -> [u8; 24] {
    let mut key = [0; 24];
    let (name, number) = key.split_at_mut(16);
    name.copy_from_slice(&handle.0);
    number.copy_from_slice(&position.to_be_bytes());
    key
}

pub(super) fn listing(user: UserKey, created_at: Time, handle: Handle) -> Vec<u8> {
    [&user.0, &created_at.0.to_be_bytes()[..], &handle.0].concat()
}

/// The number that a key or value begins with.
pub(super) fn leading(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().copied().map(u64::from_be_bytes)
}

/// The number that a key or value ends with.
pub(super) fn trailing(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk().copied().map(u64::from_be_bytes)
}

/// The handle that a key ends with.
pub(super) fn trailing_handle(bytes: &[u8]) -> Option<Handle> {
    bytes.last_chunk().copied().map(Handle)
}

pub(super) fn entry(read: &ReadTransaction, handle: Handle) -> Result<Option<Kept>, StoreError> {
    entry_in(&read.open_table(ENTRIES)?, handle)
}

pub(super) fn entry_in(
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
    handle: Handle,
) -> Result<Option<Kept>, StoreError> {
    let Some(found) = entries.get(&handle.0[..])? else { return Ok(None) };
    let text = found.value();
    let entry = serde_json::from_slice(text).map_err(|_| StoreError::Damaged(handle))?;
    Ok(Some(Kept { entry: Arc::new(entry), bytes: text.len() }))
}

pub(super) fn trail(
    read: &ReadTransaction,
    handle: Handle,
    before: Option<u64>,
    limit: usize,
) -> Result<Trail, StoreError> {
    let audit = read.open_table(AUDIT)?;
    let (first, end) = (position(handle, 0), position(handle, before.unwrap_or(u64::MAX)));
    let mut trail = Trail::default();
    let mut oldest = None;
    for row in audit.range::<&[u8]>(&first[..]..&end[..])?.rev() {
        let (key, record) = row?;
        if trail.records.len() >= limit {
            trail.next = oldest;
            break;
        }
        let record = std::str::from_utf8(record.value()).map_err(|_| StoreError::Damaged(handle))?;
        trail.records.push(record.to_owned());
        oldest = trailing(key.value());
    }
    Ok(trail)
}

pub(super) fn sessions_of(read: &ReadTransaction, user: UserKey) -> Result<Vec<Handle>, StoreError> {
    let users = read.open_table(USERS)?;
    let first = listing(user, Time(0), Handle([0; 16]));
    let last = listing(user, Time::MAX, Handle([0xff; 16]));
    let mut handles = Vec::new();
    for row in users.range::<&[u8]>(&first[..]..=&last[..])? {
        handles.extend(trailing_handle(row?.0.value()));
    }
    Ok(handles)
}

pub(super) fn handles(read: &ReadTransaction, after: Option<Handle>, limit: usize) -> Result<Vec<Handle>, StoreError> {
    use std::ops::Bound::{Excluded, Unbounded};
    let entries = read.open_table(ENTRIES)?;
    let from = after.as_ref().map_or(Unbounded, |handle| Excluded(&handle.0[..]));
    let mut handles = Vec::new();
    for row in entries.range::<&[u8]>((from, Unbounded))?.take(limit) {
        handles.extend(trailing_handle(row?.0.value()));
    }
    Ok(handles)
}

pub(super) fn revocations(read: &ReadTransaction, now: Time) -> Result<Vec<Revocation>, StoreError> {
    let feed = read.open_table(REVOCATIONS)?;
    let standing = at(Time(now.0.saturating_add(1)), NOTHING);
    let mut numbered = Vec::new();
    for row in feed.range::<&[u8]>(&standing[..]..)? {
        let (key, text) = row?;
        let damaged = |_| StoreError::Unavailable("a revocation in its feed is damaged".into());
        let revocation: Revocation = serde_json::from_slice(text.value()).map_err(damaged)?;
        numbered.push((trailing(key.value()), revocation));
    }
    numbered.sort_by_key(|(number, _)| *number);
    Ok(numbered.into_iter().map(|(_, revocation)| revocation).collect())
}
