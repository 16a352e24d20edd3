//! A bound on the bad credentials that one client address may try.

use std::net::IpAddr;
use std::time::Instant;

use governor::clock::{Clock as _, QuantaClock};
use http::HeaderValue;
use quick_cache::sync::Cache;

use crate::config;
use crate::handle::SessionId;
use crate::peer::limit_key;
use crate::quota::{self, Counts, Exceeded, Quota};

/// Addresses that may be known to have used up their tries.
const SPENT: usize = 10_000;
/// Credentials that are remembered as good, so that their owners get in from a spent address.
const VERIFIED: usize = 10_000;

/// The quota's name, as clients are told of it.
const NAME: &str = "credentials";

/// Counts failures; successes cost nothing.
pub struct Failures {
    bound: config::BadCredentials,
    limiter: Counts,
    clock: QuantaClock,
    quota: Quota,
    policies: HeaderValue,
    spent: Cache<u128, Instant>,
    verified: Cache<[u8; 32], ()>,
}

impl Failures {
    pub fn new(bound: &config::BadCredentials) -> Self {
        let burst = std::num::NonZeroU32::new(bound.burst).unwrap_or(std::num::NonZeroU32::MIN);
        let quota = Quota::new(bound.rate, burst);
        Self {
            bound: bound.clone(),
            limiter: quota.counts(),
            clock: QuantaClock::default(),
            quota,
            policies: quota::policies([(NAME, &quota)]),
            spent: Cache::new(SPENT),
            verified: Cache::new(VERIFIED),
        }
    }

    /// Whether this is what it counts against.
    pub fn has(&self, bound: &config::BadCredentials) -> bool {
        self.bound == *bound
    }

    /// Whether a credential may be looked at; if not, how long until one may.
    ///
    /// From an address that has no tries left only credentials pass that proved good before.
    pub fn admit(&self, client: IpAddr, id: Option<&SessionId>) -> Result<(), Exceeded> {
        let Some(until) = self.spent.get(&limit_key(client)) else { return Ok(()) };
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() || id.is_some_and(|id| self.verified.get(&fingerprint(id)).is_some()) {
            return Ok(());
        }
        Err(Exceeded { name: NAME.into(), policies: self.policies.clone(), retry_after: wait })
    }

    pub fn succeeded_with(&self, id: Option<&SessionId>) {
        let Some(key) = id.map(fingerprint) else { return };
        if self.verified.get(&key).is_none() {
            self.verified.insert(key, ());
        }
    }

    pub fn failed(&self, client: IpAddr) {
        let key = limit_key(client);
        let wait = match self.limiter.check_key(&key) {
            Ok(state) if state.remaining_burst_capacity() > 0 => return,
            Ok(_) => self.quota.period,
            Err(refused) => refused.wait_time_from(self.clock.now()),
        };
        self.spent.insert(key, Instant::now() + wait);
    }
}

/// The hash of the secret names the credential and is none.
fn fingerprint(id: &SessionId) -> [u8; 32] {
    let mut key = *id.hash().bytes();
    for (byte, name) in key.iter_mut().zip(id.handle().0) {
        *byte ^= name;
    }
    key
}
