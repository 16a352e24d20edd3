//! Where sessions are kept: the [`Store`] trait and its homes.
//!
//! Every change to a session is one [`Commit`], applied atomically together with its audit record. What a
//! commit does to an entry is decided in one place, [`apply`], for every home that runs in this process;
//! a home elsewhere has to decide the same.

mod apply;
mod embedded;
mod memory;
mod redis;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, SecretHash, TokenKey, UserKey};
use crate::quota::Quota;

pub use apply::{Applied, apply};
use apply::{records, remains};
pub use embedded::{Embedded, OpenError};
pub use memory::Memory;
pub use redis::{Redis, Unusable};

/// What a store gives back, once it can.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps sessions, their audit trails and the index of users.
///
/// Every operation that names a time takes the caller's clock: a store has none of its own.
pub trait Store: Send + Sync + 'static {
    /// Reads what stands under a handle, expired or not; the caller judges by its clock.
    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>>;

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

/// What stands under a handle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Living(Record),
    Revoked(Tombstone),
}

impl Entry {
    /// When it counts as absent, and a home may sweep it.
    pub fn forgotten_at(&self) -> Time {
        match self {
            Self::Living(record) => record.dead_at(),
            Self::Revoked(tombstone) => tombstone.until,
        }
    }

    /// When the session was over, which is what the time that its trail is kept counts from.
    pub fn over_at(&self) -> Time {
        match self {
            Self::Living(record) => record.dead_at(),
            Self::Revoked(tombstone) => tombstone.over_at.unwrap_or(tombstone.revoked_at),
        }
    }

    /// What is left under the handle of a session that is over: the revocation that it came after, while that stands.
    pub fn remains(&self) -> Option<Tombstone> {
        let Self::Living(record) = self else { return None };
        let past = record.proof.token()?.after?;
        let Past { at: revoked_at, until } = past;
        let recent = VecDeque::new();
        let over_at = Some(record.dead_at());
        Some(Tombstone { birth: record.birth, revoked_at, until, over_at, seq: record.seq, yields: true, recent })
    }

    /// What the index of users says of it: whose it is and when it was created.
    pub fn listing(&self) -> Option<(UserKey, Time)> {
        match self {
            Self::Living(record) => record.user.map(|user| (user, record.created_at)),
            Self::Revoked(_) => None,
        }
    }

    /// Slides the idle expiry to `now`, of a living session of that birth only; never back.
    fn touch(self: &mut Arc<Self>, birth: Birth, now: Time) -> bool {
        match &**self {
            Self::Living(record) if record.birth == birth && record.last_active < now => {}
            Self::Living(_) | Self::Revoked(_) => return false,
        }
        if let Self::Living(record) = Arc::make_mut(self) {
            record.last_active = now;
        }
        true
    }

    fn is_living(&self, birth: Birth, now: Time) -> bool {
        matches!(self, Self::Living(record) if record.birth == birth && record.is_living(now))
    }

    fn recent(&self) -> &VecDeque<Recent> {
        match self {
            Self::Living(record) => &record.recent,
            Self::Revoked(tombstone) => &tombstone.recent,
        }
    }
}

/// A session as the store keeps it: field values are JSON texts, sealed where sensitive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub birth: Birth,
    /// The schema version that the fields are written in.
    pub schema: u32,
    /// Commits that changed fields, creation being 1.
    pub revision: u64,
    /// Audit records of this birth.
    pub seq: u64,
    /// The bytes of all fields as they would be sent, as whoever wrote last has counted them; none if nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub proof: Proof,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserKey>,
    pub created_at: Time,
    pub last_active: Time,
    /// Absolute expiry.
    pub ends_at: Time,
    /// Idle lifetime, in milliseconds.
    pub idle: u64,
    /// How old a touch is before the next, in milliseconds; added to `idle` so that no session dies early.
    pub touch_interval: u64,
    pub fields: BTreeMap<Arc<str>, Stored>,
    /// The revisions at which fields that are gone were unset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unset: BTreeMap<Arc<str>, u64>,
    /// The last commits, so that one whose answer was lost is told apart from one that never came.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub recent: VecDeque<Recent>,
}

