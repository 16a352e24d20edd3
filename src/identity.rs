//! Whose session a request means: the credentials in it, taken out on every route.

mod assertion;
mod cookie;
mod credential;
mod failures;
mod fetch;
mod introspection;
mod jwt;
mod key;
mod key_set;
mod origin;
mod verified;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::clock::Time;
use crate::config::{Config, CredentialKind, Problems};
use crate::handle::{SESSION_ID_PREFIX, SessionId};
use crate::headers;
use crate::peer::limit_key;
use crate::route::RouteIndex;

use credential::RoutePolicy;
use introspection::Introspection;
use jwt::Issuers;
use verified::{Memory, TokenHash};

pub use assertion::Assertion;
pub use cookie::{SessionCookie, Stray};
pub use credential::{Carrier, Credential, Presented, Taken, Token, TokenKind};
pub use failures::Failures;
pub use jwt::Flaw;
pub use key_set::KeySets;
pub use origin::{ForeignOrigin, Origins};

/// No credential is longer than this.
const CREDENTIAL_BYTES: usize = 16 << 10;

/// Finds credentials, says which of them counts where, and verifies tokens.
#[derive(Debug, Default)]
pub struct Verifier {
    cookie: Option<SessionCookie>,
    bearer: bool,
    header: Option<HeaderName>,
    jwt: bool,
    opaque: bool,
    routes: Vec<RoutePolicy>,
    issuers: Issuers,
    verified: Memory,
    introspection: Introspection,
    key_sets: KeySets,
}

/// Who asks for a key or an answer, as far as limits tell clients apart.
#[derive(Debug, Clone, Copy)]
pub struct Asker(u128);

/// Why a token asserts nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("the token is no good: {0}")]
    Flawed(#[from] Flaw),
    #[error("whoever could tell whether the token is good cannot be reached")]
    Unavailable,
}

/// Two credentials stand in one carrier, and there is no telling which is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two credentials in one carrier")]
pub struct Ambiguous;

