//! What another configuration cannot change while the process runs.

use serde::Serialize;

use crate::config::Config;

/// The keys that differ from those that the process was started with, and that only another start takes on: where it
/// listens, and where sessions are kept.
pub fn awaits_restart(started: &Config, now: &Config) -> Vec<String> {
    let url = |config: &Config| config.store.url.as_ref().map(|url| url.reveal().to_owned());
    let addresses = |config: &Config| config.listeners.iter().map(|l| l.address.clone()).collect::<Vec<_>>();
    let trail = |config: &Config| (config.audit.keep, config.audit.retain);
    let parts = [
        ("environment", started.environment != now.environment),
        ("store", json(&started.store) != json(&now.store) || url(started) != url(now)),
        ("listeners", addresses(started) != addresses(now)),
        ("admin.address", started.admin.address != now.admin.address),
        ("status.address", started.status.address != now.status.address),
        ("audit", trail(started) != trail(now)),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

fn json(part: &impl Serialize) -> Option<serde_json::Value> {
    serde_json::to_value(part).ok()
}
