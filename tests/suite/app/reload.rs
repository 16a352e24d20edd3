//! Another configuration while exchanges go on.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::binary::Binary;
use crate::house::{Answer, Gate, House, Plan, RawAnswer};

const OWN: &str = "name: own, match: { path: /own }, upstream: 'http://BACKEND', session: optional";

#[test]
fn a_new_configuration_is_for_the_next_request_and_one_in_flight_keeps_its_own() {
    let house = Plan::new().route(&format!("{OWN}, read: [task], write: [task]")).open();
    let guest = house.guest(json!({ "step": 1 }));
    let gate = Gate::closed();
    let answer = Answer::set("step=2").held(&gate).body("a").body("b").trailer("cloakroom-set", "notes=\"x\"");
    house.backend.next(answer);
    let ask = house.get("/own").cookie(&guest);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask.send());
        house.backend.wait_for(1);
        house.reload(&Plan::new().route(&format!("{OWN}, write: [ui]")).section("headers: { prefix: other- }"));
        gate.open();
        let reply = asking.join().unwrap();
        assert_eq!((reply.status, reply.complete), (200, true), "it may write what it could when it began");
    });
    assert_eq!((house.field(&guest, "step"), house.field(&guest, "notes")), (json!(2), json!("x")));
    house.backend.next(Answer::ok().header("other-set", "step=3"));
    house.get("/own").cookie(&guest).send().is(502, "write-back-rejected");
    let seen = house.backend.last();
    assert_eq!((seen.header("other-schema"), seen.header("cloakroom-schema")), (Some("2"), None));
    house.close();
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_told_of() {
    let house = House::new();
    let valid = || house.metric("cloakroom_config_valid");
    assert_eq!((valid(), house.readyz().1["checks"]["configuration"]["reason"].as_str()), (1, None));
    for (text, told) in [
        ("version: 1\nroutes: [", "cloakroom.yaml:"),
        (
            "version: 1\nsession: { schema: { version: 1, fields: { a: { type: string } } } }\nroutes: [{ name: a, upstream: 'http://127.0.0.1:1', read: [nothing] }]\n",
            "cloakroom.yaml:3:",
        ),
        ("", "cloakroom.yaml:"),
    ] {
        house.reload_text(text);
        house.get("/public").send().passed();
        let (status, report) = house.readyz();
        let reason = report["checks"]["configuration"]["reason"].as_str().unwrap_or_default();
        assert_eq!((status, valid()), (200, 0), "{report}");
        assert!(reason.contains("refused") && reason.contains(told), "{reason}");
    }
    assert!(house.logged().contains("nothing"), "{}", house.logged());
    assert_eq!(house.metric("cloakroom_config_reloads_total{outcome=\"refused\"}"), 3);
    house.reload(&Plan::new().route(OWN));
    house.get("/own").send().passed();
    assert_eq!((valid(), house.readyz().1["checks"]["configuration"]["reason"].as_str()), (1, None));
    house.close();
}

#[test]
fn what_cannot_be_opened_is_refused_before_anything_has_changed() {
    let house = House::new();
    house.reload(&Plan::new().route(OWN).audit("{ file: /nowhere/audit.jsonl }"));
    assert_eq!(house.metric("cloakroom_config_valid"), 0);
    house.get("/own").send().is(404, "route-not-found");
    house.close();
}

#[test]
fn audit_records_go_where_the_configuration_in_force_says() {
    let house = House::new();
    house.visitor();
    house.until("the first is copied", || house.audited().len() == 1);
    house.reload(&Plan::new().audit("{ file: other.jsonl }"));
    house.visitor();
    let other = house.path().join("other.jsonl");
    house.until("the second is copied", || std::fs::read_to_string(&other).unwrap_or_default().lines().count() == 1);
    assert_eq!(house.audited().len(), 1);
    house.close();
}

