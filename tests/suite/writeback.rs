//! What a backend may write back, and what becomes of it.

mod conflict;
mod start;
mod trailer;

use serde_json::{Value as Json, json};

use crate::house::{Answer, Guest, House, Plan, RawAnswer};

fn sends(house: &House, guest: &Guest, answer: Answer) -> crate::house::Reply {
    house.backend.next(answer);
    house.get("/chat").cookie(guest).send()
}

#[test]
fn fields_of_every_type_are_set_and_unset() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "notes": "old", "current_project_id": "p" }));
    let answer = Answer::set("step=-5, score=1.5, urgent, email=\"jane@example.org\", auth_status=\"authenticated\"")
        .header("cloakroom-set", "ui_preferences.language=%\"fran%c3%a7ais\"")
        .header("cloakroom-unset", "notes, \"current_project_id\"");
    let reply = sends(&house, &guest, answer);
    reply.passed();
    for name in ["cloakroom-set", "cloakroom-unset", "cloakroom-etag"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
    let read = |path| house.field(&guest, path);
    assert_eq!((read("step"), read("score"), read("urgent")), (json!(-5), json!(1.5), json!(true)));
    assert_eq!(read("ui_preferences.language"), "français");
    assert_eq!((read("notes"), read("current_project_id")), (Json::Null, Json::Null));
    assert_eq!(house.resolved(&guest, "email"), "jane@example.org");
    assert_eq!(house.revision(&guest), 2);
    house.close();
}

#[test]
fn several_lines_combine_and_the_last_mention_wins() {
    let house = House::new();
    let guest = house.visitor();
    let answer = Answer::set("step=1, notes=\"a\"")
        .header("cloakroom-set", "score=2.5, step=2")
        .header("Cloakroom-Set", "step=3");
    sends(&house, &guest, answer).passed();
    assert_eq!(house.field(&guest, "step"), 3);
    assert_eq!(house.field(&guest, "notes"), "a");
    assert_eq!(house.field(&guest, "score"), 2.5);
    assert_eq!(house.revision(&guest), 2);
    house.close();
}

#[test]
fn an_integer_is_taken_where_a_decimal_belongs() {
    let house = House::new();
    let guest = house.visitor();
    sends(&house, &guest, Answer::set("score=3")).passed();
    assert_eq!(house.field(&guest, "score"), 3.0);
    house.close();
}

#[test]
fn a_write_back_counts_whatever_the_status() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 0 }));
    for (step, status) in [(1, 201), (2, 303), (3, 404), (4, 500), (5, 204), (6, 304)] {
        let answer = Answer::new(status).header("cloakroom-set", &format!("step={step}")).body("");
        assert_eq!(sends(&house, &guest, answer).status, status);
        assert_eq!(house.field(&guest, "step"), step);
    }
    house.backend.next(Answer::set("step=7"));
    let reply = house.ask("HEAD", "/chat").cookie(&guest).send();
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(house.field(&guest, "step"), 7);
    house.close();
}

#[test]
fn write_back_in_an_interim_response_is_ignored_and_not_passed_on() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 0 }));
    house.raw_backend.next(RawAnswer::close(
        "HTTP/1.1 103 Early Hints\r\nCloakroom-Set: step=1\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCloakroom-Set: notes=\"n\"\r\n\r\nok",
    ));
    let mut client = house.raw_with_cookie("GET /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", &guest, "\r\n");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.contains("103"), "{answer}");
    assert_eq!((house.field(&guest, "step"), house.field(&guest, "notes")), (json!(0), json!("n")));
    house.close();
}

