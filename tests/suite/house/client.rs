//! The client of a House: a request is put together, sent over a connection of its own, and its answer kept whole.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Guest, House};

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// The runtime of backends and clients. What they log is nobody's.
pub fn runtime() -> Runtime {
    let quiet = || {
        let nobody = tracing::subscriber::NoSubscriber::default();
        std::mem::forget(tracing::subscriber::set_default(nobody));
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).on_thread_start(quiet).enable_all().build().expect("a runtime")
}

/// A request that is being put together.
pub struct Ask<'h> {
    house: &'h House,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
    http2: bool,
    tls: Option<Arc<ClientConfig>>,
}

/// An answer that came to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
    /// Whether the body ended as it should.
    pub complete: bool,
}

/// An answer that is still coming. Dropping it is a client that leaves.
pub struct Stream<'h> {
    house: &'h House,
    pub status: u16,
    pub headers: HeaderMap,
    trailers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl House {
    pub fn ask(&self, method: &str, target: &str) -> Ask<'_> {
        Ask {
            house: self,
            method: method.parse().expect("a method"),
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            trailers: None,
            http2: false,
            tls: None,
        }
    }

    pub fn get(&self, target: &str) -> Ask<'_> {
        self.ask("GET", target)
    }

    pub fn post(&self, target: &str) -> Ask<'_> {
        self.ask("POST", target)
    }
}

impl<'h> Ask<'h> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header value"));
        self
    }

    /// Comes with the guest's cookie.
    pub fn cookie(self, guest: &Guest) -> Self {
        self.house.leaks.credential(&guest.id);
        self.header("cookie", &format!("__Host-session={}", guest.id))
    }

    /// Comes with the guest's id as a bearer.
    pub fn bearer(self, guest: &Guest) -> Self {
        self.house.leaks.credential(&guest.id);
        self.header("authorization", &format!("Bearer {}", guest.id))
    }

    pub fn body(mut self, text: &str) -> Self {
        self.body = Bytes::copy_from_slice(text.as_bytes());
        self
    }

    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let parsed = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.trailers.get_or_insert_default().append(parsed, HeaderValue::from_str(value).expect("a header value"));
        self.header("trailer", name)
    }

    /// Speaks HTTP/2 from the first byte.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Speaks TLS, to `app.example`.
    pub fn tls(mut self, client: &Arc<ClientConfig>) -> Self {
        self.tls = Some(client.clone());
        self
    }

    fn request(&self) -> Request<Body> {
        let body = match &self.trailers {
            None => Full::new(self.body.clone()).boxed(),
            Some(trailers) => {
                let frames = [Ok(Frame::data(self.body.clone())), Ok(Frame::trailers(trailers.clone()))];
                StreamBody::new(stream::iter(frames)).boxed()
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let authority = self.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("app.example");
        if self.http2 {
            request.headers_mut().remove("host");
            *request.uri_mut() = format!("http://{authority}{}", self.target).parse().expect("a target");
        } else {
            *request.uri_mut() = self.target.parse::<Uri>().expect("a target");
            if !self.headers.contains_key("host") {
                request.headers_mut().insert("host", HeaderValue::from_str(authority).expect("a host"));
            }
        }
        request
    }

    async fn exchange(&self) -> (Response<Incoming>, JoinHandle<()>) {
        let stream = TcpStream::connect(self.house.proxy).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        match &self.tls {
            None => self.exchange_over(TokioIo::new(stream)).await,
            Some(tls) => {
                let name = "app.example".try_into().expect("a name");
                let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await;
                self.exchange_over(TokioIo::new(stream.expect("a handshake"))).await
            }
        }
    }

    async fn exchange_over<S>(&self, io: TokioIo<S>) -> (Response<Incoming>, JoinHandle<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            let connection = tokio::spawn(async move { drop(connection.await) });
            (sender.send_request(self.request()).await.expect("an answer"), connection)
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            let connection = tokio::spawn(async move { drop(connection.await) });
            (sender.send_request(self.request()).await.expect("an answer"), connection)
        }
    }

    /// Sends the request and waits for the head of its answer.
    #[track_caller]
    pub fn start(self) -> Stream<'h> {
        let quiet = tracing::subscriber::set_default(tracing::subscriber::NoSubscriber::default());
        let (response, connection) = self.house.wait_for(self.exchange());
        drop(quiet);
        let (head, body) = response.into_parts();
        self.house.keep_ids(&head.headers);
        let (house, status, headers) = (self.house, head.status.as_u16(), head.headers);
        Stream { house, status, headers, trailers: HeaderMap::new(), body, connection }
    }

    /// Sends the request and waits for the end of its answer.
    #[track_caller]
    pub fn send(self) -> Reply {
        self.start().finish()
    }

    /// Sends the request, and leaves without having waited for an answer once `leave` returns.
    pub fn leave_once(self, leave: impl FnOnce()) {
        let connection = self.house.wait_for(async {
            let stream = TcpStream::connect(self.house.proxy).await.expect("a connection");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
            let request = self.request();
            tokio::spawn(async move { drop(sender.send_request(request).await) });
            tokio::spawn(async move { drop(connection.await) }).abort_handle()
        });
        leave();
        connection.abort();
    }
}

