//! Connections to one backend, kept between requests or shared by them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use futures_util::task::noop_waker_ref;
use http::response::Parts;
use hyper::body::Incoming;

use super::UpstreamError;
use super::body::{Alarm, Onward, Overdue, Patience, Sent};
use super::circuit::Circuit;
use super::fault::Fault;
use super::http1::Connection;
use super::origin::{Origin, Protocol};
use super::shared::{Shared, Stream, for_http2};

/// For how many sweeps, one each second, an idle connection is kept: shorter than the keep-alive of the servers that
/// agents are written with (Node: 5 s), so that one is seldom used while the backend is closing it.
const IDLE: u64 = 4;

pub struct Pool {
    pub origin: Origin,
    idle: Mutex<Vec<Idle>>,
    /// How many are kept: as many as may be in use at once, or those that find no place are dialled anew for each request
    /// (a tenth of its CPU, at 1,000 connections).
    most_idle: AtomicUsize,
    shared: Mutex<Vec<Shared>>,
    /// Held by whoever makes a connection that others will share.
    dialling: tokio::sync::Mutex<()>,
    /// Whether the last connection could be shared; of some origins it is known only by trying.
    shares: AtomicBool,
    pub circuit: Circuit,
    /// How often what connections rest on has changed.
    age: AtomicU64,
    /// How often it was swept: a clock that costs a request no look at one.
    sweeps: AtomicU64,
}

struct Idle {
    connection: Box<Connection>,
    alarm: Alarm,
    /// The sweep that it is idle since.
    since: u64,
    age: u64,
}

/// A connection in use by one exchange, or a place on one.
pub struct Lease {
    pub place: Place,
    alarm: Alarm,
    pool: Arc<Pool>,
    sent: Sent,
    /// The pool's, when the connection was begun.
    age: u64,
}

pub enum Place {
    Own(Box<Connection>),
    Shared(Stream),
}

/// What a request needs of its connection.
#[derive(Debug, Clone)]
pub struct Need {
    pub sent: Sent,
    /// It may change the protocol, which only HTTP/1.1 can.
    upgrade: bool,
}

impl Need {
    pub fn of(onward: &Onward) -> Self {
        Self { sent: onward.request.body().sent(), upgrade: onward.upgrade }
    }
}

impl Pool {
    pub fn new(origin: Origin) -> Self {
        let shares = AtomicBool::new(origin.protocol() != Some(Protocol::Http1));
        Self {
            origin,
            idle: Mutex::default(),
            most_idle: AtomicUsize::new(0),
            shared: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            shares,
            circuit: Circuit::default(),
            age: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
        }
    }

    /// Keeps so many idle connections, if no route asks for more.
    pub fn keep_up_to(&self, connections: usize) {
        self.most_idle.fetch_max(connections, Ordering::Relaxed);
    }

