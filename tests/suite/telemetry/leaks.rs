//! Every feature at every log level, with marked secrets: none of them may be found in anything that cloakroom emits.

use std::io::{Read as _, Write as _};

use serde_json::{Value as Json, json};

use super::collector::Collector;
use super::sidecar::{Answer as Told, Guest, Sidecar, TOKEN, ask, runtime, send};
use crate::house::Answer;
use crate::house::leak::Leaks;

const CALLER: &str = "a-token-for-a-caller";

/// What stands where, each a mark of its own.
struct Marks {
    /// Sensitive: sealed in the store, a handle for backends.
    email: &'static str,
    /// What agents may see, and nobody else is told of.
    note: &'static str,
    path: &'static str,
    query: &'static str,
    header: &'static str,
    /// A model provider's key, which is not ours and passes.
    key: &'static str,
    request: &'static str,
    response: &'static str,
    /// What stands in answers of the backend that are refused.
    refused: &'static str,
    cookie: &'static str,
    configured: &'static str,
}

const MARKS: Marks = Marks {
    email: "jane.kQ7xTzWm2v@example.org",
    note: "note-Vb83LmPq0ZsYt6",
    path: "path-Hn27RcXe9WdJu4",
    query: "query-Gf64MkTo1VaQz8",
    header: "header-Yp05NbLi3XsEw7",
    key: "sk-Dr92KvUj6CqBhTm5",
    request: "request-Wz18FgHo4PnRyL",
    response: "response-Jc37VxQa5TbUdK",
    refused: "refused-Sm49EpIz2WgOfN",
    cookie: "cookie-Lq60ByRk7DvXhA",
    configured: "configured-Tj53ZoMw8CeGiU",
};

struct Drive {
    sidecar: Sidecar,
    leaks: Leaks,
}

impl Drive {
    fn begin(level: &str) -> (Self, Collector) {
        let runtime = runtime();
        let collector = Collector::open(&runtime);
        let sections = format!(
            "{}\nlog: {{ level: {level} }}\nstore: {{ kind: embedded, path: ./sessions.db, timeout: 20s }}\n\
             audit: {{ sinks: [stdout, {{ file: audit.jsonl }}] }}\nidentity: {{ bad_credentials: null }}",
            collector.section(1.0)
        );
        let sidecar = Sidecar::run_beside(runtime, &sections);
        let leaks = Leaks::default();
        let marks = &MARKS;
        for mark in [marks.email, marks.note, marks.path, marks.query, marks.header, marks.key, marks.request] {
            leaks.forbid(mark);
        }
        for mark in [marks.response, marks.refused, marks.cookie, marks.configured, TOKEN, CALLER] {
            leaks.forbid(mark);
        }
        let keyring: Json =
            serde_json::from_slice(&std::fs::read(sidecar.folder.path().join("keyring.json")).unwrap()).unwrap();
        forbid_secrets(&leaks, &keyring);
        (Self { sidecar, leaks }, collector)
    }

    /// What the backend answers from now on.
    fn script(&self, answer: Answer) {
        self.sidecar.backend.always(move |_| answer.clone());
    }

    /// Asks, and searches the answer if it is cloakroom's own.
    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Told {
        let told = self.sidecar.ask(method, target, headers, body);
        self.search_own(&told);
        told
    }

    fn search_own(&self, told: &Told) {
        if told.head.contains("application/problem+json") {
            self.leaks.search("a problem", format!("{}\n{}", told.head, told.body).as_bytes());
        }
    }

    fn guest(&self, fields: Json) -> Guest {
        let guest = self.sidecar.guest(fields);
        self.leaks.credential(&guest.id);
        guest
    }

    /// One request of a guest, answered by the backend with that.
    fn answered(&self, guest: &Guest, answer: Answer) -> Told {
        self.script(answer);
        self.ask("POST", "/chat", &[("authorization", &format!("Bearer {}", guest.id))], MARKS.request)
    }
}