impl Stream<'_> {
    /// The next piece of the body; none at its end, an error where it broke off.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = self.house.wait_for(self.body.frame())?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(frame)) => self.trailers = frame.into_trailers().unwrap_or_default(),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether nothing more comes for a while.
    pub fn is_silent(&mut self) -> bool {
        let body = &mut self.body;
        let waited = async { tokio::time::timeout(super::backend::A_WHILE, body.frame()).await };
        self.house.runtime.block_on(waited).is_err()
    }

    /// The next piece of the body as text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let bytes = self.chunk().expect("more of the body").expect("a whole body");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    /// Whether the body breaks off, whatever comes before.
    pub fn breaks_off(mut self) -> bool {
        loop {
            match self.chunk() {
                None => return false,
                Some(Err(_)) => return true,
                Some(Ok(_)) => {}
            }
        }
    }

    /// How the body broke off, in full; none where it came to its end.
    pub fn broken(mut self) -> Option<String> {
        loop {
            if let Err(error) = self.chunk()? {
                return Some(format!("{error:?}: {}", std::error::Error::source(&error)?));
            }
        }
    }

    #[track_caller]
    pub fn finish(mut self) -> Reply {
        let mut body = Vec::new();
        let complete = loop {
            match self.chunk() {
                Some(Ok(bytes)) => body.extend_from_slice(&bytes),
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let headers = std::mem::take(&mut self.headers);
        let trailers = std::mem::take(&mut self.trailers);
        let reply = Reply { status: self.status, headers, body: body.into(), trailers, complete };
        if reply.is_problem() {
            let told = format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body));
            self.house.leaks.told(told.as_bytes());
        }
        reply
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl House {
    /// Whatever id a client is given is a secret of this test.
    pub(super) fn keep_ids(&self, headers: &HeaderMap) {
        for id in new_ids(headers) {
            self.leaks.credential(&id);
        }
    }
}

fn new_ids(headers: &HeaderMap) -> Vec<String> {
    let cookie = |line: &HeaderValue| {
        let (_, value) = line.to_str().ok()?.split(';').next()?.split_once('=')?;
        value.starts_with("cr_").then(|| value.to_owned())
    };
    let header = |line: &HeaderValue| line.to_str().ok().map(str::to_owned);
    let cookies = headers.get_all("set-cookie").iter().filter_map(cookie);
    cookies.chain(headers.get_all("cloakroom-session-id").iter().filter_map(header)).collect()
}

impl Reply {
    /// The value of a header that stands once; none if it is absent.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.lines(name);
        assert!(lines.len() <= 1, "{name} stands {} times: {lines:?}", lines.len());
        lines.first().copied()
    }

    pub fn lines(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Whether cloakroom answered, and not the backend.
    pub fn is_problem(&self) -> bool {
        let kind = self.header("content-type").unwrap_or_default();
        kind == "application/problem+json" || self.headers.contains_key("grpc-status")
    }

    /// The session that the client was given an id for.
    #[track_caller]
    pub fn guest(&self) -> Guest {
        let ids = new_ids(&self.headers);
        let [id] = ids.as_slice() else { panic!("{} new ids came: {:?}", ids.len(), self.headers) };
        Guest::of(id)
    }

    pub fn has_new_id(&self) -> bool {
        !new_ids(&self.headers).is_empty()
    }

    /// Whether the session's cookie is cleared.
    pub fn clears_cookie(&self) -> bool {
        self.lines("set-cookie").iter().any(|line| line.starts_with("__Host-session=;") && line.contains("Max-Age=0"))
    }

    /// Fails unless this is that problem.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) -> &Self {
        let told = (self.status, self.header("content-type"), self.text());
        assert_eq!(self.status, status, "{told:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{told:?}");
        assert_eq!(self.json()["type"], format!("urn:cloakroom:problem:{code}"), "{told:?}");
        self
    }

    /// Fails unless the backend's answer came through.
    #[track_caller]
    pub fn passed(&self) -> &Self {
        assert!(!self.is_problem() && self.complete, "{} {:?} {:?}", self.status, self.headers, self.body);
        assert_eq!(self.status, 200);
        self
    }
}
