//! Whose session a request means: the credentials in it, taken out on every route.

mod cookie;
mod failures;
mod origin;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::config;
use crate::handle::{SESSION_ID_PREFIX, SessionId};
use crate::headers;

pub use cookie::{SessionCookie, Stray};
pub use failures::Failures;
pub use origin::{ForeignOrigin, Origins};

/// No credential is longer than this.
const CREDENTIAL_BYTES: usize = 16 << 10;

/// Finds credentials.
#[derive(Debug)]
pub struct Verifier {
    cookie: Option<SessionCookie>,
    bearer: bool,
    header: Option<HeaderName>,
}

/// How a credential came, and so how a new one travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Cookie,
    Bearer,
    Header,
}

/// The credential that decides.
#[derive(Debug)]
pub struct Credential {
    pub carrier: Carrier,
    /// None: it is no session id, whatever it looks like.
    pub id: Option<SessionId>,
}

/// Two credentials stand in one carrier, and there is no telling which is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two credentials in one carrier")]
pub struct Ambiguous;

impl Verifier {
    pub fn new(carriers: &config::SessionIdCarriers, cookie: Option<SessionCookie>) -> Self {
        let header = carriers.header.as_ref().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        Self { cookie, bearer: carriers.bearer, header }
    }

    /// Takes every credential of ours out of a request, and gives the first: cookie, then bearer, then header.
    pub fn take(&self, headers: &mut HeaderMap) -> Result<Option<Credential>, Ambiguous> {
        let cookie = match &self.cookie {
            Some(cookie) => cookie.take(headers).map_err(|_| Ambiguous)?,
            None => None,
        };
        let bearer = if self.bearer { take_bearer(headers)? } else { None };
        let header = match &self.header {
            Some(name) => take_header(headers, name)?,
            None => None,
        };
        let found = cookie
            .map(|value| (Carrier::Cookie, value))
            .or(bearer.map(|value| (Carrier::Bearer, value)))
            .or(header.map(|value| (Carrier::Header, value)));
        Ok(found.map(|(carrier, value)| Credential { carrier, id: read(&value) }))
    }

    /// The cookie that carries session ids, where one does.
    pub fn cookie(&self) -> Option<&SessionCookie> {
        self.cookie.as_ref()
    }
}

fn read(value: &HeaderValue) -> Option<SessionId> {
    if value.len() > CREDENTIAL_BYTES {
        return None;
    }
    SessionId::parse(value.to_str().ok()?)
}

/// A session id out of `Authorization`; anything else there is not ours, and passes.
fn take_bearer(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Ambiguous> {
    let Some(line) = headers::only(headers, &AUTHORIZATION).map_err(|_| Ambiguous)? else { return Ok(None) };
    let Some(token) = bearer_token(line.as_bytes()).filter(|token| token.starts_with(SESSION_ID_PREFIX.as_bytes()))
    else {
        return Ok(None);
    };
    let value = HeaderValue::from_bytes(token).ok();
    headers.remove(AUTHORIZATION);
    Ok(value)
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

    fn verifier() -> Verifier {
        let carriers = config::SessionIdCarriers { header: Some("X-Session".into()), ..Default::default() };
        let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
        Verifier::new(&carriers, Some(cookie))
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
        let credential = verifier().take(&mut map).unwrap().unwrap();
        assert_eq!(credential.carrier, Carrier::Cookie);
        assert_eq!(credential.id.unwrap().handle(), cookie.handle());
        assert_eq!(map, headers(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn an_authorization_that_is_not_ours_passes() {
        for value in ["Bearer sk-live-123", "Basic YTpi", "Bearer", "Bearercr_x", "Digest cr_x"] {
            let mut map = headers(&[("authorization", value)]);
            assert!(verifier().take(&mut map).unwrap().is_none(), "{value}");
            assert_eq!(map.len(), 1, "{value}");
        }
    }

    #[test]
    fn a_malformed_id_is_a_credential_all_the_same() {
        for value in ["Bearer cr_x", "Bearer cr_"] {
            let mut map = headers(&[("authorization", value)]);
            assert!(verifier().take(&mut map).unwrap().unwrap().id.is_none(), "{value}");
            assert!(map.is_empty());
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
