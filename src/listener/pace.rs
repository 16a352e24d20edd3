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

/// How long nothing is asked before the buffers of an HTTP/1 connection are let go.
const QUIET: Duration = Duration::from_secs(1);

/// What a client was too slow with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// A next request, so far that nothing needs to be held to read it into.
    Quiet,
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

#[derive(Debug, Clone)]
struct State {
    http2: bool,
    /// Requests whose response is not over.
    open: usize,
    /// Since when a head is coming.
    head: Option<Since>,
    /// Since when there is no request.
    idle: Since,
    /// Since when the client takes nothing.
    blocked: Option<Since>,
    /// Bodies of requests that have not come to their end.
    coming: usize,
    /// The body of a request was not read to its end: what comes next may still be part of it.
    unread: bool,
    /// Its being quiet was told.
    quiet: bool,
    ending: bool,
    /// What it was waiting for when it was last looked at when what is due.
    looked_at: Waits,
}

/// What a connection waits for. Whatever ends, or begins anew, is due later for that; what is added may be due earlier.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    /// To have its buffers let go.
    rest: bool,
    head: bool,
    idle: bool,
    blocked: bool,
    /// To be over, having been told so.
    end: bool,
}

impl State {
    fn waits(&self) -> Waits {
        let idle = self.open == 0 && self.head.is_none();
        let settled = idle && self.blocked.is_none() && self.coming == 0;
        Waits {
            rest: settled && !(self.http2 || self.unread || self.quiet || self.ending),
            head: self.head.is_some() && (self.open == 0 || self.http2),
            idle,
            blocked: self.blocked.is_some(),
            end: self.ending,
        }
    }
}

/// When something began. Most of it is over before the watch looks at it, and so before anybody looks at a clock.
#[derive(Debug, Clone, Copy)]
enum Since {
    LastLook,
    At(Instant),
}

impl Since {
    fn settle(&mut self, now: Instant) -> Instant {
        match *self {
            Self::LastLook => {
                *self = Self::At(now);
                now
            }
            Self::At(at) => at,
        }
    }
}

