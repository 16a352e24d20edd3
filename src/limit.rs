//! How much a client, a session or a user may ask for, and how much runs at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{self, RateLimitPer};
use crate::peer::limit_key;
use crate::route::RouteIndex;
use crate::session::Session;

/// Admits requests, per route.
pub struct Limiter {
    routes: Vec<RouteLimits>,
    clock: QuantaClock,
}

struct RouteLimits {
    rates: Vec<Rate>,
    in_flight: Arc<Semaphore>,
}

struct Rate {
    per: RateLimitPer,
    burst: u32,
    /// How long until a full burst is free again.
    window: Duration,
    limiter: RateLimiter<
        u128,
        DefaultKeyedStateStore<u128>,
        QuantaClock,
        NoOpMiddleware<<QuantaClock as governor::clock::Clock>::Instant>,
    >,
}

/// The request is counted among those that its peer may make.
#[derive(Debug)]
pub struct PeerAdmitted(());

/// The request is one of those that may run at once, for as long as this is held.
#[derive(Debug)]
pub struct Permit {
    _in_flight: OwnedSemaphorePermit,
}

/// Why a request may not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("over the rate limit per {}", per_name(*.per))]
    Rate { per: RateLimitPer, retry_after: Duration, burst: u32, window: Duration },
    #[error("too many requests in flight on this route")]
    Concurrency,
}

/// The word for it in the configuration, in metrics and in `RateLimit`.
pub fn per_name(per: RateLimitPer) -> &'static str {
    match per {
        RateLimitPer::Client => "client",
        RateLimitPer::Route => "route",
        RateLimitPer::Session => "session",
        RateLimitPer::User => "user",
    }
}

impl Limiter {
    pub fn new(routes: &[config::Route]) -> Self {
        let routes = routes
            .iter()
            .map(|route| RouteLimits {
                rates: route.rate_limits.iter().map(Rate::new).collect(),
                in_flight: Arc::new(Semaphore::new(route.limits.concurrency.min(Semaphore::MAX_PERMITS))),
            })
            .collect();
        Self { routes, clock: QuantaClock::default() }
    }

    fn rates(&self, route: RouteIndex) -> &[Rate] {
        self.routes.get(route.position()).map_or(&[], |limits| &limits.rates)
    }

    /// Counts a request against the limits of its client's address and of its route, before anybody is identified.
    pub fn admit_peer(&self, route: RouteIndex, client: IpAddr) -> Result<PeerAdmitted, LimitError> {
        for rate in self.rates(route) {
            match rate.per {
                RateLimitPer::Client => rate.take(limit_key(client), &self.clock)?,
                RateLimitPer::Route => rate.take(0, &self.clock)?,
                RateLimitPer::Session | RateLimitPer::User => {}
            }
        }
        Ok(PeerAdmitted(()))
    }

    /// Counts a request against the limits of the session and the user that it proved, and gives it its place among
    /// those in flight. Without a proof nothing of theirs is used up: a handle is public.
    pub fn admit(&self, route: RouteIndex, _: &PeerAdmitted, session: Option<&Session>) -> Result<Permit, LimitError> {
        for rate in self.rates(route) {
            let key = match rate.per {
                RateLimitPer::Session => session.map(|session| session.handle().0),
                RateLimitPer::User => session.and_then(Session::user).map(|user| user.0),
                RateLimitPer::Client | RateLimitPer::Route => None,
            };
            if let Some(key) = key {
                rate.take(u128::from_be_bytes(key), &self.clock)?;
            }
        }
        let limits = self.routes.get(route.position()).ok_or(LimitError::Concurrency)?;
        let permit = limits.in_flight.clone().try_acquire_owned().map_err(|_| LimitError::Concurrency)?;
        Ok(Permit { _in_flight: permit })
    }

    /// Forgets keys whose limits are whole again.
    pub fn sweep(&self) {
        for rate in self.routes.iter().flat_map(|limits| &limits.rates) {
            rate.limiter.retain_recent();
            rate.limiter.shrink_to_fit();
        }
    }
}

impl Rate {
    fn new(raw: &config::RateLimit) -> Self {
        let period = raw.rate.per / raw.rate.count.get();
        // A rate that was checked has a period above zero; the slowest is else the safest.
        let quota = Quota::with_period(period).unwrap_or(Quota::per_hour(std::num::NonZeroU32::MIN));
        Self {
            per: raw.per,
            burst: raw.burst.get(),
            window: period.saturating_mul(raw.burst.get()),
            limiter: RateLimiter::keyed(quota.allow_burst(raw.burst)),
        }
    }

    fn take(&self, key: u128, clock: &QuantaClock) -> Result<(), LimitError> {
        self.limiter.check_key(&key).map_err(|refused| LimitError::Rate {
            per: self.per,
            retry_after: refused.wait_time_from(clock.now()),
            burst: self.burst,
            window: self.window,
        })
    }
}
