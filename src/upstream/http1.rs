//! HTTP/1.1 to a backend, spoken by the task of the exchange that has the connection.

mod body;
mod request;
mod response;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, response::Parts};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, ReadHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

use super::AFTERWARDS;
use super::body::Onward;
use super::fault::Fault;
use super::origin::Backend;
use body::Coming;
use request::Sending;

/// What is read at once at first, and at most once more has come than that.
const READ_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=64 << 10;
/// With less room than this, more is made before anything is read.
const ROOM: usize = 1 << 10;
/// So many interim responses may come before the response itself: whoever sends them without end is not waited for.
const INTERIM: usize = 256;

/// One connection to a backend, for one request after another.
///
/// hyper's client drives a connection on a task of its own, and hands requests and responses to it and back: 6,100
/// instructions more for a request (callgrind).
pub struct Connection {
    stream: Stream,
    sending: Sending,
    /// Nothing of the request has gone out yet: what comes is no response to it.
    unsent: bool,
    /// Why no more of the request could be written; the response may be there all the same.
    unwritten: Option<Fault>,
    /// What has come and was not taken yet.
    come: BytesMut,
    /// How much of it holds no end of a head.
    looked_at: usize,
    /// How much is read at once.
    step: usize,
    to_head: bool,
    /// Interim responses that have come.
    interim: usize,
    body: Coming,
    keep: bool,
}

enum Stream {
    Whole(Box<dyn Backend>),
    /// The response came while the request was still going out.
    Parted(ReadHalf<Box<dyn Backend>>, Upload),
    None,
}

/// The rest of a request on its way, on a task of its own: it must not wait for whoever takes the response. It ends with
/// the client's body that it carries, or some time after the response.
struct Upload {
    task: Option<JoinHandle<Result<(), Fault>>>,
    _answering: oneshot::Sender<()>,
}

impl Drop for Connection {
    /// A request whose response is not over was given up, and its client is to notice.
    fn drop(&mut self) {
        if let Stream::Parted(_, Upload { task: Some(task), .. }) = &self.stream
            && !self.is_over()
        {
            task.abort();
        }
    }
}

impl Connection {
    pub fn new(stream: Box<dyn Backend>) -> Self {
        Self {
            stream: Stream::Whole(stream),
            sending: Sending::default(),
            unsent: false,
            unwritten: None,
            come: BytesMut::new(),
            looked_at: 0,
            step: *READ_BYTES.start(),
            to_head: false,
            interim: 0,
            body: Coming::Over,
            keep: true,
        }
    }

