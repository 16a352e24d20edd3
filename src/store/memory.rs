//! Sessions in this process's memory, gone with it: for development and tests.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Commit, Entry, Listener, Outcome, Reply, Revocation, Store, Trail, TrailBounds, apply, records, remains};
use crate::clock::Time;
use crate::handle::{Birth, Handle, UserKey};

/// How often, by its callers' clock, what is over is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Entries and trails that one sweep removes at most, so that no caller waits long for the lock.
const SWEEP_MOST: usize = 1024;

/// Keeps everything in one map behind one lock, which is never held over an await.
#[derive(Debug)]
pub struct Memory(Mutex<State>);

impl Memory {
    pub fn new(bounds: TrailBounds) -> Self {
        Self(Mutex::new(State::new(bounds)))
    }

    /// What a panic under the lock left is whole enough: every step leaves entries and indexes readable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        Box::pin(ready(Ok(self.state().entries.get(&handle).cloned())))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        Box::pin(ready(Ok(self.state().commit(&commit))))
    }

    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool> {
        Box::pin(ready(Ok(self.state().touch(handle, birth, now))))
    }

    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail> {
        let page = self.state().trails.get(&handle).map(|log| log.page(before, limit));
        Box::pin(ready(Ok(page.unwrap_or_default())))
    }

    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>> {
        let (first, last) = ((user, Time(0), Handle([0; 16])), (user, Time::MAX, Handle([0xff; 16])));
        let handles = self.state().users.range(first..=last).map(|(_, _, handle)| *handle).collect();
        Box::pin(ready(Ok(handles)))
    }

    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let handles = self.state().entries.range((from, Unbounded)).take(limit).map(|(handle, _)| *handle).collect();
        Box::pin(ready(Ok(handles)))
    }

    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()> {
        self.state().feed.push(revocation);
        Box::pin(ready(Ok(())))
    }

    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>> {
        let mut state = self.state();
        state.feed.retain(|revocation| now < revocation.until);
        Box::pin(ready(Ok(state.feed.clone())))
    }

    fn follow(&self, _: Listener) -> bool {
        false
    }
}

#[derive(Debug)]
struct State {
    bounds: TrailBounds,
    entries: BTreeMap<Handle, Arc<Entry>>,
    /// Entries by the time they may be swept.
    expiry: BTreeSet<(Time, Handle)>,
    users: BTreeSet<(UserKey, Time, Handle)>,
    trails: HashMap<Handle, Log>,
    /// Trails of sessions that are over, by the time they may be swept.
    trail_expiry: BTreeSet<(Time, Handle)>,
    feed: Vec<Revocation>,
    swept: Time,
}

impl State {
    fn new(bounds: TrailBounds) -> Self {
        Self {
            bounds,
            entries: BTreeMap::new(),
            expiry: BTreeSet::new(),
            users: BTreeSet::new(),
            trails: HashMap::new(),
            trail_expiry: BTreeSet::new(),
            feed: Vec::new(),
            swept: Time(0),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Outcome {
        self.sweep(commit.now);
        let applied = apply(self.entries.get(&commit.handle).map(Arc::as_ref), commit);
        for record in records(&applied.outcome) {
            self.trails.entry(commit.handle).or_default().append(record.to_owned(), self.bounds.keep);
        }
        if let Some(entry) = applied.entry {
            self.put(commit.handle, Arc::new(entry));
        }
        applied.outcome
    }

    fn touch(&mut self, handle: Handle, birth: Birth, now: Time) -> bool {
        self.sweep(now);
        match self.entries.get(&handle).filter(|entry| entry.is_living(birth, now)).cloned() {
            Some(mut entry) => {
                entry.touch(birth, now);
                self.put(handle, entry);
                true
            }
            None => false,
        }
    }

    fn put(&mut self, handle: Handle, entry: Arc<Entry>) {
        self.remove(handle);
        self.expiry.insert((entry.forgotten_at(), handle));
        if let Some((user, created_at)) = entry.listing() {
            self.users.insert((user, created_at, handle));
        }
        let ends = matches!(*entry, Entry::Revoked(_)).then(|| entry.over_at());
        self.end_trail(handle, ends);
        self.entries.insert(handle, entry);
    }

    fn remove(&mut self, handle: Handle) -> Option<Arc<Entry>> {
        let Place::Occupied(place) = self.entries.entry(handle) else { return None };
        let entry = place.remove();
        self.expiry.remove(&(entry.forgotten_at(), handle));
        if let Some((user, created_at)) = entry.listing() {
            self.users.remove(&(user, created_at, handle));
        }
        Some(entry)
    }

    /// Lets the trail go some time after the session's end, or not at all while it lives.
    fn end_trail(&mut self, handle: Handle, over_at: Option<Time>) {
        let Some(log) = self.trails.get_mut(&handle) else { return };
        if let Some(before) = log.ends {
            self.trail_expiry.remove(&(before, handle));
        }
        log.ends = over_at.map(|at| at.plus(self.bounds.retain));
        self.trail_expiry.extend(log.ends.map(|at| (at, handle)));
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) < SWEEP_EVERY {
            return;
        }
        let mut room = SWEEP_MOST;
        while let Some(handle) = due(&self.expiry, now, &mut room) {
            let gone = self.remove(handle);
            self.end_trail(handle, gone.as_ref().map(|entry| entry.over_at()));
            if let Some(rest) = gone.and_then(|entry| remains(&entry, now)) {
                self.expiry.insert((rest.forgotten_at(), handle));
                self.entries.insert(handle, Arc::new(rest));
            }
        }
        while let Some(handle) = due(&self.trail_expiry, now, &mut room) {
            self.end_trail(handle, None);
            self.trails.remove(&handle);
        }
        self.feed.retain(|revocation| now < revocation.until);
        if room > 0 {
            self.swept = now;
        }
    }
}

fn due(queue: &BTreeSet<(Time, Handle)>, now: Time, room: &mut usize) -> Option<Handle> {
    *room = room.checked_sub(1)?;
    queue.first().filter(|(at, _)| *at <= now).map(|(_, handle)| *handle)
}

/// A session's trail: the last records, and the position of the newest.
#[derive(Debug, Default)]
struct Log {
    records: VecDeque<String>,
    last: u64,
    ends: Option<Time>,
}

impl Log {
    fn append(&mut self, record: String, keep: u32) {
        self.last += 1;
        self.records.push_back(record);
        while self.records.len() > keep as usize {
            self.records.pop_front();
        }
    }

    fn page(&self, before: Option<u64>, limit: usize) -> Trail {
        let older = |(position, _): &(u64, &String)| before.is_none_or(|before| *position < before);
        let positions = (1..=self.last).rev();
        let mut rest = positions.zip(self.records.iter().rev()).filter(older);
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().and_then(|_| page.last().map(|(position, _)| *position));
        Trail { records: page.into_iter().map(|(_, record)| record.clone()).collect(), next }
    }
}
