//! The scripted backend: a real server that keeps what it received, and answers with it or as it was told to.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;

/// The backend's door for the test.
#[derive(Clone)]
pub struct Backend {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    arrived: Condvar,
    /// What to answer, the first that is for the request's path.
    script: Mutex<VecDeque<(Option<String>, Answer)>>,
    always: Mutex<Option<Always>>,
    connections: AtomicUsize,
}

type Always = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A request as the backend received it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Every line, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub version: http::Version,
    /// The host in the target, which HTTP/2 has instead of a header.
    pub authority: Option<String>,
    /// Which connection it came over, from 1.
    pub connection: usize,
}

impl Seen {
    /// The value of a header that stands once; none if it is absent.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.lines(name);
        assert!(lines.len() <= 1, "{name} stands {} times", lines.len());
        lines.first().copied()
    }

    pub fn lines(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The names under the prefix that came.
    pub fn context_names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("cloakroom-")).collect()
    }

    fn to_json(&self) -> Json {
        json!({
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "body": String::from_utf8_lossy(&self.body),
            "trailers": self.trailers,
        })
    }
}

/// Holds back what waits for it until the test opens it.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub fn open(&self) {
        self.0.add_permits(1 << 20);
    }

    pub(super) async fn passed(&self) {
        self.0.acquire().await.expect("a gate").forget();
    }
}

/// What to answer.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// None: what was received, as JSON.
    steps: Option<Vec<Step>>,
    trailers: HeaderMap,
    held: Option<Gate>,
    reads: bool,
}

#[derive(Clone)]
enum Step {
    Chunk(Bytes),
    Wait(Gate),
    BreakOff,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), steps: None, trailers: HeaderMap::new(), held: None, reads: true }
    }

    /// 200 with what was received as JSON.
    pub fn ok() -> Self {
        Self::new(200)
    }

    /// 200 that sets fields.
    pub fn set(fields: &str) -> Self {
        Self::ok().header("cloakroom-set", fields)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.push((name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value")));
        self
    }

    pub fn body(self, text: &str) -> Self {
        self.step(Step::Chunk(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.get_or_insert_default().push(step);
        self
    }

    /// Sends no more of the body until the gate opens.
    pub fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Ends the body before its end.
    pub fn break_off(self) -> Self {
        self.step(Step::BreakOff)
    }

    /// Adds a trailer, and its name to `Trailer`.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let parsed = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.trailers.append(parsed, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self.header("trailer", name)
    }

    /// Sends not even the head until the gate opens.
    pub fn held(mut self, gate: &Gate) -> Self {
        self.held = Some(gate.clone());
        self
    }

    /// Answers without having read the request's body.
    pub fn before_body(mut self) -> Self {
        self.reads = false;
        self
    }

    fn respond(&self, seen: &Seen) -> Response<BoxBody<Bytes, io::Error>> {
        let streamed = !self.trailers.is_empty() || self.steps.as_ref().is_some_and(|steps| steps.len() > 1);
        let body = if streamed {
            StreamBody::new(stream::unfold(Playing::of(self, seen), Playing::next)).boxed()
        } else {
            Full::new(self.whole(seen)).map_err(|never| match never {}).boxed()
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status.try_into().expect("a status");
        for (name, value) in &self.headers {
            response.headers_mut().append(name, value.clone());
        }
        response
    }

    fn whole(&self, seen: &Seen) -> Bytes {
        match self.steps.as_deref() {
            None if self.status == 101 => Bytes::new(),
            None => seen.to_json().to_string().into(),
            Some([Step::Chunk(bytes)]) => bytes.clone(),
            Some(_) => panic!("a body of one step is a chunk"),
        }
    }
}

/// A body that is being sent.
struct Playing {
    steps: VecDeque<Step>,
    trailers: Option<HeaderMap>,
}

impl Playing {
    fn of(answer: &Answer, seen: &Seen) -> Self {
        let echo = || vec![Step::Chunk(seen.to_json().to_string().into())];
        let steps = answer.steps.clone().unwrap_or_else(echo).into();
        Self { steps, trailers: Some(answer.trailers.clone()).filter(|trailers| !trailers.is_empty()) }
    }

    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        loop {
            let frame = match self.steps.pop_front() {
                Some(Step::Chunk(bytes)) => Ok(Frame::data(bytes)),
                Some(Step::Wait(gate)) => {
                    gate.passed().await;
                    continue;
                }
                Some(Step::BreakOff) => Err(io::Error::other("broken off")),
                None => Ok(Frame::trailers(self.trailers.take()?)),
            };
            return Some((frame, self));
        }
    }
}

impl Backend {
    pub fn open(runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let backend = Self { address, state: Arc::default() };
        runtime.spawn(backend.clone().serve(listener));
        backend
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            tokio::spawn(self.clone().speak(stream));
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let connection = self.state.connections.fetch_add(1, Ordering::AcqRel) + 1;
        let service = service_fn(|request| answer(self.state.clone(), connection, request));
        let http = auto::Builder::new(TokioExecutor::new());
        let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    }

    /// Serves over TLS as well, at another port.
    pub fn secure(&self, runtime: &Runtime, config: ServerConfig) -> SocketAddr {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (backend, acceptor) = (self.clone(), TlsAcceptor::from(Arc::new(config)));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (backend, accepting) = (backend.clone(), acceptor.accept(stream));
                tokio::spawn(async move {
                    if let Ok(stream) = accepting.await {
                        backend.speak(stream).await;
                    }
                });
            }
        });
        address
    }

    /// Serves on a Unix socket as well.
    pub fn local(&self, runtime: &Runtime, path: &Path) {
        let _inside = runtime.enter();
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a socket");
        let backend = self.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(backend.clone().speak(stream));
            }
        });
    }

    /// Tells what to answer to the next request that nothing else is told for.
    pub fn next(&self, answer: Answer) {
        self.state.script.lock().unwrap().push_back((None, answer));
    }

    /// Tells what to answer to the next request for that path.
    pub fn next_to(&self, path: &str, answer: Answer) {
        self.state.script.lock().unwrap().push_back((Some(path.to_owned()), answer));
    }

    /// Tells what to answer from now on where nothing else was told.
    pub fn always(&self, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) {
        *self.state.always.lock().unwrap() = Some(Arc::new(answer));
    }

    /// Everything that was received.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The last request that was received.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.state.seen.lock().unwrap().last().cloned().expect("the backend received nothing")
    }

    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// Waits until so many requests were received in all.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        let seen = self.state.seen.lock().unwrap();
        let waited = self.state.arrived.wait_timeout_while(seen, PATIENCE, |seen| seen.len() < count);
        let (seen, waited) = waited.unwrap();
        assert!(!waited.timed_out(), "{} requests arrived, not {count}", seen.len());
    }

    /// Waits for the request with that target, whatever else arrives.
    pub fn wait_for_target(&self, target: &str) {
        let seen = self.state.seen.lock().unwrap();
        let absent = |seen: &mut Vec<Seen>| !seen.iter().any(|one| one.target == target);
        let waited = self.state.arrived.wait_timeout_while(seen, PATIENCE, absent).unwrap();
        assert!(!waited.1.timed_out(), "{target} did not arrive");
    }

    pub fn received_heads(&self) -> Vec<u8> {
        let text = |seen: &Seen| format!("{} {} {:?} {:?}\n", seen.method, seen.target, seen.headers, seen.trailers);
        self.seen().iter().map(text).collect::<String>().into_bytes()
    }
}

