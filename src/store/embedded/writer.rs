//! The thread that writes.

use std::iter;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::{self, Batch, Written};
use super::file::Opener;
use super::{Core, not_open};
use crate::clock::{Clock, Time};
use crate::store::{Commit, Outcome, Revocation, StoreError, TrailBounds};

/// Commits in one transaction: enough to share a sync, few enough that the first does not wait for long.
const BATCH: usize = 256;

/// How often touches are written and what is over is swept, and how long a failed file rests.
const TICK: Duration = Duration::from_secs(1);

/// Touches in one transaction.
const TOUCHES: usize = 4096;

/// Something to be written, and who waits for it.
pub(super) enum Job {
    Commit(Asked<Commit, Outcome>),
    Revoke(Asked<Revocation, ()>),
}

/// A job in the queue, where it takes room until it is answered.
pub(super) struct Queued {
    pub job: Job,
    pub _room: OwnedSemaphorePermit,
}

pub(super) struct Asked<I, O> {
    input: I,
    decided: Result<O, StoreError>,
    answer: oneshot::Sender<Result<O, StoreError>>,
}

impl<I, O> Asked<I, O> {
    pub fn new(input: I, answer: oneshot::Sender<Result<O, StoreError>>) -> Self {
        Self { input, decided: Err(StoreError::Closed), answer }
    }

    /// A damaged entry concerns who asked for it; any other failure, everybody in the transaction.
    fn decide(&mut self, decide: impl FnOnce(&I) -> Result<O, StoreError>) -> Result<(), StoreError> {
        self.decided = decide(&self.input);
        match &self.decided {
            Ok(_) | Err(StoreError::Damaged(_)) => Ok(()),
            Err(error) => Err(error.clone()),
        }
    }

    fn settle(self, failure: Option<&StoreError>) {
        // Who gave up waiting has dropped the other end; what was decided stands all the same.
        let _ = self.answer.send(failure.map_or(self.decided, |failure| Err(failure.clone())));
    }
}

impl Job {
    fn decide(&mut self, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        match self {
            Self::Commit(asked) => asked.decide(|commit| batch.commit(commit)),
            Self::Revoke(asked) => asked.decide(|revocation| batch.revoke(revocation)),
        }
    }

    fn settle(self, failure: Option<&StoreError>) {
        match self {
            Self::Commit(asked) => asked.settle(failure),
            Self::Revoke(asked) => asked.settle(failure),
        }
    }
}

pub(super) struct Writer {
    core: Arc<Core>,
    opener: Opener,
    queue: Receiver<Queued>,
    bounds: TrailBounds,
    clock: Clock,
    /// When to look for chores, though no job came.
    wake: Instant,
    /// When touches were last written.
    flushed: Instant,
    /// When the last sweep was that found an end, by the store's clock.
    swept: Time,
    /// When a failed file may be opened again: at once, but not more often than once per tick.
    retry: Instant,
}

/// What is to be done beside jobs.
struct Chores {
    touches: bool,
    sweep: Option<Time>,
}

impl Writer {
    pub fn new(core: Arc<Core>, opener: Opener, queue: Receiver<Queued>, bounds: TrailBounds, clock: Clock) -> Self {
        let now = Instant::now();
        Self { core, opener, queue, bounds, clock, wake: now, flushed: now, swept: Time(0), retry: now }
    }

