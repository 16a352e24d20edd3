//! The rooms of one configuration.

use std::sync::Arc;

use http::Method;
use http::request::Parts;

use crate::config::{self, Problems};
use crate::context::Context;
use crate::identity::{Failures, Origins, Verifier};
use crate::limit::Limiter;
use crate::peer::TrustedProxies;
use crate::route::{Malformed, Route, RouteError, Table};
use crate::session::Schema;
use crate::upstream::Upstreams;
use crate::writeback::Permissions;

use super::policy::{Policies, preflight};

/// The rooms, compiled from one configuration.
pub struct Rooms {
    pub table: Table,
    pub context: Arc<Context>,
    pub verifier: Verifier,
    pub failures: Option<Arc<Failures>>,
    pub origins: Origins,
    pub limiter: Limiter,
    pub permissions: Permissions,
    pub policies: Policies,
    pub upstreams: Upstreams,
    pub trusted: TrustedProxies,
}

impl Rooms {
    /// Compiles every room's part of the configuration, noting every problem; none if there was an error.
    pub fn compile(config: &config::Config, problems: &mut Problems) -> Option<(Self, Arc<Schema>)> {
        Self::compile_after(config, None, problems)
    }

    /// The same for a configuration that follows another: what has counted, is open or was fetched under the one
    /// before is kept where nothing that it rests on has changed.
    pub fn compile_after(
        config: &config::Config,
        before: Option<&Self>,
        problems: &mut Problems,
    ) -> Option<(Self, Arc<Schema>)> {
        let mut own = Problems::default();
        let table = Table::compile(&config.routes, &mut own);
        let schema = Schema::compile(&config.session, &mut own).map(Arc::new);
        let rest = schema.as_ref().and_then(|schema| {
            let context = Context::compile(config, schema.clone(), &mut own)?;
            let permissions = Permissions::compile(&config.routes, schema, &mut own);
            let policies = Policies::compile(&config.routes, schema, &mut own);
            for (at, caller) in config.admin.callers.iter().enumerate() {
                schema.select(&caller.resolve, &format!("/admin/callers/{at}/resolve"), &mut own);
            }
            Some((context, permissions, policies))
        });
        let verifier = Verifier::compile(config, before.map(|rooms| &rooms.verifier), &mut own);
        let upstreams = Upstreams::compile(&config.routes, before.map(|rooms| &rooms.upstreams), &mut own);
        let sound = !own.has_errors();
        problems.append(own);
        let ((context, permissions, policies), upstreams) = rest.zip(upstreams).filter(|_| sound)?;
        let rooms = Self {
            table,
            context: Arc::new(context),
            verifier,
            failures: config.identity.bad_credentials.as_ref().map(|bound| {
                let kept = before.and_then(|rooms| rooms.failures.clone()).filter(|failures| failures.has(bound));
                kept.unwrap_or_else(|| Arc::new(Failures::new(bound)))
            }),
            origins: Origins::new(&config.origins),
            limiter: Limiter::new(&config.routes, config.store.timeout.0, before.map(|rooms| &rooms.limiter)),
            permissions,
            policies,
            upstreams,
            trusted: TrustedProxies::new(config.trusted_proxies.clone()),
        };
        Some((rooms, schema?))
    }

    /// The route that takes a request; a preflight is routed by the method that it asks for.
    pub fn route(&self, head: &Parts, fragment: bool) -> Result<&Arc<Route>, RouteError> {
        if fragment {
            return Err(Malformed::Path.into());
        }
        // What it reflects would be the context.
        if head.method == Method::TRACE {
            return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, POST, OPTIONS".into() });
        }
        match preflight(head) {
            Some(method) => self.table.select_as(head, &method),
            None => self.table.select(head),
        }
    }

    /// Forgets what has been idle for too long.
    pub fn sweep(&self) {
        self.upstreams.sweep();
    }
}
