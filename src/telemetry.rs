//! What operators see: logs, metrics, and one record for each exchange.

mod change;
mod metrics;
mod record;

use std::io;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::config::Log;

pub use change::change_logs;
pub use metrics::{Metrics, RateLimited, Reason, Reload, SinkName, WriteBack, WriteBacks};
pub use record::Record;

/// Log lines that may wait for a slow reader; beyond that they are dropped, and no request waits.
const WAITING_LINES: usize = 16 << 10;

/// Sends the process's logs to standard error until the guard is dropped, which flushes them.
///
/// Standard output is left to the audit trail. Nothing happens if logs go somewhere already.
pub fn start_logs(log: &Log) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(io::stderr());
    // A second start in one process keeps what the first has set up.
    change::begin(log, writer);
    guard
}
