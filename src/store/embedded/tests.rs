//! What happens when the disk fails, and the races that no test from outside can arrange.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::sync::atomic::AtomicU8;

use futures_util::future::join_all;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use tempfile::TempDir;

use super::table::Kept;
use super::*;
use crate::handle::CommitId;
use crate::store::{Draft, Effect, Proof, Record, TokenProof};

const HEALTHY: u8 = 0;
const FAILS_ONCE: u8 = 1;
const FAILS: u8 = 2;
const PANICS: u8 = 3;

/// A file on a disk that fails when it is told to.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    health: Arc<AtomicU8>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.health.load(Ordering::SeqCst) {
            HEALTHY => return Ok(()),
            FAILS_ONCE => self.health.store(HEALTHY, Ordering::SeqCst),
            FAILS => {}
            _ => panic!("the disk is on fire"),
        }
        Err(io::Error::other("the disk is broken"))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

struct Fixture {
    store: Embedded,
    health: Arc<AtomicU8>,
    clock: Clock,
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, health) = (folder.path().join("sessions.db"), Arc::new(AtomicU8::new(HEALTHY)));
        let disk = {
            let health = health.clone();
            move |file: &mut OpenOptions| -> Result<Database, OpenError> {
                let file = FileBackend::new(file.read(true).write(true).open(&path)?)?;
                file::on(Disk { file, health: health.clone() })
            }
        };
        let database = disk(OpenOptions::new().create_new(true)).unwrap();
        file::prepare(&database).unwrap();
        let opener: Opener = Box::new(move || {
            let database = disk(&mut OpenOptions::new())?;
            file::check(&database).map(|()| database)
        });
        let clock = Clock::by_hand(Time(1_000_000));
        let bounds = TrailBounds { keep: 10, retain: std::time::Duration::from_secs(60) };
        let store = Embedded::start(database, opener, bounds, clock.clone()).unwrap();
        Self { store, health, clock, _folder: folder }
    }

    fn turn(&self, health: u8) {
        self.health.store(health, Ordering::SeqCst);
    }

    fn creation(&self) -> Commit {
        let effect = Effect::Create(Box::new(record(self.clock.now())));
        let record = Draft::new(r#"{"action":"create"}"#).unwrap();
        let handle = Handle(Birth::random().unwrap().0);
        Commit { id: CommitId::random().unwrap(), handle, now: self.clock.now(), effect, record }
    }
}

