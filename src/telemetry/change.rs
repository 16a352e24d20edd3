//! What is logged and how, for as long as another configuration does not say otherwise.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat};

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// What changes the process's logs; a process has one log.
static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    writer: NonBlocking,
}

/// Has the process log through this writer, unless it logs already; says which.
pub(super) fn begin(log: &Log, writer: NonBlocking) -> bool {
    let (filter, filter_handle) = reload::Layer::new(filter(log));
    let (lines, lines_handle) = reload::Layer::new(lines(log, writer.clone()));
    let begun = tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok();
    if begun {
        let _ = CONTROL.set(Control { filter: filter_handle, lines: lines_handle, writer });
    }
    begun
}

/// Logs as another configuration says. Where the process's logs are not cloakroom's, they stay as they are.
pub fn change_logs(log: &Log) {
    let Some(control) = CONTROL.get() else { return };
    // They fail only once nothing is logged any more.
    let _ = control.filter.reload(filter(log));
    let _ = control.lines.reload(lines(log, control.writer.clone()));
}

fn filter(log: &Log) -> EnvFilter {
    // The level was checked with the configuration.
    EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn lines(log: &Log, writer: NonBlocking) -> Lines {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Pretty => lines.with_ansi(io::stderr().is_terminal()).boxed(),
    }
}
