use std::collections::{BTreeSet, HashMap, HashSet};

use http::{HeaderName, HeaderValue, Method};

use super::address::is_host;
use super::{above_zero, header, limit, name, some, url};
use crate::config::{Config, IdChoice, Match, PathType, Problems, Route, SessionUse, Start, UpstreamTls, below};

pub(super) fn validate(config: &Config, problems: &mut Problems) {
    if config.routes.is_empty() {
        problems.error("/routes", "without a route every request is answered with 404");
    }
    let mut names = HashSet::new();
    let mut alike: HashMap<Criteria, Vec<(usize, &[String])>> = HashMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        let base = format!("/routes/{index}");
        name(&format!("{base}/name"), &route.name, problems);
        if !names.insert(&route.name) {
            problems.error(format!("{base}/name"), "another route has this name already");
        }
        let alike = alike.entry(Criteria::of(&route.matches)).or_default();
        if let Some((first, _)) = alike.iter().find(|(_, methods)| takes_all(methods, &route.matches.methods)) {
            let help = format!("`routes[{first}]` takes every request that this one matches");
            problems.error_with_help(format!("{base}/match"), "this route can never be chosen", help);
        }
        alike.push((index, &route.matches.methods));
        matches(&format!("{base}/match"), &route.matches, problems);
        upstream(&base, route, problems);
        session(&base, route, config, problems);
        start(&base, route, config, problems);
        headers(&format!("{base}/headers"), route, problems);
        bounds(&base, route, problems);
        limit::validate(&format!("{base}/rate_limits"), route, config.store.kind, problems);
    }
}

/// What a route matches, its methods aside.
#[derive(PartialEq, Eq, Hash)]
struct Criteria {
    host: Option<String>,
    path: (bool, String),
    headers: BTreeSet<(String, String)>,
}

impl Criteria {
    fn of(matches: &Match) -> Self {
        let path = match matches.path_type {
            PathType::Prefix => (true, matches.path.as_deref().unwrap_or("/").trim_end_matches('/').to_owned()),
            PathType::Exact => (false, matches.path.clone().unwrap_or_default()),
        };
        let header = |(name, value): (&String, &String)| (name.to_ascii_lowercase(), value.clone());
        Self {
            host: matches.host.as_deref().filter(|h| *h != "*").map(str::to_ascii_lowercase),
            path,
            headers: matches.headers.iter().map(header).collect(),
        }
    }
}

/// Whether a route with the earlier methods leaves nothing to one alike. Naming a method comes before naming none.
fn takes_all(earlier: &[String], later: &[String]) -> bool {
    earlier.is_empty() == later.is_empty() && later.iter().all(|m| earlier.contains(m))
}

fn matches(base: &str, matches: &Match, problems: &mut Problems) {
    let pattern = |host: &str| host == "*" || is_host(host.strip_prefix("*.").unwrap_or(host));
    if matches.host.as_deref().is_some_and(|host| !pattern(host)) {
        let help = "a host is `*`, `*.example.com` or `app.example.com`, without scheme and port";
        problems.error_with_help(format!("{base}/host"), "this is not a host", help);
    }
    if let Some(refusal) = matches.path.as_deref().and_then(path_refusal) {
        problems.error(format!("{base}/path"), refusal);
    }
    if matches.path.is_none() && matches.path_type == PathType::Exact {
        problems.error(format!("{base}/path_type"), "there is no path to match exactly");
    }
    for (index, method) in matches.methods.iter().enumerate() {
        if let Some(refusal) = method_refusal(method) {
            problems.error(format!("{base}/methods/{index}"), refusal);
        }
    }
    for (name, value) in &matches.headers {
        let path = below(&format!("{base}/headers"), name);
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            problems.error_at_key(path, "this is not a header name", None);
        } else if HeaderValue::from_str(value).is_err() {
            problems.error(path, "no header can have this value");
        }
    }
}

/// Requests whose path has any of this are answered with 400, before any route is looked for.
fn path_refusal(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("a path begins with `/`");
    }
    if path.contains(['?', '#']) {
        return Some("a path has no query and no fragment");
    }
    if path.contains('%') {
        return Some("a path is written here without escapes");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Some("a path has no `.` and `..` here");
    }
    let sound = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    (!sound).then_some("this character cannot stand in a path")
}

fn method_refusal(method: &str) -> Option<&'static str> {
    if Method::from_bytes(method.as_bytes()).is_err() {
        return Some("this is not a method");
    }
    if method.bytes().any(|b| b.is_ascii_lowercase()) {
        return Some("methods are written in capitals");
    }
    (method == "CONNECT").then_some("`CONNECT` is never forwarded")
}

