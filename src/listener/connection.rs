//! The life of one connection: who it is from, TLS, and one request after another.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::peer::limit_key;

use super::farewell::{self, last_call};
use super::pace::{Overdue, Pace, Watch};
use super::place::{PerPeer, Share};
use super::preface::{self, BadPreface};
use super::socket::Socket;
use super::stream::Taking;
use super::terms::Terms;
use super::transport::Transport;
use super::wire::{Seen, Wire};
use super::{Arrival, Service};

/// A connection that was accepted.
pub struct Connection {
    pub socket: Socket,
    pub peer: SocketAddr,
    pub terms: Arc<Terms>,
    pub drain: Drain,
    pub per_peer: PerPeer,
    pub place: OwnedSemaphorePermit,
}

/// Why a connection came to no request; told to the log.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it sent nothing in time")]
    Silent,
    #[error(transparent)]
    Preface(#[from] BadPreface),
    #[error("it took too long to begin")]
    Slow,
    #[error("its peer has as many connections as it may")]
    TooMany,
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
}

impl Connection {
    /// Serves it to its end.
    pub async fn run(self, service: impl Service) {
        let (peer, drain) = (self.peer, self.drain.clone());
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = drain.over() => return,
        };
        match opened {
            Ok(open) => open.serve(service).await,
            Err(unfit) => {
                tracing::debug!(target: "cloakroom::listener", %peer, cause = %unfit, "a connection came to nothing");
            }
        }
    }

    /// Everything before HTTP, each within its bound. Whatever it needs counts as an open connection.
    async fn open(mut self) -> Result<Open, Unfit> {
        let limits = &self.terms.limits;
        let first = tokio::select! {
            first = tokio::time::timeout(limits.first_byte.0, self.socket.look()) => first.is_ok_and(|look| look.is_ok()),
            () = last_call(&self.drain) => false,
        };
        if !first {
            return Err(Unfit::Silent);
        }
        let head_time = limits.head_time.0;
        tokio::time::timeout(head_time, self.introduce()).await.unwrap_or(Err(Unfit::Slow))
    }

    async fn introduce(mut self) -> Result<Open, Unfit> {
        if self.terms.proxy_protocol
            && let Some(client) = preface::read(&mut self.socket).await?
        {
            self.peer = client;
        }
        let (peer, terms) = (self.peer, self.terms);
        let share = self.per_peer.enter(limit_key(peer.ip()), terms.limits.connections_per_peer);
        let share = share.ok_or(Unfit::TooMany)?;
        let transport = match &terms.tls {
            None => Transport::Plain(self.socket),
            Some(tls) => {
                let accepting = TlsAcceptor::from(tls.current()).accept(self.socket);
                Transport::Tls(Box::new(accepting.await.map_err(Unfit::Handshake)?))
            }
        };
        Ok(Open { transport, peer, terms, drain: self.drain, _place: (self.place, share) })
    }
}

/// A connection that HTTP can be spoken over.
struct Open {
    transport: Transport,
    peer: SocketAddr,
    terms: Arc<Terms>,
    drain: Drain,
    _place: (OwnedSemaphorePermit, Share),
}

impl Open {
    async fn serve(self, service: impl Service) {
        let limits = &self.terms.limits;
        let pace = Arc::new(Pace::new());
        let seen = Arc::new(Seen::new(pace.clone()));
        let (peer, secure) = (self.peer, self.transport.is_secure());
        let unparsed = service.clone();
        let reword = move |status| unparsed.answer_unparsed(status);
        let wire = Wire::new(self.transport, seen.clone(), limits.streams, reword);
        let (cut, headers) = (CancellationToken::new(), limits.headers);
        let (cutting, drain) = (cut.clone(), self.drain.clone());
        let answers = service_fn(move |request: Request<Incoming>| {
            let (seen, service, cut) = (seen.clone(), service.clone(), cutting.clone());
            seen.pace.begin();
            let exchange = Exchange(Some(seen.pace.clone()));
            let (version, drain) = (request.version(), drain.clone());
            let fragment = seen.had_fragment(request.method(), request.uri());
            let crowded = request.headers().len() > headers;
            async move {
                let cut =
                    if version <= Version::HTTP_11 { Some(cut) } else { Taking::current().map(|t| t.cut.clone()) };
                let arrival = Arrival { peer, secure, fragment, crowded, cut };
                let mut answer = service.answer(request, arrival).await;
                farewell::say(&drain, &mut answer, version);
                exchange.answered();
                Ok::<_, Infallible>(answer.map(|body| seen.answering(body, version)))
            }
        });
        let connection = self.terms.http.serve_connection_with_upgrades(TokioIo::new(wire), answers);
        let (mut connection, mut watch) = (pin!(connection), pin!(Watch::new(pace.clone(), limits.clone())));
        let (mut due, mut leaving) = (pin!(farewell::due(&self.drain, &pace)), false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(target: "cloakroom::listener", %peer, %error, "a connection broke");
                    }
                    return;
                }
                overdue = watch.as_mut() => {
                    tracing::debug!(target: "cloakroom::listener", %peer, ?overdue, "a connection is too slow");
                    if overdue != Overdue::Idle || watch.tell_to_end() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                }
                () = due.as_mut(), if !leaving => {
                    leaving = true;
                    watch.tell_to_end();
                    connection.as_mut().graceful_shutdown();
                }
                () = cut.cancelled() => return,
                () = self.drain.over() => return,
            }
        }
    }
}

/// An exchange that has no answer yet, and is over if it never gets one.
struct Exchange(Option<Arc<Pace>>);

impl Exchange {
    /// The answer's body tells from here on.
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(pace) = &self.0 {
            pace.end();
        }
    }
}
