//! What many write is written together.
//!
//! A write to a socket wakes whoever reads from it, if they sleep, which is dearer than the write itself: 3 of the 18 µs
//! of a request, where one processor serves 64 connections (perf). One that comes right behind finds them awake. So a
//! write waits until all who are ready have come to theirs, a turn of the thread later: a tenth of a request's CPU.

use std::cell::Cell;
use std::task::{Context, Poll};

thread_local! {
    /// Whether a write has begun to wait since this was last cleared.
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Polls, and says whether that is to be done again right away, since a write has begun to wait.
pub fn polled<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    WAITS.set(false);
    (poll(), WAITS.get())
}

/// A place from which something is written, again and again.
#[derive(Debug, Default)]
pub struct Together(Stage);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Done,
    Waits,
    Writes,
}

impl Together {
    /// Ready to write once all tasks that were ready have had their turn, and from then on until all is written.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Done = self.0 {
            self.0 = Stage::Waits;
            // Behind all that are ready. Not `yield_now`, which has the system asked for events first.
            cx.waker().wake_by_ref();
            WAITS.set(true);
            return Poll::Pending;
        }
        self.0 = Stage::Writes;
        Poll::Ready(())
    }

    /// All is written; what comes next waits again.
    pub fn done(&mut self) {
        if let Stage::Writes = self.0 {
            self.0 = Stage::Done;
        }
    }

    /// Whether something waits to be written.
    pub fn waits(&self) -> bool {
        matches!(self.0, Stage::Waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_waits_once_until_all_of_it_is_written() {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        let mut together = Together::default();
        for _ in 0..2 {
            let (polled, again) = polled(|| together.poll(&mut cx));
            assert!(polled.is_pending() && again && together.waits());
            // Flushed while it waits: nothing was written yet.
            together.done();
            let (polled, again) = super::polled(|| together.poll(&mut cx));
            assert!(polled.is_ready() && !again && !together.waits());
            // Blocked: what was begun does not wait again.
            assert!(together.poll(&mut cx).is_ready());
            together.done();
        }
    }
}
