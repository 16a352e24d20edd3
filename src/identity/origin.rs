//! Whether a browser's request comes from where it may.

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::headers::{self, SEC_FETCH_SITE};

/// The origins, beside a request's own, that browsers may come from.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<String>);

/// The request comes from an origin that may not use the client's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request comes from a foreign origin")]
pub struct ForeignOrigin;

impl Origins {
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| origin.to_ascii_lowercase()).collect())
    }

    /// Refuses an unsafe method or an upgrade that a page of a foreign origin has sent.
    ///
    /// Without `Origin` it goes by `Sec-Fetch-Site`; with neither (services, curl) the request passes. Where the client
    /// is known to speak TLS, a page that came without is foreign: anybody on its way may have written it.
    pub fn check(&self, head: &Parts, upgrades: bool, https: bool) -> Result<(), ForeignOrigin> {
        let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(&head.method);
        if safe && !upgrades {
            return Ok(());
        }
        let allowed = match headers::only(&head.headers, &ORIGIN) {
            Ok(Some(origin)) => origin.to_str().is_ok_and(|origin| self.allows(origin, head, https)),
            Ok(None) => !is_cross_site(&head.headers),
            Err(_) => false,
        };
        if allowed { Ok(()) } else { Err(ForeignOrigin) }
    }

    fn allows(&self, origin: &str, head: &Parts, https: bool) -> bool {
        let origin = origin.to_ascii_lowercase();
        let own = head.uri.authority().map(|authority| authority.as_str());
        let own = own.or_else(|| head.headers.get(HOST)?.to_str().ok());
        let same = own.is_some_and(|own| is_origin_of(&origin, &own.to_ascii_lowercase(), https));
        same || self.0.contains(&origin)
    }
}

/// Whether an origin is one that this host serves. Unless TLS is known of it may end before us, so either scheme
/// counts, each with its own default port.
fn is_origin_of(origin: &str, host: &str, https: bool) -> bool {
    let (name, default) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(name), _) => (name, ":443"),
        (None, Some(name)) if !https => (name, ":80"),
        (None, _) => return false,
    };
    name.strip_suffix(default).unwrap_or(name) == host.strip_suffix(default).unwrap_or(host)
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get_all(&SEC_FETCH_SITE).iter().any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, lines: &[(&str, &str)]) -> bool {
        check_over(false, method, lines)
    }

    fn check_over(https: bool, method: &str, lines: &[(&str, &str)]) -> bool {
        let mut request = http::Request::builder().method(method).uri("/").header(HOST, "app.example");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        Origins::new(&["https://Other.example".into()]).check(&head, false, https).is_ok()
    }

    #[test]
    fn unsafe_methods_need_an_origin_that_may() {
        assert!(check("POST", &[("origin", "https://app.example")]));
        assert!(check("POST", &[("origin", "http://app.example:80")]));
        assert!(check("POST", &[("origin", "https://other.example")]));
        assert!(!check("POST", &[("origin", "https://evil.example")]));
        assert!(!check("POST", &[("origin", "null")]));
        assert!(!check("POST", &[("origin", "https://app.example:8443")]));
        assert!(!check("DELETE", &[("origin", "https://app.example.evil.example")]));
    }

    #[test]
    fn a_page_that_came_without_tls_is_foreign_to_one_that_came_with() {
        assert!(check_over(true, "POST", &[("origin", "https://app.example:443")]));
        assert!(check_over(true, "POST", &[("origin", "https://other.example")]));
        assert!(!check_over(true, "POST", &[("origin", "http://app.example")]));
    }

    #[test]
    fn without_origin_the_fetch_site_counts() {
        assert!(!check("POST", &[("sec-fetch-site", "cross-site")]));
        assert!(check("POST", &[("sec-fetch-site", "same-origin")]));
        assert!(check("POST", &[]));
    }

    #[test]
    fn safe_methods_pass() {
        assert!(check("GET", &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")]));
    }
}
