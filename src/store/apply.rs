//! What a commit does to the entry under its handle.

use std::sync::Arc;

use super::{
    Change, Commit, Conflict, Effect, Entry, Outcome, PreviousSecret, Proof, Recent, Record, Replace, Resealed, Rotate,
    Stored, Tombstone,
};
use crate::clock::Time;

/// How many commits an entry remembers.
///
/// A commit is asked for again by the exchange that lost its answer, within that exchange's deadline; so many
/// other commits to one session in between would be a session written without pause.
pub(super) const REMEMBERED: usize = 16;

/// A commit's effect, for the home to write.
#[derive(Debug)]
pub struct Applied {
    pub outcome: Outcome,
    /// The entry that is to stand under the handle from now on; none if nothing changes.
    pub entry: Option<Entry>,
}

/// Decides a commit against what stands under its handle.
///
/// An expired session and a tombstone past its time count as absent, so that nothing depends on when the home
/// sweeps them; of a session that came after a revocation, that remains. A commit that the entry remembers is answered
/// as it was then, before any check.
pub fn apply(current: Option<&Entry>, commit: &Commit) -> Applied {
    let remains = current.and_then(|entry| remains(entry, commit.now));
    let current = remains.as_ref().or(current).filter(|entry| commit.now < entry.forgotten_at());
    if let Some(before) = current.and_then(|entry| entry.recent().iter().find(|recent| recent.id == commit.id)) {
        return unchanged(Outcome::Done { revision: before.revision, seq: before.seq, record: None });
    }
    decide(current, commit).unwrap_or_else(unchanged)
}

/// What a commit, which was applied elsewhere, has made of that record; none where the session does not go on with it.
pub(super) fn follow(record: &Record, commit: &Commit) -> Option<Record> {
    let record = match &commit.effect {
        Effect::Change(asked) if asked.end.is_none() => changed(record, asked).ok()?,
        Effect::Note { .. } => next(record),
        Effect::Reseal { values, .. } => reseal(next(record), values).ok()?,
        Effect::Change(_) | Effect::Create(_) | Effect::Replace(_) | Effect::Revoke { .. } => return None,
    };
    Some(asked_for(record, commit))
}

/// The audit records that a home is to append, in their order.
pub(super) fn records(outcome: &Outcome) -> impl Iterator<Item = &str> {
    let (ended, record) = match outcome {
        Outcome::Done { record, .. } => (None, record.as_deref()),
        Outcome::Replaced { ended, record } => (ended.as_deref(), Some(record.as_str())),
        _ => (None, None),
    };
    ended.into_iter().chain(record)
}

/// What a home is to keep of an entry that is over.
pub(super) fn remains(entry: &Entry, now: Time) -> Option<Entry> {
    let over = entry.forgotten_at() <= now;
    entry.remains().filter(|tombstone| over && now < tombstone.until).map(Entry::Revoked)
}

fn unchanged(outcome: Outcome) -> Applied {
    Applied { outcome, entry: None }
}

fn decide(current: Option<&Entry>, commit: &Commit) -> Result<Applied, Outcome> {
    match &commit.effect {
        Effect::Create(record) => {
            let mut record = record.as_ref().clone();
            make_room(current, &mut record)?;
            Ok(recorded(record, None, commit))
        }
        Effect::Replace(asked) => replace(living(current)?, asked, commit),
        Effect::Change(asked) => change(living(current)?, asked, commit),
        Effect::Revoke { birth, until } => {
            let record = living(current)?;
            same_birth(record, birth.as_ref().unwrap_or(&record.birth))?;
            Ok(recorded(next(record), Some(*until), commit))
        }
        Effect::Note { birth } => {
            let record = living(current)?;
            same_birth(record, birth)?;
            Ok(recorded(next(record), None, commit))
        }
        Effect::Reseal { birth, values } => {
            let record = living(current)?;
            same_birth(record, birth)?;
            Ok(recorded(reseal(next(record), values)?, None, commit))
        }
    }
}

