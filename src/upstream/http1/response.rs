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
    /// Another head follows it, for the same request.
    pub is_interim: bool,
    /// What follows is another protocol's.
    pub changes_protocol: bool,
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
    let changes_protocol = code == 101;
    let is_interim = (100..200).contains(&code) && !changes_protocol;
    Ok(Head { parts, is_interim, changes_protocol, body, keep })
}

/// What a head says of the body that follows it.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    /// How often it stands there.
    lengths: usize,
    coded: bool,
    closes: bool,
    keeps: bool,
}

impl Framing {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Fault> {
        if *name == header::CONTENT_LENGTH {
            for length in value.as_bytes().split(|byte| *byte == b',') {
                let length = number(length.trim_ascii()).ok_or(Fault::Length)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(Fault::Length);
                }
                self.lengths += 1;
            }
        } else if *name == header::TRANSFER_ENCODING {
            self.coded = true;
        } else if *name == header::CONNECTION {
            for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// What is to come, and whether another response may follow it (RFC 9112, sections 6.3 and 9.3).
    fn judge(&self, parts: &mut response::Parts, to_head: bool) -> Result<(Coming, bool), Fault> {
        let old = parts.version == Version::HTTP_10;
        let keep = !self.closes && (!old || self.keeps);
        if to_head || parts.status.is_informational() || matches!(parts.status.as_u16(), 204 | 304) {
            return Ok((Coming::Over, keep));
        }
        if self.coded {
            if old || headers::has_foreign_coding(&parts.headers) {
                return Err(Fault::Coding);
            }
            // Both at once is how responses are smuggled: the length is not passed on, and nothing is read after this one.
            let both = parts.headers.remove(header::CONTENT_LENGTH).is_some();
            return Ok((Coming::chunked(), keep && !both));
        }
        Ok(match self.length {
            Some(0) => (Coming::Over, keep),
            Some(length) => {
                if self.lengths > 1 {
                    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
                (Coming::Sized(length), keep)
            }
            None => (Coming::UntilClosed, false),
        })
    }
}

/// Digits and nothing else, as no sign or space may stand in a length.
fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that comes in pieces of so many bytes, with what is left over.
    fn by(each: usize, wire: &str, to_head: bool) -> Result<(Head, Vec<u8>), Fault> {
        let (mut come, mut looked_at) = (BytesMut::new(), 0);
        for (at, piece) in wire.as_bytes().chunks(each).enumerate() {
            come.extend_from_slice(piece);
            if let Some(head) = take(&mut come, &mut looked_at, to_head)? {
                let rest = wire.as_bytes().get((at + 1) * each..).unwrap_or_default();
                return Ok((head, [&come, rest].concat()));
            }
        }
        panic!("no head in {wire:?}");
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line_however_it_comes() {
        for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
            let wire = format!("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 4{end}\r\n\r\n");
            for each in 1..=wire.len() {
                let (head, left) = by(each, &wire, false).unwrap();
                assert_eq!((head.parts.headers.len(), &*left), (2, &b"\r\n\r\n"[..]), "{each} {end:?}");
            }
        }
    }

    #[test]
    fn what_follows_is_judged_by_the_head() {
        let sized = |length| (Coming::Sized(length), true);
        for (lines, expected) in [
            ("Content-Length: 2", sized(2)),
            ("Content-Length: 2, 2\r\nContent-Length: 2", sized(2)),
            ("Content-Length: 0", (Coming::Over, true)),
            ("Content-Length: 2\r\nConnection: x, Close", (Coming::Sized(2), false)),
            ("Transfer-Encoding: Chunked", (Coming::chunked(), true)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 2", (Coming::chunked(), false)),
            ("X-A: b", (Coming::UntilClosed, false)),
        ] {
            let (head, _) = by(1000, &format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"), false).unwrap();
            assert_eq!((head.body, head.keep), expected, "{lines}");
            let lengths = head.parts.headers.get_all(header::CONTENT_LENGTH).iter().count();
            let framed = lengths + usize::from(head.parts.headers.contains_key(header::TRANSFER_ENCODING));
            assert!(framed <= 1, "{lines}");
        }
        for (version, lines, keep) in [(0, "", false), (0, "Connection: keep-alive\r\n", true), (1, "", true)] {
            let wire = format!("HTTP/1.{version} 200 OK\r\nContent-Length: 2\r\n{lines}\r\n");
            assert_eq!(by(1000, &wire, false).unwrap().0.keep, keep, "{wire:?}");
        }
    }

    #[test]
    fn nothing_follows_where_nothing_may() {
        for (status, to_head) in [(200, true), (204, false), (304, false), (101, false)] {
            let wire = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 4\r\n\r\n");
            assert_eq!(by(1000, &wire, to_head).unwrap().0.body, Coming::Over, "{wire:?}");
        }
    }

    #[test]
    fn a_coding_that_nobody_would_undo_is_refused() {
        for (version, coding) in [(1, "gzip, chunked"), (1, "gzip"), (1, "chunked, chunked"), (0, "chunked")] {
            let wire = format!("HTTP/1.{version} 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n");
            assert!(matches!(by(1000, &wire, false), Err(Fault::Coding)), "{wire:?}");
        }
        let twice = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(by(1000, twice, false), Err(Fault::Coding)));
    }

    #[test]
    fn words_of_the_backends_own_are_kept_and_the_usual_ones_are_not() {
        for (line, expected) in
            [("200 OK", None), ("200 Fine", Some(&b"Fine"[..])), ("299 Odd", Some(b"Odd")), ("200 ", None)]
        {
            let (head, _) = by(1000, &format!("HTTP/1.1 {line}\r\n\r\n"), false).unwrap();
            assert_eq!(head.parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes), expected, "{line}");
        }
    }

    #[test]
    fn a_head_has_a_bound() {
        let mut come =
            BytesMut::from(format!("HTTP/1.1 200 OK\r\nX-A: {}", "a".repeat(RESPONSE_HEAD_BYTES)).as_bytes());
        assert!(matches!(take(&mut come, &mut 0, false), Err(Fault::HeadTooLarge)));
    }
}
