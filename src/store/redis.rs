//! Sessions in Redis or Valkey, shared by every sidecar: one server, one that sentinels watch over, or a cluster.
//!
//! To each primary there are links: reads and writes, on each of which the server tells of every change to what was read
//! or committed on it; and one for the feed of revocations, to where it is. A read costs no round trip while the link
//! that the session came by and the feed are proven to be up to date. What a commit does is decided by a script on the
//! server, by the same rules as in this process, which tells from its answer what the session is now.

mod ask;
mod cache;
mod check;
mod cluster;
mod dial;
mod feed;
mod frame;
mod keep;
mod layout;
mod limit;
mod link;
mod node;
mod pipe;
mod read;
mod replicas;
mod script;
mod sentinel;
mod servers;
mod slot;
mod survey;
mod tls;
mod walk;
mod write;
mod written;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cache::Cache;
use self::dial::{Dialer, NoLine};
use self::layout::Keys;
use self::link::Link;
use self::replicas::Wanted;
use self::script::Scripts;
use self::servers::Servers;
use self::slot::Slot;
use self::survey::{Ground, Survey};
use super::{
    Commit, Counts, Entry, Listener, Outcome, Reply, Revocation, Store, StoreError, Taken, Trail, TrailBounds,
};
use crate::clock::{Clock, Time};
use crate::config::{self, CacheMode, StoreFailure};
use crate::handle::{Birth, CommitId, Handle, UserKey};
use crate::quota::Quota;
use crate::unbroken::Unbroken;

pub use self::dial::Unusable;

/// Sessions whose last reading is remembered where each request has one.
const SAID: usize = 10_000;

/// Sessions whose last touch is remembered, so that many requests at once touch once.
const TOUCHED: usize = 10_000;

/// Commits on their way, and those that were not answered, which may be asked for again.
const UNANSWERED: usize = 10_000;

/// A store on one server or several. Dropping it ends its connections.
pub struct Redis {
    core: Arc<Core>,
    _tasks: JoinSet<()>,
}

/// Who is told of revocations.
struct Listening(Listener);

struct Core {
    keys: Keys,
    scripts: Scripts,
    bounds: TrailBounds,
    budget: Duration,
    /// How old an entry may be that is served while the server is away; none if none may.
    stale_for: Option<Duration>,
    /// How many copies a commit is to have before it is answered.
    wanted: Option<Wanted>,
    /// When too few copies were last complained of.
    complained: Mutex<Option<Instant>>,
    clock: Clock,
    counts: Counts,
    dialer: Dialer,
    is_cluster: bool,
    servers: Servers,
    /// The number of the last line.
    lines: AtomicU64,
    feed: Link,
    cache: Cache,
    /// Whether the server is to tell what changes among the sessions that were read.
    tracking: bool,
    /// What the server said last of a session, and what it means; none where it is asked only for what has changed.
    said: Option<quick_cache::sync::Cache<Handle, (Bytes, Arc<Entry>)>>,
    touched: quick_cache::sync::Cache<Handle, (Birth, Time)>,
    /// Commits whose answer nobody has heard yet.
    unanswered: quick_cache::sync::Cache<CommitId, ()>,
    listener: ArcSwapOption<Listening>,
    /// Revocations that stand and are not in the feed yet.
    owed: Mutex<Vec<Revocation>>,
    /// The handles that a walk goes through.
    walk: ArcSwapOption<Vec<Handle>>,
}

impl Redis {
    /// Dials the servers that the configuration names, which may not be there yet: they are dialled until they are.
    ///
    /// # Errors
    /// What no later attempt can mend: a URL, a user, a permission, a server too old.
    pub async fn open(
        config: &config::Store,
        environment: &str,
        bounds: TrailBounds,
        clock: Clock,
        counts: Counts,
    ) -> Result<Self, Unusable> {
        let (ground, url) = Ground::new(config)?;
        let dialer = Dialer::new(&url, config)?;
        let core = Arc::new(Core::new(config, environment, dialer, (bounds, clock, counts)));
        let mut survey = Survey::new(core.clone(), ground);
        match survey.look().await {
            Ok(()) => core.check().await?,
            Err(NoLine::Unusable(unusable)) => return Err(unusable),
            Err(NoLine::Unreachable(reason)) => {
                tracing::warn!(target: "cloakroom::store", reason, "the servers cannot be found yet");
                core.servers.looked(Some(reason));
            }
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(survey.go_on());
        tasks.spawn(core.clone().keep_feed());
        let paying = core.clone();
        tasks.spawn(async move { paying.pay().await });
        Ok(Self { _tasks: tasks, core })
    }
}

impl Core {
    fn new(
        config: &config::Store,
        environment: &str,
        dialer: Dialer,
        (bounds, clock, counts): (TrailBounds, Clock, Counts),
    ) -> Self {
        Self {
            keys: Keys::new(environment),
            scripts: Scripts::new(),
            bounds,
            // A little less than its callers wait, so that it is this store that says what became of a question.
            budget: config.timeout.0 * 15 / 16,
            stale_for: (config.on_failure == StoreFailure::Stale).then_some(config.stale_for.0),
            wanted: Wanted::new(&config.durability),
            complained: Mutex::default(),
            clock,
            counts,
            dialer,
            is_cluster: config.cluster,
            servers: Servers::new(),
            lines: AtomicU64::new(0),
            feed: Link::new(),
            cache: Cache::new(&config.cache),
            tracking: config.cache.mode == CacheMode::Tracking,
            said: (config.cache.mode == CacheMode::Off).then(|| quick_cache::sync::Cache::new(SAID)),
            touched: quick_cache::sync::Cache::new(TOUCHED),
            unanswered: quick_cache::sync::Cache::new(UNANSWERED),
            listener: ArcSwapOption::empty(),
            owed: Mutex::default(),
            walk: ArcSwapOption::empty(),
        }
    }

