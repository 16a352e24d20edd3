//! Sessions: loaded, proven and migrated; created, changed, rotated and revoked.

mod delta;
mod live;
mod migrate;
mod proposal;
mod require;
mod schema;
mod state;
mod sweep;
mod trail;
mod vault;
mod verify;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::audit::Audit;
use crate::clock::{Clock, Time};
use crate::config;
use crate::handle::{Birth, CommitId, Handle, NoEntropy, SessionId, UserKey};
use crate::keyring::Keyring;
use crate::store::{
    Change, Commit, Conflict, Effect, Entry, Outcome, PreviousSecret, Proof, Record, Revocation, Revoked, Rotate,
    Store, StoreError, Stored, Trail,
};
use crate::structured::{Scalar, Value};

use delta::Delta;
use state::Fields;
use vault::{Plain, Vault};

pub use live::{Entering, Live, Presence};
pub use proposal::{Proposal, fits_at_birth};
pub use require::Requirements;
pub use schema::{Field, FieldIndex, Misfit, Schema};
pub use state::{Held, Proven, Session};
pub use sweep::{KeyUse, KeyUses, Moved};
pub use trail::{Action, Actor, ActorKind};
pub use verify::{Finding, Verdict};

/// Decoded sessions that are kept at hand.
const DECODED: usize = 10_000;
/// Audit records that a verification reads at once.
const VERIFY_PAGE: usize = 1000;
/// How often a migration that lost its race is looked at again.
const MIGRATION_TRIES: usize = 3;

/// Loads and commits sessions.
pub struct Sessions {
    store: Arc<dyn Store>,
    pub schema: Arc<Schema>,
    keyring: Arc<Keyring>,
    clock: Clock,
    environment: Arc<str>,
    lifetime: Lifetime,
    rotate_grace: Duration,
    remember_revoked: Duration,
    store_timeout: Duration,
    live: Live,
    audit: Audit,
    trail_kept: u64,
    trail_retained: Duration,
    decoded: Cache<Handle, Arc<Decoded>>,
    /// Users whose sessions from before that time are void.
    void_before: Arc<VoidBefore>,
}

/// Users, and the time before which their sessions are void.
type VoidBefore = RwLock<HashMap<UserKey, Time>>;

fn take_revocation(revocation: &Revocation, live: &Live, void_before: &VoidBefore) {
    match revocation.of {
        Revoked::User { user, not_before } => {
            let mut map = void_before.write().unwrap_or_else(PoisonError::into_inner);
            let time = map.entry(user).or_insert(not_before);
            *time = not_before.max(*time);
        }
        Revoked::Session { handle, birth } => live.close(handle, birth),
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

/// An entry and what was made of it, for as long as the store holds that very entry.
struct Decoded {
    entry: Arc<Entry>,
    record: Arc<Record>,
    fields: Arc<Fields>,
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
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a value is sealed under key '{0}', which the keyring does not have")]
    UnknownKey(String),
    #[error("a migration lost its race {MIGRATION_TRIES} times")]
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
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error("a value could not be sealed or its record not be signed")]
    Crypto,
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
    pub birth: Birth,
    pub expires_at: Time,
    pub ends_at: Time,
}

/// What sessions are made of, for [`Sessions::new`].
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub schema: Arc<Schema>,
    pub keyring: Arc<Keyring>,
    pub clock: Clock,
    pub live: Live,
    pub audit: Audit,
}

impl Sessions {
    pub fn new(parts: Parts, config: &config::Config) -> Self {
        let section = &config.session;
        Self {
            store: parts.store,
            schema: parts.schema,
            keyring: parts.keyring,
            clock: parts.clock,
            environment: config.environment.as_str().into(),
            lifetime: Lifetime::compile(&section.lifetime),
            rotate_grace: section.rotate_grace.0,
            remember_revoked: section.remember_revoked.0.max(section.lifetime.absolute.0),
            store_timeout: config.store.timeout.0,
            live: parts.live,
            audit: parts.audit,
            trail_kept: config.audit.keep.into(),
            trail_retained: config.audit.retain.0,
            decoded: Cache::new(DECODED),
            void_before: Arc::default(),
        }
    }

