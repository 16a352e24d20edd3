//! The trail as an auditor reads it, and what he finds where somebody had a hand in it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use cloakroom::handle::Handle;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value as Json, json};

use super::sidecar::{Guest, Sidecar};
use crate::house::Answer;
use crate::redis_server::wait_for;

const EMBEDDED: &str = "store: { kind: embedded, path: ./sessions.db, timeout: 20s }";

fn wrote(sidecar: &Sidecar, guest: &Guest, set: &str) {
    sidecar.backend.next(Answer::set(set));
    assert_eq!(sidecar.get("/chat", guest).status, 200);
}

/// Changes one session's records in the file, oldest first; none takes one out.
fn tamper(folder: &std::path::Path, guest: &Guest, change: impl Fn(usize, &str) -> Option<String>) {
    const AUDIT: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("audit");
    let name = Handle::parse(&guest.handle).unwrap().0;
    let database = Database::open(folder.join("sessions.db")).unwrap();
    let read = database.begin_read().unwrap().open_table(AUDIT).unwrap();
    let rows: Vec<(Vec<u8>, String)> = read
        .iter()
        .unwrap()
        .map(|row| row.unwrap())
        .map(|(key, record)| (key.value().to_vec(), String::from_utf8(record.value().to_vec()).unwrap()))
        .filter(|(key, _)| key.starts_with(&name))
        .collect();
    drop(read);
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(AUDIT).unwrap();
        for (number, (key, record)) in rows.iter().enumerate() {
            match change(number, record) {
                Some(changed) => drop(table.insert(&key[..], changed.as_bytes()).unwrap()),
                None => drop(table.remove(&key[..]).unwrap()),
            }
        }
    }
    write.commit().unwrap();
}

#[test]
fn records_that_were_removed_and_altered_in_the_file_are_named() {
    let sidecar = Sidecar::run(&format!("{EMBEDDED}\naudit: {{ sinks: [{{ file: copy.jsonl }}] }}"));
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    (1..=6).for_each(|step| wrote(&sidecar, &guest, &format!("step={step}")));
    let verify = ["audit", "verify", &guest.handle];
    let copy = sidecar.folder.path().join("copy.jsonl").display().to_string();
    // Copies gather before they are written.
    let copied = || std::fs::read_to_string(&copy).is_ok_and(|text| text.lines().count() == 7);
    wait_for("the copies", || copied().then_some(()));
    let told = sidecar.said(&[&verify[..], &["--copy", &copy]].concat());
    assert_eq!(told, "whole: 7 records, each as it was written\ncompared with 7 records of a copy\n");

    let sidecar = sidecar.restart_after(|folder| {
        tamper(folder, &guest, |number, record| match number {
            2 => None,
            4 => Some(record.replace("\"route\":\"chat\"", "\"route\":\"misc\"")),
            _ => Some(record.to_owned()),
        });
    });
    let output = sidecar.command(&verify);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told, "not whole: 6 records\n  record 5 is not what was written\n  record 3 is gone\n");
    let output = sidecar.command(&[&verify[..], &["--output", "json"]].concat());
    let verdict: Json = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!([{ "finding": "altered", "seq": 5 }, { "finding": "missing", "from": 3, "to": 3 }]);
    assert_eq!((&verdict["whole"], &verdict["findings"]), (&json!(false), &expected));

    // Whoever numbers the rest anew is found by nothing but a copy.
    let sidecar = sidecar.restart_after(|folder| {
        tamper(folder, &guest, |number, record| {
            let record = record.replace("\"route\":\"misc\"", "\"route\":\"chat\"");
            let seq = |seq: usize| format!("\"seq\":{seq},");
            Some(if number >= 2 { record.replace(&seq(number + 2), &seq(number + 1)) } else { record })
        });
    });
    let output = sidecar.command(&[&verify[..], &["--copy", &copy]].concat());
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("stands in the copy alone\n") && told.contains("differs from its copy\n"), "{told}");
}

