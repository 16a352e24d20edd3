//! Durable commits per second of the embedded store: many writers at once against one at a time.
//! `embedded_commits [FOLDER]`, the folder on the disk in question.
//!
//! Commits that wait together share a transaction, and with it the sync to disk; a writer that waits for each before
//! the next pays for a sync each. Both write to one file and take turns; of each the best turn counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::clock::{Clock, Time};
use cloakroom::handle::{Birth, CommitId, Handle, SessionId};
use cloakroom::store::{
    Base, Change, Commit, Draft, Effect, Embedded, Entry, Outcome, Proof, Record, Store, Stored, TrailBounds,
};

/// As the program has it: what is measured here allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WRITERS: usize = 64;
/// What sharing syncs is to be worth.
const WANTED: f64 = 20.0;
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);
const FIELDS: usize = 10;
const IDLE: u64 = 30 * 60_000;
const BOUNDS: TrailBounds = TrailBounds { keep: 1000, retain: Duration::from_secs(7 * 86_400) };
/// An audit record of the usual length.
const RECORD: &str = r#"{"at":"2026-11-21T10:01:42.000Z","env":"prod","session":"hdl_AAAAAAAAAAAAAAAAAAAAAA","action":"write","base":1,"commit":"cmt_AAAAAAAAAAAAAAAAAAAAAA","actor":{"kind":"backend","route":"agent","request_id":"9f86d081884c7d659a2feaa0c55ad015","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"},"changes":[{"field":"step","op":"set","before":"fp:3f2a9c51d07e88b4","after":"fp:b01d77c2a94f6e13"}],"key":"k-2026-11","mac":"b2xkIGZyaWVuZHMgYXJlIGJlc3QgZnJpZW5kcywgdGhleSBzYXk"}"#;

#[tokio::main]
async fn main() {
    let given = std::env::args().skip(1).find(|argument| argument != "--bench");
    let given = given.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let folder = tempfile::tempdir_in(&given).expect("a folder");
    let path = folder.path().join("sessions.db");
    let store = Arc::new(Embedded::open(&path, "bench", BOUNDS, Clock::system()).expect("a store"));
    let mut sessions = Vec::new();
    for _ in 0..WRITERS {
        sessions.push(Session::create(&store).await);
    }
    let (mut one, mut many) = (Turn::default(), Turn::default());
    for length in [WARM_UP].into_iter().chain([TURN; TURNS]) {
        let turns = [run(&store, &sessions[..1], length).await, run(&store, &sessions, length).await];
        if length == TURN {
            [one, many] = [one.best(turns[0]), many.best(turns[1])];
        }
    }
    println!("In {given}, where syncing a page that was written takes {:.2?}:\n", sync(folder.path()));
    println!("| writers | commits/s | commits per transaction | a transaction | of it CPU of the store's thread |");
    println!("|---|---|---|---|---|");
    one.print(1);
    many.print(WRITERS);
    println!("\nAt once: {:.1} times one at a time; wanted: {WANTED}.", many.rate() / one.rate());
    if let Some(busy) = many.busy {
        let each = busy.as_secs_f64() / many.commits as f64;
        let most = 1.0 / each / one.rate();
        println!(
            "Each of those takes {:.0} µs of CPU of the store's thread: were syncs free, {most:.1} times.",
            each * 1e6
        );
    }
}

/// What was done in a turn.
#[derive(Clone, Copy, Default)]
struct Turn {
    took: Duration,
    commits: u64,
    transactions: u64,
    /// CPU time of the store's thread; none where the system does not tell.
    busy: Option<Duration>,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.commits as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn best(self, other: Self) -> Self {
        if other.rate() > self.rate() { other } else { self }
    }

    fn print(&self, writers: usize) {
        let transactions = self.transactions.max(1);
        let each = |total: Duration| total / u32::try_from(transactions).unwrap_or(u32::MAX);
        let busy = self.busy.map_or("?".to_owned(), |busy| format!("{:.2?}", each(busy)));
        let shared = self.commits as f64 / transactions as f64;
        println!("| {writers} | {:.0} | {shared:.1} | {:.2?} | {busy} |", self.rate(), each(self.took));
    }
}

