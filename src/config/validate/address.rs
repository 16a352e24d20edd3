use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where a socket is bound: an IP address or a host's name, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Address {
    /// Reads `127.0.0.1:80`, `[::1]:80` and `localhost:80`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: Host::Ip(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':')?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let host = is_host(host).then(|| Host::Name(host.to_ascii_lowercase()))?;
        digits.then(|| port.parse().ok()).flatten().map(|port| Self { host, port })
    }

    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => is_localhost(name),
        }
    }

    /// Whether the two cannot both be bound. Port 0 is another one each time.
    pub fn clashes(&self, other: &Self) -> bool {
        self.port == other.port
            && self.port != 0
            && (self.host == other.host || self.covers(other) || other.covers(self))
    }

    /// Whether this is every address of the other's family.
    fn covers(&self, other: &Self) -> bool {
        match (&self.host, &other.host) {
            (Host::Ip(ours), Host::Ip(theirs)) => ours.is_unspecified() && ours.is_ipv4() == theirs.is_ipv4(),
            (Host::Ip(ours), Host::Name(name)) => ours.is_unspecified() && is_localhost(name),
            (Host::Name(_), _) => false,
        }
    }
}

/// RFC 6761, section 6.3.
pub(super) fn is_localhost(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// A host's name as DNS has it, or an IPv4 address; without a port.
pub fn is_host(text: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && l.bytes().all(letters);
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && (!numeric || text.parse::<Ipv4Addr>().is_ok())
}
