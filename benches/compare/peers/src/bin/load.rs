//! A bounded load generator for HTTP/1.1 on one thread, for addresses of this machine only.
//!
//! ```text
//! load --addr 127.0.0.1:8080 --conns 64 --secs 10               as fast as answers come
//! load … --rate 3000                                            at a fixed rate, timed from when each was due
//! load … --mode idle --conns 1000 --secs 3                      one request a connection, then held open
//! load … --mode sse --n 8                                       streams of stamped events, one after the other
//! ```
//!
//! `--lines FILE` has a header line for each request in turn, such as `Cookie: …`. Prints one line of JSON.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

const BROWSER: &str = "Host: bench.local\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: http://bench.local/app/list?page=2\r\n\
    X-Request-Id: 7b7f0e8c-3e0b-4d4f-9d51-0b6f6a1f2c11\r\n";

/// Events that a stream of the backend beside this program has.
const EVENTS: usize = 50;

struct Plan {
    addr: SocketAddr,
    conns: usize,
    secs: f64,
    count: u64,
    rate: f64,
    mode: String,
    requests: Vec<Vec<u8>>,
}

impl Plan {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let given: HashMap<&str, &str> =
            arguments.chunks_exact(2).map(|pair| (pair[0].trim_start_matches("--"), pair[1].as_str())).collect();
        let of = |name: &str, default: &'static str| given.get(name).copied().unwrap_or(default).to_owned();
        let addr: SocketAddr = of("addr", "127.0.0.1:8080").parse().expect("--addr HOST:PORT");
        assert!(addr.ip().is_loopback(), "only addresses of this machine");
        let secs: f64 = of("secs", "0").parse().expect("--secs");
        let count: u64 = of("n", "0").parse().expect("--n");
        assert!(secs > 0.0 || count > 0, "--secs or --n");
        assert!(secs <= 120.0 && count <= 5_000_000, "a run has a bound");
        let lines = given.get("lines").map(|file| std::fs::read_to_string(file).expect("--lines FILE"));
        let path = of("path", "/");
        let request = |line: &str| format!("GET {path} HTTP/1.1\r\n{BROWSER}{line}\r\n").into_bytes();
        let requests = match &lines {
            Some(lines) => lines.lines().map(|line| request(&format!("{line}\r\n"))).collect(),
            None => vec![request("")],
        };
        Self {
            addr,
            conns: of("conns", "64").parse().expect("--conns"),
            secs,
            count,
            rate: of("rate", "0").parse().expect("--rate"),
            mode: of("mode", "http"),
            requests,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(3)).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream
    }
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = std::str::from_utf8(head).ok()?.split("\r\n").skip(1);
    lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

/// Microseconds below which that share of the sorted nanoseconds lie.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).map_or(0.0, |nanos| *nanos as f64 / 1000.0)
}

/// What is known of the answer that a connection waits for.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Its whole length, once its head was read; none of a chunked one.
    length: Option<usize>,
    head: bool,
}

impl Answer {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.head {
            return;
        }
        let Some(end) = find(&self.bytes, b"\r\n\r\n") else { return };
        self.head = true;
        let head = &self.bytes[..end];
        if !header(head, "transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            self.length = Some(end + 4 + header(head, "content-length").and_then(|n| n.parse().ok()).unwrap_or(0));
        }
    }

    fn is_whole(&self) -> bool {
        self.head && self.length.map_or_else(|| self.bytes.ends_with(b"0\r\n\r\n"), |length| self.bytes.len() >= length)
    }

    fn is_success(&self) -> bool {
        self.bytes.get(9) == Some(&b'2')
    }
}

fn main() {
    let plan = Plan::read();
    // SAFETY: both calls take values and pointers of our own.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1usize, 0, 0, 0);
        libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 });
    }
    match plan.mode.as_str() {
        "sse" => streams(&plan),
        "idle" => idle(&plan),
        _ => Load::new(&plan).run(),
    }
}

/// One request on each connection, so that the peer has all that it keeps for one; then silence.
fn idle(plan: &Plan) {
    let mut held = Vec::with_capacity(plan.conns);
    let mut buffer = vec![0; 65_536];
    for number in 0..plan.conns {
        let mut stream = plan.connect();
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
        stream.write_all(&plan.requests[number % plan.requests.len()]).expect("a request");
        let mut answer = Answer::default();
        while !answer.is_whole() {
            let read = stream.read(&mut buffer).expect("an answer");
            assert!(read > 0, "the peer closed connection {number}");
            answer.take(&buffer[..read]);
        }
        held.push(stream);
    }
    println!("{{\"held\":{}}}", held.len());
    std::io::stdout().flush().expect("somebody who reads");
    std::thread::sleep(Duration::from_secs_f64(plan.secs));
}

struct Connection {
    stream: TcpStream,
    answer: Answer,
    since: u64,
    busy: bool,
    dead: bool,
}

struct Load<'p> {
    plan: &'p Plan,
    epoll: i32,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    due: VecDeque<u64>,
    scheduled: u64,
    sent: u64,
    done: u64,
    errors: u64,
    failures: u64,
    latencies: Vec<u64>,
    begun: u64,
    ends: u64,
}

