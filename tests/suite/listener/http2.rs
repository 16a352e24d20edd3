//! HTTP/2 as RFC 9113 has it, frame by frame; and clients that send many which are worth nothing.

use std::time::{Duration, Instant};

use crate::house::{Answer, Gate, House, Plan, RawClient};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals, which refer to no table.
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = text.len();
        let mut coded = if length < 127 { vec![length as u8] } else { integer(length - 127) };
        coded.extend(text.as_bytes());
        coded
    };
    list.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn integer(mut rest: usize) -> Vec<u8> {
    let mut coded = vec![127];
    while rest >= 128 {
        coded.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    coded.push(rest as u8);
    coded
}

const REQUEST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "app.example"), (":path", "/public")];

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(&REQUEST))
}

/// A connection over which the preface was sent.
fn connect(house: &House) -> RawClient {
    let mut client = house.raw_over(house.wire(), PREFACE);
    client.send(&frame(SETTINGS, 0, 0, &[]));
    client
}

/// The frames that came in the end: kind, stream and payload.
pub type Frame = (u8, u32, Vec<u8>);

pub fn parse(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        let end = (9 + length).min(bytes.len());
        frames.push((bytes[3], stream, bytes[9..end].to_vec()));
        bytes = &bytes[end..];
    }
    frames
}

/// Whether other clients are served.
fn serves(house: &House) -> bool {
    house.get("/public").send().status == 200 && house.get("/public").http2().send().status == 200
}

#[test]
fn a_malformed_request_resets_its_stream_or_ends_the_connection_and_reaches_no_backend() {
    let house = House::new();
    let with = |more: &[(&str, &str)]| fields(&[&REQUEST[..], more].concat());
    let without = |name: &str| fields(&REQUEST.iter().filter(|(own, _)| *own != name).copied().collect::<Vec<_>>());
    let heads = [
        with(&[("X-Upper", "1")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "1")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("x-a", "b\0c")]),
        with(&[("x-a", "b\r\nx-b: c")]),
        with(&[("x-a", "b\nc")]),
        with(&[("x a", "b")]),
        with(&[("", "b")]),
        with(&[(":path", "/again")]),
        with(&[("x-a", "b"), (":method", "GET")]),
        with(&[(":unknown", "b")]),
        with(&[(":status", "200")]),
        without(":method"),
        without(":path"),
        without(":scheme"),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")]),
        fields(&[(":method", "G T"), (":scheme", "http"), (":authority", "a"), (":path", "/public")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/pub\r\nlic")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/pub lic")]),
        fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a\r\nb"), (":path", "/public")]),
        with(&[("content-length", "x")]),
        with(&[("content-length", "5")]),
        vec![0x80],
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for head in heads {
        let mut client = connect(&house);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head));
        // What is answered at all is answered before this.
        client.send(&frame(PING, 0, 0, b"question"));
        let mut bytes = Vec::new();
        while !parse(&bytes)
            .iter()
            .any(|(kind, _, payload)| *kind == GOAWAY || (*kind == PING && payload == b"question"))
        {
            match client.some() {
                Some(more) => bytes.extend(more),
                None => break,
            }
        }
        assert_eq!(house.backend.count(), 0, "{:?}: {:?}", String::from_utf8_lossy(&head), house.backend.last());
        client.end();
    }
    assert!(serves(&house));
    house.close();
}

#[test]
fn a_body_of_another_length_than_was_said_never_arrives_whole() {
    let house = House::new();
    for (length, data) in [("5", &b"abc"[..]), ("2", b"abc"), ("0", b"a")] {
        let post = [&[(":method", "POST")][..], &REQUEST[1..], &[("content-length", length)]].concat();
        let mut client = connect(&house);
        client.send(&frame(HEADERS, END_HEADERS, 1, &fields(&post)));
        client.send(&frame(DATA, END_STREAM, 1, data));
        assert!(client.sees(|frame| frame.0 == RST_STREAM || frame.0 == GOAWAY || frame.0 == HEADERS), "{length}");
        assert_eq!(house.backend.count(), 0, "{length}");
    }
    house.close();
}

impl RawClient {
    /// Reads until such a frame comes; not at the end of the connection.
    fn sees(&mut self, such: impl Fn(&Frame) -> bool) -> bool {
        let mut bytes = Vec::new();
        loop {
            if parse(&bytes).iter().any(&such) {
                return true;
            }
            match self.some() {
                Some(more) => bytes.extend(more),
                None => return false,
            }
        }
    }
}

#[test]
fn a_head_over_its_bound_is_431() {
    let house = House::new();
    let large = "a".repeat(40_000);
    let reply = house.get("/public").http2().header("x-large", &large).send();
    assert_eq!(reply.status, 431);
    let mut many = house.get("/public").http2();
    for n in 0..110 {
        many = many.header(&format!("x-{n}"), "1");
    }
    many.send().is(431, "headers-too-large");
    assert_eq!(house.backend.count(), 0);
    house.close();
}