/// A session of a login that came after the revocation which stands here keeps the time of that.
fn make_room(current: Option<&Entry>, record: &mut Record) -> Result<(), Outcome> {
    match (current, &mut record.proof) {
        (None, _) => Ok(()),
        (Some(Entry::Living(_)), _) => Err(Outcome::Exists),
        (Some(Entry::Revoked(tombstone)), Proof::Token(token)) if tombstone.yields_to(token.login) => {
            token.after = Some(tombstone.past());
            Ok(())
        }
        (Some(Entry::Revoked(_)), _) => Err(Outcome::Revoked),
    }
}

/// The session that comes in another's place keeps the revocation that that one came after.
fn replace(current: &Record, asked: &Replace, commit: &Commit) -> Result<Applied, Outcome> {
    same_birth(current, &asked.birth)?;
    let ended = asked.ended.complete(current.seq.saturating_add(1), current.revision);
    let mut record = asked.record.clone();
    if let (Proof::Token(token), Some(before)) = (&mut record.proof, current.proof.token()) {
        token.after = before.after;
    }
    record.recent = current.recent.clone();
    let record = asked_for(record, commit);
    let created = commit.record.complete(record.seq, record.revision);
    let outcome = Outcome::Replaced { ended: Some(ended), record: created };
    Ok(Applied { outcome, entry: Some(Entry::Living(record.into())) })
}

fn living(current: Option<&Entry>) -> Result<&Record, Outcome> {
    match current {
        Some(Entry::Living(record)) => Ok(record),
        Some(Entry::Revoked(_)) => Err(Outcome::Revoked),
        None => Err(Outcome::NotFound),
    }
}

fn same_birth(record: &Record, birth: &crate::handle::Birth) -> Result<(), Outcome> {
    if record.birth == *birth { Ok(()) } else { Err(Outcome::Conflict(Conflict::Birth)) }
}

fn change(record: &Record, asked: &Change, commit: &Commit) -> Result<Applied, Outcome> {
    same_birth(record, &asked.base.birth)?;
    if is_stale(record, asked) {
        return Ok(unchanged(Outcome::Unchanged { revision: record.revision }));
    }
    matches_revision(record, asked)?;
    merges(record, asked)?;
    if let Some(rotate) = &asked.rotate {
        replaces_current(record, rotate)?;
    }
    if !has_effect(record, asked) {
        return Ok(noted(record, asked));
    }
    Ok(recorded(changed(record, asked)?, asked.end, commit))
}

/// The session as the change has it, once all of its conditions hold.
fn changed(record: &Record, asked: &Change) -> Result<Record, Outcome> {
    let size = size_after(record, asked)?;
    let mut record = next(record);
    note_claims(&mut record, asked);
    record.size = size;
    write_fields(&mut record, asked);
    record.schema = record.schema.max(asked.schema.unwrap_or(0));
    if let Some(user) = asked.user {
        record.user = user;
    }
    if let Some(rotate) = &asked.rotate {
        let previous = Some(PreviousSecret { hash: rotate.current, until: rotate.grace_until });
        record.proof = Proof::Secret { hash: rotate.next, previous };
    }
    Ok(record)
}

/// Whether it comes from a token that is not younger than one whose claims were applied.
fn is_stale(record: &Record, asked: &Change) -> bool {
    let applied = record.proof.token().map(|token| token.claims_at);
    asked.claims_at.zip(applied).is_some_and(|(asked, applied)| asked <= applied)
}

fn note_claims(record: &mut Record, asked: &Change) {
    if let (Proof::Token(token), Some(at)) = (&mut record.proof, asked.claims_at) {
        token.claims_at = at;
    }
}

/// Nothing to change; that a token's claims were looked at is no change, and is noted all the same.
fn noted(record: &Record, asked: &Change) -> Applied {
    let outcome = Outcome::Unchanged { revision: record.revision };
    if asked.claims_at.is_none() || record.proof.token().is_none() {
        return unchanged(outcome);
    }
    let mut record = record.clone();
    note_claims(&mut record, asked);
    Applied { outcome, entry: Some(Entry::Living(record.into())) }
}

/// `If-Match` names the revision before the exchange's own head was committed, since that is all its writer saw.
fn matches_revision(record: &Record, asked: &Change) -> Result<(), Outcome> {
    let Some(wanted) = asked.if_match else { return Ok(()) };
    let only_own_since = asked.base.own == Some(record.revision) && record.revision.checked_sub(1) == Some(wanted);
    if record.revision == wanted || only_own_since { Ok(()) } else { Err(Outcome::Conflict(Conflict::Revision)) }
}

