//! JWTs: taken apart, held against what the configuration says of their issuer, and only then verified.
//!
//! The order is by cost: nothing is fetched and no signature checked for a token that could not be good anyway, and
//! nothing of a token counts before its signature does. Signatures are aws-lc's. What the usual library for JWTs
//! would add is done here, because it cannot do what is needed: a clock of our own, members that stand twice,
//! `crit`, the one spelling of base64url, ES512.

pub(super) mod claims;
mod compact;
mod json;

use std::sync::Arc;

use crate::clock::Time;
use crate::config::{self, Algorithm, Problems};

use super::assertion::Assertion;
use super::key::Key;
use super::key_set::{KeySet, KeySets, Missing};
use super::verified::Verified;
use super::{Asker, Unverified};

use claims::{Mapping, Times};
use compact::Compact;

pub(super) use json::object;

/// Why a token is no good; for the log and the figures, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it is larger than 16 KiB")]
    TooLarge,
    #[error("it cannot be taken apart, or in more than one way")]
    Malformed,
    #[error("its header asks for what is not done")]
    Header,
    #[error("its algorithm is not allowed for its issuer")]
    Algorithm,
    #[error("nobody of that name issues tokens here")]
    Issuer,
    #[error("it is meant for somebody else")]
    Audience,
    #[error("it has expired, or is too old")]
    Expired,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("a claim is missing, or is not what it should be")]
    Claims,
    #[error("its issuer has no such key")]
    UnknownKey,
    #[error("its signature does not fit")]
    Signature,
    #[error("the server that was asked says that it is not active")]
    Inactive,
}

impl Flaw {
    /// As it stands in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Claims => "claims",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Inactive => "inactive",
        }
    }
}

/// Those whose tokens count.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Issuer>);

/// One of them, and what is asked of its tokens.
#[derive(Debug)]
struct Issuer {
    name: Arc<str>,
    audience: Vec<String>,
    algorithms: Vec<Algorithm>,
    times: Times,
    mapping: Mapping,
    keys: Arc<KeySet>,
}

impl Issuers {
    pub fn compile(config: &config::Config, key_sets: &KeySets, problems: &mut Problems) -> Self {
        let issuers = config.identity.issuers().iter().enumerate().filter_map(|(at, raw)| {
            let keys = key_sets.of(&raw.issuer, &raw.jwks, &format!("/identity/jwt/{at}/jwks"), problems)?;
            Some(Issuer {
                name: raw.issuer.as_str().into(),
                audience: raw.audience.as_slice().to_vec(),
                algorithms: raw.algorithms.clone(),
                times: Times::of(raw.leeway, &config.session),
                mapping: Mapping::new(raw.session_claim.as_slice(), raw.login_time, raw.on_missing, &raw.claims),
                keys,
            })
        });
        Self(issuers.collect())
    }

    /// Verifies a token; a key that is not known yet may have to be waited for.
    pub async fn verify(&self, token: &[u8], now: Time, asker: Asker) -> Result<Verified, Unverified> {
        let compact = Compact::parse(token)?;
        let (issuer, assertion) = self.judge(&compact, now)?;
        let key = issuer.prove(&compact, asker).await?;
        let until = assertion.usable_until().min(issuer.times.forgotten_at(assertion.issued_at()));
        Ok(Verified { assertion: Arc::new(assertion), until, key: Some(key) })
    }

    /// Whether a token could be good, and whose it is; all but its signature.
    fn judge(&self, compact: &Compact<'_>, now: Time) -> Result<(&Issuer, Assertion), Flaw> {
        let name = compact.claims.get("iss").ok_or(Flaw::Issuer)?.as_str().ok_or(Flaw::Claims)?;
        let issuer = self.0.iter().find(|issuer| *issuer.name == *name).ok_or(Flaw::Issuer)?;
        if !issuer.algorithms.contains(&compact.algorithm) {
            return Err(Flaw::Algorithm);
        }
        claims::is_for(&issuer.audience, &compact.claims)?;
        let lifetime = issuer.times.check(&compact.claims, now)?;
        // A revocation of its user could not be held against it.
        lifetime.issued_at.ok_or(Flaw::Claims)?;
        let assertion = issuer.mapping.assertion(&issuer.name, &compact.claims, lifetime)?;
        Ok((issuer, assertion))
    }

    /// Whose token this would be and why it would not count, as far as it can be said without a key.
    pub fn look_at(&self, token: &[u8], now: Time) -> Result<Arc<str>, Flaw> {
        let compact = Compact::parse(token)?;
        self.judge(&compact, now).map(|(issuer, _)| issuer.name.clone())
    }
}

impl Issuer {
    async fn prove(&self, compact: &Compact<'_>, asker: Asker) -> Result<Arc<Key>, Unverified> {
        let verifies = |key: &Key| key.verifies(compact.algorithm, compact.signed, &compact.signature);
        let found = self.keys.prove(compact.kid.as_deref(), compact.algorithm, asker, verifies).await;
        found.map_err(|missing| match missing {
            Missing::Refuted => Flaw::Signature.into(),
            Missing::Unknown => Flaw::UnknownKey.into(),
            Missing::Unavailable => Unverified::Unavailable,
        })
    }
}
