use super::{above_zero, some};
use crate::config::{CacheMode, Config, Lifetime, Limits, Period, Problems, ServerUrl, Store, StoreFailure, StoreKind};

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    store(config, problems);
    keyring(config, problems);
    lifetime(&config.session.lifetime, problems);
    limits(&config.session.limits, problems);
    users(config, problems);
}

fn store(config: &Config, problems: &mut Problems) {
    let store = &config.store;
    let periods = [("timeout", store.timeout), ("connect_timeout", store.connect_timeout)];
    above_zero("/store", periods, problems);
    some("/store/cache", [("sessions", store.cache.sessions.into())], problems);
    servers(store, problems);
    if store.durability.wait_replicas > 0 && store.durability.timeout >= store.timeout {
        problems.error("/store/durability/timeout", "this is to be less than store.timeout, of which it is a part");
    }
    if store.on_failure == StoreFailure::Stale && store.cache.mode == CacheMode::Off {
        problems.error("/store/on_failure", "without a cache there is nothing to serve");
    }
    if store.kind == StoreKind::Redis && config.keyring.path.is_none() {
        let help = "keyring.path names the file that all of them have";
        problems.error_with_help("/store/kind", "sidecars that share a store need the same keys", help);
    }
}

/// One server, one service of sentinels, or one cluster.
fn servers(store: &Store, problems: &mut Problems) {
    let mut first: Option<ServerUrl> = None;
    let said =
        [("cluster", store.cluster), ("ca", store.ca.is_some()), ("durability", store.durability.wait_replicas > 0)];
    for (key, _) in said.into_iter().filter(|(_, is_said)| *is_said && store.kind != StoreKind::Redis) {
        problems.error(format!("/store/{key}"), "only the store `redis` has servers to which this applies");
    }
    for (path, url) in store.server_urls() {
        if store.kind != StoreKind::Redis {
            problems.error(path, "only the store `redis` has a server");
            continue;
        }
        let Some(url) = ServerUrl::parse(url.reveal()) else {
            let help =
                "write redis://USER:${env:NAME}@HOST:6379/0, rediss:// over TLS, or redis+sentinel://HOST/SERVICE";
            problems.error_with_help(path, "this is no URL of a Redis server", help);
            continue;
        };
        if store.cluster && (url.service.is_some() || url.database != 0) {
            problems.error(&*path, "a cluster has one database, and no sentinels");
        }
        if store.ca.is_some() && !url.tls && first.is_none() {
            problems.error("/store/ca", "without TLS nothing is certified; rediss:// speaks it");
        }
        match &first {
            Some(first) if !first.agrees_with(&url) => {
                problems.error(path, "this and the first URL differ in more than host and port");
            }
            Some(_) if !store.cluster && url.service.is_none() => {
                problems.error_with_help(
                    path,
                    "these are several servers",
                    "store.cluster says that they are a cluster",
                );
            }
            Some(_) => {}
            None => first = Some(url),
        }
    }
    if store.kind == StoreKind::Redis && store.server_urls().next().is_none() {
        let help = "store.url names it: redis://USER:${env:NAME}@HOST:6379/0";
        problems.error_with_help("/store/kind", "this store needs a server", help);
    }
}

/// What opens the sealed values should not lie where they lie.
fn keyring(config: &Config, problems: &mut Problems) {
    let Some(path) = &config.keyring.path else { return };
    if config.store.kind == StoreKind::Embedded && path.parent() == config.store.path.parent() {
        let message = "the keys lie beside the database, so that a copy of the one is a copy of the other";
        problems.warning_with_help("/keyring/path", message, "keep the keyring in a folder of its own");
    }
}

fn lifetime(lifetime: &Lifetime, problems: &mut Problems) {
    const BASE: &str = "/session/lifetime";
    above_zero(BASE, [("idle", lifetime.idle), ("absolute", lifetime.absolute)], problems);
    if lifetime.idle > lifetime.absolute {
        problems.error(format!("{BASE}/idle"), "the idle lifetime is longer than the absolute one");
    }
    let Some(touch) = lifetime.touch_interval else { return };
    if touch < Period::secs(1) {
        problems.error(format!("{BASE}/touch_interval"), "a touch every second is the most");
    }
    if touch >= lifetime.idle {
        problems.error(format!("{BASE}/touch_interval"), "sessions would expire before they are touched");
    }
}

fn users(config: &Config, problems: &mut Problems) {
    let Some(most) = config.session.max_per_user else { return };
    some("/session", [("max_per_user", most.into())], problems);
    if !config.session.schema.fields.values().any(|field| field.user) {
        let help = "mark the field that says it with `user: true`";
        problems.error_with_help("/session/max_per_user", "no field says whose session it is", help);
    }
}

fn limits(limits: &Limits, problems: &mut Problems) {
    const BASE: &str = "/session/limits";
    let bounds = [("field", limits.field.0), ("session", limits.session.0), ("context", limits.context.0)];
    some(BASE, bounds, problems);
    if limits.field > limits.session {
        problems.error(format!("{BASE}/field"), "one field may be larger than all of them together");
    }
}
