//! A line of the access log.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::gather::Lines;
use crate::handle::Handle;
use crate::json::Object;

pub const TARGET: &str = "cloakroom::access";
/// What a line says; what is not known of an exchange is not in it.
pub struct Line<'a> {
    pub time: SystemTime,
    pub method: &'static str,
    pub route: &'a str,
    /// 0 if the client left before there was one.
    pub status: u16,
    pub outcome: &'static str,
    pub problem: Option<&'static str>,
    pub protocol: &'static str,
    pub session: Option<Handle>,
    pub revision_read: Option<u64>,
    pub revision_written: Option<u64>,
    pub write_back: Option<&'static str>,
    pub cache_hit: Option<bool>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub total_us: u64,
    pub overhead_us: u64,
    pub upstream_us: Option<u64>,
    pub request_id: Option<&'a str>,
    pub trace_id: Option<&'a str>,
}

impl Line<'_> {
    /// Adds it to the others, as JSON in their shape.
    pub fn add_to(&self, lines: &Lines) {
        let text = self.json(LINE.take());
        lines.add(text.as_bytes(), false);
        LINE.set(text);
    }

    /// Put together by hand: this line is written for every request, and takes 27,000 instructions by way of an event,
    /// 6,500 by way of serde, and 2,800 so (callgrind).
    fn json(&self, place: String) -> String {
        let mut json = Object::begin_in(place, r#"{"timestamp":""#);
        time(&mut json, self.time);
        let number = |json: &mut Object, before: &str, value: Option<u64>| {
            value.into_iter().for_each(|value| json.number(before, value));
        };
        json.put(r#"","level":"INFO""#);
        json.word(r#","method":""#, self.method);
        json.text(r#","route":""#, self.route);
        json.number(r#","status":"#, self.status.into());
        json.word(r#","outcome":""#, self.outcome);
        if let Some(problem) = self.problem {
            json.word(r#","problem":""#, problem);
        }
        json.word(r#","protocol":""#, self.protocol);
        if let Some(session) = self.session {
            json.word(r#","session":""#, &session.text());
        }
        number(&mut json, r#","revision_read":"#, self.revision_read);
        number(&mut json, r#","revision_written":"#, self.revision_written);
        if let Some(write_back) = self.write_back {
            json.word(r#","write_back":""#, write_back);
        }
        if let Some(hit) = self.cache_hit {
            json.put(if hit { r#","cache_hit":true"# } else { r#","cache_hit":false"# });
        }
        json.number(r#","bytes_received":"#, self.bytes_received);
        json.number(r#","bytes_sent":"#, self.bytes_sent);
        json.number(r#","total_us":"#, self.total_us);
        json.number(r#","overhead_us":"#, self.overhead_us);
        number(&mut json, r#","upstream_us":"#, self.upstream_us);
        if let Some(request_id) = self.request_id {
            json.text(r#","request_id":""#, request_id);
        }
        if let Some(trace_id) = self.trace_id {
            json.text(r#","trace_id":""#, trace_id);
        }
        json.word(r#","target":""#, TARGET);
        json.put("}");
        json.into_text()
    }

    /// The same for whoever formats or captures events.
    pub fn event(&self) {
        tracing::info!(
            target: TARGET,
            method = self.method,
            route = self.route,
            status = self.status,
            outcome = self.outcome,
            problem = self.problem,
            protocol = self.protocol,
            session = self.session.map(tracing::field::display),
            revision_read = self.revision_read,
            revision_written = self.revision_written,
            write_back = self.write_back,
            cache_hit = self.cache_hit,
            bytes_received = self.bytes_received,
            bytes_sent = self.bytes_sent,
            total_us = self.total_us,
            overhead_us = self.overhead_us,
            upstream_us = self.upstream_us,
            request_id = self.request_id,
            trace_id = self.trace_id,
        );
    }
}

thread_local! {
    /// Where a line is put together.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
    /// The last second that was told here, and how it is written, up to its fraction.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// RFC 3339 in UTC with microseconds, as all other lines have it.
fn time(json: &mut Object, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            let whole = UNIX_EPOCH + Duration::from_secs(*second);
            *text = humantime::format_rfc3339_seconds(whole).to_string();
            text.pop();
        }
        json.put(text);
    });
    let mut digits = *b".000000Z";
    let mut rest = since.subsec_micros();
    for digit in digits.iter_mut().skip(1).take(6).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    json.put(std::str::from_utf8(&digits).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::*;

    fn line<'a>(route: &'a str, all: bool) -> Line<'a> {
        let given = |value| all.then_some(value);
        Line {
            time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            method: "GET",
            route,
            status: 200,
            outcome: "passed",
            problem: all.then_some("rate-limited"),
            protocol: "http/1.1",
            session: all.then_some(Handle([7; 16])),
            revision_read: given(7),
            revision_written: given(8),
            write_back: all.then_some("committed"),
            cache_hit: all.then_some(true),
            bytes_received: 0,
            bytes_sent: u64::MAX,
            total_us: 3,
            overhead_us: 2,
            upstream_us: given(1),
            request_id: all.then_some("a:b/c"),
            trace_id: all.then_some("4bf92f3577b34da6a3ce929d0e0e4736"),
        }
    }

    fn read(line: &Line<'_>) -> Value {
        let text = line.json("another line".into());
        assert!(!text.contains('\n'));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn all_that_is_known_is_said() {
        let expected = json!({
            "timestamp": "2023-11-14T22:13:20.123456Z", "level": "INFO", "target": "cloakroom::access",
            "method": "GET", "route": "chat", "status": 200, "outcome": "passed", "problem": "rate-limited",
            "protocol": "http/1.1", "session": Handle([7; 16]).to_string(), "revision_read": 7,
            "revision_written": 8, "write_back": "committed", "cache_hit": true, "bytes_received": 0,
            "bytes_sent": u64::MAX, "total_us": 3, "overhead_us": 2, "upstream_us": 1, "request_id": "a:b/c",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        });
        assert_eq!(read(&line("chat", true)), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let said = read(&line("chat", false));
        let keys: Vec<_> = said.as_object().unwrap().keys().map(String::as_str).collect();
        for absent in ["problem", "session", "revision_read", "write_back", "cache_hit", "upstream_us", "trace_id"] {
            assert!(!keys.contains(&absent), "{keys:?}");
        }
        assert_eq!(keys.len(), 12, "{keys:?}");
    }
}
