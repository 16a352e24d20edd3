use super::address::{Address, is_host, is_localhost};

/// Whether nobody on the way to an upstream can read along, as on this host and over TLS; none if this is no upstream.
pub(super) fn upstream_is_private(text: &str) -> Option<bool> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty() && !path.ends_with('/')).then_some(true);
    }
    let (scheme, authority) = text.split_once("://")?;
    let authority = Authority::parse(authority)?;
    match scheme {
        "https" => Some(true),
        "http" | "h2c" => Some(authority.is_loopback()),
        _ => None,
    }
}

/// `scheme://host[:port]`, as browsers write an origin.
pub(super) fn is_origin(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let default = (scheme == "http" && rest.ends_with(":80")) || (scheme == "https" && rest.ends_with(":443"));
        let scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(letters);
        let lower = !rest.bytes().any(|b| b.is_ascii_uppercase());
        scheme && lower && !default && Authority::parse(rest).is_some()
    })
}

/// An absolute http or https URL, or a path on this origin.
pub(super) fn is_login_url(text: &str) -> bool {
    let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let path = text.starts_with('/') && !text.starts_with("//");
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|r| r.split(['/', '?']).next()).and_then(Authority::parse);
    visible && (path || authority.is_some())
}

/// An https URL, or an http one on this host, without a user and a fragment: keys and secrets go nowhere else.
pub(in crate::config) fn is_server(text: &str) -> bool {
    let (rest, secure) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return false,
    };
    let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    let authority = rest.split(['/', '?']).next().and_then(Authority::parse);
    visible && authority.is_some_and(|authority| secure || authority.is_loopback())
}

struct Authority<'t> {
    host: &'t str,
}

impl<'t> Authority<'t> {
    /// `host[:port]`: no user, no path.
    fn parse(text: &'t str) -> Option<Self> {
        let (host, port) = match text.rfind(':').filter(|at| !text.get(*at..).unwrap_or_default().contains(']')) {
            Some(colon) => (text.get(..colon)?, text.get(colon + 1..)?),
            None => (text, "1"),
        };
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_is_one = match bracketed {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        let port_is_one = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
        (host_is_one && port_is_one).then_some(Self { host })
    }

    fn is_loopback(&self) -> bool {
        is_localhost(self.host) || Address::parse(&format!("{}:1", self.host)).is_some_and(|a| a.is_loopback())
    }
}
