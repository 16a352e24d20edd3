//! Mixed traffic for a while, and many connections at once: neither may cost memory that does not come back.
//!
//! `CLOAKROOM_SOAK=600` has the traffic last that many seconds, and prints what the process takes meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::binary::Binary;

type Body = BoxBody<Bytes, std::convert::Infallible>;

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

/// An agent: it lets people in, writes back, streams, takes uploads, and holds streams open until it may end them.
#[derive(Clone)]
struct Agent {
    step: Arc<AtomicUsize>,
    held: Arc<Semaphore>,
}

impl Agent {
    async fn open() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let agent = Self { step: Arc::default(), held: Arc::new(Semaphore::new(0)) };
        let serving = agent.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let agent = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| agent.clone().answer(request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (agent, address)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let path = request.uri().path().to_owned();
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        if path != "/stream" {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
        }
        let mut response = Response::new(match &*path {
            "/stream" => events(step),
            "/hold" => self.hold(),
            _ => whole("ok"),
        });
        let headers = response.headers_mut();
        match &*path {
            "/login" => headers.insert("cloakroom-start", HeaderValue::from_static("user_id=\"u-1\"")),
            "/write" => headers.insert("cloakroom-set", HeaderValue::from_str(&format!("step={step}")).unwrap()),
            "/stream" => headers.insert("trailer", HeaderValue::from_static("cloakroom-set")),
            _ => None,
        };
        Ok(response)
    }

    fn hold(&self) -> Body {
        let held = self.held.clone();
        let pieces = stream::unfold((0, held), |(at, held)| async move {
            if at == 1 {
                held.acquire().await.ok()?.forget();
            }
            (at < 2).then(|| (Ok(Frame::data(Bytes::from_static(b"event\n\n"))), (at + 1, held)))
        });
        StreamBody::new(pieces).boxed()
    }
}

fn events(step: usize) -> Body {
    let pieces = stream::unfold(0, move |at| async move {
        let frame = match at {
            0..8 => Frame::data(Bytes::from(vec![b'e'; 2048])),
            8 => {
                let mut trailers = HeaderMap::new();
                trailers.insert("cloakroom-set", HeaderValue::from_str(&format!("notes=\"{step}\"")).unwrap());
                Frame::trailers(trailers)
            }
            _ => return None,
        };
        tokio::task::yield_now().await;
        Some((Ok(frame), at + 1))
    });
    StreamBody::new(pieces).boxed()
}

fn configuration(agent: SocketAddr, concurrency: usize) -> String {
    let route = |name: &str, more: &str| {
        format!(
            "  - {{ name: {name}, match: {{ path: /{name} }}, upstream: 'http://{agent}', \
             limits: {{ concurrency: {concurrency} }}, {more} }}\n"
        )
    };
    format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\nshutdown: {{ grace: 10ms }}\n\
         log: {{ level: 'info,cloakroom::access=off' }}\naudit: {{ keep: 20, sinks: [stdout] }}\n\
         session: {{ schema: {{ version: 1, fields: {{ user_id: {{ type: string, user: true, writable: false }}, \
         step: {{ type: integer, section: task }}, notes: {{ type: string, section: task }} }} }} }}\nroutes:\n{}",
        [
            route("login", "session: optional, start: { id: header }"),
            route("write", "read: [task], write: [task], on_reject: ignore"),
            route("stream", "read: [task], write: [task], on_reject: ignore"),
            route("upload", "read: [task]"),
            route("hold", "read: [task]"),
        ]
        .concat()
    )
}

async fn connect(to: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(to).await.expect("a connection");
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(async move { drop(connection.await) });
    sender
}

fn ask(method: &str, path: &str, id: Option<&str>, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "a").header("te", "trailers");
    let request = match id {
        Some(id) => request.header("authorization", format!("Bearer {id}")),
        None => request,
    };
    request.body(body).unwrap()
}

async fn login(proxy: SocketAddr) -> String {
    let response = connect(proxy).await.send_request(ask("POST", "/login", None, whole(""))).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.headers()["cloakroom-session-id"].to_str().unwrap().to_owned()
}

