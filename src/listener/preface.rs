//! The PROXY header, versions 1 and 2: who connected to the one that connected to us.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};

use super::socket::Socket;

const SIGNATURE_1: &[u8] = b"PROXY ";
/// The longest line of version 1, its end included.
const LINE_BYTES: usize = 107;
/// What comes before the addresses in version 2.
const FIXED_BYTES: usize = 16;
/// The longest header of version 2 that is taken: its addresses, and more extensions than load balancers send.
const HEADER_BYTES: usize = 4 << 10;

/// Why the beginning of a connection is no PROXY header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPreface {
    #[error("it does not begin with a PROXY header")]
    Absent,
    #[error("its PROXY header is over its bound")]
    TooLong,
    #[error("its PROXY header is malformed: {0}")]
    Malformed(String),
    #[error("it broke off: {0}")]
    Broken(String),
}

impl From<io::Error> for BadPreface {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Takes the header off a connection. None: its sender speaks for itself (`LOCAL`, `UNKNOWN`), as health checks do.
///
/// It is required: a client that may leave it out could as well write one of its own.
pub async fn read(socket: &mut Socket) -> Result<Option<SocketAddr>, BadPreface> {
    loop {
        match parse(socket.unread())? {
            Parsed::Whole { length, client } => {
                socket.skip(length);
                return Ok(client);
            }
            Parsed::Part => socket.look().await?,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Whole { length: usize, client: Option<SocketAddr> },
    Part,
}

fn parse(bytes: &[u8]) -> Result<Parsed, BadPreface> {
    let may_be = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, expected)| byte == expected);
    if may_be(v2::PROTOCOL_PREFIX) {
        parse_2(bytes)
    } else if may_be(SIGNATURE_1) {
        parse_1(bytes)
    } else {
        Err(BadPreface::Absent)
    }
}

fn parse_1(bytes: &[u8]) -> Result<Parsed, BadPreface> {
    let line = bytes.get(..LINE_BYTES).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES { Ok(Parsed::Part) } else { Err(BadPreface::TooLong) };
    };
    let length = end + 2;
    let header = v1::Header::try_from(line.get(..length).unwrap_or_default());
    let client = match header.map_err(|error| BadPreface::Malformed(error.to_string()))?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(pair) => Some((pair.source_address, pair.source_port).into()),
        v1::Addresses::Tcp6(pair) => Some((pair.source_address, pair.source_port).into()),
    };
    Ok(Parsed::Whole { length, client })
}

fn parse_2(bytes: &[u8]) -> Result<Parsed, BadPreface> {
    let Some([high, low]) = bytes.get(FIXED_BYTES - 2..FIXED_BYTES) else { return Ok(Parsed::Part) };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > HEADER_BYTES {
        return Err(BadPreface::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Part) };
    let header = v2::Header::try_from(header).map_err(|error| BadPreface::Malformed(error.to_string()))?;
    if header.command == v2::Command::Local {
        return Ok(Parsed::Whole { length, client: None });
    }
    if header.protocol == v2::Protocol::Datagram {
        return Err(BadPreface::Malformed("it is of a datagram".into()));
    }
    let client = match header.addresses {
        v2::Addresses::IPv4(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::IPv6(pair) => Some((pair.source_address, pair.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Ok(Parsed::Whole { length, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend((addresses.len() as u16).to_be_bytes());
        bytes.extend(addresses);
        bytes
    }

    fn client(bytes: &[u8]) -> Option<String> {
        match parse(bytes) {
            Ok(Parsed::Whole { client, length }) => {
                assert_eq!(length, bytes.len());
                client.map(|client| client.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_source_is_the_client() {
        assert_eq!(client(b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n").as_deref(), Some("203.0.113.9:4711"));
        assert_eq!(client(b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n").as_deref(), Some("[2001:db8::9]:4711"));
        let four = version_2(1, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        assert_eq!(client(&four).as_deref(), Some("203.0.113.9:4711"));
        let mut six = [0; 36];
        (six[0], six[15], six[33]) = (0x20, 9, 7);
        assert_eq!(client(&version_2(1, 0x21, &six)).as_deref(), Some("[2000::9]:7"));
        // Extensions after the addresses are passed over.
        let more = version_2(1, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187, 4, 0, 2, 1, 2]);
        assert_eq!(client(&more).as_deref(), Some("203.0.113.9:4711"));
    }

    #[test]
    fn who_speaks_for_itself_is_its_own_client() {
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        assert_eq!(client(&version_2(0, 0, &[])), None);
        assert_eq!(client(&version_2(0, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187])), None);
        assert_eq!(client(&version_2(1, 0, &[])), None);
        assert_eq!(client(&version_2(1, 0x31, &[0; 216])), None);
    }

    #[test]
    fn what_follows_is_left() {
        let bytes = b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse(bytes), Ok(Parsed::Whole { length: 15, client: None }));
    }

    #[test]
    fn a_part_waits_for_the_rest() {
        let whole = version_2(1, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        let lines = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n";
        for bytes in [&whole[..], &lines[..]] {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(Parsed::Part), "{end}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        let mut large = version_2(1, 0x11, &[0; 12]);
        large[14..16].copy_from_slice(&[0xff, 0xff]);
        let refused: [&[u8]; 12] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 99999 443\r\n",
            b"PROXY TCP4 2001:db8::9 ::1 4711 443\r\n",
            b"PROXY TCP5 203.0.113.9 10.0.0.1 4711 443\r\n",
            b"PROXY\ttcp4 203.0.113.9 10.0.0.1 4711 443\r\n",
            long.as_bytes(),
            &large,
            &version_2(1, 0x12, &[0; 12]),
            &version_2(1, 0x11, &[0; 4]),
        ];
        for bytes in refused {
            assert!(parse(bytes).is_err(), "{:?}: {:?}", String::from_utf8_lossy(bytes), parse(bytes));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), version in 0..3) {
            let mut all = match version { 0 => v2::PROTOCOL_PREFIX.to_vec(), 1 => SIGNATURE_1.to_vec(), _ => Vec::new() };
            all.extend(bytes);
            if let Ok(Parsed::Whole { length, .. }) = parse(&all) {
                proptest::prop_assert!(length <= all.len());
            }
        }
    }
}
