//! Who may ask: the operator, by the admin token, and named callers, each by its own.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use governor::clock::{Clock as _, QuantaClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::config;
use crate::headers;
use crate::identity::bearer_token;
use crate::secret::Secret;
use crate::session::{FieldIndex, Schema};

use super::Admin;
use super::problem::{Kind, Problem};

/// How often one caller may have handles resolved: enough for a tool at work, too little to read out a store.
const RESOLVES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
const RESOLVE_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// A program that may have the handles of some fields resolved.
#[derive(Clone)]
pub struct Caller {
    pub name: Arc<str>,
    token: Secret,
    resolves: Vec<FieldIndex>,
    limiter: Arc<DefaultDirectRateLimiter>,
    clock: QuantaClock,
}

impl Caller {
    /// Takes a caller that `check` has accepted: names that select no field let nothing through.
    pub fn compile(raw: &config::Caller, schema: &Schema) -> Self {
        Self {
            name: raw.name.as_str().into(),
            token: raw.token.clone(),
            resolves: schema.select(&raw.resolve, "", &mut config::Problems::default()),
            limiter: Arc::new(RateLimiter::direct(Quota::per_second(RESOLVES_PER_SECOND).allow_burst(RESOLVE_BURST))),
            clock: QuantaClock::default(),
        }
    }

    /// The same, with what the one before has used up.
    pub fn counting_on(&self, before: &Self) -> Self {
        Self { limiter: before.limiter.clone(), ..self.clone() }
    }

    pub fn may_resolve(&self, field: FieldIndex) -> bool {
        self.resolves.contains(&field)
    }

    /// Counts a request against the caller's rate; how long to wait if there were too many.
    pub fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refused| refused.wait_time_from(self.clock.now()))
    }
}

/// The request came with the admin token.
pub struct Operator(());

/// The request came with a caller's token.
pub struct Authorized(pub Arc<Caller>);

impl FromRequestParts<Arc<Admin>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        let token = admin.token.as_ref().ok_or_else(|| closed("No admin.token is configured."))?;
        if token.matches(presented(&parts.headers)?) { Ok(Self(())) } else { Err(wrong()) }
    }
}

impl FromRequestParts<Arc<Admin>> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Problem> {
        if admin.callers.is_empty() {
            return Err(closed("No admin.callers are configured."));
        }
        let token = presented(&parts.headers)?;
        // Every token is compared, so that the time does not tell whose it might be.
        let matching =
            |found, caller: &Arc<Caller>| if caller.token.matches(token) { Some(caller.clone()) } else { found };
        admin.callers.iter().fold(None, matching).map(Self).ok_or_else(wrong)
    }
}

fn presented(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let missing = || Problem::new(Kind::CredentialMissing, "The token goes into one Authorization: Bearer header.");
    let line = headers::only(headers, &AUTHORIZATION).map_err(|_| missing())?.ok_or_else(missing)?;
    bearer_token(line.as_bytes()).ok_or_else(missing)
}

fn wrong() -> Problem {
    Problem::new(Kind::CredentialInvalid, "The token is not one that this endpoint takes.")
}

fn closed(detail: &'static str) -> Problem {
    Problem::new(Kind::Forbidden, detail)
}
