//! The admin and status listeners: health, figures, sessions; never reachable through a route.

mod audit;
mod caller;
mod fields;
mod handles;
mod health;
mod input;
mod keys;
mod listener;
mod problem;
mod session;
#[cfg(test)]
mod tests;
mod user;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};

use crate::config;
use crate::drain::Drain;
use crate::identity::SessionCookie;
use crate::readiness::Readiness;
use crate::secret::Secret;
use crate::session::Sessions;
use crate::telemetry::Metrics;

use caller::Caller;
use keys::Sweep;
use problem::{Kind, Problem};

pub use fields::place;
pub use listener::serve;

/// Far more than a session may hold.
const BODY_BYTES: usize = 64 << 10;

/// What admin requests are answered from.
pub struct Admin {
    sessions: Arc<Sessions>,
    metrics: Metrics,
    readiness: Readiness,
    token: Option<Secret>,
    callers: Vec<Arc<Caller>>,
    /// How browsers carry session ids, where they do.
    cookie: Option<SessionCookie>,
    sweep: Sweep,
    drain: Drain,
}

/// What [`Admin::new`] needs beside the configuration.
pub struct Parts {
    pub sessions: Arc<Sessions>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub drain: Drain,
}

impl Admin {
    pub fn new(parts: Parts, config: &config::Config) -> Self {
        let schema = &parts.sessions.schema;
        let callers = config.admin.callers.iter().map(|raw| Arc::new(Caller::compile(raw, schema))).collect();
        let name = config.identity.session_id.cookie.as_ref();
        Self {
            callers,
            token: config.admin.token.clone(),
            cookie: name.map(|name| SessionCookie::new(name, &config.cookie)),
            sessions: parts.sessions,
            metrics: parts.metrics,
            readiness: parts.readiness,
            sweep: Sweep::default(),
            drain: parts.drain,
        }
    }
}

impl Admin {
    /// The same as another configuration has it: its sessions, its tokens; a sweep that runs goes on.
    pub fn under(&self, sessions: Arc<Sessions>, config: &config::Config) -> Self {
        let parts = Parts {
            sessions,
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            drain: self.drain.clone(),
        };
        let mut admin = Self::new(parts, config);
        admin.sweep = self.sweep.clone();
        for caller in &mut admin.callers {
            if let Some(before) = self.callers.iter().find(|before| before.name == caller.name) {
                *caller = Arc::new(caller.counting_on(before));
            }
        }
        admin
    }
}

type Endpoint = (&'static str, MethodRouter<Arc<Admin>>);

fn status_endpoints() -> Vec<Endpoint> {
    vec![("/healthz", get(health::healthz)), ("/readyz", get(health::readyz)), ("/metrics", get(health::metrics))]
}

fn data_endpoints() -> Vec<Endpoint> {
    vec![
        ("/openapi.json", get(health::openapi)),
        ("/v1/sessions", post(session::create)),
        ("/v1/sessions/{handle}", get(session::show).patch(session::patch).delete(session::revoke)),
        ("/v1/sessions/{handle}/audit", get(audit::show)),
        ("/v1/sessions/{handle}/audit/verify", get(audit::verify)),
        ("/v1/users/{user}/sessions", get(user::list).delete(user::revoke_all)),
        ("/v1/revocations", post(user::revoke)),
        ("/v1/handles", post(handles::resolve)),
        ("/v1/keys", get(keys::list)),
        ("/v1/keys/reseal", post(keys::reseal)),
    ]
}

/// Everything: for people and tools on this host.
pub fn admin_router(admin: Arc<Admin>) -> Router {
    router(status_endpoints().into_iter().chain(data_endpoints()), admin)
}

/// Health, readiness and figures only: for the kubelet and Prometheus.
pub fn status_router(admin: Arc<Admin>) -> Router {
    router(status_endpoints(), admin)
}

fn router(endpoints: impl IntoIterator<Item = Endpoint>, admin: Arc<Admin>) -> Router {
    let routed = endpoints.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    routed
        .fallback(async || Problem::new(Kind::NotFound, "There is nothing here; /openapi.json says what there is."))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed, "Allow says what can be done here."))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(map_response(uncached))
        .with_state(admin)
}

/// Nothing of this is anybody's to keep or to guess at.
async fn uncached(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
