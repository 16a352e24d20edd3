//! Sessions that tokens lead to: found, made where there is none, and kept to what the tokens say.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::OnMissing;
use crate::handle::Handle;
use crate::identity::Assertion;
use crate::store::{Change, Entry, Proof, Record, TokenProof};
use crate::structured::Value;

use super::birth::{Birthright, Born};
use super::delta::Delta;
use super::load::Sight;
use super::proposal::{Proposal, size_at_birth};
use super::revocations::{Bearing, Believed};
use super::schema::{Field, FieldIndex};
use super::state::{Held, Proven, Session};
use super::trail::{Action, Actor};
use super::{CommitError, LoadError, Sessions};

/// The claim whose value is a user rather than one login of theirs: the tombstone of a session of that name yields to
/// the user's next login.
const OF_USER: &str = "sub";

/// How often a session is looked at again where others were first to make it or to change it.
const TRIES: usize = 4;

/// A session that a token has led to.
#[derive(Debug)]
pub struct Found {
    pub session: Session,
    /// Whether it was made for this very request.
    pub is_new: bool,
}

/// A token's part in a session: which one it leads to, and since when what it says is so.
#[derive(Debug, Clone, Copy)]
struct Lead {
    handle: Handle,
    bearing: Bearing,
    /// None where nobody knows; the claims are then applied at creation only.
    as_of: Option<u64>,
}

impl Sessions {
    /// The session that a verified token leads to, with what the token says of it; made where there is none and the
    /// issuer's configuration says so.
    ///
    /// Requests that come at once make one session. A token that is older than one before it changes nothing. That it is
    /// not older than revocations are remembered is whoever verified it to say.
    pub async fn load_by_token(&self, assertion: &Assertion, actor: &Actor) -> Result<Found, LoadError> {
        let lead = self.lead(assertion);
        self.is_believed(&lead)?;
        let mut is_new = false;
        for _ in 0..TRIES {
            let Some((entry, sight)) = self.standing(assertion, &lead).await? else {
                if assertion.on_missing() == OnMissing::Reinit {
                    return Err(LoadError::Uninitialised);
                }
                is_new |= Box::pin(self.begin(assertion, &lead, actor)).await?;
                continue;
            };
            let mut session = self.settle(lead.handle, entry, Proven::Token(lead.bearing)).await?;
            session.at_hand = sight == Sight::AtHand;
            if self.has_applied(&session, &lead)
                || Box::pin(self.apply_claims(&session, assertion, &lead, actor)).await?
            {
                return Ok(Found { session, is_new });
            }
        }
        Err(LoadError::Contended)
    }

    fn lead(&self, assertion: &Assertion) -> Lead {
        let (handle, token) = assertion.names(|| self.keyring());
        let seconds = |time: Option<i64>| time.map(|time| u64::try_from(time).unwrap_or(0));
        let bearing = Bearing { login: seconds(assertion.login_time()), token };
        Lead { handle, bearing, as_of: seconds(assertion.as_of()) }
    }

    /// No revocation of the token stands.
    fn is_believed(&self, lead: &Lead) -> Result<(), LoadError> {
        let token = Believed { user: None, created_at: self.clock.now(), bearing: Some(lead.bearing) };
        if self.revocations.void(&token) { Err(LoadError::Revoked) } else { Ok(()) }
    }

    /// The living session under the token's handle, and how that is known; none where there is room for one.
    async fn standing(&self, assertion: &Assertion, lead: &Lead) -> Result<Option<(Arc<Entry>, Sight)>, LoadError> {
        let (entry, sight) = self.look(lead.handle).await?;
        match self.judge(entry, sight, assertion, lead) {
            Ok(None) | Err(LoadError::Foreign) if sight == Sight::AtHand => {
                let entry = self.look_anew(lead.handle).await?;
                self.judge(entry, Sight::Read, assertion, lead)
            }
            judged => judged,
        }
    }

