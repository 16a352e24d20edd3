//! Two writers of one session.

use serde_json::json;

use crate::house::{Answer, Gate, House, Plan};

/// Two requests that both read revision 1; the second writer's answer comes after the first has committed.
fn race(house: &House, guest: &crate::house::Guest, first: Answer, second: Answer) -> (u16, u16) {
    let gate = Gate::closed();
    house.backend.next_to("/chat/slow", second.held(&gate));
    house.backend.next_to("/chat/fast", first);
    std::thread::scope(|scope| {
        let before = house.backend.count();
        let slow = scope.spawn(|| house.get("/chat/slow").cookie(guest).send().status);
        house.backend.wait_for(before + 1);
        let fast = house.get("/chat/fast").cookie(guest).send().status;
        gate.open();
        (fast, slow.join().unwrap())
    })
}

#[test]
fn changes_to_different_fields_merge() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 0 }));
    assert_eq!(race(&house, &guest, Answer::set("step=1"), Answer::set("notes=\"n\"")), (200, 200));
    assert_eq!((house.field(&guest, "step"), house.field(&guest, "notes")), (json!(1), json!("n")));
    assert_eq!(house.revision(&guest), 3);
    house.close();
}

#[test]
fn a_field_that_was_changed_meanwhile_is_a_conflict_even_to_the_same_value() {
    let house = House::new();
    for (first, second) in [
        (Answer::set("step=6"), Answer::set("step=7")),
        (Answer::set("step=6"), Answer::set("step=6")),
        (Answer::set("step=6"), Answer::set("notes=\"n\", step=7")),
        (Answer::ok().header("cloakroom-unset", "step"), Answer::set("step=7")),
        (Answer::set("step=6"), Answer::ok().header("cloakroom-unset", "step")),
    ] {
        let guest = house.guest(json!({ "step": 5 }));
        assert_eq!(race(&house, &guest, first, second), (200, 409));
        assert_eq!(house.revision(&guest), 2);
        assert_eq!(house.field(&guest, "notes"), json!(null));
    }
    house.close();
}

#[test]
fn two_writers_together_do_not_go_over_a_sessions_size() {
    let house = Plan::new().session("limits: { field: 100B, session: 120B }").open();
    let guest = house.guest(json!({ "step": 0 }));
    let long = "x".repeat(60);
    let (project, notes) = (format!("current_project_id=\"{long}\""), format!("notes=\"{long}\""));
    assert_eq!(race(&house, &guest, Answer::set(&project), Answer::set(&notes)), (200, 502));
    assert_eq!((house.field(&guest, "current_project_id"), house.field(&guest, "notes")), (json!(long), json!(null)));
    house.until("the refusal is told", || house.audited().iter().any(|record| record["outcome"] == "rejected"));
    assert_eq!(race(&house, &guest, Answer::set("step=1"), Answer::set("notes=\"n\"")), (200, 200));
    house.close();
}

#[test]
fn a_conflict_says_what_to_do() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 5 }));
    let answer = || Answer::set("step=6").header("cloakroom-if-match", "\"7\"");
    house.backend.next(answer());
    let reply = house.get("/chat").cookie(&guest).send();
    assert_eq!(reply.is(409, "session-conflict").json()["action"], "reload");
    house.backend.next(answer().body("through"));
    assert_eq!(house.get("/lenient").cookie(&guest).send().passed().text(), "through");
    assert_eq!(house.revision(&guest), 1);
    let conflicts =
        |route: &str| house.metric(&format!("cloakroom_write_backs_total{{route=\"{route}\",outcome=\"conflict\"}}"));
    assert_eq!((conflicts("chat"), conflicts("lenient")), (1, 1));
    house.close();
}

#[test]
fn an_entity_tag_is_compared_as_it_is_written() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 5 }));
    for tag in ["01", "+1", "-1", "0", "one", "1 ", "", "18446744073709551617"] {
        house.backend.next(Answer::set("step=6").header("cloakroom-if-match", &format!("\"{tag}\"")));
        assert_eq!(house.get("/chat").cookie(&guest).send().status, 409, "{tag:?}");
    }
    house.backend.next(Answer::set("step=6").header("cloakroom-if-match", "\"1\""));
    house.get("/chat").cookie(&guest).send().passed();
    house.close();
}

