//! What no single type can refuse, as far as it can be said without any other room.
//!
//! Messages do not quote values, which may have come by reference; the line is shown with them.

pub(super) mod injector;

mod address;
mod header;
mod identity;
mod limit;
mod listener;
mod route;
mod session;
mod telemetry;
mod token;
mod url;

pub(super) use self::address::is_host;
use super::{Config, Period, Problems};

/// Whether keys may come from this URL, and secrets go to it.
pub fn is_server_url(text: &str) -> bool {
    url::is_server(text)
}

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    if config.version != 1 {
        problems.error_with_help("/version", "this version of the format is not known", "the only one is 1");
    }
    name("/environment", &config.environment, problems);
    listener::validate(config, problems);
    session::validate(config, problems);
    identity::validate(config, problems);
    token::validate(config, problems);
    route::validate(config, problems);
    telemetry::validate(config, problems);
}

/// Names that stand in store keys, in labels and in logs.
fn name(path: &str, name: &str, problems: &mut Problems) {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if name.is_empty() || name.starts_with(['_', '-']) || !name.bytes().all(letters) {
        let help = "use lower-case letters, digits, `_` and `-`, a letter or digit first";
        problems.error_with_help(path, "this is not a name", help);
    }
}

/// Refuses the lengths of time that have no meaning when they are zero.
fn above_zero<const N: usize>(base: &str, periods: [(&str, Period); N], problems: &mut Problems) {
    for (key, period) in periods {
        if period.as_millis() == 0 {
            problems.error(format!("{base}/{key}"), "a duration above zero is needed here");
        }
    }
}

/// Refuses the bounds that would let nothing through.
fn some<const N: usize>(base: &str, bounds: [(&str, u64); N], problems: &mut Problems) {
    for (key, bound) in bounds {
        if bound == 0 {
            problems.error(format!("{base}/{key}"), "zero would let nothing through");
        }
    }
}
