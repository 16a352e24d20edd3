//! The cookie that carries a session id.

use bytes::Bytes;
use cookie::{Cookie, SameSite};
use http::header::{COOKIE, HeaderMap, HeaderValue};

use crate::config;

/// The session cookie: its name and attributes.
#[derive(Debug, Clone)]
pub struct SessionCookie {
    name: String,
    secure: bool,
    same_site: SameSite,
    domain: Option<String>,
}

/// More than one cookie has the session's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray;

impl SessionCookie {
    /// Without `secure` the name is used without `__Host-`, which browsers take over TLS only.
    pub fn new(name: &str, attributes: &config::CookieAttributes) -> Self {
        let bare = if attributes.secure { name } else { name.strip_prefix("__Host-").unwrap_or(name) };
        Self {
            name: bare.to_owned(),
            secure: attributes.secure,
            same_site: match attributes.same_site {
                config::SameSite::Lax => SameSite::Lax,
                config::SameSite::Strict => SameSite::Strict,
                config::SameSite::None => SameSite::None,
            },
            domain: attributes.domain.clone(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Cuts the session's cookie out of the request, and has its value read; the others stay byte for byte.
    pub fn take<T>(&self, headers: &mut HeaderMap, mut read: impl FnMut(&[u8]) -> T) -> Result<Option<T>, Stray> {
        let mut lines = headers.get_all(COOKIE).iter();
        let (Some(first), None) = (lines.next(), lines.next()) else { return self.take_of_many(headers, read) };
        let mut found = None;
        for pair in pairs(first.as_bytes()) {
            if let Some(value) = self.value(pair)
                && found.replace(read(value)).is_some()
            {
                return Err(Stray);
            }
        }
        if found.is_some() {
            let rest = self.without(first.as_bytes());
            match HeaderValue::from_maybe_shared(Bytes::from(rest)) {
                Ok(rest) if !rest.is_empty() => headers.insert(COOKIE, rest),
                _ => headers.remove(COOKIE),
            };
        }
        Ok(found)
    }

    fn take_of_many<T>(&self, headers: &mut HeaderMap, mut read: impl FnMut(&[u8]) -> T) -> Result<Option<T>, Stray> {
        let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        let values = || lines.iter().flat_map(|line| pairs(line.as_bytes())).filter_map(|pair| self.value(pair));
        let mut found = values();
        let (Some(value), more) = (found.next(), found.next()) else { return Ok(None) };
        headers.remove(COOKIE);
        for line in &lines {
            match HeaderValue::from_bytes(&self.without(line.as_bytes())) {
                Ok(rest) if !rest.is_empty() => drop(headers.append(COOKIE, rest)),
                _ => {}
            }
        }
        if more.is_some() { Err(Stray) } else { Ok(Some(read(value))) }
    }

    /// The value of a pair that has the session's name.
    fn value<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        let pair = pair.trim_ascii_start();
        let rest = pair.strip_prefix(self.name.as_bytes())?.trim_ascii_start();
        match rest.split_first() {
            None => Some(rest),
            Some((b'=', value)) => Some(value.trim_ascii()),
            Some(_) => None,
        }
    }

    /// A line's other pairs, as they stand.
    fn without(&self, line: &[u8]) -> Vec<u8> {
        let mut rest = Vec::with_capacity(line.len());
        for (at, pair) in pairs(line).filter(|pair| self.value(pair).is_none()).enumerate() {
            if at > 0 {
                rest.push(b';');
            }
            rest.extend_from_slice(pair);
        }
        rest.drain(..rest.len() - rest.trim_ascii_start().len());
        rest
    }

    /// Gives the client a new id. Without `Max-Age`, so that it ends with the browser's own session.
    pub fn set(&self, id: &str) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.build(id).to_string()).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        })
    }

    /// Has the client forget its id.
    pub fn clear(&self) -> Option<HeaderValue> {
        let mut cookie = self.build("");
        cookie.set_max_age(cookie::time::Duration::ZERO);
        HeaderValue::from_str(&cookie.to_string()).ok()
    }

    fn build<'c>(&'c self, value: &'c str) -> Cookie<'c> {
        let mut cookie = Cookie::build((self.name.as_str(), value)).path("/").http_only(true).same_site(self.same_site);
        if self.secure {
            cookie = cookie.secure(true);
        }
        if let Some(domain) = &self.domain {
            cookie = cookie.domain(domain.as_str());
        }
        cookie.build()
    }

    /// Whether a backend's `Set-Cookie` would set this very cookie, or one without a name: browsers send that one's
    /// bare value, which may read as this one.
    pub fn is_set_by(&self, line: &HeaderValue) -> bool {
        let name = line.as_bytes().split(|byte| *byte == b'=' || *byte == b';').next().unwrap_or_default().trim_ascii();
        name.is_empty() || name == self.name.as_bytes()
    }
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let (pair, after) = match memchr::memchr(b';', line) {
            Some(at) => (line.get(..at)?, line.get(at + 1..)),
            None => (line, None),
        };
        rest = after;
        Some(pair)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_the_safe_ones() {
        let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
        let parts = |value: &HeaderValue| {
            let mut parts: Vec<_> = value.to_str().unwrap().split("; ").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(
            parts(&cookie.set("cr_x").unwrap()),
            ["HttpOnly", "Path=/", "SameSite=Lax", "Secure", "__Host-session=cr_x"]
        );
        assert!(parts(&cookie.clear().unwrap()).contains(&"Max-Age=0".to_owned()));
    }

    #[test]
    fn without_tls_the_name_has_no_host_prefix() {
        let attributes = config::CookieAttributes { secure: false, ..Default::default() };
        let cookie = SessionCookie::new("__Host-session", &attributes);
        assert_eq!(cookie.name(), "session");
        assert!(!cookie.set("x").unwrap().to_str().unwrap().contains("Secure"));
    }

    #[test]
    fn a_backend_cannot_set_the_session_cookie() {
        let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
        for (line, expected) in [
            ("__Host-session=x; Path=/", true),
            (" __Host-session =x", true),
            ("=__Host-session=x; Path=/", true),
            ("other=__Host-session=x", false),
        ] {
            assert_eq!(cookie.is_set_by(&line.parse().unwrap()), expected, "{line}");
        }
    }

    proptest::proptest! {
        /// Whatever stands beside the session's cookie stays byte for byte, and the session's is gone.
        #[test]
        fn other_cookies_stay(before in "[a-z]{1,4}=[!-:<-~]{0,6}", after in "[a-z]{1,4}=[!-:<-~]{0,6}", value in "[!-:<-~]{0,9}") {
            let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, format!("{before}; __Host-session={value}; {after}").parse().unwrap());
            let taken = cookie.take(&mut headers, <[u8]>::to_vec).unwrap().unwrap();
            proptest::prop_assert_eq!(taken, value.as_bytes());
            proptest::prop_assert_eq!(headers[COOKIE].to_str().unwrap(), format!("{before}; {after}"));
        }
    }
}
