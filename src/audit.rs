//! Sinks for audit records: copies of what commits wrote, and attempts that wrote nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use crate::config::AuditSink;
use crate::telemetry::{Metrics, SinkName};

/// Records waiting for one sink. Beyond that its reader is too slow and copies are dropped: the store's stream is
/// the truth.
const WAITING: usize = 4096;

/// How long records gather before they are written together: a record that is handed over and written alone costs three
/// calls of the system and two changes of thread.
const GATHERING: Duration = Duration::from_millis(5);
/// Records that are written without waiting for more, in bytes.
const BATCH_BYTES: usize = 64 << 10;

/// How long each sink has to write what it still holds when the process ends.
const LAST_COPIES: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Hands audit records on to every sink, without ever waiting for one.
#[derive(Clone, Default)]
pub struct Audit(Arc<Sinks>);

#[derive(Default)]
struct Sinks {
    sinks: Mutex<Vec<Sink>>,
    /// Writers of sinks that are no more, which still have something to write.
    retired: Mutex<Vec<JoinHandle<()>>>,
    metrics: Metrics,
}

/// The sinks of another configuration: opened where they are new, and not in use yet.
pub struct NextSinks(Vec<(AuditSink, Option<Sink>)>);

struct Sink {
    of: AuditSink,
    records: SyncSender<Arc<str>>,
    writer: JoinHandle<()>,
    dropped: Counter,
}

/// A sink could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the audit file {path} cannot be opened: {error}")]
pub struct SinkError {
    path: PathBuf,
    error: io::Error,
}

impl Audit {
    pub fn open(sinks: &[AuditSink], metrics: Metrics) -> Result<Self, SinkError> {
        let sinks = sinks.iter().map(|sink| Sink::open(sink, &metrics)).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Sinks { sinks: Mutex::new(sinks), retired: Mutex::default(), metrics })))
    }

    fn sinks(&self) -> MutexGuard<'_, Vec<Sink>> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what of these sinks is not open yet.
    pub fn prepare(&self, wanted: &[AuditSink]) -> Result<NextSinks, SinkError> {
        let open: Vec<AuditSink> = self.sinks().iter().map(|sink| sink.of.clone()).collect();
        let next = wanted.iter().map(|of| {
            let opened = if open.contains(of) { None } else { Some(Sink::open(of, &self.0.metrics)?) };
            Ok((of.clone(), opened))
        });
        next.collect::<Result<_, _>>().map(NextSinks)
    }

    /// Records go to these sinks from now on; those that are no more write what they still hold.
    pub fn replace(&self, next: NextSinks) {
        let mut sinks = self.sinks();
        let mut before = std::mem::take(&mut *sinks);
        for (of, opened) in next.0 {
            let kept = before.iter().position(|sink| sink.of == of).map(|at| before.swap_remove(at));
            sinks.extend(opened.or(kept));
        }
        drop(sinks);
        let mut retired = self.retired();
        retired.retain(|writer| !writer.is_finished());
        retired.extend(before.into_iter().map(|sink| sink.writer));
    }

    /// Passes on the record of a commit.
    pub fn committed(&self, record: &str) {
        self.0.metrics.audit_records.inc();
        self.publish(record);
    }

    /// Passes on the record of an attempt that wrote nothing.
    pub fn attempted(&self, record: &str) {
        self.0.metrics.audit_attempts.inc();
        self.publish(record);
    }

    /// Passes a record on; one that a sink has no room for is counted and dropped there.
    fn publish(&self, record: &str) {
        let sinks = self.sinks();
        if sinks.is_empty() {
            return;
        }
        let record: Arc<str> = record.into();
        for sink in sinks.iter() {
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sink.records.try_send(record.clone()) {
                sink.dropped.inc();
            }
        }
    }

    /// Has the sinks write what they still hold, and ends them. What is published afterwards is dropped.
    pub fn close(&self) {
        let sinks = std::mem::take(&mut *self.sinks());
        let writers = sinks.into_iter().map(|sink| sink.writer);
        for writer in writers.chain(std::mem::take(&mut *self.retired())) {
            // A reader that takes nothing is not waited for: the process ends all the same.
            let patience = Instant::now() + LAST_COPIES;
            while !writer.is_finished() && Instant::now() < patience {
                std::thread::sleep(LOOK);
            }
        }
    }
}

impl Sink {
    fn open(of: &AuditSink, metrics: &Metrics) -> Result<Self, SinkError> {
        match of {
            AuditSink::Stdout => Ok(Self::spawn(of, "stdout", metrics, |line| io::stdout().lock().write_all(line))),
            AuditSink::File(path) => {
                let mut file = LogFile::open(path).map_err(|error| SinkError { path: path.clone(), error })?;
                Ok(Self::spawn(of, "file", metrics, move |line| file.write(line)))
            }
        }
    }

    fn spawn(
        of: &AuditSink,
        name: &'static str,
        metrics: &Metrics,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (records, waiting): (_, Receiver<Arc<str>>) = sync_channel(WAITING);
        let dropped = metrics.audit_dropped.get_or_create_owned(&SinkName { sink: name });
        let lost = dropped.clone();
        let writer = std::thread::spawn(move || {
            let (mut writes, mut batch) = (true, Vec::new());
            while let Some(count) = gather(&waiting, &mut batch) {
                let written = write(&batch);
                match &written {
                    Ok(()) if !writes => {
                        tracing::info!(target: "cloakroom::audit", sink = name, "audit copies are written again");
                    }
                    Ok(()) => {}
                    Err(error) => {
                        lost.inc_by(count);
                        // Once, and not for every record that follows.
                        if writes {
                            tracing::warn!(target: "cloakroom::audit", sink = name, %error, "audit copies cannot be written");
                        }
                    }
                }
                writes = written.is_ok();
            }
        });
        Self { of: of.clone(), records, writer, dropped }
    }
}

/// Takes the next records, each a line of the batch, and says how many they are; none at the end.
fn gather(waiting: &Receiver<Arc<str>>, batch: &mut Vec<u8>) -> Option<u64> {
    let mut next = Some(waiting.recv().ok()?);
    std::thread::sleep(GATHERING);
    batch.clear();
    let mut count = 0;
    while let Some(record) = next {
        batch.extend_from_slice(record.as_bytes());
        batch.push(b'\n');
        count += 1;
        next = if batch.len() < BATCH_BYTES { waiting.try_recv().ok() } else { None };
    }
    Some(count)
}

/// A file that is opened again when it was moved away.
struct LogFile {
    path: PathBuf,
    file: File,
    inode: u64,
    /// Whether the last line may stand there in part.
    torn: bool,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { path: path.to_owned(), file, inode, torn: false })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if std::fs::metadata(&self.path).map_or(0, |now| now.ino()) != self.inode {
            *self = Self::open(&self.path)?;
        }
        // What follows a line that was cut off is a line of its own.
        let ended = if self.torn { self.file.write_all(b"\n") } else { Ok(()) };
        let written = ended.and_then(|()| self.file.write_all(line));
        self.torn = written.is_err();
        written
    }
}
