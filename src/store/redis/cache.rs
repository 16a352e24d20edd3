//! Sessions that need no round trip, for as long as it is certain that the server holds the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::keep::Role;
use super::node::Node;
use crate::config::{CacheMode, StoreCache};
use crate::handle::Handle;
use crate::store::{Entry, StoreError};

/// How old an entry may get that nothing was heard of: a bound for faults that nobody has thought of.
const OLDEST: Duration = Duration::from_secs(30);

/// How old it may get where the server does not tell of changes.
const OLDEST_UNTOLD: Duration = Duration::from_secs(1);

/// What was read or committed, and on what.
#[derive(Clone)]
pub(super) struct Kept {
    pub entry: Arc<Entry>,
    /// Which of its node's links it was.
    pub role: Role,
    /// The number of the line: what is told on another says nothing of it.
    pub line: u64,
    /// Whether the server tells on that line when the entry changes.
    pub told: bool,
    /// When all of it was last read.
    pub asked_at: Instant,
}

/// An entry is put only where nothing was heard of its key since it was asked for.
///
/// A reader reserves the place before it asks; what the server tells takes the place away, and what the reader
/// then brings is refused. What a commit leaves is put before anything that the server tells after it is heard.
pub(super) struct Cache {
    entries: quick_cache::sync::Cache<Handle, Kept>,
    mode: CacheMode,
}

impl Cache {
    pub fn new(config: &StoreCache) -> Self {
        Self { entries: quick_cache::sync::Cache::new(config.sessions as usize), mode: config.mode }
    }

    /// The entry that is kept, where it is certainly the server's.
    pub fn at_hand(&self, handle: Handle, node: &Node, now: Instant) -> Option<Arc<Entry>> {
        self.entries.get(&handle).filter(|kept| self.is_valid(kept, node, now)).map(|kept| kept.entry)
    }

    /// The entry that is kept, else what `read` finds; of many that ask at once one reads.
    ///
    /// An absent entry is not remembered: anyone can make up a handle.
    pub async fn find<F>(
        &self,
        handle: Handle,
        node: &Node,
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
            if self.is_valid(&kept, node, now) {
                return Ok(Some(kept.entry));
            }
            // What is only unproven may be proven again, or have to do while the server is away.
            if !self.is_current(&kept, node, now) {
                self.entries.remove_if(&handle, |other| Arc::ptr_eq(&other.entry, &kept.entry));
            }
        }
        match self.entries.get_value_or_guard_async(&handle).await {
            Ok(kept) if self.is_valid(&kept, node, Instant::now()) && self.holds(handle, &kept) => Ok(Some(kept.entry)),
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

    fn is_valid(&self, kept: &Kept, node: &Node, now: Instant) -> bool {
        self.is_current(kept, node, now) && (!kept.told || node.link(kept.role).is_proven(now))
    }

    /// Nothing better can be had while no line is open to read on.
    fn is_current(&self, kept: &Kept, node: &Node, now: Instant) -> bool {
        let age = now.saturating_duration_since(kept.asked_at);
        if !kept.told {
            return age < OLDEST_UNTOLD;
        }
        let open = node.link(kept.role).open_line();
        age < OLDEST && (open == kept.line || open == 0 && node.reads.open_line() == 0)
    }

    /// What is at hand while the server is away, if it was right no longer ago than that.
    pub fn stale(&self, handle: Handle, node: Option<&Node>, most: Duration) -> Option<Arc<Entry>> {
        let kept = self.entries.get(&handle)?;
        let proven = node.filter(|_| kept.told).and_then(|node| node.link(kept.role).last_proven(kept.line));
        let right_at = proven.unwrap_or(kept.asked_at).max(kept.asked_at);
        (right_at.elapsed() <= most).then_some(kept.entry)
    }

    fn holds(&self, handle: Handle, kept: &Kept) -> bool {
        self.entries.peek(&handle).is_some_and(|other| Arc::ptr_eq(&other.entry, &kept.entry))
    }

    /// Whatever is kept, certain or not.
    pub fn held(&self, handle: Handle) -> Option<Kept> {
        self.entries.peek(&handle)
    }

    /// Puts what a commit has left.
    pub fn put(&self, handle: Handle, kept: Kept) {
        self.entries.insert(handle, kept);
    }

    /// Forgets what the server says has changed; not what was had on another link, where it says so as well.
    pub fn changed(&self, handle: Handle, role: Role) {
        if self.entries.peek(&handle).is_none_or(|kept| kept.role == role) {
            self.forget(handle);
        }
    }

    pub fn forget(&self, handle: Handle) {
        self.entries.remove(&handle);
    }

    pub fn clear(&self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::Time;
    use crate::config::ServerAddress;
    use crate::handle::Birth;
    use crate::store::Tombstone;
    use crate::store::redis::link::{Line, Link};
    use crate::store::redis::pipe::Pipe;

    fn open(link: &Link, number: u64) {
        let (near, _far) = tokio::io::duplex(64);
        let broken = CancellationToken::new();
        let pipe = Pipe::open(Box::new(near), Box::new(|_| ()), broken.clone());
        let line = Arc::new(Line::new(pipe, number, broken));
        link.open(&line);
        link.prove(&line, Instant::now());
    }

    fn kept(role: Role, line: u64) -> Kept {
        let entry = Entry::Revoked(Tombstone {
            birth: Birth([0; 16]),
            revoked_at: Time(0),
            until: Time::MAX,
            over_at: None,
            seq: 1,
            yields: false,
            recent: VecDeque::new(),
        });
        Kept { entry: Arc::new(entry), role, line, told: true, asked_at: Instant::now() }
    }

    #[tokio::test]
    async fn what_was_committed_on_a_line_that_is_gone_is_read_once_and_kept() {
        let node = Node::new(ServerAddress { host: "localhost".into(), port: 1 }, None);
        let (cache, handle) = (Cache::new(&StoreCache::default()), Handle([1; 16]));
        open(&node.reads, 1);
        open(&node.writes, 2);
        cache.put(handle, kept(Role::Writes, 2));
        assert!(cache.at_hand(handle, &node, Instant::now()).is_some());
        node.writes.redial();
        assert!(cache.at_hand(handle, &node, Instant::now()).is_none());
        let reads = AtomicU32::new(0);
        for _ in 0..3 {
            let read = || async {
                reads.fetch_add(1, Ordering::Relaxed);
                Ok(Some(kept(Role::Reads, 1)))
            };
            assert!(cache.find(handle, &node, read).await.unwrap().is_some());
        }
        assert_eq!(reads.into_inner(), 1);
    }

    #[tokio::test]
    async fn what_one_link_says_takes_nothing_that_was_had_on_the_other() {
        let (cache, handle) = (Cache::new(&StoreCache::default()), Handle([1; 16]));
        for (had, other) in [(Role::Writes, Role::Reads), (Role::Reads, Role::Writes)] {
            cache.put(handle, kept(had, 1));
            cache.changed(handle, other);
            assert!(cache.held(handle).is_some());
            cache.changed(handle, had);
            assert!(cache.held(handle).is_none());
        }
    }
}
