//! Traces: spans of what was sampled, sent to a collector by OTLP over gRPC.
//!
//! Whether an exchange is sampled is decided before any span is made; of one that is not, nothing is kept. No span
//! holds a path, a query, an address of a client, a credential or a value.

mod exchange;
mod export;
mod span;

use std::sync::Arc;

use opentelemetry::trace::{SpanId, SpanKind, TraceFlags, TraceId};
use tokio::sync::mpsc;
use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;

use super::metrics::Metrics;
use crate::config;

pub use exchange::{Ending, Spans};
pub use export::{Exporting, TracingError};
use span::Finished;
pub use span::Span;

/// Spans that may wait for the collector; beyond that they are dropped, and no request waits.
const WAITING: usize = 8 << 10;

/// Where spans are made, if they are wanted at all.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Sampling>>);

struct Sampling {
    /// Of the numbers that trace ids are, those below are sampled.
    below: u128,
    out: Out,
}

/// The way to the collector.
#[derive(Clone)]
struct Out {
    queue: mpsc::Sender<Finished>,
    metrics: Metrics,
}

impl Out {
    fn send(&self, span: Finished) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans_dropped.inc();
        }
    }
}

/// What a request said of the trace that it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    pub trace: TraceId,
    /// None where the trace begins here.
    pub span: Option<SpanId>,
    pub flags: TraceFlags,
}

impl Tracer {
    /// Sets up what the configuration asks for; the rest is to be run, and sends what the first has made.
    ///
    /// # Errors
    /// What no later attempt can mend: a URL, a certificate.
    pub fn open(
        section: &config::Tracing,
        environment: &str,
        metrics: &Metrics,
    ) -> Result<(Self, Option<Exporting>), TracingError> {
        let Some(url) = &section.otlp else { return Ok((Self(None), None)) };
        let (queue, waiting) = mpsc::channel(WAITING);
        let exporting = Exporting::new(url, environment, waiting, metrics.clone())?;
        let out = Out { queue, metrics: metrics.clone() };
        Ok((Self(Some(Arc::new(Sampling { below: share(section.sample), out }))), Some(exporting)))
    }

    /// The same way to the collector, for another share of traces.
    pub fn sampling(&self, ratio: f64) -> Self {
        Self(self.0.as_ref().map(|own| Arc::new(Sampling { below: share(ratio), out: own.out.clone() })))
    }

    /// The spans of an exchange, if it is sampled: as its parent was, or by chance where the trace begins here.
    pub fn begin(&self, parent: impl FnOnce() -> Option<Parent>) -> Option<Spans> {
        let sampling = self.0.as_ref()?;
        let parent = parent()?;
        let sampled = match parent.span {
            Some(_) => parent.flags.is_sampled(),
            None => u128::from_be_bytes(parent.trace.to_bytes()) >> 64 < sampling.below,
        };
        sampled.then(|| Spans::new(Span::new(sampling.out.clone(), parent, SpanKind::Server)))
    }
}

/// So many of all 64-bit numbers.
fn share(ratio: f64) -> u128 {
    // Exact enough: a double has 53 bits.
    (ratio.clamp(0.0, 1.0) * 2f64.powi(64)) as u128
}

/// Where a span may have children, without a word of it in between.
#[derive(Clone)]
pub struct Place {
    out: Out,
    parent: Parent,
}

task_local! {
    static HERE: Option<Place>;
}

/// Has the spans that are made in `work` be children of that place.
pub fn within<F: Future>(place: Option<Place>, work: F) -> TaskLocalFuture<Option<Place>, F> {
    HERE.scope(place, work)
}

/// A child of the place that the caller is within, if that is one.
pub fn child(kind: SpanKind) -> Option<Span> {
    HERE.try_with(|here| here.as_ref().map(|place| Span::new(place.out.clone(), place.parent, kind))).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample: f64) -> (Tracer, mpsc::Receiver<Finished>) {
        let (queue, waiting) = mpsc::channel(2);
        let out = Out { queue, metrics: Metrics::new() };
        (Tracer(Some(Arc::new(Sampling { below: share(sample), out }))), waiting)
    }

    fn parent(trace: u128, span: Option<u64>, sampled: bool) -> Parent {
        let flags = TraceFlags::default().with_sampled(sampled);
        Parent { trace: trace.into(), span: span.map(SpanId::from), flags }
    }

    #[test]
    fn a_parent_s_decision_goes_before_chance() {
        for sample in [0.0, 1.0] {
            let (tracer, _waiting) = tracer(sample);
            assert!(tracer.begin(|| Some(parent(1, Some(2), true))).is_some());
            assert!(tracer.begin(|| Some(parent(1, Some(2), false))).is_none());
        }
        assert!(Tracer::default().begin(|| Some(parent(1, Some(2), true))).is_none());
    }

    #[test]
    fn chance_takes_its_share() {
        let taken = |sample: f64| {
            let (tracer, _waiting) = tracer(sample);
            (0..1000u128).filter(|n| tracer.begin(|| Some(parent(n << 118 | 1, None, false))).is_some()).count()
        };
        assert_eq!((taken(0.0), taken(1.0)), (0, 1000));
        assert!((230..=270).contains(&taken(0.25)), "{}", taken(0.25));
    }

    #[test]
    fn spans_that_nobody_takes_are_dropped_and_counted() {
        let (tracer, waiting) = tracer(1.0);
        let metrics = tracer.0.as_ref().unwrap().out.metrics.clone();
        for _ in 0..5 {
            drop(tracer.begin(|| Some(parent(1, None, false))));
        }
        assert_eq!((waiting.len(), metrics.spans_dropped.get()), (2, 3));
    }
}
