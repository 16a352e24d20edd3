//! What a verified token says, as evidence: there is no other way to one than verification.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::clock::Time;
use crate::config::OnMissing;
use crate::handle::{Handle, TokenKey};
use crate::keyring::Keyring;

/// Whose session a verified token means, and what it says of it.
///
/// All times that come from the token are whole seconds since the Unix epoch.
#[derive(Clone)]
pub struct Assertion {
    pub(super) issuer: Arc<str>,
    pub(super) subject: Arc<str>,
    pub(super) session_claim: Arc<str>,
    pub(super) session_value: Arc<str>,
    pub(super) issued_at: Option<i64>,
    pub(super) as_of: Option<i64>,
    pub(super) login_time: Option<i64>,
    pub(super) expires_at: i64,
    pub(super) usable_until: Time,
    pub(super) token_id: Option<Arc<str>>,
    pub(super) claims: Arc<[(Arc<str>, Option<Value>)]>,
    pub(super) on_missing: OnMissing,
    pub(super) names: OnceLock<(Handle, Option<TokenKey>)>,
}

impl Assertion {
    /// Who says so, as the configuration names it.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// Of whom; never empty, at most 1 KiB.
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// The name of the claim that names the session.
    pub fn session_claim(&self) -> &Arc<str> {
        &self.session_claim
    }

    /// That claim's value; never empty, at most 1 KiB.
    pub fn session_value(&self) -> &Arc<str> {
        &self.session_value
    }

    /// Always there in a JWT; never in the future by more than the leeway.
    pub fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }

    /// Since when what it says is so: when the token was issued, or, of one that was asked about, when that was.
    pub fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    /// When the user logged in, by the claim that the configuration names.
    pub fn login_time(&self) -> Option<i64> {
        self.login_time
    }

    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// When the token is of no more use: its expiry and the leeway.
    pub fn usable_until(&self) -> Time {
        self.usable_until
    }

    /// The token's `jti`, at most 1 KiB.
    pub fn token_id(&self) -> Option<&Arc<str>> {
        self.token_id.as_ref()
    }

    /// The handle that it leads to, and the name of the token itself. Made once, as they cost two HMACs: a process has one
    /// way to name things, whatever becomes of its keys.
    pub fn names(&self, keyring: impl FnOnce() -> Arc<Keyring>) -> (Handle, Option<TokenKey>) {
        *self.names.get_or_init(|| {
            let keyring = keyring();
            let handle = keyring.token_handle(&self.issuer, &self.session_claim, &self.session_value);
            (handle, self.token_id.as_ref().map(|id| keyring.token_key(id)))
        })
    }

    /// The mapped fields in the order of the configuration, each with its claim's value; none where the token does
    /// not have the claim, or has it as null. Types are not checked against the schema.
    pub fn claims(&self) -> &[(Arc<str>, Option<Value>)] {
        &self.claims
    }

    /// What is to be done where there is no such session.
    pub fn on_missing(&self) -> OnMissing {
        self.on_missing
    }
}

/// No value of the token's.
impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.claims.iter().map(|(field, _)| &**field).collect();
        f.debug_struct("Assertion")
            .field("issuer", &self.issuer)
            .field("session_claim", &self.session_claim)
            .field("fields", &fields)
            .field("on_missing", &self.on_missing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Assertion {
    /// As if such a token had been verified: issued and logged in at `issued_at`, good for an hour, without a `jti`.
    pub fn sample(issuer: &str, subject: &str, session: (&str, &str), issued_at: i64) -> Self {
        let expires_at = issued_at + 3600;
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
            session_claim: session.0.into(),
            session_value: session.1.into(),
            issued_at: Some(issued_at),
            as_of: Some(issued_at),
            login_time: Some(issued_at),
            expires_at,
            usable_until: Time(expires_at.unsigned_abs() * 1000),
            token_id: None,
            claims: Arc::new([]),
            on_missing: OnMissing::Create,
            names: OnceLock::new(),
        }
    }

    pub fn with_claims(mut self, claims: &[(&str, Option<Value>)]) -> Self {
        self.claims = claims.iter().map(|(field, value)| (Arc::from(*field), value.clone())).collect();
        self
    }

    pub fn with_token_id(mut self, token_id: &str) -> Self {
        self.token_id = Some(token_id.into());
        self.names = OnceLock::new();
        self
    }

    pub fn with_login_time(mut self, login_time: Option<i64>) -> Self {
        self.login_time = login_time;
        self
    }

    pub fn on_missing_reinit(mut self) -> Self {
        self.on_missing = OnMissing::Reinit;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value_of_the_token() {
        let assertion = Assertion::sample("https://login.example", "u-SECRET", ("sid", "s-SECRET"), 1)
            .with_claims(&[("email", Some("m-SECRET".into()))])
            .with_token_id("j-SECRET");
        let shown = format!("{assertion:?}");
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("login.example") && shown.contains("email"), "{shown}");
    }
}
