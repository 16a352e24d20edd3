//! W3C trace context, carried on.

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};

use crate::headers::{self, TRACEPARENT, TRACESTATE};
use crate::telemetry::{Parent, Spans, Tracer};

/// The trace that an exchange belongs to.
#[derive(Debug)]
pub struct Trace {
    /// What the backend is told.
    parent: String,
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
        let parent = parent.filter(|text| is_traceparent(text)).map(str::to_owned);
        let state = headers::only(headers, &TRACESTATE).ok().flatten().cloned();
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        match parent {
            Some(parent) => Self { parent, state, continued: true },
            None => {
                let parent = format!("00-{}-{}-00", random_hex::<16>(), random_hex::<8>());
                Self { parent, state: None, continued: false }
            }
        }
    }

    /// Decides whether spans are recorded of it, and has the backend told of ours, if so.
    pub fn record(&mut self, tracer: &Tracer) -> Option<Spans> {
        let spans = tracer.begin(self.as_parent()?)?;
        self.parent = spans.traceparent();
        Some(spans)
    }

    fn as_parent(&self) -> Option<Parent> {
        let part = |from: usize, to: usize| self.parent.get(from..to);
        let span = SpanId::from_hex(part(36, 52)?).ok()?;
        let flags = TraceFlags::new(u8::from_str_radix(part(53, 55)?, 16).ok()?);
        let trace = TraceId::from_hex(part(3, 35)?).ok()?;
        Some(Parent { trace, span: self.continued.then_some(span), flags })
    }

    pub fn parent(&self) -> &str {
        &self.parent
    }

    pub fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    pub fn id(&self) -> &str {
        self.parent.get(3..35).unwrap_or_default()
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

/// So many random bytes in hexadecimal, for names that are no secret: a generator that is not for keys does, at a
/// fraction of the cost.
pub fn random_hex<const N: usize>() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0u8; N];
    fastrand::fill(&mut bytes);
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| DIGITS.get(usize::from(digit)).copied().map(char::from)).collect()
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
