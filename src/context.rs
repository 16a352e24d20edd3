//! What only cloakroom may say: stripped from what clients send, set on what backends receive.

use std::sync::Arc;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use quick_cache::sync::Cache;

use crate::config::{self, Problems};
use crate::handle::Handle;
use crate::headers::{self, Lines, Names, Reserved, Survey, TRACEPARENT, TRACESTATE, X_REQUEST_ID};
use crate::listener::Arrival;
use crate::peer::Peer;
use crate::route::RouteIndex;
use crate::session::{self, Decoded, FieldIndex, Held, Schema, Session};
use crate::structured::{self, Bare, Shown};

mod forwarded;
mod trace;
mod upgrade;

use forwarded::Forwarded;
pub use trace::{Trace, random_name};

/// The bytes of `name=hdl_…` beside the name.
const HANDLE_BYTES: usize = 1 + 4 + 22;
/// The room that a context has at first for each member, and for its other headers; more is made where it is needed.
const MEMBER_BYTES: usize = 32;
const OTHER_BYTES: usize = 160;
/// Rendered contexts that are kept: rendering one of ten fields takes 33,000 instructions, 3,000 where one of them has changed
/// (callgrind).
const RENDERED: usize = 10_000;

/// Strips requests, and injects contexts.
pub struct Context {
    pub names: Arc<Names>,
    reserved: Reserved,
    /// The header of its own that a session id may come in.
    credential_header: Option<HeaderName>,
    schema: Arc<Schema>,
    routes: Vec<RouteContext>,
    rendered: Cache<(RouteIndex, Handle), Arc<Rendered>>,
}

/// What another route's backend than the first is shown of a session, good for as long as it is decoded from one entry.
struct Rendered {
    of: Arc<Decoded>,
    shown: session::Shown,
}

/// What one route's backend sees.
struct RouteContext {
    read: Vec<FieldIndex>,
    headers: Vec<(HeaderName, FieldIndex)>,
}

/// A request's head without anything that only cloakroom may say, and what was taken note of on the way.
#[derive(Debug)]
pub struct Stripped {
    /// The protocol that the client asks to change to.
    pub upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers.
    pub trailers: bool,
    /// Whether the target had a fragment, which its parsed form does not show.
    pub fragment: bool,
    /// Whether it came with more headers than its listener takes.
    pub crowded: bool,
    /// Whether its body has a transfer coding that nobody would undo.
    pub coded: bool,
    /// The request id of a trusted peer, else a new one.
    pub request_id: Arc<str>,
    pub trace: Trace,
    /// What forwarding headers are to say.
    forwarded: Forwarded,
    /// Whether a request id came.
    was_named: bool,
}

impl Stripped {
    /// Whether the client is known to speak TLS, to us or to a trusted peer. It may do so without our knowing.
    pub fn is_https(&self) -> bool {
        self.forwarded.is_https
    }
}

impl Context {
    pub fn compile(config: &config::Config, schema: Arc<Schema>, problems: &mut Problems) -> Option<Self> {
        let Some(names) = Names::new(&config.headers.prefix) else {
            problems.error("/headers/prefix", "is not the beginning of a header name");
            return None;
        };
        let single = config.routes.iter().flat_map(|route| route.headers.keys().map(String::as_str));
        let reserved = Reserved::new(&names, single);
        let routes = (0..)
            .zip(&config.routes)
            .map(|(at, route)| compile(at, route, config, &schema, (&names, &reserved), problems));
        let routes = routes.collect();
        let credential = config.identity.session_id.header.as_ref();
        let credential_header = credential.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let rendered = Cache::new(RENDERED);
        Some(Self { names: Arc::new(names), reserved, credential_header, schema, routes, rendered })
    }

    /// Removes what a client may not say: hop-by-hop fields and what `Connection` names first, then every reserved
    /// name in any spelling, then what peers who are not trusted say of those before them.
    pub fn strip(&self, head: &mut Parts, peer: Peer, arrival: &Arrival) -> Stripped {
        let is_void = |name: &HeaderName| {
            self.reserved.covers(name)
                || headers::is_framing_twin(name)
                || headers::is_forwarding(name) && !peer.trusted
        };
        let found = Survey::of(&head.headers, is_void);
        let upgrade = if found.upgrade { upgrade::asked(head) } else { None };
        let takes_trailers = |token: &str| token.eq_ignore_ascii_case("trailers");
        let trailers = found.te && headers::tokens(&head.headers, &header::TE).any(takes_trailers);
        let coded = found.transfer_encoding && headers::has_foreign_coding(&head.headers);
        headers::remove_hop_by_hop(&mut head.headers, found);
        if found.expect {
            head.headers.remove(header::EXPECT);
        }
        if head.version == Version::HTTP_2 {
            headers::join_cookies(&mut head.headers);
        }
        let forwarded = Forwarded::new(head, peer, arrival);
        let request_id = request_id(&head.headers, peer);
        while found.void
            && let Some(name) = head.headers.keys().find(|name| is_void(name)).cloned()
        {
            head.headers.remove(name);
        }
        let trace = if found.trace { Trace::of(&mut head.headers) } else { Trace::begun() };
        Stripped {
            upgrade,
            trailers,
            fragment: arrival.fragment,
            crowded: arrival.crowded,
            coded,
            request_id,
            trace,
            forwarded,
            was_named: found.request_id,
        }
    }