#[test]
fn what_a_limit_has_counted_stands_for_as_long_as_it_is_the_same() {
    let limited = |burst: u32| {
        let limit = format!("{OWN}, rate_limits: [{{ per: client, rate: 1/h, burst: {burst} }}]");
        Plan::new().route(&limit)
    };
    let house = limited(2).open();
    house.get("/own").send().passed();
    house.reload(&limited(2).route("name: more, match: { path: /more }, upstream: 'http://BACKEND', session: none"));
    house.get("/own").send().passed();
    house.get("/own").send().is(429, "rate-limited");
    house.reload(&limited(3));
    house.get("/own").send().passed();
    house.close();
}

#[test]
fn what_is_in_flight_counts_across_configurations() {
    let bound = |most: usize| Plan::new().route(&format!("{OWN}, limits: {{ concurrency: {most} }}"));
    let house = bound(2).open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate));
    let mut stream = house.get("/own").start();
    assert_eq!(stream.text(), "one");
    house.reload(&bound(1));
    house.get("/own").send().is(503, "overloaded");
    house.reload(&bound(2));
    house.get("/own").send().passed();
    gate.open();
    assert!(stream.finish().complete);
    house.close();
}

#[test]
fn connections_to_a_backend_outlive_the_configuration() {
    let bytes = "name: bytes, match: { path: /bytes }, upstream: 'http://RAW', session: none";
    let house = Plan::new().route(bytes).open();
    for n in 0..3 {
        house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        house.get("/bytes").send().passed();
        let limit = format!("limits: {{ concurrency: {} }}", 10 + n);
        house.reload(&Plan::new().route(&format!("{bytes}, {limit}")));
    }
    assert_eq!(house.raw_backend.connections(), 1);
    house.close();
}

#[test]
fn a_session_lives_on_under_another_schema_and_another_lifetime() {
    let schema = |fields: &str| {
        let text = format!("{{ version: 1, fields: {{ a: {{ type: string }}{fields} }} }}");
        Plan::new().schema(&text).route("name: all, upstream: 'http://BACKEND', read: [a], write: [a]")
    };
    let house = schema("").open();
    let guest = house.guest(json!({ "a": "one" }));
    house.get("/").cookie(&guest).send().passed();
    let wider = schema(", b: { type: string, default: two }").session("lifetime: { idle: 1m, absolute: 2m }");
    house.reload(&wider);
    house.get("/").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), Some("a=\"one\""));
    assert_eq!(house.field(&guest, "b"), "two");
    let later = house.visitor();
    house.clock.advance(Duration::from_secs(121));
    house.get("/").cookie(&guest).send().passed();
    house.get("/").cookie(&later).send().is(401, "session-not-found");
    house.close();
}

#[test]
fn what_needs_a_restart_says_so_and_the_rest_is_in_force() {
    let house = House::new();
    let plan = Plan::new().route(OWN).section("environment: other").listener("limits: { keep_alive: 10s }");
    let text = plan.text(house.backend.address, house.raw_backend.address);
    house.reload_text(&text.replacen("127.0.0.1:0", "127.0.0.1:1", 1));
    house.get("/own").send().passed();
    let (status, report) = house.readyz();
    let reason = report["checks"]["configuration"]["reason"].as_str().unwrap_or_default();
    assert_eq!((status, house.metric("cloakroom_config_valid")), (200, 1));
    for word in ["restart", "environment", "listeners"] {
        assert!(reason.contains(word), "{reason}");
        assert!(house.logged().contains(word));
    }
    assert!(!reason.contains("admin.address"), "{reason}");
    house.reload(&Plan::new().route(OWN));
    assert_eq!(house.readyz().1["checks"]["configuration"]["reason"].as_str(), None);
    house.close();
}

#[test]
fn a_listener_takes_as_many_connections_as_the_limits_in_force_say() {
    let bound = |most: usize| Plan::new().listener(&format!("limits: {{ connections: {most} }}"));
    const ASK: &str = "GET /public HTTP/1.1\r\nHost: a\r\n\r\n";
    let house = bound(2).open();
    let mut first = house.raw(ASK);
    let mut second = house.raw(ASK);
    assert!(first.head().is_some() && second.head().is_some());
    let mut third = house.raw(ASK);
    assert!(third.is_silent(Duration::from_millis(100)), "over the bound it waits");
    house.reload(&bound(3));
    assert!(third.head().is_some());
    house.reload(&bound(1));
    drop((first, second));
    let mut fourth = house.raw(ASK);
    assert!(fourth.is_silent(Duration::from_millis(100)), "the third is all that is open");
    drop(third);
    assert!(fourth.head().is_some());
    drop(fourth);
    house.close();
}

