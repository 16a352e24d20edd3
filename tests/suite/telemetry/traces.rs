//! Traces: continued or begun, decided before anything is recorded, and sent to whoever collects them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::collector::{CLIENT, Collector, Mood, SERVER, Span};
use super::sidecar::{Guest, Sidecar, runtime};
use crate::house::Answer;

const MEMORY: &str = "store: { kind: memory }";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traced(sample: f64) -> (Sidecar, Collector) {
    let runtime = runtime();
    let collector = Collector::open(&runtime);
    let section = collector.section(sample);
    (Sidecar::run_beside(runtime, &format!("{MEMORY}\n{section}")), collector)
}

fn continued(sidecar: &Sidecar, guest: &Guest, target: &str, flags: &str) -> u16 {
    let (bearer, parent) = (format!("Bearer {}", guest.id), format!("00-{TRACE}-{PARENT}-{flags}"));
    let headers = [("authorization", bearer.as_str()), ("traceparent", &parent), ("tracestate", "vendor=1")];
    sidecar.ask("GET", target, &headers, "").status
}

fn attributes(of: Json) -> BTreeMap<String, Json> {
    serde_json::from_value(of).unwrap()
}

#[test]
fn an_exchange_is_a_server_s_span_a_client_s_and_one_for_each_question_to_the_store() {
    let (sidecar, collector) = traced(0.0);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    sidecar.backend.next(Answer::set("step=1"));
    assert_eq!(continued(&sidecar, &guest, "/chat/deep?secret=1", "01"), 200);
    let spans = collector.wait_for(3, |span| span.trace == TRACE);
    let [server, client, commit] = ["GET /chat", "GET", "commit"].map(|name| -> &Span {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} among {spans:#?}"))
    });
    assert_eq!((server.kind, client.kind, commit.kind), (SERVER, CLIENT, CLIENT));
    assert_eq!((server.parent.as_str(), &client.parent, &commit.parent), (PARENT, &server.id, &server.id));
    assert!(spans.iter().all(|span| !span.failed), "{spans:#?}");
    assert!(server.nanoseconds > client.nanoseconds && client.nanoseconds > 0);
    let seen = sidecar.backend.last();
    assert_eq!(seen.header("traceparent"), Some(format!("00-{TRACE}-{}-01", client.id).as_str()));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));
    // Nothing but this: no path, no query, no address, no agent, no value.
    let expected = json!({
        "http.request.method": "GET", "http.route": "/chat", "http.response.status_code": 200, "url.scheme": "http",
        "network.protocol.version": "1.1", "cloakroom.route": "chat", "cloakroom.outcome": "passed",
        "cloakroom.write_back": "committed", "cloakroom.session": guest.handle, "cloakroom.revision.read": 1,
        "cloakroom.revision.written": 2, "cloakroom.cache_hit": true,
    });
    assert_eq!(server.attributes, attributes(expected));
    let expected = json!({
        "http.request.method": "GET", "http.response.status_code": 200, "server.address": "127.0.0.1",
        "server.port": sidecar.backend.address.port(),
    });
    assert_eq!(client.attributes, attributes(expected));
    assert_eq!(commit.attributes, attributes(json!({ "db.system.name": "memory", "db.operation.name": "commit" })));
    let of = |name: &str| server.resource[name].as_str().unwrap().to_owned();
    assert_eq!((of("service.name").as_str(), of("deployment.environment.name").as_str()), ("cloakroom", "prod"));
    let received = collector.received();
    assert!(!received.windows(6).any(|bytes| bytes == b"secret"), "the query was told");
    sidecar.until("they are counted", |figures| figures.of("trace_spans_exported_total") == 3.0);
}

