//! Which route takes a request.

mod path;

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::config::{self, PathType, Problems};
use crate::headers;

pub use path::{Malformed, check_target};

/// Where a route stands in the file, and in every room's own list of what it made of the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteIndex(usize);

impl RouteIndex {
    pub fn position(self) -> usize {
        self.0
    }
}

/// A route's name and pattern; what the other rooms do on it they know themselves.
#[derive(Debug)]
pub struct Route {
    pub index: RouteIndex,
    pub name: Arc<str>,
    /// Empty: any.
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What is cut off the path before it is forwarded.
    strip: Option<String>,
}

impl Route {
    /// The path and query for the backend.
    pub fn rewritten<'a>(&self, path_and_query: &'a str) -> std::borrow::Cow<'a, str> {
        let rest = self.strip.as_deref().and_then(|prefix| path_and_query.strip_prefix(prefix));
        match rest {
            None => path_and_query.into(),
            Some(rest) if rest.starts_with('/') => rest.into(),
            Some(rest) => format!("/{rest}").into(),
        }
    }

    fn takes_headers(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|(name, value)| headers::only(headers, name) == Ok(Some(value)))
    }

    fn takes_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

/// What a route whose host and path match makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Takes,
    OtherMethod,
    OtherHeaders,
}

/// Why no route takes a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("the request is malformed: {0}")]
    Malformed(Malformed),
    #[error("no route takes this host and path")]
    NotFound,
    #[error("no route takes this method here")]
    MethodNotAllowed { allow: String },
}

impl From<Malformed> for RouteError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// All routes, arranged so that a request is matched without looking at each.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Arc<Route>>,
    exact_hosts: HashMap<String, Paths>,
    /// By the part behind the asterisk, dot included.
    wildcard_hosts: HashMap<String, Paths>,
    any_host: Paths,
}

/// The routes of one host pattern, the more specific first within each list.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<String, Vec<Arc<Route>>>,
    /// Without a trailing slash, so `""` for `/`.
    prefix: HashMap<String, Vec<Arc<Route>>>,
}

impl Table {
    pub fn compile(routes: &[config::Route], problems: &mut Problems) -> Self {
        let mut table = Self {
            routes: Vec::with_capacity(routes.len()),
            exact_hosts: HashMap::new(),
            wildcard_hosts: HashMap::new(),
            any_host: Paths::default(),
        };
        for (at, raw) in routes.iter().enumerate() {
            let route = Arc::new(compile(RouteIndex(at), raw, problems));
            table.routes.push(route.clone());
            let host = raw.matches.host.as_deref().unwrap_or("*").to_ascii_lowercase();
            let paths = match host.strip_prefix('*') {
                Some("") => &mut table.any_host,
                Some(suffix) => table.wildcard_hosts.entry(suffix.to_owned()).or_default(),
                None => table.exact_hosts.entry(host).or_default(),
            };
            paths.add(raw, route);
        }
        table
    }

    /// All routes, in the order of the file.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The most specific route that takes this request, after its target and host were found to be sound.
    ///
    /// Host before path before method before headers before the order in the file, as in the Gateway API.
    pub fn select(&self, head: &Parts) -> Result<&Arc<Route>, RouteError> {
        self.select_as(head, &head.method)
    }

    /// The same for a CORS preflight, which is routed by the method that it asks for.
    ///
    /// A path that another reading of it would send elsewhere is refused: the backend may read it so.
    pub fn select_as(&self, head: &Parts, method: &Method) -> Result<&Arc<Route>, RouteError> {
        check_target(head)?;
        let host = path::host(head)?;
        let path = path_to_match(head);
        let chosen = self.select_path(head, method, &host, path);
        if path::is_plain(path) {
            return chosen;
        }
        for reading in path::other_readings(path) {
            let other = self.select_path(head, method, &host, &reading);
            let index = |found: &Result<&Arc<Route>, RouteError>| found.as_ref().map(|route| route.index).ok();
            if index(&chosen) != index(&other) {
                return Err(Malformed::Path.into());
            }
        }
        chosen
    }

