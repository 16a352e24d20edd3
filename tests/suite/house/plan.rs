//! The configuration that a House is opened with.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use cloakroom::clock::Clock;
use cloakroom::config::{self, Config};
use rustls::ServerConfig;

use super::{BEGIN, House};

pub const FILE: &str = "cloakroom.yaml";
pub const AUDIT: &str = "audit.jsonl";

/// The contract's schema, and a field more of each type.
const SCHEMA: &str = "
    version: 2
    fields:
      user_id:                 { type: string, section: auth, writable: false, user: true }
      auth_status:             { type: string, section: auth, enum: [anonymous, authenticated], default: anonymous }
      email:                   { type: string, section: auth, sensitive: true }
      current_project_id:      { type: string, section: task }
      step:                    { type: integer, section: task }
      score:                   { type: decimal, section: task }
      urgent:                  { type: boolean, section: task }
      notes:                   { type: string, section: task }
      ui_preferences.theme:    { type: string, section: ui, enum: [light, dark], default: light, audit: value }
      ui_preferences.language: { type: string, section: ui, default: en }
      features:                { type: list, section: flags, writable: false }
    migrations:
      - { to: 2, rename: { project: current_project_id } }
";

/// The routes that every House has.
const ROUTES: &str = "
  - name: chat
    match: { path: /chat }
    upstream: http://BACKEND
    read: [auth, task, ui, flags]
    write: [email, auth_status, task, ui]
  - name: lenient
    match: { path: /lenient }
    upstream: http://BACKEND
    read: [auth, task, ui, flags]
    write: [email, auth_status, task, ui]
    on_reject: ignore
  - name: visit
    match: { path: /visit }
    upstream: http://BACKEND
    session: optional
    read: [auth, task, ui]
    write: [task, ui]
  - name: login
    match: { path: /login }
    upstream: http://BACKEND
    session: optional
    read: [auth, ui]
    start: { carry: [ui_preferences.theme] }
  - name: token
    match: { path: /token }
    upstream: http://BACKEND
    session: optional
    start: { id: header }
  - name: logout
    match: { path: /logout }
    upstream: http://BACKEND
    read: [task]
    write: [task]
    end: true
  - name: public
    match: { path: /public }
    upstream: http://BACKEND
    session: none
  - name: headers
    match: { path: /headers }
    upstream: http://BACKEND
    headers: { X-User-Id: user_id, X-Email: email, X-Urgent: urgent, X-Project: current_project_id, X-Step: step }
  - name: flags
    match: { path: /flags }
    upstream: http://BACKEND
    headers: { X-Features: features, X-Score: score }
  - name: raw
    match: { path: /raw }
    upstream: http://RAW
    read: [task]
    write: [task]
";

/// Options of a House, each a piece of the file.
pub struct Plan {
    address: String,
    listener: String,
    store: String,
    session: String,
    schema: String,
    routes: String,
    top: String,
    files: Vec<(String, String)>,
    /// What the backend speaks at its second port.
    pub(super) secure: Option<ServerConfig>,
    audit: String,
    place: Option<(Arc<tempfile::TempDir>, Clock)>,
}

impl Plan {
    pub fn new() -> Self {
        Self {
            address: "127.0.0.1:0".into(),
            listener: String::new(),
            store: "kind: memory, timeout: 10s".into(),
            session: String::new(),
            schema: SCHEMA.into(),
            routes: ROUTES.into(),
            top: String::new(),
            files: Vec::new(),
            secure: None,
            audit: format!("{{ file: {AUDIT} }}"),
            place: None,
        }
    }

    /// Adds a route, after those that every House has: the members of a YAML mapping in braces, without them.
    /// `BACKEND` and `RAW` stand for the two backends' addresses.
    pub fn route(mut self, members: &str) -> Self {
        self.routes.push_str(&format!("  - {{ {members} }}\n"));
        self
    }

    /// Adds members of `session`, beside the schema.
    pub fn session(mut self, members: &str) -> Self {
        self.session.push_str(&format!("  {members}\n"));
        self
    }