/// Every string of a keyring that is a key.
fn forbid_secrets(leaks: &Leaks, keyring: &Json) {
    match keyring {
        Json::Object(members) => {
            for (name, value) in members {
                match value {
                    Json::String(text) if name.contains("secret") || name.contains("key") && text.len() > 20 => {
                        leaks.forbid(text);
                    }
                    _ => forbid_secrets(leaks, value),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| forbid_secrets(leaks, item)),
        _ => {}
    }
}

fn requests(drive: &Drive, guest: &Guest) {
    let marks = &MARKS;
    let target = format!("/chat/{}?q={}", marks.path, marks.query);
    let bearer = format!("Bearer {}", guest.id);
    let cookie = format!("other={}; __Host-session={}", marks.cookie, guest.id);
    let key = format!("Bearer {}", marks.key);
    let answer = || Answer::ok().header("x-secret", marks.header).body(marks.response);
    for headers in [
        vec![("authorization", bearer.as_str()), ("x-secret", marks.header), ("x-request-id", marks.header)],
        vec![("cookie", cookie.as_str()), ("authorization", &key), ("user-agent", marks.header)],
        vec![("cookie", cookie.as_str()), ("cookie", cookie.as_str())],
        vec![("authorization", key.as_str())],
        vec![("authorization", "Bearer cr_response-Jc37VxQa5TbUdK")],
        vec![("authorization", bearer.as_str()), ("cloakroom-context", "email=\"jane.kQ7xTzWm2v@example.org\"")],
        vec![("authorization", bearer.as_str()), ("traceparent", marks.header), ("tracestate", marks.header)],
        vec![("authorization", bearer.as_str()), ("origin", "https://header-Yp05NbLi3XsEw7.example")],
    ] {
        drive.script(answer());
        drive.ask("POST", &target, &headers, marks.request);
    }
    let malformed =
        [format!("/chat/%2f{}", marks.path), format!("/nowhere/{}", marks.path), format!("/chat/../{}", marks.path)];
    malformed.iter().for_each(|target| drop(drive.ask("GET", target, &[("authorization", &bearer)], "")));
    drive.ask(marks.key, "/chat", &[], "");
    drive.ask("GET", &format!("{target}\"{}", marks.query), &[], "");
    drive.ask("GET", "/chat", &[("x-large", &marks.header.repeat(3000))], "");
    // Another secret of the same name, and one that was never there.
    let (name, secret) = guest.id.split_at(25);
    let turned: String = secret.chars().rev().collect();
    drive.ask("GET", "/chat", &[("authorization", &format!("Bearer {name}{turned}"))], "");
    drive.ask("GET", "/strict", &[("authorization", &bearer)], "");
    (0..5).for_each(|_| drop(drive.ask("GET", "/narrow", &[("x-secret", marks.header)], "")));
}

fn write_backs(drive: &Drive, guest: &Guest) {
    let marks = &MARKS;
    let quoted = |name: &str, value: &str| format!("{name}=\"{value}\"");
    assert_eq!(drive.answered(guest, Answer::set(&quoted("email", marks.email))).status, 200);
    assert_eq!(drive.answered(guest, Answer::set(&quoted("note", marks.note))).status, 200);
    let refused = [
        quoted("unknown", marks.refused),
        quoted("step", marks.refused),
        quoted("theme", marks.refused),
        format!("note=\"{}", marks.refused),
        format!("note={}", marks.refused),
        quoted("note", &marks.refused.repeat(100)),
        quoted("email", &format!("hdl_{}", &marks.refused[..22])),
    ];
    for set in &refused {
        assert_eq!(drive.answered(guest, Answer::set(set)).status, 502, "{set}");
    }
    let conflict = Answer::set(&quoted("note", marks.refused)).header("cloakroom-if-match", "\"99\"");
    assert_eq!(drive.answered(guest, conflict).status, 409);
    let trailer = |name: &str, value: &str| Answer::ok().body(marks.response).trailer(name, value);
    drive.answered(guest, trailer("cloakroom-set", &quoted("email", marks.email)));
    drive.answered(guest, trailer("cloakroom-set", &quoted("unknown", marks.refused)));
    drive.answered(guest, trailer("x-other", marks.header));
    drive.answered(guest, Answer::new(500).body(marks.response));
    drive.answered(guest, Answer::ok().body(marks.response).break_off());
}

fn sessions(drive: &Drive) {
    let start = format!("user_id=\"u-2\", email=\"{}\", note=\"{}\"", MARKS.email, MARKS.note);
    drive.script(Answer::ok().header("cloakroom-start", &start));
    let started = drive.ask("GET", "/login", &[], "");
    let id = started.head.split("__host-session=").nth(1).unwrap().split(';').next().unwrap();
    // The head was put into lower case: whatever of it could leak is a secret in either case.
    drive.leaks.forbid(id);
    let guest = drive.guest(json!({ "user_id": "u-3", "email": MARKS.email }));
    drive.answered(&guest, Answer::ok().header("cloakroom-rotate", "?1"));
    drive.script(Answer::ok().header("cloakroom-end", "?1"));
    assert_eq!(drive.sidecar.get("/logout", &guest).status, 200);
    drive.ask("GET", "/chat", &[("authorization", &format!("Bearer {}", guest.id))], "");
}

/// An upgrade whose bytes nobody is told of.
fn tunnel(drive: &Drive, guest: &Guest) {
    drive.script(Answer::new(101).header("upgrade", "shout").header("connection", "upgrade"));
    let bearer = format!("Bearer {}", guest.id);
    let headers = [("authorization", bearer.as_str()), ("connection", "upgrade"), ("upgrade", "shout")];
    let mut stream = send(drive.sidecar.binary.proxy, "GET", "/chat", &headers, "");
    stream.write_all(MARKS.request.as_bytes()).unwrap();
    let (mut read, mut buffer) = (String::new(), [0; 1024]);
    while !read.contains(&MARKS.request.to_uppercase()) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the tunnel closed: {read}");
        read.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

fn admin(drive: &Drive, guest: &Guest) {
    let (sidecar, marks) = (&drive.sidecar, &MARKS);
    let session = format!("/v1/sessions/{}", guest.handle);
    let told = |method: &str, target: &str, body: &str| {
        let told = sidecar.admin(method, target, body);
        drive.search_own(&told);
        told
    };
    let bodies = [
        format!("{{\"fields\": {{\"email\": \"{}\"}}", marks.refused),
        json!({ "fields": { "unknown": marks.refused } }).to_string(),
        json!({ "fields": { "step": marks.refused } }).to_string(),
        json!({ "fields": { "theme": marks.refused } }).to_string(),
        json!({ "fields": [marks.refused] }).to_string(),
        json!({ "fields": { "note": marks.refused.repeat(100) } }).to_string(),
    ];
    for body in &bodies {
        assert!(told("PATCH", &session, body).status >= 400);
        assert!(told("POST", "/v1/sessions", body).status >= 400);
    }
    let patched = told("PATCH", &session, &json!({ "fields": { "email": marks.email, "step": 3 } }).to_string());
    assert_eq!(patched.status, 200);
    let shown = told("GET", &session, "");
    // What may be seen there is what agents may see; the sensitive value is a handle there too.
    let handle = serde_json::from_str::<Json>(&shown.body).unwrap()["fields"]["email"]["handle"].clone();
    assert!(handle.as_str().unwrap().starts_with("hdl_") && !shown.body.contains(marks.email), "{}", shown.body);
    told("GET", &format!("{session}/audit"), "");
    told("GET", &format!("{session}/audit/verify"), "");
    told("POST", "/v1/revocations", &json!({ "user": "u-9", "not_before": marks.refused }).to_string());
    told("GET", &format!("/v1/sessions/{}", marks.refused), "");
    let request = json!({ "handle": handle, "session": guest.handle, "purpose": "an invoice" }).to_string();
    for (token, status) in [(CALLER, 200), (marks.refused, 401)] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = ask(sidecar.binary.admin, "POST", "/v1/handles", &headers, &request);
        assert_eq!(answer.status, status, "{answer:?}");
        drive.search_own(&answer);
    }
}

/// A configuration that says a secret in clear is refused, and does not say it again.
fn reload(drive: &Drive) {
    let file = drive.sidecar.folder.path().join("cloakroom.yaml");
    let sound = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, sound.replace("'${file:token}'", &format!("'{}'", MARKS.configured))).unwrap();
    drive.sidecar.binary.signal(libc::SIGHUP);
    drive.sidecar.until("it is refused", |figures| figures.of("config_valid") == 0.0);
    std::fs::write(&file, sound).unwrap();
    drive.sidecar.binary.signal(libc::SIGHUP);
    drive.sidecar.until("the sound one is back", |figures| figures.of("config_valid") == 1.0);
}

fn search(drive: Drive, collector: &Collector, level: &str) {
    let Drive { sidecar, leaks } = drive;
    let trail = sidecar.binary.audited();
    assert!(trail.lines().count() > 10, "no audit records: {trail}");
    leaks.search("the metrics", sidecar.scraped().as_bytes());
    let Sidecar { binary, backend, folder, runtime: _runtime } = sidecar;
    // That a leak would be found: the backend has seen what it may see.
    let seen = backend.seen();
    for mark in [MARKS.path, MARKS.query, MARKS.header, MARKS.key, MARKS.note] {
        let received = backend.received_heads();
        assert!(received.windows(mark.len()).any(|bytes| bytes == mark.as_bytes()), "{mark} was not driven");
    }
    assert!(seen.iter().any(|seen| seen.body == MARKS.request.as_bytes()));
    let (end, logged, audited) = binary.end();
    assert_eq!(end, Some(0));
    assert!(!logged.contains("panicked"), "{logged}");
    assert!(logged.len() > 1000, "little was logged at {level}: {logged}");
    leaks.search("the log", logged.as_bytes());
    leaks.search("the audit records", audited.as_bytes());
    leaks.search("the audit file", &std::fs::read(folder.path().join("audit.jsonl")).unwrap());
    assert!(collector.spans().len() > 10);
    leaks.search("the spans", &collector.received());
    // Agents' own values stand there as they are; what is sensitive, and what proves anybody, does not.
    let kept = Leaks::default();
    [MARKS.email, MARKS.path, MARKS.query, MARKS.header, MARKS.key].iter().for_each(|mark| kept.forbid(mark));
    [MARKS.request, MARKS.response, MARKS.refused, MARKS.cookie].iter().for_each(|mark| kept.forbid(mark));
    kept.search("the store", &std::fs::read(folder.path().join("sessions.db")).unwrap());
}

fn drive_at(level: &str) {
    let (drive, collector) = Drive::begin(level);
    let guest = drive.guest(json!({ "user_id": "u-1", "email": MARKS.email, "note": MARKS.note }));
    requests(&drive, &guest);
    write_backs(&drive, &guest);
    sessions(&drive);
    tunnel(&drive, &guest);
    admin(&drive, &guest);
    reload(&drive);
    search(drive, &collector, level);
}

#[test]
fn no_secret_is_found_in_anything_at_any_level() {
    std::thread::scope(|scope| {
        // What is logged at a higher level is logged at these too.
        let drives = ["info", "debug", "trace"].map(|level| scope.spawn(move || drive_at(level)));
        for drive in drives {
            if let Err(panic) = drive.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn what_holds_values_does_not_show_them_when_it_is_debugged() {
    use cloakroom::handle::SessionId;
    use cloakroom::secret::Secret;
    use cloakroom::structured::Value;
    let leaks = Leaks::default();
    leaks.forbid(MARKS.email);
    let id = SessionId::random().unwrap();
    leaks.credential(&id.reveal());
    let value = Value::from_json(&json!(MARKS.email)).unwrap();
    let list = Value::from_json(&json!([MARKS.email, 1])).unwrap();
    let stored = cloakroom::store::Stored { json: json!(MARKS.email).to_string().into(), revision: 3 };
    let shown = format!("{id:?} {:?} {value:?} {list:?} {stored:?} {:#?}", Secret::new(MARKS.email.into()), value);
    leaks.search("debug output", shown.as_bytes());
    assert!(shown.contains("String(…)"), "{shown}");
}
