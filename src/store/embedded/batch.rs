//! One transaction: what waits is decided in order and written together.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::table::{self, Kept};
use super::touch::{Touch, Touches};
use crate::clock::Time;
use crate::handle::{Handle, UserKey};
use crate::store::{Commit, Entry, Outcome, Revocation, StoreError, TrailBounds, apply, records, remains};

/// Entries, and revocations, that one sweep removes at most, so that commits beside it wait some milliseconds.
const SWEEP_ENTRIES: usize = 256;

/// Trails that one sweep removes at most; each may hold a thousand records.
const SWEEP_TRAILS: usize = 8;

type Rows<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The tables of a write transaction, and the entries that it has looked at.
///
/// An entry is read once and written once, however many commits it sees in between.
pub(super) struct Batch<'t> {
    entries: Rows<'t>,
    expiry: Rows<'t>,
    users: Rows<'t>,
    audit: Rows<'t>,
    trails: Rows<'t>,
    trail_expiry: Rows<'t>,
    feed: Rows<'t>,
    meta: Rows<'t>,
    bounds: TrailBounds,
    touches: &'t Touches,
    held: HashMap<Handle, Held>,
    touched: Vec<(Handle, Touch)>,
    wrote: bool,
}

/// An entry as the batch leaves it, and how the indexes know it.
struct Held {
    indexed: Option<Indexed>,
    entry: Option<Arc<Entry>>,
    changed: bool,
}

/// What a batch wrote, for the cache, once the transaction is durable.
pub(super) struct Written {
    pub entries: Vec<(Handle, Option<Kept>)>,
    pub touches: Vec<(Handle, Touch)>,
    /// Whether there is anything to make durable.
    pub any: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Indexed {
    forgotten_at: Time,
    listing: Option<(UserKey, Time)>,
    is_living: bool,
    over_at: Time,
}

impl Indexed {
    fn of(entry: &Entry) -> Self {
        Self {
            forgotten_at: entry.forgotten_at(),
            listing: entry.listing(),
            is_living: matches!(entry, Entry::Living(_)),
            over_at: entry.over_at(),
        }
    }
}

impl<'t> Batch<'t> {
    pub fn new(write: &'t WriteTransaction, bounds: TrailBounds, touches: &'t Touches) -> Result<Self, StoreError> {
        Ok(Self {
            entries: write.open_table(table::ENTRIES)?,
            expiry: write.open_table(table::EXPIRY)?,
            users: write.open_table(table::USERS)?,
            audit: write.open_table(table::AUDIT)?,
            trails: write.open_table(table::TRAILS)?,
            trail_expiry: write.open_table(table::TRAIL_EXPIRY)?,
            feed: write.open_table(table::REVOCATIONS)?,
            meta: write.open_table(table::META)?,
            bounds,
            touches,
            held: HashMap::new(),
            touched: Vec::new(),
            wrote: false,
        })
    }

    pub fn commit(&mut self, commit: &Commit) -> Result<Outcome, StoreError> {
        let held = self.hold(commit.handle)?;
        let applied = apply(held.entry.as_deref(), commit);
        if let Some(entry) = applied.entry {
            held.entry = Some(Arc::new(entry));
            held.changed = true;
        }
        for record in records(&applied.outcome) {
            self.append(commit.handle, record)?;
        }
        Ok(applied.outcome)
    }

    pub fn revoke(&mut self, revocation: &Revocation) -> Result<(), StoreError> {
        let unwritable = |_| StoreError::Unavailable("a revocation could not be written as JSON".into());
        let text = serde_json::to_vec(revocation).map_err(unwritable)?;
        let last = self.meta.get(table::LAST_REVOCATION)?.and_then(|number| table::leading(number.value()));
        let number = last.unwrap_or(0).saturating_add(1).to_be_bytes();
        self.meta.insert(table::LAST_REVOCATION, &number[..])?;
        self.feed.insert(&table::at(revocation.until, &number)[..], &text[..])?;
        self.wrote = true;
        Ok(())
    }

