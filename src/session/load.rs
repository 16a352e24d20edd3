//! From a credential or a handle to a living session of the current schema.

use std::sync::Arc;

use crate::handle::{Handle, SessionId, UserKey};
use crate::store::{Base, Change, Entry, Proof, Record, StoreError};

use super::delta::Delta;
use super::migrate;
use super::state::{Fields, Proven, Session};
use super::trail::{Action, Actor, ActorKind};
use super::vault;
use super::{CommitError, Decoded, LoadError, MIGRATION_TRIES, Sessions};

/// How it is known what stands under a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is certain without asking the store.
    AtHand,
    Read,
    /// The store is away, and may know better: a session may have been used, or have another secret, since.
    LastKnown,
}

impl Sight {
    /// What a refusal comes to: an outage is never a logout.
    pub(super) fn judge(self, error: LoadError) -> LoadError {
        match error {
            LoadError::NotFound | LoadError::WrongSecret | LoadError::Foreign if self == Self::LastKnown => {
                StoreError::Unavailable("what was known last does not decide".into()).into()
            }
            error => error,
        }
    }
}

impl Sessions {
    /// Loads the session that an id names, and proves that it is the client's.
    pub async fn load(&self, id: &SessionId) -> Result<Session, LoadError> {
        let (entry, sight) = self.look(id.handle()).await?;
        match self.open(id, entry, sight).await {
            // What is at hand may be about to be taken back: another sidecar has just used it, or renewed its secret.
            Err(LoadError::NotFound | LoadError::WrongSecret) if sight == Sight::AtHand => {
                let entry = self.look_anew(id.handle()).await?;
                Box::pin(self.open(id, entry, Sight::Read)).await
            }
            opened => opened,
        }
    }

    async fn open(&self, id: &SessionId, entry: Option<Arc<Entry>>, sight: Sight) -> Result<Session, LoadError> {
        let handle = id.handle();
        let entry = entry.ok_or(LoadError::NotFound)?;
        let proves = |record: &Record| self.lives(record).and_then(|()| self.prove(record, id));
        let mut session = match self.decoded_of(handle, &entry) {
            Some(decoded) => {
                let proven = proves(&decoded.record).map_err(|error| sight.judge(error))?;
                Session::new(handle, decoded, proven)
            }
            None => {
                let proven = self.living(&entry).and_then(|record| self.prove(record, id));
                self.settle(handle, entry, proven.map_err(|error| sight.judge(error))?).await?
            }
        };
        session.at_hand = sight == Sight::AtHand;
        Ok(session)
    }

    /// What was made of that very entry.
    fn decoded_of(&self, handle: Handle, entry: &Arc<Entry>) -> Option<Arc<Decoded>> {
        self.decoded.get(&handle).filter(|decoded| Arc::ptr_eq(&decoded.entry, entry))
    }

    /// Loads a session by its handle, for those who need no proof.
    pub async fn find(&self, handle: Handle) -> Result<Session, LoadError> {
        let (entry, sight) = self.look(handle).await?;
        let entry = entry.ok_or(LoadError::NotFound)?;
        self.living(&entry).map_err(|error| sight.judge(error))?;
        self.settle(handle, entry, Proven::Otherwise).await
    }

    /// What stands under a handle, and how that is known.
    pub(super) async fn look(&self, handle: Handle) -> Result<(Option<Arc<Entry>>, Sight), StoreError> {
        if let Some(entry) = self.store.at_hand(handle) {
            return Ok((Some(entry), Sight::AtHand));
        }
        match self.bounded(self.store.load(handle)).await {
            Ok(entry) => Ok((entry, Sight::Read)),
            Err(error @ (StoreError::Timeout | StoreError::Unavailable(_))) => {
                let known = self.store.last_known(handle).ok_or(error)?;
                Ok((Some(known), Sight::LastKnown))
            }
            Err(error) => Err(error),
        }
    }

    /// The same, whatever is at hand: nobody is refused by that alone.
    pub(super) async fn look_anew(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        self.bounded(self.store.load_anew(handle)).await
    }

    /// What stands under a handle, for those who look at many: nothing where it cannot be read.
    pub(super) async fn readable(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        match self.bounded(self.store.load(handle)).await {
            Err(StoreError::Damaged(_)) => Ok(None),
            read => read,
        }
    }

