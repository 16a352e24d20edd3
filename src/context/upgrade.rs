//! Which change of protocol may be asked for.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use crate::headers;

/// The protocol that a client asks to change to, if that is passed on.
pub fn asked(head: &Parts) -> Option<HeaderValue> {
    let asked = headers::tokens(&head.headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers::only(&head.headers, &header::UPGRADE).ok().flatten()?;
    let may_be = is_one_protocol(protocol.as_bytes()) && !carries_requests(protocol.as_bytes());
    (asked && may_be && head.version == Version::HTTP_11 && head.method == Method::GET).then(|| protocol.clone())
}

/// Whether a value of `Upgrade` names one protocol, in its plain spelling: of a list, or of a name with bytes around it
/// that some take for spaces, a backend may choose what was not looked at.
fn is_one_protocol(value: &[u8]) -> bool {
    let is_token = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let mut parts = value.split(|byte| *byte == b'/');
    parts.by_ref().take(2).all(is_token) && parts.next().is_none()
}

/// Whether other requests could be sent within a protocol, past every check: HTTP itself, of which a client of HTTP/1.1 has
/// no need, and TLS, which it may be spoken in.
fn carries_requests(protocol: &[u8]) -> bool {
    ["h2", "http", "tls"]
        .iter()
        .any(|name| protocol.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes())))
}
