//! Key sets: where an issuer's keys come from, those that are held, and who may wait for others.

mod keeper;
mod source;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use crate::clock::Time;
use crate::config::{self, Algorithm};

use super::Asker;
use super::fetch::{self, FetchError};
use super::key::Key;

use keeper::Kept;
use source::{Fetched, Source};

pub use keeper::KeySets;

/// How often a key that nobody knows has the set fetched again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a request waits for such a fetch: until it may begin, and until it ends.
const PATIENCE: Duration = Duration::from_secs(ASK_AGAIN.as_secs() + 2 * fetch::TIMEOUT.as_secs() + 1);
/// Requests that may wait for one set.
const WAITING: usize = 1024;
/// Addresses that are remembered for having asked in vain.
const VAIN: usize = 1024;
/// Keys that a token without a key's name is tried with.
const TRIED: usize = 4;
/// What a failed fetch is repeated after, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why no key of a set proves a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The key that it names is another's.
    Refuted,
    /// There is no such key.
    Unknown,
    /// There may be one, and the set could not be fetched.
    Unavailable,
}

/// The keys of one issuer.
pub struct KeySet {
    issuer: Arc<str>,
    /// What it was made of: the same again needs no other.
    raw: config::KeySource,
    source: Source,
    held: ArcSwapOption<Vec<Arc<Key>>>,
    progress: watch::Sender<Progress>,
    schedule: Mutex<Schedule>,
    /// Whether a request waits for a key that is not held.
    asked: AtomicBool,
    waiting: Semaphore,
    vain: Cache<u128, Time>,
    kept: Arc<Kept>,
}

/// How many fetches there were, and how the last one ended.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    begun: u64,
    done: u64,
    failed: bool,
}

impl Progress {
    fn runs(self) -> bool {
        self.begun > self.done
    }
}

/// When the next fetch is due.
#[derive(Debug, Default)]
struct Schedule {
    running: bool,
    due: Time,
    asked_at: Option<Time>,
    failures: u32,
    /// What was said of the last failure, so that it is not said twice.
    told: Option<String>,
}

/// What a look at the keys at hand says.
enum Look {
    Proven(Arc<Key>),
    Missing(Missing),
}

impl KeySet {
    fn new(issuer: &str, raw: &config::KeySource, source: Source, kept: Arc<Kept>) -> Self {
        let held = source.fixed().map(Arc::new);
        Self {
            issuer: issuer.into(),
            raw: raw.clone(),
            source,
            held: ArcSwapOption::new(held),
            progress: watch::Sender::default(),
            schedule: Mutex::default(),
            asked: AtomicBool::new(false),
            waiting: Semaphore::new(WAITING),
            vain: Cache::new(VAIN),
            kept,
        }
    }

    /// The key that proves a token, by the name and the algorithm that the token gives.
    ///
    /// A key that is not at hand is waited for while the set is fetched: at once where the last such fetch was long
    /// enough ago, else as soon as one may begin, so that no token is refused because its issuer has just changed its
    /// keys. Who has asked in vain a moment ago is not waited for.
    pub async fn prove(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        asker: Asker,
        verifies: impl Fn(&Key) -> bool,
    ) -> Result<Arc<Key>, Missing> {
        let mut progress = self.progress.subscribe();
        let asked_at = progress.borrow_and_update().begun;
        let look = || self.look(kid, algorithm, &verifies);
        match look() {
            Look::Proven(key) => return Ok(key),
            Look::Missing(Missing::Refuted) => return Err(Missing::Refuted),
            Look::Missing(missing) => self.may_wait(missing, asker)?,
        }
        let _place = self.waiting.try_acquire().map_err(|_| Missing::Unavailable)?;
        self.ask();
        let patience = tokio::time::sleep(PATIENCE);
        let mut patience = std::pin::pin!(patience);
        loop {
            tokio::select! {
                changed = progress.changed() => changed.map_err(|_| Missing::Unavailable)?,
                () = &mut patience => return Err(Missing::Unavailable),
            }
            let now = *progress.borrow_and_update();
            let missing = match look() {
                Look::Proven(key) => return Ok(key),
                Look::Missing(missing) => missing,
            };
            let ended = now.done > asked_at || (missing == Missing::Unavailable && now.failed);
            match missing {
                Missing::Refuted => return Err(missing),
                _ if ended && now.failed => return Err(Missing::Unavailable),
                _ if ended => {
                    self.vain.insert(asker.0, self.kept.now());
                    return Err(Missing::Unknown);
                }
                // The fetch that ran already was begun before this was asked.
                _ if !now.runs() => self.ask(),
                _ => {}
            }
        }
    }

