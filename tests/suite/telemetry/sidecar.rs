//! The built program between a scripted backend and clients that speak plain bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use crate::binary::{Binary, Reader};
use crate::house::{Backend, PATIENCE};

pub const TOKEN: &str = "a-token-for-the-admin-api";

/// Routes, schema and listeners that a sidecar has if nothing else is said.
const CONFIGURATION: &str = "version: 1
listeners: [{ address: '127.0.0.1:0' }]
admin: { address: '127.0.0.1:0', token: '${file:token}', callers: [{ name: billing, token: '${file:caller}', resolve: [email] }] }
status: { address: '127.0.0.1:0' }
shutdown: { grace: 1ms, drain: 5s }
session:
  schema:
    version: 1
    fields:
      user_id: { type: string, section: auth, writable: false, user: true }
      email: { type: string, section: auth, sensitive: true }
      step: { type: integer, section: task }
      note: { type: string, section: task }
      theme: { type: string, section: ui, enum: [light, dark], default: light, audit: value }
routes:
  - { name: chat, match: { path: /chat }, upstream: 'http://BACKEND', read: [auth, task, ui], write: [task, ui, email] }
  - { name: strict, match: { path: /strict }, upstream: 'http://BACKEND', require: { theme: dark } }
  - { name: narrow, match: { path: /narrow }, upstream: 'http://BACKEND', session: none, rate_limits: [{ per: client, rate: 1/h, burst: 3 }] }
  - { name: login, match: { path: /login }, upstream: 'http://BACKEND', session: optional, start: true }
  - { name: logout, match: { path: /logout }, upstream: 'http://BACKEND', end: true }
";

pub struct Sidecar {
    pub binary: Binary,
    pub backend: Backend,
    pub folder: tempfile::TempDir,
    pub runtime: Runtime,
}

/// An answer as it came, or as far as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

#[derive(Debug, Clone)]
pub struct Guest {
    pub id: String,
    pub handle: String,
}

impl Sidecar {
    /// Runs one with these sections beside the usual ones.
    pub fn run(sections: &str) -> Self {
        Self::run_beside(runtime(), sections)
    }

    /// The same, on a runtime where others serve it already.
    pub fn run_beside(runtime: Runtime, sections: &str) -> Self {
        Self::run_to(Reader::Reads, runtime, sections)
    }

    /// The same, before a reader that may be a bad one.
    pub fn run_to(reader: Reader, runtime: Runtime, sections: &str) -> Self {
        let backend = Backend::open(&runtime);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        std::fs::write(folder.path().join("caller"), "a-token-for-a-caller").unwrap();
        let text = CONFIGURATION.replace("BACKEND", &backend.address.to_string());
        let keyring = folder.path().join("keyring.json").display().to_string();
        assert!(Binary::run(&["keys", "generate", "--keyring", &keyring]).status.success());
        let file = folder.path().join("cloakroom.yaml");
        std::fs::write(&file, format!("{text}{sections}\n")).unwrap();
        Self { binary: Binary::serve_to(&file, reader), backend, folder, runtime }
    }

    /// Asks the proxy.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(self.binary.proxy, method, target, headers, body)
    }

    /// Asks as a guest.
    pub fn get(&self, target: &str, guest: &Guest) -> Answer {
        self.ask("GET", target, &[("authorization", &format!("Bearer {}", guest.id))], "")
    }

    /// Asks the admin API.
    pub fn admin(&self, method: &str, target: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        ask(self.binary.admin, method, target, &headers, body)
    }

    pub fn guest(&self, fields: Json) -> Guest {
        let made = self.admin("POST", "/v1/sessions", &json!({ "fields": fields }).to_string());
        assert_eq!(made.status, 201, "{made:?}");
        let json: Json = serde_json::from_str(&made.body).unwrap();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Guest { id: text("session_id"), handle: text("session") }
    }

    /// Runs a command of the program against its admin listener.
    pub fn command(&self, words: &[&str]) -> std::process::Output {
        let admin = self.binary.admin.to_string();
        let token = self.folder.path().join("token").display().to_string();
        Binary::run(&[words, &["--admin", &admin, "--token-file", &token]].concat())
    }

    /// Standard output of a command that has to succeed.
    #[track_caller]
    pub fn said(&self, words: &[&str]) -> String {
        let output = self.command(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it, lets something be done to its folder, and runs it again.
    pub fn restart_after(mut self, change: impl FnOnce(&std::path::Path)) -> Self {
        let file = self.folder.path().join("cloakroom.yaml");
        assert_eq!(self.binary.terminate(), Some(0));
        change(self.folder.path());
        self.binary = Binary::serve(&file);
        self
    }

    /// The figures as Prometheus reads them.
    pub fn scraped(&self) -> String {
        ask(self.binary.admin, "GET", "/metrics", &[], "").body
    }

    pub fn figures(&self) -> Figures {
        Figures::read(&self.scraped())
    }

    /// Waits until something can be seen in the figures.
    pub fn until(&self, what: &str, seen: impl Fn(&Figures) -> bool) -> Figures {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let figures = self.figures();
            if seen(&figures) {
                return figures;
            }
            assert!(Instant::now() < deadline, "in vain waited until {what}:\n{figures:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first audit record of that kind, waited for: sinks are not waited for by those who write.
    pub fn audited(&self, of: impl Fn(&Json) -> bool) -> Json {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.binary.audited();
            // The last line may not be whole yet.
            let mut records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(record) = records.find(|record| of(record)) {
                return record;
            }
            assert!(Instant::now() < deadline, "in vain waited for a record among:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The lines of its log from one target, once there are so many: nobody waits for them to be written.
    pub fn lines(&self, target: &str, count: usize) -> Vec<Json> {
        let of = |line: &Json| line["target"] == target;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.binary.logged();
            let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(of);
            let lines: Vec<Json> = lines.collect();
            if lines.len() >= count {
                return lines;
            }
            assert!(Instant::now() < deadline, "in vain waited for {count} lines of {target} in:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Sends one request over a connection of its own and reads all that comes.
pub fn ask(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = send(to, method, target, headers, body);
    let mut whole = Vec::new();
    // A stream that breaks off is an answer as far as it came.
    let _ = stream.read_to_end(&mut whole);
    let text = String::from_utf8_lossy(&whole).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Sends one request; dropping the connection is a client that leaves.
pub fn send(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{lines}content-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Samples by name and labels, as they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        });
        Self(samples.collect())
    }

    /// One sample; zero if it is not there.
    pub fn of(&self, sample: &str) -> f64 {
        self.0.get(&format!("cloakroom_{sample}")).copied().unwrap_or(0.0)
    }

    /// The sum of all samples of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.0.iter().filter(|(sample, _)| base(sample) == format!("cloakroom_{name}")).map(|(_, value)| value).sum()
    }

    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(|sample| base(sample)).collect();
        names.dedup();
        names
    }

    pub fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(sample, value)| (sample.as_str(), *value))
    }
}

fn base(sample: &str) -> &str {
    sample.split('{').next().unwrap_or_default()
}
