//! The figures: their names, their form, and what they count.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::sidecar::{Sidecar, ask};
use crate::house::{Answer, Fault, Gate, House, Plan};

/// Has `promtool check metrics` look at a text, which has to be without fault.
fn checked(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, which tests/prepare installs");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && told.is_empty(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn every_figure_of_the_contract_is_there_before_and_after_the_first_request() {
    let sidecar = Sidecar::run("store: { kind: memory }");
    checked(&sidecar.scraped());
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    sidecar.backend.next(Answer::set("step=1"));
    assert_eq!(sidecar.get("/chat", &guest).status, 200);
    assert_eq!(sidecar.ask("GET", "/chat", &[("authorization", "Bearer cr_x")], "").status, 401);
    assert_eq!(sidecar.ask("GET", "/nowhere", &[], "").status, 404);
    (0..4).for_each(|_| drop(sidecar.ask("GET", "/narrow", &[], "")));
    let figures = sidecar.until("all is counted", |figures| figures.sum("requests_total") == 7.0);
    checked(&sidecar.scraped());
    let names = figures.names();
    for name in [
        "requests_total",
        "request_duration_seconds_bucket",
        "overhead_duration_seconds_bucket",
        "upstream_duration_seconds_bucket",
        "store_duration_seconds_bucket",
        "store_errors_total",
        "cache_hits_total",
        "cache_misses_total",
        "write_backs_total",
        "touches_total",
        "audit_records_total",
        "audit_attempts_total",
        "audit_dropped_total",
        "rate_limited_total",
        "credentials_rejected_total",
        "sessions_started_total",
        "sessions_ended_total",
        "sessions_revoked_total",
        "rotations_ignored_total",
        "values_damaged_total",
        "config_reloads_total",
        "config_valid",
        "active_requests",
        "active_streams",
        "trace_spans_exported_total",
        "trace_spans_dropped_total",
        "log_lines_dropped_total",
        "build_info",
    ] {
        assert!(names.contains(&format!("cloakroom_{name}").as_str()), "{name} is missing among {names:?}");
    }
    assert_eq!(figures.of("config_valid"), 1.0);
}

