//! What is told of those before us, in the headers that proxies use for it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::headers::{self, Lines, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::listener::Arrival;
use crate::peer::Peer;

#[derive(Debug)]
pub struct Forwarded {
    /// The peer's address, as it is written.
    from: Arc<str>,
    scheme: &'static str,
    host: Option<HeaderValue>,
    pub proto: HeaderValue,
    first_host: Option<HeaderValue>,
    /// Whether what a trusted peer says is to be in it, and stands in the head.
    continued: bool,
}

impl Forwarded {
    pub fn new(head: &Parts, peer: Peer, arrival: &Arrival) -> Self {
        let headers = &head.headers;
        let said = |name: &HeaderName| headers::only(headers, name).ok().flatten().cloned();
        let given = |name: &HeaderName| peer.trusted.then(|| said(name)).flatten();
        let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = host.or_else(|| headers.get(header::HOST).cloned());
        let scheme = if arrival.secure { "https" } else { "http" };
        Self {
            from: arrival.from.clone(),
            scheme,
            proto: given(&X_FORWARDED_PROTO).unwrap_or(HeaderValue::from_static(scheme)),
            first_host: given(&X_FORWARDED_HOST).or_else(|| host.clone()),
            host,
            continued: peer.trusted,
        }
    }

    /// Adds what is told; what the headers say of it themselves is taken out.
    pub fn put(&self, headers: &mut HeaderMap, lines: &mut Lines) {
        let said = |name| if self.continued { list(headers, name) } else { String::new() };
        let (for_, elements) = (said(&X_FORWARDED_FOR), said(&header::FORWARDED));
        if self.continued {
            for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
                headers.remove(name);
            }
        }
        lines.add_parts(&X_FORWARDED_FOR, [&for_, &*self.from].map(str::as_bytes));
        lines.add(&X_FORWARDED_PROTO, &self.proto);
        if let Some(host) = &self.first_host {
            lines.add(&X_FORWARDED_HOST, host);
        }
        // One element more (RFC 7239).
        let (open, close) = if self.from.contains(':') { ("for=\"[", "]\"") } else { ("for=", "") };
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
        let [before, host, after] = host.map_or(["", "", ""], |host| [";host=\"", host, "\""]);
        let element = [&*elements, open, &*self.from, close, before, host, after, ";proto=", self.scheme];
        lines.add_parts(&header::FORWARDED, element.map(str::as_bytes));
    }
}

/// The members of a list, ready for one more.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let mut list = String::new();
    for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
        list.extend([line, ", "]);
    }
    list
}
