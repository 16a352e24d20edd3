//! How fast a connection goes: since when it waits for its client, and for what.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::config::ListenerLimits;

/// How long a connection that was told to end while it idled may take to.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// When a connection is looked at that waits for nothing.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client was too slow with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The rest of a request's head.
    Head,
    /// A next request.
    Idle,
    /// Taking what is written to it.
    Stalled,
}

/// What a connection waits for; told by those who see its bytes and its requests.
#[derive(Debug)]
pub struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    http2: bool,
    /// Requests whose response is not over.
    open: usize,
    /// Since when a head is coming.
    head: Option<Instant>,
    /// Since when there is no request.
    idle: Instant,
    /// Since when the client takes nothing.
    blocked: Option<Instant>,
    ending: bool,
}

impl Pace {
    /// Of a connection that has sent its first byte.
    pub fn new() -> Self {
        let now = Instant::now();
        let (http2, open, blocked, ending) = (false, 0, None, false);
        Self(Mutex::new(State { http2, open, head: Some(now), idle: now, blocked, ending }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of HTTP/1 came: those of a head, where no exchange is open.
    pub fn read(&self) {
        let mut state = self.lock();
        if state.open == 0 && state.head.is_none() {
            state.head = Some(Instant::now());
        }
    }

    /// Bytes of HTTP/2 came, which end within a head or not.
    pub fn read_frames(&self, within_head: bool) {
        let mut state = self.lock();
        if !state.http2 {
            (state.http2, state.head, state.idle) = (true, None, Instant::now());
        }
        state.head = if within_head { state.head.or_else(|| Some(Instant::now())) } else { None };
    }

    pub fn begin(&self) {
        let mut state = self.lock();
        state.open += 1;
        if !state.http2 {
            state.head = None;
        }
    }

    pub fn end(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        state.idle = Instant::now();
    }

    /// Since when nothing was asked and nothing is being answered.
    pub fn idle(&self) -> Option<Instant> {
        let state = self.lock();
        (state.open == 0 && state.head.is_none()).then_some(state.idle)
    }

    /// Whether it turned out to be HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.lock().http2
    }

    pub fn wrote<T>(&self, written: &Poll<T>) {
        let mut state = self.lock();
        if written.is_ready() {
            state.blocked = None;
        } else if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// It was told to end, and has little time left to do so.
    fn ending(&self) {
        let mut state = self.lock();
        (state.ending, state.idle) = (true, Instant::now());
    }

    fn due(&self, limits: &ListenerLimits) -> Option<(Instant, Overdue)> {
        let state = self.lock();
        let head = state.head.filter(|_| state.open == 0 || state.http2);
        let keep_alive = if state.ending { LAST_WORDS } else { limits.keep_alive.0 };
        let idle = (state.open == 0 && head.is_none()).then_some((state.idle + keep_alive, Overdue::Idle));
        let all = [
            head.map(|since| (since + limits.head_time.0, Overdue::Head)),
            idle,
            state.blocked.map(|since| (since + limits.stall.0, Overdue::Stalled)),
        ];
        all.into_iter().flatten().min_by_key(|(due, _)| *due)
    }
}

/// Resolves when a client is too slow. To be polled after the connection, whose work changes what it waits for.
pub struct Watch {
    pace: Arc<Pace>,
    limits: ListenerLimits,
    armed: Pin<Box<Sleep>>,
}

impl Watch {
    pub fn new(pace: Arc<Pace>, limits: ListenerLimits) -> Self {
        let armed = Box::pin(tokio::time::sleep(limits.head_time.0));
        Self { pace, limits, armed }
    }

    /// Whether an idle connection is over for good now, rather than to be told to end.
    pub fn tell_to_end(&self) -> bool {
        let over = self.pace.lock().ending;
        self.pace.ending();
        over
    }
}

impl Future for Watch {
    type Output = Overdue;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Overdue> {
        loop {
            let due = self.pace.due(&self.limits);
            let now = Instant::now();
            if let Some((at, what)) = due
                && at <= now
            {
                return Poll::Ready(what);
            }
            let next = due.map_or(now + FAR, |(at, _)| at);
            // A timer that rings too early is set anew then, which is seldom; each change would be often.
            if next < self.armed.deadline() || self.armed.is_elapsed() {
                self.armed.as_mut().reset(next);
            }
            ready!(self.armed.as_mut().poll(cx));
        }
    }
}
