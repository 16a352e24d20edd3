//! How sessions end before their time.

use std::sync::Arc;

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, UserKey};
use crate::store::{Commit, Effect, Entry, Proof, Record, Revocation, Revoked, StoreError};

use super::revocations::{Believed, Revocations};
use super::trail::{Action, Actor};
use super::{CommitError, Live, Sessions};

impl Sessions {
    /// Reads the feed of revocations; sessions may be served once it has been read.
    ///
    /// A store that others share tells of it by itself, and serves nothing before it has.
    pub async fn read_revocations(&self) -> Result<(), StoreError> {
        let (live, revocations) = (self.live.clone(), self.revocations.clone());
        if self.store.follow(Arc::new(move |revocation| take(revocation, &live, &revocations))) {
            return Ok(());
        }
        let feed = self.bounded(self.store.revocations(self.clock.now())).await?;
        feed.iter().for_each(|revocation| take(revocation, &self.live, &self.revocations));
        Ok(())
    }

    /// Whether a session is void by its user's revocation, whatever proves it.
    pub(super) fn is_void(&self, record: &Record) -> bool {
        self.revocations.void(&Believed { user: record.user, created_at: record.created_at, bearing: None })
    }

    /// Revokes a session; done when it cannot be served any more.
    pub async fn revoke(&self, handle: Handle, birth: Option<Birth>, actor: &Actor) -> Result<(), CommitError> {
        let now = self.clock.now();
        let entry = self.bounded(self.store.load(handle)).await?;
        let record = match entry.as_deref() {
            Some(Entry::Living(record)) if record.is_living(now) => record,
            Some(Entry::Revoked(tombstone)) => {
                // Also by a revocation whose answer was lost, and which so has closed nothing.
                self.live.close(handle, tombstone.birth);
                // Nor may it have been told of.
                let of = Revoked::Session { handle, birth: tombstone.birth };
                self.bounded(self.store.revoke(Revocation { of, until: tombstone.until })).await?;
                return Err(CommitError::Revoked);
            }
            _ => return Err(CommitError::NotFound),
        };
        let birth = birth.unwrap_or(record.birth);
        let until = self.tombstone_until(record);
        let id = CommitId::random()?;
        let actor = Actor { user: record.user, ..actor.clone() };
        let draft = self.draft((handle, record.revision, id), Action::Revoke, &actor, &[])?;
        let effect = Effect::Revoke { birth: Some(birth), until };
        self.settle_outcome(Commit { id, handle, now, effect, record: draft }).await?;
        self.metrics.sessions_revoked.inc();
        self.live.close(handle, birth);
        Ok(())
    }

    /// How long it is remembered that a session was revoked: as long as what proves it could come back.
    pub(super) fn tombstone_until(&self, record: &Record) -> Time {
        match record.proof {
            Proof::Secret { .. } => record.ends_at,
            Proof::Token(_) => self.clock.now().plus(self.terms.remember_revoked),
        }
    }

    /// Revokes the sessions of these users, who are one under several issuers, that were created before that time, and
    /// tokens of older logins; all of them, if it is not past.
    ///
    /// The feed is written first: what the index does not list is void all the same.
    pub async fn revoke_users(&self, users: &[UserKey], not_before: Time, actor: &Actor) -> Result<(), CommitError> {
        let until = self.clock.now().max(not_before).plus(self.terms.remember_revoked);
        for user in users {
            self.announce(Revoked::User { user: *user, not_before }, until).await?;
        }
        for user in users {
            for (handle, record) in self.living_of(*user).await? {
                if record.created_at < not_before || self.clock.now() <= not_before {
                    self.revoke_quietly(handle, record.birth, actor).await?;
                }
            }
        }
        Ok(())
    }

    /// Revokes one token, until it is over by itself.
    pub async fn revoke_token(&self, id: &str, expires_at: Time) -> Result<(), CommitError> {
        let until = expires_at.plus(self.terms.leeway);
        if until <= self.clock.now() {
            return Ok(());
        }
        let token = self.keyring().token_key(id);
        self.announce(Revoked::Token { token }, until).await
    }

    /// Writes to the feed, and then holds what it wrote.
    async fn announce(&self, of: Revoked, until: Time) -> Result<(), CommitError> {
        if !self.revocations.have_room() {
            return Err(StoreError::Unavailable("as many revocations stand as are held in memory".into()).into());
        }
        let revocation = Revocation { of, until };
        self.bounded(self.store.revoke(revocation.clone())).await?;
        take(&revocation, &self.live, &self.revocations);
        Ok(())
    }

    /// Revokes a user's oldest sessions until there are no more than so many.
    pub(super) async fn revoke_surplus(&self, user: UserKey, most: u32, actor: &Actor) -> Result<(), CommitError> {
        let mut living = self.living_of(user).await?;
        living.sort_by_key(|(handle, record)| (record.created_at, *handle));
        let surplus = living.len().saturating_sub(most as usize);
        for (handle, record) in living.iter().take(surplus) {
            self.revoke_quietly(*handle, record.birth, actor).await?;
        }
        Ok(())
    }

    /// The living sessions that the index lists for a user.
    async fn living_of(&self, user: UserKey) -> Result<Vec<(Handle, Arc<Record>)>, CommitError> {
        let mut living = Vec::new();
        for handle in self.bounded(self.store.sessions_of(user)).await? {
            match self.readable(handle).await?.as_deref() {
                Some(Entry::Living(record)) if record.is_living(self.clock.now()) && record.user == Some(user) => {
                    living.push((handle, record.clone()));
                }
                _ => {}
            }
        }
        Ok(living)
    }

    /// Gone is gone, also where a later session took the handle.
    async fn revoke_quietly(&self, handle: Handle, birth: Birth, actor: &Actor) -> Result<(), CommitError> {
        match self.revoke(handle, Some(birth), actor).await {
            Err(CommitError::NotFound | CommitError::Revoked | CommitError::Conflict(_)) => Ok(()),
            other => other,
        }
    }
}

/// Holds what no request is to be served with any more, and closes what is open with it.
fn take(revocation: &Revocation, live: &Live, revocations: &Revocations) {
    revocations.take(revocation);
    match revocation.of {
        Revoked::Session { handle, birth } => live.close(handle, birth),
        Revoked::User { .. } | Revoked::Token { .. } => live.close_void(|session| revocations.void(session)),
    }
}
