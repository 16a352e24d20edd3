//! An explanation for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::config::{self, PathType};

use super::super::visible;
use super::{Backend, Candidate, Chosen, Explanation, Found, Reading, Stripped};

const TITLE: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();

/// What a route matches, in words.
pub fn pattern(matches: &config::Match) -> String {
    let kind = match matches.path_type {
        PathType::Prefix => "prefix",
        PathType::Exact => "exactly",
    };
    let mut parts = Vec::new();
    parts.extend(matches.host.as_ref().filter(|host| *host != "*").map(|host| format!("host {host}")));
    parts.extend(matches.path.as_ref().map(|path| format!("path {kind} {path}")));
    if !matches.methods.is_empty() {
        parts.push(format!("method {}", matches.methods.join(" or ")));
    }
    parts.extend(matches.headers.iter().map(|(name, value)| format!("header {name}: {value}")));
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

/// What must hold of a session, condition by condition.
pub fn requirements(require: &IndexMap<String, Json>) -> Vec<String> {
    let condition = |(field, wanted): (&String, &Json)| match wanted {
        Json::Null => format!("{field} is absent"),
        wanted => format!("{field} is or holds {wanted}"),
    };
    require.iter().map(condition).collect()
}

pub fn put(out: &mut impl Write, told: &Explanation) -> io::Result<()> {
    writeln!(out, "{TITLE}{} {}{TITLE:#}", told.method, visible(&told.target))?;
    if let Some(refused) = &told.refused {
        writeln!(out, "{BAD}refused{BAD:#}: {} {}: {}", refused.status, refused.code, refused.reason)?;
    }
    candidates(out, &told.candidates)?;
    if let Some(route) = &told.route {
        chosen(out, route)?;
    }
    stripped(out, &told.stripped)?;
    if let Some(route) = &told.route {
        credentials(out, &told.credentials, route)?;
    }
    match (&told.backend, &told.route, &told.refused) {
        (Some(told), Some(route), None) => backend(out, told, route),
        _ => Ok(()),
    }
}

fn title(out: &mut impl Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{TITLE}{text}{TITLE:#}")
}

fn candidates(out: &mut impl Write, candidates: &[Candidate]) -> io::Result<()> {
    if candidates.is_empty() {
        return Ok(());
    }
    title(out, "routes whose host and path match, the most specific first")?;
    candidates.iter().try_for_each(|one| writeln!(out, "  {}  ({}): {}", one.name, one.pattern, one.verdict))
}

fn chosen(out: &mut impl Write, route: &Chosen) -> io::Result<()> {
    title(out, &format!("route {}", route.name))?;
    writeln!(out, "  forwarded to {} as {}", route.upstream, visible(&route.forwarded))?;
    writeln!(out, "  session {}", route.session)?;
    if route.preflight {
        writeln!(out, "  a CORS preflight: it passes without a session, and nothing is injected")?;
    }
    route.require.iter().try_for_each(|condition| writeln!(out, "  requires that {condition}, else 403"))
}

fn stripped(out: &mut impl Write, stripped: &[Stripped]) -> io::Result<()> {
    if stripped.is_empty() {
        return Ok(());
    }
    title(out, "taken out of the request")?;
    for one in stripped {
        let replaced = if one.replaced { "; cloakroom's own goes to the backend" } else { "" };
        writeln!(out, "  {}: {}{replaced}", one.header, one.reason)?;
    }
    Ok(())
}

fn credentials(out: &mut impl Write, found: &[Found], route: &Chosen) -> io::Result<()> {
    title(out, "credential")?;
    let without = match route.without_session() {
        Some(status) => format!("{status}"),
        None => "the request passes without a session".to_owned(),
    };
    if !found.iter().any(|one| one.decides) {
        let none = if found.is_empty() { "none came" } else { "none that decides came" };
        writeln!(out, "  {none}: {without}")?;
    }
    found.iter().try_for_each(|one| {
        let verdict = match one {
            Found { decides: false, .. } => "it decides nothing here".to_owned(),
            Found { well_formed: false, checked: None, .. } => format!("malformed: {without}"),
            Found { well_formed: false, .. } => "it decides, and is refused: 401".to_owned(),
            _ => format!("it decides; unless it proves a session: {without}"),
        };
        let forwarded = if one.forwarded { "; the backend gets it" } else { "" };
        let issuer = one.issuer.as_ref().map_or(String::new(), |issuer| format!(" of {issuer}"));
        writeln!(out, "  {}{issuer} ({}): {verdict}{forwarded}", one.kind, one.carrier)?;
        one.checked.iter().try_for_each(|checked| writeln!(out, "    {checked}"))
    })
}

fn backend(out: &mut impl Write, told: &Backend, route: &Chosen) -> io::Result<()> {
    title(out, "set on the request")?;
    writeln!(out, "  always: {}", told.forwarding.join(", "))?;
    if route.session != "none" && !route.preflight {
        writeln!(out, "  with a session: {}", told.context.join(", "))?;
        told.headers.iter().try_for_each(|one| {
            let header = one.header.as_deref().unwrap_or_default();
            writeln!(out, "  with a session: {header}, the {} of {}", one.shown_as, one.field)
        })?;
        writeln!(out, "  the context has: {}", listed(&told.reads.iter().map(reading).collect::<Vec<_>>()))?;
    }
    title(out, "the backend may")?;
    writeln!(out, "  write: {}", listed(&told.writes))?;
    let starts = match (told.starts, told.carries.as_slice()) {
        (false, _) => "no".to_owned(),
        (true, []) => "yes".to_owned(),
        (true, carries) => format!("yes, carrying {} over from an anonymous one", carries.join(", ")),
    };
    writeln!(out, "  start a session: {starts}")?;
    writeln!(out, "  end it: {}", if told.ends { "yes" } else { "no" })
}

fn reading(one: &Reading) -> String {
    match one.shown_as {
        "handle" => format!("{} (handle)", one.field),
        _ => one.field.clone(),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