fn record(now: Time) -> Record {
    Record {
        birth: Birth::random().unwrap(),
        schema: 1,
        revision: 1,
        seq: 1,
        size: None,
        proof: Proof::Token(TokenProof { issuer: "issuer".into(), subject: "subject".into(), ..TokenProof::default() }),
        user: None,
        created_at: now,
        last_active: now,
        ends_at: Time::MAX,
        idle: 60_000,
        touch_interval: 2_000,
        fields: Default::default(),
        unset: Default::default(),
        recent: Default::default(),
    }
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[tokio::test]
async fn failed_transaction_answers_everybody_in_it_and_the_file_is_opened_again() {
    let fixture = Fixture::new();
    let before = fixture.creation();
    fixture.store.commit(before.clone()).await.unwrap();
    fixture.turn(FAILS_ONCE);
    let lost: Vec<_> = (0..8).map(|_| fixture.creation()).collect();
    let answers = join_all(lost.iter().map(|commit| fixture.store.commit(commit.clone()))).await;
    assert!(is_unavailable(&answers[0]));
    // Asked for again, each is done exactly once, whether or not its transaction had reached the disk.
    for commit in lost {
        assert!(matches!(fixture.store.commit(commit.clone()).await, Ok(Outcome::Done { revision: 1, seq: 1, .. })));
        assert_eq!(fixture.store.trail(commit.handle, None, 9).await.unwrap().records.len(), 1);
    }
    assert!(fixture.store.load(before.handle).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_answered_from_memory_while_the_disk_is_broken() {
    let fixture = Fixture::new();
    let commit = fixture.creation();
    fixture.store.commit(commit.clone()).await.unwrap();
    assert!(fixture.store.load(commit.handle).await.unwrap().is_some());
    fixture.turn(FAILS);
    assert!(is_unavailable(&fixture.store.commit(fixture.creation()).await));
    assert!(is_unavailable(&fixture.store.commit(fixture.creation()).await));
    assert!(is_unavailable(&fixture.store.load(commit.handle).await));
    fixture.turn(HEALTHY);
    while is_unavailable(&fixture.store.commit(fixture.creation()).await) {
        tokio::task::yield_now().await;
    }
    assert!(fixture.store.load(commit.handle).await.unwrap().is_some());
}

#[test]
fn file_that_vanished_or_was_emptied_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    drop(file::create(&path).unwrap());
    drop(file::reopen(&path).unwrap());
    std::fs::write(&path, "").unwrap();
    assert!(matches!(file::reopen(&path), Err(OpenError::Damaged(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(file::reopen(&path), Err(OpenError::Io(_))));
    assert!(!path.exists());
}

#[tokio::test]
async fn touch_outlives_a_failed_transaction() {
    let fixture = Fixture::new();
    let commit = fixture.creation();
    let Effect::Create(created) = &commit.effect else { panic!("not a creation") };
    fixture.store.commit(commit.clone()).await.unwrap();
    let touched = fixture.clock.now().plus(std::time::Duration::from_secs(1));
    assert!(fixture.store.touch(commit.handle, created.birth, touched).await.unwrap());
    fixture.turn(FAILS_ONCE);
    assert!(is_unavailable(&fixture.store.commit(fixture.creation()).await));
    fixture.store.commit(fixture.creation()).await.unwrap();
    let entry = fixture.store.load(commit.handle).await.unwrap().unwrap();
    assert!(matches!(&*entry, Entry::Living(record) if record.last_active == touched));
}

#[tokio::test]
async fn touch_waits_no_longer_once_a_commit_has_written_it() {
    let fixture = Fixture::new();
    let commit = fixture.creation();
    let Effect::Create(created) = &commit.effect else { panic!("not a creation") };
    let note = Effect::Note { birth: created.birth };
    fixture.store.commit(commit.clone()).await.unwrap();
    let touched = fixture.clock.now().plus(std::time::Duration::from_secs(1));
    assert!(fixture.store.touch(commit.handle, created.birth, touched).await.unwrap());
    assert!(!fixture.store.core.touches.is_empty());
    let note = Commit { id: CommitId::random().unwrap(), effect: note, ..commit.clone() };
    fixture.store.commit(note).await.unwrap();
    assert!(fixture.store.core.touches.is_empty());
    let entry = fixture.store.load(commit.handle).await.unwrap().unwrap();
    assert!(matches!(&*entry, Entry::Living(record) if record.last_active == touched));
}

#[tokio::test]
async fn dead_writer_leaves_nobody_waiting_and_nothing_readable() {
    let fixture = Fixture::new();
    let commit = fixture.creation();
    fixture.store.commit(commit.clone()).await.unwrap();
    assert!(fixture.store.load(commit.handle).await.unwrap().is_some());
    fixture.turn(PANICS);
    let answers = join_all((0..8).map(|_| fixture.store.commit(fixture.creation()))).await;
    assert!(answers.iter().all(|answer| *answer == Err(StoreError::Closed)), "{answers:?}");
    assert_eq!(fixture.store.commit(fixture.creation()).await, Err(StoreError::Closed));
    fixture.turn(HEALTHY);
    while !fixture.store.writer.as_ref().unwrap().is_finished() {
        tokio::task::yield_now().await;
    }
    assert!(is_unavailable(&fixture.store.load(commit.handle).await));
    drop(fixture);
}

fn kept(seconds: u64, bytes: usize) -> Kept {
    Kept { entry: Arc::new(Entry::Living(record(Time(seconds)).into())), bytes }
}

fn created_at(entry: Option<Arc<Entry>>) -> Option<u64> {
    match entry.as_deref() {
        Some(Entry::Living(record)) => Some(record.created_at.0),
        _ => None,
    }
}

#[tokio::test]
async fn slow_reader_never_puts_an_old_entry_over_a_new_one() {
    let handle = Handle([7; 16]);
    for (written, expected) in [
        (Some(kept(2, 100)), 2),
        // Gone, or too large for the cache: the next reader asks the file.
        (None, 3),
        (Some(kept(2, usize::MAX >> 8)), 3),
    ] {
        let cache = Cache::new();
        let slow = cache.find(handle, || {
            cache.replace(handle, written.clone());
            Ok(Some(kept(1, 100)))
        });
        assert_eq!(created_at(slow.await.unwrap()), Some(1));
        let next = cache.find(handle, || Ok(Some(kept(3, 100)))).await.unwrap();
        assert_eq!(created_at(next), Some(expected));
    }
}

#[tokio::test]
async fn cleared_cache_takes_nothing_that_was_read_before() {
    let (cache, handle) = (Cache::new(), Handle([7; 16]));
    let slow = cache.find(handle, || {
        cache.clear();
        Ok(Some(kept(1, 100)))
    });
    slow.await.unwrap();
    let next = cache.find(handle, || Ok(Some(kept(3, 100)))).await.unwrap();
    assert_eq!(created_at(next), Some(3));
}

#[test]
fn touch_noted_while_another_is_written_stays() {
    let (touches, handle, birth) = (Touches::default(), Handle([7; 16]), Birth([1; 16]));
    let (early, late) = (Touch { birth, at: Time(1) }, Touch { birth, at: Time(2) });
    touches.note(handle, late).unwrap();
    touches.note(handle, early).unwrap();
    assert_eq!(touches.of(handle), Some(late));
    touches.settle(&[(handle, early)]);
    assert_eq!(touches.of(handle), Some(late));
    touches.settle(&[(handle, late)]);
    assert!(touches.is_empty());
}
