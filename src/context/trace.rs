//! W3C trace context, carried on.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

use crate::handle::hex_digits;
use crate::headers::{self, TRACEPARENT, TRACESTATE};
use crate::telemetry::{Parent, Spans, Tracer};

/// The trace that an exchange belongs to.
#[derive(Debug)]
pub struct Trace {
    /// What the backend is told.
    parent: Arc<str>,
    state: Option<HeaderValue>,
    /// Whether somebody before us began it.
    continued: bool,
}

impl Trace {
    /// Continues the client's trace if it is well-formed, else starts one.
    ///
    /// Unless a span of our own is recorded, the parent is passed on as it is, and the chain stays whole.
    pub fn of(headers: &mut HeaderMap) -> Self {
        let parent = headers::only(headers, &TRACEPARENT).ok().flatten().and_then(|value| value.to_str().ok());
        let parent: Option<Arc<str>> = parent.filter(|text| is_traceparent(text)).map(Into::into);
        let state = headers::only(headers, &TRACESTATE).ok().flatten().cloned();
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        match parent {
            Some(parent) => Self { parent, state, continued: true },
            None => Self::begun(),
        }
    }

    /// A trace that begins here.
    pub fn begun() -> Self {
        Self { parent: begun(), state: None, continued: false }
    }

    /// Decides whether spans are recorded of it, and has the backend told of ours, if so.
    pub fn record(&mut self, tracer: &Tracer) -> Option<Spans> {
        let spans = tracer.begin(|| self.as_parent())?;
        self.parent = spans.traceparent().into();
        Some(spans)
    }

    fn as_parent(&self) -> Option<Parent> {
        let part = |from: usize, to: usize| self.parent.get(from..to);
        let span = SpanId::from_hex(part(36, 52)?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(part(53, 55)?, 16).ok()?);
        let trace = TraceId::from_hex(part(3, 35)?).ok()?;
        Some(Parent { trace, span: self.continued.then_some(span), flags })
    }

    pub fn parent(&self) -> &Arc<str> {
        &self.parent
    }

    pub fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    pub fn id(&self) -> &str {
        headers::trace_id(&self.parent)
    }
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        let part = parts.next().unwrap_or_default();
        let well_formed =
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        well_formed.then_some(part)
    };
    let (Some(version), Some(trace), Some(span), Some(_flags)) = (hex(2), hex(32), hex(16), hex(2)) else {
        return false;
    };
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    // A later version may have more parts; version 00 has none, and ff is no version.
    version != "ff"
        && nonzero(trace)
        && nonzero(span)
        && (version != "00" || parts.next().is_none())
        && text.len() <= 128
}

/// A trace that begins here, and that nobody has decided to record.
fn begun() -> Arc<str> {
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let (trace, span) = parent.split_at_mut(36);
    fill_with_digits(trace.get_mut(3..35).unwrap_or_default());
    fill_with_digits(span.get_mut(..16).unwrap_or_default());
    text(&parent)
}

/// A name that is no secret: 128 random bits in hexadecimal.
pub fn random_name() -> Arc<str> {
    let mut name = [0; 32];
    fill_with_digits(&mut name);
    text(&name)
}

fn text(ascii: &[u8]) -> Arc<str> {
    std::str::from_utf8(ascii).unwrap_or_default().into()
}

/// Random digits of a generator that is not for keys, at a fraction of the cost.
fn fill_with_digits(digits: &mut [u8]) {
    for sixteen in digits.as_chunks_mut().0 {
        *sixteen = hex_digits(fastrand::u64(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_parents_are_continued() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
