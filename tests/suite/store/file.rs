//! What the embedded home promises beyond the contract, of its file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use cloakroom::clock::{Clock, Time};
use cloakroom::store::{Change, Effect, Embedded, Entry, OpenError, Outcome, Revocation, Revoked, Store};
use redb::{ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

use super::fixture::*;

fn open(path: &Path, clock: &Clock) -> Result<Embedded, OpenError> {
    Embedded::open(path, "test", bounds(), clock.clone())
}

#[test]
fn a_file_of_another_environment_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions.db");
    drop(open(&path, &clock()).unwrap());
    let refused = Embedded::open(&path, "prod", bounds(), clock()).unwrap_err();
    assert_eq!(refused.to_string(), "it belongs to environment 'test': each environment has a file of its own");
    assert!(open(&path, &clock()).is_ok());
}

fn refusal(path: &Path) -> String {
    match open(path, &clock()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let (_folder, path) = file();
    let clock = clock();
    let (handle, owner) = (handle(), user());
    let mut new = record(clock.now());
    new.user = Some(owner);
    let revocation = Revocation { of: Revoked::User { user: owner, not_before: clock.now() }, until: Time::MAX };
    let set = Change { set: fields(&[("a", "1")]), ..change(new.birth, 1) };
    let set = commit(handle, clock.now(), Effect::Change(Box::new(set)));
    let touched = clock.now().plus(SECOND);

    let store = open(&path, &clock).unwrap();
    let created = store.commit(commit(handle, clock.now(), create(new.clone()))).await.unwrap();
    assert_done(&created, 1, 1);
    assert_done(&store.commit(set.clone()).await.unwrap(), 2, 2);
    store.revoke(revocation.clone()).await.unwrap();
    assert!(store.touch(handle, new.birth, touched).await.unwrap());
    drop(store);

    let store = open(&path, &clock).unwrap();
    let Some(Entry::Living(read)) = store.load(handle).await.unwrap().as_deref().cloned() else { panic!("it is gone") };
    assert_eq!((read.birth, read.revision, read.seq, read.last_active), (new.birth, 2, 2, touched));
    assert_eq!(&*read.fields["a"].json, "1");
    assert_eq!(store.trail(handle, None, 9).await.unwrap().records.len(), 2);
    assert_eq!(store.sessions_of(owner).await.unwrap(), [handle]);
    assert_eq!(store.handles(None, 9).await.unwrap(), [handle]);
    assert_eq!(store.revocations(clock.now()).await.unwrap(), [revocation]);
    assert_eq!(store.commit(set).await.unwrap(), Outcome::Done { revision: 2, seq: 2, record: None });
}

#[tokio::test]
async fn file_is_readable_by_its_owner_alone() {
    let (_folder, path) = file();
    let _store = open(&path, &clock()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn second_open_of_the_same_file_is_refused_until_the_first_is_dropped() {
    let (_folder, path) = file();
    let store = open(&path, &clock()).unwrap();
    assert_eq!(refusal(&path), "it is already open, most likely in another process: an embedded store serves one");
    drop(store);
    open(&path, &clock()).unwrap();
}

#[test]
fn missing_folder_is_named_and_not_created() {
    let (folder, _) = file();
    let path = folder.path().join("missing").join("sessions.db");
    assert_eq!(refusal(&path), "its folder does not exist");
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn file_of_something_else_is_refused_and_left_alone() {
    let (_folder, path) = file();
    for text in ["{}", &"not a database, but long enough to hold a header ".repeat(4000)] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(refusal(&path), "it is not a cloakroom database");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn database_of_another_program_is_refused() {
    let (_folder, path) = file();
    let other: TableDefinition<'_, &str, u64> = TableDefinition::new("other");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(other).unwrap().insert("a", 1).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(refusal(&path), "it is not a cloakroom database");
}

#[test]
fn database_of_a_newer_cloakroom_is_refused() {
    let (_folder, path) = file();
    drop(open(&path, &clock()).unwrap());
    let meta: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(meta).unwrap().insert(&b"layout"[..], &7u64.to_be_bytes()[..]).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(refusal(&path), "a newer cloakroom wrote it (layout 7; this one knows 1)");
}

#[tokio::test]
async fn damaged_database_is_refused() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    for _ in 0..20 {
        store.commit(commit(handle(), clock.now(), create(record(clock.now())))).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for damaged in [cut(&whole), scratched(&whole)] {
        std::fs::write(&path, damaged).unwrap();
        let refusal = refusal(&path);
        assert!(refusal.starts_with("it is a damaged database"), "{refusal}");
        assert!(!refusal.contains('\n'), "{refusal}");
    }
}

fn cut(whole: &[u8]) -> Vec<u8> {
    whole[..whole.len() / 2].to_vec()
}

/// Changes every byte that belongs to an entry.
fn scratched(whole: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(whole).into_owned();
    assert!(text.contains("created_at"));
    let mut bytes = whole.to_vec();
    let places: Vec<_> = whole.windows(10).enumerate().filter(|(_, window)| window == b"created_at").collect();
    for (at, _) in places {
        bytes[at] = b'X';
    }
    bytes
}

#[tokio::test]
async fn writers_that_meet_share_a_transaction() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let before = store.transactions();
    let commits = (0..64).map(|_| store.commit(commit(handle(), clock.now(), create(record(clock.now())))));
    for outcome in futures_util::future::join_all(commits).await {
        assert_done(&outcome.unwrap(), 1, 1);
    }
    let transactions = store.transactions() - before;
    assert!((1..=16).contains(&transactions), "{transactions} transactions for 64 commits that waited together");
}

#[tokio::test]
async fn commit_that_changes_nothing_is_not_written() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let handle = handle();
    store.commit(commit(handle, clock.now(), create(record(clock.now())))).await.unwrap();
    let before = store.transactions();
    for _ in 0..10 {
        let again = store.commit(commit(handle, clock.now(), create(record(clock.now())))).await.unwrap();
        assert_eq!(again, Outcome::Exists);
    }
    assert_eq!(store.transactions(), before);
}

#[tokio::test]
async fn touches_are_seen_at_once_and_written_together() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let new = record(clock.now());
    let (handle, birth) = (handle(), new.birth);
    store.commit(commit(handle, clock.now(), create(new))).await.unwrap();
    let before = store.transactions();
    for _ in 0..1000 {
        clock.advance(SECOND / 10);
        assert!(store.touch(handle, birth, clock.now()).await.unwrap());
        let Some(Entry::Living(read)) = store.load(handle).await.unwrap().as_deref().cloned() else { panic!("gone") };
        assert_eq!(read.last_active, clock.now());
    }
    let transactions = store.transactions() - before;
    assert!(transactions < 100, "{transactions} transactions for 1000 touches");
}

#[tokio::test]
async fn file_does_not_grow_with_commits_to_the_same_session() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let new = record(clock.now());
    let (handle, birth) = (handle(), new.birth);
    store.commit(commit(handle, clock.now(), create(new))).await.unwrap();
    for _ in 0..600 {
        store.commit(commit(handle, clock.now(), Effect::Note { birth })).await.unwrap();
    }
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 1 << 20, "{size} bytes for one session and {KEEP} records");
}