#[test]
fn nothing_is_recorded_of_what_is_not_sampled_and_its_context_passes_as_it_is() {
    let (sidecar, collector) = traced(1.0);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    assert_eq!(continued(&sidecar, &guest, "/chat", "00"), 200);
    let parent = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(sidecar.backend.last().header("traceparent"), Some(parent.as_str()));
    // One that begins here is sampled, and comes after it.
    assert_eq!(sidecar.get("/chat", &guest).status, 200);
    let spans = collector.wait_for(2, |_| true);
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
    let server = spans.iter().find(|span| span.kind == SERVER).unwrap();
    assert_eq!(server.parent, "");
    let told = sidecar.backend.last().header("traceparent").unwrap().to_owned();
    assert!(told.starts_with(&format!("00-{}-", server.trace)) && told.ends_with("-01"), "{told}");
    let logged = sidecar.lines("cloakroom::access", 2);
    assert_eq!(logged.last().unwrap()["trace_id"], server.trace.as_str());
}

#[test]
fn failures_are_told_by_their_kind() {
    let (sidecar, collector) = traced(1.0);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    sidecar.backend.next(Answer::set("unknown=1"));
    assert_eq!(sidecar.get("/chat", &guest).status, 502);
    assert_eq!(sidecar.ask("GET", "/chat", &[], "").status, 401);
    assert_eq!(sidecar.ask("PROPFIND", "/nowhere/secret", &[], "").status, 404);
    let servers = collector.wait_for(3, |span| span.kind == SERVER);
    let of = |problem: &str| servers.iter().find(|span| span.attributes["cloakroom.problem"] == problem).unwrap();
    let rejected = of("write-back-rejected");
    assert_eq!((rejected.failed, &rejected.attributes["error.type"]), (true, &json!("write-back-rejected")));
    // A client's fault is no failure of ours.
    let missing = of("credential-missing");
    assert_eq!((missing.failed, missing.attributes.get("error.type")), (false, None));
    let nowhere = of("route-not-found");
    assert_eq!((nowhere.name.as_str(), nowhere.attributes.get("http.route")), ("_OTHER", None));
    // What was not forwarded has no client's span.
    assert_eq!(collector.spans().iter().filter(|span| span.kind == CLIENT && span.name == "GET").count(), 1);
}

#[test]
fn a_collector_that_hangs_or_is_not_there_stalls_nobody() {
    for mood in [Mood::Hangs, Mood::Refuses] {
        let (sidecar, collector) = traced(1.0);
        collector.is(mood);
        let guest = sidecar.guest(json!({ "user_id": "u-1" }));
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(sidecar.get("/chat", &guest).status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        sidecar.until("they are dropped and counted", |figures| figures.of("trace_spans_dropped_total") > 0.0);
        assert!(sidecar.lines("cloakroom::tracing", 1).iter().any(|line| line["level"] == "WARN"));
        // It is asked again once it takes some.
        collector.is(Mood::Takes);
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
        collector.wait_for(1, |span| span.kind == SERVER);
        collector.is(Mood::Hangs);
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
        let begun = Instant::now();
        assert_eq!(sidecar.binary.terminate(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn the_last_spans_are_sent_before_the_process_ends() {
    let (sidecar, collector) = traced(1.0);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    for _ in 0..20 {
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
    }
    let Sidecar { binary, backend: _backend, runtime: _runtime, .. } = sidecar;
    assert_eq!(binary.terminate(), Some(0));
    assert_eq!(collector.spans().iter().filter(|span| span.kind == SERVER).count(), 20);
}

#[test]
fn another_collector_is_sent_to_without_a_restart_and_to_the_last() {
    let (sidecar, first) = traced(1.0);
    let second = Collector::open(&sidecar.runtime);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    assert_eq!(sidecar.get("/chat", &guest).status, 200);
    first.wait_for(1, |span| span.kind == SERVER);
    let path = sidecar.folder.path().join("cloakroom.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let there = text.replace(&first.section(1.0), &second.section(1.0));
    for (text, applied) in [(there.replace(&second.section(1.0), ""), 1.0), (there, 2.0)] {
        std::fs::write(&path, text).unwrap();
        sidecar.until("it is in force", |figures| figures.of("config_reloads_total{outcome=\"applied\"}") == applied);
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
    }
    let Sidecar { binary, backend: _backend, runtime: _runtime, .. } = sidecar;
    assert_eq!(binary.terminate(), Some(0));
    let of = |collector: &Collector| collector.spans().iter().filter(|span| span.kind == SERVER).count();
    assert_eq!((of(&first), of(&second)), (1, 1));
}
