//! Figures for Prometheus, named in one place.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// From a sidecar's share to a language model's minutes, in seconds.
const BUCKETS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// All of cloakroom's figures. Label values come from the configuration and from closed lists, never from a client.
#[derive(Clone)]
pub struct Metrics(Arc<Figures>);

pub struct Figures {
    registry: Registry,
    pub requests: Family<Request, Counter>,
    pub request_duration: Family<Route, Histogram>,
    pub overhead_duration: Family<Route, Histogram>,
    pub upstream_duration: Family<Route, Histogram>,
    pub write_backs: Family<WriteBacks, Counter>,
    pub touches: Counter,
    pub rate_limited: Family<RateLimited, Counter>,
    pub credentials_rejected: Family<Reason, Counter>,
    pub sessions_started: Counter,
    pub sessions_ended: Counter,
    pub sessions_revoked: Counter,
    pub rotations_ignored: Counter,
    pub active_requests: Gauge,
    pub active_streams: Gauge<i64>,
    pub store_damaged: Counter,
    pub store_unreplicated: Counter,
    pub audit_records: Counter,
    pub audit_dropped: Family<SinkName, Counter>,
    pub config_reloads: Family<Reloads, Counter>,
    pub config_valid: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    pub route: Arc<str>,
    pub code: u16,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Route {
    pub route: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteBacks {
    pub route: Arc<str>,
    pub outcome: WriteBack,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RateLimited {
    pub route: Arc<str>,
    pub per: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SinkName {
    pub sink: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reloads {
    pub outcome: &'static str,
}

/// What became of a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    Applied,
    /// It is the one that holds already.
    Unchanged,
    Refused,
}

impl Reload {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// What became of a write-back.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum WriteBack {
    Committed,
    Unchanged,
    Rejected,
    Conflict,
    Gone,
    StoreError,
    Started,
    /// In trailers that do not count.
    Ignored,
}

impl WriteBack {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::StoreError => "store_error",
            Self::Started => "started",
            Self::Ignored => "ignored",
        }
    }
}

/// The same word as in the logs.
impl EncodeLabelValue for WriteBack {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Metrics {
    type Target = Figures;
    fn deref(&self) -> &Figures {
        &self.0
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    pub fn new() -> Self {
        let mut figures = Figures {
            registry: Registry::with_prefix("cloakroom"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(histogram),
            overhead_duration: Family::new_with_constructor(histogram),
            upstream_duration: Family::new_with_constructor(histogram),
            write_backs: Family::default(),
            touches: Counter::default(),
            rate_limited: Family::default(),
            credentials_rejected: Family::default(),
            sessions_started: Counter::default(),
            sessions_ended: Counter::default(),
            sessions_revoked: Counter::default(),
            rotations_ignored: Counter::default(),
            active_requests: Gauge::default(),
            active_streams: Gauge::default(),
            store_damaged: Counter::default(),
            store_unreplicated: Counter::default(),
            audit_records: Counter::default(),
            audit_dropped: Family::default(),
            config_reloads: Family::default(),
            config_valid: Gauge::default(),
        };
        figures.register();
        Self(Arc::new(figures))
    }

    /// Counts what became of a new configuration, and says whether the file on disk is a good one.
    pub fn reloaded(&self, outcome: Reload) {
        self.config_reloads.get_or_create(&Reloads { outcome: outcome.name() }).inc();
        self.config_valid.set(i64::from(outcome != Reload::Refused));
    }

    /// The text that Prometheus scrapes (OpenMetrics).
    pub fn encode(&self) -> Option<String> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry).ok()?;
        Some(text)
    }
}

impl Figures {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Exchanges that ended, by route, status and how they ended", self.requests.clone());
        r.register(
            "request_duration_seconds",
            "From the request's head to the end of the response",
            self.request_duration.clone(),
        );
        r.register(
            "overhead_duration_seconds",
            "Of that, what was not waiting for the backend",
            self.overhead_duration.clone(),
        );
        r.register(
            "upstream_duration_seconds",
            "From forwarding to the head of the backend's response",
            self.upstream_duration.clone(),
        );
        r.register(
            "write_backs",
            "What backends asked to have written, by what became of it",
            self.write_backs.clone(),
        );
        r.register("touches", "Idle expiries that were slid", self.touches.clone());
        r.register("rate_limited", "Requests over a limit", self.rate_limited.clone());
        r.register("credentials_rejected", "Credentials that proved nothing", self.credentials_rejected.clone());
        r.register("sessions_started", "Sessions that backends started, or tokens", self.sessions_started.clone());
        r.register("sessions_ended", "Sessions that backends ended", self.sessions_ended.clone());
        r.register(
            "sessions_revoked",
            "Sessions that were revoked, by the admin API or because another took their place",
            self.sessions_revoked.clone(),
        );
        r.register(
            "rotations_ignored",
            "Rotations passed over because the request had not come with the current secret",
            self.rotations_ignored.clone(),
        );
        r.register("active_requests", "Exchanges in flight", self.active_requests.clone());
        r.register("active_streams", "Exchanges whose response is being passed on", self.active_streams.clone());
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
        r.register("audit_dropped", "Copies of audit records that a sink lost", self.audit_dropped.clone());
        r.register("config_reloads", "New configurations, by what became of them", self.config_reloads.clone());
        r.register("config_valid", "Whether the configuration on disk is a good one", self.config_valid.clone());
        r.register("build", "What is running", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    }
}
