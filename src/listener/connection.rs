//! The life of one connection: who it is from, TLS, and one request after another.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::peer::{Downstream, limit_key};

use super::bell::Bell;
use super::farewell::{self, last_call};
use super::pace::{Overdue, Pace, Watch};
use super::place::{PerPeer, Share};
use super::preface::{self, BadPreface};
use super::socket::Socket;
use super::stream::Taking;
use super::terms::{HeadLimits, Terms};
use super::transport::Transport;
use super::wire::{Answering, Seen, Wire};
use super::{Arrival, Arriving, Service};

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
                // Boxed, so that connections without TLS have no room for its handshake.
                let accepting = Box::pin(TlsAcceptor::from(tls.current()).accept(self.socket));
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
        let secure = self.transport.is_secure();
        let unparsed = service.clone();
        let reword = move |status| unparsed.answer_unparsed(status);
        let wire = Wire::new(self.transport, seen.clone(), limits.streams, reword);
        let (peer, drain) = (self.peer, self.drain);
        let cut = Arc::new(drain.cut());
        let due = Box::pin({
            let (drain, pace) = (drain.clone(), pace.clone());
            async move { farewell::due(&drain, &pace).await }
        });
        let course = Course { peer, watch: Watch::new(pace, limits.clone()), due, leaving: false, cut: cut.clone() };
        let downstream = Arc::new(Downstream::new(peer, secure));
        let client = Client { service, seen, drain, downstream, limits: HeadLimits::of(limits), cut };
        course.run(wire, &self.terms, Arc::new(client)).await;
    }
}

/// All that the requests of a connection have in common.
struct Client<S> {
    service: S,
    seen: Arc<Seen>,
    drain: Drain,
    downstream: Arc<Downstream>,
    limits: HeadLimits,
    cut: Arc<CancellationToken>,
}

impl<S: Service> Client<S> {
    /// Answers one request.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Answering<S::Body>>, Infallible> {
        let seen = &self.seen;
        seen.pace.begin();
        let exchange = Exchange(Some(seen.pace.clone()));
        let version = request.version();
        let cut = match version <= Version::HTTP_11 {
            true => Some(self.cut.clone()),
            false => Taking::current().map(|taking| taking.cut.clone()),
        };
        let arrival = Arrival {
            downstream: self.downstream.clone(),
            fragment: seen.had_fragment(request.method(), request.uri()),
            crowded: !self.limits.admit(&request),
            cut,
        };
        let request = request.map(|body| Arriving::new(body, &seen.pace));
        let mut answer = self.service.clone().answer(request, arrival).await;
        farewell::say(&self.drain, &mut answer, version);
        exchange.answered();
        // Of these only a change of protocol is an answer.
        if answer.status().is_informational() {
            seen.changes_protocol();
        }
        Ok(answer.map(|body| seen.answering(body, version)))
    }
}

/// A connection on its way to its end.
struct Course {
    peer: SocketAddr,
    watch: Watch,
    /// When it is to end with what is in flight on it.
    due: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// It was told to.
    leaving: bool,
    /// Ends it at once.
    cut: Arc<CancellationToken>,
}

/// What happens to a connection beside its requests.
enum Turn {
    Over,
    /// It is to end with what is in flight.
    Leave,
    /// Nothing is asked, and nothing needs to be held.
    Rest,
}

impl Course {
    async fn run<S: Service, R>(mut self, mut wire: Wire<Transport, R>, terms: &Terms, client: Arc<Client<S>>)
    where
        R: Fn(StatusCode) -> Bytes + Send + Unpin + 'static,
    {
        let answers = service_fn(move |request| client.clone().answer(request));
        let is_http2 = tokio::select! {
            is_http2 = wire.is_http2() => is_http2.unwrap_or(false),
            _ = self.turn() => return,
        };
        if is_http2 {
            let mut connection = Box::pin(terms.http2.serve_connection(TokioIo::new(wire), answers));
            while let Turn::Rest = self.drive(connection.as_mut(), |connection| connection.graceful_shutdown()).await {}
            return;
        }
        // Boxed, so that a connection at rest has no room for it: with hyper's two buffers, 18 KiB for each.
        loop {
            let connection = terms.http1.serve_connection(TokioIo::new(wire), answers.clone());
            let mut connection = Box::pin(connection.with_upgrades());
            if self.leaving {
                connection.as_mut().graceful_shutdown();
            }
            match self.drive(connection.as_mut(), |connection| connection.graceful_shutdown()).await {
                Turn::Rest => {}
                Turn::Leave | Turn::Over => return,
            }
            let Some(parts) = Pin::into_inner(connection).into_parts() else { return };
            wire = parts.io.into_inner();
            wire.rewind(&parts.read_buf);
            drop(parts.read_buf);
            tokio::select! {
                biased;
                () = wire.readable() => {}
                turn = self.turn() => if matches!(turn, Turn::Over) { return },
            }
        }
    }

    /// Has a connection go on until it is over or may rest, and leave in between, if it is to.
    async fn drive<C>(&mut self, mut connection: Pin<&mut C>, leave: impl Fn(Pin<&mut C>)) -> Turn
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let peer = self.peer;
        loop {
            let pace = self.watch.pace.clone();
            let (mut turn, bell) = (pin!(self.turn()), Bell::rung());
            let next = poll_fn(|cx| match connection.as_mut().poll(cx) {
                Poll::Ready(ended) => {
                    tell(peer, ended);
                    Poll::Ready(Turn::Over)
                }
                // For most of what a connection does there is no reason: 800 instructions, twice for a request (callgrind).
                Poll::Pending => bell.poll(cx, pace.is_due_earlier(), |cx| turn.as_mut().poll(cx)),
            });
            match next.await {
                Turn::Leave => leave(connection.as_mut()),
                over => return over,
            }
        }
    }

    /// What is to be done next. To be polled after the connection, whose work changes when that is.
    async fn turn(&mut self) -> Turn {
        tokio::select! {
            biased;
            overdue = &mut self.watch => match overdue {
                Overdue::Quiet => Turn::Rest,
                Overdue::Idle if !self.watch.tell_to_end() => {
                    self.leaving = true;
                    Turn::Leave
                }
                _ => {
                    tracing::debug!(target: "cloakroom::listener", peer = %self.peer, ?overdue, "a connection is too slow");
                    Turn::Over
                }
            },
            () = self.due.as_mut(), if !self.leaving => {
                self.watch.tell_to_end();
                self.leaving = true;
                Turn::Leave
            }
            () = self.cut.cancelled() => Turn::Over,
        }
    }
}

fn tell(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(target: "cloakroom::listener", %peer, %error, "a connection broke");
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
