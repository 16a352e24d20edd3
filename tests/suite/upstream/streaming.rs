//! Streams: nothing held back, nothing heaped up, and nobody waited for who has left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::binary::Binary;
use crate::house::{Answer, Plan};

/// A backend that is written by hand: what to do with each connection.
fn backend(play: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || play(stream));
        }
    });
    address
}

fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    let mut buffer = [0; 16 << 10];
    while !read.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended within its head: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    let at = read.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    read.split_off(at)
}

fn plan(address: SocketAddr) -> Plan {
    Plan::new().route(&format!("name: own, match: {{ path: /own }}, upstream: 'http://{address}', session: none"))
}

/// So much in a body that heaping it up would show.
const LARGE: usize = 200 << 20;
/// What the process may come to need all the same.
const MEMORY: usize = 96 << 20;

fn program(folder: &Path, upstream: SocketAddr) -> Binary {
    let file = folder.join("cloakroom.yaml");
    let text = format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\nshutdown: {{ grace: 10ms }}\n\
         session: {{ schema: {{ version: 1, fields: {{ a: {{ type: string, section: task }} }} }} }}\n\
         routes: [{{ name: a, upstream: 'http://{upstream}', session: none }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    Binary::serve_on_one_core(&file)
}

/// The most memory that a process has held, in bytes.
fn peak(binary: &Binary) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", binary.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn bodies_of_any_size_pass_in_constant_memory() {
    let address = backend(|mut stream| {
        let mut got = head(&mut stream).len();
        let mut buffer = vec![0; 64 << 10];
        while got < LARGE {
            got += stream.read(&mut buffer).unwrap();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
        buffer.fill(b'x');
        for _ in 0..LARGE / buffer.len() {
            stream.write_all(&buffer).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let binary = program(folder.path(), address);
    let mut client = TcpStream::connect(binary.proxy).unwrap();
    write!(client, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
    let buffer = vec![b'y'; 64 << 10];
    for _ in 0..LARGE / buffer.len() {
        client.write_all(&buffer).unwrap();
    }
    let mut got = head(&mut client).len();
    // A client that pauses has nobody read ahead for it.
    std::thread::sleep(Duration::from_millis(200));
    let mut buffer = vec![0; 64 << 10];
    while got < LARGE {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended after {got} bytes");
        got += count;
    }
    let peak = peak(&binary);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
    assert_eq!(binary.terminate(), Some(0));
}

#[test]
fn events_pass_as_they_come() {
    const EVENTS: usize = 50;
    let address = backend(|mut stream| {
        stream.set_nodelay(true).unwrap();
        head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .unwrap();
        for _ in 0..EVENTS {
            std::thread::sleep(Duration::from_millis(2));
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
            let event = format!("data: {now}\n\n");
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let binary = program(folder.path(), address);
    let mut client = TcpStream::connect(binary.proxy).unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (mut text, mut late) = (String::from_utf8(head(&mut client)).unwrap(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let count = client.read(&mut buffer).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        if count == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let sent = event.rsplit_once("data: ").unwrap().1.parse::<u128>().unwrap();
            late.push(now - sent);
            text = rest.to_owned();
        }
    }
    late.sort_unstable();
    assert_eq!(late.len(), EVENTS);
    println!("events came {} us late, 9 of 10 within {} us", late[EVENTS / 2], late[EVENTS * 9 / 10]);
    // The machine of a test is busy; what is held back is late by much more.
    assert!(late[EVENTS / 2] < 5_000, "{late:?}");
    assert_eq!(binary.terminate(), Some(0));
}

/// Tells when the proxy hangs up.
fn hangs_up(answer: &'static [u8]) -> (SocketAddr, Receiver<&'static str>) {
    let (tell, told): (Sender<&'static str>, _) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                head(&mut stream);
                stream.write_all(answer).unwrap();
                tell.send("asked").unwrap();
                let mut buffer = [0; 1024];
                while matches!(stream.read(&mut buffer), Ok(1..)) {}
                tell.send("hung up").unwrap();
            });
        }
    });
    (address, told)
}

#[test]
fn a_client_that_leaves_has_its_request_cancelled_at_once() {
    for (answer, request) in [
        (&b""[..], "GET /own HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"", "POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n",
            "GET /own HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n",
            "POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        ),
    ] {
        let (address, told) = hangs_up(answer);
        let house = plan(address).open();
        let mut client = house.raw(request);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("asked"));
        if !answer.is_empty() {
            client.until("event").unwrap();
        }
        let begun = Instant::now();
        drop(client);
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok("hung up"));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        house.until("the exchange is over", || house.metric("cloakroom_active_requests") == 0);
        house.close();
    }
}

#[test]
fn a_client_that_takes_nothing_is_let_go_after_its_time() {
    let house = Plan::new().listener("limits: { stall: 400ms }").open();
    let body = "x".repeat(16 << 20);
    house.backend.always(
        move |seen| {
            if seen.target == "/public/large" { Answer::ok().body(&body) } else { Answer::ok() }
        },
    );
    let begun = Instant::now();
    let client = house.raw("GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n");
    house.until("its exchange is open", || house.metric("cloakroom_active_requests") == 1);
    house.get("/public").send().passed();
    house.until("its exchange is over", || house.metric("cloakroom_active_requests") == 0);
    assert!(begun.elapsed() >= Duration::from_millis(390));
    drop(client);
    house.close();
}

#[test]
fn many_streams_to_one_backend_of_http_2_do_not_wait_for_one_that_is_not_taken() {
    let house = Plan::new().route("name: h2c, match: { path: /h2c }, upstream: 'h2c://BACKEND', session: none").open();
    let body = "x".repeat(8 << 20);
    house.backend.always(move |seen| if seen.target == "/h2c/large" { Answer::ok().body(&body) } else { Answer::ok() });
    let stalled: Vec<_> = (0..20).map(|_| house.raw("GET /h2c/large HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    house.until("all are open", || house.metric("cloakroom_active_requests") == 20);
    for _ in 0..20 {
        house.get("/h2c").send().passed();
    }
    assert!(house.backend.seen().iter().all(|seen| seen.connection == 1));
    drop(stalled);
    house.until("all are over", || house.metric("cloakroom_active_requests") == 0);
    house.close();
}

#[test]
fn an_answer_may_begin_before_its_request_is_over() {
    let house = plan(backend(|mut stream| {
        let mut read = head(&mut stream).len();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").unwrap();
        let mut buffer = [0; 1024];
        while read < 8 {
            read += stream.read(&mut buffer).unwrap();
        }
        stream.write_all(b"4\r\ndone\r\n0\r\n\r\n").unwrap();
    }))
    .open();
    let mut client = house.raw("POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhalf");
    assert!(client.until("early").is_some());
    client.send(b"half");
    assert!(client.until("done").is_some());
    assert!(client.rest().ends_with("0\r\n\r\n"));
    house.close();
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!";
    // One that stops reading, one that hangs up as well, and one that resets the connection.
    let backends = [
        backend(|mut stream| {
            head(&mut stream);
            stream.write_all(refusal).unwrap();
            std::thread::sleep(Duration::from_secs(2));
        }),
        backend(|mut stream| {
            head(&mut stream);
            stream.write_all(refusal).unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            std::thread::sleep(Duration::from_secs(2));
        }),
        backend(|mut stream| {
            head(&mut stream);
            stream.write_all(refusal).unwrap();
        }),
    ];
    for (which, address) in backends.into_iter().enumerate() {
        let house = plan(address).open();
        let mut client = house.raw("POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
        client.send_until_full();
        assert!(client.head().is_some_and(|head| head.starts_with("HTTP/1.1 413 ")), "{which}");
        assert!(client.until("no!").is_some(), "{which}");
        house.close();
    }
}
