//! What is spoken to backends: HTTP/2, TLS, Unix sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Version;

use crate::house::{Answer, Authority, Gate, House, Plan, RawAnswer};
use crate::listener::http2::{Frame, fields, frame, parse};

fn h2c() -> House {
    Plan::new()
        .route("name: h2c, match: { path: /h2c }, upstream: 'h2c://BACKEND', read: [auth, task], write: [task]")
        .route("name: open, match: { path: /open }, upstream: 'h2c://BACKEND', session: none")
        .open()
}

#[test]
fn http_2_is_spoken_with_prior_knowledge_and_looks_to_the_backend_as_http_1_does() {
    let house = h2c();
    let guest = house.visitor();
    house.backend.next(Answer::set("step=2"));
    let reply =
        house.post("/h2c/x?y=1").cookie(&guest).header("x-mine", "1").header("connection", "x-gone").body("hello");
    reply.header("x-gone", "1").send().passed();
    let seen = house.backend.last();
    assert_eq!((seen.version, seen.method.as_str(), seen.target.as_str()), (Version::HTTP_2, "POST", "/h2c/x?y=1"));
    assert_eq!((seen.authority.as_deref(), &*seen.body), (Some("app.example"), &b"hello"[..]));
    assert_eq!((seen.header("x-mine"), seen.header("te"), seen.header("host")), (Some("1"), Some("trailers"), None));
    for absent in ["connection", "x-gone", "transfer-encoding", "upgrade"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    assert!(seen.header("cloakroom-session").is_some());
    assert_eq!(house.field(&guest, "step"), 2);
    house.close();
}

#[test]
fn requests_share_one_connection_at_the_same_time() {
    let house = h2c();
    let gate = Gate::closed();
    for _ in 0..30 {
        house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
    }
    let mut streams: Vec<_> = (0..30).map(|_| house.get("/open").start()).collect();
    streams.iter_mut().for_each(|stream| assert_eq!(stream.text(), "one"));
    assert!(house.backend.seen().iter().all(|seen| seen.connection == 1 && seen.version == Version::HTTP_2));
    gate.open();
    for mut stream in streams {
        assert_eq!(stream.text(), "two");
        assert!(stream.finish().complete);
    }
    house.close();
}

#[test]
fn a_connection_has_no_more_than_a_hundred_requests_at_once() {
    let house = h2c();
    let gate = Gate::closed();
    for _ in 0..110 {
        house.backend.next(Answer::ok().body("one").wait(&gate));
    }
    let streams: Vec<_> = (0..110).map(|_| house.get("/open").start()).collect();
    let mut on: Vec<usize> = house.backend.seen().iter().map(|seen| seen.connection).collect();
    on.sort_unstable();
    assert_eq!((on.iter().filter(|n| **n == 1).count(), on.last()), (100, Some(&2)));
    gate.open();
    assert!(streams.into_iter().all(|stream| stream.finish().complete));
    house.close();
}

#[test]
fn trailers_pass_both_ways_and_write_back() {
    let house = h2c();
    let guest = house.visitor();
    house.backend.next(Answer::ok().body("done").trailer("grpc-status", "0").trailer("cloakroom-set", "step=7"));
    let ask = house.post("/h2c").http2().cookie(&guest).header("te", "trailers").body("in").trailer("x-sum", "42");
    let reply = ask.send();
    assert_eq!(reply.passed().trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]));
    assert_eq!(reply.trailers.len(), 1, "{:?}", reply.trailers);
    assert_eq!(house.backend.last().trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(house.field(&guest, "step"), 7);
    house.close();
}

#[test]
fn trailers_beside_a_content_length_write_nothing_back() {
    let house = h2c();
    let guest = house.visitor();
    let answer = Answer::ok().header("content-length", "4").body("done");
    house.backend.next(answer.trailer("grpc-status", "0").trailer("cloakroom-set", "step=7"));
    let reply = house.post("/h2c").http2().cookie(&guest).header("te", "trailers").send();
    assert_eq!(reply.passed().trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
    assert_eq!((house.revision(&guest), house.field(&guest, "step")), (1, serde_json::json!(null)));
    assert_eq!(house.metric("cloakroom_write_backs_total{route=\"h2c\",outcome=\"ignored\"}"), 1);
    house.close();
}

#[test]
fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let house = h2c();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
    house.backend.next(Answer::ok().body("one").wait(&gate).body("two"));
    let mut stays = house.get("/open").start();
    assert_eq!(stays.text(), "one");
    let mut leaves = house.get("/open").start();
    assert_eq!(leaves.text(), "one");
    drop(leaves);
    house.until("the exchange is over", || house.metric("cloakroom_active_requests") == 1);
    house.backend.next(Answer::ok());
    house.get("/open").send().passed();
    gate.open();
    assert_eq!(stays.text(), "two");
    assert!(house.backend.seen().iter().all(|seen| seen.connection == 1));
    drop(stays);
    house.close();
}

