//! Quotas: how much may be asked for, how fast it comes back, and how a client is told.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::QuantaClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use http::HeaderValue;
use quick_cache::sync::Cache;

use crate::config::Rate;

/// So many at once, each of which comes back after a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub burst: NonZeroU32,
    pub period: Duration,
}

impl Quota {
    /// No period is zero: what is faster than one in a nanosecond is refused before.
    pub fn new(rate: Rate, burst: NonZeroU32) -> Self {
        Self { burst, period: (rate.per / rate.count.get()).max(Duration::from_nanos(1)) }
    }

    /// How long until all is free again.
    pub fn window(&self) -> Duration {
        self.period.saturating_mul(self.burst.get())
    }

    /// Counts in this process what each key uses up of it.
    pub fn counts(&self) -> Counts {
        let quota = governor::Quota::with_period(self.period);
        // None of a zero period only, which is none of ours; the slowest is then the safest.
        let quota = quota.unwrap_or(governor::Quota::per_hour(NonZeroU32::MIN)).allow_burst(self.burst);
        Counts::new(quota, Kept(Cache::new(KEYS)), QuantaClock::default())
    }
}

/// Keys of one quota whose counts are kept. Of more, those are forgotten that came once and long ago, so that nobody
/// who keeps coming is.
const KEYS: usize = 20_000;

/// What each key has used up.
pub type Counts = RateLimiter<u128, Kept, QuantaClock, StateInformationMiddleware>;

/// A bounded number of counts: keys are addresses of anybody's choice.
pub struct Kept(Cache<u128, Arc<InMemoryState>>);

impl StateStore for Kept {
    type Key = u128;

    fn measure_and_replace<T, F, E>(&self, key: &u128, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Ok(count) = self.0.get_or_insert_with(key, || Ok::<_, Infallible>(Arc::default()));
        count.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// A quota that is used up, as the client is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    pub name: Arc<str>,
    /// All quotas that hold where this one does, for `RateLimit-Policy`.
    pub policies: HeaderValue,
    pub retry_after: Duration,
}

impl Exceeded {
    /// For `RateLimit`: nothing is left, and after so many seconds something is.
    pub fn limit(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&format!("\"{}\";r=0;t={}", self.name, whole_seconds(self.retry_after))).ok()
    }
}

/// The value of `RateLimit-Policy` for these quotas (draft-ietf-httpapi-ratelimit-headers-11). Names are plain words.
pub fn policies<'q>(quotas: impl IntoIterator<Item = (&'q str, &'q Quota)>) -> HeaderValue {
    let member =
        |(name, quota): (&str, &Quota)| format!("\"{name}\";q={};w={}", quota.burst, whole_seconds(quota.window()));
    let members: Vec<String> = quotas.into_iter().map(member).collect();
    HeaderValue::from_str(&members.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Rounded up, at least one: a client that waits so long is let in.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_coming_is_counted_however_many_others_come() {
        let counts = Quota { burst: NonZeroU32::new(2).unwrap(), period: Duration::from_secs(3600) }.counts();
        assert!(counts.check_key(&0).is_ok() && counts.check_key(&0).is_ok());
        for other in 1..4 * KEYS as u128 {
            let _ = counts.check_key(&other);
            assert!(other % 1000 != 0 || counts.check_key(&0).is_err(), "forgotten after {other} others");
        }
        assert!(counts.into_state_store().0.len() <= KEYS);
    }
}
