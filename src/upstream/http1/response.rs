//! The head of a backend's response, as HTTP/1.1 has it (RFC 9112, sections 4 to 6).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version, response};
use httparse::ParserConfig;
use hyper::ext::ReasonPhrase;

use crate::headers;
use crate::upstream::RESPONSE_HEAD_BYTES;
use crate::upstream::fault::Fault;

use super::body::Coming;

/// The most headers that one may have.
const HEADERS: usize = 256;

/// A head, and what follows it.
pub struct Head {
    pub parts: response::Parts,
    pub body: Coming,
    /// Whether the connection outlives the response.
    pub keep: bool,
}

/// Takes a head off what has come, if it is there whole. `looked_at` is how much of it was looked through in vain before.
pub fn take(come: &mut BytesMut, looked_at: &mut usize, to_head: bool) -> Result<Option<Head>, Fault> {
    let length = end(come, *looked_at);
    if length.unwrap_or(come.len()) > RESPONSE_HEAD_BYTES {
        return Err(Fault::HeadTooLarge);
    }
    let Some(length) = length else {
        *looked_at = come.len();
        return Ok(None);
    };
    *looked_at = 0;
    parse(&come.split_to(length).freeze(), to_head).map(Some)
}

/// Where a head ends: after its first empty line.
fn end(come: &[u8], looked_at: usize) -> Option<usize> {
    // The end may have begun in what was looked at.
    let from = looked_at.saturating_sub(2);
    memchr::memchr_iter(b'\n', come.get(from..)?).find_map(|at| match come.get(from + at + 1..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

fn parse(head: &Bytes, to_head: bool) -> Result<Head, Fault> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut room);
    let (httparse::Status::Complete(_), Some(version), Some(code)) =
        (status.map_err(Fault::Head)?, parsed.version, parsed.code)
    else {
        return Err(Fault::Field);
    };
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(code).map_err(|_| Fault::Field)?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = parsed.reason
        && !reason.is_empty()
        && parts.status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(head.slice_ref(reason.as_bytes()))
    {
        parts.extensions.insert(reason);
    }
    parts.headers.reserve(parsed.headers.len());
    let mut framing = Framing::default();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Fault::Field)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Fault::Field)?;
        framing.note(&name, &value)?;
        parts.headers.append(name, value);
    }
    let (body, keep) = framing.judge(&mut parts, to_head)?;
    Ok(Head { parts, body, keep })
}

/// What a head says of the body that follows it.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    /// The length stands in more than one way, or not as a number alone.
    loose: bool,
    codings: usize,
    chunked: bool,
    connection: bool,
}

impl Framing {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Fault> {
        if *name == header::CONTENT_LENGTH {
            for length in value.as_bytes().split(|byte| *byte == b',') {
                let length = number(length.trim_ascii()).ok_or(Fault::Length)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(Fault::Length);
                }
            }
            self.loose = true;
        } else if *name == header::TRANSFER_ENCODING {
            self.codings += 1;
            self.chunked = value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if *name == header::CONNECTION {
            self.connection = true;
        }
        Ok(())
    }

    /// What is to come, and whether another response may follow it (RFC 9112, sections 6.3 and 9.3).
    fn judge(&self, parts: &mut response::Parts, to_head: bool) -> Result<(Coming, bool), Fault> {
        let says = |token: &str| {
            self.connection
                && headers::tokens(&parts.headers, &header::CONNECTION).any(|said| said.eq_ignore_ascii_case(token))
        };
        let old = parts.version == Version::HTTP_10;
        let keep = if old { says("keep-alive") } else { !says("close") };
        if to_head || parts.status.is_informational() || matches!(parts.status.as_u16(), 204 | 304) {
            return Ok((Coming::Over, keep));
        }
        if self.codings > 0 {
            if old || self.codings > 1 || !self.chunked {
                return Err(Fault::Coding);
            }
            // Both at once is how responses are smuggled: the length is not passed on, and nothing is read after this one.
            let both = parts.headers.remove(header::CONTENT_LENGTH).is_some();
            return Ok((Coming::chunked(), keep && !both));
        }
        Ok(match self.length {
            Some(0) => (Coming::Over, keep),
            Some(length) => (Coming::Sized(length), keep),
            None => (Coming::UntilClosed, false),
        })
    }
}

/// Digits and nothing else, as no sign or space may stand in a length.
fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}
