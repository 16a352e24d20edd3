//! Where sessions are kept: the [`Store`] trait and its homes.
//!
//! Every change to a session is one [`Commit`], applied atomically together with its audit record. What a
//! commit does to an entry is decided in one place, [`apply`], for every home that runs in this process;
//! a home elsewhere has to decide the same.

mod apply;
mod commit;
mod embedded;
mod entry;
mod memory;
mod redis;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::handle::{Birth, Handle, TokenKey, UserKey};
use crate::quota::Quota;

pub use apply::{Applied, apply};
use apply::{records, remains};
pub use commit::{Base, Change, Commit, Conflict, Draft, Effect, Growth, Outcome, Replace, Resealed, Rotate};
pub use embedded::{Embedded, OpenError};
pub use entry::{Entry, Past, PreviousSecret, Proof, Recent, Record, Stored, TokenProof, Tombstone};
pub use memory::Memory;
pub use redis::{Redis, Unusable};

/// What a store gives back, once it can.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps sessions, their audit trails and the index of users.
///
/// Every operation that names a time takes the caller's clock: a store has none of its own.
pub trait Store: Send + Sync + 'static {
    /// What stands under a handle, where that is certain without asking anybody.
    fn at_hand(&self, handle: Handle) -> Option<Arc<Entry>> {
        let _ = handle;
        None
    }

    /// Reads what stands under a handle, expired or not; the caller judges by its clock.
    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>>;

    /// The same, past whatever is at hand.
    fn load_anew(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        self.load(handle)
    }

    /// What was known last to stand under a handle, for as long as that may be gone by while the home is away.
    fn last_known(&self, handle: Handle) -> Option<Arc<Entry>> {
        let _ = handle;
        None
    }

    /// Applies one commit, or says why not; either way nothing else of it is seen.
    ///
    /// A home is durable when it answers: a commit answered [`Outcome::Done`] outlives the process, as far as
    /// the home promises that at all.
    fn commit(&self, commit: Commit) -> Reply<'_, Outcome>;

    /// Slides the idle expiry of the living session of that birth to `now`; false if there is none.
    ///
    /// Never moves it back, never brings a session back, is not durable at once.
    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool>;

    /// The audit trail, newest first: at most `limit` records older than `before` (a position, exclusive).
    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail>;

    /// The handles that the index lists for a user, oldest session first.
    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>>;

    /// The handles of all entries in byte order, at most `limit` after `after`.
    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>>;

    /// Adds to the feed of revocations.
    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()>;

    /// The whole feed, oldest first, without what has ended by `now`.
    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>>;

    /// Tells of every revocation in the feed, and of each that is added by whomever, if this home can be shared.
    ///
    /// False, and nothing is told, of a home of this process alone: the feed is to be read, and grows by nobody else.
    fn follow(&self, listener: Listener) -> bool;

    /// Takes one of a quota that all share who share the home, by a time of the home's own: their clocks differ.
    ///
    /// None, of a home of this process alone: whoever asks has nobody to share with, and may as well count.
    fn take(&self, _key: &str, _quota: Quota) -> Option<Reply<'_, Taken>> {
        None
    }

    /// Whether sessions can be served now.
    fn reachable(&self) -> Reply<'_, ()> {
        let first = self.handles(None, 1);
        Box::pin(async move { first.await.map(drop) })
    }

    /// What operators should know although sessions are served.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// What a home counts.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Keys under which something else stood than a session.
    pub damaged: Counter,
    /// Changes that too few replicas had in time.
    pub unreplicated: Counter,
}

/// Who is told of revocations, in the order of the feed; may be told of one more than once.
pub type Listener = Arc<dyn Fn(&Revocation) + Send + Sync>;

/// What became of taking one of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    One,
    /// All are taken; the first comes back after so long.
    NoneFor(Duration),
}

/// A page of a trail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// JSON texts, newest first.
    pub records: Vec<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
}

/// Something that is no longer to be believed, wherever it turns up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    #[serde(flatten)]
    pub of: Revoked,
    /// When it may be forgotten.
    pub until: Time,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    Session {
        handle: Handle,
        birth: Birth,
    },
    /// All of a user's sessions created before that time, and tokens of older logins.
    User {
        user: UserKey,
        not_before: Time,
    },
    /// One token.
    Token {
        token: TokenKey,
    },
}

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store did not answer in time")]
    Timeout,
    #[error("the store could not be reached: {0}")]
    Unavailable(String),
    /// It may have been done, or may still be; a commit that is asked for again tells.
    #[error("the store did not say whether it was written")]
    Unknown,
    #[error("what the store holds under {0} cannot be read")]
    Damaged(Handle),
    #[error("the store is closing")]
    Closed,
}

/// What a store keeps of audit trails.
#[derive(Debug, Clone, Copy)]
pub struct TrailBounds {
    /// Records per session.
    pub keep: u32,
    /// How long a trail outlives its session, counted from expiry or revocation: a tombstone may stand longer.
    pub retain: Duration,
}
