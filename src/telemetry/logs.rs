//! Where log lines go, and what is lost on the way.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::change;
use crate::config::Log;
use crate::gather::Lines;

/// How long the end of the process waits for what is still unwritten.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where the process's lines wait; a process has one log.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Sends the process's logs to standard error until the guard is dropped, which flushes them.
///
/// Standard output is left to the audit trail. Nothing happens if logs go somewhere already.
pub fn start_logs(log: &Log) -> io::Result<Flush> {
    let lines = Lines::to("log", Counter::default(), |batch| io::stderr().write_all(batch))?;
    let flush = Flush(lines.clone());
    // A second start in one process keeps what the first has set up.
    if change::begin(log, lines.clone()) {
        let _ = LINES.set(lines);
    }
    Ok(flush)
}

/// Ends the log when it is dropped, once what waits is written.
#[derive(Debug)]
pub struct Flush(Lines);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.end();
        // A reader that takes nothing does not keep the process from ending.
        self.0.is_over(LAST_WORDS);
    }
}

/// One event's line on its way to the others.
pub(super) struct Line {
    lines: Lines,
    urgent: bool,
}

/// Has events become lines: a warning, and whatever is worse, is urgent.
pub(super) struct Events(pub(super) Lines);

impl Write for Line {
    /// An event is written whole, in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Events {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line { lines: self.0.clone(), urgent: true }
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Line {
        Line { lines: self.0.clone(), urgent: *event.level() <= Level::WARN }
    }
}

/// The count of lines that were dropped, read when it is asked for.
#[derive(Debug)]
pub(super) struct Dropped;

impl EncodeMetric for Dropped {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let lines = LINES.get().map_or(0, Lines::lost);
        encoder.encode_counter::<[(&str, &str); 0], _, u64>(&lines, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
