//! Changes that are known only at the end of a stream.

use serde_json::json;

use crate::house::{Answer, Gate, Guest, House, RawAnswer};

fn streamed() -> Answer {
    Answer::ok().body("one ").body("two")
}

#[test]
fn trailers_are_committed_before_the_client_sees_the_end() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1, "notes": "n" }));
    let gate = Gate::closed();
    let answer = Answer::ok().body("one ").wait(&gate).body("two").trailer("cloakroom-set", "step=2");
    house.backend.next(answer.trailer("cloakroom-unset", "notes").trailer("cloakroom-if-match", "\"1\""));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one ");
    assert_eq!(house.revision(&guest), 1);
    gate.open();
    assert_eq!(stream.text(), "two");
    let reply = stream.finish();
    assert!(reply.complete && reply.trailers.is_empty(), "{:?}", reply.trailers);
    assert_eq!(reply.header("trailer"), None);
    // At once: no waiting, the commit came first.
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (2, json!(2)));
    assert_eq!(house.backend.last().header("te"), Some("trailers"));
    house.close();
}

#[test]
fn other_trailers_pass_to_a_client_that_asked_for_them() {
    let house = House::new();
    let guest = house.visitor();
    let answer = || streamed().trailer("x-sum", "1f").trailer("cloakroom-set", "step=2").trailer("cloakroom-x", "1");
    house.backend.next(answer());
    let reply = house.get("/chat").header("te", "trailers").cookie(&guest).send();
    assert_eq!(reply.header("trailer"), Some("x-sum"));
    assert_eq!(reply.trailers.len(), 1);
    assert_eq!(reply.trailers["x-sum"], "1f");
    house.backend.next(answer());
    let reply = house.get("/chat").cookie(&guest).send();
    assert_eq!((reply.header("trailer"), reply.trailers.len()), (None, 0));
    assert!(reply.complete);
    house.close();
}

#[test]
fn trailers_do_not_conflict_with_their_own_head() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    for pinned in [None, Some("\"3\"")] {
        let answer = streamed().header("cloakroom-set", "step=2").trailer("cloakroom-set", "step=3");
        let answer = match pinned {
            Some(etag) => answer.trailer("cloakroom-if-match", etag),
            None => answer,
        };
        house.backend.next(answer);
        assert!(house.get("/chat").cookie(&guest).send().complete);
    }
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (5, json!(3)));
    house.close();
}

#[test]
fn trailers_conflict_with_another_writer() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).trailer("cloakroom-set", "step=2"));
    let stream = house.get("/chat").cookie(&guest).start();
    house.backend.next(Answer::set("step=5"));
    house.get("/chat").cookie(&guest).send().passed();
    gate.open();
    assert!(stream.breaks_off());
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (2, json!(5)));
    house.close();
}

#[test]
fn what_only_a_head_may_say_is_refused_in_trailers() {
    let house = House::new();
    for (path, name, value) in [
        ("/login", "cloakroom-start", "auth_status=\"authenticated\""),
        ("/chat", "cloakroom-rotate", "?1"),
        ("/logout", "cloakroom-end", "?1"),
        ("/chat", "cloakroom-set", "nonsense=1"),
    ] {
        let guest = house.visitor();
        house.backend.next(streamed().trailer("cloakroom-set", "step=9").trailer(name, value));
        assert!(house.get(path).cookie(&guest).start().breaks_off(), "{name}");
        assert_eq!(house.revision(&guest), 1, "{name}");
        house.get("/chat").cookie(&guest).send().passed();
    }
    house.close();
}

#[test]
fn a_stream_is_ended_abnormally_on_every_protocol() {
    let house = House::new();
    let guest = house.visitor();
    let refused = || streamed().trailer("cloakroom-set", "nonsense=1");
    house.backend.next(refused());
    assert!(house.get("/chat").http2().cookie(&guest).start().breaks_off());
    house.backend.next(refused());
    let mut client = house.raw_with_cookie("GET /chat HTTP/1.1\r\nHost: a\r\n", &guest, "\r\n");
    let text = client.rest();
    assert!(text.contains("two") && !text.contains("\r\n0\r\n"), "{text:?}");
    house.close();
}

#[test]
fn a_client_of_http_1_0_learns_by_a_reset() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(streamed().trailer("cloakroom-set", "nonsense=1"));
    let mut client = house.raw_with_cookie("GET /chat HTTP/1.0\r\nHost: a\r\n", &guest, "\r\n");
    client.head().unwrap();
    assert!(client.is_reset(), "an orderly end would pass for a whole body");
    house.close();
}

#[test]
fn where_failures_are_ignored_the_stream_ends_in_order() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(streamed().trailer("cloakroom-set", "nonsense=1"));
    assert_eq!(house.get("/lenient").cookie(&guest).send().passed().text(), "one two");
    // A status of 400 or more is never replaced, and neither is what comes with it.
    let answer = Answer::new(500).body("one ").body("two").trailer("cloakroom-set", "nonsense=1");
    house.backend.next(answer);
    let reply = house.get("/chat").cookie(&guest).send();
    assert!(reply.complete && reply.status == 500);
    assert_eq!(house.revision(&guest), 1);
    house.close();
}

#[test]
fn a_stream_that_did_not_complete_commits_nothing() {
    let house = House::new();
    let guest = house.visitor();
    house.raw_backend.next(RawAnswer::close(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: cloakroom-set\r\n\r\n3\r\none\r\n0\r\nCloakroom-Set: step=1\r\n",
    ));
    assert!(house.get("/raw").cookie(&guest).start().breaks_off());
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).break_off().trailer("cloakroom-set", "step=1"));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one");
    gate.open();
    assert!(stream.breaks_off());
    assert_eq!(house.revision(&guest), 1);
    house.close();
}

#[test]
fn trailers_over_http_2_are_committed_and_passed() {
    let house = House::new();
    let guest = house.visitor();
    house.backend.next(streamed().trailer("x-sum", "1f").trailer("cloakroom-set", "step=2"));
    let reply = house.get("/chat").http2().header("te", "trailers").cookie(&guest).send();
    assert_eq!(reply.passed().text(), "one two");
    assert_eq!(reply.trailers["x-sum"], "1f");
    assert_eq!((reply.trailers.len(), house.field(&guest, "step")), (1, json!(2)));
    house.close();
}

#[test]
fn a_client_that_leaves_before_the_end_has_its_trailers_neither_lost_nor_half_written() {
    let house = House::new();
    let guest: Guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).body("two").trailer("cloakroom-set", "step=2"));
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "one");
    drop(stream);
    house.until("the exchange is over", || house.metric("cloakroom_active_requests") == 0);
    gate.open();
    // The stream did not complete, so nothing of its trailers counts.
    assert_eq!(house.revision(&guest), 1);
    house.get("/chat").cookie(&guest).send().passed();
    house.close();
}

#[test]
fn trailers_may_take_back_what_their_own_head_wrote() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    let answer = streamed().header("cloakroom-set", "step=2, notes=\"x\"");
    house.backend.next(answer.trailer("cloakroom-set", "step=1").trailer("cloakroom-unset", "notes"));
    assert!(house.get("/chat").cookie(&guest).send().complete);
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (3, json!(1)));
    assert_eq!(house.field(&guest, "notes"), json!(null));
    // And what they say again is no change.
    house.backend.next(streamed().header("cloakroom-set", "step=5").trailer("cloakroom-set", "step=5"));
    assert!(house.get("/chat").cookie(&guest).send().complete);
    assert_eq!(house.revision(&guest), 4);
    house.close();
}
