//! An admin over parts of its own, and what it answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use cloakroom::admin::{self, Admin, admin_router, status_router};
use cloakroom::audit::Audit;
use cloakroom::clock::{Clock, Time};
use cloakroom::config::{self, AuditSink, Config, Problems};
use cloakroom::drain::Drain;
use cloakroom::exchange::Rooms;
use cloakroom::handle::{Birth, CommitId, Handle, UserKey};
use cloakroom::keyring::{self, Keyring, LiveKeyring};
use cloakroom::readiness::Readiness;
use cloakroom::session::{self, Live, Sessions};
use cloakroom::store::{
    Commit, Draft, Effect, Entry, Listener, Memory, Outcome, Reply, Revocation, Store, StoreError, Trail, TrailBounds,
};
use cloakroom::telemetry::Metrics;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

pub const OPERATOR: Option<&str> = Some("Bearer admin-secret-token");
pub const BILLING: Option<&str> = Some("Bearer billing-secret-token");
/// Stands in no answer but that of `/v1/handles`.
pub const SENSITIVE: &str = "jane@secret.example";

pub const NOW: Time = Time(1_795_421_702_000);

const CONFIG: &str = r#"
version: 1
environment: test
admin:
  token: ${env:ADMIN}
  callers:
    - { name: billing-tool, token: "${env:BILLING}", resolve: [email] }
    - { name: mailer, token: "${env:MAILER}", resolve: [phone] }
session:
  schema:
    version: 1
    fields:
      user_id: { type: string, section: auth, writable: false, user: true }
      auth_status: { type: string, section: auth, enum: [anonymous, authenticated], default: anonymous }
      email: { type: string, section: auth, sensitive: true }
      phone: { type: string, section: auth, sensitive: true }
      step: { type: integer, section: task }
      note: { type: string, section: task }
      note_b: { type: string, section: task }
      note_c: { type: string, section: task }
      note_d: { type: string, section: task }
      note_e: { type: string, section: task }
      ui_preferences.theme: { type: string, section: ui, enum: [light, dark], default: light, audit: value }
      ui_preferences.language: { type: string, section: ui }
      features: { type: list, section: flags, writable: false }
routes:
  - { name: all, upstream: "http://127.0.0.1:1" }
"#;

