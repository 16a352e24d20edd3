//! Which of the things that a task waits for has woken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes a task, and keeps in mind that it was this that did: what did not is not to be polled.
#[derive(Debug)]
pub struct Bell {
    ringing: Arc<Ringing>,
    waker: Waker,
}

#[derive(Debug)]
struct Ringing {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Ringing {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Bell {
    /// One that has rung: whatever waits for it has to be polled first.
    pub fn rung() -> Self {
        let ringing = Arc::new(Ringing { rang: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: ringing.clone().into(), ringing }
    }

    /// Polls what has rung it, or is to be polled for another reason.
    pub fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        all_the_same: bool,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // First, so that what rings from here on wakes the task.
        self.ringing.task.register(cx.waker());
        if !self.ringing.rang.swap(false, Ordering::AcqRel) && !all_the_same {
            return Poll::Pending;
        }
        poll(&mut Context::from_waker(&self.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn only_what_rang_is_polled_and_nothing_that_rang_is_missed() {
        let (mine, others) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notified, disturbed) = (mine.clone(), others.clone());
        let waiting = tokio::spawn(async move {
            let (bell, mut polls) = (Bell::rung(), 0);
            let (mut mine, mut others) = (Box::pin(notified.notified()), Box::pin(disturbed.notified()));
            std::future::poll_fn(|cx| {
                if others.as_mut().poll(cx).is_ready() {
                    others.set(disturbed.notified());
                    cx.waker().wake_by_ref();
                }
                bell.poll(cx, false, |cx| {
                    polls += 1;
                    mine.as_mut().poll(cx)
                })
            })
            .await;
            polls
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
            others.notify_one();
        }
        tokio::task::yield_now().await;
        mine.notify_one();
        let polls = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it was told").unwrap();
        assert_eq!(polls, 2);
    }

    #[test]
    fn what_is_to_be_polled_all_the_same_is() {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        let bell = Bell::rung();
        let mut polled = |all_the_same| bell.poll(&mut cx, all_the_same, |_| Poll::Ready(())).is_ready();
        assert_eq!([polled(false), polled(false), polled(true), polled(false)], [true, false, true, false]);
    }
}
