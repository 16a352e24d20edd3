//! Sessions in one file of an embedded database, durable on commit, for one process.
//!
//! All writing is done by one thread, which takes every commit that waits into one transaction, so that many
//! writers share the cost of one sync to disk. Reading needs no thread: it sees the last transaction, mostly
//! through a cache of decoded entries that the writer keeps true.

mod batch;
mod cache;
mod file;
mod table;
#[cfg(test)]
mod tests;
mod touch;
mod writer;

use std::future::ready;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{Semaphore, oneshot};

use self::cache::Cache;
use self::file::Opener;
use self::touch::{Touch, Touches};
use self::writer::{Asked, Job, Queued, Writer};
use super::{Commit, Entry, Listener, Outcome, Reply, Revocation, Store, StoreError, Trail, TrailBounds};
use crate::clock::{Clock, Time};
use crate::handle::{Birth, Handle, UserKey};

pub use self::file::OpenError;

/// Commits that wait or are under way; beyond them callers wait, so that the queue takes bounded memory.
const QUEUE: usize = 1024;

/// A store in one file. Dropping it writes what is pending, ends its thread and gives the file free.
#[derive(Debug)]
pub struct Embedded {
    core: Arc<Core>,
    room: Arc<Semaphore>,
    /// Taken when the store is dropped, which is what tells the writer to end.
    jobs: Option<mpsc::Sender<Queued>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
#[derive(Debug)]
struct Core {
    /// Empty while the file is being opened again after a failure.
    database: ArcSwapOption<Database>,
    cache: Cache,
    touches: Touches,
    transactions: AtomicU64,
}

impl Embedded {
    /// Opens the store in that file, which is created where it is missing, but not its folder.
    ///
    /// A file serves one environment, that of its first opening. The clock says when to sweep what is over. Reads the whole file once, to find damage now.
    pub fn open(path: &Path, environment: &str, bounds: TrailBounds, clock: Clock) -> Result<Self, OpenError> {
        let database = file::create(path)?;
        file::claim(&database, environment)?;
        let path = path.to_owned();
        Self::start(database, Box::new(move || file::reopen(&path)), bounds, clock)
    }

    fn start(database: Database, opener: Opener, bounds: TrailBounds, clock: Clock) -> Result<Self, OpenError> {
        let core = Arc::new(Core {
            database: ArcSwapOption::from_pointee(database),
            cache: Cache::new(),
            touches: Touches::default(),
            transactions: AtomicU64::new(0),
        });
        let (jobs, queue) = mpsc::channel();
        let writer = Writer::new(core.clone(), opener, queue, bounds, clock);
        let writer = std::thread::Builder::new().name("store".into()).spawn(|| writer.run()).map_err(OpenError::Io)?;
        Ok(Self { core, room: Arc::new(Semaphore::new(QUEUE)), jobs: Some(jobs), writer: Some(writer) })
    }

    /// Durable transactions since the store was opened: fewer than commits where writers met.
    pub fn transactions(&self) -> u64 {
        self.core.transactions.load(Ordering::Relaxed)
    }

    /// A reader asks for the touch first: once it is written and no longer pending, the cache has it.
    async fn entry(&self, handle: Handle) -> Result<Option<Arc<Entry>>, StoreError> {
        let touch = self.core.touches.of(handle);
        let read = || self.core.read(|tables| table::entry(tables, handle));
        let mut entry = self.core.cache.find(handle, read).await?;
        if let (Some(entry), Some(touch)) = (&mut entry, touch) {
            entry.touch(touch.birth, touch.at);
        }
        Ok(entry)
    }

    /// Queues a job and waits for the transaction that it ends up in; it is done even if nobody waits any more.
    async fn ask<I, O>(&self, input: I, job: impl FnOnce(Asked<I, O>) -> Job) -> Result<O, StoreError> {
        let (answer, answered) = oneshot::channel();
        let room = self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(Queued { job: job(Asked::new(input, answer)), _room: room }).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Core {
    /// Reads on the caller's thread, from the last transaction.
    ///
    /// The database refuses everything after a failed read, so it is put away for the writer to open again.
    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.load_full().ok_or_else(not_open)?;
        let found = database.begin_read().map_err(StoreError::from).and_then(|tables| read(&tables));
        if let Err(StoreError::Unavailable(_)) = found {
            self.database.compare_and_swap(&database, None);
        }
        found
    }
}

fn not_open() -> StoreError {
    StoreError::Unavailable("its file is not open".into())
}

impl Store for Embedded {
    fn at_hand(&self, handle: Handle) -> Option<Arc<Entry>> {
        let touch = self.core.touches.of(handle);
        let mut entry = self.core.cache.get(handle)?;
        if let Some(touch) = touch {
            entry.touch(touch.birth, touch.at);
        }
        Some(entry)
    }

    fn load(&self, handle: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        Box::pin(self.entry(handle))
    }

    fn commit(&self, commit: Commit) -> Reply<'_, Outcome> {
        Box::pin(self.ask(commit, Job::Commit))
    }

    /// Written within about a second, or with the session's next commit.
    fn touch(&self, handle: Handle, birth: Birth, now: Time) -> Reply<'_, bool> {
        Box::pin(async move {
            let living = self.entry(handle).await?.is_some_and(|entry| entry.is_living(birth, now));
            if living {
                self.core.touches.note(handle, Touch { birth, at: now })?;
            }
            Ok(living)
        })
    }

    fn trail(&self, handle: Handle, before: Option<u64>, limit: usize) -> Reply<'_, Trail> {
        Box::pin(ready(self.core.read(|tables| table::trail(tables, handle, before, limit))))
    }

    fn sessions_of(&self, user: UserKey) -> Reply<'_, Vec<Handle>> {
        Box::pin(ready(self.core.read(|tables| table::sessions_of(tables, user))))
    }

    fn handles(&self, after: Option<Handle>, limit: usize) -> Reply<'_, Vec<Handle>> {
        Box::pin(ready(self.core.read(|tables| table::handles(tables, after, limit))))
    }

    fn revoke(&self, revocation: Revocation) -> Reply<'_, ()> {
        Box::pin(self.ask(revocation, Job::Revoke))
    }

    fn revocations(&self, now: Time) -> Reply<'_, Vec<Revocation>> {
        Box::pin(ready(self.core.read(|tables| table::revocations(tables, now))))
    }

    fn follow(&self, _: Listener) -> bool {
        false
    }
}

impl Drop for Embedded {
    /// Waits for at most the transaction under way and a last one, neither of which needs the caller's runtime.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A writer that died has said so already.
            let _ = writer.join();
        }
    }
}
