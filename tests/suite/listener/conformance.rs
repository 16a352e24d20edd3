//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, case by case: what is refused reaches no backend, and what passes arrives
//! in one spelling.

use crate::house::{Answer, Gate, House};

/// What a request becomes.
enum Becomes {
    /// Refused with that status, and the connection closed; the backend sees nothing.
    Refused(u16),
    /// Broken off with 400 once its body goes wrong; the backend never sees it whole.
    BrokenOff,
    /// Answered by cloakroom, and the connection is kept.
    Answered(u16),
    /// Passed on, with that body.
    Passes(&'static str),
}

use Becomes::{Answered, BrokenOff, Passes, Refused};

const POST: &str = "POST /public HTTP/1.1\r\nHost: a\r\n";
const GET: &str = "GET /public HTTP/1.1\r\nHost: a\r\n";
const CHUNKED: &str = "POST /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// What a body that ends early would have the next request be.
const EVIL: &str = "GET /public/evil HTTP/1.1\r\nHost: a\r\n\r\n";

fn holds(cases: &[(String, Becomes)]) {
    let house = House::new();
    let mut seen = 0;
    for (text, becomes) in cases {
        let mut client = house.raw(text);
        let shown = &text[..text.len().min(200)];
        match becomes {
            Refused(status) => {
                let answer = client.rest();
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer:?}");
                assert!(answer.contains("application/problem+json"), "{shown:?}: {answer:?}");
                assert_eq!(house.backend.count(), seen, "{shown:?}: {:?}", house.backend.last());
            }
            BrokenOff => {
                let answer = client.rest();
                assert!(answer.starts_with("HTTP/1.1 400 "), "{shown:?}: {answer:?}");
                assert_eq!(house.backend.count(), seen, "{shown:?}: {:?}", house.backend.last());
            }
            Answered(status) => {
                let head = client.head().unwrap_or_else(|| panic!("{shown:?}: no answer"));
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {head:?}");
                assert_eq!(house.backend.count(), seen, "{shown:?}");
            }
            Passes(body) => {
                let head = client.head().unwrap_or_else(|| panic!("{shown:?}: no answer"));
                assert!(head.starts_with("HTTP/1.1 200 "), "{shown:?}: {head:?}");
                seen += 1;
                assert_eq!(house.backend.count(), seen, "{shown:?}");
                let arrived = house.backend.last();
                assert_eq!(String::from_utf8_lossy(&arrived.body), *body, "{shown:?}");
                assert!(!arrived.target.contains("evil"), "{shown:?}: {arrived:?}");
                let framings = ["content-length", "transfer-encoding"].map(|name| arrived.lines(name).len());
                assert!(framings.iter().sum::<usize>() <= 1, "{shown:?}: {arrived:?}");
            }
        }
    }
    house.close();
}

fn table<const N: usize>(cases: [(String, Becomes); N]) {
    holds(&cases);
}

/// A head of these lines, and what follows it.
fn post(lines: &str, rest: &str) -> String {
    format!("{POST}{lines}\r\n{rest}")
}

fn get(lines: &str) -> String {
    format!("{GET}{lines}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

fn chunks(body: &str) -> String {
    format!("{CHUNKED}{body}")
}

#[test]
fn the_length_of_a_body_is_said_once_and_in_digits() {
    table([
        (post("Content-Length: 2\r\n", "ab"), Passes("ab")),
        (post("Content-Length: 002\r\n", "ab"), Passes("ab")),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "ab"), Passes("ab")),
        (post("Content-Length: 0\r\n", ""), Passes("")),
        (get("Content-Length: 2\r\n") + "ab", Passes("ab")),
        (post("Content-Length: 2\r\nContent-Length: 3\r\n", "abc"), Refused(400)),
        (post("Content-Length: 2, 2\r\n", "ab"), Refused(400)),
        (post("Content-Length: 2, 3\r\n", "abc"), Refused(400)),
        (post("Content-Length: -1\r\n", "ab"), Refused(400)),
        (post("Content-Length: +2\r\n", "ab"), Refused(400)),
        (post("Content-Length: 0x2\r\n", "ab"), Refused(400)),
        (post("Content-Length: 2 2\r\n", "ab"), Refused(400)),
        (post("Content-Length: 2;a\r\n", "ab"), Refused(400)),
        (post("Content-Length: 2.0\r\n", "ab"), Refused(400)),
        (post("Content-Length: \r\n", "ab"), Refused(400)),
        (post("Content-Length: two\r\n", "ab"), Refused(400)),
        (post("Content-Length: \u{ff12}\r\n", "ab"), Refused(400)),
        (post("Content-Length: 18446744073709551616\r\n", "ab"), Refused(400)),
        (post("Content-Length: 99999999999999999999999\r\n", "ab"), Refused(400)),
        (post("Content-Length:\r\n 2\r\n", "ab"), Refused(400)),
        (post("Content-Length : 2\r\n", "ab"), Refused(400)),
        (post("Content-Length\t: 2\r\n", "ab"), Refused(400)),
    ]);
}