    fn judge(
        &self,
        entry: Option<Arc<Entry>>,
        sight: Sight,
        assertion: &Assertion,
        lead: &Lead,
    ) -> Result<Option<(Arc<Entry>, Sight)>, LoadError> {
        let Some(entry) = entry else { return Ok(None) };
        let now = self.clock.now();
        let tombstone = match &*entry {
            Entry::Living(record) if record.is_living(now) => {
                let theirs = self.is_the_tokens(record, assertion, lead);
                return theirs.map_err(|error| sight.judge(error)).map(|()| Some((entry, sight)));
            }
            Entry::Living(_) if sight == Sight::LastKnown => return Err(sight.judge(LoadError::NotFound)),
            Entry::Living(_) => entry.remains(),
            Entry::Revoked(tombstone) => Some(tombstone.clone()),
        };
        match tombstone.filter(|tombstone| now < tombstone.until) {
            Some(tombstone) if !tombstone.yields_to(lead.bearing.login) => Err(LoadError::Revoked),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether a living session is that of this token's issuer and subject, and none of what was revoked.
    fn is_the_tokens(&self, record: &Record, assertion: &Assertion, lead: &Lead) -> Result<(), LoadError> {
        let token = record.proof.token().ok_or(LoadError::Foreign)?;
        if *token.issuer != **assertion.issuer() || *token.subject != **assertion.subject() {
            return Err(LoadError::Foreign);
        }
        let bearing = lead.bearing;
        let believed = Believed { user: record.user, created_at: record.created_at, bearing: Some(bearing) };
        let outlived = token.after.is_some_and(|past| !past.is_before(bearing.login));
        if outlived || self.revocations.void(&believed) { Err(LoadError::Revoked) } else { Ok(()) }
    }

    /// Makes the token's session of its claims; false where another was first.
    async fn begin(&self, assertion: &Assertion, lead: &Lead, actor: &Actor) -> Result<bool, LoadError> {
        let values = self.claimed_at_birth(assertion, &[]);
        let birthright = self.birthright(assertion, lead, self.first_values(&values));
        match self.bear(birthright, None, actor).await {
            Ok(_) => Ok(true),
            Err(CommitError::Exists) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn birthright(&self, assertion: &Assertion, lead: &Lead, deltas: Vec<Delta>) -> Birthright {
        let proof = Proof::Token(TokenProof {
            issuer: assertion.issuer().to_string(),
            subject: assertion.subject().to_string(),
            login: lead.bearing.login,
            claims_at: lead.as_of.unwrap_or(0),
            yields: **assertion.session_claim() == *OF_USER,
            after: None,
        });
        let bearing = Some(lead.bearing);
        Birthright { handle: lead.handle, proof, bearing, deltas, lifetime: self.terms.lifetime }
    }

    /// Makes the token's session with these values, in the place of the one that the request proved, if any.
    ///
    /// Claims stand where no value is given, then what may be carried. No id travels: the token leads to it.
    pub async fn start_by_token(
        &self,
        assertion: &Assertion,
        old: Option<&Session>,
        values: &[(FieldIndex, Value)],
        carry: &[FieldIndex],
        actor: &Actor,
    ) -> Result<Born, CommitError> {
        let lead = self.lead(assertion);
        let claimed = self.claimed_at_birth(assertion, values);
        let given: Vec<_> = claimed.into_iter().chain(values.iter().cloned()).collect();
        let mut deltas = old.map_or_else(Vec::new, |old| self.carried_over(old, &given, carry));
        deltas.extend(self.first_values(&given));
        let birthright = self.birthright(assertion, &lead, deltas);
        let born = self.bear(birthright, old, actor).await?;
        if let Some(old) = old {
            self.live.close(old.handle(), old.birth());
        }
        Ok(born)
    }

    /// The claims that fit their fields, in the order of the configuration; a value that is given wins, and what the
    /// session has no room for is left out.
    fn claimed_at_birth(&self, assertion: &Assertion, given: &[(FieldIndex, Value)]) -> Vec<(FieldIndex, Value)> {
        let mut room = self.schema.session_limit.saturating_sub(size_at_birth(given, &self.schema));
        let mut claimed = Vec::new();
        for (index, field, value) in self.claimed(assertion) {
            let Some(value) = value.filter(|_| !given.iter().any(|(other, _)| *other == index)) else { continue };
            if let Some(left) = room.checked_sub(value.size(&field.path)) {
                room = left;
                claimed.push((index, value));
            }
        }
        claimed
    }

    /// Each mapped field with the value of its claim, if that is there and fits.
    fn claimed<'a>(
        &'a self,
        assertion: &'a Assertion,
    ) -> impl Iterator<Item = (FieldIndex, &'a Field, Option<Value>)> + 'a {
        assertion.claims().iter().filter_map(|(path, claim)| {
            let (index, field) = self.schema.find(path)?;
            let value = claim.as_ref().and_then(|json| field.fit(Value::from_json(json)?).ok());
            if value.is_none() && claim.is_some() {
                // Neither the claim nor its value: the one is the configuration's, the other the user's.
                tracing::debug!(target: "cloakroom::session", field = &**path, "a claim does not fit its field");
            }
            Some((index, field, value))
        })
    }

    fn has_applied(&self, session: &Session, lead: &Lead) -> bool {
        let applied = session.record().proof.token().map(|token| token.claims_at);
        lead.as_of.is_none_or(|at| applied.is_some_and(|applied| at <= applied))
    }

    /// Brings a session to what a younger token says; true where that changed nothing, so that it is as it was read.
    ///
    /// That the token was seen is noted all the same, so that an older one changes nothing either; it is no reason to
    /// fail if that cannot be written.
    async fn apply_claims(
        &self,
        session: &Session,
        assertion: &Assertion,
        lead: &Lead,
        actor: &Actor,
    ) -> Result<bool, LoadError> {
        let proposal = self.proposed_by(session, assertion);
        let changes = !proposal.is_empty();
        match self.commit_claims(session, &proposal, lead, actor).await {
            Ok(()) => Ok(!changes),
            // Whoever was first may have applied the same; it is looked at again.
            Err(CommitError::Conflict(_) | CommitError::TooLarge) => Ok(false),
            Err(error @ CommitError::Store(_)) if !changes => {
                let handle = session.handle();
                tracing::debug!(target: "cloakroom::session", session = %handle, %error, "a token was not noted");
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn commit_claims(
        &self,
        session: &Session,
        proposal: &Proposal,
        lead: &Lead,
        actor: &Actor,
    ) -> Result<(), CommitError> {
        let (handle, base) = (session.handle(), session.base(None));
        let deltas = self.deltas(session, proposal)?;
        let change = Change {
            claims_at: lead.as_of,
            user: self.user_after(&deltas, session.issuer()),
            growth: Some(proposal.growth(session, &self.schema)),
            ..self.change(base, handle, &deltas)?
        };
        let actor = Actor { user: session.user(), ..actor.clone() };
        self.submit(handle, Action::Claims, &actor, &deltas, change).await.map(drop)
    }

    /// What the token's claims change, compared by value; a claim that is missing or does not fit unsets its field.
    fn proposed_by(&self, session: &Session, assertion: &Assertion) -> Proposal {
        let mut proposal = Proposal::default();
        let mut size = session.size(&self.schema);
        for (index, field, claim) in self.claimed(assertion) {
            let rest = size.saturating_sub(session.size_of(index, &field.path));
            let fits = |value: &Value| rest.saturating_add(value.size(&field.path)) <= self.schema.session_limit;
            match claim.filter(fits) {
                Some(value) => {
                    size = rest.saturating_add(value.size(&field.path));
                    if !self.holds(session, index, field, &value) {
                        proposal.set.push((index, value));
                    }
                }
                None => {
                    size = rest;
                    if !session.held(index).is_absent() {
                        proposal.unset.push(index);
                    }
                }
            }
        }
        proposal
    }

    /// Whether a field holds that value itself, in clear or sealed.
    fn holds(&self, session: &Session, index: FieldIndex, field: &Field, value: &Value) -> bool {
        match session.held(index) {
            Held::Value(held) => held.value == *value,
            Held::Sealed(_) => {
                let Some(stored) = session.record().fields.get(&field.path) else { return false };
                let opened = self.vault(session.handle(), session.birth()).open(&field.path, &stored.json);
                opened.is_ok_and(|plain| field.read(&plain).as_ref() == Some(value))
            }
            Held::Absent | Held::Unreadable => false,
        }
    }
}
