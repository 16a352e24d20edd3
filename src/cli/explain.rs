//! `cloakroom explain`: what would be done with a request, and why; nothing is asked of store or backend.

mod credential;
mod request;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::config::{self, Config, Problems, SessionUse};
use crate::context;
use crate::exchange::{Rooms, preflight};
use crate::headers::{self, Lines, TRACEPARENT, TRACESTATE};
use crate::identity::{Carrier, Taken};
use crate::listener::Arrival;
use crate::peer::Downstream;
use crate::respond::Refusal;
use crate::route::{Fit, Route, RouteIndex};
use crate::session::{FieldIndex, Schema};

use super::{FAILED, Output, check, fail};

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The configuration file
    #[arg(long, short, env = "CLOAKROOM_CONFIG")]
    config: PathBuf,
    #[arg(value_parser = request::method)]
    method: Method,
    /// With a scheme and a host, or a path alone
    #[arg(value_parser = request::target)]
    url: request::Target,
    /// A header of the request; may be repeated. No value of a credential is printed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = request::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The address that the request comes from; trusted_proxies says whether it is believed
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    peer: std::net::IpAddr,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What would be done with a request.
#[derive(Debug, Serialize)]
struct Explanation {
    method: String,
    target: String,
    /// Why it goes no further.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Chosen>,
    /// The routes whose host and path match, the most specific first.
    candidates: Vec<Candidate>,
    stripped: Vec<Stripped>,
    /// What came, the one that decides first.
    credentials: Vec<Found>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<Backend>,
}

#[derive(Debug, Serialize)]
struct Refused {
    status: u16,
    code: &'static str,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Chosen {
    name: String,
    #[serde(rename = "match")]
    pattern: String,
    upstream: String,
    /// The path and query that the backend gets.
    forwarded: String,
    session: &'static str,
    /// What must hold of the session.
    require: Vec<String>,
    preflight: bool,
}

#[derive(Debug, Serialize)]
struct Candidate {
    name: String,
    #[serde(rename = "match")]
    pattern: String,
    verdict: &'static str,
}

#[derive(Debug, Serialize)]
struct Stripped {
    header: String,
    reason: &'static str,
    /// Whether cloakroom sets a header of that name itself.
    replaced: bool,
}

#[derive(Debug, Serialize)]
struct Found {
    kind: &'static str,
    carrier: &'static str,
    well_formed: bool,
    /// Whether the route goes by it.
    decides: bool,
    /// Whether the backend gets it all the same.
    forwarded: bool,
    /// Who is said to have issued a token that could be good.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// What there is to be checked, or why nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<String>,
}

/// What the backend is told, and what it may do.
#[derive(Debug, Serialize)]
struct Backend {
    /// Set on every request.
    forwarding: Vec<String>,
    /// Set where there is a session.
    context: Vec<String>,
    reads: Vec<Reading>,
    headers: Vec<Reading>,
    writes: Vec<String>,
    starts: bool,
    carries: Vec<String>,
    ends: bool,
}

#[derive(Debug, Serialize)]
struct Reading {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    field: String,
    /// `value` or `handle`.
    shown_as: &'static str,
}

pub fn run(args: &ExplainArgs) -> ExitCode {
    let config = match check::examine(&args.config) {
        Ok((config, _)) => config,
        Err(problems) => {
            check::show(&problems);
            return ExitCode::from(FAILED);
        }
    };
    let Some((rooms, schema)) = Rooms::compile(&config, &mut Problems::default()) else {
        return fail("the configuration is not sound");
    };
    let explained = Explained { config: &config, rooms: &rooms, schema: &schema };
    let explanation = explained.explain(args);
    let json = serde_json::to_value(&explanation).unwrap_or_default();
    match args.output.put(&mut anstream::stdout().lock(), &json, |out| text::put(out, &explanation)) {
        Ok(()) if explanation.refused.is_none() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(FAILED),
        Err(error) => fail(error),
    }
}

/// What a request is explained by: the rooms themselves, so that nothing is said that they would not do.
struct Explained<'a> {
    config: &'a Config,
    rooms: &'a Rooms,
    schema: &'a Schema,
}