/// Everything that is refused, each with a permitted change beside it that must not be written either.
#[rustfmt::skip]
const REFUSED: &[(&str, &[(&str, &str)])] = &[
    ("an unknown field", &[("set", "step=9, nonsense=1")]),
    ("an unknown field unset", &[("set", "step=9"), ("unset", "nonsense")]),
    ("the wrong type", &[("set", "notes=\"n\", step=\"9\"")]),
    ("a decimal where an integer belongs", &[("set", "notes=\"n\", step=9.0")]),
    ("a list where a string belongs", &[("set", "step=9, notes=(\"a\")")]),
    ("a byte sequence", &[("set", "step=9, notes=:YQ==:")]),
    ("a date", &[("set", "notes=\"n\", step=@9")]),
    ("outside its enum", &[("set", "step=9, ui_preferences.theme=\"pink\"")]),
    ("not writable", &[("set", "step=9, user_id=\"u-1\"")]),
    ("not writable unset", &[("set", "step=9"), ("unset", "user_id")]),
    ("not in the route's list", &[("set", "step=9, features=(\"a\")")]),
    ("a token", &[("set", "step=9, notes=n")]),
    ("a handle as a token", &[("set", "step=9, email=hdl_AAAAAAAAAAAAAAAAAAAAAA")]),
    ("a handle as a string", &[("set", "step=9, notes=\"hdl_AAAAAAAAAAAAAAAAAAAAAA\"")]),
    ("a handle as a display string", &[("set", "step=9, notes=%\"hdl_x\"")]),
    ("set and unset", &[("set", "step=9, notes=\"n\""), ("unset", "notes")]),
    ("no dictionary", &[("set", "step=9, =")]),
    ("a trailing comma", &[("set", "step=9,")]),
    ("an upper-case name", &[("set", "step=9, Notes=\"n\"")]),
    ("bytes that no field has", &[("set", "step=9, notes=\"fü\"")]),
    ("an unset that is no list", &[("set", "step=9"), ("unset", "notes,,")]),
    ("an unset that is no name", &[("set", "step=9"), ("unset", "5")]),
    ("an if-match that is no string", &[("set", "step=9"), ("if-match", "1")]),
    ("an if-match that is a token", &[("set", "step=9"), ("if-match", "one")]),
    ("an if-match twice", &[("set", "step=9"), ("if-match", "\"1\""), ("if-match", "\"1\"")]),
    ("a rotation that is no boolean", &[("set", "step=9"), ("rotate", "1")]),
    ("an end where the route does not permit it", &[("set", "step=9"), ("end", "?1")]),
    ("a start where the route does not permit it", &[("start", "step=9")]),
    ("a start beside a change", &[("set", "step=9"), ("start", "step=9")]),
    ("fifteen digits and one", &[("set", "notes=\"n\", step=1234567890123456")]),
];

fn refused(parts: &[(&str, &str)], status: u16) -> Answer {
    let header = |answer: Answer, (name, value): &(&str, &str)| answer.header(&format!("cloakroom-{name}"), value);
    parts.iter().fold(Answer::new(status).body("the backend's"), header)
}

fn untouched(house: &House, guest: &Guest, what: &str) {
    assert_eq!(house.revision(guest), 1, "{what}");
    assert_eq!((house.field(guest, "step"), house.field(guest, "notes")), (json!(4), Json::Null), "{what}");
    assert_eq!(house.trail(guest).len(), 1, "{what}");
}

#[test]
fn a_write_back_that_is_refused_is_502_and_nothing_of_it_is_written() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 4 }));
    for (what, parts) in REFUSED {
        let reply = sends(&house, &guest, refused(parts, 200));
        assert_eq!(reply.status, 502, "{what}");
        reply.is(502, "write-back-rejected");
        untouched(&house, &guest, what);
    }
    let attempts = house.metric("cloakroom_write_backs_total{route=\"chat\",outcome=\"rejected\"}");
    assert_eq!(attempts, REFUSED.len() as u64);
    house.until("every attempt is audited", || {
        house.audited().iter().filter(|record| record["outcome"] == "rejected").count() == REFUSED.len()
    });
    house.close();
}

#[test]
fn a_name_that_is_none_of_a_field_is_in_no_log() {
    let house = House::new();
    let guest = house.visitor();
    let made_up = "4111 1111 of alice@example.com";
    house.sensitive(made_up);
    house.backend.next(Answer::ok().header("cloakroom-unset", &format!("\"{made_up}\"")));
    house.get("/chat").cookie(&guest).send().is(502, "write-back-rejected");
    house.until("its line", || house.logged().contains("a write-back was not written"));
    assert!(house.logged().contains("the schema has no field '…'"));
    house.close();
}