/// Has each session written by a writer of its own for so long.
async fn run(store: &Arc<Embedded>, sessions: &[Session], length: Duration) -> Turn {
    let (transactions, busy, begun) = (store.transactions(), busy(), Instant::now());
    let writer = |session: &Session| tokio::spawn(session.write(store.clone(), begun + length));
    let mut commits = 0;
    for writer in sessions.iter().map(writer).collect::<Vec<_>>() {
        commits += writer.await.expect("a writer that ends");
    }
    let busy = self::busy().zip(busy).map(|(after, before)| after - before);
    Turn { took: begun.elapsed(), commits, transactions: store.transactions() - transactions, busy }
}

#[derive(Clone, Copy)]
struct Session {
    handle: Handle,
    birth: Birth,
}

impl Session {
    async fn create(store: &Embedded) -> Self {
        let (id, birth, now) =
            (SessionId::random().expect("randomness"), Birth::random().expect("randomness"), Clock::system().now());
        let value = |n| (format!("task.field_{n}").into(), Stored { json: r#""as it was""#.into(), revision: 1 });
        let record = Record {
            birth,
            schema: 1,
            revision: 1,
            seq: 1,
            size: None,
            proof: Proof::Secret { hash: id.hash(), previous: None },
            user: None,
            created_at: now,
            last_active: now,
            ends_at: Time(now.0 + 12 * 3_600_000),
            idle: IDLE,
            touch_interval: IDLE / 30,
            fields: (0..FIELDS).map(value).collect(),
            unset: BTreeMap::new(),
            recent: Default::default(),
        };
        let session = Self { handle: id.handle(), birth };
        session.commit(store, Effect::Create(Box::new(record))).await;
        session
    }

    /// Counts up one field, waiting for each commit before the next; how many there were.
    async fn write(self, store: Arc<Embedded>, until: Instant) -> u64 {
        let entry = store.load(self.handle).await.expect("an answer").expect("a session");
        let Entry::Living(record) = &*entry else { panic!("a living session") };
        let (first, mut revision) = (record.revision, record.revision);
        while Instant::now() < until {
            revision = self.commit(&store, self.counting(revision)).await;
        }
        revision - first
    }

    fn counting(&self, revision: u64) -> Effect {
        let base = Base { birth: self.birth, revision, own: None };
        Effect::Change(Box::new(Change {
            base,
            if_match: None,
            set: vec![("task.field_0".into(), revision.to_string().into())],
            unset: Vec::new(),
            schema: None,
            claims_at: None,
            user: None,
            rotate: None,
            end: None,
            growth: None,
        }))
    }

    /// The revision after it.
    async fn commit(&self, store: &Embedded, effect: Effect) -> u64 {
        let record = Draft::new(RECORD).expect("an object");
        let id = CommitId::random().expect("randomness");
        let commit = Commit { id, handle: self.handle, now: Clock::system().now(), effect, record };
        match store.commit(commit).await.expect("a commit") {
            Outcome::Done { revision, .. } => revision,
            other => panic!("{other:?}"),
        }
    }
}

/// How long a sync of one written page takes, the median of many.
fn sync(folder: &Path) -> Duration {
    let mut file = File::create(folder.join("page")).expect("a file");
    let mut sync = || {
        file.rewind().and_then(|()| file.write_all(&[fastrand::u8(..); 4096])).expect("a page");
        let begun = Instant::now();
        file.sync_data().expect("a sync");
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (0..501).map(|_| sync()).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// CPU time of the store's thread so far, as Linux tells it.
fn busy() -> Option<Duration> {
    let is_store = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "store");
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten().map(|task| task.path());
    let stat = fs::read_to_string(tasks.into_iter().find(|task| is_store(task))?.join("schedstat")).ok()?;
    stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