impl Pace {
    /// Of a connection that has sent its first byte.
    pub fn new() -> Self {
        Self(Mutex::new(State {
            http2: false,
            open: 0,
            head: Some(Since::LastLook),
            idle: Since::LastLook,
            blocked: None,
            coming: 0,
            unread: false,
            quiet: false,
            ending: false,
            looked_at: Waits::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of HTTP/1 came: those of a head, where no exchange is open and no body still coming.
    pub fn read(&self) {
        let mut state = self.lock();
        state.quiet = false;
        if state.open == 0 && state.coming == 0 && state.head.is_none() {
            state.head = Some(Since::LastLook);
        }
    }

    /// Bytes of HTTP/2 came, which end within a head or not.
    pub fn read_frames(&self, within_head: bool) {
        let mut state = self.lock();
        if !state.http2 {
            (state.http2, state.head, state.idle) = (true, None, Since::LastLook);
        }
        state.head = if within_head { state.head.or(Some(Since::LastLook)) } else { None };
    }

    pub fn begin(&self) {
        let mut state = self.lock();
        state.open += 1;
        if !state.http2 {
            state.head = None;
        }
    }

    /// The body of a request is to come.
    pub fn body_begins(&self) {
        self.lock().coming += 1;
    }

    /// It has come to its end, or nobody will read it to there.
    pub fn body_ends(&self, whole: bool) {
        let mut state = self.lock();
        state.coming = state.coming.saturating_sub(1);
        state.unread |= !whole;
    }

    pub fn end(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        state.idle = Since::LastLook;
    }

    /// Since when nothing was asked and nothing is being answered.
    pub fn idle(&self) -> Option<Instant> {
        let mut state = self.lock();
        let idle = state.open == 0 && state.head.is_none();
        idle.then(|| state.idle.settle(Instant::now()))
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
            state.blocked = Some(Since::LastLook);
        }
    }

    /// Whether something may be due earlier than it was when it was last looked at.
    pub fn is_due_earlier(&self) -> bool {
        let state = self.lock();
        let (now, then) = (state.waits(), state.looked_at);
        now.rest && !then.rest
            || now.head && !then.head
            || now.idle && !then.idle
            || now.blocked && !then.blocked
            || now.end && !then.end
    }

    /// Its being quiet is told once, until something comes.
    fn quiet(&self) {
        self.lock().quiet = true;
    }

    /// It was told to end, and has little time left to do so.
    fn ending(&self) {
        let mut state = self.lock();
        (state.ending, state.idle) = (true, Since::LastLook);
    }

    /// What is due first, and when.
    fn due(&self, limits: &ListenerLimits, now: impl Fn() -> Instant) -> Option<(Instant, Overdue)> {
        let mut state = self.lock();
        let state = &mut *state;
        let waits = state.waits();
        state.looked_at = waits;
        let keep_alive = if waits.end { LAST_WORDS } else { limits.keep_alive.0 };
        let idle = waits.idle.then(|| state.idle.settle(now()));
        let head = state.head.as_mut().filter(|_| waits.head).map(|head| head.settle(now()));
        let blocked = state.blocked.as_mut().map(|blocked| blocked.settle(now()));
        let all = [
            idle.filter(|_| waits.rest).map(|since| (since + QUIET, Overdue::Quiet)),
            head.map(|since| (since + limits.head_time.0, Overdue::Head)),
            idle.map(|since| (since + keep_alive, Overdue::Idle)),
            blocked.map(|since| (since + limits.stall.0, Overdue::Stalled)),
        ];
        all.into_iter().flatten().min_by_key(|(due, _)| *due)
    }
}

/// Resolves when a client is too slow. To be polled after the connection, whose work changes what it waits for.
pub struct Watch {
    pub pace: Arc<Pace>,
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
            let due = self.pace.due(&self.limits, Instant::now);
            // A timer that rings too early is set anew then, which is seldom; each change would be often. And so nothing
            // is due before the timer rings, unless it is due before the timer is.
            if let Some((at, _)) = due.filter(|(at, _)| *at < self.armed.deadline()) {
                self.armed.as_mut().reset(at);
            }
            ready!(self.armed.as_mut().poll(cx));
            let now = Instant::now();
            if let Some((at, what)) = due
                && at <= now
            {
                if what == Overdue::Quiet {
                    self.pace.quiet();
                }
                return Poll::Ready(what);
            }
            self.armed.as_mut().reset(due.map_or(now + FAR, |(at, _)| at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due next, so many milliseconds after the last thing that happened.
    fn due(pace: &Pace) -> Option<(u128, Overdue)> {
        let now = Instant::now();
        pace.due(&ListenerLimits::default(), || now).map(|(at, what)| ((at - now).as_millis(), what))
    }

    /// A connection that has been answered.
    fn answered() -> Pace {
        let pace = Pace::new();
        pace.read();
        pace.begin();
        pace.end();
        pace
    }

    #[test]
    fn it_is_told_once_that_nothing_is_asked_until_something_comes() {
        let pace = answered();
        assert_eq!(due(&pace), Some((1000, Overdue::Quiet)));
        pace.quiet();
        assert!(matches!(due(&pace), Some((_, Overdue::Idle))));
        pace.read();
        assert!(matches!(due(&pace), Some((_, Overdue::Head))));
        pace.begin();
        assert_eq!(due(&pace), None);
        pace.end();
        assert!(matches!(due(&pace), Some((_, Overdue::Quiet))));
    }

    #[test]
    fn what_comes_of_a_body_after_its_answer_is_no_head() {
        let pace = Pace::new();
        pace.read();
        pace.begin();
        pace.body_begins();
        pace.end();
        pace.read();
        assert!(matches!(due(&pace), Some((_, Overdue::Idle))));
        pace.body_ends(true);
        pace.read();
        assert!(matches!(due(&pace), Some((_, Overdue::Head))));
    }

    #[test]
    fn it_is_looked_at_again_where_something_may_be_due_earlier() {
        let looked = |pace: &Pace| (due(pace), pace.is_due_earlier());
        let pace = answered();
        assert!(pace.is_due_earlier());
        assert!(!looked(&pace).1);
        // Another request begins and is answered: it is quiet later than was thought.
        pace.read();
        assert!(pace.is_due_earlier(), "a head may be slow");
        pace.begin();
        assert!(!pace.is_due_earlier());
        pace.end();
        assert!(!pace.is_due_earlier());
        // Looked at in between, it is to be looked at once more.
        pace.begin();
        assert!(!looked(&pace).1);
        pace.end();
        assert!(pace.is_due_earlier());
        assert!(!looked(&pace).1);
        // A body that comes keeps it from being at rest, and its end lets it be.
        pace.begin();
        pace.body_begins();
        due(&pace);
        pace.end();
        assert!(!looked(&pace).1);
        pace.body_ends(true);
        assert!(pace.is_due_earlier(), "it may rest");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_due_before_it_was_thought_unless_that_is_told(steps in proptest::collection::vec(0..11_u8, 0..24)) {
            let (pace, limits) = (Pace::new(), ListenerLimits::default());
            let first = || pace.due(&limits, Instant::now).map(|(at, _)| at);
            let mut thought = first();
            for step in steps {
                match step {
                    0 => pace.read(),
                    1 => pace.begin(),
                    2 => pace.end(),
                    3 => pace.body_begins(),
                    4 => pace.body_ends(true),
                    5 => pace.body_ends(false),
                    6 => pace.wrote(&Poll::<()>::Pending),
                    7 => pace.wrote(&Poll::Ready(())),
                    8 => pace.read_frames(false),
                    9 => pace.read_frames(true),
                    _ => pace.ending(),
                }
                let told = pace.is_due_earlier();
                // Looking at it settles what is new, so it is looked at where it would be.
                if told {
                    thought = first();
                } else {
                    let later = Pace(Mutex::new(pace.lock().clone()));
                    let due = later.due(&limits, Instant::now).map(|(at, _)| at);
                    let as_thought = due.is_none_or(|due| thought.is_some_and(|thought| due >= thought));
                    proptest::prop_assert!(as_thought, "after step {}", step);
                }
            }
        }
    }

    #[test]
    fn it_does_not_rest_while_a_body_comes_or_after_one_that_nobody_read() {
        let pace = answered();
        pace.body_begins();
        assert!(matches!(due(&pace), Some((_, Overdue::Idle))));
        pace.body_ends(true);
        assert!(matches!(due(&pace), Some((_, Overdue::Quiet))));
        pace.body_begins();
        pace.body_ends(false);
        assert!(matches!(due(&pace), Some((_, Overdue::Idle))));
    }

    #[test]
    fn it_does_not_rest_while_its_client_takes_nothing_or_speaks_http_2() {
        let pace = answered();
        pace.wrote(&Poll::<()>::Pending);
        assert!(!matches!(due(&pace), Some((_, Overdue::Quiet))));
        pace.wrote(&Poll::Ready(()));
        assert!(matches!(due(&pace), Some((_, Overdue::Quiet))));
        pace.read_frames(false);
        assert!(matches!(due(&pace), Some((_, Overdue::Idle))));
    }
}
