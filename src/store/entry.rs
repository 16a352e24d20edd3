//! What stands under a handle.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::handle::{Birth, CommitId, SecretHash, UserKey};

/// What stands under a handle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Living(Arc<Record>),
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
    pub(super) fn touch(self: &mut Arc<Self>, birth: Birth, now: Time) -> bool {
        match &**self {
            Self::Living(record) if record.birth == birth && record.last_active < now => {}
            Self::Living(_) | Self::Revoked(_) => return false,
        }
        if let Self::Living(record) = Arc::make_mut(self) {
            Arc::make_mut(record).last_active = now;
        }
        true
    }

    pub(super) fn is_living(&self, birth: Birth, now: Time) -> bool {
        matches!(self, Self::Living(record) if record.birth == birth && record.is_living(now))
    }

    pub(super) fn recent(&self) -> &VecDeque<Recent> {
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// JSON; for a sensitive field the JSON string of its sealed value.
    #[serde(rename = "v")]
    pub json: Arc<str>,
    #[serde(rename = "r")]
    pub revision: u64,
}

/// Without the value, which is nobody's to read in a log.
impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("revision", &self.revision).finish_non_exhaustive()
    }
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
