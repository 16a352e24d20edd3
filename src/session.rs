//! Sessions: loaded, proven and migrated; created, changed, rotated and revoked.

mod birth;
mod commit;
mod delta;
mod disclose;
mod live;
mod load;
mod migrate;
mod proposal;
mod require;
mod revocations;
mod revoke;
mod schema;
mod start;
mod state;
mod sweep;
mod token;
mod trail;
mod vault;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::audit::Audit;
use crate::clock::{Clock, Time};
use crate::config;
use crate::handle::{Birth, Handle, NoEntropy, SessionId};
use crate::keyring::{Keyring, LiveKeyring};
use crate::store::{Conflict, Store, StoreError, Trail};
use crate::telemetry::Metrics;

use revocations::Revocations;
use vault::Vault;

pub use birth::Born;
pub use live::{Entering, Live, Presence};
pub use proposal::{Proposal, fits_at_birth};
pub use require::Requirements;
pub use schema::{Field, FieldIndex, Misfit, Schema, is_path};
pub use state::{Decoded, Held, Proven, Session, Shown};
pub use sweep::{KeyUse, KeyUses, Moved};
pub use token::Found;
pub use trail::{Action, Actor, ActorKind};
pub use verify::{Finding, Verdict};

/// Decoded sessions that are kept at hand.
const DECODED: usize = 10_000;
/// How often a migration that lost its race is looked at again.
const MIGRATION_TRIES: usize = 3;

/// Loads and commits sessions.
pub struct Sessions {
    store: Arc<dyn Store>,
    pub schema: Arc<Schema>,
    keys: LiveKeyring,
    clock: Clock,
    environment: Arc<str>,
    terms: Terms,
    store_timeout: Duration,
    live: Live,
    audit: Audit,
    metrics: Metrics,
    trail_kept: u64,
    trail_retained: Duration,
    decoded: Cache<Handle, Arc<Decoded>>,
    revocations: Arc<Revocations>,
}

/// What a configuration has to say of sessions, beside their schema and where they are kept.
struct Terms {
    lifetime: Lifetime,
    rotate_grace: Duration,
    remember_revoked: Duration,
    max_per_user: Option<u32>,
    /// Whose tokens make sessions.
    issuers: Vec<Arc<str>>,
    /// How long after its expiry a token may still pass, whoever issued it.
    leeway: Duration,
}

impl Terms {
    fn compile(config: &config::Config) -> Self {
        let (section, issuers) = (&config.session, config.identity.issuers());
        Self {
            lifetime: Lifetime::compile(&section.lifetime),
            rotate_grace: section.rotate_grace.0,
            remember_revoked: section.remember_revoked.0.max(section.lifetime.absolute.0),
            max_per_user: section.max_per_user,
            issuers: config.identity.names_of_issuers().map(Arc::from).collect(),
            leeway: issuers.iter().map(|issuer| issuer.leeway.0).max().unwrap_or_default(),
        }
    }
}

/// How long sessions live.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    pub idle: Duration,
    pub absolute: Duration,
    pub touch_interval: Duration,
}

impl Lifetime {
    pub fn compile(raw: &config::Lifetime) -> Self {
        let interval = raw.touch_interval.map_or(raw.idle.0 / 30, |period| period.0).max(Duration::from_secs(1));
        Self { idle: raw.idle.0, absolute: raw.absolute.0, touch_interval: interval }
    }
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("there is no such session")]
    NotFound,
    #[error("the session was revoked")]
    Revoked,
    #[error("the secret is not the session's")]
    WrongSecret,
    #[error("there is no session for this token")]
    Uninitialised,
    #[error("the session that the token leads to is somebody else's")]
    Foreign,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a value is sealed under key '{0}', which the keyring does not have")]
    UnknownKey(String),
    #[error("others were first again and again")]
    Contended,
}

/// Why a change did not land.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    #[error("another writer was there first")]
    Conflict(Conflict),
    #[error("the session is gone")]
    NotFound,
    #[error("the session was revoked")]
    Revoked,
    #[error("the session would be over its size, with what others wrote meanwhile")]
    TooLarge,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is such a session already")]
    Exists,
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error("a value could not be sealed or its record not be signed")]
    Crypto,
}