    /// Takes up touches that wait, at most `limit`; those of damaged entries are dropped.
    pub fn write_touches(&mut self, limit: usize) -> Result<(), StoreError> {
        for handle in self.touches.some(limit) {
            match self.hold(handle) {
                Ok(_) | Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The entry under a handle, with the touch that waits for it: what a commit is decided against.
    fn hold(&mut self, handle: Handle) -> Result<&mut Held, StoreError> {
        match self.held.entry(handle) {
            Place::Occupied(place) => Ok(place.into_mut()),
            Place::Vacant(place) => {
                let touch = self.touches.of(handle);
                self.touched.extend(touch.map(|touch| (handle, touch)));
                let mut entry = table::entry_in(&self.entries, handle)?.map(|kept| kept.entry);
                let indexed = entry.as_deref().map(Indexed::of);
                let slid = entry.as_mut().zip(touch).is_some_and(|(entry, touch)| entry.touch(touch.birth, touch.at));
                Ok(place.insert(Held { indexed, entry, changed: slid }))
            }
        }
    }

    /// Adds to a trail under the next position, and trims it.
    fn append(&mut self, handle: Handle, record: &str) -> Result<(), StoreError> {
        let (last, ends) = self.trail_of(handle)?;
        let last = last.saturating_add(1);
        self.audit.insert(&table::position(handle, last)[..], record.as_bytes())?;
        // A new session has a trail that ends no more, before a sweep in this same transaction.
        if let Some(ends) = ends {
            self.trail_expiry.remove(&table::at(ends, &handle.0)[..])?;
        }
        self.write_trail(handle, last, None)?;
        match last.saturating_sub(u64::from(self.bounds.keep)) {
            0 => Ok(()),
            gone => self.trim(handle, gone),
        }
    }

    /// Removes a trail's records up to that position.
    fn trim(&mut self, handle: Handle, gone: u64) -> Result<(), StoreError> {
        let (first, last) = (table::position(handle, 0), table::position(handle, gone));
        Ok(self.audit.retain_in::<&[u8], _>(&first[..]..=&last[..], |_, _| false)?)
    }

    /// The last position in a trail, and when the trail ends.
    fn trail_of(&self, handle: Handle) -> Result<(u64, Option<Time>), StoreError> {
        let row = self.trails.get(&handle.0[..])?;
        let numbers = row.and_then(|row| table::leading(row.value()).zip(table::trailing(row.value())));
        let (last, ends) = numbers.unwrap_or_default();
        Ok((last, Some(Time(ends)).filter(|ends| *ends != Time(0))))
    }

    fn write_trail(&mut self, handle: Handle, last: u64, ends: Option<Time>) -> Result<(), StoreError> {
        let row = [last.to_be_bytes(), ends.unwrap_or(Time(0)).0.to_be_bytes()].concat();
        self.trails.insert(&handle.0[..], &row[..])?;
        Ok(())
    }

    /// Lets a trail go some time after the session's end, or not at all while it lives.
    fn end_trail(&mut self, handle: Handle, over_at: Option<Time>) -> Result<(), StoreError> {
        let (last, before) = self.trail_of(handle)?;
        let ends = over_at.map(|at| at.plus(self.bounds.retain));
        if let Some(before) = before {
            self.trail_expiry.remove(&table::at(before, &handle.0)[..])?;
        }
        if let Some(ends) = ends {
            self.trail_expiry.insert(&table::at(ends, &handle.0)[..], table::NOTHING)?;
        }
        self.write_trail(handle, last, ends)
    }

    /// Removes what is over; true if there may be more.
    pub fn sweep(&mut self, now: Time) -> Result<bool, StoreError> {
        let entries = due(&self.expiry, now, SWEEP_ENTRIES)?;
        let trails = due(&self.trail_expiry, now, SWEEP_TRAILS)?;
        let feed = due(&self.feed, now, SWEEP_ENTRIES)?;
        let more = entries.len() == SWEEP_ENTRIES || trails.len() == SWEEP_TRAILS || feed.len() == SWEEP_ENTRIES;
        for key in &entries {
            self.sweep_entry(key, now)?;
        }
        for key in &trails {
            self.sweep_trail(key)?;
        }
        for key in &feed {
            self.feed.remove(&key[..])?;
        }
        self.wrote |= !(entries.is_empty() && trails.is_empty() && feed.is_empty());
        Ok(more)
    }

    fn sweep_entry(&mut self, key: &[u8], now: Time) -> Result<(), StoreError> {
        self.expiry.remove(key)?;
        let Some(handle) = table::trailing_handle(key) else { return Ok(()) };
        match self.hold(handle) {
            // A touch that waited has slid its expiry, or a commit before in this batch has replaced it: it is
            // written with its new place in the index.
            Ok(held) if held.entry.as_ref().is_some_and(|entry| now < entry.forgotten_at()) => {}
            Ok(held) => {
                held.entry = held.entry.as_ref().and_then(|entry| remains(entry, now)).map(Arc::new);
                held.changed = true;
            }
            // Its time is over by the index; what it was can no longer be told.
            Err(StoreError::Damaged(_)) => {
                self.entries.remove(&handle.0[..])?;
                self.end_trail(handle, table::leading(key).map(Time))?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn sweep_trail(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.trail_expiry.remove(key)?;
        let Some(handle) = table::trailing_handle(key) else { return Ok(()) };
        let (_, ends) = self.trail_of(handle)?;
        // A trail that goes on, under a session that came after, has another end or none.
        if ends == table::leading(key).map(Time) {
            self.trim(handle, u64::MAX)?;
            self.trails.remove(&handle.0[..])?;
        }
        Ok(())
    }

    /// Writes the entries that changed, with their indexes.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        let mut written = Vec::new();
        for (handle, held) in std::mem::take(&mut self.held) {
            if held.changed {
                let kept = self.put(handle, held.entry)?;
                self.index(handle, held.indexed, kept.as_ref().map(|kept| Indexed::of(&kept.entry)))?;
                written.push((handle, kept));
            }
        }
        let any = self.wrote || !written.is_empty();
        Ok(Written { entries: written, touches: self.touched, any })
    }

    fn put(&mut self, handle: Handle, entry: Option<Arc<Entry>>) -> Result<Option<Kept>, StoreError> {
        let Some(entry) = entry else {
            self.entries.remove(&handle.0[..])?;
            return Ok(None);
        };
        let unwritable = |_| StoreError::Unavailable("an entry could not be written as JSON".into());
        let text = serde_json::to_vec(&entry).map_err(unwritable)?;
        self.entries.insert(&handle.0[..], &text[..])?;
        Ok(Some(Kept { entry, bytes: text.len() }))
    }

    fn index(&mut self, handle: Handle, before: Option<Indexed>, now: Option<Indexed>) -> Result<(), StoreError> {
        if let Some(before) = before {
            self.expiry.remove(&table::at(before.forgotten_at, &handle.0)[..])?;
            if let Some((user, created_at)) = before.listing {
                self.users.remove(&table::listing(user, created_at, handle)[..])?;
            }
        }
        if let Some(now) = now {
            self.expiry.insert(&table::at(now.forgotten_at, &handle.0)[..], table::NOTHING)?;
            if let Some((user, created_at)) = now.listing {
                self.users.insert(&table::listing(user, created_at, handle)[..], table::NOTHING)?;
            }
        }
        match (before, now) {
            (Some(before), Some(now)) if before.is_living && now.is_living => Ok(()),
            (_, Some(now)) => self.end_trail(handle, (!now.is_living).then_some(now.over_at)),
            (Some(before), None) => self.end_trail(handle, Some(before.over_at)),
            (None, None) => Ok(()),
        }
    }
}

/// The first keys of an index by time that are due, at most `limit`.
fn due(index: &Rows<'_>, now: Time, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let end = table::at(Time(now.0.saturating_add(1)), table::NOTHING);
    let mut keys = Vec::new();
    for row in index.range::<&[u8]>(..&end[..])?.take(limit) {
        keys.push(row?.0.value().to_vec());
    }
    Ok(keys)
}

/// Whether a sweep would find anything.
pub(super) fn is_due(read: &redb::ReadTransaction, now: Time) -> Result<bool, StoreError> {
    for definition in [table::EXPIRY, table::TRAIL_EXPIRY, table::REVOCATIONS] {
        let first = read.open_table(definition)?.first()?.and_then(|(key, _)| table::leading(key.value()));
        if first.is_some_and(|at| at <= now.0) {
            return Ok(true);
        }
    }
    Ok(false)
}
