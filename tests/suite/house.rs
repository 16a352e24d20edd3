//! The House: the only way that a test starts cloakroom in process.
//!
//! A real configuration, real sockets, a scripted backend, a clock that stands still until it is moved. When the
//! House closes, everything has to end by itself, and nothing that cloakroom has emitted may hold a secret or a
//! sensitive value of the test: a leak fails the test, whatever it was about.

mod authority;
mod backend;
mod client;
mod fault;
mod issuer;
pub mod leak;
mod plan;
mod raw;
mod wire;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cloakroom::app::{ConfigWatch, ReloadNow};
use cloakroom::clock::{Clock, Time};
use cloakroom::exchange::Exchanges;
use cloakroom::handle::{FieldHandle, Handle, SessionId};
use cloakroom::in_force::InForce;
use cloakroom::session::{Actor, ActorKind, FieldIndex, LoadError, Session, Sessions, Verdict};
use cloakroom::structured::Value;
use cloakroom::telemetry::{Exposition, Metrics};
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub use authority::{Authority, Certificate, provider};
pub use backend::{Answer, Backend, Gate, Seen};
pub use client::{Ask, Reply};
pub use fault::{Fault, Faults};
pub use issuer::{Issuer, Says, Signer};
pub use plan::Plan;
pub use raw::{RawAnswer, RawBackend, RawClient};
pub use wire::Wire;

use leak::{Capture, Leaks};

/// How long anything may take before a test says that it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// When every House begins: 2026-11-23T08:15:02Z.
pub const BEGIN: Time = Time(1_795_421_702_000);

/// A running cloakroom between a client and a backend.
pub struct House {
    pub clock: Clock,
    /// Answers with what it received, or as it was told to.
    pub backend: Backend,
    /// Answers with bytes, for what no well-behaved server would send.
    pub raw_backend: RawBackend,
    pub proxy: SocketAddr,
    /// Health and figures.
    pub status: SocketAddr,
    pub metrics: Metrics,
    /// Has the store fail.
    pub faults: Faults,
    folder: Arc<tempfile::TempDir>,
    /// None once the House is closing.
    exchanges: Option<InForce<Exchanges>>,
    reload: ReloadNow,
    leaks: Leaks,
    logs: Capture,
    ending: Option<Ending>,
    runtime: Runtime,
}

struct Ending {
    /// None once it was told.
    tell: Mutex<Option<oneshot::Sender<()>>>,
    ended: oneshot::Receiver<bool>,
    thread: JoinHandle<()>,
}

impl Ending {
    fn tell(&self) {
        let tell = self.tell.lock().expect("no panic").take();
        tell.map(|tell| tell.send(()));
    }
}

/// A session and the id that proves it.
#[derive(Debug, Clone)]
pub struct Guest {
    pub id: String,
    pub handle: Handle,
}

impl Guest {
    pub fn of(id: &str) -> Self {
        let handle = SessionId::parse(id).expect("a session id").handle();
        Self { id: id.to_owned(), handle }
    }

    /// An id of the same name with another secret.
    pub fn impostor(&self) -> Self {
        let id = SessionId::renewed(self.handle).expect("randomness");
        Self::of(&id.reveal())
    }
}

impl House {
    /// Opens a House with the plan's routes, in memory.
    pub fn new() -> Self {
        Plan::new().open()
    }

    fn open(plan: &Plan) -> Self {
        let runtime = client::runtime();
        let backend = Backend::open(&runtime);
        let raw_backend = RawBackend::open(&runtime);
        let folder = plan.folder();
        let secure = plan.secure.clone().map(|config| backend.secure(&runtime, config));
        let port = secure.map_or(0, |address| address.port());
        backend.local(&runtime, &folder.path().join("backend.sock"));
        let text = plan.text(backend.address, raw_backend.address).replace("SECURE", &format!("localhost:{port}"));
        let config = plan::parse(&text, folder.path());
        let clock = plan.clock();
        let logs = Capture::start();
        let faults = Faults::default();
        let started = start(config, &folder.path().join(plan::FILE), clock.clone(), logs.clone(), faults.clone());
        let leaks = Leaks::default();
        House {
            clock,
            backend,
            raw_backend,
            proxy: started.proxy,
            status: started.status,
            metrics: started.metrics,
            faults,
            folder,
            exchanges: Some(started.exchanges),
            reload: started.reload,
            leaks,
            logs,
            ending: Some(started.ending),
            runtime,
        }
    }

    pub fn sessions(&self) -> Arc<Sessions> {
        self.exchanges.as_ref().expect("an open House").current().sessions.clone()
    }

    /// Puts another plan in the configuration's file, and waits until it was taken on or refused.
    pub fn reload(&self, plan: &Plan) -> &Self {
        self.reload_text(&plan.text(self.backend.address, self.raw_backend.address))
    }

