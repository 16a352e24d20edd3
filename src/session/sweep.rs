//! The walk through all sessions that follows a rotation of keys: what each key still holds, and moving it on.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use crate::handle::{Birth, CommitId, Handle};
use crate::keyring::Keyring;
use crate::store::{Commit, Effect, Entry, Outcome, Record, Resealed, StoreError};

use super::vault::{Plain, is_sealed};
use super::{Action, Actor, ActorKind, CommitError, Sessions};

/// Sessions that one step of the walk looks at. What a store does to list them takes longer than one operation.
const PAGE: usize = 128;
/// Audit records that are read at once.
const TRAIL_PAGE: usize = 1000;
/// How often a session is tried again when another writer was first.
const TRIES: usize = 3;

/// What rests on one sealing key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// Values that it seals.
    pub values: u64,
    /// Audit records that it vouches for. They stay as they are until they are trimmed or their time is over.
    pub records: u64,
}

/// What rests on each key, by its id.
pub type KeyUses = BTreeMap<String, KeyUse>;

/// What a walk has done so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Sessions that were looked at.
    pub sessions: u64,
    /// Values that the active key seals since.
    pub resealed: u64,
    /// Values that could not be opened, sessions that could not be read, and those that other writers held on to: they are
    /// as they were.
    pub skipped: u64,
}

impl Sessions {
    /// Counts what rests on each key in the next page of sessions; gives where the page after begins, if one does.
    ///
    /// The trails of sessions that are gone are not found this way; they end by themselves.
    pub async fn count_keys(&self, after: Option<Handle>, uses: &mut KeyUses) -> Result<Option<Handle>, StoreError> {
        let page = self.store.handles(after, PAGE).await?;
        for handle in &page {
            if let Some(Entry::Living(record)) = self.readable(*handle).await?.as_deref() {
                for id in sealed_values(record).filter_map(|(_, json)| key_of(json)) {
                    uses.entry(id.to_owned()).or_default().values += 1;
                }
            }
            self.count_records(*handle, uses).await?;
        }
        Ok(next(&page))
    }

    async fn count_records(&self, handle: Handle, uses: &mut KeyUses) -> Result<(), StoreError> {
        let mut before = None;
        loop {
            let page = match self.bounded(self.store.trail(handle, before, TRAIL_PAGE)).await {
                Err(StoreError::Damaged(_)) => return Ok(()),
                page => page?,
            };
            for record in &page.records {
                let record: Json = serde_json::from_str(record).unwrap_or_default();
                if let Some(id) = record.get("key").and_then(Json::as_str) {
                    uses.entry(id.to_owned()).or_default().records += 1;
                }
            }
            before = page.next;
            if before.is_none() {
                return Ok(());
            }
        }
    }

    /// Seals with the active key what others seal in the next page of sessions; gives where the page after begins.
    ///
    /// No value changes, no revision is raised, and no writer meets a conflict. May be repeated at any time: what
    /// the active key seals already is left alone.
    ///
    /// # Errors
    /// The store's; the page may be done in part.
    pub async fn reseal(&self, after: Option<Handle>, moved: &mut Moved) -> Result<Option<Handle>, StoreError> {
        let page = self.store.handles(after, PAGE).await?;
        for handle in &page {
            self.reseal_session(*handle, moved).await?;
            moved.sessions += 1;
        }
        Ok(next(&page))
    }

    async fn reseal_session(&self, handle: Handle, moved: &mut Moved) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let entry = match self.bounded(self.store.load(handle)).await {
                Err(StoreError::Damaged(_)) => {
                    moved.skipped += 1;
                    return Ok(());
                }
                entry => entry?,
            };
            let Some(Entry::Living(record)) = entry.as_deref() else { return Ok(()) };
            let (old, unopened) = self.under_old_keys(handle, record);
            if old.is_empty() {
                moved.skipped += unopened;
                return Ok(());
            }
            match self.commit_resealed(handle, record, &old).await {
                Ok(Outcome::Done { .. }) => {
                    moved.resealed += old.len() as u64;
                    moved.skipped += unopened;
                    return Ok(());
                }
                // What is gone needs no key.
                Err(CommitError::NotFound | CommitError::Revoked) => return Ok(()),
                // Another writer was there: what it wrote is looked at anew.
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Exists | CommitError::TooLarge | CommitError::Entropy(_) | CommitError::Crypto) => {
                    return Err(StoreError::Unavailable("a value could not be sealed".into()));
                }
            }
        }
        moved.skipped += 1;
        Ok(())
    }

    /// The values that another key than the active one seals, opened; and how many of them do not open.
    fn under_old_keys<'r>(&self, handle: Handle, record: &'r Record) -> (Vec<(&'r str, &'r str, Plain)>, u64) {
        let vault = self.vault(handle, record.birth);
        let keyring = self.keyring();
        let active = keyring.active(self.clock.now());
        let (mut opened, mut unopened) = (Vec::new(), 0);
        let older = record.schema < self.schema.version;
        let became_sensitive = |path: &str| older && self.schema.find(path).is_some_and(|(_, field)| field.sensitive);
        let values = record.fields.iter().map(|(path, stored)| (&**path, &*stored.json));
        let due = |path: &str, json: &str| match is_sealed(json) {
            true => key_of(json) != Some(active),
            false => became_sensitive(path),
        };
        for (path, json) in values.filter(|(path, json)| due(path, json)) {
            match vault.open(path, json) {
                Ok(plain) => opened.push((path, json, plain)),
                Err(_) => unopened += 1,
            }
        }
        (opened, unopened)
    }

    async fn commit_resealed(
        &self,
        handle: Handle,
        record: &Record,
        old: &[(&str, &str, Plain)],
    ) -> Result<Outcome, CommitError> {
        let values = self.resealed(handle, record.birth, old).ok_or(CommitError::Crypto)?;
        let id = CommitId::random()?;
        let actor = Actor { user: record.user, ..Actor::new(ActorKind::Cloakroom) };
        let told: Vec<(&str, &Plain)> = old.iter().map(|(path, _, plain)| (*path, plain)).collect();
        let facts = self.facts(Some(handle), record.revision, Action::Reseal, &actor);
        let draft = facts.draft_untouched(id, "reseal", &told).ok_or(CommitError::Crypto)?;
        let effect = Effect::Reseal { birth: record.birth, values };
        self.settle_outcome(Commit { id, handle, now: self.clock.now(), effect, record: draft }).await
    }

    fn resealed(&self, handle: Handle, birth: Birth, old: &[(&str, &str, Plain)]) -> Option<Vec<Resealed>> {
        let (vault, now) = (self.vault(handle, birth), self.clock.now());
        let seal = |(path, json, plain): &(&str, &str, Plain)| {
            let after = vault.seal(path, plain, now)?;
            Some(Resealed { path: (*path).into(), before: (*json).into(), after })
        };
        old.iter().map(seal).collect()
    }
}

/// A page that is full may have one after it.
fn next(page: &[Handle]) -> Option<Handle> {
    page.last().copied().filter(|_| page.len() == PAGE)
}

fn sealed_values(record: &Record) -> impl Iterator<Item = (&str, &str)> {
    let values = record.fields.iter().map(|(path, stored)| (&**path, &*stored.json));
    values.filter(|(_, json)| is_sealed(json))
}

fn key_of(json: &str) -> Option<&str> {
    Keyring::sealed_under(json.trim_matches('"'))
}
