use super::{above_zero, some, url};
use crate::config::{CacheMode, Config, Lifetime, Limits, Period, Problems, StoreFailure, StoreKind};

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
    match (store.kind, &store.url) {
        (StoreKind::Redis, None) => {
            let help = "store.url names it: redis://USER:${env:NAME}@HOST:6379/0";
            problems.error_with_help("/store/kind", "this store needs a server", help);
        }
        (StoreKind::Redis, Some(address)) if !url::is_redis(address.reveal()) => {
            let help = "write redis://USER:${env:NAME}@HOST:6379/0";
            problems.error_with_help("/store/url", "this is no URL of a Redis server", help);
        }
        (StoreKind::Embedded | StoreKind::Memory, Some(_)) => {
            problems.error("/store/url", "only the store `redis` has a server");
        }
        _ => {}
    }
    if store.on_failure == StoreFailure::Stale && store.cache.mode == CacheMode::Off {
        problems.error("/store/on_failure", "without a cache there is nothing to serve");
    }
    if store.kind == StoreKind::Redis && config.keyring.path.is_none() {
        let help = "keyring.path names the file that all of them have";
        problems.error_with_help("/store/kind", "sidecars that share a store need the same keys", help);
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