/// Two configurations that differ in every room: what is routed, injected, written, and where it goes.
fn variant(letter: char) -> Plan {
    let schema = format!(
        "{{ version: {version}, fields: {{ marker: {{ type: string, default: {letter} }}, {letter}: {{ type: integer }} }}, migrations: [{{ to: {version} }}] }}",
        version = if letter == 'a' { 2 } else { 3 },
    );
    let route = format!(
        "name: {letter}, match: {{ path: /x }}, rewrite: {{ strip_prefix: {} }}, session: optional, upstream: 'http://BACKEND', \
         read: [marker], write: [{letter}], headers: {{ X-Marker: marker, X-{letter}: marker }}",
        letter == 'a',
    );
    Plan::new().schema(&schema).route(&route).section(&format!("headers: {{ prefix: {letter}- }}"))
}

#[test]
fn no_request_is_lost_or_mixed_while_configurations_change() {
    const RELOADS: usize = 150;
    let house = variant('a').open();
    house.backend.always(|seen| {
        let letter = seen.header("x-marker").unwrap_or("none").to_owned();
        let answer = Answer::ok().header(&format!("{letter}-set"), &format!("{letter}=1")).header("x-seen", &letter);
        answer.body("one").body("two")
    });
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for http2 in [false, true] {
            let (house, done, asked) = (&house, &done, &asked);
            scope.spawn(move || {
                let guest = house.visitor();
                while !done.load(Ordering::Acquire) {
                    let ask = house.get("/x/y").cookie(&guest);
                    let reply = if http2 { ask.http2().send() } else { ask.send() };
                    assert_eq!((reply.passed().text(), reply.complete), ("onetwo", true));
                    let ours = |name: &str| name.starts_with("a-") || name.starts_with("b-");
                    assert!(!reply.headers.keys().any(|name| ours(name.as_str())), "{:?}", reply.headers);
                    asked.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for n in 1..=RELOADS {
            house.reload(&variant(if n % 2 == 0 { 'a' } else { 'b' }));
        }
        done.store(true, Ordering::Release);
    });
    let seen = house.backend.seen();
    assert_eq!(seen.len(), asked.load(Ordering::Acquire));
    let mut met = [0, 0];
    for seen in &seen {
        let (letter, other, version, target) = match seen.header("x-marker") {
            Some("a") => ('a', 'b', "2", "/y"),
            Some("b") => ('b', 'a', "3", "/x/y"),
            marker => panic!("{marker:?}"),
        };
        met[usize::from(letter == 'b')] += 1;
        assert_eq!(seen.target, target);
        assert_eq!(seen.header(&format!("{letter}-schema")), Some(version));
        assert_eq!(seen.header(&format!("{letter}-context")), Some(&*format!("marker=\"{letter}\"")));
        assert_eq!(seen.header(&format!("x-{letter}")), Some(&*letter.to_string()));
        assert!(
            !seen
                .headers
                .iter()
                .any(|(name, _)| name.starts_with(&format!("{other}-")) || *name == format!("x-{other}"))
        );
    }
    assert!(met.iter().all(|count| *count > 5), "{met:?} of each in {RELOADS} reloads");
    assert_eq!(house.metric("cloakroom_config_reloads_total{outcome=\"applied\"}"), RELOADS as u64);
    let rejected = house.metric("cloakroom_write_backs_total{route=\"a\",outcome=\"rejected\"}")
        + house.metric("cloakroom_write_backs_total{route=\"b\",outcome=\"rejected\"}");
    assert_eq!(rejected, 0);
    house.close();
}

/// A folder as a mounted ConfigMap is: the files are links through a link that is swapped.
fn mount(folder: &Path, version: u32, text: &str, token: &str) {
    let data = folder.join(format!("..v{version}"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("cloakroom.yaml"), text).unwrap();
    std::fs::write(data.join("token"), token).unwrap();
    let next = folder.join("..next");
    symlink(&data, &next).unwrap();
    std::fs::rename(next, folder.join("..data")).unwrap();
    for name in ["cloakroom.yaml", "token"] {
        let _ = symlink(Path::new("..data").join(name), folder.join(name));
    }
}

fn status(of: std::net::SocketAddr, request: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut client = std::net::TcpStream::connect(of).ok()?;
    client.write_all(format!("{request}Host: a\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[track_caller]
fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !seen() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_program_takes_on_a_swapped_mount_by_itself_and_anything_on_a_hangup() {
    let text = |route: &str| {
        format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\n\
             admin: {{ address: '127.0.0.1:0', token: '${{file:token}}' }}\nstatus: {{ address: '127.0.0.1:0' }}\n\
             store: {{ kind: memory }}\nshutdown: {{ grace: 10ms }}\n\
             session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}\n\
             routes: [{{ name: a, match: {{ path: /{route} }}, upstream: 'http://127.0.0.1:1' }}]\n"
        )
    };
    let (first, second) = ("first-token-of-sixteen", "second-token-of-sixteen");
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), 1, &text("a"), first);
    let binary = Binary::serve(&folder.path().join("cloakroom.yaml"));
    let routed = |path: &str| status(binary.proxy, &format!("GET /{path} HTTP/1.1\r\n")) == Some(401);
    let admits = |token: &str| {
        let line = format!("GET /v1/users/u/sessions HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
        status(binary.admin, &line) != Some(401)
    };
    assert!(routed("a") && !routed("b") && admits(first) && !admits(second));
    mount(folder.path(), 2, &text("b"), first);
    until("the swapped file is in force", || routed("b") && !routed("a"));
    mount(folder.path(), 3, &text("b"), second);
    until("the new token is in force", || admits(second) && !admits(first));
    std::fs::write(folder.path().join("..data/cloakroom.yaml"), text("c")).unwrap();
    binary.signal(libc::SIGHUP);
    until("what a hangup asked for is in force", || routed("c"));
    std::fs::write(folder.path().join("..data/cloakroom.yaml"), "version: 2\n").unwrap();
    binary.signal(libc::SIGHUP);
    until("the bad one is told of", || binary.logged().contains("cloakroom.yaml:1:"));
    assert!(routed("c"));
    assert_eq!(status(binary.status, "GET /readyz HTTP/1.1\r\n"), Some(200));
    let logged = binary.logged();
    assert!(!logged.contains(first) && !logged.contains(second), "{logged}");
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn the_program_logs_as_the_configuration_in_force_says() {
    let text = |log: &str| {
        format!(
            "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
             status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\nshutdown: {{ grace: 10ms }}\nlog: {{ {log} }}\n\
             session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}\n\
             routes: [{{ name: a, upstream: 'http://127.0.0.1:1' }}]\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    std::fs::write(&path, text("level: info")).unwrap();
    let binary = Binary::serve(&path);
    let records = || binary.logged().lines().filter(|line| line.contains("credential-missing")).count();
    let ask = || assert_eq!(status(binary.proxy, "GET / HTTP/1.1\r\n"), Some(401));
    let in_force =
        || binary.logged().lines().filter(|line| line.contains("in force")).map(str::to_owned).collect::<Vec<_>>();
    ask();
    until("its record is there", || records() == 1);
    for (log, round) in [("level: 'info,cloakroom::access=off', format: pretty", 1), ("level: info", 2)] {
        std::fs::write(&path, text(log)).unwrap();
        binary.signal(libc::SIGHUP);
        until("it is in force", || in_force().len() == round);
        ask();
    }
    until("the last record is there", || records() > 1);
    assert_eq!(records(), 2, "one was not wanted");
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert_eq!(in_force().iter().map(|line| json(line)).collect::<Vec<_>>(), [false, true]);
    assert_eq!(binary.terminate(), Some(0));
}
