//! The one way by which sessions come to be, whatever proves them.

use std::collections::{BTreeMap, VecDeque};

use crate::clock::Time;
use crate::handle::{Birth, CommitId, Handle, UserKey};
use crate::store::{Commit, Effect, Outcome, Proof, Record, Replace, StoreError, Stored};

use super::delta::{self, Delta};
use super::revocations::{Bearing, Believed};
use super::state::Session;
use super::trail::{Action, Actor};
use super::{CommitError, Lifetime, Sessions};

/// What a session is made of.
pub(super) struct Birthright {
    pub handle: Handle,
    pub proof: Proof,
    /// Of a session that a token proves.
    pub bearing: Option<Bearing>,
    pub deltas: Vec<Delta>,
    pub lifetime: Lifetime,
}

/// A session that was just made.
#[derive(Debug)]
pub struct Born {
    pub birth: Birth,
    pub expires_at: Time,
    pub ends_at: Time,
}

impl Sessions {
    /// Makes a session, in the place of another where one is given; then its user has no more than they may have.
    pub(super) async fn bear(
        &self,
        new: Birthright,
        replaces: Option<&Session>,
        actor: &Actor,
    ) -> Result<Born, CommitError> {
        let (handle, bearing) = (new.handle, new.bearing);
        let record = self.newborn(new.proof, &new.deltas, handle, new.lifetime)?;
        let (birth, now, user, ends_at) = (record.birth, record.created_at, record.user, record.ends_at);
        if self.revocations.void(&Believed { user, created_at: now, bearing }) {
            return Err(CommitError::Revoked);
        }
        let actor = Actor { user: user.or(actor.user), ..actor.clone() };
        let id = CommitId::random()?;
        let draft = self.draft((handle, 0, id), Action::Create, &actor, &new.deltas)?;
        let effect = match replaces {
            None => Effect::Create(Box::new(record)),
            Some(old) => {
                let actor = Actor { user: old.user(), ..actor.clone() };
                let ended = self.draft((handle, old.revision(), id), Action::Revoke, &actor, &[])?;
                Effect::Replace(Box::new(Replace { birth: old.birth(), record, ended }))
            }
        };
        match self.settle_outcome(Commit { id, handle, now, effect, record: draft }).await? {
            Outcome::Done { .. } | Outcome::Replaced { .. } => {}
            Outcome::Exists => return Err(CommitError::Exists),
            _ => return Err(StoreError::Unknown.into()),
        }
        self.keep_to_bound(user, &actor).await;
        Ok(Born { birth, expires_at: now.plus(new.lifetime.idle).min(ends_at), ends_at })
    }

    fn newborn(
        &self,
        proof: Proof,
        deltas: &[Delta],
        handle: Handle,
        lifetime: Lifetime,
    ) -> Result<Record, CommitError> {
        let birth = Birth::random()?;
        let now = self.clock.now();
        let (set, _) = delta::writes(deltas, &self.vault(handle, birth), now).ok_or(CommitError::Crypto)?;
        let fields: BTreeMap<_, _> = set.into_iter().map(|(path, json)| (path, Stored { json, revision: 1 })).collect();
        let issuer = proof.token().map(|token| token.issuer.as_str());
        Ok(Record {
            birth,
            schema: self.schema.version,
            revision: 1,
            seq: 1,
            size: None,
            user: self.user_after(deltas, issuer).flatten(),
            proof,
            created_at: now,
            last_active: now,
            ends_at: now.plus(lifetime.absolute),
            idle: u64::try_from(lifetime.idle.as_millis()).unwrap_or(u64::MAX),
            touch_interval: u64::try_from(lifetime.touch_interval.as_millis()).unwrap_or(u64::MAX),
            fields,
            unset: BTreeMap::new(),
            recent: VecDeque::new(),
        })
    }

    /// Revokes a user's oldest sessions where there is one more than they may have.
    ///
    /// Who makes a session looks at all of them after it stands, so that of any that are made at once the last to look
    /// sees every other. It failing is no reason to take a session back: the next that is made puts it right.
    pub(super) async fn keep_to_bound(&self, user: Option<UserKey>, actor: &Actor) {
        let (Some(user), Some(most)) = (user, self.terms.max_per_user) else { return };
        let actor = Actor { kind: super::ActorKind::Cloakroom, ..actor.clone() };
        if let Err(error) = self.revoke_surplus(user, most, &actor).await {
            tracing::warn!(
                target: "cloakroom::session", %user, %error,
                "a user may have more sessions than session.max_per_user for now",
            );
        }
    }
}
