//! What a commit leaves in the cache: the session as it is now, so that nobody has to read it.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::cache::Kept;
use super::keep::Role;
use super::link::Line;
use super::pipe::Echo;
use super::{Core, dial, frame};
use crate::clock::Time;
use crate::handle::{Birth, Handle};
use crate::store::apply::follow;
use crate::store::{Commit, Entry, Proof};

/// A commit on its way, and what was known before it.
///
/// The server tells of one's own change as of another's, and forgets who has read the key. The script reads it once
/// more after its last write, so that its connection is told of the next change; and that the word of this one has
/// nothing to tell is known by its place, right behind the answer (`Echo`). Leaving that word out by `NOLOOP` would
/// leave out others with it.
pub(super) struct Written {
    core: Weak<Core>,
    commit: Arc<Commit>,
    /// How the server says that the session has changed; empty where it says nothing.
    said: Vec<u8>,
    before: Option<Arc<Entry>>,
}

impl Written {
    /// Of a commit under that key.
    pub fn new(core: &Arc<Core>, commit: &Arc<Commit>, key: &str) -> Arc<Self> {
        let said = if core.tracking { dial::invalidation(key) } else { Vec::new() };
        let before = core.cache.held(commit.handle);
        Arc::new(Self { core: Arc::downgrade(core), commit: commit.clone(), said, before })
    }

    pub fn handle(&self) -> Handle {
        self.commit.handle
    }

    /// What is done once the answer comes on that line.
    pub fn echo(self: &Arc<Self>, line: &Line, asked_at: Instant) -> Echo {
        let (written, number) = (self.clone(), line.number);
        let said = if line.untold.is_none() { self.said.clone() } else { Vec::new() };
        let told = !said.is_empty();
        let answered = Box::new(move |answer: &[u8]| {
            let Some(core) = written.core.upgrade() else { return false };
            let entry = told.then(|| written.entry(&core, answer)).flatten();
            let keeps = entry.is_some();
            match entry {
                Some(entry) => {
                    let (entry, role) = (Arc::new(entry), Role::Writes);
                    core.cache.put(written.commit.handle, Kept { entry, role, line: number, told, asked_at });
                }
                // What is kept is older than the answer.
                None => core.cache.forget(written.commit.handle),
            }
            keeps
        });
        Echo { said, answered }
    }

    /// The session as the answer says that it is, told from what it was one audit record before.
    fn entry(&self, core: &Core, answer: &[u8]) -> Option<Entry> {
        let words = frame::texts(answer)?;
        let ["done", revision, seq, birth, _, _, _, last_active, claims_at] = *words else { return None };
        let (revision, seq, birth) = (revision.parse().ok()?, seq.parse().ok()?, Birth::parse(birth)?);
        let after = |entry: &Entry| {
            let Entry::Living(record) = entry else { return None };
            let next = follow(record, &self.commit)?;
            (next.birth == birth && (next.revision, next.seq) == (revision, seq)).then_some(next)
        };
        let held = core.cache.held(self.commit.handle);
        let mut record = held.as_deref().and_then(after).or_else(|| self.before.as_deref().and_then(after))?;
        // What changes without an audit record.
        record.last_active = Time(last_active.parse().ok()?);
        if let Proof::Token(token) = &mut record.proof {
            token.claims_at = claims_at.parse().ok()?;
        }
        Some(Entry::Living(record.into()))
    }
}