/// No field of the change was changed by another writer after the base.
fn merges(record: &Record, asked: &Change) -> Result<(), Outcome> {
    let by_another = |path: &&Arc<str>| {
        let at = record.changed_at(path);
        at > asked.base.revision && asked.base.own != Some(at)
    };
    match asked.set.iter().map(|(path, _)| path).chain(&asked.unset).find(by_another) {
        Some(path) => Err(Outcome::Conflict(Conflict::Field(path.clone()))),
        None => Ok(()),
    }
}

fn replaces_current(record: &Record, rotate: &Rotate) -> Result<(), Outcome> {
    match &record.proof {
        Proof::Secret { hash, .. } if *hash == rotate.current => Ok(()),
        Proof::Secret { .. } | Proof::Token(_) => Err(Outcome::SecretChanged),
    }
}

fn has_effect(record: &Record, asked: &Change) -> bool {
    changes_fields(asked)
        || asked.schema.is_some_and(|version| version > record.schema)
        || asked.user.is_some_and(|user| user != record.user)
        || asked.rotate.is_some()
        || asked.end.is_some()
}

fn changes_fields(asked: &Change) -> bool {
    !asked.set.is_empty() || !asked.unset.is_empty()
}

/// What nobody has counted is not known, and taken as it is read by the next who counts.
fn size_after(record: &Record, asked: &Change) -> Result<Option<u64>, Outcome> {
    match &asked.growth {
        Some(growth) => growth.of(record.revision, record.size).map(Some).ok_or(Outcome::TooLarge),
        None => Ok(record.size.filter(|_| !changes_fields(asked))),
    }
}

/// Only field changes raise the revision.
///
/// What is unset is remembered for as long as the session lives, so that no conflict is missed. Names come from
/// the closed schema and the versions before it, which bounds them; to drop the oldest would be to merge what
/// may conflict.
fn write_fields(record: &mut Record, asked: &Change) {
    if !changes_fields(asked) {
        return;
    }
    record.revision = record.revision.saturating_add(1);
    for path in &asked.unset {
        record.fields.remove(path);
        record.unset.insert(path.clone(), record.revision);
    }
    for (path, json) in &asked.set {
        record.unset.remove(path);
        record.fields.insert(path.clone(), Stored { json: json.clone(), revision: record.revision });
    }
}

/// Puts another text in the place of each, if all of them stand as they were read.
fn reseal(mut record: Record, values: &[Resealed]) -> Result<Record, Outcome> {
    for value in values {
        match record.fields.get_mut(&value.path).filter(|stored| stored.json == value.before) {
            Some(stored) => stored.json = value.after.clone(),
            None => return Err(Outcome::Conflict(Conflict::Field(value.path.clone()))),
        }
    }
    Ok(record)
}

/// A copy of the record with the number of its next audit record.
fn next(record: &Record) -> Record {
    let mut record = record.clone();
    record.seq = record.seq.saturating_add(1);
    record
}

/// Remembers the commit.
fn asked_for(mut record: Record, commit: &Commit) -> Record {
    let (revision, seq) = (record.revision, record.seq);
    while record.recent.len() >= REMEMBERED {
        record.recent.pop_front();
    }
    record.recent.push_back(Recent { id: commit.id, revision, seq });
    record
}

/// Completes the audit record, remembers the commit, and puts a tombstone in the record's place where it ends.
fn recorded(record: Record, end: Option<Time>, commit: &Commit) -> Applied {
    let record = asked_for(record, commit);
    let (revision, seq) = (record.revision, record.seq);
    let outcome = Outcome::Done { revision, seq, record: Some(commit.record.complete(seq, revision)) };
    let entry = match end {
        None => Entry::Living(record.into()),
        Some(until) => Entry::Revoked(Tombstone {
            birth: record.birth,
            revoked_at: commit.now,
            until,
            over_at: None,
            seq,
            yields: record.proof.token().is_some_and(|token| token.yields),
            recent: record.recent,
        }),
    };
    Applied { outcome, entry: Some(entry) }
}