    /// The same with any text.
    pub fn reload_text(&self, text: &str) -> &Self {
        let before = self.reloads();
        let (next, file) = (self.folder.path().join("next.yaml"), self.folder.path().join(plan::FILE));
        std::fs::write(&next, text).expect("a file");
        std::fs::rename(next, file).expect("a file");
        self.reload.ask();
        self.until("the configuration was read", || self.reloads() > before);
        self
    }

    /// How many configurations were taken on or refused.
    fn reloads(&self) -> u64 {
        let of = |outcome| self.metric(&format!("cloakroom_config_reloads_total{{outcome=\"{outcome}\"}}"));
        of("applied") + of("refused")
    }

    /// What `GET /readyz` answers on the status listener.
    pub fn readyz(&self) -> (u16, Json) {
        let mut client = raw::RawClient::connect(self.status);
        client.send(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let head = client.head().expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(&client.rest()).expect("JSON"))
    }

    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(PATIENCE, work).await.expect("an answer in time") };
        self.runtime.block_on(bounded)
    }

    /// Marks a value that nothing cloakroom emits may hold.
    pub fn sensitive(&self, value: &str) {
        self.leaks.forbid(value);
    }

    /// Puts a session into the store, as the admin API would. Keys are paths.
    pub fn guest(&self, fields: Json) -> Guest {
        let sessions = self.sessions();
        let actor = Actor::new(ActorKind::Admin);
        let values = self.values(&fields);
        let made = self.wait_for(sessions.create(&values, sessions.lifetime(), &actor)).expect("a session");
        let guest = Guest::of(&made.id.reveal());
        self.leaks.credential(&guest.id);
        guest
    }

    fn values(&self, fields: &Json) -> Vec<(FieldIndex, Value)> {
        let schema = &self.sessions().schema.clone();
        let members = fields.as_object().expect("an object");
        let value = |(path, json): (&String, &Json)| {
            let (index, field) = schema.find(path).expect("a field of the schema");
            (index, field.fit(Value::from_json(json).expect("a value")).expect("a value that fits"))
        };
        members.iter().map(value).collect()
    }

    /// A visitor about whom nothing is known.
    pub fn visitor(&self) -> Guest {
        self.guest(serde_json::json!({}))
    }

    pub fn load(&self, guest: &Guest) -> Result<Session, LoadError> {
        self.wait_for(self.sessions().find(guest.handle))
    }

    pub fn revision(&self, guest: &Guest) -> u64 {
        self.load(guest).expect("a living session").revision()
    }

    /// A field's value, its default included; null without one, and for what is sensitive.
    pub fn field(&self, guest: &Guest, path: &str) -> Json {
        let session = self.load(guest).expect("a living session");
        let schema = &self.sessions().schema.clone();
        let (index, _) = schema.find(path).expect("a field of the schema");
        session.value(index, schema).map_or(Json::Null, Value::to_json)
    }

    /// A sensitive field's value in clear, as a caller of the admin API would have it resolved.
    pub fn resolved(&self, guest: &Guest, path: &str) -> Json {
        let session = self.load(guest).expect("a living session");
        let sessions = self.sessions();
        let (index, _) = sessions.schema.find(path).expect("a field of the schema");
        let actor = Actor::new(ActorKind::Caller);
        let plain = self.wait_for(sessions.resolve(&session, index, &actor)).expect("an audit record");
        plain.map_or(Json::Null, |plain| serde_json::from_str(&plain).expect("JSON"))
    }

    /// The handle that stands for a sensitive field.
    pub fn field_handle(&self, guest: &Guest, path: &str) -> FieldHandle {
        let session = self.load(guest).expect("a living session");
        self.sessions().keyring().field_handle(guest.handle, session.birth(), path)
    }

    pub fn revoke(&self, guest: &Guest) {
        let actor = Actor::new(ActorKind::Admin);
        self.wait_for(self.sessions().revoke(guest.handle, None, &actor)).expect("a revocation");
    }

    pub fn revoke_user(&self, user: &str) {
        let actor = Actor::new(ActorKind::Admin);
        let sessions = self.sessions();
        let keys = sessions.keys_of_user(None, user);
        let work = sessions.revoke_users(&keys, self.clock.now(), &actor);
        self.wait_for(work).expect("a revocation");
    }

    /// Revokes a token that expires so many seconds from now.
    pub fn revoke_token(&self, id: &str, seconds: u64) {
        let exp = self.clock.now().plus(Duration::from_secs(seconds));
        self.wait_for(self.sessions().revoke_token(id, exp)).expect("a revocation");
    }

    /// The audit trail, oldest record first.
    pub fn trail(&self, guest: &Guest) -> Vec<Json> {
        let page = self.wait_for(self.sessions().trail(guest.handle, None, 1000)).expect("a trail");
        assert_eq!(page.next, None, "the trail is longer than a page");
        page.records.iter().rev().map(|record| serde_json::from_str(record).expect("JSON")).collect()
    }

    pub fn verify(&self, guest: &Guest) -> Verdict {
        self.wait_for(self.sessions().verify(guest.handle)).expect("a verdict")
    }

    /// One figure of the metrics, its labels as they are written; zero if it is not there.
    pub fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.encode(Exposition::OpenMetrics).expect("metrics");
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// What was logged so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&self.logs.bytes()).into_owned()
    }

    /// The lines of the audit file so far.
    pub fn audited(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(self.folder.path().join(plan::AUDIT)).unwrap_or_default();
        // The last line may not be whole yet.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until something that cloakroom does in the background can be seen.
    pub fn until(&self, what: &str, mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen() {
            assert!(Instant::now() < deadline, "in vain waited until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Has the end begin, and waits until no connection is taken any more.
    pub fn begin_ending(&self) {
        self.ending.as_ref().expect("an open House").tell();
        self.until("the listener is closed", || std::net::TcpStream::connect(self.proxy).is_err());
    }

    /// Ends everything, and searches what was emitted. Dropping a House does the same.
    pub fn close(self) {}

    /// Closes this House and opens another in its folder, where its store and its keys are.
    pub fn reopen(self, plan: Plan) -> House {
        let (folder, clock) = (self.folder.clone(), self.clock.clone());
        let leaks = self.leaks.clone();
        self.close();
        let mut house = plan.within(folder, clock).open();
        house.leaks = leaks;
        house
    }

    /// The folder that holds the configuration, the store, the keys and the audit file.
    pub fn path(&self) -> &std::path::Path {
        self.folder.path()
    }
}

/// What a House has of its cloakroom.
struct Started {
    proxy: SocketAddr,
    status: SocketAddr,
    exchanges: InForce<Exchanges>,
    metrics: Metrics,
    reload: ReloadNow,
    ending: Ending,
}

/// Starts cloakroom on a thread of its own, whose logs go to this House alone.
fn start(
    config: cloakroom::config::Config,
    file: &std::path::Path,
    clock: Clock,
    logs: Capture,
    faults: Faults,
) -> Started {
    let (report, reported) = channel();
    let (tell, told) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let watch = ConfigWatch::new(file.to_owned());
    let work = async move {
        let mut running = match cloakroom::app::start_through(&config, clock, |store| faults.before(store)).await {
            Ok(running) => running,
            Err(error) => return report.send(Err(error.to_string())).expect("somebody waits"),
        };
        let reload = running.follow(watch);
        let (exchanges, metrics) = (running.exchanges.clone(), running.metrics.clone());
        // Of a Unix socket there is no address, and its test knows where it is.
        let proxy = running.proxy[0].tcp().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        report.send(Ok((proxy, running.status, exchanges, metrics, reload))).expect("somebody waits");
        drop(report);
        let _ = told.await;
        let _ = end.send(running.shut_down().await);
    };
    let thread = std::thread::spawn(move || {
        let _logs = logs.collect_here();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work);
    });
    let started = reported.recv_timeout(PATIENCE).expect("a start in time");
    let (proxy, status, exchanges, metrics, reload) =
        started.unwrap_or_else(|error| panic!("cloakroom did not start: {error}"));
    let ending = Ending { tell: Mutex::new(Some(tell)), ended, thread };
    Started { proxy, status, exchanges, metrics, reload, ending }
}

impl Drop for House {
    fn drop(&mut self) {
        let Some(ending) = self.ending.take() else { return };
        self.exchanges = None;
        if std::thread::panicking() {
            // What failed already is not to be hidden behind what follows from it.
            return;
        }
        ending.tell();
        let in_time = self.wait_for(ending.ended).expect("an end without a panic");
        assert!(in_time, "an exchange did not end by itself:\n{}", self.logged());
        ending.thread.join().expect("no panic in cloakroom");
        let metrics = self.metrics.encode(Exposition::OpenMetrics).expect("metrics");
        for gauge in ["cloakroom_active_requests 0", "cloakroom_active_streams 0"] {
            assert!(metrics.lines().any(|line| line == gauge), "an exchange left no record: no line {gauge}");
        }
        let emitted = [
            ("the logs", self.logs.bytes()),
            ("the logs of other threads", Capture::stray()),
            ("the metrics", metrics.into_bytes()),
            ("what the backend received", self.backend.received_heads()),
            ("what the raw backend received", self.raw_backend.received()),
        ];
        for (place, bytes) in &emitted {
            self.leaks.search(place, bytes);
        }
        self.leaks.search_told();
        self.leaks.search_folder(self.folder.path());
    }
}
