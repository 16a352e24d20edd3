//! How sessions begin: with an id that nobody chose, and nothing of a session before but what may be carried.

use std::collections::{BTreeMap, VecDeque};

use crate::handle::{Birth, CommitId, SessionId};
use crate::store::{Commit, Effect, Outcome, PreviousSecret, Proof, Record, StoreError, Stored};
use crate::structured::Value;

use super::delta::{self, Delta};
use super::proposal::size_at_birth;
use super::schema::FieldIndex;
use super::state::Session;
use super::trail::{Action, Actor};
use super::vault::Plain;
use super::{CommitError, Created, Lifetime, Sessions};

impl Sessions {
    /// Makes a session with these values and a new id.
    pub async fn create(
        &self,
        values: &[(FieldIndex, Value)],
        lifetime: Lifetime,
        actor: &Actor,
    ) -> Result<Created, CommitError> {
        self.create_with(self.first_values(values), lifetime, actor).await
    }

    fn first_values(&self, values: &[(FieldIndex, Value)]) -> Vec<Delta> {
        let first = |(index, value): &(FieldIndex, Value)| {
            let field = self.schema.field(*index)?;
            let after = Some(Plain::new(value.to_json().to_string()));
            let (sensitive, shown) = (field.sensitive, field.audit_value);
            Some(Delta { path: field.path.clone(), before: None, after, sensitive, shown })
        };
        values.iter().filter_map(first).collect()
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
            size: None,
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
    /// The old one is revoked first. Of it only the fields in `carry` live on, and only if it had no user; what the
    /// new session has no room for is left behind.
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
                let mut room = self.schema.session_limit.saturating_sub(size_at_birth(values, &self.schema));
                deltas.extend(carried.filter_map(|index| self.carried(old, *index, &mut room)));
            }
            match self.revoke(old.handle(), Some(old.birth()), actor).await {
                // Gone is gone, whoever was first.
                Ok(()) | Err(CommitError::NotFound | CommitError::Revoked) => {}
                Err(error) => return Err(error),
            }
        }
        deltas.extend(self.first_values(values));
        self.create_with(deltas, self.lifetime, actor).await
    }

    fn carried(&self, old: &Session, index: FieldIndex, room: &mut usize) -> Option<Delta> {
        let field = self.schema.field(index)?;
        *room = room.checked_sub(old.size_of(index, &field.path))?;
        let stored = old.record().fields.get(&field.path)?;
        let plain = self.vault(old.handle(), old.birth()).open(&field.path, &stored.json).ok()?;
        field.read(&plain)?;
        let path = field.path.clone();
        Some(Delta { path, before: None, after: Some(plain), sensitive: field.sensitive, shown: field.audit_value })
    }
}