    /// Reads the feed of revocations; sessions may be served once it has been read.
    ///
    /// A store that others share tells of it by itself, and serves nothing before it has.
    pub async fn read_revocations(&self) -> Result<(), StoreError> {
        let (live, void_before) = (self.live.clone(), self.void_before.clone());
        if self.store.follow(Arc::new(move |revocation| take_revocation(revocation, &live, &void_before))) {
            return Ok(());
        }
        let feed = self.bounded(self.store.revocations(self.clock.now())).await?;
        for revocation in feed {
            self.take_revocation(&revocation);
        }
        Ok(())
    }

    fn take_revocation(&self, revocation: &Revocation) {
        take_revocation(revocation, &self.live, &self.void_before);
    }

    /// Whether the store answers.
    pub async fn is_reachable(&self) -> Result<(), StoreError> {
        self.bounded(self.store.reachable()).await
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    pub fn environment(&self) -> &str {
        &self.environment
    }

    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    async fn bounded<T>(&self, reply: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.store_timeout, reply).await.unwrap_or(Err(StoreError::Timeout))
    }

    fn vault(&self, session: Handle, birth: Birth) -> Vault<'_> {
        Vault { keyring: &self.keyring, environment: &self.environment, session, birth }
    }

    /// Loads the session that an id names, and proves that it is the client's.
    pub async fn load(&self, id: &SessionId) -> Result<Session, LoadError> {
        let entry = self.entry(id.handle()).await?;
        let record = self.living(&entry)?;
        let proven = self.prove(record, id)?;
        self.settle(id.handle(), entry, proven).await
    }

    /// Loads a session by its handle, for those who need no proof.
    pub async fn find(&self, handle: Handle) -> Result<Session, LoadError> {
        let entry = self.entry(handle).await?;
        self.living(&entry)?;
        self.settle(handle, entry, Proven::Otherwise).await
    }

    async fn entry(&self, handle: Handle) -> Result<Arc<Entry>, LoadError> {
        self.bounded(self.store.load(handle)).await?.ok_or(LoadError::NotFound)
    }

    fn living<'a>(&self, entry: &'a Entry) -> Result<&'a Record, LoadError> {
        let now = self.clock.now();
        match entry {
            Entry::Revoked(tombstone) if now < tombstone.until => Err(LoadError::Revoked),
            Entry::Living(record) if record.is_living(now) => {
                if self.is_void(record) {
                    Err(LoadError::Revoked)
                } else {
                    Ok(record)
                }
            }
            Entry::Living(_) | Entry::Revoked(_) => Err(LoadError::NotFound),
        }
    }

    fn is_void(&self, record: &Record) -> bool {
        let Some(user) = record.user else { return false };
        let map = self.void_before.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&user).is_some_and(|before| record.created_at < *before)
    }

    fn prove(&self, record: &Record, id: &SessionId) -> Result<Proven, LoadError> {
        let Proof::Secret { hash, previous } = &record.proof else { return Err(LoadError::WrongSecret) };
        let presented = id.hash();
        if presented == *hash {
            return Ok(Proven::Current(presented));
        }
        match previous {
            Some(before) if presented == before.hash && self.clock.now() < before.until => Ok(Proven::Previous),
            _ => Err(LoadError::WrongSecret),
        }
    }

    /// Brings a living entry to the current schema and decodes it.
    async fn settle(&self, handle: Handle, mut entry: Arc<Entry>, proven: Proven) -> Result<Session, LoadError> {
        for _ in 0..MIGRATION_TRIES {
            if let Some(decoded) = self.decoded.get(&handle)
                && Arc::ptr_eq(&decoded.entry, &entry)
            {
                return Ok(Session::new(handle, decoded.record.clone(), decoded.fields.clone(), proven));
            }
            let record = self.living(&entry)?;
            let vault = self.vault(handle, record.birth);
            match migrate::migrate(record, &self.schema, &vault) {
                Ok(None) => {
                    let fields = Fields::decode(record, &self.schema, &vault).map_err(LoadError::UnknownKey)?;
                    let decoded =
                        Arc::new(Decoded { record: Arc::new(record.clone()), entry, fields: Arc::new(fields) });
                    self.decoded.insert(handle, decoded.clone());
                    return Ok(Session::new(handle, decoded.record.clone(), decoded.fields.clone(), proven));
                }
                Ok(Some(deltas)) => self.commit_migration(handle, record, &deltas).await?,
                Err(vault::Closed::UnknownKey(id)) => return Err(LoadError::UnknownKey(id)),
                Err(vault::Closed::Damaged) => return Err(LoadError::Store(StoreError::Damaged(handle))),
            }
            entry = self.entry(handle).await?;
        }
        Err(LoadError::Contended)
    }

    /// Commits a migration; losing the race to another is fine, the session is read again either way.
    async fn commit_migration(&self, handle: Handle, record: &Record, deltas: &[Delta]) -> Result<(), LoadError> {
        let base = crate::store::Base { birth: record.birth, revision: record.revision, own: None };
        let actor = Actor { user: record.user, ..Actor::new(ActorKind::Cloakroom) };
        let change = Change {
            schema: Some(self.schema.version),
            user: self.user_after(deltas),
            ..self.change(base, handle, deltas).map_err(|_| StoreError::Unavailable("sealing failed".into()))?
        };
        match self.submit(handle, Action::Migrate, &actor, deltas, change).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::NotFound) => Err(LoadError::NotFound),
            Err(CommitError::Revoked) => Err(LoadError::Revoked),
            Err(CommitError::Store(error)) => Err(error.into()),
            Err(CommitError::Entropy(_) | CommitError::Crypto) => {
                Err(StoreError::Unavailable("the migration could not be signed".into()).into())
            }
        }
    }

    fn change(&self, base: crate::store::Base, handle: Handle, deltas: &[Delta]) -> Result<Change, CommitError> {
        let vault = self.vault(handle, base.birth);
        let (set, unset) = delta::writes(deltas, &vault, self.clock.now()).ok_or(CommitError::Crypto)?;
        Ok(Change { base, if_match: None, set, unset, schema: None, user: None, rotate: None, end: None })
    }

    /// Commits what was proposed, in one atomic step with its audit record.
    ///
    /// `own` is the revision that the same exchange committed since the session was read. Nothing is written if
    /// nothing is left to change, but the conditions are checked all the same where there are any.
    pub async fn commit(
        &self,
        session: &Session,
        own: Option<u64>,
        proposal: &Proposal,
        action: Action,
        actor: &Actor,
    ) -> Result<Committed, CommitError> {
        let handle = session.handle();
        let deltas = self.deltas(session, proposal)?;
        let new_id = match (proposal.rotate, session.proven) {
            (true, Proven::Current(current)) => Some((current, SessionId::renewed(handle)?)),
            _ => None,
        };
        let mut change = Change {
            if_match: proposal.if_match,
            user: self.user_after(&deltas),
            end: proposal.end.then(|| session.ends_at()),
            ..self.change(session.base(own), handle, &deltas)?
        };
        change.rotate = new_id.as_ref().map(|(current, next)| Rotate {
            current: *current,
            next: next.hash(),
            grace_until: self.clock.now().plus(self.rotate_grace),
        });
        let named = |rotates: bool| match (proposal.end, rotates) {
            (true, _) => Action::Revoke,
            (false, true) => Action::Rotate,
            (false, false) => action,
        };
        let tried = self.submit(handle, named(new_id.is_some()), actor, &deltas, change.clone()).await;
        let (outcome, new_id) = match tried? {
            // Another rotation was first: this one must not take over the session, and the rest still counts.
            Outcome::SecretChanged => {
                change.rotate = None;
                (self.submit(handle, named(false), actor, &deltas, change).await?, None)
            }
            outcome => (outcome, new_id.map(|(_, id)| id)),
        };
        let revision = match outcome {
            Outcome::Done { revision, .. } => Some(revision),
            _ => None,
        };
        if proposal.end {
            self.live.close(handle, session.birth());
        }
        let rotation_ignored = proposal.rotate && new_id.is_none();
        Ok(Committed { revision, new_id, rotation_ignored, ended: proposal.end })
    }

    /// What a proposal changes, in clear.
    fn deltas(&self, session: &Session, proposal: &Proposal) -> Result<Vec<Delta>, CommitError> {
        let vault = self.vault(session.handle(), session.birth());
        let set = proposal.set.iter().map(|(index, value)| (*index, Some(value)));
        let unset = proposal.unset.iter().map(|index| (*index, None));
        let mut deltas = Vec::new();
        for (index, value) in set.chain(unset) {
            let Some(field) = self.schema.field(index) else { continue };
            let stored = session.record().fields.get(&field.path);
            // What does not open is told apart by what is stored.
            let before = stored.map(|stored| {
                vault.open(&field.path, &stored.json).unwrap_or_else(|_| Plain::new(stored.json.to_string()))
            });
            deltas.push(Delta {
                path: field.path.clone(),
                before,
                after: value.map(|value| Plain::new(value.to_json().to_string())),
                sensitive: field.sensitive,
                shown: field.audit_value,
            });
        }
        Ok(deltas)
    }

    /// The user whose session it is after these changes, where they touch that field.
    fn user_after(&self, deltas: &[Delta]) -> Option<Option<UserKey>> {
        let field = self.schema.field(self.schema.user()?)?;
        let delta = deltas.iter().find(|delta| delta.path == field.path)?;
        let value = delta.after.as_ref().and_then(|plain| field.read(plain));
        Some(value.and_then(|value| self.user_key(&value)))
    }

    fn user_key(&self, value: &Value) -> Option<UserKey> {
        match value {
            Value::Scalar(Scalar::String(text)) => Some(self.keyring.user_key(None, text)),
            Value::Scalar(Scalar::Integer(number)) => Some(self.keyring.user_key(None, &number.to_string())),
            _ => None,
        }
    }

    /// The key that a user's sessions are listed under: a user of that issuer, or one whom no token made.
    pub fn key_of_user(&self, issuer: Option<&str>, user: &str) -> UserKey {
        self.keyring.user_key(issuer, user)
    }

    fn draft(
        &self,
        (handle, base, id): (Handle, u64, CommitId),
        action: Action,
        actor: &Actor,
        deltas: &[Delta],
    ) -> Result<crate::store::Draft, CommitError> {
        self.facts(handle, base, action, actor).draft(id, deltas).ok_or(CommitError::Crypto)
    }

    fn facts<'a>(&'a self, session: Handle, base: u64, action: Action, actor: &'a Actor) -> trail::Facts<'a> {
        let (keyring, environment) = (&*self.keyring, &*self.environment);
        trail::Facts { keyring, environment, session, at: self.clock.now(), action, base, actor }
    }

    async fn submit(
        &self,
        handle: Handle,
        action: Action,
        actor: &Actor,
        deltas: &[Delta],
        change: Change,
    ) -> Result<Outcome, CommitError> {
        let id = CommitId::random()?;
        let record = self.draft((handle, change.base.revision, id), action, actor, deltas)?;
        let effect = Effect::Change(Box::new(change));
        self.settle_outcome(Commit { id, handle, now: self.clock.now(), effect, record }).await
    }

    /// Has the store apply a commit, and passes the completed record on to the sinks.
    async fn settle_outcome(&self, commit: Commit) -> Result<Outcome, CommitError> {
        match self.bounded(self.store.commit(commit)).await? {
            Outcome::Conflict(conflict) => Err(CommitError::Conflict(conflict)),
            Outcome::NotFound => Err(CommitError::NotFound),
            Outcome::Revoked => Err(CommitError::Revoked),
            Outcome::Done { revision, seq, record } => {
                if let Some(record) = &record {
                    self.audit.publish(record);
                }
                Ok(Outcome::Done { revision, seq, record })
            }
            other => Ok(other),
        }
    }

    /// Makes a session with these values and a new id.
    pub async fn create(
        &self,
        values: &[(FieldIndex, Value)],
        lifetime: Lifetime,
        actor: &Actor,
    ) -> Result<Created, CommitError> {
        let deltas = values.iter().filter_map(|(index, value)| {
            let field = self.schema.field(*index)?;
            let after = Some(Plain::new(value.to_json().to_string()));
            Some(Delta {
                path: field.path.clone(),
                before: None,
                after,
                sensitive: field.sensitive,
                shown: field.audit_value,
            })
        });
        self.create_with(deltas.collect(), lifetime, actor).await
    }

    async fn create_with(&self, deltas: Vec<Delta>, lifetime: Lifetime, actor: &Actor) -> Result<Created, CommitError> {
        let id = SessionId::random()?;
        let birth = Birth::random()?;
        let now = self.clock.now();
        let user = self.user_after(&deltas).flatten();
        let (set, _) = delta::writes(&deltas, &self.vault(id.handle(), birth), now).ok_or(CommitError::Crypto)?;
        let fields: BTreeMap<_, _> = set.into_iter().map(|(path, json)| (path, Stored { json, revision: 1 })).collect();
        let record = Record {
            birth,
            schema: self.schema.version,
            revision: 1,
            seq: 1,
            proof: Proof::Secret { hash: id.hash(), previous: None::<PreviousSecret> },
            user,
            created_at: now,
            last_active: now,
            ends_at: now.plus(lifetime.absolute),
            idle: u64::try_from(lifetime.idle.as_millis()).unwrap_or(u64::MAX),
            touch_interval: u64::try_from(lifetime.touch_interval.as_millis()).unwrap_or(u64::MAX),
            fields,
            unset: BTreeMap::new(),
            recent: VecDeque::new(),
        };
        let (ends_at, expires_at) = (record.ends_at, now.plus(lifetime.idle).min(record.ends_at));
        let actor = Actor { user: user.or(actor.user), ..actor.clone() };
        let commit_id = CommitId::random()?;
        let draft = self.draft((id.handle(), 0, commit_id), Action::Create, &actor, &deltas)?;
        let effect = Effect::Create(Box::new(record));
        match self.settle_outcome(Commit { id: commit_id, handle: id.handle(), now, effect, record: draft }).await? {
            Outcome::Done { .. } => Ok(Created { id, birth, expires_at, ends_at }),
            // A random name that is taken is no luck of ours: nothing was made, and nobody's session is handed out.
            _ => Err(StoreError::Unavailable("a new session's name was taken".into()).into()),
        }
    }

    /// Starts a session with these values in place of the one that the request proved, if any.
    ///
    /// The old one is revoked first. Of it only the fields in `carry` live on, and only if it had no user.
    pub async fn start(
        &self,
        old: Option<&Session>,
        values: &[(FieldIndex, Value)],
        carry: &[FieldIndex],
        actor: &Actor,
    ) -> Result<Created, CommitError> {
        let mut deltas: Vec<Delta> = Vec::new();
        if let Some(old) = old {
            if old.user().is_none() {
                let carried = carry.iter().filter(|index| !values.iter().any(|(given, _)| given == *index));
                deltas.extend(carried.filter_map(|index| self.carried(old, *index)));
            }
            match self.revoke(old.handle(), Some(old.birth()), actor).await {
                // Gone is gone, whoever was first.
                Ok(()) | Err(CommitError::NotFound | CommitError::Revoked) => {}
                Err(error) => return Err(error),
            }
        }
        deltas.extend(values.iter().filter_map(|(index, value)| {
            let field = self.schema.field(*index)?;
            let after = Some(Plain::new(value.to_json().to_string()));
            Some(Delta {
                path: field.path.clone(),
                before: None,
                after,
                sensitive: field.sensitive,
                shown: field.audit_value,
            })
        }));
        self.create_with(deltas, self.lifetime, actor).await
    }

    fn carried(&self, old: &Session, index: FieldIndex) -> Option<Delta> {
        let field = self.schema.field(index)?;
        let stored = old.record().fields.get(&field.path)?;
        let plain = self.vault(old.handle(), old.birth()).open(&field.path, &stored.json).ok()?;
        field.read(&plain)?;
        let path = field.path.clone();
        Some(Delta { path, before: None, after: Some(plain), sensitive: field.sensitive, shown: field.audit_value })
    }

    /// Revokes a session; done when it cannot be served any more.
    pub async fn revoke(&self, handle: Handle, birth: Option<Birth>, actor: &Actor) -> Result<(), CommitError> {
        let now = self.clock.now();
        let entry = self.bounded(self.store.load(handle)).await?;
        let record = match entry.as_deref() {
            Some(Entry::Living(record)) if record.is_living(now) => record,
            Some(Entry::Revoked(_)) => return Err(CommitError::Revoked),
            _ => return Err(CommitError::NotFound),
        };
        let birth = birth.unwrap_or(record.birth);
        let until = match record.proof {
            Proof::Secret { .. } => record.ends_at,
            Proof::Token { .. } => now.plus(self.remember_revoked),
        };
        let id = CommitId::random()?;
        let actor = Actor { user: record.user, ..actor.clone() };
        let draft = self.draft((handle, record.revision, id), Action::Revoke, &actor, &[])?;
        let effect = Effect::Revoke { birth: Some(birth), until };
        self.settle_outcome(Commit { id, handle, now, effect, record: draft }).await?;
        self.live.close(handle, birth);
        Ok(())
    }

    /// Revokes a user's sessions that were created before that time; all of them, if it is not past.
    ///
    /// The feed is written first: what the index does not list is void all the same.
    pub async fn revoke_user(&self, user: UserKey, not_before: Time, actor: &Actor) -> Result<(), CommitError> {
        let now = self.clock.now();
        let until = now.max(not_before).plus(self.remember_revoked);
        let revocation = Revocation { of: Revoked::User { user, not_before }, until };
        self.bounded(self.store.revoke(revocation.clone())).await?;
        self.take_revocation(&revocation);
        for handle in self.bounded(self.store.sessions_of(user)).await? {
            let birth = match self.bounded(self.store.load(handle)).await?.as_deref() {
                Some(Entry::Living(record)) if record.created_at < not_before || now <= not_before => record.birth,
                _ => continue,
            };
            match self.revoke(handle, Some(birth), actor).await {
                // Gone is gone, also where a later session took the handle.
                Ok(()) | Err(CommitError::NotFound | CommitError::Revoked | CommitError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The living sessions of a user, oldest first.
    pub async fn sessions_of(&self, user: UserKey) -> Result<Vec<Session>, LoadError> {
        let mut sessions = Vec::new();
        for handle in self.bounded(self.store.sessions_of(user)).await? {
            match self.find(handle).await {
                Ok(session) => sessions.push(session),
                Err(LoadError::NotFound | LoadError::Revoked) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sessions)
    }

    /// Slides the idle expiry; false if the session is gone.
    pub async fn touch(&self, handle: Handle, birth: Birth) -> Result<bool, StoreError> {
        self.bounded(self.store.touch(handle, birth, self.clock.now())).await
    }

    pub async fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Result<Trail, StoreError> {
        self.bounded(self.store.trail(handle, before, limit)).await
    }

    /// The value of a sensitive field, with the audit record that says who had it resolved, and why.
    ///
    /// None if the session's field has no value that opens.
    pub async fn resolve(
        &self,
        session: &Session,
        index: FieldIndex,
        actor: &Actor,
    ) -> Result<Option<Plain>, CommitError> {
        let Some(field) = self.schema.field(index) else { return Ok(None) };
        let Some(stored) = session.record().fields.get(&field.path) else { return Ok(None) };
        let Ok(plain) = self.vault(session.handle(), session.birth()).open(&field.path, &stored.json) else {
            return Ok(None);
        };
        let id = CommitId::random()?;
        let facts = self.facts(session.handle(), session.revision(), Action::Resolve, actor);
        let draft = facts.draft_untouched(id, "resolve", &[(&field.path, &plain)]).ok_or(CommitError::Crypto)?;
        let effect = Effect::Note { birth: session.birth() };
        let (handle, now) = (session.handle(), self.clock.now());
        self.settle_outcome(Commit { id, handle, now, effect, record: draft }).await?;
        Ok(Some(plain))
    }

    /// The field of a session that a handle stands for.
    pub fn field_of(&self, session: &Session, wanted: crate::handle::FieldHandle) -> Option<FieldIndex> {
        let (handle, birth) = (session.handle(), session.birth());
        let mut sensitive = self.schema.fields().filter(|(_, field)| field.sensitive);
        sensitive
            .find(|(_, field)| self.keyring.field_handle(handle, birth, &field.path) == wanted)
            .map(|(index, _)| index)
    }

    /// Tells the sinks of a write-back, or of a resolution, that was refused.
    pub fn audit_attempt(&self, session: &Session, action: Action, outcome: &'static str, actor: &Actor) {
        if let Some(record) = self.facts(session.handle(), session.revision(), action, actor).attempt(outcome) {
            self.audit.publish(&record);
        }
    }

    /// Whether a session's trail is whole.
    pub async fn verify(&self, handle: Handle) -> Result<Verdict, StoreError> {
        // Read before the trail, so that a commit in between makes the trail longer than expected, never shorter.
        let entry = self.bounded(self.store.load(handle)).await?;
        let (mut records, mut before) = (Vec::new(), None);
        loop {
            let page = self.bounded(self.store.trail(handle, before, VERIFY_PAGE)).await?;
            records.extend(page.records);
            match page.next {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        let kept = verify::Kept { records: self.trail_kept, after_end: self.trail_retained, now: self.clock.now() };
        Ok(verify::verify(&records, entry.as_deref(), &self.keyring, &kept))
    }

    /// Enters an exchange in the register of those that are open.
    pub fn enter(&self, session: &Session, touches: bool, closes: bool) -> Presence {
        self.live.enter(Entering {
            handle: session.handle(),
            birth: session.birth(),
            ends_at: session.ends_at(),
            touches,
            touch_interval: session.touch_interval(),
            last_touch: session.last_active(),
            closes,
        })
    }
}
