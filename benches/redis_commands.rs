//! How many commands a Redis server sees per request: `redis_commands URL RATE SECONDS`.
//!
//! Serves one session at a steady rate, as the corridor does: a load per request, a touch where one is due, with the
//! default lifetimes. Two sidecars take turns. The witness is the server's own `INFO commandstats`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, Time};
use cloakroom::config;
use cloakroom::handle::{Birth, CommitId, Handle, SessionId};
use cloakroom::store::{Commit, Counts, Draft, Effect, Entry, Proof, Record, Redis, Store, TrailBounds};

const IDLE: u64 = 30 * 60_000;
const BOUNDS: TrailBounds = TrailBounds { keep: 1000, retain: Duration::from_secs(7 * 86_400) };

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [url, rate, seconds] = arguments.as_slice() else {
        eprintln!("redis_commands URL RATE SECONDS");
        return;
    };
    let (rate, seconds): (u64, u64) = (rate.parse().expect("a rate"), seconds.parse().expect("seconds"));
    let config =
        config::Store { kind: config::StoreKind::Redis, url: Some(url.clone().into()), ..config::Store::default() };
    let mut sidecars = Vec::new();
    for _ in 0..2 {
        sidecars
            .push(Redis::open(&config, "bench", BOUNDS, Clock::system(), Counts::default()).await.expect("a server"));
    }
    let (handle, birth) = create(&sidecars[0]).await;
    let mut raw = redis::Client::open(url.as_str()).and_then(|client| client.get_connection()).expect("a connection");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = calls(&mut raw);
    let requests = rate * seconds;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
    for request in 0..requests {
        ticks.tick().await;
        serve(&sidecars[request as usize % sidecars.len()], handle, birth).await;
    }
    report(&before, &calls(&mut raw), requests, seconds, rate);
}

async fn create(store: &Redis) -> (Handle, Birth) {
    let (id, birth, now) =
        (SessionId::random().expect("randomness"), Birth::random().expect("randomness"), Clock::system().now());
    let record = Record {
        birth,
        schema: 1,
        revision: 1,
        seq: 1,
        size: None,
        proof: Proof::Secret { hash: id.hash(), previous: None },
        user: None,
        created_at: now,
        last_active: now,
        ends_at: Time(now.0 + 12 * 3_600_000),
        idle: IDLE,
        touch_interval: IDLE / 30,
        fields: BTreeMap::new(),
        unset: BTreeMap::new(),
        recent: Default::default(),
    };
    let effect = Effect::Create(Box::new(record));
    let record = Draft::new(r#"{"action":"create"}"#).expect("an object");
    let commit = Commit { id: CommitId::random().expect("randomness"), handle: id.handle(), now, effect, record };
    store.commit(commit).await.expect("a commit");
    (id.handle(), birth)
}

async fn serve(store: &Redis, handle: Handle, birth: Birth) {
    let entry: Arc<Entry> = store.load(handle).await.expect("an answer").expect("a session");
    let Entry::Living(record) = &*entry else { panic!("a living session") };
    let now = Clock::system().now();
    if now.0 - record.last_active.0 >= record.touch_interval {
        store.touch(handle, birth, now).await.expect("a touch");
    }
}

fn calls(raw: &mut redis::Connection) -> BTreeMap<String, u64> {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(raw).expect("statistics");
    let one = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(one).collect()
}

/// What the links do by themselves does not grow with requests, and is told apart. What a script calls is counted by
/// the server too, and left out: it costs no round trip.
fn report(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, requests: u64, seconds: u64, rate: u64) {
    let grown = |names: &[&str]| -> u64 {
        names.iter().map(|name| after.get(*name).unwrap_or(&0) - before.get(*name).unwrap_or(&0)).sum()
    };
    let (reads, scripts, links) =
        (grown(&["hgetall"]), grown(&["evalsha", "eval"]), grown(&["hello", "ping", "xread"]));
    let per_request = (reads + scripts) as f64 / requests as f64;
    let per_second = links as f64 / seconds as f64 / 2.0;
    println!("| {rate} | {requests} | {reads} | {scripts} | {per_request:.5} | {per_second:.1} |");
}
