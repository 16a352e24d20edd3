//! Who is at the other end, and who of those before it is believed.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::headers::{Lines, X_FORWARDED_FOR};

/// Whom a connection is from, which all of its requests have in common.
#[derive(Debug)]
pub struct Downstream {
    /// Who connected, or for whom a PROXY header says that they did.
    pub peer: SocketAddr,
    /// Their address as it is written in headers.
    pub from: String,
    /// Whether over TLS.
    pub secure: bool,
    told: OnceLock<Told>,
}

/// What backends are told of a connection, where its requests are for one host.
#[derive(Debug)]
struct Told {
    /// A copy: a header's value holds on to all that was read with it.
    host: Option<Box<[u8]>>,
    lines: Lines,
}

impl Downstream {
    pub fn new(peer: SocketAddr, secure: bool) -> Self {
        Self { peer, from: peer.ip().to_canonical().to_string(), secure, told: OnceLock::new() }
    }

    /// Adds what is told of it for a host. That of its first request is put together once: 1,700 instructions for each
    /// that follows (callgrind).
    pub fn tell(&self, host: Option<&HeaderValue>, lines: &mut Lines, put: impl Fn(&mut Lines)) {
        let host = host.map(HeaderValue::as_bytes);
        let told = self.told.get_or_init(|| {
            let mut lines = Lines::default();
            put(&mut lines);
            Told { host: host.map(Box::from), lines }
        });
        if told.host.as_deref() == host { lines.add_all(&told.lines) } else { put(lines) }
    }
}

/// An entry of the list, with or without a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    text.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    /// Whether its forwarding headers are believed.
    pub trusted: bool,
}

/// Which peers are believed. Nobody by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub fn judge(&self, address: SocketAddr) -> Peer {
        let address = address.ip().to_canonical();
        Peer { address, trusted: self.covers(address) }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the peer's, or behind trusted peers the last one of theirs that is not trusted.
    ///
    /// An entry that is no address ends the search: what stands before it was said by nobody we know.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.address;
        if !peer.trusted {
            return client;
        }
        let lines: Vec<&[u8]> = headers.get_all(&X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
            let Some(address) = address(entry) else { break };
            client = address.to_canonical();
            if !self.covers(client) {
                break;
            }
        }
        client
    }
}

/// What limits per client address count by: an IPv4 address, or the /64 that one IPv6 host commands.
pub fn limit_key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[impl AsRef<[u8]>]) -> IpAddr {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_ref()).unwrap());
        }
        trusted.client(trusted.judge(SocketAddr::new(peer.parse().unwrap(), 1)), &headers)
    }

    #[test]
    fn an_unknown_peer_speaks_for_itself_only() {
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]).to_string(), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_peers_the_last_untrusted_address_counts() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.9", "10.0.0.2"]).to_string(), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"]).to_string(), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""; 0]).to_string(), "10.0.0.1");
    }

    #[test]
    fn what_is_no_text_ends_the_search_and_hides_nothing_behind_it() {
        assert_eq!(client("10.0.0.1", &[&b"8.8.8.8"[..], b"\xff, 203.0.113.9"]).to_string(), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[&b"8.8.8.8, \xff, 203.0.113.9"[..]]).to_string(), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[&b"8.8.8.8, \xff"[..]]).to_string(), "10.0.0.1");
    }

    #[test]
    fn an_address_may_come_with_its_port() {
        for (entry, address) in [("203.0.113.9:5555", "203.0.113.9"), ("[2001:db8::1]:443", "2001:db8::1")] {
            assert_eq!(client("10.0.0.1", &[entry]).to_string(), address);
        }
    }
}
