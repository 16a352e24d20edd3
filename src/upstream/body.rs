//! A request's body on its way to the backend.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::context::Context as Stripper;
use crate::telemetry::Tally;

/// How far a request's body has come.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    state: AtomicU8,
    bytes: AtomicU64,
}

const COMPLETE: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;

impl Tally for Progress {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Sent {
    /// What counts its bytes.
    pub fn tally(&self) -> Arc<dyn Tally> {
        self.0.clone()
    }

    pub fn is_complete(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == COMPLETE
    }

    /// Whether it was broken off because it is larger than its route takes.
    pub fn is_too_large(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == TOO_LARGE
    }

    /// Whether what came could not be read on: the client left, or its framing is wrong.
    pub fn is_broken(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == BROKEN
    }
}

/// The client's body, passed on as it comes, up to a bound.
pub struct Outgoing {
    inner: Incoming,
    left: u64,
    sent: Sent,
    /// What decides whether a trailer of the client may pass.
    context: Arc<Stripper>,
}

/// The body is larger than its route takes.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is too large")]
struct TooLarge;

impl Outgoing {
    pub fn new(inner: Incoming, limit: Option<u64>, context: Arc<Stripper>) -> Self {
        let sent = Sent::default();
        if inner.is_end_stream() {
            sent.0.state.store(COMPLETE, Ordering::Release);
        }
        Self { inner, left: limit.unwrap_or(u64::MAX), sent, context }
    }

    pub fn sent(&self) -> Sent {
        self.sent.clone()
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, TooLarge> {
        match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.sent.0.bytes.fetch_add(length, Ordering::Relaxed);
                self.left = self.left.checked_sub(length).ok_or(TooLarge)?;
                Ok(Frame::data(data))
            }
            Err(frame) => Ok(frame.into_trailers().map_or_else(
                |other| other,
                |trailers| {
                    let passing = trailers.iter().filter(|(name, _)| self.context.lets_pass(name));
                    Frame::trailers(passing.map(|(name, value)| (name.clone(), value.clone())).collect::<HeaderMap>())
                },
            )),
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.sent.0.state.store(BROKEN, Ordering::Release);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.sent.0.state.store(COMPLETE, Ordering::Release);
                return Poll::Ready(None);
            }
        };
        let passed = self.pass(frame);
        if passed.is_err() {
            self.sent.0.state.store(TOO_LARGE, Ordering::Release);
        } else if self.inner.is_end_stream() {
            self.sent.0.state.store(COMPLETE, Ordering::Release);
        }
        Poll::Ready(Some(passed.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