#[test]
fn a_refusal_is_audited_without_a_session_too() {
    let house = House::new();
    house.backend.next(Answer::set("step=1"));
    house.get("/visit").send().is(502, "write-back-rejected");
    house.until("the attempt is audited", || !house.audited().is_empty());
    let record = house.audited().remove(0);
    assert_eq!(
        (&record["outcome"], &record["action"], record.get("session")),
        (&json!("rejected"), &json!("write"), None)
    );
    assert_eq!((&record["actor"]["kind"], &record["actor"]["route"]), (&json!("backend"), &json!("visit")));
    house.close();
}

#[test]
fn where_the_route_ignores_refusals_the_response_passes_and_nothing_is_written() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 4 }));
    for (what, parts) in REFUSED {
        house.backend.next(refused(parts, 200));
        let reply = house.get("/lenient").cookie(&guest).send();
        assert_eq!(reply.passed().text(), "the backend's", "{what}");
        assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("cloakroom-")), "{what}");
        untouched(&house, &guest, what);
    }
    house.until("every attempt is audited", || {
        house.audited().iter().filter(|record| record["outcome"] == "rejected").count() == REFUSED.len()
    });
    house.close();
}

#[test]
fn a_backends_own_error_is_never_replaced() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 4 }));
    for (what, parts) in REFUSED {
        for status in [400, 500] {
            let reply = sends(&house, &guest, refused(parts, status));
            assert_eq!((reply.status, reply.text()), (status, "the backend's"), "{what}");
            untouched(&house, &guest, what);
        }
    }
    house.close();
}

#[test]
fn a_value_over_its_size_and_a_session_over_its_size_are_refused() {
    let house = Plan::new().session("limits: { field: 100B, session: 250B }").open();
    let guest = house.guest(json!({ "step": 4 }));
    let text = |length: usize| "x".repeat(length);
    // `notes="…"` is eight bytes beside its value.
    sends(&house, &guest, Answer::set(&format!("notes=\"{}\"", text(93)))).is(502, "write-back-rejected");
    // A character of another alphabet is sent as three.
    sends(&house, &guest, Answer::set(&format!("notes=%\"{}\"", "%c3%bc".repeat(16)))).is(502, "write-back-rejected");
    sends(&house, &guest, Answer::set(&format!("notes=\"{}\"", text(92)))).passed();
    let project = |length| Answer::set(&format!("current_project_id=\"{}\"", text(length)));
    sends(&house, &guest, project(75)).passed();
    sends(&house, &guest, Answer::set(&format!("ui_preferences.language=\"{}\"", text(60))))
        .is(502, "write-back-rejected");
    assert_eq!(house.revision(&guest), 3);
    // What makes room counts in the same write-back.
    let swap = Answer::set(&format!("ui_preferences.language=\"{}\"", text(60))).header("cloakroom-unset", "notes");
    sends(&house, &guest, swap).passed();
    assert_eq!(house.revision(&guest), 4);
    house.close();
}

#[test]
fn a_value_that_a_field_has_already_is_not_written() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 4 }));
    sends(&house, &guest, Answer::set("step=4, ui_preferences.theme=\"light\", auth_status=\"anonymous\"")).passed();
    sends(&house, &guest, Answer::ok().header("cloakroom-unset", "notes")).passed();
    untouched(&house, &guest, "an echo");
    let reply = house.get("/chat").cookie(&guest).send();
    assert_eq!(house.backend.last().header("cloakroom-etag"), Some("\"1\""), "{:?}", reply.status);
    sends(&house, &guest, Answer::set("step=4").header("cloakroom-if-match", "\"1\"")).passed();
    assert_eq!(house.revision(&guest), 2, "under If-Match an echo is a change");
    house.close();
}

#[test]
fn a_sensitive_value_is_never_compared() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "email": "jane@example.org" }));
    sends(&house, &guest, Answer::set("email=\"jane@example.org\"")).passed();
    assert_eq!(house.revision(&guest), 2);
    sends(&house, &guest, Answer::ok().header("cloakroom-unset", "email")).passed();
    assert_eq!((house.revision(&guest), house.resolved(&guest, "email")), (3, Json::Null));
    house.close();
}

