//! The bytes of a connection, where HTTP's own library tells too little.
//!
//! It drops a fragment from a request's target without a word, and it answers what it cannot parse with a bare
//! status. Both are seen here, on their way in and out, and so is how fast a client sends and takes.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::frames::{Frames, PREFACE};
use super::linger::Linger;
use super::pace::Pace;
use super::socket::take_unread;
use super::stream::Taking;
use super::transport::Transport;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How much of a read is looked at for the end of a request line.
const LINE_BYTES: usize = 8 << 10;
/// No answer of the library's own is longer.
const BARE_ANSWER_BYTES: usize = 256;

/// What the two ends of a connection's work know of each other.
#[derive(Debug)]
pub struct Seen {
    pub pace: Arc<Pace>,
    /// What was read up to a `#` in the line that a read began with.
    before_fragment: Mutex<Option<Vec<u8>>>,
    /// A response was handed over whose head is not written yet.
    head_due: AtomicBool,
    /// A response's body is being passed on.
    body_open: AtomicBool,
    /// Not all of a response has been written: what is written is a part of it, whatever it looks like.
    unwritten: AtomicBool,
    /// The protocol was changed: what is written is nobody's answer.
    changed: AtomicBool,
    /// An orderly close would pass for the end of a body that broke off.
    reset: AtomicBool,
}

impl Seen {
    pub fn new(pace: Arc<Pace>) -> Self {
        Self {
            pace,
            before_fragment: Mutex::default(),
            head_due: AtomicBool::default(),
            body_open: AtomicBool::default(),
            unwritten: AtomicBool::default(),
            changed: AtomicBool::default(),
            reset: AtomicBool::default(),
        }
    }

    /// Whether the request that was just read had a fragment behind this method and target.
    ///
    /// A request line that came in pieces is not looked at whole; its fragment is dropped, and nothing decides on it.
    pub fn had_fragment(&self, method: &http::Method, target: &http::Uri) -> bool {
        let before = self.before_fragment.lock().unwrap_or_else(PoisonError::into_inner).take();
        before.is_some_and(|line| line == format!("{method} {target}").as_bytes())
    }

    fn look_for_fragment(&self, read: &[u8]) {
        let line = read.get(..LINE_BYTES).unwrap_or(read).split(|byte| *byte == b'\n').next().unwrap_or_default();
        let before = line.iter().position(|byte| *byte == b'#').and_then(|at| line.get(..at)).map(<[u8]>::to_vec);
        if before.is_some() {
            *self.before_fragment.lock().unwrap_or_else(PoisonError::into_inner) = before;
        }
    }

