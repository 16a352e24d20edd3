//! The parts of an exchange that need neither a socket nor a disk, one by one.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use cloakroom::audit::Audit;
use cloakroom::clock::Clock;
use cloakroom::config::{self, Config, Problems};
use cloakroom::exchange::Rooms;
use cloakroom::handle::CommitId;
use cloakroom::headers::Lines;
use cloakroom::keyring::{Keyring, LiveKeyring};
use cloakroom::listener::Arrival;
use cloakroom::peer::{Downstream, Peer};
use cloakroom::route::{RouteIndex, Table};
use cloakroom::session::{self, Actor, ActorKind, Live, Session, Sessions};
use cloakroom::store::{Base, Change, Commit, Conflict, Draft, Effect, Entry, Memory, Outcome, Store as _};
use cloakroom::store::{TrailBounds, apply};
use cloakroom::telemetry::Metrics;
use cloakroom::writeback::{Checker, Collected, Part, Wish};

/// As the program has it: what is measured here allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Ten fields, one of which backends see a handle of.
const SESSION: &str = "
version: 1
store: { kind: memory }
session:
  schema:
    version: 1
    fields:
      user_id: { type: string, section: auth }
      email: { type: string, section: auth, sensitive: true }
      roles: { type: list, section: auth }
      tenant: { type: string, section: auth }
      plan: { type: string, section: auth }
      locale: { type: string, section: ui }
      theme: { type: string, section: ui, enum: [light, dark] }
      project: { type: string, section: task }
      step: { type: integer, section: task }
      note: { type: string, section: task }
";
const AGENT: &str =
    "{ name: agent, upstream: 'http://[::1]:1', read: [auth, ui, task], write: [auth, ui, task], start: true }";
const TEN_FIELDS: &str = r#"user_id="u-48151623", email="ada@example.com", roles=("admin" "editor"), tenant="acme-industries", plan="enterprise", locale="en-GB", theme="dark", project="analytical-engine", step=4, note="compares last year's figures""#;
const TEN_OTHERS: &str = r#"user_id="u-42108512", email="bob@example.com", roles=("viewer" "editor"), tenant="initech-services", plan="starter-2", locale="de-AT", theme="light", project="difference-engine", step=5, note="draws what it has compared""#;
const ONE_FIELD: &str = "step=5";

