//! Forwards requests to backends, over connections that are kept.

mod body;
mod circuit;
mod fault;
mod http1;
mod origin;
mod pool;
mod reply;
mod retry;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use http::response;

use crate::config::{self, Problems};
use crate::route::RouteIndex;

use body::Patience;
pub use body::{Onward, Outgoing, Sent};
use fault::Fault;
use origin::{Key, Origin};
use pool::Pool;
pub use reply::Reply;

/// The largest head that a backend may answer with, write-back included.
const RESPONSE_HEAD_BYTES: usize = 128 << 10;
/// How long the rest of a request may still go out once its response is over.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// The backends, by route.
pub struct Upstreams {
    routes: Vec<Upstream>,
    pools: Vec<Arc<Pool>>,
}

struct Upstream {
    pool: Arc<Pool>,
    connect: Duration,
    patience: Patience,
}

/// A backend's answer: its head, the rest of it to come, and how far the request has come.
#[derive(Debug)]
pub struct Answer {
    pub head: response::Parts,
    pub reply: Reply,
    pub sent: Sent,
}

/// Why a backend did not answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
    #[error("the connection broke before the response: {0}")]
    Broken(Fault),
    #[error("the backend changed the protocol unasked")]
    Unasked,
    #[error("no response head in time")]
    ResponseTimeout,
    #[error("the backend took nothing more of the request")]
    Unread,
    #[error("nothing more came of the request")]
    Unsent,
    #[error("the backend takes no connections")]
    Down(Duration),
}

impl Upstreams {
    /// Compiles the backends of all routes, noting every problem; none if there was an error. Those that `before` had
    /// already keep their connections.
    pub fn compile(routes: &[config::Route], before: Option<&Self>, problems: &mut Problems) -> Option<Self> {
        let mut pools: Vec<Arc<Pool>> = Vec::new();
        let mut upstreams = Vec::with_capacity(routes.len());
        let kept = before.map_or(&[][..], |before| &before.pools);
        for (at, route) in routes.iter().enumerate() {
            let key = Key::of(route);
            let known = pools.iter().find(|pool| pool.origin.key == key).cloned();
            let opened = known.or_else(|| {
                let kept = kept.iter().find(|kept| kept.origin.key == key).cloned();
                let open = || Some(Arc::new(Pool::new(Origin::open(key, &format!("/routes/{at}"), problems)?)));
                let pool = kept.or_else(open)?;
                pools.push(pool.clone());
                Some(pool)
            });
            opened.iter().for_each(|pool| pool.keep_up_to(route.limits.concurrency));
            let timeouts = &route.timeouts;
            let upstream = |pool| Upstream {
                pool,
                connect: timeouts.connect.0,
                patience: Patience { idle: timeouts.idle.0, response: timeouts.response.0 },
            };
            upstreams.push(opened.map(upstream));
        }
        Some(Self { routes: upstreams.into_iter().collect::<Option<_>>()?, pools })
    }

    /// Sends a request and waits for the head of its response: for as long as it makes progress, and once it was sent
    /// whole, for as long as the route gives its backend.
    ///
    /// The request is taken out of its place when it is sent; without one there is nothing to answer.
    pub async fn forward(&self, route: RouteIndex, request: &mut Option<Box<Onward>>) -> Result<Answer, UpstreamError> {
        let Some(upstream) = self.routes.get(route.position()) else { return Err(UpstreamError::ConnectTimeout) };
        upstream.exchange(request).await
    }

    /// The host and port of a route's backend.
    pub fn authority(&self, route: RouteIndex) -> &str {
        self.routes.get(route.position()).map_or("", |upstream| &upstream.pool.origin.authority)
    }

    /// The backends that take no connections.
    pub fn down(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().filter(|pool| pool.circuit.is_open()).map(|pool| pool.origin.authority.as_str())
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self) {
        self.pools.iter().for_each(|pool| pool.sweep());
    }
}
