//! What must never be emitted, and the search for it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

/// The values of one test that must not be found, and the problems that its clients were told.
#[derive(Clone, Default)]
pub struct Leaks(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    needles: BTreeSet<(String, Vec<u8>)>,
    told: Vec<u8>,
}

impl Leaks {
    /// Forbids a value and its usual encodings.
    pub fn forbid(&self, value: &str) {
        assert!(value.len() >= 6, "'{value}' is too short not to be found by chance");
        let mut known = self.0.lock().unwrap();
        for form in forms(value.as_bytes()) {
            known.needles.insert((value.to_owned(), form));
        }
    }

    /// Forbids a session id, and its secret alone; its name is public.
    pub fn credential(&self, id: &str) {
        self.forbid(id);
        let Some(text) = id.strip_prefix("cr_") else { return };
        if let (Some(secret), Ok(bytes)) = (text.get(22..), URL_SAFE_NO_PAD.decode(text)) {
            self.forbid(secret);
            if let Some(secret) = bytes.get(16..).filter(|secret| secret.len() == 32) {
                let mut known = self.0.lock().unwrap();
                known.needles.insert((id.to_owned(), secret.to_vec()));
                known.needles.insert((id.to_owned(), hex(secret).into_bytes()));
            }
        }
    }

    /// Keeps what cloakroom itself said to a client.
    pub fn told(&self, text: &[u8]) {
        self.0.lock().unwrap().told.extend_from_slice(text);
    }

    pub fn search(&self, place: &str, bytes: &[u8]) {
        let known = self.0.lock().unwrap();
        for (value, needle) in &known.needles {
            if let Some(at) = find(bytes, needle) {
                let around = &bytes[at.saturating_sub(200)..(at + needle.len() + 80).min(bytes.len())];
                panic!("'{value}' leaked into {place}: …{}…", String::from_utf8_lossy(around));
            }
        }
    }

    pub fn search_told(&self) {
        let told = self.0.lock().unwrap().told.clone();
        self.search("a problem's answer", &told);
    }

    /// Searches every file below a folder: the store, the keys, the audit trail.
    pub fn search_folder(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.search_folder(&path);
            } else if path.is_file() {
                self.search(&path.display().to_string(), &std::fs::read(&path).expect("a file"));
            }
        }
    }
}

/// A value as it is, percent-encoded, in hexadecimal, and in base64 at each of the three places it may begin at.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let percent = percent_encoding::percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string();
    let lower = percent_encoding::percent_encode(value, percent_encoding::CONTROLS).to_string().to_ascii_lowercase();
    let mut forms = vec![value.to_vec(), percent.into_bytes(), lower.into_bytes(), hex(value).into_bytes()];
    for shift in 0..3 {
        let shifted = [&b"\0\0"[..shift], value].concat();
        // The characters at either end hold bits of the neighbours too.
        let whole = shifted.len() / 3 * 4;
        let from = if shift == 0 { 0 } else { shift + 1 };
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            forms.push(text.as_bytes()[from..whole].to_vec());
        }
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Logs of one House, every level.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

/// What was logged on threads that belong to no House, such as a store's writer.
static STRAY: OnceLock<Capture> = OnceLock::new();

impl Capture {
    pub fn start() -> Self {
        STRAY.get_or_init(|| {
            let stray = Self::default();
            tracing::subscriber::set_global_default(stray.subscriber()).expect("the first subscriber");
            stray
        });
        Self::default()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        let lines = tracing_subscriber::fmt::layer().with_writer(self.clone()).with_ansi(false);
        tracing_subscriber::registry().with(LevelFilter::TRACE).with(lines)
    }

    /// Takes what this thread logs, until the guard is dropped.
    pub fn collect_here(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(self.subscriber())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    pub fn stray() -> Vec<u8> {
        STRAY.get().map(Self::bytes).unwrap_or_default()
    }
}

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Capture {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[test]
fn a_leak_is_found_in_every_usual_form() {
    let value = "jane@example.org";
    let forms = [
        format!("x {value} y"),
        "to=jane%40example%2Eorg".into(),
        format!("a{}b", hex(value.as_bytes())),
        STANDARD_NO_PAD.encode(format!("x{value}yz")),
        URL_SAFE_NO_PAD.encode(format!("ab{value}")),
        STANDARD_NO_PAD.encode(value),
    ];
    for form in forms {
        let leaks = Leaks::default();
        leaks.forbid(value);
        let found = std::panic::catch_unwind(|| leaks.search("here", form.as_bytes()));
        assert!(found.is_err(), "{form}");
    }
}
