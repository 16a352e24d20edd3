//! Connections to one backend, kept between requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::UpstreamError;
use super::body::{Outgoing, Sent};
use super::circuit::Circuit;

/// Shorter than the keep-alive of the servers that agents are written with (Node: 5 s), so that a connection is
/// seldom used while the backend is closing it.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept for one backend.
const IDLE_CONNECTIONS: usize = 256;
/// The largest head that a backend may answer with, write-back included.
const RESPONSE_HEAD_BYTES: usize = 128 << 10;
const RESPONSE_HEADERS: usize = 256;

#[derive(Debug)]
pub struct Pool {
    authority: String,
    idle: Mutex<Vec<Idle>>,
    pub circuit: Circuit,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// A connection in use by one exchange.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<Outgoing>,
    pool: Arc<Pool>,
    sent: Sent,
}

impl Pool {
    pub fn new(authority: &str) -> Self {
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Self { authority, idle: Mutex::default(), circuit: Circuit::default() }
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if one is fresh and open.
    pub async fn take(self: &Arc<Self>, sent: Sent) -> Option<Lease> {
        loop {
            let Idle { mut sender, since } = self.idle().pop()?;
            if since.elapsed() < IDLE && sender.ready().await.is_ok() {
                return Some(Lease { sender, pool: self.clone(), sent });
            }
        }
    }

    pub async fn connect(self: &Arc<Self>, within: Duration, sent: Sent) -> Result<Lease, UpstreamError> {
        let connecting = tokio::time::timeout(within, TcpStream::connect(&self.authority));
        let stream = connecting.await.map_err(|_| UpstreamError::ConnectTimeout)?.map_err(UpstreamError::Connect)?;
        stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(RESPONSE_HEAD_BYTES).max_headers(RESPONSE_HEADERS);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(UpstreamError::Broken)?;
        // Ends when its sender is dropped or the backend closes; what goes wrong reaches the exchange that uses it.
        tokio::spawn(async move { connection.with_upgrades().await.is_ok() });
        Ok(Lease { sender, pool: self.clone(), sent })
    }

    pub fn sweep(&self) {
        self.idle().retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
    }
}

impl Lease {
    pub async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        self.sender.try_send_request(request).await
    }

    /// Gives the connection back once the response was read to its end.
    ///
    /// One whose request was not sent to its end is closed: the rest of it must not be read as the next request.
    pub fn give_back(self) {
        let mut idle = self.pool.idle();
        if self.sent.is_complete() && !self.sender.is_closed() && idle.len() < IDLE_CONNECTIONS {
            idle.push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}