#[test]
fn if_match_counts_even_when_no_change_is_left() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 5 }));
    let pinned = Answer::ok().header("cloakroom-if-match", "\"1\"");
    assert_eq!(race(&house, &guest, Answer::set("notes=\"n\""), pinned), (200, 409));
    let pinned = Answer::ok().header("cloakroom-if-match", "\"2\"");
    house.backend.next(pinned);
    house.get("/chat").cookie(&guest).send().passed();
    assert_eq!(house.revision(&guest), 2);
    house.close();
}

#[test]
fn writers_that_began_at_different_revisions_both_pass() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 5 }));
    for step in [6, 7] {
        house.backend.next(Answer::set(&format!("step={step}")));
        house.get("/chat").cookie(&guest).send().passed();
    }
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (3, json!(7)));
    house.close();
}

#[test]
fn a_session_that_ended_meanwhile_is_not_written_and_not_brought_back() {
    let house = Plan::new()
        .route("name: patient, match: { path: /patient }, upstream: 'http://BACKEND', write: [task], on_revoke: finish")
        .open();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::set("step=1").held(&gate));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| house.get("/patient").cookie(&guest).send());
        house.backend.wait_for(1);
        house.revoke(&guest);
        gate.open();
        let reply = waiting.join().unwrap();
        reply.is(401, "session-revoked");
        assert!(reply.clears_cookie());
    });
    assert!(house.load(&guest).is_err());
    house.close();
}

const WRITERS: usize = 32;

#[test]
fn thirty_two_writers_of_different_fields_all_land_without_a_gap() {
    let fields: String = (0..WRITERS).map(|n| format!("      f{n}: {{ type: integer }}\n")).collect();
    let names = (0..WRITERS).map(|n| format!("f{n}")).collect::<Vec<_>>().join(", ");
    for embedded in [false, true] {
        let plan = Plan::new().schema(&format!("\n    version: 1\n    fields:\n{fields}"));
        let plan = plan.route(&format!("name: chat, upstream: 'http://BACKEND', write: [{names}]"));
        let house = if embedded { plan.embedded().open() } else { plan.open() };
        let guest = house.visitor();
        house.backend.always(|seen| Answer::set(&format!("f{}=1", seen.target.trim_start_matches('/'))));
        std::thread::scope(|scope| {
            for n in 0..WRITERS {
                let (house, guest) = (&house, &guest);
                scope.spawn(move || house.get(&format!("/{n}")).cookie(guest).send().passed().status);
            }
        });
        for n in 0..WRITERS {
            assert_eq!(house.field(&guest, &format!("f{n}")), 1, "f{n}");
        }
        gapless(&house, &guest, WRITERS as u64 + 1);
        house.close();
    }
}

#[test]
fn counters_under_if_match_never_lose_an_update() {
    for embedded in [false, true] {
        let house = if embedded { Plan::new().embedded().open() } else { House::new() };
        let guest = house.guest(json!({ "step": 0 }));
        house.backend.always(|seen| {
            let context = seen.header("cloakroom-context").unwrap();
            let step = context.split("step=").nth(1).unwrap().split(',').next().unwrap().parse::<i64>().unwrap();
            let etag = seen.header("cloakroom-etag").unwrap();
            Answer::set(&format!("step={}", step + 1)).header("cloakroom-if-match", etag)
        });
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    // Each round somebody wins, so nobody loses more often than there are others.
                    let won = (0..WRITERS).any(|_| match house.get("/chat").cookie(&guest).send().status {
                        200 => true,
                        409 => false,
                        status => panic!("{status}"),
                    });
                    assert!(won, "a writer lost more often than there are others");
                });
            }
        });
        assert_eq!(house.field(&guest, "step"), WRITERS);
        gapless(&house, &guest, WRITERS as u64 + 1);
        house.close();
    }
}

/// Revisions and numbers of records rise by one up to `last`, and the trail is whole.
fn gapless(house: &House, guest: &crate::house::Guest, last: u64) {
    assert_eq!(house.revision(guest), last);
    let trail = house.trail(guest);
    let numbers = |name: &str| trail.iter().map(|record| record[name].as_u64().unwrap()).collect::<Vec<_>>();
    let expected: Vec<u64> = (1..=last).collect();
    assert_eq!((numbers("revision"), numbers("seq")), (expected.clone(), expected));
    let verdict = house.verify(guest);
    assert!(verdict.whole && verdict.end_checked, "{verdict:?}");
}
