//! Work that is carried to its end, whoever waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// A future that goes on by itself should whoever waits for it leave.
///
/// It is polled by who waits, and becomes a task only when it is dropped unfinished: as a task from the beginning it is
/// allocated, scheduled and joined for nothing nearly always.
pub struct Unbroken<F: Future<Output: Send> + Send + 'static> {
    work: Option<Pin<Box<F>>>,
    tracker: TaskTracker,
}

impl<F: Future<Output: Send> + Send + 'static> Unbroken<F> {
    /// The tracker is for whoever waits for what goes on by itself.
    pub fn new(work: Pin<Box<F>>, tracker: TaskTracker) -> Self {
        Self { work: Some(work), tracker }
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
            self.tracker.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use tokio::sync::oneshot;

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
        let mut unbroken = Unbroken::new(Box::pin(work), tracker.clone());
        assert!(Pin::new(&mut unbroken).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(tracker.is_empty());
        drop(unbroken);
        assert_eq!(tracker.len(), 1);
        go.send(()).unwrap();
        tracker.close();
        tracker.wait().await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_is_finished_does_not_go_on() {
        let tracker = TaskTracker::new();
        assert_eq!(Unbroken::new(Box::pin(async { 1 }), tracker.clone()).await, 1);
        assert!(tracker.is_empty());
    }
}
