//! Whole programs on one server that dies and sleeps: what clients were told is compared with what the store holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloakroom::keyring::Keyring;
use serde_json::Value as Json;

use super::*;
use crate::binary::Binary;
use crate::durability::{Client, TOKEN, admin, echo};
use crate::redis_server::wait_for;
use crate::store::fixture::SECOND;

const SIDECARS: usize = 3;
/// Each has a session's field of its own, and writes one that all share.
const CLIENTS: usize = 24;
/// How long they write.
const LENGTH: Duration = Duration::from_secs(8);

fn file(folder: &std::path::Path, store: &str) -> std::path::PathBuf {
    let keyring = folder.join("keyring.json");
    Keyring::load_or_create(&keyring, Duration::ZERO, Clock::system().now()).unwrap();
    std::fs::write(folder.join("token"), TOKEN).unwrap();
    let fields: String =
        (0..CLIENTS).map(|n| format!("      n{n}: {{ type: integer, section: task, audit: value }}\n")).collect();
    let backend = echo();
    let path = folder.join("cloakroom.yaml");
    let text = format!(
        "version: 1
listeners: [{{ address: \"127.0.0.1:0\" }}]
admin: {{ address: \"127.0.0.1:0\", token: \"${{file:token}}\" }}
status: {{ address: \"127.0.0.1:0\" }}
store: {{ kind: redis, {store} }}
keyring: {{ path: ./keyring.json }}
audit: {{ sinks: [], keep: 100000 }}
session:
  schema:
    version: 1
    fields:
      shared: {{ type: integer, section: task, audit: value }}
{fields}routes:
  - {{ name: agent, upstream: \"http://{backend}\", write: [task], read: [task] }}
"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// What one client was told of what it asked to have written, in its order.
#[derive(Default)]
struct Told {
    done: Vec<u64>,
    refused: Vec<u64>,
    /// 503: it may have been written.
    unknown: Vec<u64>,
    slowest: Duration,
}

/// Writes its own field, and now and then the shared one, until it is told to stop; every value once.
fn write(client: usize, address: SocketAddr, id: &str, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    let mut connection = None;
    for number in 1u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => Client::connect(address).unwrap(),
        };
        let value = number * 100 + client as u64;
        let field = if number % 3 == 0 { "shared".into() } else { format!("n{client}") };
        let begun = Instant::now();
        match open.ask("GET", &format!("/?set={field}={value}"), id, "") {
            Ok((200, _)) => told.done.push(value),
            Ok((503, _)) => told.unknown.push(value),
            // Another client was there first.
            Ok((409 | 412, _)) => told.refused.push(value),
            Ok((code, body)) => panic!("{code}: {}", String::from_utf8_lossy(&body)),
            Err(error) => panic!("the sidecar hung up: {error}"),
        }
        told.slowest = told.slowest.max(begun.elapsed());
        connection = Some(open);
    }
    told
}

/// The values that a trail has for each field, oldest first.
fn written(server: &Server, handle: &str) -> (Vec<Json>, BTreeMap<String, Vec<u64>>) {
    let key = format!("prod:audit:{{{handle}}}");
    let entries: Vec<(String, Vec<String>)> = server.raw().say(&format!("XRANGE {key} - +"));
    let records: Vec<Json> = entries.iter().map(|(_, fields)| serde_json::from_str(&fields[1]).unwrap()).collect();
    let mut values: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for change in records.iter().flat_map(|record| record["changes"].as_array().unwrap()) {
        let value = change["after"].as_u64().unwrap();
        values.entry(change["field"].as_str().unwrap().to_owned()).or_default().push(value);
    }
    (records, values)
}

#[test]
fn every_acknowledged_write_of_many_sidecars_is_there_once_and_in_order() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let path = file(folder.path(), &format!("url: '{}', timeout: 500ms", server.url()));
    let sidecars: Vec<Binary> =
        (1..SIDECARS).map(|_| Binary::serve(&path)).chain([Binary::serve_on_one_core(&path)]).collect();
    let created = admin(&sidecars[0], "POST", "/v1/sessions", r#"{"fields":{}}"#);
    let (id, handle) = (created["session_id"].as_str().unwrap(), created["session"].as_str().unwrap());
    let stop = AtomicBool::new(false);
    let told: Vec<Told> = std::thread::scope(|scope| {
        let stop = &stop;
        let begin = |client: usize| {
            let address = sidecars[client % SIDECARS].proxy;
            scope.spawn(move || write(client, address, id, stop))
        };
        let clients: Vec<_> = (0..CLIENTS).map(begin).collect();
        let begun = Instant::now();
        for round in 0.. {
            std::thread::sleep(Duration::from_millis(300 + round * 137 % 400));
            if begun.elapsed() > LENGTH {
                break;
            }
            match round % 3 {
                0 => {
                    server.kill();
                    server.revive();
                }
                1 => {
                    server.freeze();
                    // Shorter than anybody waits, so that answers come late and are waited for twice.
                    std::thread::sleep(Duration::from_millis(300));
                    server.thaw();
                }
                _ => {
                    server.freeze();
                    std::thread::sleep(Duration::from_millis(1200));
                    server.thaw();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (records, values) = written(&server, handle);
    let all: Vec<u64> = values.values().flatten().copied().collect();
    let times = |value: u64| all.iter().filter(|other| **other == value).count();
    let (mut done, mut unknown, mut refused) = (0, 0, 0);
    for (client, told) in told.iter().enumerate() {
        assert!(told.slowest < 3 * SECOND, "client {client} waited for {:?}", told.slowest);
        for value in &told.done {
            assert_eq!(times(*value), 1, "{value} was acknowledged");
        }
        for value in &told.refused {
            assert_eq!(times(*value), 0, "{value} was refused");
        }
        for value in &told.unknown {
            assert!(times(*value) <= 1, "{value} was written {} times", times(*value));
        }
        // In the order in which one client asked, one after the other.
        let own = values.get(&format!("n{client}")).cloned().unwrap_or_default();
        assert!(own.is_sorted(), "{own:?}");
        (done, unknown, refused) = (done + told.done.len(), unknown + told.unknown.len(), refused + told.refused.len());
    }
    assert!(done > 500 && unknown > 0, "{done} done, {unknown} unknown, {refused} refused");
    // Nothing is there that nobody asked for, numbers have no gap, and the session says what was written last.
    assert!(all.len() <= done + unknown);
    let seqs: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64));
    wait_for("the store", || {
        let mut client = Client::connect(sidecars[0].admin).unwrap();
        client.ask("GET", "/readyz", TOKEN, "").is_ok_and(|(code, _)| code == 200).then_some(())
    });
    let session = admin(&sidecars[0], "GET", &format!("/v1/sessions/{handle}"), "");
    for (field, values) in &values {
        assert_eq!(session["fields"][field].as_u64(), values.last().copied(), "{field}");
    }
    assert_eq!(session["revision"].as_u64().unwrap(), all.len() as u64 + 1);
    let verdict = admin(&sidecars[1], "GET", &format!("/v1/sessions/{handle}/audit/verify"), "");
    assert_eq!(verdict["whole"], true, "{verdict}");
}

#[test]
fn sidecar_that_was_asleep_serves_nothing_that_was_revoked_meanwhile() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let path = file(folder.path(), &format!("url: '{}'", server.url()));
    let (awake, sleeper) = (Binary::serve(&path), Binary::serve(&path));
    for _ in 0..3 {
        let created = admin(&awake, "POST", "/v1/sessions", r#"{"fields":{}}"#);
        let (id, handle) = (created["session_id"].as_str().unwrap(), created["session"].as_str().unwrap());
        let mut client = Client::connect(sleeper.proxy).unwrap();
        wait_for("the session", || (client.ask("GET", "/", id, "").unwrap().0 == 200).then_some(()));
        sleeper.freeze();
        let mut asks = Client::connect(awake.admin).unwrap();
        assert_eq!(asks.ask("DELETE", &format!("/v1/sessions/{handle}"), TOKEN, "").unwrap().0, 204);
        std::thread::sleep(SECOND + SECOND / 10);
        // Asked before it wakes up, so that this is the first thing that it does.
        let early = std::thread::scope(|scope| {
            let asking = scope.spawn(|| client.ask("GET", "/", id, "").unwrap().0);
            std::thread::sleep(Duration::from_millis(20));
            sleeper.thaw();
            asking.join().unwrap()
        });
        assert!([401, 503].contains(&early), "{early}");
        wait_for("the refusal", || (client.ask("GET", "/", id, "").unwrap().0 == 401).then_some(()));
    }
}
