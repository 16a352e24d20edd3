//! Whether an audit trail is whole.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use crate::clock::Time;
use crate::handle::Handle;
use crate::keyring::{Keyring, MacError};
use crate::store::{Entry, StoreError};

use super::Sessions;
use super::trail;

/// Audit records that a verification reads at once.
const PAGE: usize = 1000;

/// What is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// The record is not what was written.
    Altered { seq: u64 },
    /// The record cannot be read at all; `position` counts from the newest.
    Unreadable { position: usize },
    /// Its mac was made with a key that the keyring does not have.
    UnknownKey { seq: u64, key: String },
    /// Records of that range are gone.
    Missing { from: u64, to: u64 },
    /// The record stands where another belongs.
    OutOfPlace { seq: u64 },
    /// Records after the last one here were cut off.
    CutOff { last_kept: u64, last_written: u64 },
}

/// The answer of a verification.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub whole: bool,
    /// How many records were read.
    pub records: usize,
    pub findings: Vec<Finding>,
    /// Whether the session's record, which knows the last number, is still there to hold the end against.
    pub end_checked: bool,
}

impl Sessions {
    /// Whether a session's trail is whole.
    pub async fn verify(&self, handle: Handle) -> Result<Verdict, StoreError> {
        // Read before the trail, so that a commit in between makes the trail longer than expected, never shorter.
        let entry = self.bounded(self.store.load(handle)).await?;
        let (mut records, mut before) = (Vec::new(), None);
        loop {
            let page = self.bounded(self.store.trail(handle, before, PAGE)).await?;
            records.extend(page.records);
            match page.next {
                Some(next) => before = Some(next),
                None => break,
            }
        }
        let kept = Kept { records: self.trail_kept, after_end: self.trail_retained, now: self.clock.now() };
        let own = Own { session: handle, environment: &self.environment, keyring: &self.keyring() };
        Ok(verify(&records, entry.as_deref(), &own, &kept))
    }
}

/// How much of a trail the store keeps.
pub struct Kept {
    /// Trimming is exact, so what is missing at the beginning beyond so many was removed.
    pub records: u64,
    /// How long a trail outlives its session.
    pub after_end: Duration,
    pub now: Time,
}

/// Whose records a trail may hold.
pub struct Own<'a> {
    pub session: Handle,
    pub environment: &'a str,
    pub keyring: &'a Keyring,
}

/// Checks records, newest first, against each other and against what stands under the handle.
pub fn verify(records: &[String], entry: Option<&Entry>, own: &Own<'_>, kept: &Kept) -> Verdict {
    let mut findings = Vec::new();
    let mut numbers = Vec::new();
    for (position, text) in records.iter().enumerate() {
        match read(text) {
            Some((record, seq)) => {
                let belongs = own.is_of(&record) && is_written_once(text, &record);
                let forged = if belongs { forged(&record, seq, own.keyring) } else { Some(Finding::Altered { seq }) };
                findings.extend(forged);
                numbers.push(seq);
            }
            None => findings.push(Finding::Unreadable { position }),
        }
    }
    findings.extend(gaps(&numbers));
    findings.extend(beginning(&numbers, kept.records));
    let last_written = match entry {
        Some(Entry::Living(record)) => Some(record.seq),
        // A tombstone may stand for longer than the trail is kept.
        Some(Entry::Revoked(tombstone)) => {
            (kept.now < tombstone.over_at.unwrap_or(tombstone.revoked_at).plus(kept.after_end)).then_some(tombstone.seq)
        }
        None => None,
    };
    let last_kept = numbers.first().copied().unwrap_or(0);
    if let Some(last_written) = last_written.filter(|last| last_kept < *last) {
        findings.push(Finding::CutOff { last_kept, last_written });
    }
    Verdict { whole: findings.is_empty(), records: records.len(), findings, end_checked: last_written.is_some() }
}

/// What is missing before the oldest record, given that the store trims to `keep`.
fn beginning(numbers: &[u64], keep: u64) -> Option<Finding> {
    let (newest, oldest) = (*numbers.first()?, *numbers.last()?);
    // A trail over several births begins with one that was whole when it was trimmed.
    let first_kept = if newest < numbers.len() as u64 { 1 } else { newest.saturating_sub(keep).saturating_add(1) };
    (oldest > first_kept && (numbers.len() as u64) < keep)
        .then(|| Finding::Missing { from: first_kept, to: oldest - 1 })
}

impl Own<'_> {
    /// Whether a record is of a commit to this session: not of another's, and not of an attempt, which stands in no trail.
    fn is_of(&self, record: &Json) -> bool {
        let says = |name: &str, value: &str| record.get(name).and_then(Json::as_str) == Some(value);
        let committed = record.get("commit").is_some_and(Json::is_string) && record.get("outcome").is_none();
        committed && says("session", &self.session.text()) && says("env", self.environment)
    }
}

/// Whether each member stands once, so that all who read it read the same: written again, it is as long.
fn is_written_once(text: &str, record: &Json) -> bool {
    record.to_string().len() == text.len()
}

fn read(text: &str) -> Option<(Json, u64)> {
    let record: Json = serde_json::from_str(text).ok()?;
    let seq = record.get("seq")?.as_u64()?;
    Some((record, seq))
}

fn forged(record: &Json, seq: u64, keyring: &Keyring) -> Option<Finding> {
    let part = |name: &str| record.get(name).and_then(Json::as_str);
    let (Some(key), Some(mac), Some(covered)) = (part("key"), part("mac"), trail::covered(record)) else {
        return Some(Finding::Altered { seq });
    };
    match keyring.verify_mac(key, mac, covered.as_bytes()) {
        Ok(()) => None,
        Err(MacError::UnknownKey) => Some(Finding::UnknownKey { seq, key: key.to_owned() }),
        Err(MacError::Mismatch) => Some(Finding::Altered { seq }),
    }
}

/// What is missing or out of place among numbers that fall by one from newest to oldest, and begin anew with each
/// birth.
fn gaps(numbers: &[u64]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pair in numbers.windows(2) {
        let &[newer, older] = pair else { continue };
        if newer == older.saturating_add(1) || newer == 1 {
            continue;
        }
        if newer > older {
            findings.push(Finding::Missing { from: older + 1, to: newer - 1 });
        } else {
            findings.push(Finding::OutOfPlace { seq: newer });
        }
    }
    findings
}
