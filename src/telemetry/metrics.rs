//! Figures for Prometheus, named in one place.

mod label;
mod route;
mod text;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::logs;

pub use label::{Ended, Op, RateLimited, Reason, Reload, Reloads, SinkName, StoreOp, WriteBack};
pub use route::RouteFigures;
pub use text::Exposition;

/// From a sidecar's own share to one that asks a slow store, in seconds.
const SHARES: [f64; 16] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// From a cached answer to a language model that thinks for minutes, in seconds.
const DURATIONS: [f64; 18] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];
/// Where requests stand that no route took.
const NO_ROUTE: &str = "none";

/// All of cloakroom's figures. Label values come from the configuration and from closed lists, never from a client.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    figures: Arc<Figures>,
    registry: Registry,
    unrouted: RouteFigures,
}

#[derive(Debug)]
pub struct Figures {
    requests: Family<label::Request, Counter>,
    request_duration: Family<label::Route, Histogram, fn() -> Histogram>,
    overhead_duration: Family<label::Route, Histogram, fn() -> Histogram>,
    upstream_duration: Family<label::Route, Histogram, fn() -> Histogram>,
    write_backs: Family<label::WriteBacks, Counter>,
    store_duration: Family<Op, Histogram, fn() -> Histogram>,
    store_errors: Family<Op, Counter>,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub touches: Counter,
    pub rate_limited: Family<RateLimited, Counter>,
    pub credentials_rejected: Family<Reason, Counter>,
    pub sessions_started: Counter,
    pub sessions_ended: Counter,
    pub sessions_revoked: Counter,
    pub rotations_ignored: Counter,
    pub values_damaged: Counter,
    pub active_requests: Gauge,
    pub active_streams: Gauge,
    pub store_damaged: Counter,
    pub store_unreplicated: Counter,
    pub audit_records: Counter,
    pub audit_attempts: Counter,
    pub audit_dropped: Family<SinkName, Counter>,
    pub spans_exported: Counter,
    pub spans_dropped: Counter,
    pub config_reloads: Family<Reloads, Counter>,
    /// 1 while the file on disk is the one that holds, or would.
    pub config_valid: Gauge,
}

/// What one kind of question to the store has cost so far.
#[derive(Debug, Clone)]
pub struct StoreFigures {
    pub duration: Histogram,
    pub errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Metrics {
    type Target = Figures;
    fn deref(&self) -> &Figures {
        &self.0.figures
    }
}

fn share() -> Histogram {
    Histogram::new(SHARES)
}

fn duration() -> Histogram {
    Histogram::new(DURATIONS)
}

impl Metrics {
    pub fn new() -> Self {
        let figures = Arc::new(Figures::new());
        let mut registry = Registry::with_prefix("cloakroom");
        figures.register_traffic(&mut registry);
        figures.register_sessions(&mut registry);
        figures.register_process(&mut registry);
        let unrouted = RouteFigures::new(figures.clone(), &NO_ROUTE.into(), "");
        Self(Arc::new(Shared { figures, registry, unrouted }))
    }

    /// The figures of requests that no route took.
    pub fn unrouted(&self) -> &RouteFigures {
        &self.0.unrouted
    }

    /// The figures of a route, which are the same for as long as the process runs, whatever becomes of the route.
    pub fn route(&self, name: &Arc<str>, pattern: &str) -> Arc<RouteFigures> {
        Arc::new(RouteFigures::new(self.0.figures.clone(), name, pattern))
    }

    /// The figures of each kind of question to the store, in the order of [`StoreOp::ALL`].
    pub fn store(&self) -> Vec<StoreFigures> {
        let of = |op: &StoreOp| StoreFigures {
            duration: self.store_duration.get_or_create_owned(&Op { op: *op }),
            errors: self.store_errors.get_or_create_owned(&Op { op: *op }),
        };
        StoreOp::ALL.iter().map(of).collect()
    }

    /// Counts what became of a new configuration, and says whether the file on disk is a good one.
    pub fn reloaded(&self, outcome: Reload) {
        self.config_reloads.get_or_create(&Reloads { outcome }).inc();
        self.config_valid.set(i64::from(outcome != Reload::Refused));
    }

    /// The text that is scraped.
    pub fn encode(&self, form: Exposition) -> Option<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry).ok()?;
        Some(form.write(text))
    }
}

