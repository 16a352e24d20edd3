//! How sessions begin: with an id that nobody chose, and nothing of a session before but what may be carried.

use crate::handle::SessionId;
use crate::store::{Proof, StoreError};
use crate::structured::Value;

use super::birth::Birthright;
use super::delta::Delta;
use super::proposal::size_at_birth;
use super::revocations::Believed;
use super::schema::FieldIndex;
use super::state::{Held, Session};
use super::trail::Actor;
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

    pub(super) fn first_values(&self, values: &[(FieldIndex, Value)]) -> Vec<Delta> {
        let first = |(index, value): &(FieldIndex, Value)| {
            let field = self.schema.field(*index)?;
            let after = Some(Plain::new(value.json()));
            let (sensitive, shown) = (field.sensitive, field.audit_value);
            Some(Delta { path: field.path.clone(), before: None, after, sensitive, shown })
        };
        values.iter().filter_map(first).collect()
    }

    async fn create_with(&self, deltas: Vec<Delta>, lifetime: Lifetime, actor: &Actor) -> Result<Created, CommitError> {
        let id = SessionId::random()?;
        let proof = Proof::Secret { hash: id.hash(), previous: None };
        let new = Birthright { handle: id.handle(), proof, bearing: None, deltas, lifetime };
        match self.bear(new, None, actor).await {
            Ok(born) => Ok(Created { id, born }),
            // A random name that is taken is no luck of ours: nothing was made, and nobody's session is handed out.
            Err(CommitError::Exists) => Err(StoreError::Unavailable("a new session's name was taken".into()).into()),
            Err(error) => Err(error),
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
        let mut deltas = old.map_or_else(Vec::new, |old| self.carried_over(old, values, carry));
        deltas.extend(self.first_values(values));
        // Before the old one is gone, since the new one would not come.
        let user = self.user_after(&deltas, None).flatten();
        if self.revocations.void(&Believed { user, created_at: self.clock.now(), bearing: None }) {
            return Err(CommitError::Revoked);
        }
        if let Some(old) = old {
            match self.revoke(old.handle(), Some(old.birth()), actor).await {
                // Gone is gone, whoever was first.
                Ok(()) | Err(CommitError::NotFound | CommitError::Revoked) => {}
                Err(error) => return Err(error),
            }
        }
        self.create_with(deltas, self.terms.lifetime, actor).await
    }

    /// What a session without a user hands on: the fields that may be carried and were not given anew.
    pub(super) fn carried_over(
        &self,
        old: &Session,
        values: &[(FieldIndex, Value)],
        carry: &[FieldIndex],
    ) -> Vec<Delta> {
        if old.user().is_some() {
            return Vec::new();
        }
        let carried = carry.iter().filter(|index| !values.iter().any(|(given, _)| given == *index));
        let mut room = self.schema.session_limit.saturating_sub(size_at_birth(values, &self.schema));
        carried.filter_map(|index| self.carried(old, *index, &mut room)).collect()
    }

    fn carried(&self, old: &Session, index: FieldIndex, room: &mut usize) -> Option<Delta> {
        let field = self.schema.field(index)?;
        *room = room.checked_sub(old.size_of(index, &field.path))?;
        if field.sensitive && !matches!(old.held(index), Held::Sealed(_)) {
            return None;
        }
        let stored = old.record().fields.get(&field.path)?;
        let plain = self.vault(old.handle(), old.birth()).open(&field.path, &stored.json).ok()?;
        field.read(&plain)?;
        let path = field.path.clone();
        Some(Delta { path, before: None, after: Some(plain), sensitive: field.sensitive, shown: field.audit_value })
    }
}