    fn is_fresh(&self, since: u64) -> bool {
        self.sweeps.load(Ordering::Relaxed).saturating_sub(since) < IDLE
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request with this need goes over a connection that it shares.
    fn may_share(&self, need: &Need) -> bool {
        let agreed = self.origin.protocol().is_none();
        self.shares.load(Ordering::Acquire) && !(need.upgrade && agreed)
    }

    /// A place on a shared connection, or the connection that was used last, if one is fresh and open.
    pub fn take(self: &Arc<Self>, need: &Need) -> Option<Lease> {
        if self.may_share(need)
            && let Some(lease) = self.join(need)
        {
            return Some(lease);
        }
        loop {
            let Idle { mut connection, alarm, since, age } = self.idle().pop()?;
            let may_serve = self.is_fresh(since) && age == self.age();
            // Without being waited for: what its end has said by now is known, and whoever has it listens on.
            if may_serve && connection.is_quiet(&mut Context::from_waker(noop_waker_ref())) {
                return Some(Lease { alarm, ..self.lease(Place::Own(connection), need, age) });
            }
        }
    }

    fn join(self: &Arc<Self>, need: &Need) -> Option<Lease> {
        let stream = self.shared().iter_mut().find_map(Shared::enter)?;
        Some(self.lease(Place::Shared(stream), need, self.age()))
    }

    fn lease(self: &Arc<Self>, place: Place, need: &Need, age: u64) -> Lease {
        Lease { place, alarm: Alarm::default(), pool: self.clone(), sent: need.sent.clone(), age }
    }

    fn age(&self) -> u64 {
        self.age.load(Ordering::Acquire)
    }

    pub async fn connect(self: &Arc<Self>, within: Duration, need: &Need) -> Result<Lease, UpstreamError> {
        let connecting = async {
            if !self.may_share(need) {
                return self.dial(need).await;
            }
            // One at a time: those who wait find a place on what the first has made.
            let dialling = self.dialling.lock().await;
            match self.join(need) {
                Some(lease) => Ok(lease),
                // It turned out to speak what is not shared.
                None if !self.may_share(need) => {
                    drop(dialling);
                    self.dial(need).await
                }
                None => self.dial(need).await,
            }
        };
        tokio::time::timeout(within, connecting).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    async fn dial(self: &Arc<Self>, need: &Need) -> Result<Lease, UpstreamError> {
        // Before the handshake, which rests on what the files hold as it begins.
        let age = self.age();
        let (stream, protocol) = self.origin.dial(need.upgrade).await.map_err(UpstreamError::Connect)?;
        if self.origin.protocol().is_none() && !need.upgrade {
            self.shares.store(protocol == Protocol::Http2, Ordering::Release);
        }
        if protocol == Protocol::Http1 {
            return Ok(self.lease(Place::Own(Box::new(Connection::new(stream))), need, age));
        }
        let mut shared = Shared::open(stream).await.map_err(|error| UpstreamError::Broken(error.into()))?;
        let stream = shared.enter();
        let mut all = self.shared();
        if age == self.age() {
            all.push(shared);
        }
        drop(all);
        stream.map(|stream| self.lease(Place::Shared(stream), need, age)).ok_or(UpstreamError::ConnectTimeout)
    }

    /// Lets go of connections that have been idle for too long, and takes on what has changed in files.
    pub fn sweep(&self) {
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        let mut cx = Context::from_waker(noop_waker_ref());
        self.idle().retain_mut(|idle| self.is_fresh(idle.since) && idle.connection.is_quiet(&mut cx));
        self.shared().retain(Shared::is_of_use);
        if self.origin.look() {
            // What was trusted or shown before is not used any more once what goes over it has ended.
            self.age.fetch_add(1, Ordering::AcqRel);
            self.idle().clear();
            self.shared().clear();
        }
    }
}

/// What came of a request that was sent.
pub enum Outcome {
    /// The head of a response, and its body if it comes over a shared connection.
    Answered(Parts, Option<Incoming>),
    /// With the request, if nothing of it was sent.
    Failed(Fault, Option<Box<Onward>>),
    Overdue(Overdue),
}

impl Lease {
    /// Sends a request, and waits for the head of its response for as long as the patience says.
    pub fn send(&mut self, onward: Box<Onward>, patience: Patience) -> impl Future<Output = Outcome> + Send {
        let answer = match &mut self.place {
            Place::Own(connection) => {
                connection.begin(onward);
                Either::Left(poll_fn(|cx| connection.poll_head(cx).map(answered)))
            }
            // Boxed, so that what goes over HTTP/1.1 has no room for it.
            Place::Shared(stream) => Either::Right(Box::pin(stream.send(for_http2(onward, self.pool.origin.scheme())))),
        };
        bounded(answer, &self.sent, patience, &mut self.alarm)
    }

    /// Has others not wait for a backend that did not answer on this connection.
    pub fn doubt(&self) {
        if let Place::Shared(stream) = &self.place {
            stream.doubt();
        }
    }

    /// Gives the connection back once the response was read to its end.
    ///
    /// One whose request was not sent to its end is closed: the rest of it must not be read as the next request.
    pub fn give_back(self) {
        let Place::Own(mut connection) = self.place else { return };
        let most = self.pool.most_idle.load(Ordering::Relaxed);
        if self.sent.is_complete() && connection.renew() {
            let mut idle = self.pool.idle();
            if self.age == self.pool.age() && idle.len() < most {
                let since = self.pool.sweeps.load(Ordering::Relaxed);
                idle.push(Idle { connection, alarm: self.alarm, since, age: self.age });
            }
        }
    }
}

fn answered(head: Result<Parts, Fault>) -> Outcome {
    head.map_or_else(|fault| Outcome::Failed(fault, None), |head| Outcome::Answered(head, None))
}

fn bounded(
    mut answer: impl Future<Output = Outcome> + Unpin,
    sent: &Sent,
    patience: Patience,
    alarm: &mut Alarm,
) -> impl Future<Output = Outcome> {
    poll_fn(move |cx| match Pin::new(&mut answer).poll(cx) {
        Poll::Pending => sent.poll_overdue(patience, alarm, cx).map(Outcome::Overdue),
        answered => answered,
    })
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("to", &self.pool.origin.authority).finish_non_exhaustive()
    }
}