impl Figures {
    fn new() -> Self {
        let figures = Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(duration),
            overhead_duration: Family::new_with_constructor(share),
            upstream_duration: Family::new_with_constructor(duration),
            write_backs: Family::default(),
            store_duration: Family::new_with_constructor(share),
            store_errors: Family::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            touches: Counter::default(),
            rate_limited: Family::default(),
            credentials_rejected: Family::default(),
            sessions_started: Counter::default(),
            sessions_ended: Counter::default(),
            sessions_revoked: Counter::default(),
            rotations_ignored: Counter::default(),
            values_damaged: Counter::default(),
            active_requests: Gauge::default(),
            active_streams: Gauge::default(),
            store_damaged: Counter::default(),
            store_unreplicated: Counter::default(),
            audit_records: Counter::default(),
            audit_attempts: Counter::default(),
            audit_dropped: Family::default(),
            spans_exported: Counter::default(),
            spans_dropped: Counter::default(),
            config_reloads: Family::default(),
            config_valid: Gauge::default(),
        };
        // What never happened is zero rather than absent, so that an alert sees the first time.
        for outcome in Reload::ALL {
            drop(figures.config_reloads.get_or_create_owned(&Reloads { outcome: *outcome }));
        }
        figures
    }

    fn register_traffic(&self, r: &mut Registry) {
        r.register("requests", "Exchanges that ended, by route, status and how they ended", self.requests.clone());
        let timed = [
            ("request_duration", "From the request's head to the end of the response", &self.request_duration),
            ("overhead_duration", "Of that, cloakroom's own: no wait for backend or client", &self.overhead_duration),
            ("upstream_duration", "From forwarding to the head of the backend's response", &self.upstream_duration),
        ];
        for (name, help, family) in timed {
            r.register_with_unit(name, help, Unit::Seconds, family.clone());
        }
        r.register("active_requests", "Exchanges in flight", self.active_requests.clone());
        r.register("active_streams", "Exchanges whose response is being passed on", self.active_streams.clone());
        r.register("rate_limited", "Requests over a limit, by whose", self.rate_limited.clone());
        r.register("credentials_rejected", "Credentials that proved nothing", self.credentials_rejected.clone());
    }

    fn register_sessions(&self, r: &mut Registry) {
        r.register(
            "write_backs",
            "What backends asked to have written, by what became of it",
            self.write_backs.clone(),
        );
        r.register("touches", "Idle expiries that were slid", self.touches.clone());
        r.register("sessions_started", "Sessions that were made, by whomever", self.sessions_started.clone());
        r.register("sessions_ended", "Sessions that backends ended", self.sessions_ended.clone());
        r.register("sessions_revoked", "Sessions that were revoked, by anyone else", self.sessions_revoked.clone());
        r.register(
            "rotations_ignored",
            "Rotations passed over because the request had not come with the current secret",
            self.rotations_ignored.clone(),
        );
        r.register("values_damaged", "Stored values found that cannot be shown", self.values_damaged.clone());
        let timed = "How long the store took, by what it was asked for";
        r.register_with_unit("store_duration", timed, Unit::Seconds, self.store_duration.clone());
        r.register("store_errors", "Questions that the store did not answer", self.store_errors.clone());
        r.register("cache_hits", "Loads that were answered without asking the store", self.cache_hits.clone());
        r.register("cache_misses", "Loads that asked the store", self.cache_misses.clone());
        r.register(
            "store_damaged",
            "Keys of the store under which something else stood than a session",
            self.store_damaged.clone(),
        );
        r.register(
            "store_unreplicated",
            "Changes that fewer replicas had in time than store.durability asks for",
            self.store_unreplicated.clone(),
        );
        r.register("audit_records", "Audit records that were committed", self.audit_records.clone());
        r.register("audit_attempts", "Attempts that wrote nothing, told to the sinks", self.audit_attempts.clone());
        r.register("audit_dropped", "Copies of audit records that a sink lost", self.audit_dropped.clone());
    }

    fn register_process(&self, r: &mut Registry) {
        r.register("config_reloads", "New configurations, by what became of them", self.config_reloads.clone());
        r.register("config_valid", "Whether the configuration on disk is a good one", self.config_valid.clone());
        r.register("trace_spans_exported", "Spans that the collector took", self.spans_exported.clone());
        r.register("trace_spans_dropped", "Spans that were lost on the way to it", self.spans_dropped.clone());
        r.register("log_lines_dropped", "Log lines that their reader was too slow for", logs::Dropped);
        r.register("build", "What is running", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    }
}
