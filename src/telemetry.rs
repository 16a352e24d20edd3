//! What operators see: logs, metrics, and one record for each exchange.

mod metrics;
mod record;

use std::io;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

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
    // The level was checked with the configuration.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process keeps what the first has set up.
    let _ = match log.format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init(),
        LogFormat::Pretty => registry.with(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))).try_init(),
    };
    guard
}
