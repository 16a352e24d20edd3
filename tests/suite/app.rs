//! The whole: started, changed while it runs, and ended in order.

mod reload;
mod restart;
mod soak;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::binary::Binary;
use crate::house::{Answer, Gate, House, Plan};

#[test]
fn a_client_that_leaves_after_the_backend_answered_does_not_lose_the_write() {
    for answer in [Answer::set("step=1"), Answer::ok().body("one ").body("two").trailer("cloakroom-set", "step=1")] {
        let house = House::new();
        let guest = house.guest(json!({ "step": 0 }));
        let gate = Gate::closed();
        house.faults.hold_commits(&gate);
        house.backend.next(answer);
        let ask = house.get("/chat").cookie(&guest);
        ask.leave_once(|| house.until("the commit has begun", || house.faults.held() == 1));
        house.until("the exchange is over", || house.metric("cloakroom_active_requests") == 0);
        gate.open();
        house.until("the commit is done", || house.field(&guest, "step") == 1);
        house.close();
    }
}

#[test]
fn the_end_waits_for_the_last_commit() {
    let house = Plan::new().embedded().open();
    let guest = house.guest(json!({ "step": 0 }));
    let gate = Gate::closed();
    house.faults.hold_commits(&gate);
    house.backend.next(Answer::set("step=1"));
    let ask = house.get("/chat").cookie(&guest);
    ask.leave_once(|| house.until("the commit has begun", || house.faults.held() == 1));
    house.begin_ending();
    gate.open();
    let house = house.reopen(Plan::new().embedded());
    assert_eq!(house.field(&guest, "step"), 1);
    house.close();
}

#[test]
fn an_open_stream_may_end_while_the_process_does_and_still_writes_back() {
    let house = Plan::new().embedded().open();
    let guest = house.guest(json!({ "step": 0 }));
    let gate = Gate::closed();
    let answer = Answer::ok().body("one ").wait(&gate).body("two").trailer("cloakroom-set", "step=1");
    house.backend.next_to("/chat", answer);
    let mut idle = house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one ");
    house.begin_ending();
    assert!(idle.rest().starts_with("HTTP/1.1 200"), "an idle connection is let go");
    assert!(stream.is_silent(), "an open stream is not cut off");
    gate.open();
    let reply = stream.finish();
    assert_eq!((reply.text(), reply.complete), ("two", true));
    let house = house.reopen(Plan::new().embedded());
    assert_eq!(house.field(&guest, "step"), 1);
    house.close();
}

#[test]
fn a_connection_whose_response_said_nothing_of_closing_serves_another_request() {
    let house = House::new();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
    let mut client = house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.until("one").is_some_and(|head| !head.contains("connection: close")));
    house.begin_ending();
    // Longer than an idle connection would be waited for.
    assert!(client.is_silent(std::time::Duration::from_millis(1300)));
    gate.open();
    assert!(client.until("\r\n0\r\n\r\n").is_some());
    client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = client.rest();
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("\r\nconnection: close\r\n"), "{last}");
    house.close();
}

#[test]
fn every_exchange_leaves_one_record() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 0 }));
    house.backend.next(Answer::set("step=1"));
    house.get("/chat").cookie(&guest).send().passed();
    house.get("/chat").send().is(401, "credential-missing");
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one");
    drop(stream);
    house.until("all is over", || house.metric("cloakroom_active_requests") == 0);
    gate.open();
    let logged = house.logged();
    let records: Vec<_> = logged.lines().filter(|line| line.contains("cloakroom::access")).collect();
    assert_eq!(records.len(), 3, "{records:#?}");
    let session = format!("session={}", guest.handle);
    assert!(records[0].contains(&session) && records[0].contains("revision_written=2"), "{}", records[0]);
    assert!(records[1].contains("problem=\"credential-missing\""), "{}", records[1]);
    assert!(records[2].contains("outcome=\"aborted\""), "{}", records[2]);
    let requests = |code: u16, outcome: &str| {
        house.metric(&format!("cloakroom_requests_total{{route=\"chat\",code=\"{code}\",outcome=\"{outcome}\"}}"))
    };
    assert_eq!((requests(200, "passed"), requests(401, "refused"), requests(200, "aborted")), (1, 1, 1));
    house.close();
}