#[test]
fn a_field_that_cannot_be_read_can_be_written_blind() {
    let house =
        Plan::new().route("name: blind, match: { path: /blind }, upstream: 'http://BACKEND', write: [notes]").open();
    let guest = house.visitor();
    house.backend.next(Answer::set("notes=\"n\""));
    house.get("/blind").cookie(&guest).send().passed();
    assert_eq!(house.backend.last().header("cloakroom-context"), None);
    assert_eq!(house.field(&guest, "notes"), "n");
    house.close();
}

#[test]
fn without_a_session_a_change_is_refused() {
    let house = House::new();
    for path in ["/visit", "/public", "/login"] {
        for (name, value) in [("cloakroom-set", "step=1"), ("cloakroom-unset", "step"), ("cloakroom-rotate", "?1")] {
            house.backend.next(Answer::ok().header(name, value));
            house.get(path).send().is(502, "write-back-rejected");
        }
    }
    house.close();
}

#[test]
fn every_name_under_the_prefix_is_kept_from_the_client() {
    let house = House::new();
    let guest = house.visitor();
    for path in ["/chat", "/public"] {
        house.backend.next(
            Answer::ok()
                .header("cloakroom-anything", "1")
                .header("cloakroom-session", "ses_x")
                .header("cloakroom-session-id", "cr_x")
                .header("cloakroom_set", "step=1")
                .header("x-kept", "1"),
        );
        let reply = house.get(path).cookie(&guest).send();
        let names: Vec<_> = reply.passed().headers.keys().map(http::HeaderName::as_str).collect();
        assert!(!names.iter().any(|name| name.starts_with("cloakroom")), "{names:?}");
        assert!(names.contains(&"x-kept"));
    }
    assert_eq!(house.revision(&guest), 1);
    house.close();
}

#[test]
fn the_audit_trail_tells_who_and_what_but_no_content() {
    let house = House::new();
    house.sensitive("jane@example.org");
    house.sensitive("proj-secret-790");
    let guest = house.guest(json!({ "user_id": "u-456" }));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    house.backend.next(Answer::set(
        "current_project_id=\"proj-secret-790\", ui_preferences.theme=\"dark\", email=\"jane@example.org\"",
    ));
    house.get("/chat").cookie(&guest).header("traceparent", parent).send().passed();
    let trail = house.trail(&guest);
    let record = &trail[1];
    assert_eq!(
        (&record["action"], &record["seq"], &record["base"], &record["revision"]),
        (&json!("write"), &json!(2), &json!(1), &json!(2))
    );
    assert_eq!((&record["env"], &record["session"]), (&json!("prod"), &json!(guest.handle.to_string())));
    assert_eq!((&record["actor"]["kind"], &record["actor"]["route"]), (&json!("backend"), &json!("chat")));
    assert_eq!(record["actor"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(record["actor"]["request_id"], *house.backend.last().header("x-request-id").unwrap());
    assert!(record["actor"]["user"].as_str().unwrap().starts_with("usr_"));
    let change = |field: &str| {
        record["changes"].as_array().unwrap().iter().find(|change| change["field"] == field).unwrap().clone()
    };
    assert_eq!(change("ui_preferences.theme")["after"], "dark");
    assert_eq!(change("ui_preferences.theme")["before"], Json::Null, "only a default applied");
    for field in ["email", "current_project_id"] {
        assert_eq!(change(field)["before"], Json::Null);
        let print = change(field)["after"].as_str().unwrap().to_owned();
        assert!(print.starts_with("fp:") && print.len() == 3 + 16, "{print}");
    }
    assert!(house.verify(&guest).whole);
    house.close();
}

#[test]
fn a_string_that_looks_sealed_is_refused_and_one_that_only_begins_so_is_not() {
    let house = House::new();
    let guest = house.visitor();
    sends(&house, &guest, Answer::set("notes=\"seal:v1:k1:AAAA\"")).is(502, "write-back-rejected");
    sends(&house, &guest, Answer::set("notes=\"seal: the deal\"")).passed();
    assert_eq!(house.field(&guest, "notes"), "seal: the deal");
    house.close();
}
