//! One span: made when something begins, and sent when it is dropped.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Out, Parent, Place};

/// A span that has ended.
pub type Finished = SpanData;

/// Something that takes time. Ends when it is dropped.
pub struct Span {
    out: Out,
    id: SpanId,
    parent: Parent,
    kind: SpanKind,
    name: Cow<'static, str>,
    begun: (SystemTime, Instant),
    attributes: Vec<KeyValue>,
    status: Status,
    /// Whether it has begun; one that never did is not sent.
    has_begun: bool,
}

impl Span {
    pub(super) fn new(out: Out, parent: Parent, kind: SpanKind) -> Self {
        Self {
            has_begun: true,
            out,
            id: random(),
            parent,
            kind,
            name: "".into(),
            begun: (SystemTime::now(), Instant::now()),
            attributes: Vec::new(),
            status: Status::Unset,
        }
    }

    /// A span that is part of this one.
    pub fn child(&self, kind: SpanKind) -> Self {
        Self::new(self.out.clone(), self.as_parent(), kind)
    }

    /// Where others may become parts of this one.
    pub fn place(&self) -> Place {
        Place { out: self.out.clone(), parent: self.as_parent() }
    }

    fn as_parent(&self) -> Parent {
        Parent { span: Some(self.id), flags: self.parent.flags.with_sampled(true), ..self.parent }
    }

    /// What the next one on the way is to be told (W3C Trace Context).
    pub fn traceparent(&self) -> String {
        let Parent { trace, flags, .. } = self.as_parent();
        format!("00-{trace}-{}-{:02x}", self.id, flags.to_u8())
    }

    pub fn named(&mut self, name: impl Into<Cow<'static, str>>) {
        self.name = name.into();
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    /// A part of this one that is only to begin, and that others may already be told of.
    pub fn later(&self, kind: SpanKind) -> Self {
        let mut span = self.child(kind);
        span.has_begun = false;
        span
    }

    pub fn begin(&mut self) {
        self.has_begun = true;
        self.begun = (SystemTime::now(), Instant::now());
    }

    /// Whoever looks at it is to look at it twice.
    pub fn failed(&mut self, kind: impl Into<Value>) {
        self.set("error.type", kind);
        self.status = Status::error("");
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if !self.has_begun {
            return;
        }
        let (begun, since) = self.begun;
        let context =
            SpanContext::new(self.parent.trace, self.id, self.parent.flags.with_sampled(true), false, TraceState::NONE);
        self.out.send(SpanData {
            span_context: context,
            parent_span_id: self.parent.span.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.kind == SpanKind::Server && self.parent.span.is_some(),
            span_kind: self.kind.clone(),
            name: std::mem::take(&mut self.name),
            start_time: begun,
            // By the clock that never goes back.
            end_time: begun + since.elapsed(),
            attributes: std::mem::take(&mut self.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: std::mem::replace(&mut self.status, Status::Unset),
            instrumentation_scope: InstrumentationScope::builder("cloakroom").build(),
        });
    }
}

fn random() -> SpanId {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    SpanId::from_bytes(bytes)
}