    pub(super) fn living<'a>(&self, entry: &'a Entry) -> Result<&'a Arc<Record>, LoadError> {
        match entry {
            Entry::Living(record) => self.lives(record).map(|()| record),
            Entry::Revoked(tombstone) if self.clock.now() < tombstone.until => Err(LoadError::Revoked),
            Entry::Revoked(_) => Err(LoadError::NotFound),
        }
    }

    fn lives(&self, record: &Record) -> Result<(), LoadError> {
        match record.is_living(self.clock.now()) {
            true if self.is_void(record) => Err(LoadError::Revoked),
            true => Ok(()),
            false => Err(LoadError::NotFound),
        }
    }

    pub(super) fn prove(&self, record: &Record, id: &SessionId) -> Result<Proven, LoadError> {
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
    pub(super) async fn settle(
        &self,
        handle: Handle,
        mut entry: Arc<Entry>,
        proven: Proven,
    ) -> Result<Session, LoadError> {
        for _ in 0..MIGRATION_TRIES {
            if let Some(decoded) = self.decoded_of(handle, &entry) {
                return Ok(Session::new(handle, decoded, proven));
            }
            let record = self.living(&entry)?;
            let vault = self.vault(handle, record.birth);
            match migrate::migrate(record, &self.schema, &vault) {
                Ok(None) => {
                    let before = self.decoded.get(&handle);
                    let fields = Fields::decode(record, &self.schema, &vault, before.as_deref());
                    let fields = fields.map_err(LoadError::UnknownKey)?;
                    self.tell_damage(handle, record, &fields);
                    let record = record.clone();
                    let decoded = Arc::new(Decoded::new(entry, record, fields, vault.keyring));
                    self.decoded.insert(handle, decoded.clone());
                    return Ok(Session::new(handle, decoded, proven));
                }
                Ok(Some(deltas)) => Box::pin(self.commit_migration(handle, record, &deltas)).await?,
                Err(vault::Closed::UnknownKey(id)) => return Err(LoadError::UnknownKey(id)),
                Err(vault::Closed::Damaged) => return Err(LoadError::Store(StoreError::Damaged(handle))),
            }
            entry = self.look(handle).await?.0.ok_or(LoadError::NotFound)?;
        }
        Err(LoadError::Contended)
    }

    /// Counts and audits sealed values that do not open, once for every time that the record is read anew.
    fn tell_damage(&self, handle: Handle, record: &Record, fields: &Fields) {
        if fields.damaged.is_empty() {
            return;
        }
        self.metrics.values_damaged.inc_by(fields.damaged.len() as u64);
        let actor = Actor { user: record.user, ..Actor::new(ActorKind::Cloakroom) };
        self.audit.attempted(&self.facts(Some(handle), record.revision, Action::Load, &actor).damaged(&fields.damaged));
    }

    /// Commits a migration; losing the race to another is fine, the session is read again either way.
    pub(super) async fn commit_migration(
        &self,
        handle: Handle,
        record: &Record,
        deltas: &[Delta],
    ) -> Result<(), LoadError> {
        let base = Base { birth: record.birth, revision: record.revision, own: None };
        let actor = Actor { user: record.user, ..Actor::new(ActorKind::Cloakroom) };
        let change = Change {
            schema: Some(self.schema.version),
            user: self.user_after(deltas, record.proof.token().map(|token| &*token.issuer)),
            ..self.change(base, handle, deltas).map_err(|_| StoreError::Unavailable("sealing failed".into()))?
        };
        match self.submit(handle, Action::Migrate, &actor, deltas, change).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The living sessions of a user, who is one under several issuers; oldest first.
    pub async fn sessions_of(&self, users: &[UserKey]) -> Result<Vec<Session>, LoadError> {
        let (mut handles, mut sessions) = (Vec::new(), Vec::new());
        for user in users {
            handles.extend(self.bounded(self.store.sessions_of(*user)).await?);
        }
        for handle in handles {
            match self.find(handle).await {
                Ok(session) => sessions.push(session),
                Err(LoadError::NotFound | LoadError::Revoked) => {}
                // One that cannot be read does not keep the others from being seen.
                Err(LoadError::Store(StoreError::Damaged(_))) => {}
                Err(error) => return Err(error),
            }
        }
        sessions.sort_by_key(|session| (session.created_at(), session.handle()));
        Ok(sessions)
    }
}