    fn select_path(&self, head: &Parts, method: &Method, host: &str, path: &str) -> Result<&Arc<Route>, RouteError> {
        let mut other_methods: Vec<&Method> = Vec::new();
        for candidate in self.matching(host, path) {
            if !candidate.takes_headers(&head.headers) {
                continue;
            }
            if candidate.takes_method(method) {
                return Ok(candidate);
            }
            other_methods.extend(&candidate.methods);
        }
        if other_methods.is_empty() {
            return Err(RouteError::NotFound);
        }
        let mut names: Vec<&str> = other_methods.iter().map(|method| method.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        Err(RouteError::MethodNotAllowed { allow: names.join(", ") })
    }

    /// Every route whose host and path match, the most specific first, with what it makes of the rest: for those who
    /// ask why. The first that takes the request is the one that [`Table::select_as`] gives.
    pub fn weigh(&self, head: &Parts, method: &Method) -> Result<Vec<(&Arc<Route>, Fit)>, RouteError> {
        check_target(head)?;
        let host = path::host(head)?;
        let fit = |route: &Arc<Route>| match (route.takes_headers(&head.headers), route.takes_method(method)) {
            (false, _) => Fit::OtherHeaders,
            (true, false) => Fit::OtherMethod,
            (true, true) => Fit::Takes,
        };
        Ok(self.matching(&host, path_to_match(head)).map(|route| (route, fit(route))).collect())
    }

    fn matching<'a, 'h>(&'a self, host: &'h str, path: &'h str) -> impl Iterator<Item = &'a Arc<Route>> + use<'a, 'h> {
        self.hosts(host).flat_map(|paths| paths.candidates(path)).flatten()
    }

    fn hosts<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a Paths> + use<'a, 'h> {
        let exact = self.exact_hosts.get(host);
        let dots = host.match_indices('.').filter_map(|(dot, _)| host.get(dot..));
        let wildcard = dots.filter_map(|suffix| self.wildcard_hosts.get(suffix));
        exact.into_iter().chain(wildcard).chain(std::iter::once(&self.any_host))
    }
}

/// `OPTIONS *` asks of the server as a whole, which is what the root stands for.
fn path_to_match(head: &Parts) -> &str {
    Some(head.uri.path()).filter(|path| *path != "*").unwrap_or("/")
}

impl Paths {
    fn add(&mut self, raw: &config::Route, route: Arc<Route>) {
        let path = raw.matches.path.as_deref().unwrap_or("/");
        let routes = match raw.matches.path_type {
            PathType::Exact => self.exact.entry(path.to_owned()),
            PathType::Prefix => self.prefix.entry(path.trim_end_matches('/').to_owned()),
        }
        .or_default();
        routes.push(route);
        // Stable: what is equal stays in the order of the file.
        routes.sort_by_key(|route| (route.methods.is_empty(), std::cmp::Reverse(route.headers.len())));
    }

    /// Lists of routes whose path pattern matches, the more specific first.
    fn candidates<'a, 'p>(&'a self, path: &'p str) -> impl Iterator<Item = &'a Vec<Arc<Route>>> + use<'a, 'p> {
        let exact = self.exact.get(path);
        let whole = std::iter::once(path.trim_end_matches('/'));
        let shorter = path.trim_end_matches('/').rmatch_indices('/').filter_map(|(slash, _)| path.get(..slash));
        let mut before = None;
        let prefixes = whole.chain(shorter).filter(move |prefix| before.replace(*prefix) != Some(*prefix));
        exact.into_iter().chain(prefixes.filter_map(|prefix| self.prefix.get(prefix)))
    }
}

fn compile(index: RouteIndex, raw: &config::Route, problems: &mut Problems) -> Route {
    let at = format!("/routes/{}/match", index.0);
    let mut methods = Vec::new();
    for (n, method) in raw.matches.methods.iter().enumerate() {
        match Method::from_bytes(method.as_bytes()) {
            Ok(Method::CONNECT) => problems.error(format!("{at}/methods/{n}"), "CONNECT is never proxied"),
            Ok(method) => methods.push(method),
            Err(_) => problems.error(format!("{at}/methods/{n}"), format!("'{method}' is not a method")),
        }
    }
    let mut wanted = Vec::new();
    for (name, value) in &raw.matches.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), _) if headers::is_forwarding(&name) => problems.error(
                format!("{at}/headers/{name}"),
                format!("'{name}' says what stood before the peer, and no decision rests on that"),
            ),
            (Ok(name), _) if [header::AUTHORIZATION, header::COOKIE, header::CONNECTION].contains(&name) => problems
                .error(
                    format!("{at}/headers/{name}"),
                    format!(
                        "'{name}' is not for matching: credentials and hop-by-hop fields are taken out of the request"
                    ),
                ),
            (Ok(name), Ok(value)) => wanted.push((name, value)),
            _ => problems.error(
                format!("{at}/headers/{name}"),
                format!("'{name}' cannot be matched: no such header is possible"),
            ),
        }
    }
    let strip = raw.rewrite.strip_prefix.then(|| raw.matches.path.clone().unwrap_or_default());
    if raw.rewrite.strip_prefix && raw.matches.path_type == PathType::Exact {
        problems.error(format!("/routes/{}/rewrite/strip_prefix", index.0), "an exact path has no prefix to strip");
    }
    let strip = strip.map(|prefix| prefix.trim_end_matches('/').to_owned()).filter(|prefix| !prefix.is_empty());
    Route { index, name: raw.name.as_str().into(), methods, headers: wanted, strip }
}