    /// The names that only cloakroom may say.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// The fields that a route's backend sees, in the order of the schema.
    pub fn reads(&self, route: RouteIndex) -> &[FieldIndex] {
        self.routes.get(route.position()).map_or(&[], |context| &context.read)
    }

    /// The headers that carry one field each on a route.
    pub fn single_fields(&self, route: RouteIndex) -> &[(HeaderName, FieldIndex)] {
        self.routes.get(route.position()).map_or(&[], |context| &context.headers)
    }

    /// Whether a trailer of a client may pass: nothing that frames, routes or authenticates (RFC 9110, section
    /// 6.5.1), and nothing that only cloakroom may say.
    pub fn lets_pass(&self, name: &HeaderName) -> bool {
        const OWN: [HeaderName; 4] = [X_REQUEST_ID, TRACEPARENT, TRACESTATE, header::VIA];
        let void = headers::is_void_in_trailers(name)
            || OWN.iter().chain(&self.credential_header).any(|own| headers::are_twins(own, name));
        !void && !self.reserved.covers(name) && !headers::is_forwarding(name)
    }

    /// Adds the context headers for a session.
    pub fn inject(&self, lines: &mut Lines, route: RouteIndex, session: &Session, handles: &dyn Handles) {
        let shown = session.shown(|| self.render(route, session, handles));
        if shown.route == route {
            return lines.add_all(&shown.lines);
        }
        let key = (route, session.handle());
        let known = self.rendered.get(&key).filter(|rendered| Arc::ptr_eq(&rendered.of, session.decoded()));
        let rendered = known.unwrap_or_else(|| {
            let shown = self.render(route, session, handles);
            let rendered = Arc::new(Rendered { of: session.decoded().clone(), shown });
            self.rendered.insert(key, rendered.clone());
            rendered
        });
        lines.add_all(&rendered.shown.lines);
    }

    /// Makes the context headers of a session on one route.
    pub fn render(&self, route: RouteIndex, session: &Session, handles: &dyn Handles) -> session::Shown {
        let reads = self.reads(route);
        let mut dictionary = String::with_capacity(reads.len() * MEMBER_BYTES);
        for index in reads {
            self.append(&mut dictionary, session, *index, handles);
        }
        let mut lines = Lines::with_capacity(dictionary.len() + OTHER_BYTES);
        lines.add(&self.names.session, session.handle().to_string());
        lines.add(&self.names.etag, format!("\"{}\"", session.revision()));
        lines.add(&self.names.schema, self.schema.version.to_string());
        if !dictionary.is_empty() {
            lines.add(&self.names.context, dictionary);
        }
        for (name, index) in self.single_fields(route) {
            self.show(session, *index, handles, |_, shown| match shown {
                Shown::Value(value) => lines.add(name, Bare(value).to_string()),
                Shown::Handle(handle) => lines.add(name, handle),
            });
        }
        session::Shown { route, lines }
    }

    /// Appends what stands for a field in the context: what it stood for before is not made again.
    fn append(&self, dictionary: &mut String, session: &Session, index: FieldIndex, handles: &dyn Handles) {
        let Some(field) = self.schema.field(index) else { return };
        let member = |shown: Shown<'_>| structured::member(&field.path, shown);
        let text = match session.held(index) {
            Held::Value(held) => held.text(|| member(Shown::Value(&held.value))),
            Held::Sealed(held) => held.text(|| member(Shown::Handle(&handles.handle(session, &field.path)))),
            Held::Absent | Held::Unreadable => {
                let default = session.value(index, &self.schema).map(|default| member(Shown::Value(default)));
                return default.iter().for_each(|text| structured::append(dictionary, text));
            }
        };
        structured::append(dictionary, text);
    }

