//! What another configuration cannot change while the process runs.

use serde::Serialize;

use crate::config::Config;

/// The keys that differ from those that the process was started with, and that only another start takes on: where it
/// listens, and where sessions are kept.
pub fn awaits_restart(started: &Config, now: &Config) -> Vec<String> {
    // Secrets are not written out.
    let urls = |config: &Config| config.store.server_urls().map(|(_, url)| url.reveal().to_owned()).collect::<Vec<_>>();
    let addresses = |config: &Config| config.listeners.iter().map(|l| l.address.clone()).collect::<Vec<_>>();
    let trail = |config: &Config| (config.audit.keep, config.audit.retain);
    let parts = [
        ("environment", started.environment != now.environment),
        ("store", json(&started.store) != json(&now.store) || urls(started) != urls(now)),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::inspect;

    #[test]
    fn another_server_awaits_a_restart_however_it_is_named() {
        let config = |store: &str| {
            let text = format!(
                "version: 1\nstore: {{ kind: redis, {store} }}\nsession: {{ schema: {{ version: 1, fields: {{ a: {{ type: string }} }} }} }}\n\
                 routes: [{{ name: a, upstream: 'http://127.0.0.1:1' }}]\n"
            );
            inspect(&text, Path::new("a.yaml"), &|_| None).config.unwrap()
        };
        let (one, other) = ("redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0");
        for [before, after] in
            [["url: 'URL'", "url: 'URL'"], ["urls: ['URL']", "urls: ['URL']"], ["url: 'URL'", "urls: ['URL']"]]
        {
            let (before, after) = (config(&before.replace("URL", one)), config(&after.replace("URL", other)));
            assert_eq!(awaits_restart(&before, &before), [""; 0]);
            assert_eq!(awaits_restart(&before, &after), ["store"]);
        }
    }
}
