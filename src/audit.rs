//! Sinks for audit records: copies of what commits wrote, and attempts that wrote nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::AuditSink;
use crate::gather::Lines;
use crate::telemetry::{Metrics, SinkName};

/// How long each sink has to write what it still holds when the process ends.
const LAST_COPIES: Duration = Duration::from_secs(2);

/// Hands audit records on to every sink, without ever waiting for one.
#[derive(Clone, Default)]
pub struct Audit(Arc<Sinks>);

#[derive(Default)]
struct Sinks {
    sinks: Mutex<Vec<Sink>>,
    /// Of sinks that are no more, which may still have something to write.
    retired: Mutex<Vec<Lines>>,
    metrics: Metrics,
}

/// The sinks of another configuration: opened where they are new, and not in use yet.
pub struct NextSinks(Vec<(AuditSink, Option<Sink>)>);

struct Sink {
    of: AuditSink,
    records: Lines,
}

/// A sink could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("the audit file {path} cannot be opened: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("an audit sink cannot have a thread to write: {0}")]
    Thread(#[from] io::Error),
}

impl Audit {
    pub fn open(sinks: &[AuditSink], metrics: Metrics) -> Result<Self, SinkError> {
        let sinks = sinks.iter().map(|sink| Sink::open(sink, &metrics)).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Sinks { sinks: Mutex::new(sinks), retired: Mutex::default(), metrics })))
    }

    fn sinks(&self) -> MutexGuard<'_, Vec<Sink>> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Lines>> {
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
        retired.retain(|records| !records.is_over(Duration::ZERO));
        retired.extend(before.into_iter().map(|sink| sink.ended()));
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
        for sink in self.sinks().iter() {
            sink.records.add(record.as_bytes(), false);
        }
    }

    /// Has the sinks write what they still hold, and ends them. What is published afterwards is dropped.
    pub fn close(&self) {
        let sinks = std::mem::take(&mut *self.sinks());
        let ended: Vec<Lines> = sinks.into_iter().map(Sink::ended).collect();
        for records in ended.into_iter().chain(std::mem::take(&mut *self.retired())) {
            // A reader that takes nothing is not waited for: the process ends all the same.
            records.is_over(LAST_COPIES);
        }
    }
}

impl Sink {
    fn open(of: &AuditSink, metrics: &Metrics) -> Result<Self, SinkError> {
        match of {
            AuditSink::Stdout => Self::writing(of, "stdout", metrics, |lines| io::stdout().lock().write_all(lines)),
            AuditSink::File(path) => {
                let mut file = LogFile::open(path).map_err(|error| SinkError::File { path: path.clone(), error })?;
                Self::writing(of, "file", metrics, move |lines| file.write(lines))
            }
        }
    }

    fn writing(
        of: &AuditSink,
        name: &'static str,
        metrics: &Metrics,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, SinkError> {
        let mut writes = true;
        let dropped = metrics.audit_dropped.get_or_create_owned(&SinkName { sink: name });
        let records = Lines::to("audit", dropped, move |lines| {
            let written = write(lines);
            match &written {
                Ok(()) if !writes => {
                    tracing::info!(target: "cloakroom::audit", sink = name, "audit copies are written again");
                }
                // Once, and not for every record that follows.
                Err(error) if writes => {
                    tracing::warn!(target: "cloakroom::audit", sink = name, %error, "audit copies cannot be written");
                }
                _ => {}
            }
            writes = written.is_ok();
            written
        })?;
        Ok(Self { of: of.clone(), records })
    }

    /// Has what waits written, and no more.
    fn ended(self) -> Lines {
        self.records.clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.records.end();
    }
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

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if std::fs::metadata(&self.path).map_or(0, |now| now.ino()) != self.inode {
            *self = Self::open(&self.path)?;
        }
        // What follows a line that was cut off is a line of its own.
        let ended = if self.torn { self.file.write_all(b"\n") } else { Ok(()) };
        let written = ended.and_then(|()| self.file.write_all(lines));
        self.torn = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_is_not_taken_on_ends_with_all_that_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, path) = (Metrics::new(), folder.path().join("audit.jsonl"));
        let audit = Audit::open(&[], metrics.clone()).unwrap();
        let gone = AuditSink::File(folder.path().join("no/folder"));
        let sink = Sink::open(&AuditSink::File(path.clone()), &metrics).unwrap();
        let records = sink.records.clone();
        records.add(b"{}", false);
        drop(sink);
        assert!(records.is_over(Duration::from_secs(5)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
        assert!(audit.prepare(&[AuditSink::File(path), gone]).is_err());
    }
}