    /// Hands on what stands for a field: its value, its default, its handle, or nothing.
    fn show(&self, session: &Session, index: FieldIndex, handles: &dyn Handles, mut with: impl FnMut(&str, Shown<'_>)) {
        let Some(field) = self.schema.field(index) else { return };
        match session.held(index) {
            Held::Sealed(_) => with(&field.path, Shown::Handle(&handles.handle(session, &field.path))),
            _ => {
                if let Some(value) = session.value(index, &self.schema) {
                    with(&field.path, Shown::Value(value));
                }
            }
        }
    }

    /// Adds what every backend is told: who is before us, and by which names this exchange goes. What the head says of
    /// it itself is taken out.
    pub fn forward(&self, head: &mut Parts, stripped: &Stripped, lines: &mut Lines) {
        if stripped.was_named {
            head.headers.remove(X_REQUEST_ID);
        }
        stripped.forwarded.put(&mut head.headers, lines);
        lines.add(&X_REQUEST_ID, &*stripped.request_id);
        lines.add(&TRACEPARENT, &**stripped.trace.parent());
        if let Some(state) = stripped.trace.state() {
            lines.add(&TRACESTATE, state);
        }
        lines.add_ready(via(head.version));
        // `te` always, so that a backend may write back in trailers.
        match &stripped.upgrade {
            Some(upgrade) => {
                lines.add(&header::UPGRADE, upgrade);
                lines.add_ready("connection: upgrade, te\r\nte: trailers\r\n");
            }
            None => lines.add_ready("connection: te\r\nte: trailers\r\n"),
        }
    }
}

/// Makes field handles.
pub trait Handles {
    fn handle(&self, session: &Session, path: &str) -> String;
}

impl<F: Fn(&Session, &str) -> String> Handles for F {
    fn handle(&self, session: &Session, path: &str) -> String {
        self(session, path)
    }
}

fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "via: 2 cloakroom\r\n",
        Version::HTTP_10 => "via: 1.0 cloakroom\r\n",
        _ => "via: 1.1 cloakroom\r\n",
    }
}

/// The request id of a trusted peer if it is well-formed, else a new one.
fn request_id(headers: &HeaderMap, peer: Peer) -> Arc<str> {
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b))
    };
    let given = || headers::only(headers, &X_REQUEST_ID).ok().flatten()?.to_str().ok().filter(well_formed);
    match peer.trusted.then(given).flatten() {
        Some(id) => id.into(),
        None => trace::random_name(),
    }
}

fn compile(
    at: usize,
    route: &config::Route,
    config: &config::Config,
    schema: &Schema,
    (names, reserved): (&Names, &Reserved),
    problems: &mut Problems,
) -> RouteContext {
    let place = format!("/routes/{at}");
    for name in route.matches.headers.keys() {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        if parsed.is_ok_and(|name| reserved.covers(&name)) {
            let never = "no client can say this: it is taken out before a route is chosen";
            problems.error(format!("{place}/match/headers/{name}"), never);
        }
    }
    let read = schema.select(&route.read, &format!("{place}/read"), problems);
    let mut single: Vec<(HeaderName, FieldIndex)> = Vec::new();
    for (name, path) in &route.headers {
        let pointer = format!("{place}/headers/{name}");
        let index = schema.one(path, pointer.clone(), problems);
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(parsed) if is_taken(&parsed, names) => {
                problems.error(pointer, format!("'{name}' has a meaning of its own in HTTP and cannot carry a field"));
            }
            Ok(parsed) if single.iter().any(|(other, _)| headers::are_twins(other, &parsed)) => {
                problems.error(pointer, format!("backends take '{name}' for another header of this route"));
            }
            Ok(parsed) => single.extend(index.map(|index| (parsed, index))),
            Err(_) => problems.error(pointer, format!("'{name}' is not a header name")),
        }
    }
    check_worst_case(&place, (&read, &single), config, schema, problems);
    RouteContext { read, headers: single }
}

/// Names that a field may not be sent under.
fn is_taken(name: &HeaderName, names: &Names) -> bool {
    let fixed = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::COOKIE,
        header::AUTHORIZATION,
        header::VIA,
        header::CONTENT_TYPE,
        TRACEPARENT,
        TRACESTATE,
        X_REQUEST_ID,
    ];
    fixed.contains(name) || headers::is_forwarding(name) || Reserved::new(names, std::iter::empty()).is_ours(name)
}

/// Refuses a route whose headers might not fit: the smaller of the sum of its read fields and a whole session, plus
/// handles, defaults and single-field headers.
fn check_worst_case(
    place: &str,
    (read, headers): (&[FieldIndex], &[(HeaderName, FieldIndex)]),
    config: &config::Config,
    schema: &Schema,
    problems: &mut Problems,
) {
    let mut values = Vec::new();
    let mut fixed = 0;
    for index in read {
        let Some(field) = schema.field(*index) else { continue };
        if field.sensitive {
            fixed += field.path.len() + HANDLE_BYTES + 2;
        } else {
            values.push((field.max + 2, &field.path));
        }
        fixed += field.default.as_ref().map_or(0, |default| default.size(&field.path));
    }
    for (name, index) in headers {
        let Some(field) = schema.field(*index) else { continue };
        fixed += name.as_str().len() + if field.sensitive { HANDLE_BYTES } else { field.max };
    }
    let (limit, session) = (config.session.limits.context.bytes(), config.session.limits.session.bytes());
    let sum: usize = values.iter().map(|(size, _)| size).sum();
    let worst = sum.min(session) + fixed;
    if worst > limit {
        values.sort_unstable_by(|a, b| b.cmp(a));
        let largest: Vec<String> = values.iter().take(3).map(|(size, path)| format!("{path} ({size} B)")).collect();
        let named = if largest.is_empty() { String::new() } else { format!("; the largest: {}", largest.join(", ")) };
        problems.error(
            format!("{place}/read"),
            format!("this route's context may come to {worst} bytes, over limits.context ({limit} bytes){named}"),
        );
    }
}