impl Record {
    /// When the session is over: the earlier of its idle and its absolute expiry, the touch interval included.
    pub fn dead_at(&self) -> Time {
        let idle = Duration::from_millis(self.idle.saturating_add(self.touch_interval));
        self.last_active.plus(idle).min(self.ends_at)
    }

    pub fn is_living(&self, now: Time) -> bool {
        now < self.dead_at()
    }

    /// The revision at which a field was last set or unset; 0 if never.
    pub fn changed_at(&self, path: &str) -> u64 {
        let set = self.fields.get(path).map(|stored| stored.revision);
        set.or_else(|| self.unset.get(path).copied()).unwrap_or(0)
    }
}

/// How a session is proven.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// By the secret of its id; after a rotation also by the one before, for a while.
    Secret { hash: SecretHash, previous: Option<PreviousSecret> },
    /// By tokens that lead to it.
    Token(TokenProof),
}

impl Proof {
    pub fn token(&self) -> Option<&TokenProof> {
        match self {
            Self::Token(token) => Some(token),
            Self::Secret { .. } => None,
        }
    }
}

/// Whose tokens prove a session, and what it remembers of those that came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    pub issuer: String,
    pub subject: String,
    /// When the user had logged in, by the token that made the session; in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<u64>,
    /// The latest `iat` whose claims were applied or found to change nothing; in seconds.
    #[serde(default)]
    pub claims_at: u64,
    /// Whether its tombstone yields to a later login.
    #[serde(default)]
    pub yields: bool,
    /// The revocation under the same handle that the session came after; older logins do not prove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Past>,
}

/// A revocation, and how long it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub at: Time,
    pub until: Time,
}

impl Past {
    /// Whether a login came after it: later in whole seconds, since tokens know no finer time.
    pub fn is_before(self, login: Option<u64>) -> bool {
        login.is_some_and(|login| login > self.at.seconds())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PreviousSecret {
    pub hash: SecretHash,
    pub until: Time,
}

/// A field's value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// JSON; for a sensitive field the JSON string of its sealed value.
    #[serde(rename = "v")]
    pub json: Arc<str>,
    #[serde(rename = "r")]
    pub revision: u64,
}

/// What a revoked session leaves under its handle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tombstone {
    pub birth: Birth,
    pub revoked_at: Time,
    /// When it may be forgotten.
    pub until: Time,
    /// When the last session was over, if it was not this revocation that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_at: Option<Time>,
    /// The last audit record's number.
    pub seq: u64,
    /// Whether it makes room for the session of a login that came after it.
    #[serde(default)]
    pub yields: bool,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub recent: VecDeque<Recent>,
}

impl Tombstone {
    pub fn past(&self) -> Past {
        Past { at: self.revoked_at, until: self.until }
    }

    /// Whether it makes room for a session of that login.
    pub fn yields_to(&self, login: Option<u64>) -> bool {
        self.yields && self.past().is_before(login)
    }
}

/// A commit that was applied, and what it was answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recent {
    pub id: CommitId,
    pub revision: u64,
    pub seq: u64,
}

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
#[derive(Debug, Clone)]
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

/// How much larger or smaller a change makes a session, in bytes as its fields would be sent.
///
/// Fields of a change that merges stand as they were read, so that the difference holds whatever others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
pub struct Draft(Arc<str>);

impl Draft {
    /// Takes the text of a JSON object with at least one member.
    pub fn new(object: &str) -> Option<Self> {
        object.strip_suffix('}').map(|open| Self(open.into()))
    }

    pub fn complete(&self, seq: u64, revision: u64) -> String {
        format!("{},\"seq\":{seq},\"revision\":{revision}}}", self.0)
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
