//! Limits that sidecars share through Redis.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom::clock::Clock;
use cloakroom::keyring::Keyring;
use serde_json::json;

use crate::binary::Binary;
use crate::house::{Fault, House, Plan};
use crate::redis_server::{Server, environment};

/// What sidecars share that count together.
struct Fleet {
    server: Arc<Server>,
    environment: String,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn new(server: Arc<Server>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Keyring::load_or_create(&folder.path().join("keyring.json"), Duration::ZERO, Clock::system().now()).unwrap();
        Self { server, environment: environment(), folder }
    }

    fn house(&self, limits: &str) -> House {
        let keyring = self.folder.path().join("keyring.json");
        few(Plan::new().redis(&self.server.url(), &self.environment, &keyring), limits)
    }

    /// The file of a sidecar that lets so many through to a backend that is not there.
    fn file(&self, limits: &str) -> PathBuf {
        let text = format!(
            "version: 1
environment: {}
listeners: [{{ address: '127.0.0.1:0' }}]
admin: {{ address: '127.0.0.1:0' }}
status: {{ address: '127.0.0.1:0' }}
store: {{ kind: redis, url: '{}' }}
keyring: {{ path: ./keyring.json }}
session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}
routes: [{{ name: few, upstream: 'http://127.0.0.1:9', session: none, rate_limits: [{limits}] }}]
",
            self.environment,
            self.server.url()
        );
        let path = self.folder.path().join("cloakroom.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.server.raw().say(&format!("KEYS {}:limits:*", self.environment));
        keys.sort();
        keys
    }
}

fn few(plan: Plan, limits: &str) -> House {
    plan.route(&format!(
        "name: few, match: {{ path: /few }}, upstream: 'http://BACKEND', session: optional, rate_limits: [{limits}]"
    ))
    .open()
}

fn cluster(per: &str, rest: &str) -> String {
    format!("{{ per: {per}, rate: 1/h, burst: 2, scope: cluster{rest} }}")
}

#[test]
fn sidecars_count_together() {
    let fleet = Fleet::new(Server::shared());
    let limits = ["client", "route", "session", "user"].map(|per| cluster(per, "")).join(", ");
    let (first, second) = (fleet.house(&limits), fleet.house(&limits));
    let guest = first.guest(json!({ "user_id": "u-1" }));
    first.get("/few").bearer(&guest).send().passed();
    second.get("/few").bearer(&guest).send().passed();
    for house in [&first, &second] {
        let reply = house.get("/few").bearer(&guest).send();
        let wait: u64 = reply.is(429, "rate-limited").header("retry-after").unwrap().parse().unwrap();
        assert!((3590..=3600).contains(&wait), "{wait}");
        assert_eq!(reply.header("ratelimit"), Some(&*format!("\"client\";r=0;t={wait}")));
        let all = ["client", "route", "session", "user"].map(|per| format!("\"{per}\";q=2;w=7200")).join(", ");
        assert_eq!(reply.header("ratelimit-policy"), Some(&*all));
    }
    let keys = fleet.keys();
    let expected = ["few:client:127.0.0.1", "few:route:all", &format!("few:session:{}", guest.handle)];
    for (key, expected) in keys.iter().zip(expected) {
        assert_eq!(*key, format!("{}:limits:{{{expected}}}", fleet.environment));
    }
    assert!(keys.len() == 4 && keys[3].contains("{few:user:usr_"), "{keys:?}");
    let mut raw = fleet.server.raw();
    for key in &keys {
        let left: u64 = raw.say(&format!("PTTL {key}"));
        assert!((7_100_000..=7_200_000).contains(&left), "{key} stays for {left} ms");
    }
}

#[test]
fn nobody_uses_up_anothers_shared_limit() {
    let fleet = Fleet::new(Server::shared());
    let house = fleet.house(&cluster("session", ""));
    let guest = house.visitor();
    for _ in 0..3 {
        house.get("/few").bearer(&guest.impostor()).send();
    }
    assert_eq!(fleet.keys(), [""; 0]);
    house.get("/few").bearer(&guest).send().passed();
    house.get("/few").bearer(&guest).send().passed();
    house.get("/few").bearer(&guest).send().is(429, "rate-limited");
    house.get("/few").bearer(&house.visitor()).send().passed();
}

