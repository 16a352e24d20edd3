//! HTTP/2 connections to a backend: each carries many requests at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version, header};
use http_body::Body as _;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::headers::Lines;

use super::body::{Onward, Outgoing};
use super::origin::Backend;
use super::pool::Outcome;
use super::{AFTERWARDS, RESPONSE_HEAD_BYTES};

/// Requests at once on one connection, if the backend takes as many: what RFC 9113, section 6.5.2, has it take at least.
const STREAMS: usize = 100;
/// What one response may be ahead of its client.
const STREAM_WINDOW: u32 = 256 << 10;
/// Room for all of them: clients that take nothing hold their own windows, and nobody else's.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Requests that go out before the backend has said how many it takes; others wait on the connection until it has.
const FIRST_STREAMS: usize = 10;
/// Streams that were given up, of which frames may still come.
const GIVEN_UP: usize = 1024;
/// How long a connection without a request is kept. Its end is announced, so that no request is lost to it.
const IDLE: Duration = Duration::from_secs(60);

/// A connection that requests share.
#[derive(Debug)]
pub struct Shared {
    sender: SendRequest<Outgoing>,
    streams: Arc<Streams>,
    used: Instant,
}

#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    /// As many as the backend takes.
    most: AtomicUsize,
    /// A request on it was not answered in time: it may be dead without anybody having said so. No PING asks, since many
    /// servers of gRPC end connections for more than one in five minutes.
    doubtful: AtomicBool,
}

/// One request's place on a shared connection, for its response.
#[derive(Debug)]
pub struct Stream {
    sender: SendRequest<Outgoing>,
    place: Arc<Place>,
    /// Cancelled when the response is over, or was given up.
    over: DropGuard,
}

/// Taken until the response is over and the request has gone out, or will not.
#[derive(Debug)]
struct Place(Arc<Streams>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the body of a request holds on a shared connection.
pub struct Held {
    _place: Arc<Place>,
    /// Ready some time after the response is over: what is left of the request by then is not waited for.
    late: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Held {
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.late.as_mut().poll(cx)
    }
}

impl Stream {
    /// Has later requests go over another connection.
    pub fn doubt(&self) {
        self.place.0.doubtful.store(true, Ordering::Release);
    }

    fn held(&self) -> Held {
        let over = self.over.token().clone();
        let late = async move {
            over.cancelled().await;
            tokio::time::sleep(AFTERWARDS).await;
        };
        Held { _place: self.place.clone(), late: Box::pin(late) }
    }

    /// Sends a request, and waits for the head of its response.
    pub async fn send(&mut self, mut request: Request<Outgoing>) -> Outcome {
        if !request.body().is_end_stream() {
            let held = self.held();
            request.body_mut().hold(held);
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Outcome::Answered(head, Some(body))
            }
            Err(mut failed) => {
                let unsent = failed.take_message();
                // Its lines are among its headers now, but for what only HTTP/1.1 has, which it may go over the next time.
                let mut lines = Lines::default();
                lines.add(&header::CONNECTION, "te");
                let unsent = unsent.map(|request| Box::new(Onward { request, lines, upgrade: false }));
                Outcome::Failed(failed.into_error().into(), unsent)
            }
        }
    }
}

impl Shared {
    pub async fn open(stream: Box<dyn Backend>) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(RESPONSE_HEAD_BYTES).unwrap_or(u32::MAX))
            .initial_max_send_streams(FIRST_STREAMS)
            .max_concurrent_reset_streams(GIVEN_UP)
            // Counted over a connection's whole life, and clients give up streams every day: the backend is no attacker.
            .max_local_error_reset_streams(None);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let streams = Arc::new(Streams {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(STREAMS),
            doubtful: AtomicBool::new(false),
        });
        tokio::spawn(Driver { connection, streams: streams.clone() });
        Ok(Self { sender, streams, used: Instant::now() })
    }

    /// Takes a place, if the connection is open and has one.
    pub fn enter(&mut self) -> Option<Stream> {
        let most = self.streams.most.load(Ordering::Acquire).min(STREAMS);
        if !self.takes_more() || self.streams.open.load(Ordering::Acquire) >= most {
            return None;
        }
        self.streams.open.fetch_add(1, Ordering::AcqRel);
        self.used = Instant::now();
        let (place, over) = (Arc::new(Place(self.streams.clone())), CancellationToken::new().drop_guard());
        Some(Stream { sender: self.sender.clone(), place, over })
    }

    fn takes_more(&self) -> bool {
        !self.sender.is_closed() && !self.streams.doubtful.load(Ordering::Acquire)
    }

    /// Whether it is to be kept.
    pub fn is_of_use(&self) -> bool {
        let in_use = self.streams.open.load(Ordering::Acquire) > 0;
        self.takes_more() && (in_use || self.used.elapsed() < IDLE)
    }
}

/// Drives a connection to its end. What goes wrong reaches the exchanges that use it.
struct Driver {
    connection: Connection<TokioIo<Box<dyn Backend>>, Outgoing, TokioExecutor>,
    streams: Arc<Streams>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        let most = self.connection.current_max_send_streams();
        // As many as at first: it has most likely not said yet.
        if most != FIRST_STREAMS {
            self.streams.most.store(most, Ordering::Release);
        }
        polled.map(|_| ())
    }
}

/// A request as HTTP/2 has it: its authority stands in the target, and no protocol can be changed.
pub fn for_http2(onward: Box<Onward>, scheme: &str) -> Request<Outgoing> {
    let Onward { mut request, lines, .. } = *onward;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().extend(lines.fields());
    request.headers_mut().remove(header::UPGRADE);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    let authority = request.headers().get(header::HOST).map(|host| Authority::try_from(host.as_bytes()));
    let (Some(Ok(authority)), Ok(scheme)) = (authority, Scheme::try_from(scheme)) else { return request };
    request.headers_mut().remove(header::HOST);
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    (parts.scheme, parts.authority) = (Some(scheme), Some(authority));
    if let Ok(target) = Uri::from_parts(parts) {
        *request.uri_mut() = target;
    }
    request
}
