//! What the corridor itself knows of each route.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::request::Parts;

use crate::config::{self, OnReject, OnRevoke, Problems, SessionUse, Touch};
use crate::headers;
use crate::route::Route;
use crate::session::{Requirements, Schema};
use crate::telemetry::{Metrics, RouteFigures};

/// One policy for each route.
pub struct Policies {
    routes: Vec<Policy>,
    closed: Policy,
}

pub struct Policy {
    pub session: SessionUse,
    pub require: Requirements,
    pub login_url: Option<String>,
    pub touch: Touch,
    pub on_reject: OnReject,
    pub on_revoke: OnRevoke,
    /// Between bytes of the response.
    pub idle: Duration,
    pub body_limit: Option<u64>,
    pub head_limit: usize,
    name: Arc<str>,
    /// The path that it matches.
    pattern: String,
    figures: OnceLock<Arc<RouteFigures>>,
}

impl Policies {
    pub fn compile(routes: &[config::Route], schema: &Schema, problems: &mut Problems) -> Self {
        let compiled = (0..).zip(routes).map(|(at, route)| Policy {
            session: route.session,
            require: Requirements::compile(at, route, schema, problems),
            login_url: route.login_url.clone(),
            touch: route.touch,
            on_reject: route.on_reject,
            on_revoke: route.on_revoke,
            idle: route.timeouts.idle.0,
            body_limit: route.limits.body.map(|size| size.0),
            head_limit: route.limits.head.bytes(),
            name: route.name.as_str().into(),
            pattern: route.matches.path.clone().unwrap_or_else(|| "/".into()),
            figures: OnceLock::new(),
        });
        Self { routes: compiled.collect(), closed: Policy::closed() }
    }

    /// Looks up every route's figures, so that they are there before the first request, and no request looks.
    pub fn count_in(&self, metrics: &Metrics) {
        self.routes.iter().for_each(|policy| drop(policy.figures(metrics).clone()));
    }

    /// The policy of a route of the same configuration; of any other, the one that lets nothing through.
    pub fn of(&self, route: &Route) -> &Policy {
        self.routes.get(route.index.position()).unwrap_or(&self.closed)
    }
}

impl Policy {
    pub fn figures(&self, metrics: &Metrics) -> &Arc<RouteFigures> {
        self.figures.get_or_init(|| metrics.route(&self.name, &self.pattern))
    }

    fn closed() -> Self {
        Self {
            session: SessionUse::Required,
            require: Requirements::default(),
            login_url: None,
            touch: Touch::Never,
            on_reject: OnReject::Fail,
            on_revoke: OnRevoke::Close,
            idle: Duration::ZERO,
            body_limit: Some(0),
            head_limit: 0,
            name: "none".into(),
            pattern: String::new(),
            figures: OnceLock::new(),
        }
    }
}

/// The method that a CORS preflight asks for, if the request is one.
pub fn preflight(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    let method = headers::only(&head.headers, &ACCESS_CONTROL_REQUEST_METHOD).ok().flatten()?;
    Method::from_bytes(method.as_bytes()).ok()
}
