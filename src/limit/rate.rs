//! One limit of one route.

use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock};

use crate::config::{self, RateLimitPer, RateLimitScope};
use crate::quota::{Counts, Quota};
use crate::store::StoreError;

use super::shared::Shared;

pub struct Rate {
    raw: config::RateLimit,
    /// Unique on its route.
    pub name: Arc<str>,
    pub quota: Quota,
    /// Where it is counted together with other sidecars.
    pub shared: Option<Shared>,
    here: Counts,
}

/// Why one may not be taken.
#[derive(Debug)]
pub enum Refused {
    /// Not before so long.
    For(Duration),
    Store(StoreError),
}

impl Rate {
    pub fn new(raw: &config::RateLimit, route: &str, name: &str) -> Self {
        let quota = Quota::new(raw.rate, raw.burst);
        let shared = raw.scope == RateLimitScope::Cluster;
        Self {
            raw: raw.clone(),
            name: name.into(),
            quota,
            shared: shared.then(|| Shared::new(quota, raw.on_failure.unwrap_or_default(), format!("{route}:{name}"))),
            here: quota.counts(),
        }
    }

    /// Whether it is what this asks for, so that what it has counted stands.
    pub fn is(&self, raw: &config::RateLimit, name: &str) -> bool {
        self.raw == *raw && *self.name == *name
    }

    pub fn per(&self) -> RateLimitPer {
        self.raw.per
    }

    /// Counts in this process alone.
    pub fn take_here(&self, key: u128, clock: &QuantaClock) -> Result<(), Refused> {
        self.here.check_key(&key).map(drop).map_err(|refused| Refused::For(refused.wait_time_from(clock.now())))
    }
}
