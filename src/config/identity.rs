use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rate;

/// How clients prove whose session they mean.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    pub session_id: SessionIdCarriers,
    /// Failures that one client address may have; null: no bound.
    pub bad_credentials: Option<BadCredentials>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { session_id: SessionIdCarriers::default(), bad_credentials: Some(BadCredentials::default()) }
    }
}

/// Where a session id may stand in a request.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionIdCarriers {
    /// The cookie's name; null: none.
    pub cookie: Option<String>,
    /// `Authorization: Bearer cr_…`.
    pub bearer: bool,
    /// A header of its own; null: none.
    pub header: Option<String>,
}

impl Default for SessionIdCarriers {
    fn default() -> Self {
        Self { cookie: Some("__Host-session".into()), bearer: true, header: None }
    }
}

/// Failures, wrong secrets among them, that one client address may have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BadCredentials {
    /// How fast what was used up comes back.
    pub rate: Rate,
    /// How many at once.
    pub burst: u32,
}

impl Default for BadCredentials {
    fn default() -> Self {
        Self { rate: Rate::per_second(std::num::NonZeroU32::MIN.saturating_add(19)), burst: 100 }
    }
}

/// The attributes of the session cookie.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CookieAttributes {
    /// False in development over plain HTTP; the cookie's name is then used without `__Host-`.
    pub secure: bool,
    pub same_site: SameSite,
    /// Needs a cookie name without `__Host-`; null: the request's own host only.
    pub domain: Option<String>,
}

impl Default for CookieAttributes {
    fn default() -> Self {
        Self { secure: true, same_site: SameSite::Lax, domain: None }
    }
}

/// The cookie's `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    Lax,
    Strict,
    None,
}
