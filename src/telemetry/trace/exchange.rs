//! The two spans of an exchange, as OpenTelemetry's conventions for HTTP have them.
//!
//! Of what those ask for, `url.path`, `url.query`, `url.full`, `client.address` and `user_agent.original` are left
//! out on purpose: any of them may hold a secret, or say who somebody is.

use http::{Method, StatusCode};
use opentelemetry::trace::SpanKind;

use super::{Place, Span};
use crate::telemetry::record::method;

/// The server's span, and the client's towards the backend, which is part of it.
pub struct Spans {
    /// Before the server's, as it ends: no part outlasts what it is part of.
    client: Span,
    server: Span,
}

/// What is known of an exchange at its end.
pub struct Ending<'a> {
    pub method: &'a Method,
    pub protocol: &'static str,
    pub secure: bool,
    /// The route's name and the path that it matches.
    pub route: Option<(&'a str, &'a str)>,
    pub status: Option<StatusCode>,
    pub backend_status: Option<StatusCode>,
    pub outcome: &'static str,
    pub problem: Option<&'static str>,
    pub session: Option<String>,
    pub revisions: (Option<u64>, Option<u64>),
    pub write_back: Option<&'static str>,
    pub cache_hit: Option<bool>,
}

impl Spans {
    pub(super) fn new(server: Span) -> Self {
        let client = server.later(SpanKind::Client);
        Self { client, server }
    }

    /// What the backend is told of the span that it belongs to.
    pub fn traceparent(&self) -> String {
        self.client.traceparent()
    }

    /// Where what cloakroom does itself belongs.
    pub fn place(&self) -> Place {
        self.server.place()
    }

    /// The request goes to that backend.
    pub fn forwarded(&mut self, authority: &str) {
        self.client.begin();
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
        self.client.set("server.address", host.trim_matches(['[', ']']).to_owned());
        if let Ok(port) = port.parse::<u16>() {
            self.client.set("server.port", i64::from(port));
        }
    }

    pub fn end(mut self, ending: &Ending<'_>) {
        self.end_client(ending);
        self.end_server(ending);
    }

    fn end_client(&mut self, ending: &Ending<'_>) {
        let method = method(ending.method);
        self.client.named(method);
        self.client.set("http.request.method", method);
        match ending.backend_status {
            Some(status) => {
                self.client.set("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    self.client.failed(status.as_u16().to_string());
                } else if ending.outcome == "aborted" {
                    self.client.failed("aborted");
                }
            }
            None => self.client.failed(ending.problem.unwrap_or("aborted")),
        }
    }

    fn end_server(&mut self, ending: &Ending<'_>) {
        let (server, method) = (&mut self.server, method(ending.method));
        server.set("http.request.method", method);
        server.set("url.scheme", if ending.secure { "https" } else { "http" });
        server.set("network.protocol.version", ending.protocol.strip_prefix("http/").unwrap_or(ending.protocol));
        match ending.route {
            Some((name, pattern)) => {
                server.named(format!("{method} {pattern}"));
                server.set("http.route", pattern.to_owned());
                server.set("cloakroom.route", name.to_owned());
            }
            None => server.named(method),
        }
        if let Some(status) = ending.status {
            server.set("http.response.status_code", i64::from(status.as_u16()));
        }
        server.set("cloakroom.outcome", ending.outcome);
        let told = [("cloakroom.problem", ending.problem), ("cloakroom.write_back", ending.write_back)];
        told.into_iter().for_each(|(key, value)| value.into_iter().for_each(|value| server.set(key, value)));
        if let Some(session) = &ending.session {
            server.set("cloakroom.session", session.clone());
        }
        let (read, written) = ending.revisions;
        for (key, revision) in [("cloakroom.revision.read", read), ("cloakroom.revision.written", written)] {
            if let Some(revision) = revision.and_then(|revision| i64::try_from(revision).ok()) {
                server.set(key, revision);
            }
        }
        if let Some(hit) = ending.cache_hit {
            server.set("cloakroom.cache_hit", hit);
        }
        // A client's own fault is no failure of a server (the conventions' words for it).
        match ending.status {
            Some(status) if status.is_server_error() => {
                server.failed(ending.problem.map_or_else(|| status.as_u16().to_string(), str::to_owned));
            }
            _ if ending.outcome == "aborted" => server.failed("aborted"),
            _ => {}
        }
    }
}