/// One client's way through everything, again and again over kept connections; every fourth time it leaves early.
async fn visit(proxy: SocketAddr, done: Arc<AtomicBool>) -> usize {
    let id = login(proxy).await;
    let (mut answered, mut kept) = (0, connect(proxy).await);
    let upload: &'static str = Box::leak("u".repeat(64 << 10).into_boxed_str());
    while !done.load(Ordering::Acquire) {
        for (method, path, body) in
            [("POST", "/write", "w"), ("GET", "/stream", ""), ("PUT", "/upload", upload), ("GET", "/write", "")]
        {
            if kept.ready().await.is_err() {
                kept = connect(proxy).await;
            }
            let response = kept.send_request(ask(method, path, Some(&id), whole(body))).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            response.into_body().collect().await.expect("a whole body");
            answered += 1;
        }
        if answered % 16 == 0 {
            let mut leaving = connect(proxy).await;
            let mut response =
                leaving.send_request(ask("GET", "/hold", Some(&id), whole(""))).await.expect("an answer");
            response.body_mut().frame().await.expect("an event").expect("an event");
        }
    }
    answered
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn served(folder: &Path, text: &str) -> Binary {
    let path = folder.join("cloakroom.yaml");
    std::fs::write(&path, text).unwrap();
    Binary::serve(&path)
}

#[test]
fn mixed_traffic_with_reloads_and_clients_that_leave_costs_no_memory() {
    let asked = std::env::var("CLOAKROOM_SOAK").ok().and_then(|seconds| seconds.parse().ok());
    let lasts = Duration::from_secs(asked.unwrap_or(6));
    let runtime = runtime();
    let (_agent, address) = runtime.block_on(Agent::open());
    let folder = tempfile::tempdir().unwrap();
    let text = |round: usize| configuration(address, 1000 + round % 2);
    let binary = served(folder.path(), &text(0));
    let (proxy, done) = (binary.proxy, Arc::new(AtomicBool::new(false)));
    let visits: Vec<_> = (0..8).map(|_| runtime.spawn(visit(proxy, done.clone()))).collect();
    let (since, mut samples, mut rounds) = (Instant::now(), Vec::new(), 0);
    while since.elapsed() < lasts {
        rounds += 1;
        // Whole at once: the signal before may be looked into only now.
        std::fs::write(folder.path().join("next.yaml"), text(rounds)).unwrap();
        std::fs::rename(folder.path().join("next.yaml"), folder.path().join("cloakroom.yaml")).unwrap();
        binary.signal(libc::SIGHUP);
        std::thread::sleep(Duration::from_millis(if asked.is_some() { 1000 } else { 100 }));
        samples.push(resident(binary.id()));
        if asked.is_some() && rounds % 15 == 0 {
            println!("{:>4} s {:>7} KiB", since.elapsed().as_secs(), samples.last().unwrap());
        }
    }
    done.store(true, Ordering::Release);
    let answered: usize =
        visits.into_iter().map(|visit| runtime.block_on(visit).expect("every request answered")).sum();
    // The first half fills caches and pools; of the rest, the peaks are compared.
    let peak = |part: &[usize]| part.iter().copied().max().unwrap_or(0);
    let (_, second) = samples.split_at(samples.len() / 2);
    let (before, after) = second.split_at(second.len() / 2);
    println!("{answered} requests, {rounds} reloads, {} KiB, then {} KiB", peak(before), peak(after));
    assert!(peak(after) < peak(before) + peak(before) / 8, "{samples:?}");
    assert!(answered > 200, "{answered} requests are no load");
    assert!(!binary.logged().contains("was refused"), "{}", binary.logged());
    assert_eq!(binary.terminate(), Some(0));
}

/// As many descriptors as the system gives; for this process and those that it starts.
fn raise_descriptors(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read and write the structure that they are given.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(wanted.max(limit.rlim_cur));
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    assert!(raised == 0 && limit.rlim_cur >= wanted, "{wanted} descriptors are needed, not {}", limit.rlim_cur);
}

#[test]
fn five_thousand_idle_and_two_thousand_active_connections_are_served() {
    const IDLE: usize = 5000;
    const ACTIVE: usize = 2000;
    raise_descriptors(16_000);
    let runtime = runtime();
    let (agent, address) = runtime.block_on(Agent::open());
    let folder = tempfile::tempdir().unwrap();
    let binary = served(folder.path(), &configuration(address, 2 * ACTIVE));
    let proxy = binary.proxy;
    let empty = resident(binary.id());
    runtime.block_on(async {
        let id = login(proxy).await;
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(proxy).await.expect("a connection"));
        }
        let mut active = Vec::with_capacity(ACTIVE);
        for _ in 0..ACTIVE {
            let mut sender = connect(proxy).await;
            let request = ask("GET", "/hold", Some(&id), whole(""));
            let mut response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            response.body_mut().frame().await.expect("an event").expect("an event");
            active.push((sender, response));
        }
        let full = resident(binary.id());
        println!("{empty} KiB at first, {full} KiB with {IDLE} idle and {ACTIVE} active connections");
        let since = Instant::now();
        let response = connect(proxy).await.send_request(ask("GET", "/write", Some(&id), whole(""))).await;
        assert_eq!(response.expect("an answer").status(), StatusCode::OK);
        assert!(since.elapsed() < Duration::from_secs(10), "another is served meanwhile");
        agent.held.add_permits(ACTIVE);
        for (_, mut response) in active {
            let rest = response.body_mut().collect().await.expect("a whole stream").to_bytes();
            assert_eq!(rest, "event\n\n");
        }
        assert!(full - empty < 512 << 10, "{} KiB", full - empty);
    });
    assert_eq!(binary.terminate(), Some(0));
}