    /// Whether it may take a request: it is open, and nothing came unasked.
    pub fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let Stream::Whole(stream) = &mut self.stream else { return false };
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        // Not within the task's budget: once that is spent, every connection would look quiet.
        let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer));
        pin!(unconstrained(read)).poll(cx).is_pending()
    }

    /// Begins a request, of which nothing is written yet.
    pub fn begin(&mut self, onward: Box<Onward>) {
        self.to_head = onward.request.method() == Method::HEAD;
        self.sending.begin(onward);
        self.unsent = true;
        self.interim = 0;
    }

    /// Sends the request, until the head of its response has come.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parts, Fault>> {
        if let Stream::Whole(stream) = &mut self.stream
            && self.unwritten.is_none()
            && !self.sending.is_over()
        {
            match self.sending.poll(stream, cx) {
                Poll::Ready(Err(fault @ Fault::Io(_))) => self.unwritten = Some(fault),
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if let Stream::Whole(stream) = &self.stream {
            self.unsent &= !stream.has_sent();
        }
        loop {
            while let Some(head) = response::take(&mut self.come, &mut self.looked_at, self.to_head)? {
                if self.unsent {
                    return Poll::Ready(Err(Fault::Early));
                }
                if head.is_interim {
                    self.interim += 1;
                    if self.interim > INTERIM {
                        return Poll::Ready(Err(Fault::Interim));
                    }
                    continue;
                }
                if head.changes_protocol && !self.sending.is_over() {
                    return Poll::Ready(Err(Fault::Protocol));
                }
                (self.body, self.keep) = (head.body, head.keep);
                self.part();
                return Poll::Ready(Ok(head.parts));
            }
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(self.unwritten.take().unwrap_or(Fault::Closed))),
                Err(error) => return Poll::Ready(Err(self.unwritten.take().unwrap_or(error.into()))),
            }
        }
    }

    /// What comes of the response's body, after its head.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            if let Some(frame) = self.body.next(&mut self.come)? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.body == Coming::Over {
                return Poll::Ready(None);
            }
            let Poll::Ready(read) = self.poll_read(cx) else { return self.poll_upload(cx) };
            match read {
                Ok(1..) => {}
                Ok(0) if self.body == Coming::UntilClosed => self.body = Coming::Over,
                Ok(0) => return Poll::Ready(Some(Err(Fault::Closed))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// A request that its client breaks off takes its response with it.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Stream::Parted(_, upload) = &mut self.stream else { return Poll::Pending };
        let Some(running) = &mut upload.task else { return Poll::Pending };
        let ended = ready!(Pin::new(running).poll(cx));
        upload.task = None;
        match ended {
            // What the backend does not take does not keep it from answering.
            Ok(Ok(()) | Err(Fault::Io(_) | Fault::Closed)) | Err(_) => Poll::Pending,
            Ok(Err(fault)) => Poll::Ready(Some(Err(fault))),
        }
    }

    /// Whether the response has come to its end.
    pub fn is_over(&self) -> bool {
        self.body == Coming::Over
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// Makes it ready for another request, if it can serve one: all was said, and nothing beyond that.
    pub fn renew(&mut self) -> bool {
        let sent = matches!(&self.stream, Stream::Whole(stream) if stream.has_sent())
            && self.sending.is_over()
            && self.unwritten.is_none();
        let said = self.keep && self.is_over() && self.come.is_empty();
        if self.step > *READ_BYTES.start() {
            (self.step, self.come) = (*READ_BYTES.start(), BytesMut::new());
        }
        sent && said
    }

    /// The stream of bytes that it is once the protocol has changed, if it is one.
    pub fn into_tunnel(mut self) -> Option<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        let Stream::Whole(stream) = std::mem::replace(&mut self.stream, Stream::None) else { return None };
        let (read, write) = tokio::io::split(stream);
        let come = io::Cursor::new(std::mem::take(&mut self.come));
        Some(tokio::io::join(come.chain(read), write))
    }

    /// Lets go of what is still to be written, if the response came before the request was sent.
    fn part(&mut self) {
        if self.sending.is_over() || self.unwritten.is_some() {
            return;
        }
        if let Stream::Whole(stream) = std::mem::replace(&mut self.stream, Stream::None) {
            let (read, mut write) = tokio::io::split(stream);
            let mut sending = std::mem::take(&mut self.sending);
            let (answering, answered) = oneshot::channel();
            let task = tokio::spawn(async move {
                tokio::select! {
                    sent = poll_fn(|cx| sending.poll(&mut write, cx)) => sent,
                    () = async { drop(answered.await); tokio::time::sleep(AFTERWARDS).await } => Err(Fault::Closed),
                }
            });
            self.stream = Stream::Parted(read, Upload { task: Some(task), _answering: answering });
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.come.capacity() - self.come.len() < ROOM {
            self.come.reserve(self.step);
        }
        let room = self.come.capacity() - self.come.len();
        let polled = match &mut self.stream {
            Stream::Whole(stream) => poll_read_buf(Pin::new(stream), cx, &mut self.come),
            Stream::Parted(read, _) => poll_read_buf(Pin::new(read), cx, &mut self.come),
            Stream::None => Poll::Ready(Ok(0)),
        };
        if matches!(polled, Poll::Ready(Ok(read)) if read == room) {
            self.step = (self.step * 2).min(*READ_BYTES.end());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, Empty, Join, Sink};
    use tokio::task::yield_now;

    use super::*;
    use crate::together::Sends;

    impl Sends for DuplexStream {
        fn has_sent(&self) -> bool {
            true
        }
    }

    impl Sends for Empty {
        fn has_sent(&self) -> bool {
            true
        }
    }

    /// What says something and takes everything, of which nothing goes out.
    impl Sends for Join<&'static [u8], Sink> {
        fn has_sent(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn what_comes_before_a_request_has_gone_out_is_no_response_to_it() {
        for unsent in [true, false] {
            let said = &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..];
            let mut connection = Connection::new(Box::new(tokio::io::join(said, tokio::io::sink())));
            connection.unsent = unsent;
            let head = poll_fn(|cx| connection.poll_head(cx)).await;
            assert_eq!(matches!(head, Err(Fault::Early)), unsent, "{head:?}");
            assert!(!connection.renew(), "what has not gone out keeps it from another request");
        }
    }

    #[tokio::test]
    async fn connections_that_were_closed_are_told_from_open_ones_however_many_there_are() {
        // More than a task may read in one turn.
        let (near, far): (Vec<_>, Vec<_>) = (0..300).map(|_| tokio::io::duplex(64)).unzip();
        let mut all: Vec<_> = near.into_iter().map(|near| Connection::new(Box::new(near))).collect();
        let quiet = |all: &mut Vec<Connection>, cx: &mut Context<'_>| {
            all.iter_mut().filter_map(|one| one.is_quiet(cx).then_some(())).count()
        };
        assert_eq!(poll_fn(|cx| Poll::Ready(quiet(&mut all, cx))).await, 300);
        drop(far);
        assert_eq!(poll_fn(|cx| Poll::Ready(quiet(&mut all, cx))).await, 0);
    }

    #[tokio::test]
    async fn an_upload_ends_with_its_response_if_that_is_given_up() {
        for (body, ends) in [(Coming::Sized(1), true), (Coming::Over, false)] {
            let (near, _far) = tokio::io::duplex(64);
            let (read, _write) = tokio::io::split(Box::new(near) as Box<dyn Backend>);
            let task = tokio::spawn(std::future::pending());
            let upload = task.abort_handle();
            let (answering, _answered) = oneshot::channel();
            let mut connection = Connection::new(Box::new(tokio::io::empty()));
            connection.stream = Stream::Parted(read, Upload { task: Some(task), _answering: answering });
            connection.body = body;
            drop(connection);
            yield_now().await;
            assert_eq!(upload.is_finished(), ends, "{body:?}");
            upload.abort();
        }
    }
}