#[test]
fn the_only_transfer_coding_is_chunked_once() {
    let zero = format!("0\r\n\r\n{EVIL}");
    let te = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), &zero);
    table([
        (post("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), Passes("ab")),
        (post("transfer-encoding: Chunked\r\n", "2\r\nab\r\n0\r\n\r\n"), Passes("ab")),
        (post("Transfer-Encoding:  chunked \r\n", "2\r\nab\r\n0\r\n\r\n"), Passes("ab")),
        (format!("{GET}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"), Passes("ab")),
        (
            "DELETE /public HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".into(),
            Passes("ab"),
        ),
        (te("gzip, chunked"), Refused(400)),
        (te("chunked, gzip"), Refused(400)),
        (te("chunked, chunked"), Refused(400)),
        (te("chunked\r\nTransfer-Encoding: chunked"), Refused(400)),
        (te("chunked\r\nTransfer-Encoding: identity"), Refused(400)),
        (te("identity\r\nTransfer-Encoding: chunked"), Refused(400)),
        (te(",chunked"), Refused(400)),
        (te("chunked,"), Refused(400)),
        (te("identity"), Refused(400)),
        (te("xchunked"), Refused(400)),
        (te("\"chunked\""), Refused(400)),
        (te("chunked;a=b"), Refused(400)),
        (te("\x0bchunked"), Refused(400)),
        (te("chunked\x00"), Refused(400)),
        (te(""), Refused(400)),
        (te("\r\n chunked"), Refused(400)),
        (post("Transfer-Encoding : chunked\r\n", &zero), Refused(400)),
        (format!("POST /public HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{zero}"), Refused(400)),
        (post("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "ab"), Refused(400)),
    ]);
}

#[test]
fn chunked_wins_over_a_length_and_the_connection_ends() {
    let house = House::new();
    for (n, lines) in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
            .iter()
            .enumerate()
    {
        let answer = house.raw(&post(lines, &format!("2\r\nab\r\n0\r\n\r\n{EVIL}"))).rest();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let seen = house.backend.last();
        assert_eq!((house.backend.count(), &*seen.body), (n + 1, &b"ab"[..]));
        assert_eq!(seen.header("content-length"), None);
    }
    house.close();
}

#[test]
fn chunks_are_read_strictly() {
    let long = format!("2;{}\r\nab\r\n0\r\n\r\n", "a".repeat(20_000));
    let many = "1;aaaa\r\na\r\n".repeat(5_000) + "0\r\n\r\n";
    table([
        (chunks("2\r\nab\r\n0\r\n\r\n"), Passes("ab")),
        (chunks("1\r\na\r\n1\r\nb\r\n0\r\n\r\n"), Passes("ab")),
        (chunks("A\r\n0123456789\r\n0\r\n\r\n"), Passes("0123456789")),
        (chunks("2;a=b\r\nab\r\n0;c\r\n\r\n"), Passes("ab")),
        (chunks("0000000000000002\r\nab\r\n000\r\n\r\n"), Passes("ab")),
        (chunks(&long), BrokenOff),
        (chunks(&many), BrokenOff),
        (chunks("2;a\nb\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("2\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("2\r\nab\n0\r\n\r\n"), BrokenOff),
        (chunks("2\r\nabc\r\n0\r\n\r\n"), BrokenOff),
        (chunks("0x2\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("-2\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("+2\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks(" 2\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks(";\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("2g\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("10000000000000002\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("FFFFFFFFFFFFFFFFF\r\nab\r\n0\r\n\r\n"), BrokenOff),
        (chunks("2\r\nab\r\n0\r\nX A: 1\r\n\r\n"), BrokenOff),
        (chunks("2\r\nab\r\n0\r\nX-A: a\x00b\r\n\r\n"), BrokenOff),
        (chunks("2\r\nab\r\n0\r\nX-A: a\r\n b\r\n\r\n"), BrokenOff),
        (chunks(&format!("2\r\nab\r\n0\r\nX-A: {}\r\n\r\n", "a".repeat(40_000))), BrokenOff),
        (chunks(&format!("2\r\nab\r\n0\r\n{}\r\n", "X-A: a\r\n".repeat(2_000))), BrokenOff),
    ]);
}

#[test]
fn trailers_frame_route_and_authenticate_nothing() {
    let house = House::new();
    let names =
        "Content-Length, Host, Cloakroom-Session, Authorization, Cookie, X-Forwarded-For, Transfer-Encoding, X-Sum";
    let trailers = "Content-Length: 9\r\nHost: evil\r\nCloakroom-Session: ses_x\r\nAuthorization: Basic eA==\r\nCookie: a=b\r\n\
                    X-Forwarded-For: 1.1.1.1\r\nTransfer-Encoding: chunked\r\nX-Sum: 42\r\n";
    let lines = format!("Transfer-Encoding: chunked\r\nTrailer: {names}\r\n");
    assert_eq!(house.raw_status(&post(&lines, &format!("2\r\nab\r\n0\r\n{trailers}\r\n"))), Some(200));
    assert_eq!(house.backend.last().trailers, [("x-sum".to_owned(), "42".to_owned())]);
    house.close();
}

#[test]
fn field_lines_are_read_strictly() {
    table([
        (get("X-A: b\tc\r\n"), Passes("")),
        (get("X-A:\r\n"), Passes("")),
        (get("X-A:b\r\n"), Passes("")),
        (get("X-A: b\r\n c\r\n"), Refused(400)),
        (get("X-A: b\r\n\tc\r\n"), Refused(400)),
        ("GET /public HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n".into(), Refused(400)),
        (get("X-A : b\r\n"), Refused(400)),
        (get("X-A\t: b\r\n"), Refused(400)),
        (get(": b\r\n"), Refused(400)),
        (get("no colon\r\n"), Refused(400)),
        (get("X(A): b\r\n"), Refused(400)),
        (get("X A: b\r\n"), Refused(400)),
        (get("X\x00A: b\r\n"), Refused(400)),
        (get("X-\u{e4}: b\r\n"), Refused(400)),
        (get("X-A: b\x00c\r\n"), Refused(400)),
        (get("X-A: b\x01c\r\n"), Refused(400)),
        (get("X-A: b\x0bc\r\n"), Refused(400)),
        (get("X-A: b\x1bc\r\n"), Refused(400)),
        (get("X-A: b\x7fc\r\n"), Refused(400)),
        (get("X-A: b\rX-B: c\r\n"), Refused(400)),
        (get("X-A: b\r\r\n"), Refused(400)),
        (get("Cookie: a=\x01\r\n"), Refused(400)),
        (get(&format!("X-A: {}\r\n", "a".repeat(40_000))), Refused(431)),
        (get(&"X-A: 0123456789\r\n".repeat(101)), Refused(431)),
    ]);
}

#[test]
fn request_lines_are_read_strictly() {
    table([
        ("\r\nGET /public HTTP/1.1\r\nHost: a\r\n\r\n".into(), Passes("")),
        (line("GET /public HTTP/1.2"), Refused(400)),
        (line("GET /public HTTP/2.0"), Refused(400)),
        (line("GET /public HTTP/01.1"), Refused(400)),
        (line("GET /public http/1.1"), Refused(400)),
        (line("GET /public HTTP/1.1 "), Refused(400)),
        (line("GET  /public HTTP/1.1"), Refused(400)),
        (line("GET\t/public\tHTTP/1.1"), Refused(400)),
        (line(" GET /public HTTP/1.1"), Refused(400)),
        (line("GET /public"), Refused(400)),
        (line("G(T /public HTTP/1.1"), Refused(400)),
        (line("GET /pub lic HTTP/1.1"), Refused(400)),
        (line("GET /public\x01 HTTP/1.1"), Refused(400)),
        (line("GET /public\x7f HTTP/1.1"), Refused(400)),
        (line("GET /public/../x HTTP/1.1"), Refused(400)),
        (line("GET /public/%2e%2e/x HTTP/1.1"), Refused(400)),
        (line("GET /public%2fx HTTP/1.1"), Refused(400)),
        (line("GET /public\\x HTTP/1.1"), Refused(400)),
        (line("GET /public%00 HTTP/1.1"), Refused(400)),
        (line("GET /public%zz HTTP/1.1"), Refused(400)),
        (line("GET /public#x HTTP/1.1"), Refused(400)),
        (line("GET * HTTP/1.1"), Refused(400)),
        (line("GET public HTTP/1.1"), Refused(400)),
        (line("GET a:80 HTTP/1.1"), Refused(400)),
        (line("CONNECT a:80 HTTP/1.1"), Refused(400)),
        (line("GET ftp://a/public HTTP/1.1"), Refused(400)),
        (line("GET http://u:p@a/public HTTP/1.1"), Refused(400)),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(40_000))), Refused(431)),
        (line("TRACE /public HTTP/1.1"), Answered(405)),
    ]);
}

#[test]
fn one_valid_host_is_needed() {
    let host = |lines: &str| format!("GET /public HTTP/1.1\r\n{lines}\r\n");
    table([
        (host("Host: a\r\n"), Passes("")),
        (host("Host: a:8080\r\n"), Passes("")),
        (host("Host: [::1]:8080\r\n"), Passes("")),
        (host(""), Refused(400)),
        (host("Host: a\r\nHost: a\r\n"), Refused(400)),
        (host("Host: a\r\nHost: b\r\n"), Refused(400)),
        (host("Host:\r\n"), Refused(400)),
        (host("Host: a b\r\n"), Refused(400)),
        (host("Host: u@a\r\n"), Refused(400)),
        (host("Host: a/x\r\n"), Refused(400)),
        (host("Host: a?x\r\n"), Refused(400)),
        (host("Host: a#x\r\n"), Refused(400)),
        (host("Host: a:x\r\n"), Refused(400)),
        (host("Host: a:99999\r\n"), Refused(400)),
        (host("Host: a:80:80\r\n"), Refused(400)),
        (host("Host: ::1\r\n"), Refused(400)),
        (host("Host: [::1\r\n"), Refused(400)),
        (host("Host : a\r\n"), Refused(400)),
        ("GET http://b/public HTTP/1.1\r\n\r\n".into(), Refused(400)),
    ]);
    let house = House::new();
    house.raw("GET http://b/public HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").rest();
    let seen = house.backend.last();
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/public", Some("b")), "the target's host counts");
    house.close();
}

#[test]
fn names_that_pass_for_framing_ones_go_no_further() {
    let house = House::new();
    let twins = "Content_Length: 9\r\nTransfer_Encoding: chunked\r\nTransfer.Encoding: chunked\r\nX_Mine: 1\r\n";
    assert_eq!(house.raw_status(&post(twins, "")), Some(200));
    let seen = house.backend.last();
    let names: Vec<&str> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.iter().any(|name| name.starts_with("content_") || name.contains("encoding")), "{names:?}");
    assert!(names.contains(&"x_mine"));
    house.close();
}

#[test]
fn what_connection_names_ends_here() {
    let house = House::new();
    let lines = "Connection: X-A, keep-alive, close\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: close\r\nTE: trailers, gzip;q=0.5\r\nProxy-Authorization: Basic eA==\r\n";
    house.raw(&get(lines)).rest();
    let seen = house.backend.last();
    for gone in ["x-a", "x-b", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(
        (seen.header("x-c"), seen.header("te"), seen.header("via")),
        (Some("3"), Some("trailers"), Some("1.1 cloakroom"))
    );
    // What a message needs cannot be named away.
    let text = post("Connection: content-length, host, cloakroom-context, close\r\nContent-Length: 2\r\n", "ab");
    house.raw(&text).rest();
    let seen = house.backend.last();
    assert_eq!((&*seen.body, seen.header("host"), seen.header("content-length")), (&b"ab"[..], Some("a"), Some("2")));
    house.close();
}

#[test]
fn options_is_passed_on_as_far_as_it_may_go() {
    let house = House::new();
    let options = |target: &str, more: &str| format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    for text in [options("/public", "Max-Forwards: 0\r\n"), options("*", "Max-Forwards: 0\r\n")] {
        let head = house.raw(&text).head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 0\r\n"), "{head}");
    }
    assert_eq!(house.backend.count(), 0);
    assert_eq!(house.raw_status(&options("/public", "Max-Forwards: 5\r\n")), Some(200));
    assert_eq!(house.backend.last().header("max-forwards"), Some("4"));
    assert_eq!(house.raw_status(&get("Max-Forwards: 0\r\n")), Some(200));
    house.close();
    let house = crate::house::Plan::new()
        .route("name: root, match: { path: / }, upstream: 'http://BACKEND', session: none")
        .open();
    assert_eq!(house.raw_status(&options("*", "")), Some(200));
    assert_eq!(house.backend.last().target, "*");
    house.close();
}

#[test]
fn what_follows_a_message_is_the_next_and_answers_keep_their_order() {
    let house = House::new();
    let all: String =
        (0..20).map(|n| format!("POST /public/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")).collect();
    let mut client = house.raw(&all);
    for n in 0..20 {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        client.until(&format!("\"target\":\"/public/{n}\"")).unwrap();
        client.until("\"trailers\":[]}").unwrap();
    }
    drop(client);
    let text = format!("{GET}Connection: close\r\n\r\n{EVIL}");
    assert_eq!(house.raw(&text).rest().matches("HTTP/1.1 ").count(), 1, "nothing after a close");
    assert!(house.backend.seen().iter().all(|seen| !seen.target.contains("evil")));
    house.close();
}

#[test]
fn what_is_no_request_is_logged_under_the_id_that_its_client_is_told() {
    let house = House::new();
    let answer = house.raw("no request at all\r\n\r\n").rest();
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    let id = problem["request_id"].as_str().unwrap();
    house.until("its line", || house.logged().contains(id));
    let logged = house.logged();
    let line = logged.lines().find(|line| line.contains(id)).unwrap();
    for part in ["_OTHER", "request-malformed", &body.len().to_string()] {
        assert!(line.contains(part), "{line}");
    }
    house.close();
}

/// What the library would answer by itself.
const BARE: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

#[test]
fn the_end_of_a_body_is_passed_on_whatever_it_looks_like() {
    let house = House::new();
    for (version, connection) in [("1.1", "keep-alive"), ("1.1", "close"), ("1.0", "close")] {
        let gate = Gate::closed();
        let begin = "a".repeat(100);
        let length = (begin.len() + BARE.len()).to_string();
        house.backend.next(Answer::ok().header("content-length", &length).body(&begin).wait(&gate).body(BARE));
        let mut client =
            house.raw(&format!("GET /public HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n"));
        assert!(client.head().unwrap().contains(&length));
        client.until(&begin).unwrap();
        gate.open();
        assert_eq!(client.until("\r\n\r\n").as_deref(), Some(BARE), "{version} {connection}");
        if connection == "keep-alive" {
            // And what follows on the same connection is told in our words, and is no part of it.
            client.send(b"no request at all\r\n\r\n");
            let told = client.rest();
            assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("application/problem+json"), "{told}");
        } else {
            assert_eq!(client.rest(), "");
        }
    }
    house.close();
}
