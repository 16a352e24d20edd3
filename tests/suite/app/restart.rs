//! One process in place of another under load: every request is counted at both ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::binary::Binary;

/// A backend that answers every request with two bytes, and counts them.
#[derive(Clone, Default)]
struct Counting {
    requests: Arc<AtomicUsize>,
}

impl Counting {
    fn open(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counting = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let counting = counting.clone();
                std::thread::spawn(move || counting.serve(stream.unwrap()));
            }
        });
        address
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(head) = head(&mut reader) {
            let mut body = vec![0; length(&head)];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            self.requests.fetch_add(1, Ordering::AcqRel);
            if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head.to_ascii_lowercase())
}

fn length(head: &str) -> usize {
    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0)
}

/// Where clients connect from now on, as an endpoint list would say it.
struct Service(Mutex<SocketAddr>);

impl Service {
    fn address(&self) -> SocketAddr {
        *self.0.lock().unwrap()
    }
}

const POST: &[u8] = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

/// Posts over one kept connection after another; gives how many were answered. It connects anew where a response says
/// that its connection closes, and nowhere else: a request without an answer is a failure.
fn post_over_http_1(service: &Service, done: &AtomicBool, think: Duration) -> usize {
    let mut answered = 0;
    'connections: while !done.load(Ordering::Acquire) {
        let stream = TcpStream::connect(service.address()).expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while !done.load(Ordering::Acquire) {
            writer.write_all(POST).expect("a request");
            let head = head(&mut reader).unwrap_or_else(|| panic!("request {answered} has no answer"));
            assert!(head.starts_with("http/1.1 200"), "{head}");
            reader.read_exact(&mut [0; 2]).expect("a body");
            answered += 1;
            if head.contains("connection: close") {
                continue 'connections;
            }
            std::thread::sleep(think);
        }
    }
    answered
}

/// The same over HTTP/2: it connects anew when its connection is going away.
async fn post_over_http_2(service: &Service, done: &AtomicBool) -> usize {
    let mut answered = 0;
    let mut sender: Option<SendRequest<Full<Bytes>>> = None;
    while !done.load(Ordering::Acquire) {
        let mut open = match sender.take() {
            Some(open) => open,
            None => {
                let stream = tokio::net::TcpStream::connect(service.address()).await.expect("a connection");
                let (open, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
                tokio::spawn(async move { drop(connection.await) });
                open
            }
        };
        if open.ready().await.is_err() {
            continue;
        }
        let request = Request::post("http://a/x").body(Full::new(Bytes::from_static(b"body"))).unwrap();
        match open.try_send_request(request).await {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "ok");
                answered += 1;
                sender = Some(open);
            }
            // It never left, or it was told in order that it was not taken up: no request is lost.
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let error = format!("{:?}", failed.into_error());
                assert!(unsent || error.contains("GoAway(b\"\", NO_ERROR, Remote)"), "request {answered}: {error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    answered
}

#[test]
fn a_rolling_restart_under_load_loses_no_request() {
    let backend = Counting::default();
    let text = format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\nshutdown: {{ grace: 200ms, drain: 10s }}\n\
         log: {{ level: 'info,cloakroom::access=off' }}\n\
         session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}\n\
         routes: [{{ name: all, upstream: 'http://{}', session: none }}]\n",
        backend.open()
    );
    let (_folder, path) = super::written(&text);
    let mut current = Binary::serve(&path);
    let service = Service(Mutex::new(current.proxy));
    let done = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let answered = std::thread::scope(|scope| {
        let (service, done, runtime) = (&service, &done, &runtime);
        let thinking = [0, 0, 1, 5, 20, 60].map(Duration::from_millis);
        let mut clients: Vec<_> =
            thinking.map(|think| scope.spawn(move || post_over_http_1(service, done, think))).into();
        clients.extend((0..3).map(|_| scope.spawn(move || runtime.block_on(post_over_http_2(service, done)))));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            let next = Binary::serve_on_one_core(&path);
            current.signal(libc::SIGTERM);
            // Endpoints catch up within the grace.
            std::thread::sleep(Duration::from_millis(50));
            *service.0.lock().unwrap() = next.proxy;
            assert_eq!(std::mem::replace(&mut current, next).ended(), Some(0));
        }
        done.store(true, Ordering::Release);
        clients.into_iter().map(|client| client.join().expect("no request lost")).sum::<usize>()
    });
    assert_eq!(backend.requests.load(Ordering::Acquire), answered);
    assert!(answered > 100, "{answered} requests are no load");
    assert_eq!(current.terminate(), Some(0));
}

#[test]
fn it_is_not_ready_at_once_accepts_for_the_grace_and_a_second_signal_ends_it_at_once() {
    let backend = Counting::default();
    let text = format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         status: {{ address: '127.0.0.1:0' }}\nstore: {{ kind: memory }}\nshutdown: {{ grace: 30s, drain: 30s }}\n\
         session: {{ schema: {{ version: 1, fields: {{ step: {{ type: integer }} }} }} }}\n\
         routes: [{{ name: all, upstream: 'http://{}', session: none }}]\n",
        backend.open()
    );
    let (_folder, path) = super::written(&text);
    let binary = Binary::serve(&path);
    let status = |of: SocketAddr, path: &str| {
        let mut client = TcpStream::connect(of).unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        head(&mut BufReader::new(client)).unwrap()
    };
    assert!(status(binary.status, "/readyz").contains(" 200 "));
    binary.signal(libc::SIGTERM);
    let since = Instant::now();
    while !status(binary.status, "/readyz").contains(" 503 ") {
        assert!(since.elapsed() < Duration::from_secs(10), "not ready at once");
    }
    assert!(status(binary.proxy, "/").contains(" 200 "), "it accepts for the grace");
    let since = Instant::now();
    binary.signal(libc::SIGINT);
    assert_eq!(binary.ended(), Some(1));
    assert!(since.elapsed() < Duration::from_secs(10));
}