impl State {
    fn choose(&self, seen: &Seen) -> Answer {
        let path = seen.target.split('?').next().unwrap_or_default();
        let mut script = self.script.lock().unwrap();
        let at = script.iter().position(|(only, _)| only.as_deref().is_none_or(|only| only == path));
        if let Some((_, answer)) = at.and_then(|at| script.remove(at)) {
            return answer;
        }
        let always = self.always.lock().unwrap().clone();
        always.map_or_else(Answer::ok, |always| always(seen))
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
        self.arrived.notify_all();
    }
}

async fn answer(
    state: Arc<State>,
    connection: usize,
    mut request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, hyper::Error> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let mut seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map_or("", |target| target.as_str()).to_owned(),
        headers: lines(&head.headers),
        body: Vec::new(),
        trailers: Vec::new(),
        version: head.version,
        authority: head.uri.authority().map(ToString::to_string),
        connection,
    };
    let chosen = state.choose(&seen);
    if chosen.reads {
        let whole = body.collect().await?;
        seen.trailers = whole.trailers().map(lines).unwrap_or_default();
        seen.body = whole.to_bytes().to_vec();
    }
    state.note(seen.clone());
    if let Some(gate) = &chosen.held {
        gate.passed().await;
    }
    if chosen.status == 101 {
        tokio::spawn(shout(upgrade));
    }
    Ok(chosen.respond(&seen))
}

/// After an upgrade: gives back every byte, letters in upper case.
async fn shout(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut stream = TokioIo::new(upgraded);
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        buffer[..read].make_ascii_uppercase();
        if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Long enough to be sure that something does not happen, short enough to wait for.
pub const A_WHILE: Duration = Duration::from_millis(80);