#[test]
fn what_was_committed_is_audited_in_the_file_as_in_the_store() {
    let house = Plan::new().embedded().open();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "user_id": "u-456" }));
    house.backend.next(Answer::set("email=\"jane@example.org\", step=1"));
    house.get("/chat").cookie(&guest).send().passed();
    house.until("both records are copied", || house.audited().len() == 2);
    assert_eq!(house.audited(), house.trail(&guest));
    house.close();
}

const CONFIG: &str = "
version: 1
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0' }
status: { address: '127.0.0.1:0' }
store: { kind: memory }
shutdown: { grace: 10ms }
log: { format: json }
session: { schema: { version: 1, fields: { step: { type: integer } } } }
routes: [{ name: all, upstream: 'http://127.0.0.1:1' }]
";

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn the_program_serves_until_it_is_told_to_end() {
    let (_folder, path) = written(CONFIG);
    let binary = Binary::serve(&path);
    let mut client = TcpStream::connect(binary.proxy).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("credential-missing"), "{answer}");
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn a_file_with_a_mistake_is_not_run() {
    let (_folder, path) = written(&CONFIG.replace("step: { type: integer }", "step: { type: intger }"));
    let path = path.to_str().unwrap();
    for arguments in [["run", "--config", path], ["check", "--config", path]] {
        let output = Binary::run(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("intger") && told.contains("cloakroom.yaml:9:"), "{told}");
    }
}

#[test]
fn whoever_holds_connections_to_the_status_listener_keeps_nobody_from_it() {
    let house = House::new();
    let held: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(house.status).unwrap()).collect();
    for _ in 0..3 {
        let mut probe = TcpStream::connect(house.status).unwrap();
        probe.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        probe.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop(held);
    house.close();
}

/// What is found in a file with this schema and with these members of its route.
fn found(schema: &str, route: &str) -> String {
    let text = CONFIG.replace("version: 1, fields: { step: { type: integer } }", schema);
    let (_folder, path) = written(&text.replace("upstream: ", &format!("{route} upstream: ")));
    let output = Binary::run(&["check", "--config", path.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_migrations_make_of_a_field_has_to_fit_where_they_take_it() {
    let schema = |steps: &str| format!("version: 3, fields: {{ b: {{ type: string }} }}, migrations: [{steps}]");
    for (steps, fits) in [
        ("{ to: 2, convert: { a: integer } }, { to: 3, rename: { a: b } }", false),
        ("{ to: 2, set: { a: 5 } }, { to: 3, rename: { a: b } }", false),
        ("{ to: 2, convert: { a: integer }, rename: { z: a } }, { to: 3, rename: { a: b } }", false),
        ("{ to: 2, convert: { a: string } }, { to: 3, rename: { a: b } }", true),
        ("{ to: 2, convert: { a: integer } }, { to: 3, rename: { a: b }, convert: { b: string } }", true),
        ("{ to: 2, set: { a: five } }, { to: 3, rename: { a: b } }", true),
        ("{ to: 2, convert: { a: integer } }, { to: 3, drop: [a] }", true),
    ] {
        let told = found(&schema(steps), "");
        assert_eq!(!told.contains("is no value of 'b'"), fits, "{steps}\n{told}");
        assert_eq!(!told.contains("error"), fits, "{steps}\n{told}");
    }
}

#[test]
fn conditions_that_can_never_hold_are_refused_and_none_says_a_sensitive_value() {
    let schema = "version: 1, fields: { mail: { type: string, sensitive: true }, step: { type: integer, default: 1 } }";
    for (route, told) in [
        ("require: { mail: null },", None),
        ("require: { mail: a@b.example },", Some("would stand here in clear")),
        ("require: { step: null },", Some("can never have this value")),
        ("match: { headers: { cloakroom_session: x } },", Some("no client can say this")),
    ] {
        let found = found(schema, route);
        assert_eq!(found.contains("error"), told.is_some(), "{route}\n{found}");
        assert!(told.is_none_or(|told| found.contains(told)), "{route}\n{found}");
    }
}

#[test]
fn exit_codes_tell_usage_from_findings() {
    let (_folder, path) = written(CONFIG);
    let output = Binary::run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(Binary::run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(Binary::run(&["check", "--config", "/nowhere.yaml"]).status.code(), Some(1));
    let schema = Binary::run(&["schema"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&schema.stdout).is_ok_and(|schema| schema.is_object()));
}
