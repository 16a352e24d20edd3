//! What a commit leaves in the cache: the session as it is now, so that nobody has to read it.

use std::sync::{Arc, Weak};

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
    before: Option<Kept>,
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
    pub fn echo(self: &Arc<Self>, line: &Line) -> Echo {
        let (written, number) = (self.clone(), line.number);
        let said = if line.untold.is_none() { self.said.clone() } else { Vec::new() };
        let answered = Box::new(move |answer: Option<&[u8]>| {
            let Some(core) = written.core.upgrade() else { return false };
            let kept = answer.and_then(|answer| written.kept(&core, answer, number));
            let keeps = kept.is_some();
            match kept {
                Some(kept) => core.cache.put(written.commit.handle, kept),
                // What is kept is older than the answer.
                None => core.cache.forget(written.commit.handle),
            }
            keeps
        });
        Echo { said, answered }
    }

    /// The session as the answer says that it is, told from what it was one commit before: the answer names that commit,
    /// since after a failover other commits may have the same numbers. How old it may get counts from when it was read.
    fn kept(&self, core: &Core, answer: &[u8], line: u64) -> Option<Kept> {
        let words = frame::texts(answer)?;
        let ["done", revision, seq, birth, _, _, _, last_active, claims_at, after] = *words else { return None };
        let (revision, seq, birth) = (revision.parse().ok()?, seq.parse().ok()?, Birth::parse(birth)?);
        let next = |kept: &Kept| {
            let Entry::Living(record) = &*kept.entry else { return None };
            let follows = record.birth == birth && *record.recent.back()?.id.text() == *after;
            let next = follows.then(|| follow(record, &self.commit)).flatten()?;
            ((next.revision, next.seq) == (revision, seq)).then_some((next, kept.asked_at))
        };
        let held = core.cache.held(self.commit.handle);
        let (mut record, asked_at) = held.as_ref().and_then(next).or_else(|| self.before.as_ref().and_then(next))?;
        // What changes without a commit that is remembered.
        record.last_active = Time(last_active.parse().ok()?);
        if let Proof::Token(token) = &mut record.proof {
            token.claims_at = claims_at.parse().ok()?;
        }
        let entry = Arc::new(Entry::Living(record.into()));
        Some(Kept { entry, role: Role::Writes, line, told: true, asked_at })
    }
}