#[test]
fn whoever_asks_for_open_metrics_gets_the_same_figures_in_that_form() {
    let sidecar = Sidecar::run("store: { kind: memory }");
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let open = ask(sidecar.binary.admin, "GET", "/metrics", &[("accept", accept)], "");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(open.head.contains(kind), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    let plain = ask(sidecar.binary.admin, "GET", "/metrics", &[], "");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", plain.head);
    let samples = |text: &str| -> Vec<String> {
        let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(samples(&open.body), samples(&plain.body));
}

#[test]
fn no_client_can_make_up_a_label() {
    let sidecar = Sidecar::run("store: { kind: memory }");
    let mark = "marked-by-a-client";
    let target = format!("/{mark}?{mark}");
    let method = mark.to_ascii_uppercase();
    let headers = [("x-request-id", mark), ("authorization", mark), ("host", mark), ("user-agent", mark)];
    sidecar.ask(&method, &target, &headers, "");
    sidecar.ask("GET", "/chat", &[("authorization", "Bearer cr_marked-by-a-client")], "");
    sidecar.until("both are counted", |figures| figures.sum("requests_total") == 2.0);
    assert!(!sidecar.scraped().contains(mark));
}

#[test]
fn the_store_s_time_and_failures_are_told_by_what_it_was_asked_for() {
    let house = House::new();
    let guest = house.visitor();
    let errors = |op: &str| house.metric(&format!("cloakroom_store_errors_total{{op=\"{op}\"}}"));
    let asked = |op: &str| house.metric(&format!("cloakroom_store_duration_seconds_count{{op=\"{op}\"}}"));
    assert_eq!((asked("commit"), errors("commit")), (1, 0));
    house.faults.set(Fault::Down);
    house.get("/chat").cookie(&guest).send().is(503, "store-unavailable");
    assert_eq!((asked("load"), errors("load")), (1, 1));
    house.faults.set(Fault::Writes);
    house.backend.next(Answer::set("step=1"));
    house.get("/chat").cookie(&guest).send().is(503, "store-unavailable");
    assert_eq!((asked("commit"), errors("commit")), (2, 1));
    assert_eq!(errors("load"), 1, "a client's fault is none of the store's");
}

#[test]
fn a_store_that_lets_its_callers_wait_is_counted_when_their_time_is_up() {
    let house = Plan::new().embedded_within("100ms").open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.faults.hold_commits(&gate);
    house.backend.next(Answer::set("step=1"));
    house.get("/chat").cookie(&guest).send().is(503, "store-unavailable");
    // It is asked once more, since nobody knows.
    assert_eq!(house.metric("cloakroom_store_errors_total{op=\"commit\"}"), 2);
    gate.open();
}

#[test]
fn loads_that_ask_nobody_are_told_apart() {
    let house = Plan::new().embedded().open();
    let guest = house.visitor();
    for _ in 0..3 {
        house.get("/chat").cookie(&guest).send().passed();
    }
    house.get("/chat").cookie(&guest.impostor()).send().is(401, "credential-invalid");
    assert_eq!(house.metric("cloakroom_cache_hits_total"), 4);
    let house = house.reopen(Plan::new().embedded());
    for _ in 0..3 {
        house.get("/chat").cookie(&guest).send().passed();
    }
    let (hits, misses) = (house.metric("cloakroom_cache_hits_total"), house.metric("cloakroom_cache_misses_total"));
    assert_eq!((hits, misses), (2, 1));
    let lines = house.logged();
    let hit = |line: &&str| line.contains("cloakroom::access") && line.contains("cache_hit=false");
    assert_eq!(lines.lines().filter(hit).count(), 1, "{lines}");
}

#[test]
fn every_touch_is_counted_once() {
    let house = House::new();
    let guests = [house.visitor(), house.visitor(), house.visitor()];
    house.clock.advance(std::time::Duration::from_secs(120));
    for guest in guests.iter().flat_map(|guest| std::iter::repeat_n(guest, 5)) {
        house.get("/chat").cookie(guest).send().passed();
    }
    assert_eq!(house.metric("cloakroom_touches_total"), 3);
    for guest in &guests {
        assert_eq!(house.load(guest).unwrap().last_active(), house.clock.now());
    }
}

#[test]
fn cloakroom_s_own_time_holds_no_wait_for_backend_or_client() {
    let house = House::new();
    let guest = house.visitor();
    let (head, body) = (Gate::closed(), Gate::closed());
    house.backend.next(Answer::ok().held(&head).body("first").wait(&body).body("last"));
    let wait = std::time::Duration::from_millis(150);
    let opener = std::thread::spawn({
        let (head, body) = (head.clone(), body.clone());
        move || {
            std::thread::sleep(wait);
            head.open();
            std::thread::sleep(wait);
            body.open();
        }
    });
    house.get("/chat").cookie(&guest).send().passed();
    opener.join().unwrap();
    let sum = |name: &str| -> f64 {
        let text = house.metrics.encode(cloakroom::telemetry::Exposition::OpenMetrics).unwrap();
        let start = format!("cloakroom_{name}_duration_seconds_sum{{route=\"chat\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    };
    let (own, upstream, whole) = (sum("overhead"), sum("upstream"), sum("request"));
    assert!(whole >= 0.2 && upstream >= 0.1, "{whole} {upstream}");
    assert!(own > 0.0 && own < 0.05, "{own}");
}

#[test]
fn cloakroom_s_own_time_holds_its_waits_for_the_store() {
    let house = House::new();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.faults.hold_commits(&gate);
    house.backend.next(Answer::ok().body("all").trailer("cloakroom-set", "step=1"));
    let opener = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        gate.open();
    });
    house.get("/chat").cookie(&guest).send().passed();
    opener.join().unwrap();
    let text = house.metrics.encode(cloakroom::telemetry::Exposition::OpenMetrics).unwrap();
    let start = "cloakroom_overhead_duration_seconds_sum{route=\"chat\"} ";
    let own: f64 = text.lines().find_map(|line| line.strip_prefix(start)).unwrap().parse().unwrap();
    assert!(own >= 0.1, "{own}");
}
