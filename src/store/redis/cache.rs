//! Sessions that need no round trip, for as long as it is certain that the server holds the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::link::Link;
use crate::config::{CacheMode, StoreCache};
use crate::handle::Handle;
use crate::store::{Entry, StoreError};

/// How old an entry may get that nothing was heard of: a bound for faults that nobody has thought of.
const OLDEST: Duration = Duration::from_secs(30);

/// How old it may get where the server does not tell of changes.
const OLDEST_UNTOLD: Duration = Duration::from_secs(1);

/// What was read, and what it was read on.
#[derive(Clone)]
pub(super) struct Kept {
    pub entry: Arc<Entry>,
    /// The number of the line: what is told on another says nothing of it.
    pub line: u64,
    /// Whether the server tells on that line when the entry changes.
    pub told: bool,
    pub asked_at: Instant,
}

/// An entry is put only where nothing was heard of its key since it was asked for.
///
/// A reader reserves the place before it asks; what the server tells takes the place away, and what the reader
/// then brings is refused.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<Handle, Kept>,
    mode: CacheMode,
}

impl Cache {
    pub fn new(config: &StoreCache) -> Self {
        Self { entries: quick_cache::sync::Cache::new(config.sessions as usize), mode: config.mode }
    }

    /// The entry that is kept, where it is certainly the server's.
    pub fn at_hand(&self, handle: Handle, link: &Link, now: Instant) -> Option<Arc<Entry>> {
        self.entries.get(&handle).filter(|kept| self.is_valid(kept, link, now)).map(|kept| kept.entry)
    }

    /// The entry that is kept, else what `read` finds; of many that ask at once one reads.
    ///
    /// An absent entry is not remembered: anyone can make up a handle.
    pub async fn find<F>(
        &self,
        handle: Handle,
        link: &Link,
        read: impl Fn() -> F,
    ) -> Result<Option<Arc<Entry>>, StoreError>
    where
        F: Future<Output = Result<Option<Kept>, StoreError>>,
    {
        let entry = |kept: Option<Kept>| kept.map(|kept| kept.entry);
        if self.mode == CacheMode::Off {
            return read().await.map(entry);
        }
        if let Some(kept) = self.entries.get(&handle) {
            let now = Instant::now();
            if self.is_valid(&kept, link, now) {
                return Ok(Some(kept.entry));
            }
            // What is only unproven may be proven again, or have to do while the server is away.
            if !self.is_current(&kept, link, now) {
                self.entries.remove_if(&handle, |other| Arc::ptr_eq(&other.entry, &kept.entry));
            }
        }
        match self.entries.get_value_or_guard_async(&handle).await {
            Ok(kept) if self.is_valid(&kept, link, Instant::now()) && self.holds(handle, &kept) => Ok(Some(kept.entry)),
            // What this reader has waited for was overtaken.
            Ok(_) => read().await.map(entry),
            Err(place) => match read().await? {
                Some(kept) => match place.insert(kept.clone()) {
                    Ok(()) => Ok(Some(kept.entry)),
                    Err(_) => read().await.map(entry),
                },
                None => Ok(None),
            },
        }
    }

    fn is_valid(&self, kept: &Kept, link: &Link, now: Instant) -> bool {
        self.is_current(kept, link, now) && (!kept.told || link.is_proven(now))
    }

    /// Nothing better can be had while no line is open.
    fn is_current(&self, kept: &Kept, link: &Link, now: Instant) -> bool {
        let age = now.saturating_duration_since(kept.asked_at);
        if kept.told { [0, kept.line].contains(&link.open_line()) && age < OLDEST } else { age < OLDEST_UNTOLD }
    }

    /// What is at hand while the server is away, if it was right no longer ago than that.
    pub fn stale(&self, handle: Handle, link: Option<&Link>, most: Duration) -> Option<Arc<Entry>> {
        let kept = self.entries.get(&handle)?;
        let proven = link.filter(|_| kept.told).and_then(|link| link.last_proven(kept.line));
        let right_at = proven.unwrap_or(kept.asked_at).max(kept.asked_at);
        (right_at.elapsed() <= most).then_some(kept.entry)
    }

    fn holds(&self, handle: Handle, kept: &Kept) -> bool {
        self.entries.peek(&handle).is_some_and(|other| Arc::ptr_eq(&other.entry, &kept.entry))
    }

    pub fn forget(&self, handle: Handle) {
        self.entries.remove(&handle);
    }

    pub fn clear(&self) {
        self.entries.clear();
    }
}
