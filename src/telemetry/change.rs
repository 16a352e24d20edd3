//! What is logged and how, for as long as another configuration does not say otherwise.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::logs::Events;
use crate::config::{Log, LogFormat};
use crate::gather::Lines;

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Formatter = Box<dyn Layer<Filtered> + Send + Sync>;

/// What changes the process's logs; a process has one log.
static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    formatter: reload::Handle<Formatter, Filtered>,
    lines: Lines,
    /// Whether lines are JSON.
    json: AtomicBool,
}

/// Has the process log its lines there, unless it logs already; says which.
pub(super) fn begin(log: &Log, lines: Lines) -> bool {
    let (filter, filter_handle) = reload::Layer::new(filter(log));
    let (formatter, formatter_handle) = reload::Layer::new(formatter(log, lines.clone()));
    let begun = tracing_subscriber::registry().with(filter).with(formatter).try_init().is_ok();
    if begun {
        let json = AtomicBool::new(is_json(log));
        let _ = CONTROL.set(Control { filter: filter_handle, formatter: formatter_handle, lines, json });
    }
    begun
}

/// Logs as another configuration says. Where the process's logs are not cloakroom's, they stay as they are.
pub fn change_logs(log: &Log) {
    let Some(control) = CONTROL.get() else { return };
    // They fail only once nothing is logged any more.
    let _ = control.filter.reload(filter(log));
    let _ = control.formatter.reload(formatter(log, control.lines.clone()));
    control.json.store(is_json(log), Ordering::Relaxed);
}

/// Where a line may go that is JSON already.
pub(super) fn json_lines() -> Option<&'static Lines> {
    CONTROL.get().filter(|control| control.json.load(Ordering::Relaxed)).map(|control| &control.lines)
}

fn is_json(log: &Log) -> bool {
    matches!(log.format, LogFormat::Json)
}

fn filter(log: &Log) -> EnvFilter {
    // The level was checked with the configuration.
    EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn formatter(log: &Log, lines: Lines) -> Formatter {
    let layer = tracing_subscriber::fmt::layer().with_writer(Events(lines));
    match log.format {
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Pretty => layer.with_ansi(io::stderr().is_terminal()).boxed(),
    }
}
