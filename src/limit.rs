//! How much a client, a session or a user may ask for, and how much runs at once.

mod rate;
mod shared;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::QuantaClock;
use http::HeaderValue;
use tokio::time::Instant;

use crate::config::{self, RateLimitPer};
use crate::handle::{Handle, UserKey};
use crate::peer::limit_key;
use crate::quota::{self, Exceeded};
use crate::route::RouteIndex;
use crate::session::Session;
use crate::store::{Store, StoreError};

use rate::{Rate, Refused};
use shared::Ailing;

/// Admits requests, per route.
pub struct Limiter {
    routes: Vec<RouteLimits>,
    clock: QuantaClock,
    /// How long what is counted in the store may take, all of a route's limits together.
    patience: Duration,
    ailing: Ailing,
}

struct RouteLimits {
    name: String,
    rates: Vec<Arc<Rate>>,
    policies: HeaderValue,
    concurrency: usize,
    in_flight: Arc<AtomicUsize>,
}

/// The request is counted among those that its peer may make.
#[derive(Debug)]
pub struct PeerAdmitted(());

/// The request is counted among those that its session and its user may make.
#[derive(Debug)]
pub struct Counted(());

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
    #[error("over the rate limit {}", .exceeded.name)]
    Rate { per: RateLimitPer, exceeded: Exceeded },
    #[error("a rate limit that is shared could not be counted: {0}")]
    Store(#[from] StoreError),
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

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Client(IpAddr),
    Route,
    Session(Handle),
    User(UserKey),
}

impl Subject {
    fn key(self) -> u128 {
        match self {
            Self::Client(address) => limit_key(address),
            Self::Route => 0,
            Self::Session(handle) => u128::from_be_bytes(handle.0),
            Self::User(user) => u128::from_be_bytes(user.0),
        }
    }
}

/// As it stands in a key of the store.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(address) => match address.to_canonical() {
                IpAddr::V4(address) => address.fmt(f),
                IpAddr::V6(_) => write!(f, "{}/64", Ipv6Addr::from(self.key())),
            },
            Self::Route => f.write_str("all"),
            Self::Session(handle) => handle.fmt(f),
            Self::User(user) => user.fmt(f),
        }
    }
}

impl Limiter {
    /// The limits of these routes; `patience` is how long the store may take to count. What `before` has counted
    /// stands where it goes by the same name: what is in flight, and what was used up of a limit that is as it was.
    pub fn new(routes: &[config::Route], patience: Duration, before: Option<&Self>) -> Self {
        let kept = |route: &config::Route| before?.routes.iter().find(|limits| limits.name == route.name);
        let routes = routes.iter().map(|route| RouteLimits::new(route, kept(route))).collect();
        Self { routes, clock: QuantaClock::default(), patience, ailing: Ailing::new() }
    }

    /// Counts a request against the limits of its client's address and of its route, before anybody is identified.
    pub async fn admit_peer(
        &self,
        route: RouteIndex,
        client: IpAddr,
        store: &dyn Store,
    ) -> Result<PeerAdmitted, LimitError> {
        let subject = |per| match per {
            RateLimitPer::Client => Some(Subject::Client(client)),
            RateLimitPer::Route => Some(Subject::Route),
            RateLimitPer::Session | RateLimitPer::User => None,
        };
        self.take(route, subject, store).await?;
        Ok(PeerAdmitted(()))
    }

    /// Counts a request against the limits of the session and the user that it proved. Without a proof nothing of
    /// theirs is used up: a handle is public.
    pub async fn admit(
        &self,
        route: RouteIndex,
        _: &PeerAdmitted,
        session: Option<&Session>,
        store: &dyn Store,
    ) -> Result<Counted, LimitError> {
        let subject = |per| match per {
            RateLimitPer::Session => session.map(|session| Subject::Session(session.handle())),
            RateLimitPer::User => session.and_then(Session::user).map(Subject::User),
            RateLimitPer::Client | RateLimitPer::Route => None,
        };
        self.take(route, subject, store).await?;
        Ok(Counted(()))
    }

    /// Gives a request its place among those in flight.
    pub fn enter(&self, route: RouteIndex, _: &Counted) -> Result<Permit, LimitError> {
        let limits = self.routes.get(route.position()).ok_or(LimitError::Concurrency)?;
        let (in_flight, most) = (limits.in_flight.clone(), limits.concurrency);
        let one_more = |count: usize| (count < most).then_some(count + 1);
        in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).map_err(|_| LimitError::Concurrency)?;
        Ok(Permit { in_flight })
    }

    async fn take(
        &self,
        route: RouteIndex,
        subject: impl Fn(RateLimitPer) -> Option<Subject>,
        store: &dyn Store,
    ) -> Result<(), LimitError> {
        let Some(limits) = self.routes.get(route.position()) else { return Ok(()) };
        let mut deadline = None;
        for rate in &limits.rates {
            let Some(subject) = subject(rate.per()) else { continue };
            let taken = match &rate.shared {
                None => rate.take_here(subject.key(), &self.clock),
                Some(shared) => {
                    let by = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
                    match Box::pin(shared.take(subject, store, &self.ailing, by)).await {
                        Some(taken) => taken,
                        None => rate.take_here(subject.key(), &self.clock),
                    }
                }
            };
            taken.map_err(|refused| match refused {
                Refused::For(retry_after) => {
                    let exceeded = Exceeded { name: rate.name.clone(), policies: limits.policies.clone(), retry_after };
                    LimitError::Rate { per: rate.per(), exceeded }
                }
                Refused::Store(error) => error.into(),
            })?;
        }
        Ok(())
    }
}

impl RouteLimits {
    fn new(route: &config::Route, before: Option<&Self>) -> Self {
        let mut rates: Vec<Arc<Rate>> = Vec::new();
        for raw in &route.rate_limits {
            let earlier = rates.iter().filter(|rate| rate.per() == raw.per).count();
            let name = match earlier {
                0 => per_name(raw.per).to_owned(),
                earlier => format!("{}-{}", per_name(raw.per), earlier + 1),
            };
            let kept = before.and_then(|limits| limits.rates.iter().find(|rate| rate.is(raw, &name)));
            rates.push(kept.cloned().unwrap_or_else(|| Arc::new(Rate::new(raw, &route.name, &name))));
        }
        let policies = quota::policies(rates.iter().map(|rate| (&*rate.name, &rate.quota)));
        // What is counted here costs nothing, and a refusal of it spares the store's answer.
        rates.sort_by_key(|rate| rate.shared.is_some());
        Self {
            name: route.name.clone(),
            rates,
            policies,
            concurrency: route.limits.concurrency,
            in_flight: before.map_or_else(Arc::default, |limits| limits.in_flight.clone()),
        }
    }
}