#[test]
fn a_protocol_cannot_be_changed_over_http_2_and_the_request_goes_on_without() {
    let house = h2c();
    let text = "GET /open HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(house.raw_status(text), Some(200));
    assert_eq!(house.backend.last().header("upgrade"), None);
    house.close();
}

#[test]
fn a_backend_that_speaks_no_http_2_is_502() {
    let house = Plan::new().route("name: not, match: { path: /not }, upstream: 'h2c://RAW', session: none").open();
    house.raw_backend.next(RawAnswer::close("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    house.get("/not").send().is(502, "upstream-unavailable");
    house.close();
}

fn secure(authority: &Authority, more: &str) -> Plan {
    Plan::new().file("backend-ca.crt", &authority.pem).route(&format!(
        "name: tls, match: {{ path: /tls }}, upstream: 'https://SECURE', session: none, \
         upstream_tls: {{ ca: backend-ca.crt{more} }}"
    ))
}

#[test]
fn https_speaks_what_was_agreed_on() {
    for (offered, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let authority = Authority::new();
        let house = secure(&authority, "").secure_backend(authority.issue("localhost").server(offered, None)).open();
        for _ in 0..3 {
            house.post("/tls/x").body("hello").send().passed();
            let seen = house.backend.last();
            assert_eq!((seen.version, seen.connection, &*seen.body), (version, 1, &b"hello"[..]));
        }
        house.close();
    }
}

#[test]
fn a_protocol_is_changed_over_https_too() {
    let authority = Authority::new();
    let server = authority.issue("localhost").server(&["h2", "http/1.1"], None);
    let house = secure(&authority, "").secure_backend(server).open();
    house.get("/tls").send().passed();
    house.backend.next(Answer::new(101).header("connection", "upgrade").header("upgrade", "websocket"));
    let mut client = house.raw("GET /tls HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client.send(b"hello");
    assert_eq!(client.until("HELLO").as_deref(), Some("HELLO"));
    client.end();
    assert_eq!(client.rest(), "");
    house.get("/tls").send().passed();
    let on: Vec<_> = house.backend.seen().iter().map(|seen| (seen.version, seen.connection)).collect();
    assert_eq!(on, [(Version::HTTP_2, 1), (Version::HTTP_11, 2), (Version::HTTP_2, 1)]);
    house.close();
}

#[test]
fn a_backend_whose_certificate_is_not_right_gets_no_request() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (certificate, cause) in [
        (authority.issue("elsewhere.example"), "not valid for name"),
        (other.issue("localhost"), "invalid peer certificate: "),
    ] {
        let house = secure(&authority, "").secure_backend(certificate.server(&["h2"], None)).open();
        house.get("/tls").send().is(502, "upstream-unavailable");
        assert_eq!(house.backend.count(), 0);
        assert!(house.logged().contains(cause), "{}", house.logged());
        house.close();
    }
}

#[test]
fn the_platforms_roots_do_not_know_an_authority_of_ones_own() {
    let authority = Authority::new();
    let plan = Plan::new().route("name: tls, match: { path: /tls }, upstream: 'https://SECURE', session: none");
    let house = plan.secure_backend(authority.issue("localhost").server(&["h2"], None)).open();
    house.get("/tls").send().is(502, "upstream-unavailable");
    house.close();
}

#[test]
fn a_backend_sees_the_certificate_that_the_route_shows_and_a_new_one_when_it_changes() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let ours = clients.issue("cloakroom.example");
    let server = authority.issue("localhost").server(&["http/1.1"], Some(&clients));
    let house = secure(&authority, ", certificate: client.crt, key: client.key")
        .file("client.crt", &ours.chain)
        .file("client.key", &ours.key)
        .secure_backend(server.clone())
        .open();
    house.get("/tls").send().passed();
    // One that the backend does not know.
    let stranger = authority.issue("cloakroom.example");
    std::fs::write(house.path().join("client.crt"), &stranger.chain).unwrap();
    std::fs::write(house.path().join("client.key"), &stranger.key).unwrap();
    house.until("the new certificate is shown", || house.logged().contains("new TLS files are in use"));
    house.until("the connections with the one before are gone", || house.get("/tls").send().status == 502);
    house.close();
    let house = secure(&authority, "").secure_backend(server).open();
    house.get("/tls").send().is(502, "upstream-unavailable");
    house.close();
}

#[test]
fn a_unix_socket_is_spoken_to() {
    let house = Plan::new()
        .route("name: unix, match: { path: /unix }, upstream: 'unix:backend.sock', session: none")
        .route("name: gone, match: { path: /gone }, upstream: 'unix:gone.sock', session: none")
        .open();
    for _ in 0..2 {
        house.post("/unix").body("hello").send().passed();
        let seen = house.backend.last();
        assert_eq!((seen.connection, seen.header("host"), &*seen.body), (1, Some("app.example"), &b"hello"[..]));
    }
    assert_eq!(house.raw_status("GET /unix HTTP/1.0\r\n\r\n"), Some(200));
    assert_eq!(house.backend.last().header("host"), Some("localhost"));
    house.get("/gone").send().is(502, "upstream-unavailable");
    house.close();
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A backend of HTTP/2 that answers the first request with these frames, and then only listens, until a frame of that kind
/// has come; gives all that came, and how long after the answer the last of it did.
fn scripted(answer: Vec<u8>, until: u8) -> (House, JoinHandle<(Vec<Frame>, Duration)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut read = vec![0; 24];
        stream.read_exact(&mut read).unwrap();
        read.clear();
        stream.write_all(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
        let mut more = |stream: &mut std::net::TcpStream, kind: u8| {
            while !parse(&read).iter().any(|(came, ..)| *came == kind) {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => read.extend(&buffer[..count]),
                    _ => break,
                }
            }
            parse(&read)
        };
        more(&mut stream, HEADERS);
        stream.write_all(&answer).unwrap();
        let answered = Instant::now();
        (more(&mut stream, until), answered.elapsed())
    });
    let route = format!("name: own, match: {{ path: /own }}, upstream: 'h2c://{address}', session: none");
    (Plan::new().route(&route).open(), backend)
}