impl Verifier {
    /// Key sets that the configuration before had too keep their keys.
    pub fn compile(config: &Config, before: Option<&Self>, problems: &mut Problems) -> Self {
        let key_sets = before.map_or_else(KeySets::default, |before| before.key_sets.clone());
        let carriers = &config.identity.session_id;
        Self {
            cookie: carriers.cookie.as_ref().map(|name| SessionCookie::new(name, &config.cookie)),
            bearer: carriers.bearer,
            header: carriers.header.as_ref().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()),
            jwt: config.identity.has(CredentialKind::Jwt),
            opaque: config.identity.has(CredentialKind::Introspection),
            routes: config
                .routes
                .iter()
                .map(|raw| RoutePolicy::new(raw.identity.clone(), raw.forward_credential))
                .collect(),
            issuers: Issuers::compile(config, &key_sets, problems),
            verified: Memory::default(),
            introspection: Introspection::compile(config, problems),
            key_sets,
        }
    }

    /// Takes every credential of ours out of a request, whatever its route.
    pub fn take(&self, headers: &mut HeaderMap) -> Result<Taken, Ambiguous> {
        let cookie = match &self.cookie {
            Some(cookie) => cookie.take(headers, session_id).map_err(|_| Ambiguous)?,
            None => None,
        };
        let cookie = cookie.map(Presented::SessionId);
        let bearer = self.take_bearer(headers)?;
        let header = match &self.header {
            Some(name) => take_header(headers, name)?,
            None => None,
        };
        let header = header.map(|value| self.classify_own(value.as_bytes()));
        let came = |carrier, presented: Option<Presented>| Some(Credential { carrier, presented: presented? });
        Ok(Taken([came(Carrier::Cookie, cookie), came(Carrier::Bearer, bearer), came(Carrier::Header, header)]))
    }

    /// The credential that decides on a route.
    pub fn decide(&self, route: RouteIndex, taken: &mut Taken) -> Option<Credential> {
        let carrier = self.pick(route, taken)?;
        taken.take_one(carrier)
    }

    /// By which carrier that credential came.
    pub fn pick(&self, route: RouteIndex, taken: &Taken) -> Option<Carrier> {
        self.routes.get(route.position())?.pick(taken)
    }

    /// Whether the backend of a route gets this credential all the same.
    pub fn gives_back(&self, route: RouteIndex, credential: &Credential) -> bool {
        let forwards = self.routes.get(route.position()).is_some_and(|policy| policy.forward_jwt);
        forwards && credential.kind() == CredentialKind::Jwt
    }

    /// Puts JWTs back where they stood, on a route whose backend is to have them.
    pub fn give_back(&self, route: RouteIndex, taken: &Taken, headers: &mut HeaderMap) {
        for credential in taken.all().filter(|one| self.gives_back(route, one)) {
            let Presented::Token(token) = &credential.presented else { continue };
            let (name, line) = match (credential.carrier, &self.header) {
                (Carrier::Bearer, _) => (AUTHORIZATION, [b"Bearer ", token.as_bytes()].concat()),
                (Carrier::Header, Some(name)) => (name.clone(), token.as_bytes().to_vec()),
                _ => continue,
            };
            if let Ok(mut value) = HeaderValue::from_bytes(&line) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
    }

    /// What a token asserts that was verified before, and would be again.
    pub fn recall(&self, token: &Token, now: Time) -> Option<Arc<Assertion>> {
        match token.kind() {
            TokenKind::Jwt => self.verified.recall(TokenHash::of(token.as_bytes()), now),
            TokenKind::Opaque => self.introspection.recall(token.as_bytes(), now),
        }
    }

    /// Verifies a token. Its issuer's keys may have to be fetched for that, or its issuer be asked.
    ///
    /// # Errors
    /// It is no good, or nobody can tell; of the latter nothing may follow for the client's session.
    pub async fn verify(&self, token: &Token, client: IpAddr, now: Time) -> Result<Arc<Assertion>, Unverified> {
        match token.kind() {
            TokenKind::Jwt => {
                let asker = Asker(limit_key(client));
                let verified = self.issuers.verify(token.as_bytes(), now, asker).await?;
                Ok(self.verified.keep(TokenHash::of(token.as_bytes()), verified))
            }
            TokenKind::Opaque => self.introspection.verify(token.as_bytes(), now).await,
        }
    }

    /// Forgets a token that was revoked: it is not among the verified ones any more.
    pub fn forget(&self, token: &Token) {
        match token.kind() {
            TokenKind::Jwt => self.verified.forget(TokenHash::of(token.as_bytes())),
            TokenKind::Opaque => self.introspection.forget(token.as_bytes()),
        }
    }

    /// Whose a JWT would be and why it would not count, as far as it can be said without a key.
    pub fn look_at(&self, token: &Token, now: Time) -> Result<Arc<str>, Flaw> {
        self.issuers.look_at(token.as_bytes(), now)
    }

    /// The key sets in use, which want to be kept fresh.
    pub fn key_sets(&self) -> KeySets {
        self.key_sets.clone()
    }

    /// The cookie that carries session ids, where one does.
    pub fn cookie(&self) -> Option<&SessionCookie> {
        self.cookie.as_ref()
    }

    /// A credential out of `Authorization`; anything else there is not ours, and passes.
    fn take_bearer(&self, headers: &mut HeaderMap) -> Result<Option<Presented>, Ambiguous> {
        if !(self.bearer || self.jwt || self.opaque) {
            return Ok(None);
        }
        let Some(line) = headers::only(headers, &AUTHORIZATION).map_err(|_| Ambiguous)? else { return Ok(None) };
        let presented = bearer_token(line.as_bytes()).and_then(|token| self.classify(token));
        if presented.is_some() || self.holds_credential(line.as_bytes()) {
            headers.remove(AUTHORIZATION);
        }
        Ok(presented)
    }

    /// Whether a session id or a JWT stands anywhere in a line, under whatever scheme or none: there it proves nothing, and
    /// is nobody else's to see.
    fn holds_credential(&self, line: &[u8]) -> bool {
        let mut words = line.split(|byte| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte)));
        words.any(|word| {
            let is_id = word.starts_with(SESSION_ID_PREFIX.as_bytes()) && session_id(word).is_some();
            is_id || self.jwt && word.starts_with(b"eyJ") && word.iter().filter(|byte| **byte == b'.').count() >= 2
        })
    }

    /// What a bearer token looks like; none if it is of no kind that is configured.
    fn classify(&self, token: &[u8]) -> Option<Presented> {
        if token.starts_with(SESSION_ID_PREFIX.as_bytes()) {
            return self.bearer.then(|| Presented::SessionId(session_id(token)));
        }
        if looks_like_jwt(token) {
            return if self.jwt { Token::new(TokenKind::Jwt, token).map(Presented::Token) } else { None };
        }
        let empty = token.is_empty();
        if self.opaque && !empty { Token::new(TokenKind::Opaque, token).map(Presented::Token) } else { None }
    }

    /// The same in the header that is ours alone, where what is nothing else is a bad session id.
    fn classify_own(&self, value: &[u8]) -> Presented {
        let id = || Presented::SessionId(session_id(value));
        if value.starts_with(SESSION_ID_PREFIX.as_bytes()) { id() } else { self.classify(value).unwrap_or_else(id) }
    }
}

