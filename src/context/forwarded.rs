//! What is told of those before us, in the headers that proxies use for it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::headers::{self, Lines, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::listener::Arrival;
use crate::peer::{Downstream, Peer};

#[derive(Debug)]
pub struct Forwarded {
    downstream: Arc<Downstream>,
    host: Option<HeaderValue>,
    /// Whether the client is known to speak TLS, to us or to a trusted peer.
    pub is_https: bool,
    /// What a trusted peer says, which stands in the head, and is to be in it.
    said: Option<Said>,
}

/// What a trusted peer says, beside lists.
#[derive(Debug)]
struct Said {
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl Forwarded {
    pub fn new(head: &Parts, peer: Peer, arrival: &Arrival) -> Self {
        let headers = &head.headers;
        let said = |name: &HeaderName| headers::only(headers, name).ok().flatten().cloned();
        let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = host.or_else(|| headers.get(header::HOST).cloned());
        let said = peer.trusted.then(|| Said { proto: said(&X_FORWARDED_PROTO), host: said(&X_FORWARDED_HOST) });
        let proto = said.as_ref().and_then(|said| said.proto.as_ref());
        let is_https = proto.map_or(arrival.downstream.secure, |proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        Self { downstream: arrival.downstream.clone(), host, is_https, said }
    }

    /// Adds what is told; what the headers say of it themselves is taken out.
    pub fn put(&self, headers: &mut HeaderMap, lines: &mut Lines) {
        let Some(said) = &self.said else {
            let nothing = Said { proto: None, host: None };
            return self.downstream.tell(self.host.as_ref(), lines, |lines| self.tell(&nothing, [b"", b""], lines));
        };
        let [for_, elements] = [X_FORWARDED_FOR, header::FORWARDED].map(|name| list(headers, &name));
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
            headers.remove(name);
        }
        self.tell(said, [&for_, &elements], lines);
    }

    /// Adds what is told beside what trusted peers have said, and their lists before it.
    fn tell(&self, said: &Said, [for_, elements]: [&[u8]; 2], lines: &mut Lines) {
        let (from, scheme) = (&*self.downstream.from, if self.downstream.secure { "https" } else { "http" });
        lines.add_parts(&X_FORWARDED_FOR, [for_, from.as_bytes()]);
        lines.add(&X_FORWARDED_PROTO, said.proto.as_ref().map_or(scheme.as_bytes(), HeaderValue::as_bytes));
        if let Some(host) = said.host.as_ref().or(self.host.as_ref()) {
            lines.add(&X_FORWARDED_HOST, host);
        }
        // One element more (RFC 7239).
        let (open, close) = if from.contains(':') { ("for=\"[", "]\"") } else { ("for=", "") };
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
        let [before, host, after] = host.map_or(["", "", ""], |host| [";host=\"", host, "\""]);
        let [open, from, close, before, host, after, proto, scheme] =
            [open, from, close, before, host, after, ";proto=", scheme].map(str::as_bytes);
        lines.add_parts(&header::FORWARDED, [elements, open, from, close, before, host, after, proto, scheme]);
    }
}

/// The members of a list, ready for one more.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    headers.get_all(name).iter().flat_map(|line| [line.as_bytes(), b", "]).flatten().copied().collect()
}