/// What a browser sends with a navigation.
const BROWSER: [(&str, &str); 17] = [
    ("host", "app.example.com"),
    ("connection", "keep-alive"),
    ("cache-control", "max-age=0"),
    ("sec-ch-ua", r#""Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140""#),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", r#""Linux""#),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-user", "?1"),
    ("sec-fetch-dest", "document"),
    ("referer", "https://app.example.com/projects"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("cookie", "theme=dark; session=sid_b2xkIGZyaWVuZHMgYXJlIGJlc3Q; consent=2026-11-21"),
];
/// What a client sends who would be somebody else.
const FORGED: [(&str, &str); 4] = [
    ("cloakroom-context", r#"user_id="root""#),
    ("Cloakroom_Session", "hdl_AAAAAAAAAAAAAAAAAAAAAA"),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1"),
];
const RESPONSE: [(&str, &str); 5] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-cache"),
    ("date", "Sat, 21 Nov 2026 10:01:42 GMT"),
    ("server", "uvicorn"),
    ("vary", "accept-encoding"),
];
/// An audit record of the usual length.
const RECORD: &str = r#"{"at":"2026-11-21T10:01:42.000Z","env":"prod","session":"hdl_AAAAAAAAAAAAAAAAAAAAAA","action":"write","base":1,"commit":"cmt_AAAAAAAAAAAAAAAAAAAAAA","actor":{"kind":"backend","route":"agent","request_id":"9f86d081884c7d659a2feaa0c55ad015","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"},"changes":[{"field":"step","op":"set","before":"fp:3f2a9c51d07e88b4","after":"fp:b01d77c2a94f6e13"}],"key":"k-2026-11","mac":"b2xkIGZyaWVuZHMgYXJlIGJlc3QgZnJpZW5kcywgdGhleSBzYXk"}"#;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let name = |name: &'static str| HeaderName::from_bytes(name.as_bytes()).expect("a name");
    lines.iter().map(|(field, value)| (name(field), HeaderValue::from_str(value).expect("a value"))).collect()
}

fn head(target: &str, lines: &[(&'static str, &str)]) -> Parts {
    let request = http::Request::builder().uri(target).body(()).expect("a request");
    let (mut head, ()) = request.into_parts();
    head.headers = headers(lines);
    head
}

fn config(routes: &[String]) -> Config {
    let routes: String = routes.iter().map(|route| format!("  - {route}\n")).collect();
    let text = format!("{SESSION}routes:\n{routes}");
    config::parse(&text, Path::new("cloakroom.yaml"), &|_| None).expect("a sound configuration").config
}

/// The rooms of one configuration, and sessions in memory.
struct House {
    rooms: Rooms,
    sessions: Sessions,
    store: Arc<Memory>,
    route: RouteIndex,
}

impl House {
    fn new() -> Self {
        let config = config(&[AGENT.to_owned()]);
        let (rooms, schema) = Rooms::compile(&config, &mut Problems::default()).expect("a sound configuration");
        let store = Arc::new(Memory::new(TrailBounds { keep: 1000, retain: Duration::from_secs(7 * 86_400) }));
        let clock = Clock::system();
        let parts = session::Parts {
            store: store.clone(),
            schema,
            keys: LiveKeyring::new(Keyring::ephemeral(clock.now()).expect("keys")),
            clock,
            live: Live::default(),
            audit: Audit::default(),
            metrics: Metrics::new(),
        };
        let route = rooms.table.routes().first().expect("a route").index;
        Self { rooms, sessions: Sessions::new(parts, &config), store, route }
    }

    /// A session with ten fields, as a backend starts it.
    fn session(&self) -> Session {
        let wish = self.judge(&mut headers(&[("cloakroom-start", TEN_FIELDS)]), None);
        let Wish::Start(values) = wish else { panic!("{wish:?}") };
        let born = async {
            let actor = Actor::new(ActorKind::Backend);
            let created = self.sessions.create(&values, self.sessions.lifetime(), &actor).await.expect("a session");
            self.sessions.load(&created.id).await.expect("the same session")
        };
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(born)
    }

    /// Takes a write-back out of a response, and checks it.
    fn judge(&self, response: &mut HeaderMap, session: Option<&Session>) -> Wish {
        let names = &self.rooms.context.names;
        let collected = Collected::take(response, names, self.rooms.context.reserved());
        let (schema, permissions, route) = (&self.sessions.schema, &self.rooms.permissions, self.route);
        let checker = Checker { names, schema, permissions, route, by_token: false, keep_all: false };
        checker.check(&collected, Part::Head, session).expect("a permissible wish")
    }
}

fn context(c: &mut Criterion) {
    let house = House::new();
    let (session, keyring) = (house.session(), house.sessions.keyring());
    let handles =
        |session: &Session, path: &str| keyring.field_handle(session.handle(), session.birth(), path).to_string();
    let (context, route) = (&house.rooms.context, house.route);
    let mut group = c.benchmark_group("context of ten fields");
    group.bench_function("rendered", |b| b.iter(|| context.render(route, black_box(&session), &handles)));
    let mut injected = Lines::default();
    context.inject(&mut injected, route, &session, &handles);
    let dictionary = injected.fields().find(|(name, _)| *name == context.names.context).map(|(_, value)| value);
    let dictionary = dictionary.as_ref().and_then(|value| value.to_str().ok());
    assert_eq!(dictionary.map(|members| members.split(", ").count()), Some(10), "{dictionary:?}");
    group.bench_function("injected as it was rendered before", |b| {
        b.iter_batched_ref(
            || Lines::with_capacity(1024),
            |lines| context.inject(lines, route, black_box(&session), &handles),
            BatchSize::SmallInput,
        );
    });
}

fn strip(c: &mut Criterion) {
    let house = House::new();
    let peer = Peer { address: [192, 0, 2, 1].into(), trusted: false };
    let downstream = Downstream::new((peer.address, 50_000).into(), true).into();
    let arrival = Arrival { downstream, fragment: false, crowded: false, cut: None };
    let mut group = c.benchmark_group("strip");
    for (name, lines) in
        [("a browser's head", BROWSER.to_vec()), ("one with forgeries", [&BROWSER[..], &FORGED].concat())]
    {
        let request = head("/projects/analytical-engine?view=board", &lines);
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || request.clone(),
                |head| house.rooms.context.strip(head, peer, &arrival),
                BatchSize::SmallInput,
            );
        });
    }
}

