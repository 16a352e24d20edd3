use tracing_subscriber::EnvFilter;

use super::some;
use super::url::is_collector;
use crate::config::{Config, Problems};

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    some("/audit", [("keep", config.audit.keep.into())], problems);
    log_level("/log/level", &config.log.level, problems);
    let tracing = &config.tracing;
    if tracing.otlp.as_deref().is_some_and(|url| !is_collector(url)) {
        let help = "a collector that takes OTLP over gRPC is said as `http://HOST:PORT`";
        problems.error_with_help("/tracing/otlp", "this is no collector's address", help);
    }
    if !(0.0..=1.0).contains(&tracing.sample) {
        problems.error_with_help("/tracing/sample", "a share is from 0 to 1", "`0.01` is one trace in a hundred");
    }
}

pub(super) fn log_level(path: &str, level: &str, problems: &mut Problems) {
    if !is_filter(level) {
        let help = "a level is `error`, `warn`, `info`, `debug` or `trace`; a filter is `info,TARGET=debug`";
        problems.error_with_help(path, "this is neither a level nor a filter", help);
    }
}

/// A bare word that is no level would be a target of which everything is logged, and nothing else.
fn is_filter(level: &str) -> bool {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let sound = |part: &str| part.contains(['=', '[', ':']) || known.contains(&part.trim().to_lowercase().as_str());
    level.split(',').all(sound) && EnvFilter::try_new(level).is_ok()
}