    fn look(&self, kid: Option<&str>, algorithm: Algorithm, verifies: impl Fn(&Key) -> bool) -> Look {
        let held = self.held.load();
        let Some(keys) = held.as_ref() else { return Look::Missing(Missing::Unavailable) };
        // A key without a name may be anyone's.
        let fits = |key: &&Arc<Key>| match (kid, &key.kid) {
            (Some(wanted), Some(own)) => *wanted == **own,
            _ => true,
        };
        let mut candidates = keys.iter().filter(|key| key.takes(algorithm)).filter(fits).take(TRIED);
        if let Some(key) = candidates.find(|key| verifies(key)) {
            return Look::Proven(key.clone());
        }
        let named = kid.is_some() && keys.iter().any(|key| key.kid.as_deref() == kid);
        Look::Missing(if named { Missing::Refuted } else { Missing::Unknown })
    }

    /// Whether a key that is not at hand may come yet.
    fn may_wait(&self, missing: Missing, asker: Asker) -> Result<(), Missing> {
        if !self.source.changes() {
            return Err(missing);
        }
        let progress = *self.progress.borrow();
        if missing == Missing::Unavailable && progress.failed && !progress.runs() {
            return Err(Missing::Unavailable);
        }
        let now = self.kept.now();
        let lately = |then: Time| then <= now && now < then.plus(ASK_AGAIN);
        if self.vain.get(&asker.0).is_some_and(lately) && self.schedule().asked_at.is_some_and(lately) {
            return Err(if progress.failed { Missing::Unavailable } else { missing });
        }
        Ok(())
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.kept.poke();
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_loaded(&self) -> bool {
        self.held.load().is_some()
    }

    /// Begins a fetch if one is due; whoever begins one ends it.
    fn begin(&self) -> bool {
        let now = self.kept.now();
        let mut schedule = self.schedule();
        if schedule.running || !self.source.changes() {
            return false;
        }
        // The clock may have been set back since.
        let due = schedule.due <= now || schedule.due.since(now) > self.raw.refresh.0.max(BACK_OFF.1);
        let may = schedule.asked_at.is_none_or(|last| last > now || last.plus(ASK_AGAIN) <= now);
        let asked = may && self.asked.load(Ordering::Acquire);
        if !due && !asked {
            return false;
        }
        if !due {
            schedule.asked_at = Some(now);
        }
        self.asked.store(false, Ordering::Release);
        schedule.running = true;
        drop(schedule);
        self.progress.send_modify(|progress| progress.begun += 1);
        true
    }

    async fn refresh(&self) {
        let fetched = self.source.fetch(&self.issuer).await;
        let failed = fetched.is_err();
        let now = self.kept.now();
        match fetched {
            Ok(fetched) => self.take_on(fetched, now),
            Err(error) => self.put_off(&error, now),
        }
        // Whoever is still not content asks again.
        self.asked.store(false, Ordering::Release);
        self.progress.send_modify(|progress| {
            progress.done += 1;
            progress.failed = failed;
        });
    }

    /// Takes on a set. Keys that it has no longer go out of use, with all that was verified by them.
    fn take_on(&self, fetched: Fetched, now: Time) {
        let before = self.held.load_full();
        let known = |key: &Key| before.iter().flat_map(|keys| keys.iter()).find(|old| old.is_same_as(key)).cloned();
        let keys: Vec<Arc<Key>> =
            fetched.keys.into_iter().map(|key| known(&key).unwrap_or_else(|| Arc::new(key))).collect();
        let gone = |old: &&Arc<Key>| !keys.iter().any(|key| Arc::ptr_eq(key, old));
        let retired: Vec<Arc<Key>> = before.iter().flat_map(|keys| keys.iter()).filter(gone).cloned().collect();
        let changed = !retired.is_empty() || before.is_none_or(|before| before.len() != keys.len());
        let count = keys.len();
        self.held.store(Some(Arc::new(keys)));
        retired.iter().for_each(|key| key.retire());
        let mut schedule = self.schedule();
        let recovered = schedule.told.take().is_some();
        *schedule = Schedule {
            due: now.plus(self.source.next(fetched.max_age)),
            asked_at: schedule.asked_at,
            ..Schedule::default()
        };
        drop(schedule);
        if changed || recovered {
            tracing::info!(target: "cloakroom::identity", issuer = %self.issuer, keys = count, retired = retired.len(), "the issuer's keys are loaded");
        }
    }

    /// What is held stays.
    fn put_off(&self, error: &FetchError, now: Time) {
        let held = self.is_loaded();
        let mut schedule = self.schedule();
        let wait =
            BACK_OFF.0.saturating_mul(1 << schedule.failures.min(6)).min(BACK_OFF.1).min(self.source.longest_wait());
        schedule.running = false;
        schedule.failures = schedule.failures.saturating_add(1);
        schedule.due = now.plus(jittered(wait));
        let told = error.to_string();
        let news = schedule.told.as_ref() != Some(&told);
        if news {
            schedule.told = Some(told);
        }
        drop(schedule);
        if news {
            tracing::warn!(target: "cloakroom::identity", issuer = %self.issuer, held, %error, "the issuer's keys could not be loaded");
        }
    }
}

/// Between half of it and all, so that many sidecars do not come back together.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the whole of it is waited.
    let share = aws_lc_rs::rand::fill(&mut byte).map_or(255, |()| u32::from(byte[0]));
    wait / 2 + wait / 2 * share / 255
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
