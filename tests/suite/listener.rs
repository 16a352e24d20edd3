//! What arrives at the socket.

mod arrival;
mod conformance;
pub mod http2;
mod rest;
mod tls;

use std::time::Duration;

use crate::house::{Answer, Gate, House, Plan};

#[test]
fn http_2_is_spoken_from_the_first_byte() {
    let house = House::new();
    let guest = house.visitor();
    let reply = house.post("/chat/x?y").http2().cookie(&guest).body("hello").send();
    reply.passed();
    let seen = house.backend.last();
    assert_eq!(
        (seen.target.as_str(), &*seen.body, seen.header("host")),
        ("/chat/x?y", &b"hello"[..], Some("app.example"))
    );
    assert_eq!((seen.header("via"), seen.header("x-forwarded-host")), (Some("2 cloakroom"), Some("app.example")));
    assert!(seen.header("cloakroom-session").is_some());
    house.get("/chat").http2().send().is(401, "credential-missing");
    house.close();
}

#[test]
fn cookies_in_several_fields_of_http_2_are_found() {
    let house = House::new();
    let guest = house.visitor();
    let ask = house.get("/chat").http2().header("cookie", "a=1").cookie(&guest).header("cookie", "b=2");
    ask.send().passed();
    assert_eq!(house.backend.last().lines("cookie").join("; "), "a=1; b=2");
    house.close();
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let house = House::new();
    let mut client = house.raw("GET /public/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /public/2 HTTP/1.1\r\nHost: a\r\n\r\n");
    for n in 1..=2 {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        client.until(&format!("\"target\":\"/public/{n}\"")).unwrap();
        client.until("\"trailers\":[]}").unwrap();
    }
    client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.rest().contains("HTTP/1.1 404"));
    assert_eq!(house.backend.count(), 2);
    house.close();
}

#[test]
fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let house = House::new();
    let guest = house.visitor();
    let lines = "POST /chat HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
    let mut client = house.raw_with_cookie(lines, &guest, "\r\n");
    assert_eq!(client.head().as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.send(b"hello");
    assert!(client.rest().starts_with("HTTP/1.1 200"));
    let seen = house.backend.last();
    assert_eq!((&*seen.body, seen.header("expect")), (&b"hello"[..], None));
    // Who is refused has not sent the body in vain.
    let answer = house.raw(&format!("{lines}\r\n")).rest();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    house.close();
}

#[test]
fn what_is_no_request_is_a_problem_too() {
    let house = House::new();
    let large = format!("GET /public HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(40 << 10));
    let many = format!("GET /public HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(120));
    for (text, status, code) in [
        ("GET /public HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "request-malformed"),
        ("GET /pub lic HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request-malformed"),
        ("GET /public HTTP/1.1\r\nHost : a\r\n\r\n", 400, "request-malformed"),
        (&large, 431, "headers-too-large"),
        (&many, 431, "headers-too-large"),
    ] {
        let answer = house.raw(text).rest();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.60}: {answer}", text);
        assert!(answer.contains(&format!("urn:cloakroom:problem:{code}")), "{:.60}: {answer}", text);
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn a_request_whose_end_is_ambiguous_goes_no_further() {
    let house = House::new();
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 6\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        let text =
            format!("POST /public HTTP/1.1\r\nHost: a\r\n{lines}\r\nhelloGET /public/evil HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = house.raw(&text).rest();
        assert!(answer.starts_with("HTTP/1.1 4"), "{lines:?}: {answer}");
    }
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn chunked_and_a_length_together_do_not_smuggle() {
    let house = House::new();
    let text = "POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /public/evil HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    house.raw(text).rest();
    for seen in house.backend.seen() {
        assert!(seen.header("content-length").is_none() || seen.header("transfer-encoding").is_none(), "{seen:?}");
        assert!(seen.body.is_empty(), "{seen:?}");
    }
    house.close();
}

#[test]
fn a_client_of_http_1_0_is_served() {
    let house = House::new();
    house.backend.next(Answer::ok().body("one ").body("two"));
    let answer = house.raw("GET /public HTTP/1.0\r\n\r\n").rest();
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\none two"), "no chunks for a client that cannot read them: {answer}");
    assert_eq!(house.backend.last().header("via"), Some("1.0 cloakroom"));
    house.close();
}

#[test]
fn who_sends_nothing_is_let_go() {
    let house = Plan::new().listener("limits: { first_byte: 300ms, head_time: 300ms, keep_alive: 300ms }").open();
    assert_eq!(house.raw("").rest(), "");
    assert_eq!(house.raw("GET /pub").rest(), "");
    let mut client = house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 200"));
    house.close();
}

#[test]
fn connections_of_one_peer_are_bounded() {
    let house = Plan::new().listener("limits: { connections_per_peer: 2 }").open();
    let first = house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut held = [first, house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n")];
    held.iter_mut().for_each(|client| assert!(client.head().is_some()));
    assert_eq!(house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n").head(), None);
    drop(held);
    house.until("a place is free", || {
        house.raw_status("GET /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") == Some(200)
    });
    house.close();
}

#[test]
fn over_the_bound_of_connections_clients_wait() {
    let house = Plan::new().listener("limits: { connections: 1 }").open();
    let mut first = house.raw("GET /public HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(first.head().is_some());
    let mut second = house.raw("GET /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(second.is_silent(Duration::from_millis(80)));
    drop(first);
    assert!(second.head().unwrap().starts_with("HTTP/1.1 200"));
    house.close();
}

#[test]
fn a_body_is_passed_on_as_it_comes() {
    let house = House::new();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().before_body().body("early").wait(&gate));
    let mut client = house.raw(
        "POST /public HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    );
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"), "the answer does not wait for the request's end");
    client.until("early").unwrap();
    client.send(b"0\r\n\r\n");
    gate.open();
    client.rest();
    house.close();
}

#[test]
fn a_connection_without_a_first_byte_is_closed_in_its_time() {
    let house = Plan::new().listener("limits: { first_byte: 200ms, head_time: 60s }").open();
    let begun = std::time::Instant::now();
    assert_eq!(house.raw("").rest(), "");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    house.close();
}

#[test]
fn a_malformed_body_is_the_clients_fault_and_not_the_backends() {
    let house = House::new();
    let post = "POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["ZZ\r\n", "2\r\nhi\r\nZZ\r\n"] {
        assert_eq!(house.raw_status(&format!("{post}{body}")), Some(400), "{body:?}");
    }
    house.close();
}

#[test]
fn what_comes_without_a_host_goes_with_one() {
    let house = House::new();
    assert_eq!(house.raw_status("GET /public HTTP/1.0\r\n\r\n"), Some(200));
    let host = house.backend.last().header("host").map(str::to_owned);
    assert!(host.is_some_and(|host| host.starts_with("127.0.0.1:")));
    house.close();
}
