//! The body of a response on its way to the client, and all that lives as long as it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::limit::Permit;
use crate::session::Presence;
use crate::telemetry::Record;
use crate::upstream::{Reply, Sent};

use super::writing::TrailerWriting;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an exchange holds until its response is over.
pub struct Held {
    record: Record,
    presence: Option<Presence>,
    _permit: Option<Permit>,
}

impl Held {
    pub fn new(record: Record, presence: Option<Presence>, permit: Option<Permit>) -> Self {
        Self { record, presence, _permit: permit }
    }

    pub fn completed(&mut self) {
        self.record.completed();
    }

    /// Resolves when the session has ended and takes the exchange with it; never without a session.
    pub async fn closed(&self) {
        match &self.presence {
            Some(presence) => presence.closed().await,
            None => std::future::pending().await,
        }
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.presence.as_ref().map_or(Poll::Pending, |presence| presence.poll_closed(cx))
    }
}

/// A response's body.
pub struct ReplyBody(Source);

enum Source {
    /// Our own words.
    Own { bytes: Bytes, held: Box<Held> },
    /// The backend's, as they come.
    Backend(Box<Passing>),
    /// Nothing but the record: a 101, whose tunnel holds the rest.
    Empty,
}

/// The backend's body with what has to happen while and after it passes.
pub struct Passing {
    pub inner: Reply,
    pub held: Held,
    pub trailers: TrailerWriting,
    pub idle: Idle,
}

/// Why a response broke off; told to nobody but the connection.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error("the session ended")]
    SessionEnded,
    #[error("the backend sent nothing for too long")]
    Idle,
    #[error("the write-back in the trailers failed")]
    WriteBack,
}

impl ReplyBody {
    pub fn own(bytes: Bytes, record: Record) -> Self {
        Self(Source::Own { bytes, held: Box::new(Held::new(record, None, None)) })
    }

    pub fn backend(passing: Passing) -> Self {
        Self(Source::Backend(Box::new(passing)))
    }

    pub fn empty() -> Self {
        Self(Source::Empty)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::Own { bytes, held } => {
                held.completed();
                let bytes = std::mem::take(bytes);
                held.record.sent(bytes.len());
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Backend(passing) => passing.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Own { bytes, .. } => bytes.is_empty(),
            // A head that is all there is has to say so itself: gRPC takes no empty frame of data for an end.
            Source::Backend(passing) => passing.inner.is_end_stream() && !passing.trailers.is_busy(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Own { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend(passing) => passing.inner.size_hint(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // A body without a byte is never polled, and is complete all the same.
        match &mut self.0 {
            Source::Own { bytes, held } if bytes.is_empty() => held.completed(),
            Source::Backend(passing) if passing.inner.is_end_stream() => passing.finish(),
            _ => {}
        }
    }
}

impl Passing {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.held.poll_closed(cx).is_ready() {
            return Poll::Ready(Some(Err(BrokenOff::SessionEnded.into())));
        }
        if self.trailers.is_busy() {
            return self.poll_trailers(cx);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending if self.idle.poll_over(cx).is_ready() => Poll::Ready(Some(Err(BrokenOff::Idle.into()))),
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.restart();
                match frame.into_data() {
                    Ok(data) => {
                        self.held.record.sent(data.len());
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.held.record.busy();
                        self.trailers.begin(trailers);
                        self.poll_trailers(cx)
                    }
                }
            }
        }
    }

    /// What stands in the trailers is committed before the client sees the end of the body.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let outcome = ready!(self.trailers.poll(cx, &mut self.held.record));
        self.held.record.idle();
        self.finish();
        match outcome {
            Ok(trailers) => Poll::Ready(passed_on(trailers).map(Ok)),
            Err(()) => Poll::Ready(Some(Err(BrokenOff::WriteBack.into()))),
        }
    }

    /// The body came to its end: its connection serves the next.
    fn finish(&mut self) {
        if self.inner.give_back() && !self.trailers.failed() {
            self.held.completed();
        }
    }
}

fn passed_on(trailers: HeaderMap) -> Option<Frame<Bytes>> {
    (!trailers.is_empty()).then(|| Frame::trailers(trailers))
}

/// How long nothing may come, of the response or of a request that is still being sent.
pub struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    stale: bool,
    sent: Sent,
}

impl Idle {
    pub fn new(limit: Duration, sent: Sent) -> Self {
        Self { limit, sleep: None, stale: false, sent }
    }

    fn restart(&mut self) {
        self.stale = true;
    }

    /// The timer is made when it is first waited for, and set anew only then: a body that never waits has none.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if std::mem::take(&mut self.stale) {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            // An upload that goes on is no silence, even if the backend says nothing meanwhile.
            let uploading = self.sent.moved() + self.limit;
            if uploading <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(uploading);
        }
    }
}
