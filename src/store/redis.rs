//! Sessions in Redis or Valkey, shared by every sidecar.
//!
//! Three links to one server: reads, on which the server tells of every change to what was read on it; writes;
//! and the feed of revocations. A read costs no round trip while reads and feed are proven to be up to date. What
//! a commit does is decided by a script on the server, by the same rules as in this process.

mod cache;
mod check;
mod dial;
mod feed;
mod keep;
mod layout;
mod limit;
mod link;
mod read;
mod script;
mod walk;
mod write;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cache::Cache;
use self::dial::{Dialer, NoLine};
use self::keep::Role;
use self::layout::Keys;
use self::link::{Line, Link};
use self::script::Scripts;
use super::{Commit, Entry, Listener, Outcome, Reply, Revocation, Store, StoreError, Taken, Trail, TrailBounds};
use crate::clock::{Clock, Time};
use crate::config::{self, CacheMode, StoreFailure};
use crate::handle::{Birth, Handle, UserKey};
use crate::quota::Quota;

pub use self::dial::Unusable;

/// Sessions whose last touch is remembered, so that many requests at once touch once.
const TOUCHED: usize = 10_000;

/// A store on one server. Dropping it ends its connections.
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
    clock: Clock,
    reads: Link,
    writes: Link,
    feed: Link,
    cache: Cache,
    /// Whether the server is to tell what changes among the sessions that were read.
    tracking: bool,
    touched: quick_cache::sync::Cache<Handle, (Birth, Time)>,
    listener: ArcSwapOption<Listening>,
    /// Revocations that stand and are not in the feed yet.
    owed: Mutex<Vec<Revocation>>,
    /// The handles that a walk goes through.
    walk: ArcSwapOption<Vec<Handle>>,
}

impl Redis {
    /// Dials the server that the configuration names, which may not be there yet: it is dialled until it is.
    ///
    /// # Errors
    /// What no later attempt can mend: a URL, a user, a permission, a server too old.
    pub async fn open(
        config: &config::Store,
        environment: &str,
        bounds: TrailBounds,
        clock: Clock,
    ) -> Result<Self, Unusable> {
        let url = config.url.as_ref().ok_or_else(|| Unusable("it is needed for this store".into()))?;
        let dialer = Dialer::new(url.reveal(), config.connect_timeout.0)?;
        let core = Arc::new(Core::new(config, environment, bounds, clock));
        let first = match dialer.dial("writes", 1, None).await {
            Ok(line) => {
                check::check(&line, &core, Instant::now() + config.connect_timeout.0).await?;
                Some(line)
            }
            Err(NoLine::Unusable(unusable)) => return Err(unusable),
            Err(NoLine::Unreachable(reason)) => {
                tracing::warn!(target: "cloakroom::store", reason, "the server cannot be reached yet");
                None
            }
        };
        Ok(Self { _tasks: core.start(&dialer, first), core })
    }
}

impl Core {
    fn new(config: &config::Store, environment: &str, bounds: TrailBounds, clock: Clock) -> Self {
        Self {
            keys: Keys::new(environment),
            scripts: Scripts::new(),
            bounds,
            // A little less than its callers wait, so that it is this store that says what became of a question.
            budget: config.timeout.0 * 15 / 16,
            stale_for: (config.on_failure == StoreFailure::Stale).then_some(config.stale_for.0),
            clock,
            reads: Link::new(),
            writes: Link::new(),
            feed: Link::new(),
            cache: Cache::new(&config.cache),
            tracking: config.cache.mode == CacheMode::Tracking,
            touched: quick_cache::sync::Cache::new(TOUCHED),
            listener: ArcSwapOption::empty(),
            owed: Mutex::default(),
            walk: ArcSwapOption::empty(),
        }
    }

    fn start(self: &Arc<Self>, dialer: &Dialer, mut first: Option<Line>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for role in [Role::Reads, Role::Writes, Role::Feed] {
            let first = if role == Role::Writes { first.take() } else { None };
            tasks.spawn(self.clone().keep(role, dialer.clone(), first));
        }
        let core = self.clone();
        tasks.spawn(async move { core.pay().await });
        tasks
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.budget
    }
}

impl Store for Redis {
    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        Box::pin(self.core.entry(handle))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        // On a task of its own, so that a caller who leaves does not cut it off between its steps.
        let task = tokio::spawn(self.core.clone().commit(commit));
        Box::pin(async { task.await.unwrap_or(Err(StoreError::Closed)) })
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
        let call = self.core.taking(key, quota);
        Some(Box::pin(async move { self.core.take(&call).await }))
    }

    fn reachable(&self) -> Reply<'_, ()> {
        Box::pin(async {
            let deadline = self.core.deadline();
            self.core.feed.proven(deadline).await?;
            self.core.reads.line(deadline).await?;
            self.core.writes.line(deadline).await.map(drop)
        })
    }
}