    /// Writes until the store is dropped, and then what is left.
    ///
    /// With a writer that died, revocations could no longer be written, so nothing is read any more either.
    pub fn run(mut self) {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| self.work()));
        if ended.is_err() {
            tracing::error!("the store's writer died; the store serves nothing any more");
        }
        let database = self.core.database.swap(None);
        self.core.cache.clear();
        drop(database);
    }

    fn work(&mut self) {
        loop {
            let (jobs, open) = self.gather();
            self.turn(jobs, !open);
            if !open {
                break;
            }
        }
    }

    /// Waits for a job and takes all that have come meanwhile; false once no more can come.
    fn gather(&self) -> (Vec<Queued>, bool) {
        match self.queue.recv_timeout(self.wake.saturating_duration_since(Instant::now())) {
            Ok(first) => (iter::once(first).chain(self.queue.try_iter().take(BATCH - 1)).collect(), true),
            Err(RecvTimeoutError::Timeout) => (Vec::new(), true),
            Err(RecvTimeoutError::Disconnected) => (Vec::new(), false),
        }
    }

    /// One transaction at most; whoever is in it is answered after it.
    fn turn(&mut self, mut jobs: Vec<Queued>, last: bool) {
        let failure = self.write(&mut jobs, last).err();
        if let Some(failure) = &failure {
            self.fail(failure);
        }
        for queued in jobs {
            queued.job.settle(failure.as_ref());
        }
    }

    fn write(&mut self, jobs: &mut [Queued], last: bool) -> Result<(), StoreError> {
        let database = self.database()?;
        let chores = self.chores(&database, jobs.is_empty(), last)?;
        let idle = jobs.is_empty() && !chores.touches && chores.sweep.is_none();
        let more = !idle && self.transact(&database, jobs, &chores)?;
        if chores.touches {
            self.flushed = Instant::now();
        }
        if let Some(now) = chores.sweep.filter(|_| !more) {
            self.swept = now;
        }
        self.wake = Instant::now() + if more { Duration::ZERO } else { TICK };
        Ok(())
    }

    /// An idle store is not written to: a sweep of its own needs something to be due.
    fn chores(&self, database: &Database, idle: bool, last: bool) -> Result<Chores, StoreError> {
        let touches = !self.core.touches.is_empty() && (last || self.flushed.elapsed() >= TICK);
        let now = self.clock.now();
        let time_to_sweep = !last && now.since(self.swept) >= TICK;
        let sweep = time_to_sweep && (!idle || batch::is_due(&database.begin_read()?, now)?);
        Ok(Chores { touches, sweep: sweep.then_some(now) })
    }

    /// Decides and writes; true if a sweep has left something over.
    fn transact(&self, database: &Database, jobs: &mut [Queued], chores: &Chores) -> Result<bool, StoreError> {
        let transaction = database.begin_write()?;
        let mut batch = Batch::new(&transaction, self.bounds, &self.core.touches)?;
        for queued in jobs {
            queued.job.decide(&mut batch)?;
        }
        if chores.touches {
            batch.write_touches(TOUCHES)?;
        }
        let more = chores.sweep.map_or(Ok(false), |now| batch.sweep(now))?;
        let written = batch.finish()?;
        if written.any {
            // Durable at once, which is the default: commits that are not pile up pages in the file.
            transaction.commit()?;
            self.core.transactions.fetch_add(1, Ordering::Relaxed);
        } else {
            transaction.abort()?;
        }
        self.publish(written);
        Ok(more)
    }

    /// First the cache, then the touches: a reader that finds no touch waiting must find it in the cache.
    fn publish(&self, written: Written) {
        for (handle, kept) in written.entries {
            self.core.cache.replace(handle, kept);
        }
        self.core.touches.settle(&written.touches);
    }

    /// The database, opened again if it failed.
    fn database(&mut self) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.core.database.load_full() {
            return Ok(database);
        }
        if Instant::now() < self.retry {
            return Err(not_open());
        }
        self.retry = Instant::now() + TICK;
        let database = (self.opener)().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let database = Arc::new(database);
        self.core.database.store(Some(database.clone()));
        tracing::info!("the store's file is open again");
        Ok(database)
    }

    /// Takes the file from everybody until it is open again.
    ///
    /// Whether the transaction that failed is on disk is not known before, so the cache must not answer either.
    /// The database itself refuses to go on after a failed write.
    fn fail(&mut self, failure: &StoreError) {
        if self.core.database.swap(None).is_some() {
            tracing::error!(%failure, "the store's file failed and will be opened again");
        }
        self.core.cache.clear();
        self.wake = self.retry;
    }
}
