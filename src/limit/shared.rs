//! Limits that sidecars share through their store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::config::RateLimitFailure;
use crate::quota::Quota;
use crate::store::{Store, StoreError, Taken};

use super::Subject;
use super::rate::Refused;

/// Subjects per limit that are remembered as refused, so that they are refused again without asking.
const REFUSED: usize = 10_000;

/// How long a store that did not answer is left alone, where a request can do without its answer.
const REST: Duration = Duration::from_secs(1);

/// One limit, counted in the store.
pub struct Shared {
    quota: Quota,
    on_failure: RateLimitFailure,
    /// What its keys begin with: route and limit.
    name: String,
    /// Until when a subject need not ask: nobody else can free what it waits for.
    refused: Cache<u128, Instant>,
}

impl Shared {
    pub fn new(quota: Quota, on_failure: RateLimitFailure, name: String) -> Self {
        Self { quota, on_failure, name, refused: Cache::new(REFUSED) }
    }

    /// Takes one by the deadline; none where this process is to count alone.
    pub async fn take(
        &self,
        subject: Subject,
        store: &dyn Store,
        ailing: &Ailing,
        by: Instant,
    ) -> Option<Result<(), Refused>> {
        let key = subject.key();
        let waits = self.refused.get(&key).map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(wait) = waits.filter(|wait| !wait.is_zero()) {
            return Some(Err(Refused::For(wait)));
        }
        if self.on_failure != RateLimitFailure::Closed && ailing.is_resting() {
            return self.without_answer(StoreError::Timeout);
        }
        let asked = store.take(&format!("{}:{subject}", self.name), self.quota)?;
        match timeout_at(by, asked).await.unwrap_or(Err(StoreError::Timeout)) {
            Ok(Taken::One) => {
                ailing.answered();
                Some(Ok(()))
            }
            Ok(Taken::NoneFor(wait)) => {
                ailing.answered();
                self.refused.insert(key, Instant::now() + wait);
                Some(Err(Refused::For(wait)))
            }
            Err(error) => {
                if ailing.failed() {
                    let (limit, on_failure) = (&*self.name, self.on_failure);
                    tracing::warn!(target: "cloakroom::limit", limit, ?on_failure, %error, "shared limits are not counted");
                }
                self.without_answer(error)
            }
        }
    }

    fn without_answer(&self, error: StoreError) -> Option<Result<(), Refused>> {
        match self.on_failure {
            RateLimitFailure::Closed => Some(Err(Refused::Store(error))),
            RateLimitFailure::Open => Some(Ok(())),
            RateLimitFailure::Local => None,
        }
    }
}

/// Whether the store answered when it was last asked to count.
pub struct Ailing {
    start: Instant,
    /// When it is asked next, in milliseconds since the start; 0 while it answers.
    next: AtomicU64,
}

impl Ailing {
    pub fn new() -> Self {
        Self { start: Instant::now(), next: AtomicU64::new(0) }
    }

    fn after(&self, wait: Duration) -> u64 {
        u64::try_from((self.start.elapsed() + wait).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Whether the store is not to be asked. Of those who come when its rest is over, one asks.
    fn is_resting(&self) -> bool {
        let next = self.next.load(Ordering::Acquire);
        if next == 0 {
            return false;
        }
        if self.after(Duration::ZERO) < next {
            return true;
        }
        self.next.compare_exchange(next, self.after(REST), Ordering::AcqRel, Ordering::Acquire).is_err()
    }

    fn answered(&self) {
        if self.next.load(Ordering::Relaxed) != 0 {
            self.next.store(0, Ordering::Release);
        }
    }

    /// Whether it had answered before.
    fn failed(&self) -> bool {
        self.next.swap(self.after(REST), Ordering::AcqRel) == 0
    }
}
