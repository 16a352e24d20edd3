//! A request on its way to a backend, as HTTP/1.1 has it (RFC 9112, sections 3 to 7).

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::Uri;
use http::header::{self, HeaderMap, HeaderName};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use crate::upstream::body::{Onward, Outgoing};
use crate::upstream::fault::Fault;

/// Pieces of a body are gathered up to here before they are written.
const GATHERED: usize = 16 << 10;
/// Pieces up to here are copied behind what goes out before them; larger ones are written from where they are.
const COPIED: usize = 4 << 10;

/// What is to be written of a request.
#[derive(Default)]
pub struct Sending {
    /// The head, and what is gathered of the body.
    out: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// A large piece of the body, which comes after that.
    piece: Bytes,
    /// What is left of the body.
    rest: Option<Rest>,
    /// What was written may still be on its way through TLS.
    unflushed: bool,
}

struct Rest {
    body: Outgoing,
    framing: Framing,
}

enum Framing {
    /// So many bytes are to come.
    Sized(u64),
    Chunked,
}

impl Sending {
    /// Begins a request; nothing of it is written yet.
    pub fn begin(&mut self, onward: Box<Onward>) {
        let Onward { request, lines, .. } = *onward;
        let (head, body) = request.into_parts();
        let sized = body.size_hint().exact().filter(|_| head.headers.contains_key(header::CONTENT_LENGTH));
        let whole = body.is_end_stream();
        (self.written, self.rest, self.unflushed) = (0, None, true);
        self.out.clear();
        self.out.extend_from_slice(head.method.as_str().as_bytes());
        self.out.push(b' ');
        self.put_target(&head.uri);
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
        let has_length = whole || sized.is_some();
        for (name, value) in &head.headers {
            if *name != header::TRANSFER_ENCODING && (has_length || *name != header::CONTENT_LENGTH) {
                self.put_line(name, value.as_bytes());
            }
        }
        // One that was meant for HTTP/2 before has its host in the target.
        if let Some(authority) = head.uri.authority() {
            self.put_line(&header::HOST, authority.as_str().as_bytes());
        }
        self.out.extend_from_slice(lines.as_bytes());
        if !whole {
            if sized.is_none() {
                self.out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            self.rest = Some(Rest { body, framing: sized.map_or(Framing::Chunked, Framing::Sized) });
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Whether all of it has gone out.
    pub fn is_over(&self) -> bool {
        self.rest.is_none() && self.is_written() && !self.unflushed
    }

    fn is_written(&self) -> bool {
        self.written == self.out.len() && self.piece.is_empty()
    }

    /// Writes what there is; ready once the request has gone out whole.
    pub fn poll(&mut self, mut stream: impl AsyncWrite + Unpin, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            self.gather(cx)?;
            if self.is_written() {
                ready!(Pin::new(&mut stream).poll_flush(cx))?;
                self.unflushed = false;
                return if self.rest.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let waiting = self.out.get(self.written..).unwrap_or_default();
            let wrote = if self.piece.is_empty() {
                ready!(Pin::new(&mut stream).poll_write(cx, waiting))?
            } else {
                let both = [IoSlice::new(waiting), IoSlice::new(&self.piece)];
                ready!(Pin::new(&mut stream).poll_write_vectored(cx, &both))?
            };
            self.wrote(wrote)?;
        }
    }

    fn wrote(&mut self, count: usize) -> Result<(), Fault> {
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        self.unflushed = true;
        let of_out = count.min(self.out.len() - self.written);
        self.written += of_out;
        self.piece.advance((count - of_out).min(self.piece.len()));
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
            if self.piece.is_empty() && count > of_out && self.is_chunked() {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    fn is_chunked(&self) -> bool {
        matches!(self.rest, Some(Rest { framing: Framing::Chunked, .. }))
    }

    /// Encodes what has come of the body, up to a bound.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while self.piece.is_empty()
            && self.out.len() - self.written < GATHERED
            && let Some(rest) = &mut self.rest
        {
            match Pin::new(&mut rest.body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(frame)) => {
                    let over = rest.body.is_end_stream();
                    self.put_frame(frame.map_err(Fault::Request)?)?;
                    if over && self.rest.is_some() && self.piece.is_empty() {
                        self.end(None)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn put_frame(&mut self, frame: Frame<Bytes>) -> Result<(), Fault> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        let Some(rest) = self.rest.as_mut().filter(|_| !data.is_empty()) else { return Ok(()) };
        let chunked = match &mut rest.framing {
            Framing::Sized(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Fault::Length)?;
                false
            }
            Framing::Chunked => true,
        };
        if chunked {
            write!(self.out, "{:x}\r\n", data.len())?;
        }
        if data.len() > COPIED {
            self.piece = data;
        } else {
            self.out.extend_from_slice(&data);
            if chunked {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// The body has come to its end.
    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Fault> {
        match self.rest.take().map(|rest| rest.framing) {
            Some(Framing::Sized(1..)) => return Err(Fault::Length),
            Some(Framing::Chunked) => {
                self.out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    self.put_line(name, value.as_bytes());
                }
                self.out.extend_from_slice(b"\r\n");
            }
            Some(Framing::Sized(0)) | None => {}
        }
        Ok(())
    }

    fn put_target(&mut self, uri: &Uri) {
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        if !target.starts_with('/') && target != "*" {
            self.out.push(b'/');
        }
        self.out.extend_from_slice(target.as_bytes());
    }

    fn put_line(&mut self, name: &HeaderName, value: &[u8]) {
        self.out.extend_from_slice(name.as_str().as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    /// Takes all that is written, and holds it until it is flushed for the second time.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        flushes: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 2 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_not_flushed_has_not_gone_out() {
        let mut sending = Sending { out: b"GET / HTTP/1.1\r\n\r\n".to_vec(), unflushed: true, ..Sending::default() };
        let (mut stream, mut cx) = (Holding::default(), Context::from_waker(noop_waker_ref()));
        assert!(sending.poll(&mut stream, &mut cx).is_pending() && !sending.is_over());
        assert_eq!(stream.held, b"GET / HTTP/1.1\r\n\r\n");
        assert!(sending.poll(&mut stream, &mut cx).is_ready() && sending.is_over());
    }
}
