//! Where an answer in RESP3 ends, and what stands in one that is a list of texts.
//!
//! <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>

use std::io;

/// No answer is longer: what claims to be is not the server that it should be.
const LONGEST: usize = 256 << 20;
/// Members of one list, and of all lists that one answer has.
const MEMBERS: usize = 1 << 24;

/// What is no RESP3.
fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came is not RESP3")
}

/// How many bytes the first answer has; none while it is not whole.
pub(super) fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let (mut at, mut left) = (0usize, 1usize);
    while left > 0 {
        let Some(line) = Line::at(bytes, at)? else { return Ok(None) };
        at = line.end;
        left -= 1;
        match line.kind {
            b'$' | b'=' | b'!' => {
                if let Some(size) = line.size()? {
                    at += size + 2;
                }
            }
            b'*' | b'~' | b'>' => left += line.size()?.unwrap_or(0),
            b'%' => left += 2 * line.size()?.unwrap_or(0),
            // What is said of the answer, before it.
            b'|' => left += 2 * line.size()?.unwrap_or(0) + 1,
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            _ => return Err(malformed()),
        }
        if at > LONGEST || left > MEMBERS {
            return Err(malformed());
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// The texts of an answer that is a list of them, or a map: names and values in turn. None if it is neither.
pub(super) fn texts(answer: &[u8]) -> Option<Vec<&str>> {
    let line = Line::at(answer, 0).ok()??;
    let size = line.size().ok()??;
    let count = match line.kind {
        b'%' => size * 2,
        b'*' => size,
        _ => return None,
    };
    // All at once: each text by itself takes ten times as much.
    let whole = std::str::from_utf8(answer).ok()?;
    let mut at = line.end;
    let mut text = || {
        let line = Line::at(answer, at).ok()??;
        let (begin, end) = match line.kind {
            b'$' => (line.end, line.end + line.size().ok()??),
            b'+' | b':' => (at + 1, line.end - 2),
            _ => return None,
        };
        at = if line.kind == b'$' { end + 2 } else { line.end };
        whole.get(begin..end)
    };
    let mut texts = Vec::with_capacity(count.min(answer.len()));
    for _ in 0..count {
        texts.push(text()?);
    }
    Some(texts)
}

/// A kind, and what follows it up to the end of the line.
struct Line<'a> {
    kind: u8,
    rest: &'a [u8],
    /// The number that it gives, where it is short and nothing else.
    number: Option<usize>,
    end: usize,
}

impl<'a> Line<'a> {
    /// The line that begins there; none while it is not whole.
    fn at(bytes: &'a [u8], at: usize) -> io::Result<Option<Self>> {
        let Some((kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
        // Nearly all are a length: shorter than what a search by many bytes at once pays for.
        let digits = rest.iter().take(8).take_while(|byte| byte.is_ascii_digit());
        let (count, size) =
            digits.fold((0, 0), |(count, size), byte| (count + 1, 10 * size + usize::from(byte - b'0')));
        let is_number = count > 0 && rest.get(count) == Some(&b'\r');
        let (number, end) = match is_number {
            true => (Some(size), count),
            false => match memchr::memchr(b'\r', rest) {
                Some(end) => (None, end),
                None => return Ok(None),
            },
        };
        match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                let rest = rest.get(..end).unwrap_or_default();
                Ok(Some(Self { kind: *kind, rest, number, end: at + end + 3 }))
            }
            Some(_) => Err(malformed()),
        }
    }

    /// The number that it gives; none of what is null.
    fn size(&self) -> io::Result<Option<usize>> {
        if self.number.is_some() {
            return Ok(self.number);
        }
        if self.rest == b"-1" {
            return Ok(None);
        }
        let digit = |size: usize, byte: &u8| match byte {
            b'0'..=b'9' => size.checked_mul(10)?.checked_add(usize::from(byte - b'0')).filter(|size| *size <= LONGEST),
            _ => None,
        };
        let size = self.rest.iter().try_fold(0, digit).filter(|_| !self.rest.is_empty());
        size.map(Some).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [&str; 16] = [
        "+OK\r\n",
        "-ERR no\r\n",
        ":-7\r\n",
        "_\r\n",
        ",1.5\r\n",
        "#t\r\n",
        "(12345678901234567890\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$5\r\na\r\nbc\r\n",
        "=6\r\ntxt:ab\r\n",
        "*-1\r\n",
        "*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n:2\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*1\r\n+a\r\n",
        ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    ];

    #[test]
    fn an_answer_ends_where_it_is_whole() {
        for whole in WHOLE {
            for end in 0..whole.len() {
                assert_eq!(length(&whole.as_bytes()[..end]).unwrap(), None, "{whole:?} up to {end}");
            }
            let more = format!("{whole}+more\r\n");
            assert_eq!(length(more.as_bytes()).unwrap(), Some(whole.len()), "{whole:?}");
            // The crate reads the same bytes as one value.
            assert!(redis::parse_redis_value(whole.as_bytes()).is_ok(), "{whole:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "*99999999999\r\n", "$\r\n", "+a\rb\n", "%16777217\r\n"] {
            assert!(length(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn texts_are_those_of_a_list_or_a_map() {
        for (answer, expected) in [
            ("%1\r\n$1\r\na\r\n$3\r\n\r\nx\r\n", Some(vec!["a", "\r\nx"])),
            ("*3\r\n$4\r\ndone\r\n:7\r\n+b\r\n", Some(vec!["done", "7", "b"])),
            ("%0\r\n", Some(vec![])),
            ("%1\r\n$1\r\na\r\n$-1\r\n", None),
            ("*1\r\n*1\r\n:1\r\n", None),
            ("_\r\n", None),
            ("+OK\r\n", None),
            ("%1\r\n$1\r\na\r\n$9\r\nb\r\n", None),
        ] {
            assert_eq!(texts(answer.as_bytes()), expected, "{answer:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), head in 0..WHOLE.len()) {
            for bytes in [bytes.clone(), [WHOLE[head].as_bytes(), &bytes].concat()] {
                if let Ok(Some(length)) = length(&bytes) {
                    proptest::prop_assert!(length <= bytes.len());
                }
                let _ = texts(&bytes);
            }
        }
    }
}