impl<'p> Load<'p> {
    fn new(plan: &'p Plan) -> Self {
        // SAFETY: takes no pointer.
        let epoll = unsafe { libc::epoll_create1(0) };
        let connections: Vec<Connection> = (0..plan.conns)
            .map(|number| {
                let stream = plan.connect();
                stream.set_nonblocking(true).expect("an option");
                let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
                // SAFETY: the event is ours, and copied.
                unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &mut event) };
                Connection { stream, answer: Answer::default(), since: 0, busy: false, dead: false }
            })
            .collect();
        let begun = now();
        let ends = if plan.secs > 0.0 { begun + (plan.secs * 1e9) as u64 } else { u64::MAX };
        Self {
            plan,
            epoll,
            idle: (0..connections.len()).collect(),
            connections,
            due: VecDeque::new(),
            scheduled: 0,
            sent: 0,
            done: 0,
            errors: 0,
            failures: 0,
            latencies: Vec::with_capacity(2_000_000),
            begun,
            ends,
        }
    }

    fn run(mut self) {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        let mut buffer = vec![0; 65_536];
        loop {
            let time = now();
            let over = time >= self.ends || (self.plan.count > 0 && self.sent >= self.plan.count);
            let waiting = self.sent - self.done - self.errors;
            if over && (waiting == 0 || time > self.ends.saturating_add(2_000_000_000)) {
                break;
            }
            if !over {
                self.schedule(time);
                self.send();
            }
            let ready = self.wait(&mut events, over);
            for event in &events[..ready] {
                self.read(event.u64 as usize, &mut buffer);
            }
            if self.connections.iter().all(|connection| connection.dead) {
                break;
            }
        }
        self.report();
    }

    fn due_at(&self, number: u64) -> u64 {
        self.begun + (number as f64 * 1e9 / self.plan.rate) as u64
    }

    fn schedule(&mut self, time: u64) {
        while self.plan.rate > 0.0 && self.due_at(self.scheduled) <= time.min(self.ends) {
            self.due.push_back(self.due_at(self.scheduled));
            self.scheduled += 1;
        }
    }

    fn send(&mut self) {
        while let Some(&at) = self.idle.front() {
            if self.plan.count > 0 && self.sent >= self.plan.count {
                return;
            }
            let since = if self.plan.rate > 0.0 {
                let Some(due) = self.due.pop_front() else { return };
                due
            } else {
                now()
            };
            self.idle.pop_front();
            let request = &self.plan.requests[self.sent as usize % self.plan.requests.len()];
            let connection = &mut self.connections[at];
            (connection.since, connection.busy, connection.answer) = (since, true, Answer::default());
            self.sent += 1;
            if (&connection.stream).write(request).ok() != Some(request.len()) {
                self.errors += 1;
                (connection.busy, connection.dead) = (false, true);
            }
        }
    }

    fn wait(&self, events: &mut [libc::epoll_event], over: bool) -> usize {
        let nanos =
            if self.plan.rate > 0.0 && !over { self.due_at(self.scheduled).saturating_sub(now()) } else { 100_000_000 };
        let timeout =
            libc::timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        // SAFETY: events and timeout are ours, and as long as is said.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll,
                events.as_mut_ptr(),
                events.len() as i32,
                &timeout as *const libc::timespec,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        ready.max(0) as usize
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[at];
        if connection.dead {
            return;
        }
        match (&connection.stream).read(buffer) {
            Ok(0) | Err(_) => {
                self.errors += u64::from(connection.busy);
                (connection.busy, connection.dead) = (false, true);
                self.idle.retain(|other| *other != at);
                // SAFETY: a null event is allowed for a removal.
                unsafe {
                    let descriptor = connection.stream.as_raw_fd();
                    libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_DEL, descriptor, std::ptr::null_mut())
                };
                return;
            }
            Ok(read) => connection.answer.take(&buffer[..read]),
        }
        if connection.busy && connection.answer.is_whole() {
            self.latencies.push(now() - connection.since);
            self.failures += u64::from(!connection.answer.is_success());
            connection.busy = false;
            self.done += 1;
            self.idle.push_back(at);
        }
    }

    fn report(mut self) {
        let seconds = (now() - self.begun) as f64 / 1e9;
        self.latencies.sort_unstable();
        println!(
            "{{\"done\":{},\"errors\":{},\"failures\":{},\"per_second\":{:.1},\"p50\":{:.1},\"p99\":{:.1}}}",
            self.done,
            self.errors,
            self.failures,
            self.done as f64 / seconds,
            quantile(&self.latencies, 0.5),
            quantile(&self.latencies, 0.99),
        );
    }
}

/// Streams one after the other: how long until the first event, and how old each event is when it arrives.
fn streams(plan: &Plan) {
    let (mut first, mut ages, mut broken) = (Vec::new(), Vec::new(), 0);
    let mut stream = plan.connect();
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
    for number in 0..plan.count.max(1) {
        let before = ages.len();
        let asked = now();
        stream.write_all(&plan.requests[number as usize % plan.requests.len()]).expect("a request");
        let mut bytes: Vec<u8> = Vec::new();
        let mut buffer = [0; 8192];
        let mut looked = 0;
        while !bytes.ends_with(b"0\r\n\r\n") {
            let Ok(read @ 1..) = stream.read(&mut buffer) else { break };
            let arrived = now();
            bytes.extend_from_slice(&buffer[..read]);
            while let Some(at) = find(&bytes[looked..], b"data: ").map(|at| looked + at + 6) {
                let Some(stamp) = bytes.get(at..at + 20) else { break };
                let micros = std::str::from_utf8(stamp).ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
                if ages.len() == before {
                    first.push(arrived - asked);
                }
                ages.extend(micros.map(|sent| (arrived / 1000).saturating_sub(sent) * 1000));
                looked = at;
            }
        }
        broken += u64::from(ages.len() - before != EVENTS);
    }
    first.sort_unstable();
    ages.sort_unstable();
    println!(
        "{{\"streams\":{},\"broken\":{broken},\"first_p50\":{:.1},\"age_p50\":{:.1},\"age_p99\":{:.1}}}",
        plan.count,
        quantile(&first, 0.5),
        quantile(&ages, 0.5),
        quantile(&ages, 0.99),
    );
}
