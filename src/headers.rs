//! Every header name that cloakroom owns or treats specially.

mod lines;

use http::header::{self, HeaderMap, HeaderName};

pub use lines::Lines;

/// The names between cloakroom and the backend, all under one prefix.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
    pub session: HeaderName,
    pub etag: HeaderName,
    pub schema: HeaderName,
    pub context: HeaderName,
    pub set: HeaderName,
    pub unset: HeaderName,
    pub if_match: HeaderName,
    pub start: HeaderName,
    pub rotate: HeaderName,
    pub end: HeaderName,
    pub session_id: HeaderName,
    pub action: HeaderName,
}

impl Names {
    /// Takes a prefix such as `cloakroom-`; none if it cannot begin a header name.
    pub fn new(prefix: &str) -> Option<Self> {
        let name = |rest: &str| HeaderName::from_bytes(format!("{prefix}{rest}").as_bytes()).ok();
        Some(Self {
            prefix: fold(prefix),
            session: name("session")?,
            etag: name("etag")?,
            schema: name("schema")?,
            context: name("context")?,
            set: name("set")?,
            unset: name("unset")?,
            if_match: name("if-match")?,
            start: name("start")?,
            rotate: name("rotate")?,
            end: name("end")?,
            session_id: name("session-id")?,
            action: name("action")?,
        })
    }
}

/// The names that only cloakroom may say: the prefix, and each single-field header of any route.
#[derive(Debug, Clone)]
pub struct Reserved {
    prefix: String,
    /// Folded.
    names: Vec<String>,
}

impl Reserved {
    pub fn new<'a>(names: &Names, single_field: impl Iterator<Item = &'a str>) -> Self {
        let mut folded: Vec<String> = single_field.map(fold).collect();
        folded.sort_unstable();
        folded.dedup();
        Self { prefix: names.prefix.clone(), names: folded }
    }

    /// Whether a name is reserved in any spelling that a backend may take for it.
    ///
    /// Backends fold `_` and worse into `-`, so every character other than a letter or digit counts as one.
    pub fn covers(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        begins(name, &self.prefix) || self.names.iter().any(|own| own.len() == name.len() && begins(name, own))
    }

    /// Whether a name stands under the prefix.
    pub fn is_ours(&self, name: &HeaderName) -> bool {
        begins(name.as_str(), &self.prefix)
    }
}

fn fold_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

fn fold(name: &str) -> String {
    name.bytes().map(|byte| char::from(fold_byte(byte))).collect()
}

fn begins(name: &str, folded: &str) -> bool {
    name.len() >= folded.len() && name.bytes().zip(folded.bytes()).all(|(byte, own)| fold_byte(byte) == own)
}

/// Whether backends may take one name for the other.
pub fn are_twins(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str(), other.as_str());
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(one, other)| fold_byte(one) == fold_byte(other))
}

/// Whether a name tells of what stood before us, to be believed from trusted peers only.
pub fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is = |own: &&str| name.len() == own.len() && begins(name, own);
    match name.as_bytes().first() {
        Some(b'x') => {
            ["x-forwarded-", "x-original-", "x-rewrite-", "x-envoy-"].iter().any(|own| begins(name, own))
                || ["x-real-ip", "x-client-ip", "x-cluster-client-ip"].iter().any(is)
        }
        Some(b'f') => is(&"forwarded"),
        Some(b't') => is(&"true-client-ip"),
        _ => false,
    }
}

/// Which headers stand in a head of those that want a closer look: found in one pass over the names, since each search
/// for one that is not there takes 140 instructions (callgrind).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survey {
    pub connection: bool,
    /// Any other that ends at the next hop.
    pub other_hop_by_hop: bool,
    pub te: bool,
    pub transfer_encoding: bool,
    pub upgrade: bool,
    pub expect: bool,
    pub trailer: bool,
    pub set_cookie: bool,
    pub trace: bool,
    pub request_id: bool,
    /// One for which `is_void` holds.
    pub void: bool,
}

impl Survey {
    pub fn of(headers: &HeaderMap, is_void: impl Fn(&HeaderName) -> bool) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            found.connection |= *name == header::CONNECTION;
            found.te |= *name == header::TE;
            found.transfer_encoding |= *name == header::TRANSFER_ENCODING;
            found.upgrade |= *name == header::UPGRADE;
            found.expect |= *name == header::EXPECT;
            found.trailer |= *name == header::TRAILER;
            found.set_cookie |= *name == header::SET_COOKIE;
            found.trace |= *name == TRACEPARENT || *name == TRACESTATE;
            found.request_id |= *name == X_REQUEST_ID;
            found.other_hop_by_hop |= *name == KEEP_ALIVE
                || *name == PROXY_CONNECTION
                || *name == PROXY_AUTHORIZATION
                || *name == HTTP2_SETTINGS;
            found.void |= is_void(name);
        }
        found.other_hop_by_hop |= found.te || found.transfer_encoding || found.upgrade;
        found
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHORIZATION: HeaderName = header::PROXY_AUTHORIZATION;
/// Part of an upgrade to HTTP/2, which is never passed on.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that end at the next hop (RFC 9110, section 7.6.1), whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHORIZATION,
    HTTP2_SETTINGS,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that mean nothing where a message has ended, in any spelling, and are not passed on there.
