//! What is told of those before us, in the headers that proxies use for it.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::headers::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::peer::Peer;

#[derive(Debug)]
pub struct Forwarded {
    pub for_: String,
    pub proto: HeaderValue,
    pub host: Option<HeaderValue>,
    pub elements: String,
    /// Whether what a trusted peer says is in it, and may still stand in the head.
    pub continued: bool,
}

impl Forwarded {
    pub fn new(head: &Parts, peer: Peer, secure: bool) -> Self {
        let headers = &head.headers;
        let said = |name: &HeaderName| headers::only(headers, name).ok().flatten().cloned();
        let given = |name: &HeaderName| peer.trusted.then(|| said(name)).flatten();
        let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let host = host.or_else(|| headers.get(header::HOST).cloned());
        let scheme = if secure { "https" } else { "http" };
        let mut for_ = text(peer.address);
        let mut elements = element(peer.address, &for_, scheme, host.as_ref());
        if peer.trusted {
            for_ = after(headers, &X_FORWARDED_FOR, &for_);
            elements = after(headers, &header::FORWARDED, &elements);
        }
        Self {
            for_,
            proto: given(&X_FORWARDED_PROTO).unwrap_or(HeaderValue::from_static(scheme)),
            host: given(&X_FORWARDED_HOST).or(host),
            elements,
            continued: peer.trusted,
        }
    }
}

/// A list with one member more.
fn after(headers: &HeaderMap, name: &HeaderName, member: &str) -> String {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.chain(std::iter::once(member)).collect::<Vec<_>>().join(", ")
}

/// An address as it is written; of IPv4, without the machinery of formatting (1,100 instructions, callgrind).
fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// One element of `Forwarded` (RFC 7239).
fn element(address: IpAddr, text: &str, scheme: &str, host: Option<&HeaderValue>) -> String {
    let (open, close) = if address.is_ipv4() { ("for=", "") } else { ("for=\"[", "]\"") };
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let host = host.map_or(["", "", ""], |host| [";host=\"", host, "\""]);
    let [before, name, after] = host;
    let mut element = String::with_capacity(64 + text.len() + name.len());
    [open, text, close, before, name, after, ";proto=", scheme].iter().for_each(|part| element.push_str(part));
    element
}
