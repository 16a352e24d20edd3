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
    pub fn take<T>(&self, headers: &mut HeaderMap, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Stray> {
        let mut lines = headers.get_all(COOKIE).iter();
        let (Some(only), None) = (lines.next(), lines.next()) else { return self.take_of_many(headers, read) };
        let Some(own) = self.own(only.as_bytes())? else { return Ok(None) };
        let (taken, rest) = (read(own.value), own.rest());
        match rest {
            Some(rest) => headers.insert(COOKIE, rest),
            None => headers.remove(COOKIE),
        };
        Ok(Some(taken))
    }

    fn take_of_many<T>(&self, headers: &mut HeaderMap, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Stray> {
        let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        let mut found = None;
        for line in &lines {
            let own = self.own(line.as_bytes())?;
            let left = own.as_ref().map_or_else(|| Some(line.clone()), Own::rest);
            if let Some(left) = left {
                headers.append(COOKIE, left);
            }
            if let Some(own) = own
                && found.replace(own.value).is_some()
            {
                return Err(Stray);
            }
        }
        Ok(found.map(read))
    }

    /// The session's cookie in a line.
    fn own<'a>(&self, line: &'a [u8]) -> Result<Option<Own<'a>>, Stray> {
        let mut found = None;
        for (at, pair) in pairs(line) {
            let Some(value) = self.value(pair) else { continue };
            let before = line.get(..at).unwrap_or_default();
            if found.replace(Own { before, value, after: line.get(at + pair.len() + 1..) }).is_some() {
                return Err(Stray);
            }
        }
        Ok(found)
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

/// The session's cookie, and what stands beside it in its line.
struct Own<'a> {
    /// With the semicolon between them.
    before: &'a [u8],
    value: &'a [u8],
    /// What stands behind its own semicolon, if it has one.
    after: Option<&'a [u8]>,
}

impl Own<'_> {
    /// The line without it; none if nothing is left.
    fn rest(&self) -> Option<HeaderValue> {
        let before = self.before.trim_ascii_start();
        let rest = match self.after {
            None => before.strip_suffix(b";").unwrap_or(before).to_vec(),
            Some(after) if before.is_empty() => after.trim_ascii_start().to_vec(),
            Some(after) => [before, after].concat(),
        };
        HeaderValue::from_maybe_shared(Bytes::from(rest)).ok().filter(|rest| !rest.is_empty())
    }
}

/// The pairs of a line, each with its place.
fn pairs(line: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let at = next?;
        let rest = line.get(at..)?;
        let pair = memchr::memchr(b';', rest).and_then(|end| rest.get(..end));
        next = pair.map(|pair| at + pair.len() + 1);
        Some((at, pair.unwrap_or(rest)))
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
        /// Whatever stands beside the session's cookie stays byte for byte, wherever that is, and the session's is gone.
        #[test]
        fn other_cookies_stay(
            others in proptest::collection::vec("[a-z]{1,4}=[!-:<-~]{0,6}", 0..4),
            value in "[!-:<-~]{0,9}",
            at in 0_usize..4,
            two_lines in proptest::bool::ANY,
        ) {
            let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
            let own = format!("__Host-session={value}");
            let mut all = others.clone();
            all.insert(at.min(others.len()), own);
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, all.join("; ").parse().unwrap());
            if two_lines {
                headers.append(COOKIE, "z=1;".parse().unwrap());
            }
            let taken = cookie.take(&mut headers, <[u8]>::to_vec).unwrap().unwrap();
            proptest::prop_assert_eq!(taken, value.as_bytes());
            let left: Vec<_> = headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
            let mut expected: Vec<_> = Some(others.join("; ")).filter(|line| !line.is_empty()).into_iter().collect();
            expected.extend(two_lines.then(|| "z=1;".to_owned()));
            proptest::prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn two_of_them_are_too_many() {
        let cookie = SessionCookie::new("__Host-session", &config::CookieAttributes::default());
        for lines in [&["__Host-session=a; __Host-session=a"][..], &["__Host-session=a", "b=1; __Host-session=a"]] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, line.parse().unwrap());
            }
            assert_eq!(cookie.take(&mut headers, <[u8]>::to_vec), Err(Stray), "{lines:?}");
        }
    }
}