#[test]
fn flood_over_the_limit_does_not_reach_the_store() {
    let fleet = Fleet::new(Server::start());
    let house = fleet.house(&cluster("client", ""));
    let mut raw = fleet.server.raw();
    house.get("/few").send().passed();
    house.get("/few").send().passed();
    house.get("/few").send().is(429, "rate-limited");
    let before = raw.calls("evalsha");
    for _ in 0..20 {
        house.get("/few").send().is(429, "rate-limited");
    }
    assert_eq!(raw.calls("evalsha"), before);
    assert_eq!(house.metric("cloakroom_rate_limited_total{route=\"few\",per=\"client\"}"), 21);
}

#[test]
fn each_limit_says_what_becomes_of_requests_that_cannot_be_counted() {
    for (rest, statuses) in [
        ("", [503, 503, 503]),
        (", on_failure: closed", [503, 503, 503]),
        (", on_failure: open", [200, 200, 200]),
        (", on_failure: local", [200, 200, 429]),
    ] {
        let house = few(Plan::new(), &cluster("client", rest));
        house.faults.set(Fault::Writes);
        assert_eq!([(); 3].map(|()| house.get("/few").send().status), statuses, "{rest}");
        if statuses[0] == 503 {
            let reply = house.get("/few").send();
            assert_eq!(reply.is(503, "store-unavailable").header("retry-after"), Some("1"));
            house.faults.set(Fault::None);
            house.get("/few").send().passed();
        }
        house.close();
    }
}

#[test]
fn alone_a_sidecar_counts_for_itself() {
    for plan in [Plan::new(), Plan::new().embedded()] {
        let house = few(plan, &cluster("client", ""));
        assert_eq!([(); 3].map(|()| house.get("/few").send().status), [200, 200, 429]);
        house.close();
    }
}

#[test]
fn server_that_hangs_holds_no_request_for_longer_than_the_stores_timeout() {
    let fleet = Fleet::new(Server::start());
    let two = |rest| format!("{}, {}", cluster("client", rest), cluster("route", rest));
    let houses = [("", 503), (", on_failure: open", 200), (", on_failure: local", 200)];
    let houses = houses.map(|(rest, status)| (fleet.house(&two(rest)), status));
    fleet.server.freeze();
    for (house, status) in &houses {
        for _ in 0..2 {
            let begun = Instant::now();
            assert_eq!(house.get("/few").send().status, *status);
            // The store's timeout is half a second, for all limits of a route together.
            assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
        }
    }
    fleet.server.thaw();
}

#[test]
fn three_sidecars_let_through_what_one_would() {
    const RATE: u64 = 100;
    const BURST: u64 = 10;
    let fleet = Fleet::new(Server::shared());
    let file = fleet.file(&format!("{{ per: route, rate: {RATE}/s, burst: {BURST}, scope: cluster }}"));
    let sidecars = [(); 3].map(|()| Binary::serve(&file));
    let through = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for sidecar in &sidecars {
            scope.spawn(|| flood(sidecar, begun + Duration::from_secs(4), &through));
        }
    });
    let (through, allowed) = (through.into_inner() as f64, BURST as f64 + RATE as f64 * begun.elapsed().as_secs_f64());
    assert!(through <= allowed * 1.01 && through >= allowed * 0.95, "{through} of {allowed}");
}

/// Asks one sidecar without pause. What is let through finds no backend.
fn flood(sidecar: &Binary, until: Instant, through: &AtomicU64) {
    let stream = TcpStream::connect(sidecar.proxy).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answers = BufReader::new(stream);
    while Instant::now() < until {
        answers.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let problem = problem(&mut answers);
        if problem.contains("upstream-unavailable") {
            through.fetch_add(1, Ordering::Relaxed);
        } else {
            assert!(problem.contains("rate-limited"), "{problem}");
        }
    }
}

/// The body of an answer, which is read to its end.
fn problem(from: &mut impl BufRead) -> String {
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.trim().parse().unwrap();
        } else if line == "\r\n" {
            let mut body = vec![0; length];
            from.read_exact(&mut body).unwrap();
            return String::from_utf8(body).unwrap();
        }
    }
}
