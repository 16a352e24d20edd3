//! How sessions end before their time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, UserKey};
use crate::store::{Commit, Effect, Entry, Proof, Record, Revocation, Revoked, StoreError};

use super::trail::{Action, Actor};
use super::{CommitError, Live, Sessions};

/// Users, and the time before which their sessions are void.
pub(super) type VoidBefore = RwLock<HashMap<UserKey, Time>>;

impl Sessions {
    /// Reads the feed of revocations; sessions may be served once it has been read.
    ///
    /// A store that others share tells of it by itself, and serves nothing before it has.
    pub async fn read_revocations(&self) -> Result<(), StoreError> {
        let (live, void_before) = (self.live.clone(), self.void_before.clone());
        if self.store.follow(Arc::new(move |revocation| take(revocation, &live, &void_before))) {
            return Ok(());
        }
        let feed = self.bounded(self.store.revocations(self.clock.now())).await?;
        feed.iter().for_each(|revocation| self.take_revocation(revocation));
        Ok(())
    }

    pub(super) fn take_revocation(&self, revocation: &Revocation) {
        take(revocation, &self.live, &self.void_before);
    }

    pub(super) fn is_void(&self, record: &Record) -> bool {
        let Some(user) = record.user else { return false };
        let map = self.void_before.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&user).is_some_and(|before| record.created_at < *before)
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
                return Err(CommitError::Revoked);
            }
            _ => return Err(CommitError::NotFound),
        };
        let birth = birth.unwrap_or(record.birth);
        let until = match record.proof {
            Proof::Secret { .. } => record.ends_at,
            Proof::Token(_) => now.plus(self.remember_revoked),
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
}

fn take(revocation: &Revocation, live: &Live, void_before: &VoidBefore) {
    match revocation.of {
        Revoked::User { user, not_before } => {
            let mut map = void_before.write().unwrap_or_else(PoisonError::into_inner);
            let time = map.entry(user).or_insert(not_before);
            *time = not_before.max(*time);
        }
        Revoked::Session { handle, birth } => live.close(handle, birth),
        Revoked::Token { .. } => {}
    }
}
