//! The exchanges that are open, so that they live and die with their session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio_util::sync::CancellationToken;

use crate::clock::Time;
use crate::handle::{Birth, Handle};

use super::revocations::Believed;

/// Longer than any load takes.
const ENTERING: Duration = Duration::from_secs(30);

/// All open exchanges that have a session.
#[derive(Debug, Default, Clone)]
pub struct Live(Arc<Mutex<Register>>);

#[derive(Debug, Default)]
struct Register {
    open: Slab<Arc<Open>>,
    /// Sessions that ended a moment ago: an exchange that was loading one of them is only now entering.
    ended: HashMap<(Handle, Birth), Instant>,
}

/// What the register knows of one exchange.
#[derive(Debug)]
pub struct Open {
    pub handle: Handle,
    pub birth: Birth,
    believed: Believed,
    /// Absolute expiry, past which nothing of the exchange counts.
    ends_at: Time,
    /// Whether its being open counts as activity.
    touches: bool,
    touch_interval: u64,
    last_touch: AtomicU64,
    /// Whether the session's end ends it.
    closes: bool,
    closed: AtomicBool,
    waker: AtomicWaker,
    /// Whether it was found still open after it was closed.
    overdue: AtomicBool,
    /// What ends it where its client takes nothing any more.
    cut: OnceLock<Arc<CancellationToken>>,
}

/// An exchange's place in the register; leaves it on drop.
#[derive(Debug)]
pub struct Presence {
    place: usize,
    live: Live,
    open: Arc<Open>,
}

/// What an exchange is entered with.
pub struct Entering {
    pub handle: Handle,
    pub birth: Birth,
    pub believed: Believed,
    pub ends_at: Time,
    pub touches: bool,
    pub touch_interval: u64,
    pub last_touch: Time,
    pub closes: bool,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Register> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, entering: Entering) -> Presence {
        let open = Arc::new(Open {
            handle: entering.handle,
            birth: entering.birth,
            believed: entering.believed,
            ends_at: entering.ends_at,
            touches: entering.touches,
            touch_interval: entering.touch_interval,
            last_touch: AtomicU64::new(entering.last_touch.0),
            closes: entering.closes,
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            overdue: AtomicBool::new(false),
            cut: OnceLock::new(),
        });
        let mut register = self.lock();
        if register.ended.contains_key(&(open.handle, open.birth)) {
            open.close();
        }
        let place = register.open.insert(open.clone());
        Presence { place, live: self.clone(), open }
    }

    /// Closes the open exchanges of one session.
    pub fn close(&self, handle: Handle, birth: Birth) {
        self.lock().ended.insert((handle, birth), Instant::now());
        self.each(|open| {
            if open.handle == handle && open.birth == birth {
                open.close();
            }
        });
    }

    /// Closes the open exchanges of all sessions that are no longer believed.
    pub fn close_void(&self, is_void: impl Fn(&Believed) -> bool) {
        self.each(|open| {
            if is_void(&open.believed) {
                open.close();
            }
        });
    }

    /// Closes what is past its absolute expiry, and says which sessions are due for a touch.
    pub fn tick(&self, now: Time) -> Vec<(Handle, Birth)> {
        self.lock().ended.retain(|_, since| since.elapsed() < ENTERING);
        let mut due = Vec::new();
        self.each(|open| {
            if open.closed.load(Ordering::Acquire) {
                open.insist();
            } else if now >= open.ends_at {
                open.close();
            } else if open.touches && open.take_touch(now) {
                due.push((open.handle, open.birth));
            }
        });
        due.sort_unstable();
        due.dedup();
        due
    }

    fn each(&self, mut act: impl FnMut(&Open)) {
        self.lock().open.iter().for_each(|(_, open)| act(open));
    }

    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Open {
    fn close(&self) {
        if self.closes && !self.closed.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Cuts what is still open one look after it was found to be: its body waits for a client that does not read.
    fn insist(&self) {
        if self.overdue.swap(true, Ordering::AcqRel)
            && let Some(cut) = self.cut.get()
        {
            cut.cancel();
        }
    }

    /// Whether a touch is due; if so, the next is an interval away.
    fn take_touch(&self, now: Time) -> bool {
        let last = self.last_touch.load(Ordering::Acquire);
        now.0.saturating_sub(last) >= self.touch_interval
            && self.last_touch.compare_exchange(last, now.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Presence {
    /// Ready once the session has ended and takes the exchange with it.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.closed.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.open.waker.register(cx.waker());
        // Once more: it may have been closed between the look and the registration.
        if self.open.closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the exchange: its session was over before it was entered.
    pub fn close(&self) {
        self.open.close();
    }

    /// Says what ends the exchange where its client takes nothing any more.
    pub fn cut_with(&self, cut: Arc<CancellationToken>) {
        // The first one counts; there is no other.
        let _ = self.open.cut.set(cut);
    }

    pub async fn closed(&self) {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await;
    }

    /// Whether the request itself is due for a touch now.
    pub fn take_touch(&self, now: Time) -> bool {
        self.open.take_touch(now)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.live.lock().open.try_remove(self.place);
    }
}
