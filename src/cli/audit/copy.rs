//! A sink's copy of a trail, held against the trail itself.
//!
//! The store's own numbers cannot be believed of somebody who writes to the store; a copy that was taken away at once
//! can.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::handle::Handle;

/// The records of one session's commits in a sink's file. Attempts, and lines that are none, are passed over.
pub fn read(path: &Path, handle: Handle) -> io::Result<Vec<Json>> {
    let handle = handle.to_string();
    let mut records = Vec::new();
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let Ok(record) = serde_json::from_slice::<Json>(&line?) else { continue };
        if record.get("session").and_then(Json::as_str) == Some(&handle) && record.get("seq").is_some() {
            records.push(record);
        }
    }
    Ok(records)
}

/// What the copy has that the trail has not, or has otherwise.
///
/// What is older than the oldest record of the trail was trimmed, as far as can be told.
pub fn compare(trail: &[Json], copy: &[Json]) -> Vec<Json> {
    let text = |record: &Json, name: &str| record.get(name).and_then(Json::as_str).map(str::to_owned);
    let kept: BTreeMap<_, _> = trail.iter().filter_map(|record| Some((text(record, "commit")?, record))).collect();
    let oldest = trail.iter().filter_map(|record| text(record, "at")).min();
    let about =
        |finding: &str, record: &Json| json!({ "finding": finding, "seq": record.get("seq"), "at": record.get("at") });
    let judge = |record: &Json| match text(record, "commit").and_then(|commit| kept.get(&commit)) {
        Some(other) => (*other != record).then(|| about("differs", record)),
        None => (text(record, "at") >= oldest).then(|| about("not_kept", record)),
    };
    copy.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64) -> Json {
        json!({ "commit": format!("c{seq}"), "seq": seq, "at": format!("2026-11-23T08:00:0{seq}.000Z") })
    }

    #[test]
    fn what_was_renumbered_or_removed_shows_in_the_copy() {
        let copy: Vec<Json> = (1..=5).map(record).collect();
        // Trimmed to four, the third removed and those after it numbered anew.
        let mut trail = vec![record(2), record(4), record(5)];
        trail[1]["seq"] = json!(3);
        trail[2]["seq"] = json!(4);
        let found = compare(&trail, &copy);
        let told: Vec<_> = found.iter().map(|f| (f["finding"].as_str().unwrap(), f["seq"].as_u64().unwrap())).collect();
        assert_eq!(told, [("not_kept", 3), ("differs", 4), ("differs", 5)]);
        assert!(compare(&copy, &copy).is_empty());
    }

    #[test]
    fn only_the_session_s_own_commits_are_read() {
        let handle = Handle([7; 16]);
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = json!({ "session": handle.to_string(), "seq": 1 });
        let lines = [
            own.to_string(),
            json!({ "session": handle.to_string(), "outcome": "rejected" }).to_string(),
            json!({ "session": "ses_other", "seq": 1 }).to_string(),
            "torn {".into(),
        ];
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        assert_eq!(read(file.path(), handle).unwrap(), [own]);
    }
}
