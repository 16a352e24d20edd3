//! What is looked at before the first session is served.

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::Core;
use super::dial::{Unusable, hello, is_in_cluster};
use super::link::{Failure, Line};

/// Tries every command that will be needed, and warns of settings under which sessions can be lost.
///
/// # Errors
/// The user may not do what is needed, named by its first command, or the server is of another kind.
pub(super) async fn check(line: &Line, core: &Core, tag: &str, deadline: Instant) -> Result<(), Unusable> {
    kind(line, core, deadline).await?;
    permissions(line, core, tag, deadline).await?;
    eviction(line, deadline).await;
    persistence(line, deadline).await;
    Ok(())
}

async fn kind(line: &Line, core: &Core, deadline: Instant) -> Result<(), Unusable> {
    let is_in_cluster = line.ask(&hello(), deadline).await.is_ok_and(|answer| is_in_cluster(&answer));
    if is_in_cluster && !core.is_cluster {
        return Err(Unusable::new("store.cluster", "the server is part of a cluster, which this has to say"));
    }
    Ok(())
}

async fn permissions(line: &Line, core: &Core, tag: &str, deadline: Instant) -> Result<(), Unusable> {
    let probes = core.keys.probes(tag);
    let [hash, stream, sorted, feed] = &probes;
    let pattern = core.keys.every_session();
    let plain: [&[&str]; 7] = [
        &["HGETALL", hash],
        &["HMGET", hash, "probe"],
        &["XREVRANGE", stream, "+", "-", "COUNT", "1"],
        &["XREAD", "COUNT", "1", "STREAMS", feed, "0-0"],
        &["ZRANGE", sorted, "0", "-1"],
        &["ZREM", sorted, "probe"],
        &["SCAN", "0", "MATCH", &pattern, "COUNT", "1"],
    ];
    let replicas: Option<&[&str]> = core.wanted.map(|_| &["WAIT", "0", "1"][..]);
    for words in plain.into_iter().chain(replicas) {
        missing(line.ask(&command(words), deadline).await, words.first().copied().unwrap_or_default())?;
    }
    let call = core.scripts.probe.call(&[hash, stream, sorted, feed], &[]).command(true, false);
    let refused = missing(line.ask(&call, deadline).await, "EVAL and EVALSHA")?;
    match refused.and_then(|refused| redis::from_redis_value::<Vec<String>>(refused).ok()?.into_iter().next()) {
        Some(first) => Err(forbidden(&first)),
        None => Ok(()),
    }
}

/// Whatever else is the matter is found out, and told, by what comes.
fn missing(answer: Result<Value, Failure>, what: &str) -> Result<Option<Value>, Unusable> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Refused(error)) if error.code() == Some("NOPERM") => Err(forbidden(what)),
        Err(Failure::Refused(error)) if error.detail().is_some_and(|detail| detail.contains("unknown command")) => {
            Err(Unusable::server(format!("the server does not know {what}")))
        }
        Err(_) => Ok(None),
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(words);
    command
}

fn forbidden(what: &str) -> Unusable {
    Unusable::server(format!("this user lacks the permission for {what}"))
}

async fn eviction(line: &Line, deadline: Instant) {
    let Some(memory) = info(line, "memory", deadline).await else { return };
    let policy = setting(&memory, "maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" && setting(&memory, "maxmemory").is_some_and(|bytes| bytes != "0") {
        tracing::warn!(
            target: "cloakroom::store", policy,
            "the server may evict sessions when its memory is full; maxmemory-policy noeviction keeps them",
        );
    }
}

async fn persistence(line: &Line, deadline: Instant) {
    let Some(persistence) = info(line, "persistence", deadline).await else { return };
    if setting(&persistence, "aof_enabled") != Some("0") {
        return;
    }
    let snapshots = line.ask(&command(&["CONFIG", "GET", "save"]), deadline).await;
    let snapshots: Option<Vec<String>> = snapshots.ok().and_then(pairs);
    // Who may not ask is not warned: the server may well take snapshots.
    if snapshots.is_some_and(|pair| pair.get(1).is_some_and(String::is_empty)) {
        tracing::warn!(
            target: "cloakroom::store",
            "the server keeps nothing on disk: every session is gone when it restarts",
        );
    }
}

fn pairs(answer: Value) -> Option<Vec<String>> {
    let pairs: Vec<(String, String)> = redis::from_redis_value(answer).ok()?;
    Some(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())
}

async fn info(line: &Line, section: &str, deadline: Instant) -> Option<String> {
    redis::from_redis_value(line.ask(&command(&["INFO", section]), deadline).await.ok()?).ok()
}

fn setting<'t>(info: &'t str, name: &str) -> Option<&'t str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
