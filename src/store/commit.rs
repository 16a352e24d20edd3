//! One atomic change of a session, and what becomes of it.

use std::fmt;
use std::sync::Arc;

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, SecretHash, UserKey};

use super::entry::Record;

/// One atomic change with its audit record.
#[derive(Debug, Clone)]
pub struct Commit {
    pub id: CommitId,
    pub handle: Handle,
    pub now: Time,
    pub effect: Effect,
    /// The audit record, which the store completes with `seq` and `revision`.
    pub record: Draft,
}

/// What a commit does.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Puts a new session where none lives. A tombstone stands in the way, unless it yields to the session's login,
    /// which then keeps the time of the revocation; an expired session does not, but for what remains of it.
    Create(Box<Record>),
    /// Puts a new session in the place of a living one of that birth, which is over with it.
    Replace(Box<Replace>),
    /// Changes a living session.
    Change(Box<Change>),
    /// Replaces a living session by a tombstone, whatever its revision.
    Revoke { birth: Option<Birth>, until: Time },
    /// Adds the audit record only, to a living session.
    Note { birth: Birth },
    /// Seals values of a living session anew, all or none, each only where it is sealed as it was when it was read.
    ///
    /// No value changes by it: the revision stays, and no writer meets a conflict.
    Reseal { birth: Birth, values: Vec<Resealed> },
}

/// A session in the place of another.
#[derive(Debug, Clone)]
pub struct Replace {
    /// Of the session that is over.
    pub birth: Birth,
    pub record: Record,
    /// The last audit record of the session that is over.
    pub ended: Draft,
}

/// One value, sealed anew.
#[derive(Debug, Clone)]
pub struct Resealed {
    pub path: Arc<str>,
    /// The JSON text that was read.
    pub before: Arc<str>,
    pub after: Arc<str>,
}

/// Changes to a living session, all or none.
#[derive(Clone)]
pub struct Change {
    pub base: Base,
    /// Commit only at that very revision.
    pub if_match: Option<u64>,
    /// Field and JSON text.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    pub unset: Vec<Arc<str>>,
    /// Raises the schema version; never lowers it.
    pub schema: Option<u32>,
    /// The `iat` of the token that the change comes from. Where the session has seen one that is not older, nothing of
    /// the change is done; with no change beside it, it is noted without an audit record.
    pub claims_at: Option<u64>,
    /// The user whose session it is from now on, where the change says so.
    pub user: Option<Option<UserKey>>,
    pub rotate: Option<Rotate>,
    /// Revokes the session in the same step; the tombstone stands until then.
    pub end: Option<Time>,
    /// What it does to the session's size, where that was counted.
    pub growth: Option<Growth>,
}

/// Which fields, and not what they are set to.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<&str> = self.set.iter().map(|(path, _)| &**path).collect();
        let mut change = f.debug_struct("Change");
        change.field("base", &self.base).field("if_match", &self.if_match).field("set", &set);
        change.field("unset", &self.unset).field("end", &self.end).finish_non_exhaustive()
    }
}

/// How much larger or smaller a change makes a session, in bytes as its fields would be sent.
///
/// Fields of a change that merges stand as they were read, so that the difference holds whatever others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The size that was read, and at which revision.
    pub from: u64,
    pub at: u64,
    /// The size after the change, had nobody else written.
    pub to: u64,
    /// No change may make a session larger than this. One that is larger already may still shrink.
    pub most: u64,
}

impl Growth {
    /// The size of a session at that revision after the change, given the size kept with it; none if it is too large.
    pub fn of(&self, revision: u64, kept: Option<u64>) -> Option<u64> {
        let now = kept.filter(|_| revision != self.at).unwrap_or(self.from);
        let after = now.saturating_add(self.to).saturating_sub(self.from);
        (self.to <= self.from || after <= self.most).then_some(after)
    }
}

/// What a change was based on.
#[derive(Debug, Clone)]
pub struct Base {
    pub birth: Birth,
    /// The revision that was read.
    pub revision: u64,
    /// The revision that the same exchange committed since, with which it does not conflict.
    pub own: Option<u64>,
}

/// A new secret in place of the current one.
#[derive(Debug, Clone)]
pub struct Rotate {
    /// The secret that the request came with: only the current one may be replaced.
    pub current: SecretHash,
    pub next: SecretHash,
    /// How long the current one still passes.
    pub grace_until: Time,
}

/// An audit record without `seq` and `revision`: the text of a JSON object, its closing brace left off.
#[derive(Debug, Clone)]
pub struct Draft(pub(super) Arc<String>);

impl Draft {
    /// Takes the text of a JSON object with at least one member.
    pub fn new(object: impl Into<String>) -> Option<Self> {
        let mut object = object.into();
        object.pop().filter(|last| *last == '}').map(|_| Self(object.into()))
    }

    pub fn complete(&self, seq: u64, revision: u64) -> String {
        let (mut seq_text, mut revision_text) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (seq, revision) = (seq_text.format(seq), revision_text.format(revision));
        [self.0.as_str(), ",\"seq\":", seq, ",\"revision\":", revision, "}"].concat()
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied; `record` is the completed audit record, absent when the commit had been applied before.
    Done {
        revision: u64,
        seq: u64,
        record: Option<String>,
    },
    /// Put in the place of another, whose last audit record comes before its own first.
    Replaced {
        ended: Option<String>,
        record: String,
    },
    /// All checks hold and there was nothing to change.
    Unchanged {
        revision: u64,
    },
    Conflict(Conflict),
    /// No such session: expired or never there.
    NotFound,
    Revoked,
    /// A session lives under the handle already.
    Exists,
    /// The secret to be replaced is not the current one; nothing was changed.
    SecretChanged,
    /// The session would be over its size, with what others wrote meanwhile.
    TooLarge,
}

/// Why a change may not be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A later session lives under the same handle.
    Birth,
    /// The session is not at the revision that `If-Match` names.
    Revision,
    /// Another writer changed or unset that field after the base.
    Field(Arc<str>),
}