fn write_back(c: &mut Criterion) {
    let house = House::new();
    let session = house.session();
    let mut group = c.benchmark_group("write-back");
    for (name, count, set) in [("of one field", 1, ONE_FIELD), ("of ten fields", 10, TEN_OTHERS)] {
        let response = headers(&[&RESPONSE[..], &[("cloakroom-set", set)]].concat());
        let wish = house.judge(&mut response.clone(), Some(&session));
        assert!(matches!(wish, Wish::Change(proposal) if proposal.set.len() == count));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || response.clone(),
                |response| house.judge(response, black_box(Some(&session))),
                BatchSize::SmallInput,
            );
        });
    }
}

fn commit(c: &mut Criterion) {
    let house = House::new();
    let session = house.session();
    let setting = |base: Base, path: &str, json: &str| Commit {
        id: CommitId::random().expect("randomness"),
        handle: session.handle(),
        now: house.sessions.now(),
        effect: Effect::Change(Box::new(change(base, path, json))),
        record: Draft::new(RECORD).expect("an object"),
    };
    // Others have written until the entry remembers as many commits as it can.
    let mut entry = Entry::clone(&house.store.at_hand(session.handle()).expect("an entry"));
    for revision in 1..=16 {
        let base = Base { revision, ..session.base(None) };
        entry = apply(Some(&entry), &setting(base, "note", r#""is on it""#)).entry.expect("a change");
    }
    let mut group = c.benchmark_group("commit");
    let merging = setting(session.base(None), "step", "5");
    assert!(matches!(apply(Some(&entry), &merging).outcome, Outcome::Done { .. }));
    group.bench_function("merged", |b| b.iter(|| apply(black_box(Some(&entry)), &merging)));
    let conflicting = setting(session.base(None), "note", r#""is done""#);
    assert!(matches!(apply(Some(&entry), &conflicting).outcome, Outcome::Conflict(Conflict::Field(_))));
    group.bench_function("in conflict", |b| b.iter(|| apply(black_box(Some(&entry)), &conflicting)));
}

fn change(base: Base, path: &str, json: &str) -> Change {
    Change {
        base,
        if_match: None,
        set: vec![(path.into(), json.into())],
        unset: Vec::new(),
        schema: None,
        claims_at: None,
        user: None,
        rotate: None,
        end: None,
        growth: None,
    }
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [1, 100, 1_000] {
        let last = count - 1;
        let (by_path, by_host) = (
            table(count, |n| format!("path: /agents/agent-{n}")),
            table(count, |n| format!("host: tenant-{n}.example.com")),
        );
        let path = head(&format!("/agents/agent-{last}/v1/chat"), &[("host", "app.example.com")]);
        let host = head("/v1/chat", &[("host", &format!("tenant-{last}.example.com"))]);
        for (name, table, head) in [("by path prefix", by_path, path), ("by exact host", by_host, host)] {
            assert_eq!(table.select(&head).map(|route| route.index.position()), Ok(last));
            group.bench_function(BenchmarkId::new(name, count), |b| b.iter(|| table.select(black_box(&head))));
        }
    }
}

fn table(count: usize, matches: impl Fn(usize) -> String) -> Table {
    let route = |n| format!("{{ name: route-{n}, upstream: 'http://[::1]:1', match: {{ {} }} }}", matches(n));
    let routes: Vec<String> = (0..count).map(route).collect();
    Table::compile(&config(&routes).routes, &mut Problems::default())
}

criterion_group!(parts, context, strip, write_back, commit, route);
criterion_main!(parts);
