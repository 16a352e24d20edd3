//! Responses as no backend should send them: the client gets 502 or a broken stream, and the connection is not used
//! again.

use crate::house::{House, Plan, RawAnswer};

fn house() -> House {
    Plan::new().route("name: bytes, match: { path: /bytes }, upstream: 'http://RAW', session: none").open()
}

#[test]
fn a_malformed_head_is_502_and_its_connection_is_closed() {
    let house = house();
    let large = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(128 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: 1\r\n".repeat(300));
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX-A: b\x01c\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX-A: b\x7fc\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nab",
        "ICY 200 OK\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "200 OK\r\n\r\nab",
        &large,
        &many,
    ];
    for head in heads {
        let before = house.raw_backend.connections();
        house.raw_backend.next(RawAnswer::keep(head));
        let reply = house.get("/bytes").send();
        assert_eq!(reply.status, 502, "{:?}: {:?}", &head[..head.len().min(100)], reply);
        reply.is(502, "upstream-unavailable");
        house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert_eq!(house.get("/bytes").send().passed().text(), "ok");
        assert_eq!(house.raw_backend.connections(), before + 2, "{:?}", &head[..head.len().min(100)]);
        house.raw_backend.next(RawAnswer::close("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"));
        house.get("/bytes").send().passed();
    }
    house.close();
}

#[test]
fn a_malformed_body_breaks_off_at_the_client() {
    let house = house();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "ZZ\r\nab\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "2\nab\r\n0\r\n\r\n",
        "2\r\nab\n0\r\n\r\n",
        "-2\r\nab\r\n0\r\n\r\n",
        "0x2\r\nab\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\nX A: 1\r\n\r\n",
        "2\r\nab\r\n\r\n",
        "2\r\nab\r\n;\r\n\r\n",
        "2;a\nb\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n",
        "",
    ] {
        house.raw_backend.next(RawAnswer::close(&format!("{chunked}{body}")));
        let mut client = house.raw("GET /bytes HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.rest();
        assert!(!answer.ends_with("0\r\n\r\n"), "{body:?} passes for whole: {answer:?}");
    }
    house.raw_backend.next(RawAnswer::close("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"));
    assert!(house.get("/bytes").start().breaks_off());
    house.close();
}

#[test]
fn statuses_and_methods_without_a_body_leave_nothing_behind() {
    let house = house();
    for (method, answer) in [
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
    ] {
        house.raw_backend.next(RawAnswer::keep(answer));
        let reply = house.ask(method, "/bytes").send();
        assert_eq!((reply.body.len(), reply.complete), (0, true), "{method} {answer:?}");
        house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        assert_eq!(house.get("/bytes").send().passed().text(), "ok", "after {method} {answer:?}");
    }
    house.close();
}

#[test]
fn other_informational_responses_are_not_passed_on() {
    let house = house();
    house.raw_backend.next(RawAnswer::keep(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nCloakroom-Set: step=1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    let mut client = house.raw("GET /bytes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(!answer.to_lowercase().contains("cloakroom"), "{answer}");
    house.close();
}

#[test]
fn of_two_framings_the_length_is_dropped_and_nothing_is_read_after_it() {
    let house = house();
    house.raw_backend.next(RawAnswer::keep(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ));
    let reply = house.get("/bytes").send();
    assert_eq!((reply.passed().text(), reply.header("content-length")), ("ok", None));
    house.raw_backend.next(RawAnswer::close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    house.get("/bytes").send().passed();
    assert_eq!(house.raw_backend.connections(), 2);
    house.close();
}

#[test]
fn a_length_that_stands_twice_is_passed_on_once() {
    let house = house();
    house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok"));
    let reply = house.get("/bytes").send();
    assert_eq!((reply.passed().text(), reply.lines("content-length")), ("ok", vec!["2"]));
    house.close();
}

#[test]
fn words_beside_a_status_pass() {
    let house = house();
    house.raw_backend.next(RawAnswer::keep("HTTP/1.1 200 Fine By Me\r\nContent-Length: 2\r\n\r\nok"));
    let mut client = house.raw("GET /bytes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.rest().starts_with("HTTP/1.1 200 Fine By Me\r\n"));
    house.close();
}

#[test]
fn interim_responses_have_an_end() {
    let house = house();
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(256);
    house.raw_backend.next(RawAnswer::keep(&format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")));
    assert_eq!(house.get("/bytes").send().passed().text(), "ok");
    house.raw_backend.next(RawAnswer::keep(&interim.repeat(2)));
    house.get("/bytes").send().is(502, "upstream-unavailable");
    house.close();
}

const UPGRADE: &str = "GET /bytes HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: other\r\n";
const CHANGED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n";

#[test]
fn what_comes_right_behind_a_change_of_protocol_is_the_others_whatever_it_looks_like() {
    let house = house();
    let said = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    house.raw_backend.next(RawAnswer::keep(&format!("{CHANGED}{said}")));
    let mut client = house.raw(&format!("{UPGRADE}\r\n"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.until("\r\n\r\n").as_deref(), Some(said));
    drop(client);
    house.close();
}

#[test]
fn a_protocol_is_not_changed_in_the_middle_of_a_request() {
    let house = house();
    house.raw_backend.next(RawAnswer::keep(CHANGED));
    let mut client = house.raw(&format!("{UPGRADE}Content-Length: 5\r\n\r\nhe"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 502 "));
    house.close();
}

#[test]
fn no_protocol_is_asked_for_that_could_carry_other_requests() {
    let house = house();
    let asked: [&[u8]; 14] = [
        b"h2c",
        b"H2C",
        b"websocket, h2c",
        b" ,h2c",
        b"x,h2c",
        b"foo/1, H2C",
        // Some take these for spaces.
        b"\xa0h2c",
        b"\x85h2c",
        b"\xc2\xa0h2c",
        b"HTTP/2.0",
        b"TLS/1.2",
        b"foo/1/2",
        b"websocket\r\nUpgrade: h2c",
        b"",
    ];
    for protocol in asked {
        for connection in ["Upgrade", "Upgrade, HTTP2-Settings"] {
            let lines =
                format!("GET /public HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nHTTP2-Settings: AAMA\r\n");
            let head = [lines.as_bytes(), b"Upgrade: ", protocol, b"\r\n\r\n"].concat();
            let answer = house.raw_over(house.wire(), &head).head().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer} {protocol:?}");
            let seen = house.backend.last();
            for absent in ["upgrade", "http2-settings"] {
                assert_eq!(seen.lines(absent), [""; 0], "{protocol:?} {connection}");
            }
            assert_eq!(seen.header("connection"), Some("te"), "{protocol:?}");
        }
    }
    house.close();
}

#[test]
fn a_change_to_another_protocol_than_was_asked_for_is_none() {
    let house = house();
    for changed in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: else\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\nUpgrade: else\r\n\r\n",
        "HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    ] {
        house.raw_backend.next(RawAnswer::keep(changed));
        let mut client = house.raw(&format!("{UPGRADE}\r\n"));
        assert!(client.head().unwrap().starts_with("HTTP/1.1 502 "), "{changed}");
    }
    house.raw_backend.next(RawAnswer::keep(&CHANGED.replace("other", "Other")));
    assert!(house.raw(&format!("{UPGRADE}\r\n")).head().unwrap().starts_with("HTTP/1.1 101 "));
    house.close();
}
