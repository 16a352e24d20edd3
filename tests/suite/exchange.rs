//! The corridor: what passes, and in which order things happen.

use serde_json::json;

use crate::house::{Answer, Gate, House};

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