#[tokio::test]
async fn indexes_hold_one_row_for_each_entry() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let mut new = record(clock.now());
    new.user = Some(user());
    let (first, second, birth) = (handle(), handle(), new.birth);
    for handle in [first, second] {
        store.commit(commit(handle, clock.now(), create(new.clone()))).await.unwrap();
        for _ in 0..3 {
            clock.advance(SECOND);
            assert!(store.touch(handle, birth, clock.now()).await.unwrap());
            let owner = Change { user: Some(Some(user())), ..change(birth, 1) };
            store.commit(commit(handle, clock.now(), Effect::Change(Box::new(owner)))).await.unwrap();
        }
    }
    store.commit(commit(second, clock.now(), Effect::Revoke { birth: None, until: Time::MAX })).await.unwrap();
    drop(store);
    let database = redb::Database::create(&path).unwrap();
    let read = database.begin_read().unwrap();
    let rows = ["entries", "expiry", "users", "trails", "trail_expiry"].map(|name| {
        let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(name);
        read.open_table(table).unwrap().len().unwrap()
    });
    assert_eq!(rows, [2, 2, 1, 2, 1]);
}

/// A reader is never shown an entry older than a commit that was answered before it asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_never_sees_less_than_what_was_answered() {
    let (_folder, path) = file();
    let clock = clock();
    let store = Arc::new(open(&path, &clock).unwrap());
    let new = record(clock.now());
    let (handle, birth) = (handle(), new.birth);
    store.commit(commit(handle, clock.now(), create(new))).await.unwrap();
    let answered = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let reader = tokio::spawn({
        let (store, answered) = (store.clone(), answered.clone());
        async move {
            while answered.load(std::sync::atomic::Ordering::Acquire) < 200 {
                let least = answered.load(std::sync::atomic::Ordering::Acquire);
                let entry = store.load(handle).await.unwrap();
                let Some(Entry::Living(read)) = entry.as_deref() else { panic!("gone") };
                assert!(read.revision >= least, "{} after {least}", read.revision);
                tokio::task::yield_now().await;
            }
        }
    });
    for revision in 1..200 {
        let set = Change { set: fields(&[("a", "1")]), ..change(birth, revision) };
        store.commit(commit(handle, clock.now(), Effect::Change(Box::new(set)))).await.unwrap();
        answered.store(revision + 1, std::sync::atomic::Ordering::Release);
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn caller_who_gives_up_does_not_lose_the_commit() {
    let (_folder, path) = file();
    let clock = clock();
    let store = open(&path, &clock).unwrap();
    let handle = handle();
    let asked = commit(handle, clock.now(), create(record(clock.now())));
    let mut waiting = store.commit(asked.clone());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    assert_eq!(store.commit(asked).await.unwrap(), Outcome::Done { revision: 1, seq: 1, record: None });
}