impl Explained<'_> {
    /// Walks a request through the rooms up to the backend, in the corridor's order.
    fn explain(&self, args: &ExplainArgs) -> Explanation {
        let mut explanation = Explanation {
            method: args.method.to_string(),
            target: args.url.shown(),
            refused: None,
            route: None,
            candidates: Vec::new(),
            stripped: Vec::new(),
            credentials: Vec::new(),
            backend: None,
        };
        let mut head = match args.url.head(&args.method, &args.headers) {
            Ok(head) => head,
            Err(reason) => {
                explanation.refused = Some(Refused { status: 400, code: "request-malformed", reason });
                return explanation;
            }
        };
        let arrival = Arrival {
            downstream: Downstream::new((args.peer, 0).into(), args.url.secure).into(),
            fragment: args.url.has_fragment(),
            crowded: false,
            cut: None,
        };
        if let Err(refusal) = self.walk(&mut head, arrival, &mut explanation) {
            let code = refusal.code();
            let (status, reason) = (code.status().as_u16(), refusal.to_string());
            explanation.refused = Some(Refused { status, code: code.name(), reason });
        }
        explanation
    }

    fn walk(&self, head: &mut Parts, arrival: Arrival, told: &mut Explanation) -> Result<(), Refusal> {
        let came = head.headers.clone();
        let peer = self.rooms.trusted.judge(arrival.downstream.peer);
        let stripped = self.rooms.context.strip(head, peer, &arrival);
        let clean = head.headers.clone();
        let taken = self.rooms.verifier.take(&mut head.headers);
        let left = head.headers.clone();
        let mut sent = Parts::clone(head);
        let mut lines = Lines::default();
        self.rooms.context.forward(&mut sent, &stripped, &mut lines);
        sent.headers.extend(lines.fields());
        told.stripped = self.stripped([&came, &clean, &left, &sent.headers]);
        let method = preflight(head).unwrap_or_else(|| head.method.clone());
        told.candidates =
            self.rooms.table.weigh(head, &method).map_or_else(|_| Vec::new(), |all| self.candidates(&all));
        let route = self.rooms.route(head, stripped.fragment)?;
        told.route = Some(self.chosen(route, head));
        told.backend = Some(self.backend(route.index, &left, &sent.headers));
        let taken = taken?;
        self.rooms.verifier.give_back(route.index, &taken, &mut head.headers);
        told.credentials = self.found(route, head, &taken);
        self.admit(route, head, &stripped, &taken)
    }

    /// What turns a request away before its session is looked for; a missing credential is told of, and no refusal.
    fn admit(&self, route: &Route, head: &Parts, stripped: &context::Stripped, taken: &Taken) -> Result<(), Refusal> {
        let decides = self.rooms.verifier.pick(route.index, taken).filter(|_| self.uses_session(route));
        let by_cookie = decides == Some(Carrier::Cookie);
        if preflight(head).is_none() && (by_cookie || self.rooms.permissions.start(route.index).is_some()) {
            self.rooms.origins.check(head, stripped.upgrade.is_some(), stripped.is_https())?;
        }
        Ok(())
    }

    fn uses_session(&self, route: &Route) -> bool {
        self.rooms.policies.of(route).session != SessionUse::None
    }

    /// What was taken out between the stages of the way in: as it came, stripped, without credentials, as it is sent.
    fn stripped(&self, [came, clean, left, sent]: [&HeaderMap; 4]) -> Vec<Stripped> {
        let stripped = changed(came, clean).map(|name| (name, self.reason(name)));
        let credentials = changed(clean, left).map(|name| (name, "a credential goes to nobody"));
        let told = |(name, reason): (&HeaderName, _)| Stripped {
            header: name.to_string(),
            reason,
            replaced: !left.contains_key(name) && sent.contains_key(name),
        };
        stripped.chain(credentials).map(told).collect()
    }

    fn reason(&self, name: &HeaderName) -> &'static str {
        let reserved = self.rooms.context.reserved();
        if reserved.is_ours(name) {
            "only cloakroom may say what stands under its prefix"
        } else if reserved.covers(name) {
            "a route injects a header of that name"
        } else if headers::is_forwarding(name) {
            "the peer is not among the trusted proxies"
        } else if [TRACEPARENT, TRACESTATE].contains(name) {
            "the trace is continued"
        } else {
            "it ends at this hop, or Connection names it"
        }
    }

    fn raw(&self, route: &Route) -> Option<&config::Route> {
        self.config.routes.get(route.index.position())
    }

    fn pattern(&self, route: &Route) -> String {
        self.raw(route).map(|raw| text::pattern(&raw.matches)).unwrap_or_default()
    }

    fn candidates(&self, all: &[(&std::sync::Arc<Route>, Fit)]) -> Vec<Candidate> {
        let mut taken = false;
        let verdict = |fit: Fit| match fit {
            Fit::OtherHeaders => "matches with other headers only",
            Fit::OtherMethod => "matches with other methods only",
            Fit::Takes if std::mem::replace(&mut taken, true) => "would match, and is less specific",
            Fit::Takes => "takes the request",
        };
        let verdicts: Vec<_> = all.iter().map(|(_, fit)| *fit).map(verdict).collect();
        let told = |(&(route, _), verdict): (&(&std::sync::Arc<Route>, Fit), _)| Candidate {
            name: route.name.to_string(),
            pattern: self.pattern(route),
            verdict,
        };
        all.iter().zip(verdicts).map(told).collect()
    }

    fn chosen(&self, route: &Route, head: &Parts) -> Chosen {
        let raw = self.raw(route);
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        Chosen {
            name: route.name.to_string(),
            pattern: self.pattern(route),
            upstream: raw.map(|raw| raw.upstream.clone()).unwrap_or_default(),
            forwarded: route.rewritten(target).into_owned(),
            session: match self.rooms.policies.of(route).session {
                SessionUse::Required => "required",
                SessionUse::Optional => "optional",
                SessionUse::None => "none",
            },
            require: raw.map(|raw| text::requirements(&raw.require)).unwrap_or_default(),
            preflight: preflight(head).is_some(),
        }
    }

    fn backend(&self, route: RouteIndex, left: &HeaderMap, sent: &HeaderMap) -> Backend {
        let (context, permissions) = (&self.rooms.context, &self.rooms.permissions);
        let names = &context.names;
        let reads = context.reads(route);
        let mut injected = vec![&names.session, &names.etag, &names.schema];
        injected.extend((!reads.is_empty()).then_some(&names.context));
        let start = permissions.start(route);
        Backend {
            forwarding: changed(sent, left).map(HeaderName::to_string).collect(),
            context: injected.into_iter().map(HeaderName::to_string).collect(),
            reads: reads.iter().filter_map(|index| self.reading(*index, None)).collect(),
            headers: context
                .single_fields(route)
                .iter()
                .filter_map(|(name, at)| self.reading(*at, Some(name)))
                .collect(),
            writes: self.paths(permissions.write(route)),
            starts: start.is_some(),
            carries: start.map(|start| self.paths(&start.carry)).unwrap_or_default(),
            ends: permissions.end(route),
        }
    }

    fn reading(&self, index: FieldIndex, header: Option<&HeaderName>) -> Option<Reading> {
        let field = self.schema.field(index)?;
        let shown_as = if field.sensitive { "handle" } else { "value" };
        Some(Reading { header: header.map(HeaderName::to_string), field: field.path.to_string(), shown_as })
    }

    fn paths(&self, fields: &[FieldIndex]) -> Vec<String> {
        fields.iter().filter_map(|index| Some(self.schema.field(*index)?.path.to_string())).collect()
    }
}

/// The names whose lines are not the same in both.
fn changed<'h>(one: &'h HeaderMap, other: &'h HeaderMap) -> impl Iterator<Item = &'h HeaderName> {
    one.keys().filter(|name| !one.get_all(*name).iter().eq(other.get_all(*name).iter()))
}

impl Chosen {
    /// What a request without a session is answered; none if it passes. A requirement holds of a session only.
    fn without_session(&self) -> Option<StatusCode> {
        let needed = self.session == "required" || !self.require.is_empty();
        (needed && !self.preflight).then_some(StatusCode::UNAUTHORIZED)
    }
}

#[cfg(test)]
mod tests;
