//! The cookie that carries a session id.

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

    /// Cuts the session's cookie out of the request; the others stay byte for byte.
    pub fn take(&self, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Stray> {
        if !headers.get_all(COOKIE).iter().any(|line| self.pairs(line).any(|(_, value)| value.is_some())) {
            return Ok(None);
        }
        let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        let mut found = Vec::new();
        for line in &lines {
            let mut kept = Vec::new();
            for (pair, value) in self.pairs(line) {
                match value {
                    Some(value) => found.push(value.to_vec()),
                    None => kept.push(pair),
                }
            }
            let kept = kept.join(&b';');
            if let Ok(rest) = HeaderValue::from_bytes(kept.trim_ascii_start())
                && !rest.is_empty()
            {
                headers.append(COOKIE, rest);
            }
        }
        match found.as_slice() {
            // A value that no header can hold cannot have come in one.
            [value] => Ok(HeaderValue::from_bytes(value).ok()),
            _ => Err(Stray),
        }
    }

    /// The pairs of a line as they stand, and the value of those that have the session's name.
    fn pairs<'a>(&'a self, line: &'a HeaderValue) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        line.as_bytes().split(|byte| *byte == b';').map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let value = (name == self.name.as_bytes()).then(|| parts.next().unwrap_or_default().trim_ascii());
            (pair, value)
        })
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

    /// Whether a backend's `Set-Cookie` would set this very cookie.
    pub fn is_set_by(&self, line: &HeaderValue) -> bool {
        let name = line.as_bytes().split(|byte| *byte == b'=' || *byte == b';').next().unwrap_or_default();
        name.trim_ascii() == self.name.as_bytes()
    }
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
        for (line, expected) in
            [("__Host-session=x; Path=/", true), (" __Host-session =x", true), ("other=__Host-session=x", false)]
        {
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
            let taken = cookie.take(&mut headers).unwrap().unwrap();
            proptest::prop_assert_eq!(taken.to_str().unwrap(), value);
            proptest::prop_assert_eq!(headers[COOKIE].to_str().unwrap(), format!("{before}; {after}"));
        }
    }
}