    /// Notes that the connection speaks another protocol from here on.
    pub fn changes_protocol(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Notes that a response was handed over, and until when its body is passed on.
    pub fn answering<B>(self: &Arc<Self>, body: B, version: Version) -> Answering<B> {
        self.head_due.store(true, Ordering::Release);
        self.body_open.store(true, Ordering::Release);
        self.unwritten.store(true, Ordering::Release);
        // What was read since the head was read were bytes of a body.
        *self.before_fragment.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ends_with_connection = version <= Version::HTTP_10;
        Answering { body, seen: self.clone(), broken: None, ends_with_connection, taking: Taking::current() }
    }

    /// Notes that the library has nothing more to write: it asks for a flush only then.
    fn wrote_all(&self) {
        if !self.body_open.load(Ordering::Acquire) {
            self.unwritten.store(false, Ordering::Release);
        }
    }

    /// The status of an answer that the library made by itself, because it could not parse a request.
    fn bare_answer(&self, written: &[u8]) -> Option<StatusCode> {
        if self.unwritten.load(Ordering::Acquire) || self.changed.load(Ordering::Acquire) {
            return None;
        }
        let text = std::str::from_utf8(written).ok().filter(|text| text.len() <= BARE_ANSWER_BYTES)?;
        let (status, rest) = text.strip_prefix("HTTP/1.1 ")?.split_at_checked(3)?;
        let bare = rest.ends_with("\r\n\r\n") && rest.contains("\r\ncontent-length: 0\r\n");
        let status = status.parse::<StatusCode>().ok().filter(StatusCode::is_client_error)?;
        bare.then_some(status)
    }
}

/// A response's body, which tells when it is over.
pub struct Answering<B> {
    body: B,
    seen: Arc<Seen>,
    /// Why it broke off, while what came before has not gone out.
    broken: Option<BoxError>,
    /// In HTTP/1.0 it is the connection's end that ends a body.
    ends_with_connection: bool,
    /// Told when a stream's client is given something, and when it has taken it.
    taking: Option<Arc<Taking>>,
}

impl<B> Drop for Answering<B> {
    fn drop(&mut self) {
        self.seen.body_open.store(false, Ordering::Release);
        self.seen.pace.end();
    }
}

impl<B> Answering<B> {
    /// Why the body broke off. An HTTP/1 connection ends with that, so what came before has to go out first, at the end
    /// of this turn.
    fn poll_broken(&mut self, cx: &mut Context<'_>, error: BoxError, is_new: bool) -> Poll<BoxError> {
        if self.taking.is_none() && is_new {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.ends_with_connection {
            self.seen.reset.store(true, Ordering::Release);
        }
        Poll::Ready(error)
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            return self.poll_broken(cx, error, false).map(|error| Some(Err(error)));
        }
        if let Some(taking) = &self.taking {
            taking.taken();
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(taking), Poll::Ready(_)) = (&self.taking, &polled) {
            taking.handed();
        }
        match polled {
            Poll::Ready(Some(Err(error))) => self.poll_broken(cx, error.into(), true).map(|error| Some(Err(error))),
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream, watched.
pub struct Wire<S: AsFd, R> {
    stream: S,
    /// What was read, and is still to be read by whoever speaks HTTP.
    unread: Bytes,
    seen: Arc<Seen>,
    /// Words for a status that the library would answer bare: a whole response.
    reword: R,
    /// What has to be written before anything else.
    reworded: Bytes,
    protocol: Protocol,
    /// Of an HTTP/2 connection, at once.
    streams: u32,
    linger: Linger,
}

/// What is spoken.
enum Protocol {
    Http1,
    Http2(Box<Frames>),
}

impl<S: AsFd, R> Drop for Wire<S, R> {
    fn drop(&mut self) {
        if self.seen.reset.load(Ordering::Acquire) {
            // Closing without lingering resets; what fails here leaves an orderly close.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<S: AsyncWrite + AsFd + Unpin, R: Fn(StatusCode) -> Bytes + Unpin> Wire<S, R> {
    /// Of HTTP/1, until [`Wire::is_http2`] has found it to be another.
    pub fn new(stream: S, seen: Arc<Seen>, streams: u32, reword: R) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            seen,
            reword,
            reworded: Bytes::new(),
            protocol: Protocol::Http1,
            streams,
            linger: Linger::default(),
        }
    }

    fn poll_paced<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.seen.pace.wrote(&polled);
        polled
    }

    fn poll_reworded(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.reworded.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.reworded);
            let written = ready!(self.poll_paced(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.reworded.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsFd + Unpin, R> Wire<S, R> {
    /// Waits for as much as it takes to tell whether the client speaks HTTP/2, which it begins with.
    pub async fn is_http2(&mut self) -> io::Result<bool> {
        let mut read = BytesMut::new();
        let begins = |read: &[u8]| PREFACE.iter().zip(read).all(|(expected, byte)| expected == byte);
        while read.len() < PREFACE.len() && begins(&read) && self.stream.read_buf(&mut read).await? > 0 {}
        let is_http2 = read.len() >= PREFACE.len() && begins(&read);
        self.unread = read.freeze();
        if is_http2 {
            self.protocol = Protocol::Http2(Box::new(Frames::new(self.streams)));
        }
        Ok(is_http2)
    }

    /// Has bytes read again that whoever spoke HTTP had read ahead.
    pub fn rewind(&mut self, ahead: &[u8]) {
        // Copied: even an empty part of a buffer keeps all of it.
        self.unread = Bytes::from([ahead, &self.unread].concat());
    }
}

impl<S: AsyncRead + AsFd + Unpin, R: Unpin> AsyncRead for Wire<S, R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.unread.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        } else {
            take_unread(&mut self.unread, buffer);
        }
        self.look(buffer.filled().get(before..).unwrap_or_default())?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsFd, R> Wire<S, R> {
    fn is_http1(&self) -> bool {
        matches!(self.protocol, Protocol::Http1)
    }

    fn look(&mut self, read: &[u8]) -> io::Result<()> {
        match &mut self.protocol {
            Protocol::Http1 => {
                if !read.is_empty() {
                    self.seen.pace.read();
                }
                self.seen.look_for_fragment(read);
            }
            Protocol::Http2(frames) => {
                frames.read(read).map_err(io::Error::other)?;
                self.seen.pace.read_frames(frames.is_within_head());
            }
        }
        Ok(())
    }
}

impl<R> Wire<Transport, R> {
    /// What begins a response may wait for others; an event of a stream may not. HTTP/2 gathers by itself, and flushes after
    /// every frame.
    fn let_wait(&mut self) {
        let begins = self.seen.head_due.swap(false, Ordering::AcqRel) && self.is_http1();
        self.stream.waits(begins);
    }

    /// Resolves when there is something to read, or nothing more ever; until then nothing is held to read it into.
    pub async fn readable(&self) {
        if self.unread.is_empty() {
            self.stream.readable().await;
        }
    }
}

impl<R: Fn(StatusCode) -> Bytes + Unpin> AsyncWrite for Wire<Transport, R> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_reworded(cx))?;
        self.let_wait();
        match self.seen.bare_answer(bytes).filter(|_| self.is_http1()) {
            Some(status) => {
                self.reworded = (self.reword)(status);
                Poll::Ready(Ok(bytes.len()))
            }
            None => {
                let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
                self.poll_paced(written)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            // A bare answer has no body, and so is one slice.
            [only] => self.poll_write(cx, only),
            slices => {
                ready!(self.poll_reworded(cx))?;
                self.let_wait();
                let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
                self.poll_paced(written)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reworded(cx))?;
        self.seen.wrote_all();
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.poll_paced(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_reworded(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        // A client of HTTP/2 goes on sending, if only to say what it has taken.
        if matches!(self.protocol, Protocol::Http2(_)) {
            let wire = &mut *self;
            ready!(wire.linger.poll(&mut wire.stream, cx));
        }
        Poll::Ready(Ok(()))
    }
}
