//! Where log lines go, and what is lost on the way.

use std::io;
use std::sync::OnceLock;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use super::change;
use crate::config::Log;

/// Log lines that may wait for a slow reader; beyond that they are dropped, and no request waits.
const WAITING_LINES: usize = 16 << 10;

/// What counts the lines that were dropped; a process has one log.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Sends the process's logs to standard error until the guard is dropped, which flushes them.
///
/// Standard output is left to the audit trail. Nothing happens if logs go somewhere already.
pub fn start_logs(log: &Log) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(io::stderr());
    let dropped = writer.error_counter();
    // A second start in one process keeps what the first has set up.
    if change::begin(log, writer) {
        let _ = DROPPED.set(dropped);
    }
    guard
}

/// The count of lines that were dropped, read when it is asked for.
#[derive(Debug)]
pub(super) struct Dropped;

impl EncodeMetric for Dropped {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let lines = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
        encoder.encode_counter::<[(&str, &str); 0], _, u64>(&(lines as u64), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
