//! Where clients connect: accepted, bounded, served, and let go in order.

mod arriving;
mod bell;
mod connection;
mod farewell;
mod frames;
mod linger;
mod pace;
mod place;
mod preface;
mod socket;
mod stream;
mod terms;
mod transport;
mod wire;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::in_force::InForce;
use crate::peer::Downstream;

use connection::Connection;
use farewell::last_call;
use place::{PerPeer, Places};
use socket::Door;

pub use arriving::Arriving;
pub use socket::Bound;
pub use terms::Terms;

/// How long the accept loop rests when the process has run out of descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// A bound address that is not served yet.
pub struct Listener {
    door: Door,
    terms: InForce<Terms>,
}

/// How a request reached us.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub downstream: Arc<Downstream>,
    /// Whether the target had a fragment, which the parsed request does not show.
    pub fragment: bool,
    /// Whether it has more headers than the listener takes.
    pub crowded: bool,
    /// Ends what serves this request alone, connection or stream: for a client that takes nothing any more, and so
    /// does not notice that there is nothing more to take.
    pub cut: Option<Arc<CancellationToken>>,
}

/// What a listener hands requests to.
pub trait Service: Clone + Unpin + Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static;

    /// Answers one request.
    fn answer(
        self,
        request: Request<Arriving>,
        arrival: Arrival,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// The whole response, in HTTP/1.1, to what could not be parsed as a request.
    fn answer_unparsed(&self, status: StatusCode) -> Bytes;
}

impl Listener {
    /// Binds `0.0.0.0:8080`, `[::]:8080` (for IPv4 as well) or `unix:/path`.
    pub fn bind(address: &str, terms: InForce<Terms>) -> std::io::Result<Self> {
        Ok(Self { door: Door::bind(address)?, terms })
    }

    pub fn bound(&self) -> std::io::Result<Bound> {
        self.door.bound()
    }

    /// The terms of connections to come.
    pub fn terms(&self) -> InForce<Terms> {
        self.terms.clone()
    }

    /// Accepts and serves until the drain begins; connections then end with the exchange that they are in.
    pub async fn serve(self, drain: Drain, service: impl Service) {
        let (mut places, per_peer) = (Places::default(), PerPeer::default());
        let mut over = pin!(last_call(&drain));
        loop {
            // Taken first: over the bound, connections wait with the kernel.
            let Some(place) = places.take(&self.terms, &drain).await else { return };
            let accepted = tokio::select! {
                biased;
                () = over.as_mut() => return,
                accepted = self.door.accept() => accepted,
                // Only once nobody waits any more: who was let in by the kernel would be cut off.
                () = drain.begun() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(target: "cloakroom::listener", %error, "a connection could not be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            };
            // A connection keeps the terms that it began with.
            let (terms, drain_too, per_peer) = (self.terms.current(), drain.clone(), per_peer.clone());
            let connection = Connection { socket, peer, terms, drain: drain_too, per_peer, place };
            drain.spawn(connection.run(service.clone()));
        }
    }
}
