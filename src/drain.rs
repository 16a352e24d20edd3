//! Ending in order: who is told to stop, and who is waited for.

use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::unbroken::Unbroken;

/// Tells every part to stop taking on work, and waits for the tasks that it tracks.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs a task that the drain waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Work that the drain waits for, also once whoever waits for it has left.
    pub fn unbroken<F>(&self, work: Pin<Box<F>>) -> Unbroken<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Unbroken::new(work, Some(self.tasks.token()))
    }

    /// Resolves when no new work is to be taken on.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether no new work is to be taken on.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// A token that is cancelled when what is still running is to be cut off, if not before.
    pub fn cut(&self) -> CancellationToken {
        self.over.child_token()
    }

    /// Resolves when what is still running is to be cut off.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Waits for the tracked tasks for at most `patience`, then has them cut off and waits until they are gone.
    ///
    /// Says whether all ended by themselves.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.begun.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(patience, self.tasks.wait()).await.is_ok();
        self.over.cancel();
        // What ignores the cut is not waited for for ever: the process ends all the same.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        in_time
    }
}