pub fn is_void_in_trailers(name: &HeaderName) -> bool {
    const VOID: [HeaderName; 10] = [
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::HOST,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TRAILER,
    ];
    VOID.iter().chain(&HOP_BY_HOP).any(|void| are_twins(void, name))
}

/// Whether a name is not that of a field which frames or routes a message, but may be taken for one by a backend that
/// folds `_` and worse.
pub fn is_framing_twin(name: &HeaderName) -> bool {
    const FRAMING: [HeaderName; 4] =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST, header::CONNECTION];
    // One that nothing is folded in is a twin of itself only.
    let folds = || name.as_str().bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-');
    matches!(name.as_str().len(), 4 | 10 | 14 | 17) && folds() && FRAMING.iter().any(|framing| are_twins(framing, name))
}

/// Whether a body has another transfer coding than `chunked` once: it would arrive in one that nobody undoes (RFC 9112,
/// section 6.1).
pub fn has_foreign_coding(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// Removes the hop-by-hop fields and those that `Connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, found: Survey) {
    if found.connection {
        let lone = only(headers, &header::CONNECTION).ok().flatten();
        // What most messages say names nothing that could stand there beside it.
        let plain = lone.is_some_and(|line| [&b"keep-alive"[..], b"close"].contains(&line.as_bytes()));
        if !plain {
            remove_named_by_connection(headers);
        }
        headers.remove(header::CONNECTION);
    }
    if found.other_hop_by_hop {
        HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        // A peer may not have what a message needs removed from it.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    named.iter().for_each(|name| drop(headers.remove(name)));
}

/// Makes one line of the several that a client of HTTP/2 may send its cookies in (RFC 9113, section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes).collect();
    if let Ok(joined) = http::HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The bytes of headers as HTTP/1.1 has them, each with its end.
pub fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + ": ".len() + value.len() + "\r\n".len()).sum()
}

/// The members of a list of tokens, over all lines of that name.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// The value of a header that may stand once: none if it is absent, an error if it stands more than once.
pub fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a http::HeaderValue>, Repeated> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    if lines.next().is_some() { Err(Repeated) } else { Ok(first) }
}

/// The trace that a well-formed `traceparent` names.
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or_default()
}

/// A header stands more than once where it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved() -> Reserved {
        Reserved::new(&Names::new("cloakroom-").unwrap(), ["X-User-Id"].into_iter())
    }

    #[test]
    fn every_spelling_of_a_reserved_name_is_covered() {
        for name in [
            "cloakroom-context",
            "CLOAKROOM_Context",
            "cloakroom.anything",
            "cloakroom~session",
            "x-user-id",
            "X_USER_ID",
            "x.user-id",
        ] {
            assert!(reserved().covers(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
    }

    #[test]
    fn other_names_pass() {
        for name in ["cloakrooms", "cloakroom", "x-user-id2", "x-user", "session_id", "x-session-id"] {
            assert!(!reserved().covers(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
    }

    #[test]
    fn connection_cannot_name_what_the_message_needs() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "Host, X-Gone, content-length, close".parse().unwrap());
        headers.insert(header::HOST, "a".parse().unwrap());
        headers.insert("x-gone", "1".parse().unwrap());
        headers.insert("keep-alive", "1".parse().unwrap());
        let found = Survey::of(&headers, |_| false);
        remove_hop_by_hop(&mut headers, found);
        assert_eq!(headers.keys().collect::<Vec<_>>(), [header::HOST]);
    }

    #[test]
    fn forwarding_names_are_known_in_every_spelling() {
        for (name, expected) in [
            ("x-forwarded-for", true),
            ("x_forwarded_uri", true),
            ("forwarded", true),
            ("x-envoy-original-path", true),
            ("x-original-url", true),
            ("x-rewrite-url", true),
            ("forwarded-x", false),
            ("x-forward", false),
        ] {
            assert_eq!(is_forwarding(&HeaderName::from_static(name)), expected, "{name}");
        }
    }
}
