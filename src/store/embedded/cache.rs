//! Decoded entries in front of the file, equal to it at all times.

use std::sync::Arc;

use quick_cache::Weighter;

use super::table::Kept;
use crate::handle::Handle;
use crate::store::{Entry, StoreError};

/// Memory for decoded entries, in bytes: some ten thousand sessions of a usual size.
const CACHE: u64 = 32 << 20;

/// What an entry takes in memory beside its text: keys, pointers and the cache's own.
const OVERHEAD: u64 = 512;

/// How large a usual session's text is, in bytes.
const USUAL: u64 = 1024;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Handle, Kept> for ByBytes {
    fn weight(&self, _: &Handle, kept: &Kept) -> u64 {
        // Field values are held once more as texts of their own, with their names.
        kept.bytes as u64 * 2 + OVERHEAD
    }
}

/// Never puts an older entry over a newer: a reader fills only the place that it reserved before it read, and
/// the writer takes that place away after its transaction.
#[derive(Debug)]
pub(super) struct Cache(quick_cache::sync::Cache<Handle, Kept, ByBytes>);

impl Cache {
    pub fn new() -> Self {
        let usual_items = CACHE / (USUAL * 2 + OVERHEAD);
        Self(quick_cache::sync::Cache::with_weighter(usual_items as usize, CACHE, ByBytes))
    }

    pub fn get(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.0.get(&handle).map(|kept| kept.entry)
    }

    /// The cached entry, else what `read` finds. An absent entry is not remembered: anyone can make up a handle.
    pub async fn find(
        &self,
        handle: Handle,
        read: impl FnOnce() -> Result<Option<Kept>, StoreError>,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        let place = match self.0.get_value_or_guard_async(&handle).await {
            Ok(kept) => return Ok(Some(kept.entry)),
            Err(place) => place,
        };
        let Some(kept) = read()? else { return Ok(None) };
        // Refused where the writer has been here since: then this reader alone sees what it read.
        let _ = place.insert(kept.clone());
        Ok(Some(kept.entry))
    }

    /// Takes over what a transaction wrote, before the transaction is answered.
    pub fn replace(&self, handle: Handle, kept: Option<Kept>) {
        // `insert` alone leaves a reader's reserved place standing where the entry is too large to be kept.
        self.0.remove(&handle);
        if let Some(kept) = kept {
            self.0.insert(handle, kept);
        }
    }

    pub fn clear(&self) {
        self.0.clear();
    }
}
