//! Where log lines go, and what is lost on the way.

mod lines;

use std::io;
use std::sync::OnceLock;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

use super::change;
use crate::config::Log;

pub use lines::Flush;
pub(super) use lines::Lines;

/// Where the process's lines wait; a process has one log.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Sends the process's logs to standard error until the guard is dropped, which flushes them.
///
/// Standard output is left to the audit trail. Nothing happens if logs go somewhere already.
pub fn start_logs(log: &Log) -> io::Result<Flush> {
    let (lines, flush) = Lines::to(io::stderr())?;
    // A second start in one process keeps what the first has set up.
    if change::begin(log, lines.clone()) {
        let _ = LINES.set(lines);
    }
    Ok(flush)
}

/// The count of lines that were dropped, read when it is asked for.
#[derive(Debug)]
pub(super) struct Dropped;

impl EncodeMetric for Dropped {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let lines = LINES.get().map_or(0, Lines::dropped);
        encoder.encode_counter::<[(&str, &str); 0], _, u64>(&lines, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
