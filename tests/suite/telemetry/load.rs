//! Figures against what a load generator and the backend have counted themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};

use super::sidecar::{Guest, Sidecar, send};
use crate::house::{Answer, Gate};

const CLIENTS: usize = 8;
const ROUNDS: usize = 24;

/// What clients were answered, and what the backend meant to do, by name.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<String, f64>>);

impl Counts {
    fn add(&self, name: impl Into<String>) {
        *self.0.lock().unwrap().entry(name.into()).or_default() += 1.0;
    }
}

/// What the backend does to a request is what its query says; what it means by that, it counts.
fn script(sidecar: &Sidecar, gate: &Gate, meant: &Arc<Counts>) {
    let (gate, meant) = (gate.clone(), meant.clone());
    sidecar.backend.always(move |seen| {
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let wrote = |outcome: &str| {
            let route = path.trim_start_matches('/');
            meant.add(format!("write_backs_total{{route=\"{route}\",outcome=\"{outcome}\"}}"));
        };
        match query.split_once('=').unwrap_or((query, "")) {
            ("status", code) => Answer::new(code.parse().unwrap()),
            ("set", value) => {
                wrote("committed");
                Answer::set(value)
            }
            ("same", _) => {
                wrote("unchanged");
                Answer::set("theme=\"light\"")
            }
            ("reject", _) => {
                wrote("rejected");
                Answer::set("unknown=1")
            }
            ("conflict", _) => {
                wrote("conflict");
                Answer::set("step=7").header("cloakroom-if-match", "\"999\"")
            }
            ("start", _) => {
                wrote("started");
                Answer::ok().header("cloakroom-start", "user_id=\"u-9\"")
            }
            ("end", _) => {
                wrote("committed");
                Answer::ok().header("cloakroom-end", "?1")
            }
            ("hang", _) => Answer::ok().held(&gate),
            ("drip", _) => Answer::ok().body("first").wait(&gate).body("last"),
            _ => Answer::ok(),
        }
    });
}

/// One client's requests: each kind once a round, in an order of its own.
fn storm(sidecar: &Sidecar, client: usize, guest: &Guest, told: &Counts) {
    for round in 0..ROUNDS {
        let set = format!("/chat?set=step={client}{round}");
        let mut kinds = vec![
            ("chat", "GET", "/chat".to_owned(), true),
            ("chat", "POST", "/chat?status=404".into(), true),
            ("chat", "GET", "/chat?status=529".into(), true),
            ("chat", "GET", set, true),
            ("chat", "GET", "/chat?same".into(), true),
            ("chat", "GET", "/chat?reject".into(), true),
            ("chat", "GET", "/chat?conflict".into(), true),
            ("chat", "GET", "/chat".into(), false),
            ("strict", "GET", "/strict".into(), true),
            ("narrow", "GET", "/narrow".into(), false),
            ("login", "GET", "/login?start".into(), false),
            ("none", "GET", "/nowhere".into(), true),
        ];
        kinds.rotate_left((client + round) % 12);
        for (route, method, target, proven) in kinds {
            let bearer = format!("Bearer {}", guest.id);
            let headers: &[(&str, &str)] = if proven { &[("authorization", &bearer)] } else { &[] };
            let answer = sidecar.ask(method, &target, headers, "");
            let own = answer.head.contains("content-type: application/problem+json");
            let outcome = if own { "refused" } else { "passed" };
            told.add(format!("requests_total{{route=\"{route}\",code=\"{}\",outcome=\"{outcome}\"}}", answer.status));
            if own {
                let problem: Json = serde_json::from_str(&answer.body).unwrap();
                match problem["type"].as_str().unwrap() {
                    "urn:cloakroom:problem:rate-limited" => {
                        told.add(format!("rate_limited_total{{route=\"{route}\",per=\"client\"}}"));
                    }
                    "urn:cloakroom:problem:credential-missing" => told.add("missing"),
                    _ => {}
                }
            }
        }
    }
}

/// Clients that leave: while the backend thinks, and in the middle of its answer.
fn leave(sidecar: &Sidecar, guest: &Guest, told: &Counts) {
    use std::io::Read as _;
    let bearer = format!("Bearer {}", guest.id);
    let headers = [("authorization", bearer.as_str())];
    // By a name of its own: others ask meanwhile, and a client that leaves too early has asked nothing.
    let hanging = format!("/chat?hang={}", guest.handle);
    let hung = send(sidecar.binary.proxy, "GET", &hanging, &headers, "");
    let mut drip = send(sidecar.binary.proxy, "GET", "/chat?drip", &headers, "");
    sidecar.backend.wait_for_target(&hanging);
    let mut first = [0; 512];
    let mut seen = String::new();
    while !seen.contains("first") {
        let read = drip.read(&mut first).unwrap();
        seen.push_str(&String::from_utf8_lossy(&first[..read]));
    }
    drop((hung, drip));
    told.add("requests_total{route=\"chat\",code=\"0\",outcome=\"aborted\"}");
    told.add("requests_total{route=\"chat\",code=\"200\",outcome=\"aborted\"}");
}

