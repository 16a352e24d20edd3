//! Quotas: how much may be asked for, how fast it comes back, and how a client is told.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

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

    /// The same, for counting in this process.
    pub fn in_process(&self) -> governor::Quota {
        let quota = governor::Quota::with_period(self.period);
        // None of a zero period only, which is none of ours; the slowest is then the safest.
        quota.unwrap_or(governor::Quota::per_hour(NonZeroU32::MIN)).allow_burst(self.burst)
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