#[test]
fn a_week_of_records_stays_readable() {
    const WRITES: usize = 1_200;
    let sidecar = Sidecar::run("store: { kind: memory }\naudit: { sinks: [], keep: 5000 }");
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    for write in 1..=WRITES {
        let theme = ["light", "dark"][write / 100 % 2];
        let other = if write % 100 == 0 { format!(", theme=\"{theme}\"") } else { String::new() };
        wrote(&sidecar, &guest, &format!("step={write}{other}"));
    }
    let show = |options: &[&str]| sidecar.said(&[&["audit", "show", &guest.handle], options].concat());
    let heads = |text: &str| text.lines().filter(|line| line.contains("  #")).count();
    let whole = show(&[]);
    assert_eq!(heads(&whole), WRITES + 1);
    assert!(whole.ends_with(&format!("\n{} records: 1 create, {WRITES} write\n", WRITES + 1)), "{whole:.200}");
    // A day stands once, and no line is wider than a terminal but for whose it was.
    assert!(whole.lines().filter(|line| line.starts_with("20")).count() <= 2);
    let themes = show(&["--field", "theme"]);
    assert!(heads(&themes) == 12 && !themes.contains("step"), "{themes}");
    assert_eq!(heads(&show(&["--limit", "10"])), 10);
    assert!(show(&["--limit", "1"]).contains(&format!("#{} ", WRITES + 1)));
    assert_eq!(heads(&show(&["--since", "1h"])), WRITES + 1);
    assert_eq!(show(&["--since", "2100-01-01T00:00:00Z"]), "no records\n");
    let lines = show(&["--output", "json", "--limit", "1100"]);
    let seqs: Vec<u64> =
        lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (102..=1201).collect::<Vec<u64>>());
    assert!(sidecar.said(&["audit", "verify", &guest.handle]).starts_with("whole: 1201 records"));
    assert!(!sidecar.command(&["audit", "show", &guest.handle, "--since", "yesterday"]).status.success());
}

#[test]
fn a_trail_is_followed_and_coloured_where_that_is_wanted() {
    let sidecar = Sidecar::run("store: { kind: memory }\naudit: { sinks: [] }");
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    let mut following = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .env_clear()
        .env("CLICOLOR_FORCE", "1")
        .args(["audit", "show", &guest.handle, "--follow", "--admin", &sidecar.binary.admin.to_string()])
        .arg("--token-file")
        .arg(sidecar.folder.path().join("token"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    let created = lines.find(|line| line.contains("create")).unwrap();
    assert!(created.contains("\u{1b}["), "no colour: {created}");
    wrote(&sidecar, &guest, "theme=\"dark\"");
    let written = lines.find(|line| line.contains("\"dark\"")).unwrap();
    assert!(written.contains("\u{1b}[31m(none)") && written.contains("\u{1b}[32m\"dark\""), "{written:?}");
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(!sidecar.said(&["audit", "show", &guest.handle]).contains('\u{1b}'));
}

#[test]
fn a_file_that_was_moved_or_removed_is_opened_again() {
    let sidecar = Sidecar::run("store: { kind: memory }\naudit: { sinks: [{ file: audit.jsonl }] }");
    let (file, moved) = (sidecar.folder.path().join("audit.jsonl"), sidecar.folder.path().join("audit.jsonl.1"));
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    let records = |path: &std::path::Path| -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()?["seq"].as_u64()).collect()
    };
    let until = |path: &std::path::Path, seqs: &[u64]| {
        sidecar.until("it is written", |_| records(path) == seqs);
    };
    until(&file, &[1]);
    std::fs::rename(&file, &moved).unwrap();
    wrote(&sidecar, &guest, "step=1");
    until(&file, &[2]);
    std::fs::remove_file(&file).unwrap();
    wrote(&sidecar, &guest, "step=2");
    until(&file, &[3]);
    assert_eq!(records(&moved), [1]);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn what_was_not_written_is_told_to_the_sinks_and_to_nobody_else() {
    let sidecar = Sidecar::run("store: { kind: memory }");
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    let refused = |answer: Answer, status: u16, outcome: &str| {
        sidecar.backend.next(answer);
        assert_eq!(sidecar.get("/chat", &guest).status, status);
        let record = sidecar.audited(|record| record["outcome"] == outcome);
        assert_eq!((&record["session"], &record["action"]), (&json!(guest.handle), &json!("write")));
        assert_eq!((&record["actor"]["route"], &record["seq"]), (&json!("chat"), &Json::Null));
        assert!(record["mac"].is_string() && record["changes"].as_array().unwrap().is_empty());
    };
    refused(Answer::set("user_id=\"u-2\""), 502, "rejected");
    refused(Answer::set("step=1").header("cloakroom-if-match", "\"9\""), 409, "conflict");
    assert!(sidecar.said(&["audit", "verify", &guest.handle]).starts_with("whole: 1 records"));
}
