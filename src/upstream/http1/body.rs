//! The body of a backend's response, as HTTP/1.1 has it (RFC 9112, sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use crate::upstream::RESPONSE_HEAD_BYTES;
use crate::upstream::fault::Fault;

/// The longest line of a chunk's size, with what may stand beside it.
const SIZE_LINE: usize = 4 << 10;
const TRAILERS: usize = 256;

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    Over,
    Sized(u64),
    Chunked(Chunk),
    UntilClosed,
}

/// Where in its chunks a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    Size,
    Data(u64),
    /// After the data, where its line ends.
    End,
    Trailers,
}

impl Coming {
    pub fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    pub fn size_hint(self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            Self::Sized(left) => SizeHint::with_exact(left),
            Self::Chunked(_) | Self::UntilClosed => SizeHint::default(),
        }
    }

    /// Takes the next piece off what has come; none if more has to come first, or if it is over.
    pub fn next(&mut self, come: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Fault> {
        loop {
            let step = match self {
                Self::Over => return Ok(None),
                Self::UntilClosed => return Ok((!come.is_empty()).then(|| Frame::data(come.split().freeze()))),
                Self::Sized(left) => {
                    let data = take(left, come);
                    if *left == 0 {
                        *self = Self::Over;
                    }
                    return Ok(data.map(Frame::data));
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let data = take(left, come);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::End);
                    }
                    return Ok(data.map(Frame::data));
                }
                Self::Chunked(Chunk::Size) => size(come)?.map(|size| match size {
                    0 => Chunk::Trailers,
                    size => Chunk::Data(size),
                }),
                Self::Chunked(Chunk::End) => match come.get(..2) {
                    None if come.first().is_none_or(|byte| *byte == b'\r') => None,
                    Some(b"\r\n") => {
                        come.advance(2);
                        Some(Chunk::Size)
                    }
                    _ => return Err(Fault::Chunk),
                },
                Self::Chunked(Chunk::Trailers) => {
                    let Some(trailers) = trailers(come)? else { return Ok(None) };
                    *self = Self::Over;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            };
            match step {
                Some(next) => *self = Self::Chunked(next),
                None => return Ok(None),
            }
        }
    }
}

/// As much of what is left as has come.
fn take(left: &mut u64, come: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(come.len());
    *left = left.saturating_sub(length as u64);
    (length > 0).then(|| come.split_to(length).freeze())
}

/// The size that the next chunk begins with. What may stand beside it is for nobody, but ends with its line.
fn size(come: &mut BytesMut) -> Result<Option<u64>, Fault> {
    let line = come.get(..come.len().min(SIZE_LINE)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() == SIZE_LINE { Err(Fault::Chunk) } else { Ok(None) };
    };
    let begins_with_it = line.first().is_some_and(u8::is_ascii_hexdigit);
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((length, size))) if begins_with_it && length == end + 1 => {
            come.advance(length);
            Ok(Some(size))
        }
        _ => Err(Fault::Chunk),
    }
}

/// The trailers, if they are there whole.
fn trailers(come: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
    let mut room = [httparse::EMPTY_HEADER; TRAILERS];
    let (length, fields) = match httparse::parse_headers(come, &mut room).map_err(Fault::Head)? {
        httparse::Status::Complete(parsed) => parsed,
        httparse::Status::Partial if come.len() <= RESPONSE_HEAD_BYTES => return Ok(None),
        httparse::Status::Partial => return Err(Fault::HeadTooLarge),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Fault::Field)?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Fault::Field)?);
    }
    come.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of a body that comes in these pieces, and what is left over after its end.
    fn read(mut coming: Coming, pieces: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap, Vec<u8>), Fault> {
        let (mut come, mut data, mut trailers) = (BytesMut::new(), Vec::new(), HeaderMap::new());
        for piece in pieces {
            come.extend_from_slice(piece);
            while let Some(frame) = coming.next(&mut come)? {
                match frame.into_data() {
                    Ok(bytes) => data.extend_from_slice(&bytes),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                }
            }
        }
        assert_eq!(coming, Coming::Over);
        Ok((data, trailers, come.to_vec()))
    }

    proptest! {
        #[test]
        fn chunks_are_read_whole_however_they_come(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            each in 1_usize..30,
            trailer in any::<bool>(),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(if trailer { b"0\r\nX-A: b\r\n\r\nnext" } else { b"0\r\n\r\nnext" });
            let pieces: Vec<_> = wire.chunks(each).collect();
            let (data, trailers, left) = read(Coming::chunked(), &pieces).unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(trailers.get("x-a").is_some(), trailer);
            prop_assert_eq!(left, b"next");
        }

        #[test]
        fn nothing_that_comes_is_read_beyond_its_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut come = BytesMut::from(&*bytes);
            let mut coming = Coming::chunked();
            while let Ok(Some(_)) = coming.next(&mut come) {}
            prop_assert!(bytes.ends_with(&come));
        }
    }

    #[test]
    fn a_sized_body_ends_where_it_says() {
        let (data, _, left) = read(Coming::Sized(3), &[b"a", b"bcd", b"e"]).unwrap();
        assert_eq!((&*data, &*left), (&b"abc"[..], &b"de"[..]));
    }

    #[test]
    fn a_size_is_a_number_and_its_line_has_a_bound() {
        let long = format!("1;{}\r\n", "a".repeat(SIZE_LINE));
        for line in ["\r\n", ";a\r\n", " 1\r\n", "1\n", "1;a\nb\r\n", "g\r\n", "+1\r\n", "11111111111111111\r\n", &long]
        {
            assert!(matches!(Coming::chunked().next(&mut BytesMut::from(line)), Err(Fault::Chunk)), "{line:?}");
        }
        for after in ["\n\n", "a\r\n", "\rx"] {
            let wire = format!("1\r\na{after}");
            assert!(matches!(read(Coming::chunked(), &[wire.as_bytes()]), Err(Fault::Chunk)), "{after:?}");
        }
    }

    #[test]
    fn trailers_have_a_bound() {
        let mut come = BytesMut::from(format!("0\r\nX-A: {}", "a".repeat(RESPONSE_HEAD_BYTES)).as_bytes());
        assert!(matches!(Coming::chunked().next(&mut come), Err(Fault::HeadTooLarge)));
    }
}