pub struct Desk {
    pub sessions: Arc<Sessions>,
    pub readiness: Readiness,
    pub clock: Clock,
    pub drain: Drain,
    pub store: Arc<dyn Store>,
    admin: Arc<Admin>,
    audit: Audit,
    config: Config,
    folder: Arc<tempfile::TempDir>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Desk {
    pub async fn open() -> Self {
        Self::over(Arc::new(Memory::new(bounds()))).await
    }

    pub async fn over(store: Arc<dyn Store>) -> Self {
        Self::with(CONFIG, store).await
    }

    pub async fn without_tokens() -> Self {
        let text =
            CONFIG.split("admin:").next().unwrap().to_owned() + "session:" + CONFIG.split("session:").nth(1).unwrap();
        Self::with(&text, Arc::new(Memory::new(bounds()))).await
    }

    async fn with(text: &str, store: Arc<dyn Store>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Keyring::create(&folder.path().join("keyring.json"), NOW).unwrap();
        let environment = |name: &str| match name {
            "ADMIN" => Some("admin-secret-token".to_owned()),
            "BILLING" => Some("billing-secret-token".to_owned()),
            "MAILER" => Some("mailer-secret-token".to_owned()),
            _ => None,
        };
        let config = config::parse(text, Path::new("cloakroom.yaml"), &environment).unwrap().config;
        Self::assemble(config, store, Clock::by_hand(NOW), folder)
    }

    fn assemble(config: Config, store: Arc<dyn Store>, clock: Clock, folder: Arc<tempfile::TempDir>) -> Self {
        let mut problems = Problems::default();
        let (_, schema) = Rooms::compile(&config, &mut problems).unwrap_or_else(|| panic!("{problems:?}"));
        let audit = Audit::open(&[AuditSink::File(folder.path().join("audit.jsonl"))], Metrics::new()).unwrap();
        let keyring = Keyring::load(&folder.path().join("keyring.json"), Duration::ZERO).unwrap();
        let parts = session::Parts {
            store: store.clone(),
            schema,
            keys: LiveKeyring::new(keyring),
            clock: clock.clone(),
            live: Live::default(),
            audit: audit.clone(),
            metrics: Metrics::new(),
        };
        let sessions = Arc::new(Sessions::new(parts, &config));
        let readiness = Readiness::awaiting(&["store"]);
        let drain = Drain::default();
        let parts = admin::Parts {
            sessions: sessions.clone(),
            metrics: Metrics::new(),
            readiness: readiness.clone(),
            drain: drain.clone(),
        };
        let admin = Arc::new(Admin::new(parts, &config));
        Self { sessions, readiness, clock, drain, store, admin, audit, config, folder }
    }

    /// The same after a rotation of the keys and a restart.
    pub fn rotated(self) -> Self {
        self.clock.advance(Duration::from_secs(1));
        keyring::rotate(&self.keyring(), self.clock.now()).unwrap();
        Self::assemble(self.config, self.store, self.clock, self.folder)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has the store note something that no key vouches for.
    pub async fn tamper(&self, session: &str) {
        let handle = Handle::parse(session).unwrap();
        let birth = self.sessions.find(handle).await.unwrap().birth();
        let record = Draft::new(r#"{"action":"write","key":"k1","mac":"AAAA"}"#).unwrap();
        let (id, now) = (CommitId::random().unwrap(), self.clock.now());
        let commit = Commit { id, handle, now, effect: Effect::Note { birth }, record };
        self.store.commit(commit).await.unwrap();
    }

    fn keyring(&self) -> PathBuf {
        self.folder.path().join("keyring.json")
    }

    pub fn admin(&self) -> Router {
        admin_router(self.admin.clone())
    }

    pub fn status(&self) -> Router {
        status_router(self.admin.clone())
    }

    /// What the audit sinks were told, in order; ends them.
    pub fn audited(&self) -> Vec<Json> {
        self.audit.close();
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn plain(&self, on: Router, method: &str, path: &str) -> Answer {
        self.ask_on(on, method, path, None, None).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, OPERATOR, None).await
    }

    pub async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Option<Json>) -> Answer {
        self.ask_on(self.admin(), method, path, token, body).await
    }

    pub async fn ask_on(
        &self,
        on: Router,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Json>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        answered(on, request.body(body).unwrap()).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        kind: Option<&str>,
        body: String,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in [("authorization", token), ("content-type", kind)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        answered(self.admin(), request.body(Body::from(body)).unwrap()).await
    }

    pub async fn patch(&self, session: &str, fields: Json) -> Answer {
        self.ask("PATCH", &format!("/v1/sessions/{session}"), OPERATOR, Some(json!({ "fields": fields }))).await
    }

    pub async fn patch_if(&self, session: &str, tag: &str, fields: Json) -> Answer {
        let request = Request::patch(format!("/v1/sessions/{session}"))
            .header("authorization", OPERATOR.unwrap())
            .header("if-match", tag)
            .body(Body::from(json!({ "fields": fields }).to_string()));
        answered(self.admin(), request.unwrap()).await
    }

    /// Makes a session, and gives its handle.
    pub async fn session(&self, fields: Json) -> String {
        let answer = self.ask("POST", "/v1/sessions", OPERATOR, Some(json!({ "fields": fields }))).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["session"].as_str().unwrap().to_owned()
    }

    pub async fn show(&self, session: &str) -> Json {
        let answer = self.get(&format!("/v1/sessions/{session}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    pub async fn trail(&self, session: &str) -> Vec<Json> {
        let answer = self.get(&format!("/v1/sessions/{session}/audit")).await;
        answer.json()["records"].as_array().unwrap().clone()
    }
}

async fn answered(on: Router, request: Request<Body>) -> Answer {
    let resolves = request.uri().path() == "/v1/handles";
    let response = on.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    for secret in ["admin-secret-token", "billing-secret-token", "mailer-secret-token"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(resolves || !text.contains(SENSITIVE), "{text}");
    Answer { status: head.status, headers: head.headers, text }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:cloakroom:problem:{code}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
    }

    /// The fields that a problem names, in order.
    pub fn refused_fields(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let mut fields: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect();
        fields.sort();
        fields
    }
}

pub fn bounds() -> TrailBounds {
    TrailBounds { keep: 1000, retain: Duration::from_secs(86_400) }
}

/// A store that cannot be reached.
pub struct Away;

fn away<T: Send + 'static>() -> Reply<'static, T> {
    Box::pin(std::future::ready(Err(StoreError::Unavailable("connection refused".into()))))
}

impl Store for Away {
    fn load(&self, _: Handle) -> Reply<'_, Option<Arc<Entry>>> {
        away()
    }
    fn commit(&self, _: Commit) -> Reply<'_, Outcome> {
        away()
    }
    fn touch(&self, _: Handle, _: Birth, _: Time) -> Reply<'_, bool> {
        away()
    }
    fn trail(&self, _: Handle, _: Option<u64>, _: usize) -> Reply<'_, Trail> {
        away()
    }
    fn sessions_of(&self, _: UserKey) -> Reply<'_, Vec<Handle>> {
        away()
    }
    fn handles(&self, _: Option<Handle>, _: usize) -> Reply<'_, Vec<Handle>> {
        away()
    }
    fn revoke(&self, _: Revocation) -> Reply<'_, ()> {
        away()
    }
    fn revocations(&self, _: Time) -> Reply<'_, Vec<Revocation>> {
        away()
    }

    fn follow(&self, _: Listener) -> bool {
        false
    }
}