fn upstream(base: &str, route: &Route, problems: &mut Problems) {
    let path = format!("{base}/upstream");
    match url::upstream_is_private(&route.upstream) {
        None => {
            let help = "an upstream is http, https or h2c with ://HOST or ://HOST:PORT and no path, or unix:/path";
            problems.error_with_help(path, "this is not an upstream", help);
        }
        Some(false) => problems.warning(path, "the session's context goes unencrypted to another host"),
        Some(true) => {}
    }
    if let Some(tls) = &route.upstream_tls {
        upstream_tls(&format!("{base}/upstream_tls"), route, tls, problems);
    }
    let path = route.matches.path.as_deref().filter(|p| *p != "/");
    let strippable = path.is_some() && route.matches.path_type == PathType::Prefix;
    if route.rewrite.strip_prefix && !strippable {
        let help = "give the route a `match.path` other than `/`, with `path_type: prefix`";
        problems.error_with_help(format!("{base}/rewrite/strip_prefix"), "there is no prefix to strip", help);
    }
    if route.login_url.as_deref().is_some_and(|u| !url::is_login_url(u)) {
        let help = "it is an http or https URL, or a path that begins with one `/`";
        problems.error_with_help(format!("{base}/login_url"), "browsers cannot be sent here", help);
    }
}

fn upstream_tls(base: &str, route: &Route, tls: &UpstreamTls, problems: &mut Problems) {
    if !route.upstream.starts_with("https://") {
        problems.error_with_help(base, "this upstream is not spoken to over TLS", "its URL begins with https://");
    }
    match (&tls.certificate, &tls.key) {
        (Some(_), None) => problems.error(format!("{base}/certificate"), "a certificate needs its `key`"),
        (None, Some(_)) => problems.error(format!("{base}/key"), "a key needs its `certificate`"),
        _ => {}
    }
}

fn session(base: &str, route: &Route, config: &Config, problems: &mut Problems) {
    let kinds = route.identity.as_deref().unwrap_or_default();
    for (index, kind) in kinds.iter().enumerate() {
        let path = format!("{base}/identity/{index}");
        if kinds.iter().take(index).any(|k| k == kind) {
            problems.error(path, "this kind is in the list already");
        } else if !config.identity.has(*kind) {
            let help = format!("configure it in `identity.{}`", kind.word());
            problems.error_with_help(path, "no credential of this kind is configured", help);
        }
    }
    if route.session != SessionUse::None {
        if route.identity.as_ref().is_some_and(Vec::is_empty) {
            problems.error(format!("{base}/identity"), "no credential counts on a route that needs one");
        }
        return;
    }
    let used = [
        ("read", !route.read.is_empty()),
        ("write", !route.write.is_empty()),
        ("require", !route.require.is_empty()),
        ("headers", !route.headers.is_empty()),
        ("start", !matches!(route.start, Start::Allowed(false))),
        ("end", route.end),
    ];
    for (key, _) in used.iter().filter(|(_, used)| *used) {
        let help = "set `session: required` or `session: optional`";
        problems.error_with_help(format!("{base}/{key}"), "this route has no session", help);
    }
}

/// A session that is started must be able to come back.
fn start(base: &str, route: &Route, config: &Config, problems: &mut Problems) {
    let choice = match &route.start {
        Start::Allowed(false) => return,
        Start::Allowed(true) => IdChoice::default(),
        Start::With(options) => options.id,
    };
    let ids = &config.identity.session_id;
    let path = format!("{base}/start");
    if choice == IdChoice::Cookie && ids.cookie.is_none() {
        let help = "set `start: { id: header }`, or allow a cookie in `identity.session_id`";
        problems.error_with_help(path, "the new id would travel in a cookie, and none is allowed", help);
    } else if choice == IdChoice::Header && !ids.bearer && ids.header.is_none() {
        let help = "allow bearer or a header in `identity.session_id`";
        problems.error_with_help(path, "the client would get an id that it cannot send", help);
    }
}

fn headers(base: &str, route: &Route, problems: &mut Problems) {
    let mut seen = HashSet::new();
    for name in route.headers.keys() {
        let path = below(base, name);
        if let Some(refusal) = header::refusal(name) {
            problems.error_at_key(path, refusal, None);
        } else if !seen.insert(name.to_ascii_lowercase()) {
            problems.error_at_key(path, "this header is set already", Some("header names know no case".into()));
        }
    }
}

fn bounds(base: &str, route: &Route, problems: &mut Problems) {
    let timeouts = &route.timeouts;
    let periods = [("connect", timeouts.connect), ("response", timeouts.response), ("idle", timeouts.idle)];
    above_zero(&format!("{base}/timeouts"), periods, problems);
    let bounds = [("concurrency", route.limits.concurrency as u64), ("head", route.limits.head.0)];
    some(&format!("{base}/limits"), bounds, problems);
}
