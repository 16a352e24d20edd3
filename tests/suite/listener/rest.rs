//! Connections on which nothing is asked for a while, and that hold nothing meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::binary::Binary;
use crate::house::{Answer, Authority, House, Plan, RawClient};

/// Longer than it takes until a connection without a request rests.
const A_WHILE: Duration = Duration::from_millis(1300);
const GET: &str = "GET /public HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_connection_goes_on_after_its_rest() {
    let house = House::new();
    house.backend.always(|_| Answer::ok().body("whole"));
    goes_on(&house, house.raw(GET));
    house.close();
}

#[test]
fn so_does_one_of_tls() {
    let authority = Authority::new();
    let house = Plan::new().tls(&authority.issue("app.example"), "").open();
    house.backend.always(|_| Answer::ok().body("whole"));
    let client = house.wire().tls(&authority.client(&[], None), "app.example");
    goes_on(&house, house.raw_over(client, GET.as_bytes()));
    house.close();
}

fn goes_on(house: &House, mut client: RawClient) {
    for _ in 0..2 {
        assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
        assert!(client.until("whole").is_some());
        assert!(client.is_silent(A_WHILE));
        // In two pieces, of which the first wakes it.
        client.send(b"GET /pub");
        assert!(client.is_silent(Duration::from_millis(50)));
        client.send(b"lic HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(house.backend.count(), 3);
}

/// With hyper's buffers and what serves a request, a connection of the same program holds some 25 KiB.
#[test]
fn a_connection_at_rest_holds_no_buffers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.yaml");
    let token = folder.path().join("token");
    std::fs::write(&token, "an-admin-token-that-is-long-enough").unwrap();
    let text = "{ version: 1, environment: e2e, listeners: [{ address: '127.0.0.1:0' }],
        admin: { address: '127.0.0.1:0', token: '${file:TOKEN}' }, status: { address: '127.0.0.1:0' },
        store: { kind: memory }, session: { schema: { version: 1, fields: { a: { type: string, section: s } } } },
        routes: [{ name: own, match: { path: /own }, upstream: 'http://127.0.0.1:1', session: none }] }";
    std::fs::write(&path, text.replace("TOKEN", &token.display().to_string())).unwrap();
    let binary = Binary::serve_on_one_core(&path);
    let open = || {
        let mut client = TcpStream::connect(binary.proxy).unwrap();
        client.write_all(b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 1024]).unwrap() > 0);
        client
    };
    let held = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", binary.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<i64>().unwrap()
    };
    let before = held();
    let clients: Vec<_> = (0..600).map(|_| open()).collect();
    let (begun, mut each) = (Instant::now(), i64::MAX);
    while each > 10 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(200));
        each = (held() - before) / 600;
    }
    assert!(each <= 10, "{each} KiB for each");
    drop(clients);
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn a_resting_connection_is_closed_when_its_time_is_over_and_with_the_process() {
    let house = Plan::new().listener("limits: { keep_alive: 2s }").open();
    let mut client = house.raw(GET);
    assert!(client.head().is_some());
    client.rest();
    let mut other = house.raw(GET);
    assert!(other.head().is_some());
    assert!(other.is_silent(A_WHILE));
    house.begin_ending();
    house.close();
    other.rest();
}

/// A backend that answers whole as soon as it has a head, and goes on reading; what it has read.
fn hasty() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, read) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let kept = read.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept, mut buffer) = (stream.unwrap(), kept.clone(), [0; 1024]);
            std::thread::spawn(move || {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
                let mut answered = false;
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if !std::mem::replace(&mut answered, true) {
                        stream.write_all(answer).unwrap();
                    }
                }
            });
        }
    });
    (address, read)
}

#[test]
fn the_rest_of_a_body_is_never_taken_for_the_next_request() {
    let (backend, read) = hasty();
    let route = format!("name: own, match: {{ path: /own }}, upstream: 'http://{backend}', session: none");
    let house = Plan::new().route(&route).open();
    let smuggled = "GET /own/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = 4 + smuggled.len();
    let mut client = house.raw(&format!("POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhalf"));
    assert!(client.until("early").is_some());
    // Answered whole, and the backend reads on: the rest of the body is still a body when it comes.
    assert!(client.is_silent(A_WHILE));
    client.send(smuggled.as_bytes());
    client.is_silent(Duration::from_millis(300));
    drop(client);
    let read = String::from_utf8(read.lock().unwrap().clone()).unwrap();
    let heads = read.matches("x-forwarded-for").count();
    assert_eq!(heads, 1, "{read}");
    house.close();
}