    /// Replaces the schema, and all routes with it.
    pub fn schema(mut self, schema: &str) -> Self {
        self.schema = schema.into();
        self.routes.clear();
        self
    }

    /// Adds a section.
    pub fn section(mut self, section: &str) -> Self {
        self.top.push_str(section);
        self.top.push('\n');
        self
    }

    /// Has the one listener be elsewhere than on a port of 127.0.0.1.
    pub fn address(mut self, address: &str) -> Self {
        self.address = address.into();
        self
    }

    /// Sends the audit records elsewhere.
    pub fn audit(mut self, sink: &str) -> Self {
        self.audit = sink.into();
        self
    }

    /// Adds members of the one listener.
    pub fn listener(mut self, members: &str) -> Self {
        self.listener.push_str(&format!(", {members}"));
        self
    }

    /// Has the backend speak TLS as well, where `SECURE` stands in the routes, with `localhost` for its host.
    pub fn secure_backend(mut self, config: ServerConfig) -> Self {
        self.secure = Some(config);
        self
    }

    /// Puts a file into the House's folder.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// Has the listener speak TLS with this certificate; what else `tls` says is added.
    pub fn tls(self, certificate: &super::Certificate, more: &str) -> Self {
        self.file("tls.crt", &certificate.chain)
            .file("tls.key", &certificate.key)
            .listener(&format!("tls: {{ certificate: tls.crt, key: tls.key{more} }}"))
    }

    /// Keeps sessions in a file rather than in memory.
    pub fn embedded(self) -> Self {
        self.embedded_within("10s")
    }

    /// The same, and waits for the store only so long.
    pub fn embedded_within(mut self, timeout: &str) -> Self {
        self.store = format!("kind: embedded, path: ./sessions.db, timeout: {timeout}");
        self
    }

    /// Keeps sessions in a Redis server, as one of several who have the same environment and keyring.
    pub fn redis(mut self, url: &str, environment: &str, keyring: &Path) -> Self {
        self.store = format!("kind: redis, url: '{url}', timeout: 500ms");
        self.section(&format!("environment: {environment}\nkeyring: {{ path: '{}' }}", keyring.display()))
    }

    /// Members of the store's section beside those that say where it is.
    pub fn store(mut self, members: &str) -> Self {
        self.store = format!("{}, {members}", self.store);
        self
    }

    pub(super) fn within(mut self, folder: Arc<tempfile::TempDir>, clock: Clock) -> Self {
        self.place = Some((folder, clock));
        self
    }

    pub(super) fn folder(&self) -> Arc<tempfile::TempDir> {
        let new = || Arc::new(tempfile::tempdir().expect("a folder"));
        let folder = self.place.as_ref().map_or_else(new, |(folder, _)| folder.clone());
        for (name, text) in &self.files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        folder
    }

    pub(super) fn clock(&self) -> Clock {
        self.place.as_ref().map_or_else(|| Clock::by_hand(BEGIN), |(_, clock)| clock.clone())
    }

    /// The file's text.
    pub fn text(&self, backend: SocketAddr, raw: SocketAddr) -> String {
        let Self { address, listener, store, session, schema, routes, top, audit, .. } = self;
        let text = format!(
            "version: 1
listeners: [{{ address: '{address}'{listener} }}]
admin: {{ address: '127.0.0.1:0' }}
status: {{ address: '127.0.0.1:0' }}
store: {{ {store} }}
audit: {{ sinks: [{audit}] }}
shutdown: {{ grace: 1ms, drain: 10s }}
{top}
session:
{session}
  schema: {schema}
routes:
{routes}"
        );
        text.replace("BACKEND", &backend.to_string()).replace("RAW", &raw.to_string())
    }

    pub fn open(self) -> House {
        House::open(&self)
    }
}

/// Reads a configuration as `cloakroom run` would, but for the environment, of which there is none.
pub fn parse(text: &str, folder: &Path) -> Config {
    match config::parse(text, &folder.join(FILE), &|_| None) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("the plan's configuration is refused:\n{}", problems.render(false)),
    }
}
