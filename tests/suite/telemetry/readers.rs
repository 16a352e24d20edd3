//! Those who read what cloakroom writes: they may be slow, or gone, and no request waits for them.

use std::time::{Duration, Instant};

use serde_json::json;

use super::sidecar::{Sidecar, runtime};
use crate::binary::Reader;
use crate::house::Answer;

#[test]
fn a_log_that_nobody_reads_stalls_nobody_and_what_is_lost_is_counted() {
    let sections = "store: { kind: memory }\nlog: { level: trace }\naudit: { sinks: [] }";
    let sidecar = Sidecar::run_to(Reader::StopsReadingTheLog, runtime(), sections);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    let begun = Instant::now();
    let mut asked = 0;
    while sidecar.figures().of("log_lines_dropped_total") == 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is lost of {asked} exchanges");
        for _ in 0..50 {
            let one = Instant::now();
            assert_eq!(sidecar.get("/chat", &guest).status, 200);
            assert!(one.elapsed() < Duration::from_secs(2), "an exchange waited for the log: {:?}", one.elapsed());
            asked += 1;
        }
    }
    assert_eq!(sidecar.figures().sum("requests_total"), f64::from(asked));
    let begun = Instant::now();
    assert_eq!(sidecar.binary.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "the end waited for the log: {:?}", begun.elapsed());
}

#[test]
fn an_audit_reader_that_has_gone_loses_copies_and_nothing_else() {
    let sections = "store: { kind: memory }\naudit: { sinks: [stdout] }";
    let sidecar = Sidecar::run_to(Reader::ClosesTheOutput, runtime(), sections);
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    for step in 1..=5 {
        sidecar.backend.next(Answer::set(&format!("step={step}")));
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
    }
    let dropped = "audit_dropped_total{sink=\"stdout\"}";
    let figures = sidecar.until("copies are lost", |figures| figures.of(dropped) == 6.0);
    assert_eq!(figures.of("audit_records_total"), 6.0);
    let warned = sidecar.lines("cloakroom::audit", 1);
    assert_eq!(warned.len(), 1, "told once: {warned:?}");
    assert!(sidecar.said(&["audit", "verify", &guest.handle]).starts_with("whole: 6 records"));
}
