//! A store, and what is counted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::SpanKind;

use crate::clock::Time;
use crate::config::{self, StoreKind};
use crate::handle::{Birth, Handle, UserKey};
use crate::quota::Quota;
use crate::store::{Commit, Entry, Listener, Outcome, Reply, Revocation, Store, StoreError, Taken, Trail};

use super::metrics::{Metrics, StoreFigures, StoreOp};
use super::trace::{self, Span};

/// Stands before the store, times what it is asked for and counts what it does not answer.
pub struct Observed {
    store: Arc<dyn Store>,
    metrics: Metrics,
    ops: Vec<StoreFigures>,
    /// What it is called in spans.
    system: &'static str,
    /// How long its callers wait.
    patience: Duration,
}

impl Observed {
    pub fn new(store: Arc<dyn Store>, section: &config::Store, metrics: Metrics) -> Self {
        let ops = metrics.store();
        let system = match section.kind {
            StoreKind::Redis => "redis",
            StoreKind::Embedded => "embedded",
            StoreKind::Memory => "memory",
        };
        Self { store, metrics, ops, system, patience: section.timeout.0 }
    }

    fn watch<'a, T: Send + 'a>(&'a self, op: StoreOp, reply: Reply<'a, T>) -> Reply<'a, T> {
        // Every operation has its figures, in the order of the list.
        let Some(figures) = self.ops.get(op as usize) else { return reply };
        let span = trace::child(SpanKind::Client).map(|mut span| {
            span.named(op.name());
            span.set("db.system.name", self.system);
            span.set("db.operation.name", op.name());
            span
        });
        let since = Instant::now();
        let mut asked = Asked { figures, since, patience: self.patience, answered: false, span };
        Box::pin(async move {
            let answer = reply.await;
            asked.answered(answer.as_ref().err());
            answer
        })
    }
}

/// A question on its way. One that nobody waits for any more is an error if its time was up, and nobody's
/// otherwise: whoever asked has left.
struct Asked<'a> {
    figures: &'a StoreFigures,
    since: Instant,
    patience: Duration,
    answered: bool,
    span: Option<Span>,
}

impl Asked<'_> {
    fn answered(&mut self, error: Option<&StoreError>) {
        self.answered = true;
        self.count(error.map(kind));
    }

    fn count(&mut self, failure: Option<&'static str>) {
        self.figures.duration.observe(self.since.elapsed().as_secs_f64());
        if let Some(kind) = failure {
            self.figures.errors.inc();
            self.span.iter_mut().for_each(|span| span.failed(kind));
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= self.patience {
            self.count(Some("timeout"));
        }
    }
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Timeout => "timeout",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Unknown => "unknown",
        StoreError::Damaged(_) => "damaged",
        StoreError::Closed => "closed",
    }
}

impl Store for Observed {
    fn at_hand(&self, handle: Handle) -> Option<Arc<Entry>> {
        let entry = self.store.at_hand(handle);
        if entry.is_some() {
            self.metrics.cache_hits.inc();
        }
        entry
    }

    fn load_anew(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        self.metrics.cache_misses.inc();
        self.watch(StoreOp::Load, self.store.load_anew(handle))
    }

    fn last_known(&self, handle: Handle) -> Option<Arc<Entry>> {
        self.store.last_known(handle)
    }

    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        self.metrics.cache_misses.inc();
        self.watch(StoreOp::Load, self.store.load(handle))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        self.watch(StoreOp::Commit, self.store.commit(commit))
    }

    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool> {
        self.watch(StoreOp::Touch, self.store.touch(handle, birth, now))
    }

    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail> {
        self.watch(StoreOp::Trail, self.store.trail(handle, before, limit))
    }

    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>> {
        self.watch(StoreOp::List, self.store.sessions_of(user))
    }

    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>> {
        self.watch(StoreOp::Walk, self.store.handles(after, limit))
    }

    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()> {
        self.watch(StoreOp::Revoke, self.store.revoke(revocation))
    }

    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>> {
        self.watch(StoreOp::Feed, self.store.revocations(now))
    }

    fn take(&self, key: &str, quota: Quota) -> Option<Reply<'_, Taken>> {
        self.store.take(key, quota).map(|reply| self.watch(StoreOp::Take, reply))
    }

    fn follow(&self, listener: Listener) -> bool {
        self.store.follow(listener)
    }

    fn reachable(&self) -> Reply<'_, ()> {
        self.watch(StoreOp::Probe, self.store.reachable())
    }
}