fn agree(store: &str) {
    let sidecar = Sidecar::run(&format!(
        "{store}\nidentity: {{ bad_credentials: null }}\naudit: {{ sinks: [stdout], keep: 100000 }}"
    ));
    let (gate, meant, told) = (Gate::closed(), Arc::new(Counts::default()), Arc::new(Counts::default()));
    script(&sidecar, &gate, &meant);
    let guests: Vec<Guest> = (0..CLIENTS).map(|n| sidecar.guest(json!({ "user_id": format!("u-{n}") }))).collect();
    std::thread::scope(|scope| {
        for (client, guest) in guests.iter().enumerate() {
            let (sidecar, told) = (&sidecar, &told);
            scope.spawn(move || {
                storm(sidecar, client, guest, told);
                leave(sidecar, guest, told);
            });
        }
    });
    for guest in guests.iter().take(3) {
        assert_eq!(sidecar.get("/logout?end", guest).status, 200);
        told.add("requests_total{route=\"logout\",code=\"200\",outcome=\"passed\"}");
    }
    for _ in 0..5 {
        let wrong = "Bearer cr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(sidecar.ask("GET", "/chat", &[("authorization", wrong)], "").status, 401);
        told.add("requests_total{route=\"chat\",code=\"401\",outcome=\"refused\"}");
        told.add("credentials_rejected_total{reason=\"session-not-found\"}");
    }
    assert_eq!(sidecar.admin("DELETE", &format!("/v1/sessions/{}", guests[4].handle), "").status, 204);

    let mut expected = told.0.lock().unwrap().clone();
    expected.remove("missing");
    expected.extend(meant.0.lock().unwrap().clone());
    let all: f64 = expected.iter().filter(|(name, _)| name.starts_with("requests_total")).map(|(_, n)| n).sum();
    let figures = sidecar
        .until("all has ended", |figures| figures.sum("requests_total") >= all && figures.of("active_requests") == 0.0);
    for (name, count) in &expected {
        assert_eq!(figures.of(name), *count, "{name}");
    }
    // And nothing was counted that neither side knows of.
    for (sample, value) in figures.samples().filter(|(_, value)| *value > 0.0) {
        let name = sample.strip_prefix("cloakroom_").unwrap();
        let counted = ["requests_total", "write_backs_total", "rate_limited_total", "credentials_rejected_total"];
        if counted.iter().any(|counted| name.starts_with(counted)) {
            assert_eq!(expected.get(name), Some(&value), "{name}");
        }
    }
    let of = |name: &str| expected.get(name).copied().unwrap_or(0.0);
    let started = of("write_backs_total{route=\"login\",outcome=\"started\"}");
    assert_eq!(figures.of("sessions_started_total"), started + CLIENTS as f64);
    assert_eq!(figures.of("sessions_ended_total"), 3.0);
    assert_eq!(figures.of("sessions_revoked_total"), 1.0);
    assert_eq!(figures.of("active_streams"), 0.0);
    // One record a commit: creations, writes, ends and the revocation.
    let committed = of("write_backs_total{route=\"chat\",outcome=\"committed\"}");
    assert_eq!(figures.of("audit_records_total"), CLIENTS as f64 + started + committed + 3.0 + 1.0);
    let failed = ["rejected", "conflict"]
        .map(|outcome| of(&format!("write_backs_total{{route=\"chat\",outcome=\"{outcome}\"}}")));
    assert_eq!(figures.of("audit_attempts_total"), failed[0] + failed[1]);
    let trails: usize = guests
        .iter()
        .map(|guest| {
            let page = sidecar.admin("GET", &format!("/v1/sessions/{}/audit?limit=1000", guest.handle), "");
            serde_json::from_str::<Json>(&page.body).unwrap()["records"].as_array().unwrap().len()
        })
        .sum();
    assert_eq!(trails as f64, CLIENTS as f64 + committed + 3.0 + 1.0);
    // The access log says the same, a line each.
    let lines = sidecar.lines("cloakroom::access", all as usize);
    assert_eq!(lines.len() as f64, all);
    for outcome in ["passed", "refused", "aborted"] {
        let logged = lines.iter().filter(|line| line["outcome"] == outcome).count();
        let counted: f64 = expected
            .iter()
            .filter(|(name, _)| name.starts_with("requests_total") && name.contains(&format!("\"{outcome}\"")))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(logged as f64, counted, "{outcome}");
    }
    gate.open();
}

#[test]
fn figures_agree_with_clients_backend_and_trails() {
    agree("store: { kind: embedded, path: ./sessions.db, timeout: 20s }");
}

#[test]
fn figures_agree_where_the_store_is_a_server() {
    let server = crate::redis_server::Server::shared();
    agree(&format!(
        "environment: load\nkeyring: {{ path: ./keyring.json }}\nstore: {{ kind: redis, url: '{}', timeout: 10s }}",
        server.url()
    ));
}
