//! The one record of an exchange: opened with its head, closed when its body ends or the client vanishes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::handle::Handle;

use super::metrics::{self, Metrics, WriteBack};

/// Where requests stand that no route took.
const NO_ROUTE: &str = "none";

/// What is known of an exchange so far. Leaves a log line and the figures when it is dropped.
pub struct Record {
    metrics: Metrics,
    started: Instant,
    method: Method,
    route: Option<Arc<str>>,
    status: Option<StatusCode>,
    problem: Option<&'static str>,
    session: Option<Handle>,
    revision_read: Option<u64>,
    revision_written: Option<u64>,
    write_back: Option<WriteBack>,
    request_id: Option<Arc<str>>,
    trace_id: Option<String>,
    bytes_sent: u64,
    upstream: Option<Upstream>,
    complete: bool,
    streaming: bool,
}

#[derive(Clone, Copy)]
struct Upstream {
    forwarded: Instant,
    waited: Option<Duration>,
}

impl Record {
    pub fn open(metrics: Metrics, method: Method) -> Self {
        metrics.active_requests.inc();
        Self {
            metrics,
            started: Instant::now(),
            method,
            route: None,
            status: None,
            problem: None,
            session: None,
            revision_read: None,
            revision_written: None,
            write_back: None,
            request_id: None,
            trace_id: None,
            bytes_sent: 0,
            upstream: None,
            complete: false,
            streaming: false,
        }
    }

    pub fn named(&mut self, request_id: &Arc<str>, trace_id: &str) {
        self.request_id = Some(request_id.clone());
        self.trace_id = Some(trace_id.to_owned());
    }

    pub fn routed(&mut self, route: &Arc<str>) {
        self.route = Some(route.clone());
    }

    pub fn loaded(&mut self, session: Handle, revision: u64) {
        self.session = Some(session);
        self.revision_read = Some(revision);
    }

    pub fn forwarded(&mut self) {
        self.upstream = Some(Upstream { forwarded: Instant::now(), waited: None });
    }

    /// The backend's head came, or will not.
    pub fn answered(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.waited = Some(upstream.forwarded.elapsed());
        }
    }

    pub fn wrote_back(&mut self, outcome: WriteBack, revision: Option<u64>) {
        self.write_back = Some(outcome);
        self.revision_written = revision.or(self.revision_written);
    }

    pub fn refused(&mut self, problem: &'static str) {
        self.problem = Some(problem);
    }

    pub fn responding(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.streaming = true;
        self.metrics.active_streams.inc();
    }

    pub fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// The body came to its end.
    pub fn completed(&mut self) {
        self.complete = true;
    }

    fn route(&self) -> Arc<str> {
        self.route.clone().unwrap_or_else(|| NO_ROUTE.into())
    }

    fn outcome(&self) -> &'static str {
        match (self.problem, self.complete) {
            (Some(_), _) => "refused",
            (None, true) => "passed",
            (None, false) => "aborted",
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.active_requests.dec();
        if self.streaming {
            self.metrics.active_streams.dec();
        }
        let total = self.started.elapsed();
        let waited = self.upstream.map(|upstream| upstream.waited.unwrap_or_else(|| upstream.forwarded.elapsed()));
        let overhead = self.problem.is_some() || self.upstream.is_some();
        let own = overhead.then(|| self.own_time(total, waited));
        let route = self.route();
        let code = self.status.map_or(0, |status| status.as_u16());
        let outcome = self.outcome();
        self.metrics.requests.get_or_create(&metrics::Request { route: route.clone(), code, outcome }).inc();
        let label = metrics::Route { route: route.clone() };
        self.metrics.request_duration.get_or_create(&label).observe(total.as_secs_f64());
        if let Some(own) = own {
            self.metrics.overhead_duration.get_or_create(&label).observe(own.as_secs_f64());
        }
        if let Some(waited) = waited {
            self.metrics.upstream_duration.get_or_create(&label).observe(waited.as_secs_f64());
        }
        tracing::info!(
            target: "cloakroom::access",
            method = self.method.as_str(),
            route = &*route,
            status = code,
            outcome,
            problem = self.problem,
            session = self.session.map(tracing::field::display),
            revision_read = self.revision_read,
            revision_written = self.revision_written,
            write_back = self.write_back.map(WriteBack::name),
            bytes_sent = self.bytes_sent,
            total_us = total.as_micros() as u64,
            upstream_us = waited.map(|waited| waited.as_micros() as u64),
            request_id = self.request_id.as_deref(),
            trace_id = self.trace_id.as_deref(),
        );
    }
}

impl Record {
    /// What was not waiting for the backend: up to its head; the body is passed on at the backend's own pace.
    fn own_time(&self, total: Duration, waited: Option<Duration>) -> Duration {
        match (self.upstream, waited) {
            (Some(upstream), Some(_)) => upstream.forwarded.duration_since(self.started),
            _ => total,
        }
    }
}
