//! The corridor: what passes, and in which order things happen.

use serde_json::json;

use crate::house::{Answer, Fault, Gate, House, Plan};

#[test]
fn a_request_arrives_with_its_session_and_its_answer_is_written_back() {
    let house = House::new();
    house.sensitive("jane@example.org");
    let guest = house.guest(json!({ "user_id": "u-456", "email": "jane@example.org", "step": 4 }));
    house.backend.next(Answer::set("current_project_id=\"proj-790\", step=5"));
    let reply = house.post("/chat/x?y=1").cookie(&guest).body("hello").send();
    reply.passed();
    let seen = house.backend.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), &*seen.body), ("POST", "/chat/x?y=1", &b"hello"[..]));
    assert_eq!(seen.header("cloakroom-session"), Some(&*guest.handle.to_string()));
    assert_eq!(house.revision(&guest), 2);
    assert_eq!(house.field(&guest, "step"), 5);
    assert_eq!(house.field(&guest, "current_project_id"), "proj-790");
    house.close();
}

#[test]
fn an_event_reaches_the_client_before_the_next_is_sent() {
    let house = House::new();
    let guest = house.visitor();
    let (second, end) = (Gate::closed(), Gate::closed());
    house.backend.next(
        Answer::ok()
            .header("content-type", "text/event-stream")
            .body("data: 1\n\n")
            .wait(&second)
            .body("data: 2\n\n")
            .wait(&end),
    );
    let mut stream = house.get("/chat").cookie(&guest).start();
    assert_eq!(stream.text(), "data: 1\n\n");
    second.open();
    assert_eq!(stream.text(), "data: 2\n\n");
    end.open();
    assert!(stream.finish().complete);
    house.close();
}

#[test]
fn what_can_be_refused_without_the_store_does_not_ask_it() {
    let house = Plan::new()
        .route(
            "name: few, match: { path: /few, methods: [GET] }, upstream: 'http://BACKEND', \
             rate_limits: [{ per: client, rate: 1/h, burst: 1 }]",
        )
        .open();
    let guest = house.visitor();
    house.get("/few").cookie(&guest).send().passed();
    house.faults.set(Fault::Down);
    house.get("/few/%2e").cookie(&guest).send().is(400, "request-malformed");
    house.get("/nowhere").cookie(&guest).send().is(404, "route-not-found");
    house.post("/few").cookie(&guest).send().is(405, "method-not-allowed");
    house.get("/few").cookie(&guest).send().is(429, "rate-limited");
    house.get("/chat").send().is(401, "credential-missing");
    house.get("/chat").header("authorization", "Bearer cr_x").send().is(401, "credential-invalid");
    let foreign = house.post("/chat").cookie(&guest).header("origin", "https://evil.example");
    foreign.send().is(403, "forbidden");
    house.get("/chat").cookie(&guest).send().is(503, "store-unavailable");
    assert_eq!(house.backend.count(), 1);
    house.close();
}

#[test]
fn the_backend_is_asked_before_anything_is_written_and_its_answer_waits_for_the_commit() {
    let house = House::new();
    let guest = house.guest(json!({ "step": 1 }));
    let gate = Gate::closed();
    house.faults.hold_commits(&gate);
    house.backend.next(Answer::set("step=2").body("done"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| house.get("/chat").cookie(&guest).send());
        house.until("the commit has begun", || house.faults.held() == 1);
        assert_eq!((house.backend.count(), house.field(&guest, "step")), (1, json!(1)));
        assert!(!waiting.is_finished(), "not even the head is passed on");
        gate.open();
        assert_eq!(waiting.join().unwrap().passed().text(), "done");
    });
    assert_eq!(house.field(&guest, "step"), 2);
    house.close();
}

#[test]
fn events_stream_over_http_2_as_well() {
    let house = House::new();
    let guest = house.visitor();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("data: 1\n\n").wait(&gate).body("data: 2\n\n"));
    let mut stream = house.get("/chat").http2().cookie(&guest).start();
    assert_eq!(stream.text(), "data: 1\n\n");
    assert!(stream.is_silent());
    gate.open();
    assert_eq!(stream.text(), "data: 2\n\n");
    assert!(stream.finish().complete);
    house.close();
}