/// A session that could not be made, or not be brought to what it is to be, is none.
impl From<CommitError> for LoadError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotFound => Self::NotFound,
            CommitError::Revoked => Self::Revoked,
            CommitError::Store(error) => Self::Store(error),
            CommitError::Conflict(_) | CommitError::Exists | CommitError::TooLarge => Self::Contended,
            CommitError::Entropy(_) | CommitError::Crypto => {
                Self::Store(StoreError::Unavailable("a commit could not be sealed or signed".into()))
            }
        }
    }
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Committed {
    /// The revision that the session is at since, if anything was committed.
    pub revision: Option<u64>,
    /// The id that the client is to have from now on.
    pub new_id: Option<SessionId>,
    /// Whether a rotation was asked for and passed over: the request had not come with the current secret.
    pub rotation_ignored: bool,
    pub ended: bool,
}

/// A session that was just made.
#[derive(Debug)]
pub struct Created {
    pub id: SessionId,
    pub born: Born,
}

/// What sessions are made of, for [`Sessions::new`].
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub schema: Arc<Schema>,
    pub keys: LiveKeyring,
    pub clock: Clock,
    pub live: Live,
    pub audit: Audit,
    pub metrics: Metrics,
}

impl Sessions {
    pub fn new(parts: Parts, config: &config::Config) -> Self {
        Self {
            store: parts.store,
            schema: parts.schema,
            keys: parts.keys,
            clock: parts.clock,
            environment: config.environment.as_str().into(),
            terms: Terms::compile(config),
            store_timeout: config.store.timeout.0,
            live: parts.live,
            audit: parts.audit,
            metrics: parts.metrics,
            trail_kept: config.audit.keep.into(),
            trail_retained: config.audit.retain.0,
            decoded: Cache::new(DECODED),
            revocations: Arc::default(),
        }
    }

    /// The same sessions as another configuration has them: one store, one register of what is open, one set of
    /// revocations. Where they are kept, and how much of their trails, stays as it was.
    pub fn under(&self, schema: Arc<Schema>, config: &config::Config) -> Self {
        Self {
            store: self.store.clone(),
            schema,
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            environment: self.environment.clone(),
            terms: Terms::compile(config),
            store_timeout: self.store_timeout,
            live: self.live.clone(),
            audit: self.audit.clone(),
            metrics: self.metrics.clone(),
            trail_kept: self.trail_kept,
            trail_retained: self.trail_retained,
            decoded: Cache::new(DECODED),
            revocations: self.revocations.clone(),
        }
    }

    /// Whether the store answers.
    pub async fn is_reachable(&self) -> Result<(), StoreError> {
        self.bounded(self.store.reachable()).await
    }

    /// What operators should know of a store that answers.
    pub fn store_remark(&self) -> Option<String> {
        self.store.remark()
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub fn lifetime(&self) -> Lifetime {
        self.terms.lifetime
    }

    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// The keyring as it is now; another may take its place.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keys.current()
    }

    /// Forgets revocations that have ended.
    pub fn sweep(&self) {
        self.revocations.sweep(self.clock.now());
    }

    async fn bounded<T>(&self, reply: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.store_timeout, reply).await.unwrap_or(Err(StoreError::Timeout))
    }

    fn vault(&self, session: Handle, birth: Birth) -> Vault<'_> {
        Vault { keyring: self.keyring(), environment: &self.environment, session, birth }
    }

    /// Slides the idle expiry; false if the session is gone.
    pub async fn touch(&self, handle: Handle, birth: Birth) -> Result<bool, StoreError> {
        self.bounded(self.store.touch(handle, birth, self.clock.now())).await
    }

    pub async fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Result<Trail, StoreError> {
        self.bounded(self.store.trail(handle, before, limit)).await
    }

    /// Closes the open exchanges of a session that is over.
    pub fn close(&self, handle: Handle, birth: Birth) {
        self.live.close(handle, birth);
    }

    /// Whether what proved a session, or its user, was revoked since.
    pub fn is_revoked(&self, session: &Session) -> bool {
        self.revocations.void(&session.believed())
    }

    /// Enters an exchange in the register of those that are open.
    pub fn enter(&self, session: &Session, touches: bool, closes: bool) -> Presence {
        let believed = session.believed();
        let presence = self.live.enter(Entering {
            handle: session.handle(),
            birth: session.birth(),
            believed,
            ends_at: session.ends_at(),
            touches,
            touch_interval: session.touch_interval(),
            last_touch: session.last_active(),
            closes,
        });
        // Once more: it may have been revoked between the load and the register.
        if self.revocations.void(&believed) {
            presence.close();
        }
        presence
    }
}
