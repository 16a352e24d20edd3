//! Changes that land whole, with their audit record, or not at all.

use crate::handle::{CommitId, Handle, SessionId, UserKey};
use crate::store::{Base, Change, Commit, Draft, Effect, Outcome, Rotate, StoreError};
use crate::structured::{Scalar, Value};

use super::delta::{self, Delta};
use super::proposal::Proposal;
use super::state::{Proven, Session};
use super::trail::{Action, Actor, Facts};
use super::vault::Plain;
use super::{CommitError, Committed, Sessions};

impl Sessions {
    pub(super) fn change(&self, base: Base, handle: Handle, deltas: &[Delta]) -> Result<Change, CommitError> {
        let vault = self.vault(handle, base.birth);
        let (set, unset) = delta::writes(deltas, &vault, self.clock.now()).ok_or(CommitError::Crypto)?;
        Ok(Change {
            base,
            if_match: None,
            set,
            unset,
            schema: None,
            claims_at: None,
            user: None,
            rotate: None,
            end: None,
            growth: None,
        })
    }

    /// Commits what was proposed, in one atomic step with its audit record.
    ///
    /// `session` is what the changes are compared with, `base` what they were made from: the same, but for trailers,
    /// which come after their own head's changes. Nothing is written if nothing is left to change, but the
    /// conditions are checked all the same where there are any.
    pub async fn commit(
        &self,
        session: &Session,
        base: Base,
        proposal: &Proposal,
        action: Action,
        actor: &Actor,
    ) -> Result<Committed, CommitError> {
        let handle = session.handle();
        let deltas = self.deltas(session, proposal)?;
        let new_id = match (proposal.rotate, session.proven) {
            (true, Proven::Current(current)) if !proposal.end => Some((current, SessionId::renewed(handle)?)),
            _ => None,
        };
        let mut change = Change {
            if_match: proposal.if_match,
            user: self.user_after(&deltas, session.issuer()),
            end: proposal.end.then(|| self.tombstone_until(session.record())),
            growth: Some(proposal.growth(session, &self.schema)),
            ..self.change(base, handle, &deltas)?
        };
        change.rotate = new_id.as_ref().map(|(current, next)| Rotate {
            current: *current,
            next: next.hash(),
            grace_until: self.clock.now().plus(self.terms.rotate_grace),
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
    pub(super) fn deltas(&self, session: &Session, proposal: &Proposal) -> Result<Vec<Delta>, CommitError> {
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
                after: value.map(|value| Plain::new(value.json())),
                sensitive: field.sensitive,
                shown: field.audit_value,
            });
        }
        Ok(deltas)
    }

    /// The user whose session it is after these changes, where they touch that field.
    ///
    /// A token's session is a user's of its issuer.
    pub(super) fn user_after(&self, deltas: &[Delta], issuer: Option<&str>) -> Option<Option<UserKey>> {
        let field = self.schema.field(self.schema.user()?)?;
        let delta = deltas.iter().find(|delta| delta.path == field.path)?;
        let value = delta.after.as_ref().and_then(|plain| field.read(plain));
        Some(value.and_then(|value| self.user_key(issuer, &value)))
    }

    fn user_key(&self, issuer: Option<&str>, value: &Value) -> Option<UserKey> {
        match value {
            Value::Scalar(Scalar::String(text)) => Some(self.keyring().user_key(issuer, text)),
            Value::Scalar(Scalar::Integer(number)) => Some(self.keyring().user_key(issuer, &number.to_string())),
            _ => None,
        }
    }

    /// The keys that a user's sessions are listed under: of that issuer; else of every issuer, and of those whom no
    /// token made. An empty issuer means the last alone.
    pub fn keys_of_user(&self, issuer: Option<&str>, user: &str) -> Vec<UserKey> {
        let keyring = self.keyring();
        match issuer {
            Some("") => vec![keyring.user_key(None, user)],
            Some(issuer) => vec![keyring.user_key(Some(issuer), user)],
            None => {
                let issuers = self.terms.issuers.iter().map(|issuer| Some(&**issuer));
                std::iter::once(None).chain(issuers).map(|issuer| keyring.user_key(issuer, user)).collect()
            }
        }
    }

    pub(super) fn draft(
        &self,
        (handle, base, id): (Handle, u64, CommitId),
        action: Action,
        actor: &Actor,
        deltas: &[Delta],
    ) -> Result<Draft, CommitError> {
        self.facts(Some(handle), base, action, actor).draft(id, deltas).ok_or(CommitError::Crypto)
    }

    pub(super) fn facts<'a>(
        &'a self,
        session: Option<Handle>,
        base: u64,
        action: Action,
        actor: &'a Actor,
    ) -> Facts<'a> {
        let (keyring, environment) = (self.keyring(), &*self.environment);
        Facts { keyring, environment, session, at: self.clock.now(), action, base, actor }
    }

    pub(super) async fn submit(
        &self,
        handle: Handle,
        action: Action,
        actor: &Actor,
        deltas: &[Delta],
        change: Change,
    ) -> Result<Outcome, CommitError> {
        let id = CommitId::random()?;
        let record = self.draft((handle, change.base.revision, id), action, actor, deltas)?;
        let user = change.user.flatten();
        let effect = Effect::Change(Box::new(change));
        let outcome = self.settle_outcome(Commit { id, handle, now: self.clock.now(), effect, record }).await?;
        if matches!(outcome, Outcome::Done { .. }) {
            self.keep_to_bound(user, actor).await;
        }
        Ok(outcome)
    }

    /// Has the store apply a commit, and passes the completed record on to the sinks.
    pub(super) async fn settle_outcome(&self, commit: Commit) -> Result<Outcome, CommitError> {
        let first = self.bounded(self.store.commit(commit.clone())).await;
        let answer = match first {
            // Its id makes asking again exact: it is applied once, whether or not it was then.
            Err(StoreError::Timeout) => self.bounded(self.store.commit(commit)).await,
            answer => answer,
        };
        match answer? {
            Outcome::Conflict(conflict) => Err(CommitError::Conflict(conflict)),
            Outcome::NotFound => Err(CommitError::NotFound),
            Outcome::Revoked => Err(CommitError::Revoked),
            Outcome::TooLarge => Err(CommitError::TooLarge),
            Outcome::Done { revision, seq, record } => {
                if let Some(record) = &record {
                    self.audit.committed(record);
                }
                Ok(Outcome::Done { revision, seq, record })
            }
            Outcome::Replaced { ended, record } => {
                ended.iter().chain([&record]).for_each(|record| self.audit.committed(record));
                Ok(Outcome::Replaced { ended, record })
            }
            other => Ok(other),
        }
    }

    /// Tells the sinks of a write-back, or of a resolution, that was refused; of the session that it was for, if it was for
    /// one.
    pub fn audit_attempt(&self, session: Option<&Session>, action: Action, outcome: &'static str, actor: &Actor) {
        let (handle, revision) = (session.map(Session::handle), session.map_or(0, Session::revision));
        self.audit.attempted(&self.facts(handle, revision, action, actor).attempt(outcome));
    }
}
