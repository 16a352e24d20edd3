//! Sends spans to the collector, in batches, for as long as it takes any.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::span::Finished;
use crate::drain::Drain;
use crate::telemetry::Metrics;

/// Spans that are sent at once.
const BATCH: usize = 512;
/// How long the first of a batch waits for the others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take over one batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what is left may take when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// What is wrong with the way to the collector.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to the collector: {0}")]
pub struct TracingError(#[from] ExporterBuildError);

/// What sends spans; to be run until the process ends.
pub struct Exporting {
    exporter: SpanExporter,
    waiting: mpsc::Receiver<Finished>,
    metrics: Metrics,
    /// Whether the collector took the last batch; a change of it is logged.
    takes: bool,
}

impl Exporting {
    pub(super) fn new(
        url: &str,
        environment: &str,
        waiting: mpsc::Receiver<Finished>,
        metrics: Metrics,
    ) -> Result<Self, TracingError> {
        let builder = SpanExporter::builder().with_tonic().with_endpoint(url).with_timeout(PATIENCE);
        let mut exporter = builder.build()?;
        exporter.set_resource(&resource(environment));
        Ok(Self { exporter, waiting, metrics, takes: true })
    }

    /// Runs until the drain is over, and sends what is left then, for a while.
    pub async fn run(mut self, drain: Drain) {
        let cut = async {
            drain.over().await;
            tokio::time::sleep(LAST_SPANS).await;
        };
        tokio::select! {
            () = self.work(&drain) => {}
            () = cut => tracing::warn!(target: "cloakroom::tracing", "the collector did not take the last spans in time"),
        }
    }

    async fn work(&mut self, drain: &Drain) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.collect(&mut batch, drain).await {
            self.send(std::mem::take(&mut batch)).await;
        }
        self.waiting.close();
        while self.waiting.recv_many(&mut batch, BATCH).await > 0 {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Fills a batch; false once the drain is over.
    async fn collect(&mut self, batch: &mut Vec<Finished>, drain: &Drain) -> bool {
        tokio::select! {
            count = self.waiting.recv_many(batch, BATCH) => if count == 0 { return false },
            () = drain.over() => return false,
        }
        let until = Instant::now() + LINGER;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                more = timeout_at(until, self.waiting.recv_many(batch, room)) => if !matches!(more, Ok(1..)) { break },
                () = drain.over() => break,
            }
        }
        true
    }

    async fn send(&mut self, batch: Vec<Finished>) {
        let count = batch.len() as u64;
        let sent = timeout(PATIENCE, self.exporter.export(batch)).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer in time".into()),
        };
        let counter = if failure.is_none() { &self.metrics.spans_exported } else { &self.metrics.spans_dropped };
        counter.inc_by(count);
        match (&failure, self.takes) {
            (Some(reason), true) => {
                tracing::warn!(target: "cloakroom::tracing", reason, "the collector takes no spans; they are dropped")
            }
            (None, false) => tracing::info!(target: "cloakroom::tracing", "the collector takes spans again"),
            _ => {}
        }
        self.takes = failure.is_none();
    }
}

/// Who sends, beside what `OTEL_RESOURCE_ATTRIBUTES` says of the pod.
fn resource(environment: &str) -> Resource {
    let builder = Resource::builder();
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let builder = if named { builder } else { builder.with_service_name("cloakroom") };
    builder
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("deployment.environment.name", environment.to_owned()))
        .build()
}
