use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Rate};
use crate::secret::Secret;

/// How clients prove whose session they mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    pub session_id: SessionIdCarriers,
    /// Whose tokens count; the token's own issuer picks one. Null: nobody's.
    pub jwt: Option<Vec<Issuer>>,
    /// Who is asked about opaque tokens (RFC 7662), in this order. Null: nobody.
    pub introspection: Option<Vec<Introspection>>,
    /// Failures that one client address may have; null: no bound.
    pub bad_credentials: Option<BadCredentials>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            session_id: SessionIdCarriers::default(),
            jwt: None,
            introspection: None,
            bad_credentials: Some(BadCredentials::default()),
        }
    }
}

impl Identity {
    pub fn issuers(&self) -> &[Issuer] {
        self.jwt.as_deref().unwrap_or_default()
    }

    pub fn introspections(&self) -> &[Introspection] {
        self.introspection.as_deref().unwrap_or_default()
    }

    /// Whose tokens make sessions, as sessions know them: who is asked about opaque tokens goes by its URL.
    pub fn names_of_issuers(&self) -> impl Iterator<Item = &str> {
        let asked = self.introspections().iter().map(|server| server.url.as_str());
        self.issuers().iter().map(|issuer| issuer.issuer.as_str()).chain(asked)
    }

    /// Whether a credential of this kind can be told at all.
    pub fn has(&self, kind: CredentialKind) -> bool {
        match kind {
            CredentialKind::SessionId => true,
            CredentialKind::Jwt => !self.issuers().is_empty(),
            CredentialKind::Introspection => !self.introspections().is_empty(),
        }
    }
}

/// What a client proves itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    SessionId,
    Jwt,
    Introspection,
}

impl CredentialKind {
    /// As it is written in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SessionId => "session_id",
            Self::Jwt => "jwt",
            Self::Introspection => "introspection",
        }
    }
}

/// Somebody whose tokens count.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What a token's `iss` must be, to the letter.
    pub issuer: String,
    /// One of these must be in a token's `aud`; empty: any token of the issuer's counts.
    #[serde(default)]
    pub audience: Names,
    /// Where the issuer's public keys are.
    pub jwks: KeySource,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be off.
    #[serde(default = "half_a_minute")]
    pub leeway: Period,
    /// The claim whose value names the session; the first of them that a token has.
    #[serde(default = "sid")]
    pub session_claim: Names,
    /// The claim that says when the user logged in.
    #[serde(default)]
    pub login_time: LoginTime,
    /// What a token without a session gets.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// Field: claim.
    #[serde(default)]
    pub claims: IndexMap<String, String>,
}

/// Where keys come from: one of `url`, `discovery`, `file` and `keys`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeySource {
    /// Of the key set: https, or http from loopback.
    pub url: Option<String>,
    /// Whether the issuer says where its keys are, under `/.well-known/openid-configuration`.
    pub discovery: bool,
    /// A key set in a file.
    pub file: Option<PathBuf>,
    /// The keys themselves (RFC 7517).
    pub keys: Option<Vec<InlineKey>>,
    /// How often the keys are fetched at least; sooner where the server's `Cache-Control` says so.
    pub refresh: Period,
    /// The authorities that the server's certificate may come from; null: the platform's.
    pub ca: Option<PathBuf>,
}

impl Default for KeySource {
    fn default() -> Self {
        Self { url: None, discovery: false, file: None, keys: None, refresh: Period::secs(600), ca: None }
    }
}

/// A public key, or a shared secret by reference, with the members of a JWK.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InlineKey {
    /// `RSA`, `EC`, `OKP` or `oct`.
    pub kty: String,
    /// Its name; none: it counts for tokens of any.
    pub kid: Option<String>,
    /// The one algorithm that it is for; none: every one of its kind.
    pub alg: Option<String>,
    /// `sig`, if it is there.
    #[serde(rename = "use")]
    pub usage: Option<String>,
    /// `verify` among them, if it is there.
    pub key_ops: Option<Vec<String>>,
    /// The curve of an `EC` or `OKP` key.
    pub crv: Option<String>,
    /// The modulus of an `RSA` key in base64url.
    pub n: Option<String>,
    /// Its exponent.
    pub e: Option<String>,
    /// The point of an `EC` or `OKP` key in base64url.
    pub x: Option<String>,
    /// Its other coordinate.
    pub y: Option<String>,
    /// The secret of an `oct` key in base64url.
    pub k: Option<Secret>,
}

/// Signature algorithms (RFC 7518, RFC 8037, RFC 9864).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[allow(clippy::upper_case_acronyms)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
    Ed25519,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    const ALL: [Self; 14] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
        Self::Ed25519,
        Self::HS256,
        Self::HS384,
        Self::HS512,
    ];

    /// As it is written here and in tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// The algorithm of exactly this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether who can verify can sign as well.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// The claim that says when the user logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoginTime {
    #[default]
    AuthTime,
    Iat,
}

/// What a good token without a session gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// A new session.
    #[default]
    Create,
    /// 401 with the action `reinit`.
    Reinit,
}

/// One name, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Several(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Names {
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

fn half_a_minute() -> Period {
    Period::secs(30)
}

fn sid() -> Names {
    Names::One("sid".into())
}

fn sub() -> Names {
    Names::One("sub".into())
}

/// A server that says whether an opaque token is good.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// https, or http on loopback.
    pub url: String,
    /// As whom it is asked.
    pub client_id: String,
    pub client_secret: Secret,
    /// How long an answer holds; never past the token's own expiry.
    #[serde(default = "half_a_minute")]
    pub cache: Period,
    /// The member of the answer whose value names the session; the first of them that an answer has.
    #[serde(default = "sub")]
    pub session_claim: Names,
    /// The member that says when the user logged in.
    #[serde(default)]
    pub login_time: LoginTime,
    /// What a token without a session gets.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// Field: member of the answer.
    #[serde(default)]
    pub claims: IndexMap<String, String>,
    /// The authorities that the server's certificate may come from; null: the platform's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
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
