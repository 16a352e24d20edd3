//! The command line against a listener of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use cloakroom::admin::serve;
use cloakroom::drain::Drain;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::desk::{Desk, SENSITIVE};

/// A desk that is open on a port.
struct Counter {
    desk: Desk,
    address: String,
    token_file: PathBuf,
    drain: Drain,
    served: JoinHandle<()>,
}

impl Counter {
    async fn open() -> Self {
        let desk = Desk::open().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap().to_string(), Drain::default());
        let served = tokio::spawn(serve(listener, cloakroom::in_force::InForce::new(desk.admin()), drain.clone()));
        let token_file = desk.folder().join("token");
        std::fs::write(&token_file, "admin-secret-token\n").unwrap();
        Self { desk, address, token_file, drain, served }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
        command.env_remove("CLOAKROOM_CONFIG").args(words);
        if words[0] == "health" {
            command.args(["--status", &self.address]);
        } else {
            command.args(["--admin", &self.address, "--token-file"]).arg(&self.token_file);
        }
        let output = command.output().unwrap();
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("admin-secret-token") && !text.contains(SENSITIVE), "{text}");
        }
        output
    }

    /// Standard output of a command that has to succeed.
    #[track_caller]
    fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Json {
        serde_json::from_str(&self.said(&[words, &["--output", "json"]].concat())).unwrap()
    }

    /// The exit code, and the one line that says why.
    #[track_caller]
    fn failed(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    async fn close(self) {
        assert!(self.drain.finish(std::time::Duration::from_secs(1)).await);
        self.served.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_changed_and_revoked_from_the_command_line() {
    let counter = Counter::open().await;
    let email = format!("email={SENSITIVE}");
    let made = counter.json(&["session", "create", "user_id=u 1", &email, "step=4", "ui_preferences.theme=dark"]);
    let session = made["session"].as_str().unwrap();
    let shown = counter.said(&["session", "get", session]);
    assert!(
        shown.contains("user_id = \"u 1\"\nemail = hdl_") && shown.contains("ui_preferences.theme = \"dark\""),
        "{shown}"
    );

    let changed = counter.json(&["session", "set", session, "step=5", "email=null", "--if-match", "1"]);
    assert_eq!((changed["revision"].clone(), changed["fields"].get("email")), (json!(2), None));
    let (code, line) = counter.failed(&["session", "set", session, "step=6", "--if-match", "1"]);
    assert_eq!((code, line.lines().count()), (1, 1));
    assert!(line.starts_with("cloakroom: The session is not what"), "{line}");
    let (code, line) = counter.failed(&["session", "set", session, "step=x", "nobody=1"]);
    assert!(code == 1 && line.contains("step: is of the wrong type") && line.contains("nobody: "), "{line}");
    assert_eq!(counter.failed(&["session", "set", session, "step"]).0, 2);
    assert_eq!(counter.failed(&["session", "set", session, "step=1", "step=2"]).0, 2);

    assert_eq!(counter.json(&["session", "list", "u 1"])["sessions"][0]["session"], session);
    counter.said(&["session", "revoke", session]);
    assert_eq!(counter.said(&["session", "revoke", session]), format!("{session} is revoked\n"));
    let other = counter.json(&["session", "create", "user_id=u 1"]);
    let moment = ["--not-before", "2026-11-23T08:15:01Z"];
    counter.said(&[&["session", "revoke", "--user", "u 1"][..], &moment].concat());
    assert_eq!(counter.json(&["session", "list", "u 1"])["sessions"][0]["session"], other["session"]);
    counter.desk.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(counter.said(&["session", "revoke", "--user", "u 1"]), "u 1 is revoked\n");
    assert_eq!(counter.json(&["session", "list", "u 1"])["sessions"], json!([]));
    assert_eq!(
        counter.json(&["session", "revoke", "--jti", "t-1", "--exp", "1795421712"]),
        json!({ "revoked": "t-1" })
    );
    for wrong in
        [&["revoke"][..], &["revoke", session, "--user", "x"], &["revoke", "--jti", "t"], &["revoke", "--exp", "1"]]
    {
        assert_eq!(counter.failed(&[&["session"], wrong].concat()).0, 2, "{wrong:?}");
    }
    assert_eq!(counter.failed(&["session", "get", session]), (1, "cloakroom: The session was ended.\n".to_owned()));
    counter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trail_is_shown_oldest_first_and_verified() {
    let counter = Counter::open().await;
    let session = counter.desk.session(json!({ "step": 1 })).await;
    counter.desk.patch(&session, json!({ "step": 2, "ui_preferences": { "theme": "dark" } })).await;
    let shown = counter.said(&["audit", "show", &session]);
    let heads: Vec<_> = shown.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(heads.len() == 2 && heads[0].contains("#1    create") && heads[1].contains("#2    admin-write"), "{shown}");
    assert!(shown.contains("    ui_preferences.theme  (none) -> \"dark\"\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "coloured, and no terminal: {shown}");
    let lines = counter.said(&["audit", "show", &session, "--output", "json"]);
    let seqs: Vec<_> = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, [1, 2]);
    assert_eq!(counter.said(&["audit", "verify", &session]), "whole: 2 records, each as it was written\n");
    let unknown = format!("ses_{}", "A".repeat(22));
    assert_eq!(counter.failed(&["audit", "verify", &unknown]).0, 1);
    counter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trail_that_was_tampered_with_fails_the_verification() {
    let counter = Counter::open().await;
    let session = counter.desk.session(json!({ "step": 1 })).await;
    counter.desk.tamper(&session).await;
    let output = counter.run(&["audit", "verify", &session]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told, "not whole: 2 records\n  record 2 is not what was written\n");
    counter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_an_exit_code() {
    let counter = Counter::open().await;
    assert_eq!(counter.failed(&["health"]), (0, String::new()));
    let (code, line) = counter.failed(&["health", "--ready"]);
    assert_eq!(code, 1);
    assert_eq!(line, "cloakroom: /readyz says 503 Service Unavailable; store: it has not been looked at yet\n");
    counter.desk.readiness.holds("store");
    assert_eq!(counter.failed(&["health", "--ready"]).0, 0);
    counter.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_is_waited_for() {
    let counter = Counter::open().await;
    counter.desk.session(json!({ "email": SENSITIVE })).await;
    let keys = counter.json(&["keys", "reseal"]);
    assert_eq!((&keys["sweep"]["state"], &keys["keys"][0]["values"]), (&json!("done"), &json!(1)));
    counter.close().await;
}
