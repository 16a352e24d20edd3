//! Work that is carried to its end, whoever waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A future that goes on by itself should whoever waits for it leave.
///
/// It is polled by who waits, and becomes a task only when it is dropped unfinished: as a task from the beginning it is
/// allocated, scheduled and joined for nothing nearly always.
pub struct Unbroken<F: Future<Output: Send> + Send + 'static> {
    work: Option<Pin<Box<F>>>,
    /// Who waits for it, whether it goes on by itself or not.
    token: Option<TaskTrackerToken>,
}

impl<F: Future<Output: Send> + Send + 'static> Unbroken<F> {
    /// The token is held until the work is done.
    pub fn new(work: Pin<Box<F>>, token: Option<TaskTrackerToken>) -> Self {
        Self { work: Some(work), token }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Unbroken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out meanwhile, so that one that panics is not polled again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Unbroken<F> {
    fn drop(&mut self) {
        // Without a runtime, nothing goes on any more.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            let token = self.token.take();
            runtime.spawn(async move {
                work.await;
                drop(token);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn whoever_leaves_does_not_end_it() {
        let (tracker, done) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
        let (go, gone) = oneshot::channel::<()>();
        let ending = done.clone();
        let work = async move {
            gone.await.unwrap();
            ending.store(true, Ordering::SeqCst);
        };
        let mut unbroken = Unbroken::new(Box::pin(work), Some(tracker.token()));
        assert!(Pin::new(&mut unbroken).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        tracker.close();
        drop(unbroken);
        // Whoever waits has somebody to wait for at every moment.
        assert_eq!(tracker.len(), 1);
        go.send(()).unwrap();
        tracker.wait().await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_is_finished_does_not_go_on() {
        let tracker = TaskTracker::new();
        assert_eq!(Unbroken::new(Box::pin(async { 1 }), Some(tracker.token())).await, 1);
        assert!(tracker.is_empty());
    }
}