    /// Looks at every primary before the first session is served. One that is away is not waited for.
    async fn check(&self) -> Result<(), Unusable> {
        let map = self.servers.map();
        let looks = map.nodes.iter().map(|node| async {
            let deadline = Instant::now() + self.dialer.timeout;
            match self.dialer.dial(&node.address, "check", self.next_number(), None).await {
                Ok(line) => check::check(&line, self, &map.tag_of(node), deadline).await,
                Err(NoLine::Unusable(unusable)) => Err(unusable),
                Err(NoLine::Unreachable(reason)) => {
                    tracing::warn!(
                        target: "cloakroom::store", server = %node.address, reason, "the server cannot be reached yet",
                    );
                    Ok(())
                }
            }
        });
        join_all(looks).await.into_iter().collect()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.budget
    }

    /// A number that no line had yet.
    fn next_number(&self) -> u64 {
        self.lines.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether sessions can be served: those of one primary are enough, for a sidecar that is taken out of service
    /// serves none at all.
    async fn reachable(&self) -> Result<(), StoreError> {
        let deadline = self.deadline();
        self.feed.proven(deadline).await?;
        let map = self.servers.map();
        if map.nodes.iter().any(|node| node.is_open()) {
            return Ok(());
        }
        let node = self.servers.find(|| slot::Slot::of(&self.keys.feed()))?;
        node.reads.line(deadline).await?;
        node.writes.line(deadline).await.map(drop)
    }

    /// What is not as it should be though sessions are served.
    fn remark(&self) -> Option<String> {
        let map = self.servers.map();
        let away: Vec<_> = map.nodes.iter().filter(|node| !node.is_open()).map(|n| n.address.to_string()).collect();
        if !away.is_empty() {
            return Some(format!("there is no connection to {}", away.join(", ")));
        }
        let word = map.nodes.iter().find_map(|node| node.reads.untold())?;
        Some(format!("the server refuses CLIENT TRACKING ({word}): sessions are read anew every second"))
    }
}

impl Store for Redis {
    fn at_hand(&self, handle: Handle) -> Option<Arc<Entry>> {
        let node = self.core.servers.find(|| Slot::tagged(handle)).ok()?;
        // Without the feed, a session whose user was revoked may look alive.
        let now = Instant::now();
        self.core.cache.at_hand(handle, &node, now).filter(|_| self.core.feed.is_proven(now))
    }

    fn load_anew(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        Box::pin(self.core.read_anew(handle))
    }

    fn last_known(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.core.last_known(handle)
    }

    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        Box::pin(self.core.entry(handle))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        let (id, unanswered) = (commit.id, &self.core.unanswered);
        let again = unanswered.get(&id).is_some();
        unanswered.insert(id, ());
        // A caller who leaves does not cut it off between its steps.
        let work = Box::pin(self.core.clone().commit(commit, again));
        let work = Unbroken::new(work, None);
        Box::pin(async move {
            let answer = work.await;
            if answer != Err(StoreError::Unknown) {
                unanswered.remove(&id);
            }
            answer
        })
    }

    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool> {
        Box::pin(self.core.touch(handle, birth, now))
    }

    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail> {
        Box::pin(self.core.trail(handle, before, limit))
    }

    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>> {
        Box::pin(self.core.sessions_of(user))
    }

    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>> {
        Box::pin(self.core.page(after, limit))
    }

    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()> {
        Box::pin(async move { self.core.add_to_feed(&revocation, self.core.deadline()).await })
    }

    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>> {
        Box::pin(self.core.whole_feed(now))
    }

    fn follow(&self, listener: Listener) -> bool {
        self.core.listener.store(Some(Arc::new(Listening(listener))));
        // From the beginning, for whoever has just begun to listen.
        self.core.feed.renew();
        true
    }

    fn take(&self, key: &str, quota: Quota) -> Option<Reply<'_, Taken>> {
        Some(Box::pin(self.core.take(self.core.keys.limit(key), quota)))
    }

    fn reachable(&self) -> Reply<'_, ()> {
        Box::pin(self.core.reachable())
    }

    fn remark(&self) -> Option<String> {
        self.core.remark()
    }
}
