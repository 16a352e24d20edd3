//! The one record of an exchange: opened with its head, closed when its body ends or the client vanishes.

mod line;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode, Version};

use crate::handle::Handle;
use crate::headers;

use super::change;
use super::metrics::{Ended, Metrics, RouteFigures, WriteBack};
use super::trace::{Ending, Place, Spans};
use line::Line;

/// What is known of an exchange so far. Leaves a log line and the figures when it is dropped.
pub struct Record {
    metrics: Metrics,
    started: Instant,
    method: Method,
    protocol: &'static str,
    figures: Option<Arc<RouteFigures>>,
    status: Option<StatusCode>,
    problem: Option<&'static str>,
    session: Option<Handle>,
    cache_hit: Option<bool>,
    revision_read: Option<u64>,
    revision_written: Option<u64>,
    write_back: Option<WriteBack>,
    request_id: Option<Arc<str>>,
    traceparent: Option<Arc<str>>,
    received: Option<Arc<dyn Tally>>,
    bytes_sent: u64,
    own: Own,
    upstream: Option<Upstream>,
    complete: bool,
    streaming: bool,
    secure: bool,
    backend_status: Option<StatusCode>,
    spans: Option<Box<Spans>>,
}

/// What knows how many bytes have come so far.
pub trait Tally: Send + Sync {
    fn bytes(&self) -> u64;
}

#[derive(Clone, Copy)]
struct Upstream {
    forwarded: Instant,
    waited: Option<Duration>,
}

/// cloakroom's own time: a stopwatch that stands still while backend or client are waited for.
struct Own {
    so_far: Duration,
    since: Option<Instant>,
}

impl Own {
    fn stop(&mut self, now: Instant) {
        self.so_far += self.since.take().map_or(Duration::ZERO, |since| now - since);
    }

    fn go_on(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }
}

impl Record {
    pub fn open(metrics: Metrics, method: Method, version: Version) -> Self {
        metrics.active_requests.inc();
        let started = Instant::now();
        Self {
            metrics,
            started,
            method,
            protocol: protocol(version),
            figures: None,
            status: None,
            problem: None,
            session: None,
            cache_hit: None,
            revision_read: None,
            revision_written: None,
            write_back: None,
            request_id: None,
            traceparent: None,
            received: None,
            bytes_sent: 0,
            own: Own { so_far: Duration::ZERO, since: Some(started) },
            upstream: None,
            complete: false,
            streaming: false,
            secure: false,
            backend_status: None,
            spans: None,
        }
    }

    /// The exchange's spans, if any are recorded of it.
    pub fn traced(&mut self, spans: Option<Spans>, secure: bool) {
        self.spans = spans.map(Box::new);
        self.secure = secure;
    }

    /// Where the spans of what is done for this exchange belong.
    pub fn place(&self) -> Option<Place> {
        self.spans.as_ref().map(|spans| spans.place())
    }

    /// By which names the exchange goes.
    pub fn named(&mut self, request_id: &Arc<str>, traceparent: &Arc<str>) {
        self.request_id = Some(request_id.clone());
        self.traceparent = Some(traceparent.clone());
    }

    pub fn routed(&mut self, figures: &Arc<RouteFigures>) {
        self.figures = Some(figures.clone());
    }

    pub fn loaded(&mut self, session: Handle, revision: u64, cache_hit: bool) {
        self.session = Some(session);
        self.revision_read = Some(revision);
        self.cache_hit = Some(cache_hit);
    }

    /// The request goes to the backend, and so does its body, as far as it comes.
    pub fn forwarded(&mut self, body: Arc<dyn Tally>, now: Instant, authority: &str) {
        self.own.stop(now);
        if let Some(spans) = &mut self.spans {
            spans.forwarded(authority);
        }
        self.received = Some(body);
        self.upstream = Some(Upstream { forwarded: now, waited: None });
    }

    /// The backend's head came, or will not.
    pub fn answered(&mut self, status: Option<StatusCode>) {
        let now = Instant::now();
        self.backend_status = status;
        if let Some(upstream) = &mut self.upstream {
            upstream.waited = Some(now - upstream.forwarded);
        }
        self.own.go_on(now);
    }

    pub fn wrote_back(&mut self, outcome: WriteBack, revision: Option<u64>) {
        self.write_back = Some(outcome);
        self.revision_written = revision.or(self.revision_written);
    }