fn head(flags: u8) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, 1, &fields(&[(":status", "200")]))
}

const NO_ERROR: [u8; 4] = [0; 4];

#[test]
fn a_response_that_is_cut_off_without_an_error_is_cut_off() {
    let part = || [head(0), frame(DATA, 0, 1, b"part")].concat();
    for end in [frame(RST_STREAM, 0, 1, &NO_ERROR), frame(GOAWAY, 0, 0, &[[0; 4], NO_ERROR].concat())] {
        let (house, backend) = scripted([part(), end].concat(), GOAWAY);
        let mut client = house.raw("GET /own HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.rest();
        assert!(answer.contains("part") && !answer.ends_with("0\r\n\r\n"), "{answer}");
        house.close();
        backend.join().unwrap();
    }
}

#[test]
fn a_response_may_come_before_its_request_is_over_and_the_rest_of_that_is_not_waited_for() {
    let (house, backend) = scripted(head(END_STREAM), RST_STREAM);
    let mut client = house.raw("POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    let (came, after) = backend.join().unwrap();
    assert!(came.iter().any(|(kind, stream, _)| (*kind, *stream) == (RST_STREAM, 1)), "{came:?}");
    assert!((9..14).contains(&after.as_secs()), "{after:?}");
    drop(client);
    house.close();
}

#[test]
fn a_connection_on_which_a_request_was_not_answered_is_used_no_more() {
    let house = Plan::new()
        .route(
            "name: h2c, match: { path: /h2c }, upstream: 'h2c://BACKEND', session: none, timeouts: { response: 500ms }",
        )
        .open();
    let gate = Gate::closed();
    house.backend.next(Answer::ok().held(&gate));
    house.get("/h2c").send().is(504, "upstream-timeout");
    house.backend.next(Answer::ok());
    house.get("/h2c").send().passed();
    assert_eq!(house.backend.last().connection, 2);
    gate.open();
    house.close();
}
