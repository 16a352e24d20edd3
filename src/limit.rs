//! How much a client, a session or a user may ask for, and how much runs at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, QuantaClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

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
    name: String,
    rates: Vec<Arc<Rate>>,
    concurrency: usize,
    in_flight: Arc<AtomicUsize>,
}

struct Rate {
    raw: config::RateLimit,
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
    in_flight: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
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
    /// The limits of these routes. What `before` has counted stands where it goes by the same name: what is in flight,
    /// and what was used up of a limit that is as it was.
    pub fn new(routes: &[config::Route], before: Option<&Self>) -> Self {
        let kept = |route: &config::Route| before?.routes.iter().find(|limits| limits.name == route.name);
        let routes = routes.iter().map(|route| RouteLimits::new(route, kept(route))).collect();
        Self { routes, clock: QuantaClock::default() }
    }

    fn rates(&self, route: RouteIndex) -> &[Arc<Rate>] {
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
        let (in_flight, most) = (limits.in_flight.clone(), limits.concurrency);
        let one_more = |count: usize| (count < most).then_some(count + 1);
        in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).map_err(|_| LimitError::Concurrency)?;
        Ok(Permit { in_flight })
    }

    /// Forgets keys whose limits are whole again.
    pub fn sweep(&self) {
        for rate in self.routes.iter().flat_map(|limits| &limits.rates) {
            rate.limiter.retain_recent();
            rate.limiter.shrink_to_fit();
        }
    }
}

impl RouteLimits {
    fn new(route: &config::Route, before: Option<&Self>) -> Self {
        let mut kept = before.map_or_else(Vec::new, |limits| limits.rates.clone());
        let rate = |raw: &config::RateLimit| match kept.iter().position(|rate| rate.raw == *raw) {
            // Taken out, so that of two alike each keeps its own.
            Some(at) => kept.swap_remove(at),
            None => Arc::new(Rate::new(raw)),
        };
        Self {
            name: route.name.clone(),
            rates: route.rate_limits.iter().map(rate).collect(),
            concurrency: route.limits.concurrency,
            in_flight: before.map_or_else(Arc::default, |limits| limits.in_flight.clone()),
        }
    }
}

impl Rate {
    fn new(raw: &config::RateLimit) -> Self {
        let period = raw.rate.per / raw.rate.count.get();
        // A rate that was checked has a period above zero; the slowest is else the safest.
        let quota = Quota::with_period(period).unwrap_or(Quota::per_hour(std::num::NonZeroU32::MIN));
        Self {
            raw: raw.clone(),
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
