//! Forwards requests to backends, over connections that are kept.

mod body;
mod pool;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::config;
use crate::route::RouteIndex;

pub use body::{Outgoing, Sent};
pub use pool::Lease;
use pool::Pool;

/// The backends, by route.
pub struct Upstreams {
    routes: Vec<Upstream>,
    pools: Vec<Arc<Pool>>,
}

struct Upstream {
    pool: Arc<Pool>,
    connect: Duration,
    response: Duration,
}

/// A backend's answer: its head, its body to come, and the connection that it comes over.
#[derive(Debug)]
pub struct Answer {
    pub response: Response<Incoming>,
    pub lease: Lease,
}

/// Why a backend did not answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("could not connect: {0}")]
    Connect(std::io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
    #[error("the connection broke before the response: {0}")]
    Broken(hyper::Error),
    #[error("the backend changed the protocol unasked")]
    Unasked,
    #[error("no response head in time")]
    ResponseTimeout,
}

impl Upstreams {
    /// The backends of these routes; those that `before` had already keep their connections.
    pub fn new(routes: &[config::Route], before: Option<&Self>) -> Self {
        let mut pools: Vec<Arc<Pool>> = Vec::new();
        let kept = before.map_or(&[][..], |before| &before.pools);
        let upstreams = routes.iter().map(|route| {
            let authority = route.upstream.strip_prefix("http://").unwrap_or(&route.upstream);
            let pool = Pool::new(authority);
            let known = pools.iter().find(|known| known.authority() == pool.authority()).cloned();
            let pool = known.unwrap_or_else(|| {
                let kept = kept.iter().find(|kept| kept.authority() == pool.authority()).cloned();
                let pool = kept.unwrap_or_else(|| Arc::new(pool));
                pools.push(pool.clone());
                pool
            });
            Upstream { pool, connect: route.timeouts.connect.0, response: route.timeouts.response.0 }
        });
        Self { routes: upstreams.collect(), pools }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// A request that a kept connection did not take, because the backend had closed it, is sent once more over a
    /// new one: not a byte of it had left. Nothing else is ever repeated.
    pub async fn forward(&self, route: RouteIndex, request: Request<Outgoing>) -> Result<Answer, UpstreamError> {
        let Some(upstream) = self.routes.get(route.position()) else { return Err(UpstreamError::ConnectTimeout) };
        let answer = upstream.exchange(request);
        tokio::time::timeout(upstream.response, answer).await.unwrap_or(Err(UpstreamError::ResponseTimeout))
    }

    /// The host and port of a route's backend.
    pub fn authority(&self, route: RouteIndex) -> &str {
        self.routes.get(route.position()).map_or("", |upstream| upstream.pool.authority())
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self) {
        self.pools.iter().for_each(|pool| pool.sweep());
    }
}

impl Upstream {
    async fn exchange(&self, mut request: Request<Outgoing>) -> Result<Answer, UpstreamError> {
        let sent = request.body().sent();
        while let Some(mut lease) = self.pool.take(sent.clone()).await {
            match lease.send(request).await {
                Ok(response) => return Ok(Answer { response, lease }),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Broken(failed.into_error())),
                },
            }
        }
        let mut lease = self.pool.connect(self.connect, sent).await?;
        match lease.send(request).await {
            Ok(response) => Ok(Answer { response, lease }),
            Err(failed) => Err(UpstreamError::Broken(failed.into_error())),
        }
    }
}