    pub fn refused(&mut self, problem: &'static str) {
        self.problem = Some(problem);
    }

    /// From here on, whatever takes time is the backend's sending and the client's reading.
    pub fn responding(&mut self, status: StatusCode) {
        self.own.stop(Instant::now());
        self.status = Some(status);
        self.streaming = true;
        self.metrics.active_streams.inc();
    }

    /// The stream waits for cloakroom itself: what stands in its trailers is being written.
    pub fn busy(&mut self) {
        self.own.go_on(Instant::now());
    }

    pub fn idle(&mut self) {
        self.own.stop(Instant::now());
    }

    pub fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// The body came to its end.
    pub fn completed(&mut self) {
        self.complete = true;
    }

    fn outcome(&self) -> Ended {
        match (self.problem, self.complete) {
            (Some(_), _) => Ended::Refused,
            (None, true) => Ended::Passed,
            (None, false) => Ended::Aborted,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.own.stop(now);
        let waited = self.upstream.map(|upstream| upstream.waited.unwrap_or_else(|| now - upstream.forwarded));
        let last = Last { total: now - self.started, waited, outcome: self.outcome() };
        self.count(&last);
        self.log(&last);
        if let Some(spans) = self.spans.take() {
            spans.end(&self.ending(&last));
        }
    }
}

/// What is known only at the end.
struct Last {
    total: Duration,
    /// Until the backend's head came.
    waited: Option<Duration>,
    outcome: Ended,
}

impl Record {
    fn figures(&self) -> &RouteFigures {
        self.figures.as_deref().unwrap_or(self.metrics.unrouted())
    }

    fn code(&self) -> u16 {
        self.status.map_or(0, |status| status.as_u16())
    }

    fn count(&self, last: &Last) {
        let figures = self.figures();
        figures.request_duration.observe(last.total.as_secs_f64());
        figures.overhead_duration.observe(self.own.so_far.as_secs_f64());
        if let Some(waited) = last.waited {
            figures.upstream_duration.observe(waited.as_secs_f64());
        }
        figures.ended(self.code(), last.outcome);
        // At last, so that whoever sees nothing in flight sees everything counted.
        if self.streaming {
            self.metrics.active_streams.dec();
        }
        self.metrics.active_requests.dec();
    }

    fn ending(&self, last: &Last) -> Ending<'_> {
        Ending {
            method: &self.method,
            protocol: self.protocol,
            secure: self.secure,
            route: self.figures.as_ref().map(|figures| (&*figures.route, &*figures.pattern)),
            status: self.status,
            backend_status: self.backend_status,
            outcome: last.outcome.name(),
            problem: self.problem,
            session: self.session.map(|session| session.to_string()),
            revisions: (self.revision_read, self.revision_written),
            write_back: self.write_back.map(WriteBack::name),
            cache_hit: self.cache_hit,
        }
    }

    fn log(&self, last: &Last) {
        if !tracing::enabled!(target: line::TARGET, tracing::Level::INFO) {
            return;
        }
        let line = self.line(last);
        match change::json_lines() {
            Some(lines) => line.add_to(lines),
            None => line.event(),
        }
    }

    fn line(&self, last: &Last) -> Line<'_> {
        Line {
            time: SystemTime::now(),
            method: method(&self.method),
            route: &self.figures().route,
            status: self.code(),
            outcome: last.outcome.name(),
            problem: self.problem,
            protocol: self.protocol,
            session: self.session,
            revision_read: self.revision_read,
            revision_written: self.revision_written,
            write_back: self.write_back.map(WriteBack::name),
            cache_hit: self.cache_hit,
            bytes_received: self.received.as_ref().map_or(0, |body| body.bytes()),
            bytes_sent: self.bytes_sent,
            total_us: micros(last.total),
            overhead_us: micros(self.own.so_far),
            upstream_us: last.waited.map(micros),
            request_id: self.request_id.as_deref(),
            trace_id: self.traceparent.as_deref().map(headers::trace_id),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "http/1.0",
        Version::HTTP_2 => "http/2",
        Version::HTTP_3 => "http/3",
        _ => "http/1.1",
    }
}

/// A method that is none of the known ones is not repeated: it may be anything.
pub(super) fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "PATCH" => "PATCH",
        "QUERY" => "QUERY",
        _ => "_OTHER",
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}
