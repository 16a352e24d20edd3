//! A request's body on its way to the backend.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::context::Context as Stripper;
use crate::headers::Lines;
use crate::listener::Arriving;
use crate::telemetry::Tally;

use super::UpstreamError;
use super::shared::Held;

/// How far a request's body has come.
#[derive(Debug, Clone)]
pub struct Sent(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    state: AtomicU8,
    bytes: AtomicU64,
    began: Instant,
    /// When the last of it was passed on, in microseconds from the beginning.
    moved: AtomicU64,
    /// Whether the client is waited for, rather than the backend.
    waits: AtomicBool,
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the next piece of a request.
    pub idle: Duration,
    /// For the head of the response, once the request was sent whole.
    pub response: Duration,
}

/// A timer that is kept and used again: one that rings too early is set anew then. One for each request takes 800
/// instructions more (callgrind).
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// The timer, set so that it rings by then.
    fn within(&mut self, due: Instant) -> &mut Pin<Box<Sleep>> {
        let alarm = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(due);
        }
        alarm
    }
}

const COMPLETE: u8 = 1;
const TOO_LARGE: u8 = 2;
const BROKEN: u8 = 3;

impl Tally for Progress {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The head of the response, to a request that was sent whole.
    Response,
    /// The backend takes nothing more of the request.
    Backend,
    /// The client sends nothing more of it.
    Client,
}

impl From<Overdue> for UpstreamError {
    fn from(overdue: Overdue) -> Self {
        match overdue {
            Overdue::Response => Self::ResponseTimeout,
            Overdue::Backend => Self::Unread,
            Overdue::Client => Self::Unsent,
        }
    }
}

impl Default for Sent {
    fn default() -> Self {
        Self(Arc::new(Progress {
            state: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
            began: Instant::now(),
            moved: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }))
    }
}

impl Sent {
    /// When it was begun.
    pub fn began(&self) -> Instant {
        self.0.began
    }

    /// What counts its bytes.
    pub fn tally(&self) -> Arc<dyn Tally> {
        self.0.clone()
    }

    fn state(&self) -> u8 {
        self.0.state.load(Ordering::Acquire)
    }

    pub fn is_complete(&self) -> bool {
        self.state() == COMPLETE
    }

    /// Whether it was broken off because it is larger than its route takes.
    pub fn is_too_large(&self) -> bool {
        self.state() == TOO_LARGE
    }

    /// Whether what came could not be read on: the client left, or its framing is wrong.
    pub fn is_broken(&self) -> bool {
        self.state() == BROKEN
    }

    /// When something of it was last passed on.
    pub fn moved(&self) -> Instant {
        self.0.began + Duration::from_micros(self.0.moved.load(Ordering::Acquire))
    }

    /// Ready when nothing of it was passed on for the first, or when it was sent whole and the second went by.
    ///
    /// The alarm is set ahead of time rather than anew with every step, and for the shorter of the two, so that nobody
    /// needs to be woken when the one takes the place of the other.
    pub fn poll_overdue(&self, patience: Patience, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<Overdue> {
        let step = patience.idle.min(patience.response);
        let alarm = alarm.within(self.moved() + step);
        loop {
            ready!(alarm.as_mut().poll(cx));
            let (whole, moved) = (self.is_complete(), self.moved());
            let due = moved + if whole { patience.response } else { patience.idle };
            let now = Instant::now();
            if due > now {
                alarm.as_mut().reset(due.min(now + step));
                continue;
            }
            if whole {
                return Poll::Ready(Overdue::Response);
            }
            let waits = self.0.waits.load(Ordering::Acquire);
            return Poll::Ready(if waits { Overdue::Client } else { Overdue::Backend });
        }
    }

    fn moves(&self) {
        let since = u64::try_from(self.0.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.moved.store(since, Ordering::Release);
    }

    fn waits(&self, for_client: bool) {
        self.0.waits.store(for_client, Ordering::Release);
    }

    fn ends(&self, state: u8) {
        self.moves();
        self.0.state.store(state, Ordering::Release);
    }
}

/// The client's body, passed on as it comes, up to a bound.
pub struct Outgoing {
    inner: Arriving,
    left: u64,
    sent: Sent,
    /// What decides whether a trailer of the client may pass.
    context: Arc<Stripper>,
    /// On a shared connection.
    held: Option<Held>,
}

/// A request as its backend gets it.
#[derive(Debug)]
pub struct Onward {
    /// What is left of the client's own.
    pub request: Request<Outgoing>,
    /// What is said beside that.
    pub lines: Lines,
    /// Whether it may change the protocol, which only HTTP/1.1 can.
    pub upgrade: bool,
}

/// The body is larger than its route takes.
#[derive(Debug, thiserror::Error)]
#[error("the request's body is too large")]
struct TooLarge;

/// The response is long over.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for the rest of the request any more")]
struct Late;

impl Outgoing {
    pub fn new(inner: Arriving, limit: Option<u64>, context: Arc<Stripper>) -> Self {
        let sent = Sent::default();
        if inner.is_end_stream() {
            sent.0.state.store(COMPLETE, Ordering::Release);
        }
        Self { inner, left: limit.unwrap_or(u64::MAX), sent, context, held: None }
    }

    /// Has it hold what it goes out over, in the place of what it held.
    pub fn hold(&mut self, held: Held) {
        self.held = Some(held);
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
        if let Some(held) = &mut self.held
            && held.poll_late(cx).is_ready()
        {
            self.sent.ends(BROKEN);
            return Poll::Ready(Some(Err(Late.into())));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.sent.waits(polled.is_pending());
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.sent.ends(BROKEN);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.sent.ends(COMPLETE);
                return Poll::Ready(None);
            }
        };
        let passed = self.pass(frame);
        if passed.is_err() {
            self.sent.ends(TOO_LARGE);
        } else if self.inner.is_end_stream() {
            self.sent.ends(COMPLETE);
        } else {
            self.sent.moves();
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
