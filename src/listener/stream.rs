//! The streams of an HTTP/2 connection: each a task, which can be ended without its siblings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// What ends the stream that this task serves.
    static STREAM: Arc<Taking>;
}

/// Runs the streams of HTTP/2 connections.
///
/// A stream whose client takes nothing is not looked at by the library until the client's window opens, and no body
/// can end it. Dropping its task resets it.
#[derive(Debug, Clone)]
pub struct Streams {
    stall: Duration,
}

impl Streams {
    pub fn new(stall: Duration) -> Self {
        Self { stall }
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let taking = Arc::new(Taking::new());
        let stall = self.stall;
        tokio::spawn(STREAM.scope(taking.clone(), async move {
            tokio::select! {
                biased;
                _ = stream => {}
                () = taking.cut.cancelled() => {}
                () = taking.stalled(stall) => {}
            }
        }));
    }
}

/// Whether a client takes what it is given.
#[derive(Debug)]
pub struct Taking {
    pub cut: Arc<CancellationToken>,
    base: Instant,
    /// Since when a frame waits to be taken, in milliseconds after the base; zero: none does.
    since: AtomicU64,
}

impl Taking {
    fn new() -> Self {
        Self { cut: Arc::default(), base: Instant::now(), since: AtomicU64::new(0) }
    }

    /// That of the stream which the current task serves; none in HTTP/1, whose connection is watched as a whole.
    pub fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// A frame was handed over; another is asked for once it is taken.
    pub fn handed(&self) {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now.max(1), Ordering::Release);
    }

    pub fn taken(&self) {
        self.since.store(0, Ordering::Release);
    }

    /// Resolves when a frame has waited for so long.
    async fn stalled(&self, limit: Duration) {
        let mut due = Instant::now() + limit;
        loop {
            tokio::time::sleep_until(due).await;
            let since = self.since.load(Ordering::Acquire);
            due = if since == 0 { Instant::now() + limit } else { self.base + Duration::from_millis(since) + limit };
            if due <= Instant::now() {
                return;
            }
        }
    }
}