#[test]
fn floods_end_their_connection_and_no_other() {
    let house = House::new();
    let open = [frame(HEADERS, END_HEADERS, 1, &fields(&[&[(":method", "POST")], &REQUEST[1..]].concat()))].concat();
    let part = frame(HEADERS, END_STREAM, 1, &fields(&REQUEST));
    let resets: Vec<u8> = (0..20_000u32)
        .flat_map(|n| [get(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    for (name, bytes) in [
        ("PING", frame(PING, 0, 0, &[0; 8]).repeat(30_000)),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[]).repeat(30_000)),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(30_000)),
        ("empty DATA", [open, frame(DATA, 0, 1, &[]).repeat(30_000)].concat()),
        ("CONTINUATION", [part.clone(), frame(CONTINUATION, 0, 1, &fields(&[("x-a", "b")])).repeat(30_000)].concat()),
        ("empty CONTINUATION", [part, frame(CONTINUATION, 0, 1, &[]).repeat(30_000)].concat()),
        ("rapid reset", resets),
    ] {
        let mut client = connect(&house);
        client.send(&bytes);
        client.rest();
        assert!(serves(&house), "{name}");
    }
    let received = house.backend.seen().len();
    assert!(received < 2_000, "{received} requests reached the backend");
    house.until("all is over", || house.metric("cloakroom_active_requests") == 0);
    house.close();
}

#[test]
fn a_head_has_its_time_and_an_idle_connection_its_own() {
    let house = Plan::new().listener("limits: { head_time: 300ms, keep_alive: 600ms }").open();
    for head in [frame(HEADERS, END_STREAM, 1, &fields(&REQUEST)), get(1)[..20].to_vec(), get(1)[..4].to_vec()] {
        let mut client = connect(&house);
        let begun = Instant::now();
        client.send(&head);
        client.rest();
        assert!(begun.elapsed() >= Duration::from_millis(290) && begun.elapsed() < Duration::from_secs(10));
    }
    let mut idle = connect(&house);
    let begun = Instant::now();
    idle.send(&get(1));
    assert!(idle.sees(|frame| frame.0 == GOAWAY), "it is told to go");
    assert!(begun.elapsed() >= Duration::from_millis(590));
    house.close();
}

#[test]
fn a_stream_that_is_not_taken_is_reset_and_its_siblings_go_on() {
    let house = Plan::new().listener("limits: { stall: 400ms }").open();
    let body = "x".repeat(1 << 20);
    house.backend.next(Answer::ok().body(&body));
    let mut client = house.raw_over(house.wire(), PREFACE);
    // No window at all for streams.
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    client.send(&get(1));
    assert!(client.sees(|frame| (frame.0, frame.1) == (RST_STREAM, 1)), "it is reset");
    house.until("its exchange is over", || house.metric("cloakroom_active_requests") == 0);
    house.backend.next(Answer::ok().body("small"));
    client.send(&get(3));
    client.send(&frame(WINDOW_UPDATE, 0, 3, &[0, 1, 0, 0]));
    assert!(client.sees(|frame| (frame.0, frame.1) == (DATA, 3) && frame.2.starts_with(b"small")));
    house.close();
}

#[test]
fn uploads_that_are_not_read_hold_their_own_windows_only() {
    let house = House::new();
    let gate = Gate::closed();
    let mut client = connect(&house);
    assert!(client.sees(|frame| (frame.0, frame.1) == (WINDOW_UPDATE, 0)), "the connection has room for many");
    let post = fields(&[&[(":method", "POST")], &REQUEST[1..]].concat());
    for n in 0..20u32 {
        house.backend.next(Answer::ok().before_body().body("early").wait(&gate));
        let stream = 2 * n + 1;
        client.send(&frame(HEADERS, END_HEADERS, stream, &post));
        for _ in 0..4 {
            client.send(&frame(DATA, 0, stream, &[0; 16 << 10][..16383]));
        }
    }
    house.backend.wait_for(20);
    client.send(&frame(HEADERS, END_HEADERS, 99, &post));
    client.send(&frame(DATA, END_STREAM, 99, b"hello"));
    assert!(client.sees(|frame| (frame.0, frame.1) == (HEADERS, 99)));
    assert_eq!(house.backend.last().body, b"hello");
    gate.open();
    drop(client);
    house.close();
}

#[test]
fn a_head_that_is_all_there_is_ends_its_stream() {
    let house = Plan::new().route("name: h2c, match: { path: /h2c }, upstream: 'h2c://BACKEND', session: none").open();
    house
        .backend
        .always(|_| Answer::ok().header("content-type", "application/grpc").header("grpc-status", "9").body(""));
    for path in ["/public", "/h2c", "/nowhere"] {
        let request = [&REQUEST[..3], &[(":path", path), ("content-type", "application/grpc")]].concat();
        let mut client = connect(&house);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&request)));
        let mut bytes = Vec::new();
        while !parse(&bytes).iter().any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1)) {
            bytes.extend(client.some().expect("an answer"));
        }
        let at = bytes.windows(9).position(|header| header[3] == HEADERS && header[5..9] == [0, 0, 0, 1]).unwrap();
        assert_eq!(bytes[at + 4] & END_STREAM, END_STREAM, "{path}");
        drop(client);
    }
    house.close();
}
