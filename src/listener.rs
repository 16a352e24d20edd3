//! Where clients connect: accepted, bounded, served, and let go in order.

mod wire;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::ListenerLimits;
use crate::drain::Drain;
use crate::in_force::InForce;
use crate::peer::limit_key;

use wire::{Seen, Wire};

/// Connections that the kernel holds for us until we accept them.
const BACKLOG: i32 = 4096;
/// How long the accept loop rests when the process has run out of descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// How often a full listener looks whether its limits are others by now.
const REFIT: Duration = Duration::from_secs(1);
/// The smallest read buffer that hyper takes.
const LEAST_BUFFER: usize = 8 << 10;

/// A bound address that is not served yet.
pub struct Listener {
    socket: TcpListener,
    limits: InForce<ListenerLimits>,
}

/// How a request reached us.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub peer: SocketAddr,
    /// Whether over TLS.
    pub secure: bool,
    /// Whether the target had a fragment, which the parsed request does not show.
    pub fragment: bool,
    /// Ends the connection, where it serves this request alone: for a client that takes nothing any more, and so does
    /// not notice that there is nothing more to take.
    pub cut: Option<CancellationToken>,
}

/// What a listener hands requests to.
pub trait Service: Clone + Unpin + Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static;

    /// Answers one request.
    fn answer(
        self,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// The whole response, in HTTP/1.1, to what could not be parsed as a request.
    fn answer_unparsed(&self, status: StatusCode) -> Bytes;
}

impl Listener {
    /// Binds an address such as `0.0.0.0:8080` or `[::]:8080`, the latter for IPv4 as well.
    pub fn bind(address: SocketAddr, limits: InForce<ListenerLimits>) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: TcpListener::from_std(socket.into())?, limits })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The limits of connections to come.
    pub fn limits(&self) -> InForce<ListenerLimits> {
        self.limits.clone()
    }

    /// Accepts and serves until the drain begins; connections then end with the exchange that they are in.
    pub async fn serve(self, drain: Drain, service: impl Service) {
        let (mut places, per_peer) = (Places::default(), PerPeer::default());
        loop {
            // Taken first: over the bound, connections wait with the kernel.
            let Some(place) = places.take(&self.limits, &drain).await else { return };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = drain.begun() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(target: "cloakroom::listener", %error, "a connection could not be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            };
            // A connection keeps the limits that it began with.
            let limits = self.limits.current();
            let Some(share) = per_peer.enter(limit_key(peer.ip()), limits.connections_per_peer) else { continue };
            let connection = Connection { stream, peer, limits, _place: (place, share) };
            drain.spawn(connection.serve(drain.clone(), service.clone()));
        }
    }
}

fn protocol(limits: &ListenerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // It runs from the end of one exchange, so it is also how long a connection may idle.
        .header_read_timeout(limits.keep_alive.0.max(limits.head_time.0))
        .max_buf_size(limits.head.bytes().max(LEAST_BUFFER))
        .max_headers(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head.0).unwrap_or(u32::MAX))
        // Explicit, since without them a client that resets what it opens costs without bound (CVE-2023-44487).
        .max_pending_accept_reset_streams(Some(20))
        .max_local_error_reset_streams(Some(100))
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    limits: Arc<ListenerLimits>,
    _place: (OwnedSemaphorePermit, Share),
}

impl Connection {
    async fn serve(self, drain: Drain, service: impl Service) {
        // Without it, small writes of a stream wait for the acknowledgement of the one before.
        if self.stream.set_nodelay(true).is_err() || !self.sends_first_byte(&drain).await {
            return;
        }
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Seen::default());
        let unparsed = service.clone();
        let wire = Wire::new(self.stream, seen.clone(), move |status| unparsed.answer_unparsed(status));
        let (started, peer, cut) = (begun.clone(), self.peer, CancellationToken::new());
        let cutting = cut.clone();
        let answers = service_fn(move |request: Request<Incoming>| {
            started.store(true, Ordering::Release);
            let seen = seen.clone();
            let version = request.version();
            let fragment = seen.had_fragment(request.method(), request.uri());
            let cut = (version <= Version::HTTP_11).then(|| cutting.clone());
            let answer = service.clone().answer(request, Arrival { peer, secure: false, fragment, cut });
            async move { Ok::<_, Infallible>(answer.await.map(|body| seen.answering(body, version))) }
        });
        let http = protocol(&self.limits);
        let connection = http.serve_connection_with_upgrades(TokioIo::new(wire), answers);
        let mut connection = pin!(connection);
        let mut first_head = pin!(tokio::time::sleep(self.limits.head_time.0));
        let mut draining = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(target: "cloakroom::listener", peer = %self.peer, %error, "a connection broke");
                    }
                    return;
                }
                // The protocol is told by the first bytes, and hyper waits for those without end.
                () = first_head.as_mut(), if !begun.load(Ordering::Acquire) && !first_head.is_elapsed() => {
                    if !begun.load(Ordering::Acquire) {
                        return;
                    }
                }
                () = drain.begun(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = cut.cancelled() => return,
                () = drain.over() => return,
            }
        }
    }

    async fn sends_first_byte(&self, drain: &Drain) -> bool {
        let mut byte = [0];
        tokio::select! {
            // Looked at and left where it is: that the socket may be readable is no byte yet.
            first = tokio::time::timeout(self.limits.first_byte.0, self.stream.peek(&mut byte)) => matches!(first, Ok(Ok(1))),
            () = drain.begun() => false,
        }
    }
}

/// The places for connections, as many as the limits in force give.
struct Places {
    free: Arc<Semaphore>,
    count: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(0)), count: 0 }
    }
}

impl Places {
    /// Waits for a place; none once the drain has begun.
    async fn take(&mut self, limits: &InForce<ListenerLimits>, drain: &Drain) -> Option<OwnedSemaphorePermit> {
        let wanted = || limits.current().connections.min(Semaphore::MAX_PERMITS);
        loop {
            let more = wanted().saturating_sub(self.count);
            self.free.add_permits(more);
            self.count += more;
            let place = tokio::select! {
                place = self.free.clone().acquire_owned() => place.ok()?,
                () = drain.begun() => return None,
                // There may be more of them by then.
                () = tokio::time::sleep(REFIT) => continue,
            };
            if self.count <= wanted() {
                return Some(place);
            }
            // One too many: it is gone, and no open connection is closed for that.
            place.forget();
            self.count -= 1;
        }
    }
}

/// How many connections each peer has open.
#[derive(Default)]
struct PerPeer {
    open: Arc<Mutex<HashMap<u128, usize>>>,
}

/// One connection's share of what its peer may have open.
struct Share {
    peer: Option<u128>,
    open: Arc<Mutex<HashMap<u128, usize>>>,
}

impl PerPeer {
    fn enter(&self, peer: u128, limit: Option<usize>) -> Option<Share> {
        let Some(limit) = limit else { return Some(Share { peer: None, open: self.open.clone() }) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(peer).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Share { peer: Some(peer), open: self.open.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&peer);
            }
        }
    }
}
