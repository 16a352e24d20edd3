//! What somebody who writes to the store cannot do unseen.

use serde_json::{Value as Json, json};

use super::sidecar::{Guest, Sidecar};
use crate::house::Answer;
use crate::redis_server::{Server, wait_for};

fn store(server: &Server, environment: &str) -> String {
    format!(
        "environment: {environment}\nkeyring: {{ path: ./keyring.json }}\n\
         store: {{ kind: redis, url: '{}', timeout: 5s, cache: {{ mode: off }} }}",
        server.url()
    )
}

fn verdict(sidecar: &Sidecar, guest: &Guest) -> Json {
    let answer = sidecar.admin("GET", &format!("/v1/sessions/{}/audit/verify", guest.handle), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_damaged_value_is_not_injected_and_is_counted_logged_and_audited() {
    let server = Server::shared();
    let sidecar = Sidecar::run(&store(&server, "damage"));
    let guest = sidecar.guest(json!({ "email": "jane@example.org", "step": 1 }));
    let key = format!("damage:sessions:{{{}}}", guest.handle);
    let other = sidecar.guest(json!({ "email": "joe@example.org" }));
    let mut raw = server.raw();
    // Another session's value, sealed under the very same key.
    let moved: String = raw.say(&format!("HGET damage:sessions:{{{}}} email", other.handle));
    raw.say_all::<u64>(&["HSET", &key, "email", &moved]);
    assert_eq!(sidecar.get("/chat", &guest).status, 200);
    let seen = sidecar.backend.last();
    assert_eq!(seen.header("cloakroom-context"), Some("step=1, theme=\"light\""));
    sidecar.until("it is counted", |figures| figures.of("values_damaged_total") == 1.0);
    let told = sidecar.lines("cloakroom::session", 1);
    assert!(told.iter().any(|line| line["field"] == "email" && line["session"] == guest.handle.as_str()), "{told:?}");
    let found = sidecar.audited(|record| record["outcome"] == "damaged");
    assert_eq!((&found["action"], &found["changes"][0]["field"]), (&json!("load"), &json!("email")));
}

#[test]
fn records_that_were_removed_and_altered_in_the_server_are_named() {
    let server = Server::shared();
    let sidecar = Sidecar::run(&store(&server, "tamper"));
    let guest = sidecar.guest(json!({ "user_id": "u-1" }));
    for step in 1..=6 {
        sidecar.backend.next(Answer::set(&format!("step={step}")));
        assert_eq!(sidecar.get("/chat", &guest).status, 200);
    }
    assert_eq!(verdict(&sidecar, &guest)["whole"], json!(true));
    let key = format!("tamper:audit:{{{}}}", guest.handle);
    let mut raw = server.raw();
    let entries: Vec<(String, Vec<String>)> = raw.say(&format!("XRANGE {key} - +"));
    assert_eq!(entries.len(), 7);
    // The third is removed; of the fifth the route is changed, in its place.
    raw.say::<u64>(&format!("XDEL {key} {}", entries[2].0));
    let mut rest = entries[4..].to_vec();
    rest[0].1[1] = rest[0].1[1].replace("\"route\":\"chat\"", "\"route\":\"misc\"");
    for (id, _) in &rest {
        raw.say::<u64>(&format!("XDEL {key} {id}"));
    }
    raw.say::<()>(&format!("XSETID {key} {}", entries[3].0));
    for (id, fields) in &rest {
        raw.say_all::<String>(&["XADD", &key, id, "record", &fields[1]]);
    }
    let found = verdict(&sidecar, &guest);
    let expected = json!([{ "finding": "altered", "seq": 5 }, { "finding": "missing", "from": 3, "to": 3 }]);
    assert_eq!((&found["whole"], &found["findings"]), (&json!(false), &expected), "{found}");
    // The newest is cut off.
    raw.say::<u64>(&format!("XDEL {key} {}", entries[6].0));
    let found = verdict(&sidecar, &guest);
    let cut = json!({ "finding": "cut_off", "last_kept": 6, "last_written": 7 });
    assert!(found["findings"].as_array().unwrap().contains(&cut), "{found}");
}

#[test]
fn a_record_that_belongs_elsewhere_is_named() {
    let server = Server::shared();
    let sidecar = Sidecar::run(&format!("{}\naudit: {{ sinks: [{{ file: copy.jsonl }}] }}", store(&server, "foreign")));
    let [guest, other] = [(); 2].map(|()| sidecar.guest(json!({ "user_id": "u-1" })));
    for guest in [&guest, &other] {
        for step in 1..=2 {
            sidecar.backend.next(Answer::set(&format!("step={step}")));
            assert_eq!(sidecar.get("/chat", guest).status, 200);
        }
    }
    sidecar.backend.next(Answer::set("nobody=1"));
    assert_eq!(sidecar.get("/chat", &guest).status, 502);
    let copies = || std::fs::read_to_string(sidecar.folder.path().join("copy.jsonl")).unwrap_or_default();
    let attempt =
        wait_for("the attempt", || copies().lines().find(|line| line.contains("rejected")).map(str::to_owned));
    let mut raw = server.raw();
    let [own, foreign] = [&guest, &other].map(|guest| -> Vec<(String, Vec<String>)> {
        raw.say(&format!("XRANGE foreign:audit:{{{}}} - +", guest.handle))
    });
    let (id, record) = (&own[2].0, &own[2].1[1]);
    let key = format!("foreign:audit:{{{}}}", guest.handle);
    let numbered = |record: &str| format!("{},\"seq\":3,\"revision\":3}}", record.trim_end_matches('}'));
    let twice = record.replacen('{', "{\"action\":\"forged\",", 1);
    assert_eq!(verdict(&sidecar, &guest)["whole"], json!(true));
    for forged in [foreign[2].1[1].clone(), numbered(&attempt), twice] {
        raw.say::<u64>(&format!("XDEL {key} {id}"));
        raw.say::<()>(&format!("XSETID {key} {}", own[1].0));
        raw.say_all::<String>(&["XADD", &key, id, "record", &forged]);
        let found = verdict(&sidecar, &guest);
        assert_eq!(found["findings"], json!([{ "finding": "altered", "seq": 3 }]), "{forged}\n{found}");
    }
}
