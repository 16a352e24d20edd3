//! What a handle stands for, told to those who may know, and put on record.

use crate::handle::{CommitId, FieldHandle};
use crate::store::{Commit, Effect};

use super::schema::FieldIndex;
use super::state::{Held, Session};
use super::trail::{Action, Actor};
use super::vault::Plain;
use super::{CommitError, Sessions};

impl Sessions {
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
        if !matches!(session.held(index), Held::Sealed(_)) {
            return Ok(None);
        }
        let Some(stored) = session.record().fields.get(&field.path) else { return Ok(None) };
        let Ok(plain) = self.vault(session.handle(), session.birth()).open(&field.path, &stored.json) else {
            return Ok(None);
        };
        let id = CommitId::random()?;
        let facts = self.facts(Some(session.handle()), session.revision(), Action::Resolve, actor);
        let draft = facts.draft_untouched(id, "resolve", &[(&field.path, &plain)]).ok_or(CommitError::Crypto)?;
        let effect = Effect::Note { birth: session.birth() };
        let (handle, now) = (session.handle(), self.clock.now());
        self.settle_outcome(Commit { id, handle, now, effect, record: draft }).await?;
        Ok(Some(plain))
    }

    /// The field of a session that a handle stands for.
    pub fn field_of(&self, session: &Session, wanted: FieldHandle) -> Option<FieldIndex> {
        let (handle, birth, keyring) = (session.handle(), session.birth(), self.keyring());
        let mut sensitive = self.schema.fields().filter(|(_, field)| field.sensitive);
        sensitive.find(|(_, field)| keyring.field_handle(handle, birth, &field.path) == wanted).map(|(index, _)| index)
    }
}