fn session_id(value: &[u8]) -> Option<SessionId> {
    if value.len() > CREDENTIAL_BYTES {
        return None;
    }
    SessionId::parse(std::str::from_utf8(value).ok()?)
}

/// Every JWT begins with an encoded `{"`; one that is malformed is to be refused rather than passed on.
fn looks_like_jwt(token: &[u8]) -> bool {
    token.starts_with(b"eyJ") || token.iter().filter(|byte| **byte == b'.').count() >= 2
}

/// What stands behind `Bearer` in an `Authorization` line, of whatever kind.
pub fn bearer_token(line: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = line.split_at_checked("bearer".len())?;
    let token = rest.trim_ascii();
    let spaced = rest.first().is_some_and(|byte| *byte == b' ' || *byte == b'\t');
    (scheme.eq_ignore_ascii_case(b"bearer") && spaced).then_some(token)
}

fn take_header(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Ambiguous> {
    let value = headers::only(headers, name).map_err(|_| Ambiguous)?.cloned();
    let twins: Vec<HeaderName> = headers.keys().filter(|other| headers::are_twins(other, name)).cloned().collect();
    twins.iter().for_each(|twin| drop(headers.remove(twin)));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn verifier() -> Verifier {
        Verifier {
            cookie: Some(SessionCookie::new("__Host-session", &config::CookieAttributes::default())),
            bearer: true,
            header: Some(HeaderName::from_static("x-session")),
            ..Verifier::default()
        }
    }

    fn with_tokens() -> Verifier {
        Verifier { jwt: true, opaque: true, ..verifier() }
    }

    fn first(taken: Taken) -> Option<Credential> {
        taken.0.into_iter().flatten().next()
    }

    fn id_of(credential: &Credential) -> Option<&SessionId> {
        let Presented::SessionId(id) = &credential.presented else { panic!("{credential:?}") };
        id.as_ref()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn all_credentials_are_taken_and_the_cookie_decides() {
        let (cookie, bearer, header) =
            (SessionId::random().unwrap(), SessionId::random().unwrap(), SessionId::random().unwrap());
        let mut map = headers(&[
            ("cookie", &format!("a=1; __Host-session={}; b=2", *cookie.reveal())),
            ("authorization", &format!("bearer  {}", *bearer.reveal())),
            ("x-session", &header.reveal()),
        ]);
        let credential = first(verifier().take(&mut map).unwrap()).unwrap();
        assert_eq!(credential.carrier, Carrier::Cookie);
        assert_eq!(id_of(&credential).unwrap().handle(), cookie.handle());
        assert_eq!(map, headers(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn an_authorization_that_is_not_ours_passes() {
        for value in ["Bearer sk-live-123", "Basic YTpi", "Bearer", "Bearercr_x", "Digest cr_x", "Bearer eyJh.b.c"] {
            let mut map = headers(&[("authorization", value)]);
            assert!(first(verifier().take(&mut map).unwrap()).is_none(), "{value}");
            assert_eq!(map.len(), 1, "{value}");
        }
    }

    #[test]
    fn a_malformed_id_is_a_credential_all_the_same() {
        for value in ["Bearer cr_x", "Bearer cr_"] {
            let mut map = headers(&[("authorization", value)]);
            assert!(id_of(&first(verifier().take(&mut map).unwrap()).unwrap()).is_none(), "{value}");
            assert!(map.is_empty());
        }
    }

    #[test]
    fn a_bearer_is_told_by_its_looks() {
        for (token, kind) in [
            ("cr_a.b.c", CredentialKind::SessionId),
            ("eyJhbGciOiJub25lIn0", CredentialKind::Jwt),
            ("a.b.c", CredentialKind::Jwt),
            ("..", CredentialKind::Jwt),
            ("eyJ", CredentialKind::Jwt),
            ("a.b", CredentialKind::Introspection),
            ("sk-live-123", CredentialKind::Introspection),
        ] {
            let mut map = headers(&[("authorization", &format!("Bearer {token}"))]);
            let credential = first(with_tokens().take(&mut map).unwrap()).unwrap();
            assert_eq!((credential.kind(), map.is_empty()), (kind, true), "{token}");
            assert!(!format!("{credential:?}").contains(token));
        }
        for (value, stays) in
            [("Bearer ", 1), ("Bearereyj.a.b", 1), ("Basic eyJ.a", 1), ("DPoP eyJ.a.b", 0), ("eyJ.a.b", 0)]
        {
            let mut map = headers(&[("authorization", value)]);
            assert!(first(with_tokens().take(&mut map).unwrap()).is_none(), "{value}");
            assert_eq!(map.len(), stays, "{value}");
        }
    }

    #[test]
    fn our_own_header_carries_tokens_too() {
        for (value, kind) in [("eyJ.a.b", CredentialKind::Jwt), ("", CredentialKind::SessionId)] {
            let mut map = headers(&[("x-session", value)]);
            let credential = first(with_tokens().take(&mut map).unwrap()).unwrap();
            assert_eq!((credential.kind(), credential.carrier, map.len()), (kind, Carrier::Header, 0));
        }
        let mut map = headers(&[("x-session", "eyJ.a.b")]);
        assert!(id_of(&first(verifier().take(&mut map).unwrap()).unwrap()).is_none());
    }

    #[test]
    fn the_routes_kinds_decide_in_their_order_and_carriers_without_one() {
        use CredentialKind::{Jwt, SessionId};
        let take = || {
            let mut map = headers(&[("authorization", "Bearer eyJ.a.b"), ("x-session", "cr_x")]);
            with_tokens().take(&mut map).unwrap()
        };
        for (kinds, decides) in [
            (None, Some(Jwt)),
            (Some(vec![SessionId, Jwt]), Some(SessionId)),
            (Some(vec![Jwt, SessionId]), Some(Jwt)),
            (Some(vec![CredentialKind::Introspection]), None),
        ] {
            let policy = RoutePolicy::new(kinds.clone(), false);
            let mut taken = take();
            let picked = policy.pick(&taken).and_then(|carrier| taken.take_one(carrier));
            assert_eq!(picked.map(|one| one.kind()), decides, "{kinds:?}");
        }
    }

    #[test]
    fn two_in_one_carrier_are_refused() {
        for lines in [
            [("authorization", "Bearer cr_a"), ("authorization", "Bearer other")],
            [("x-session", "cr_a"), ("x-session", "cr_a")],
            [("cookie", "__Host-session=a"), ("cookie", "__Host-session=b")],
            [("cookie", "__Host-session=a; __Host-session=a"), ("accept", "*/*")],
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in lines {
                map.append(name, value.parse().unwrap());
            }
            assert_eq!(verifier().take(&mut map).err(), Some(Ambiguous), "{lines:?}");
        }
    }
}
