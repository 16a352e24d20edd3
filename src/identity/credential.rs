//! What a request carries, and which of it counts on a route.

use std::fmt;

use http::HeaderValue;

use crate::config::CredentialKind;
use crate::handle::SessionId;

/// How a credential came, and so how a new one travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Cookie,
    Bearer,
    Header,
}

/// A credential that was taken out of a request; nothing is verified yet.
#[derive(Debug)]
pub struct Credential {
    pub carrier: Carrier,
    pub presented: Presented,
}

/// What it looks like.
#[derive(Debug)]
pub enum Presented {
    /// None: it is no session id, whatever it looks like.
    SessionId(Option<SessionId>),
    Token(Token),
}

/// A token as it came; shown to nobody.
#[derive(Clone)]
pub struct Token {
    kind: TokenKind,
    value: HeaderValue,
}

/// Who can tell whether a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Whoever has its issuer's keys.
    Jwt,
    /// Whoever made it.
    Opaque,
}

impl Token {
    pub(super) fn new(kind: TokenKind, bytes: &[u8]) -> Option<Self> {
        let mut value = HeaderValue::from_bytes(bytes).ok()?;
        value.set_sensitive(true);
        Some(Self { kind, value })
    }

    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.value.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Credential {
    pub fn kind(&self) -> CredentialKind {
        match &self.presented {
            Presented::SessionId(_) => CredentialKind::SessionId,
            Presented::Token(token) => match token.kind {
                TokenKind::Jwt => CredentialKind::Jwt,
                TokenKind::Opaque => CredentialKind::Introspection,
            },
        }
    }
}

/// Every credential of a request: by cookie, by bearer, by header.
#[derive(Debug, Default)]
pub struct Taken(pub(super) [Option<Credential>; 3]);

impl Taken {
    pub fn all(&self) -> impl Iterator<Item = &Credential> {
        self.0.iter().flatten()
    }

    pub(super) fn take_one(&mut self, carrier: Carrier) -> Option<Credential> {
        self.0.iter_mut().find_map(|one| one.take_if(|one| one.carrier == carrier))
    }
}

/// What a route has to say of credentials.
#[derive(Debug, Clone)]
pub(super) struct RoutePolicy {
    /// None: every kind counts, and the carrier alone says which decides.
    kinds: Option<Vec<CredentialKind>>,
    pub forward_jwt: bool,
}

impl RoutePolicy {
    pub fn new(kinds: Option<Vec<CredentialKind>>, forward_jwt: bool) -> Self {
        Self { kinds, forward_jwt }
    }

    /// By which carrier the credential came that decides: one of the first kind in the route's list that came.
    pub fn pick(&self, taken: &Taken) -> Option<Carrier> {
        let Some(kinds) = &self.kinds else { return taken.all().next().map(|one| one.carrier) };
        let ranked = taken.all().filter_map(|one| Some((kinds.iter().position(|kind| *kind == one.kind())?, one)));
        // The first among equals.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, one)| one.carrier)
    }
}
