//! What a backend says in its response: read, checked against what its route permits, made a proposal.

#[cfg(test)]
mod tests;

use http::header::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, Item, List, ListEntry};

use crate::config::{self, Problems, SessionUse};
use crate::headers::{Names, Reserved};
use crate::route::RouteIndex;
use crate::session::{FieldIndex, Misfit, Proposal, Schema, Session, fits_at_birth, is_path};
use crate::structured::{Unfit, Value};

/// All write-back headers of one response together.
const WRITE_BACK_BYTES: usize = 64 << 10;

/// What each route's backend may write.
pub struct Permissions(Vec<Permission>);

struct Permission {
    write: Vec<FieldIndex>,
    start: Option<StartPermission>,
    end: bool,
}

/// How a route starts sessions.
#[derive(Debug)]
pub struct StartPermission {
    /// How a new id travels when none came.
    pub id: config::IdChoice,
    /// What an anonymous session hands on.
    pub carry: Vec<FieldIndex>,
}

/// The write-back headers of a response, taken out of it and not looked into.
#[derive(Default)]
pub struct Collected {
    set: Option<Vec<u8>>,
    unset: Option<Vec<u8>>,
    if_match: Option<Vec<u8>>,
    start: Option<Vec<u8>>,
    rotate: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
}

/// Nothing of what stands in them.
impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}

/// Where in a response the write-back stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Head,
    Trailers,
}

/// What a backend asks for, once it was found permissible.
#[derive(Debug)]
pub enum Wish {
    Nothing,
    Change(Proposal),
    Start(Vec<(FieldIndex, Value)>),
}

/// Why a write-back is refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("{0} does not parse")]
    Unparsable(HeaderName),
    #[error("the schema has no field '{0}'")]
    Unknown(String),
    #[error("field '{field}' {misfit}")]
    Misfit { field: String, misfit: Misfit },
    #[error("the route may not write field '{0}'")]
    NotPermitted(String),
    #[error("field '{0}' is both set and unset")]
    SetAndUnset(String),
    #[error("{0} is not permitted here")]
    NotHere(HeaderName),
    #[error("a session cannot be started and changed at once")]
    StartAndChange,
    #[error("there is no session to change")]
    NoSession,
    #[error("the session would be over its size")]
    SessionTooLarge,
    #[error("the write-back is over {WRITE_BACK_BYTES} bytes")]
    TooLarge,
}

impl Permissions {
    pub fn compile(routes: &[config::Route], schema: &Schema, problems: &mut Problems) -> Self {
        Self((0..).zip(routes).map(|(at, route)| compile(at, route, schema, problems)).collect())
    }

    /// How a route starts sessions, if it may.
    pub fn start(&self, route: RouteIndex) -> Option<&StartPermission> {
        self.0.get(route.position())?.start.as_ref()
    }

    /// The fields that a route may write.
    pub fn write(&self, route: RouteIndex) -> &[FieldIndex] {
        self.0.get(route.position()).map_or(&[], |permission| &permission.write)
    }

    /// Whether a route may end sessions.
    pub fn end(&self, route: RouteIndex) -> bool {
        self.0.get(route.position()).is_some_and(|permission| permission.end)
    }
}

fn compile(at: usize, route: &config::Route, schema: &Schema, problems: &mut Problems) -> Permission {
    let place = format!("/routes/{at}");
    let mut write = schema.select(&route.write, &format!("{place}/write"), problems);
    for (n, name) in route.write.iter().enumerate() {
        if schema.find(name).is_some_and(|(_, field)| !field.writable) {
            problems
                .error(format!("{place}/write/{n}"), format!("'{name}' is writable: false, and no backend may set it"));
        }
    }
    write.retain(|index| schema.field(*index).is_some_and(|field| field.writable));
    let read = schema.select(&route.read, "", &mut Problems::default());
    for section in schema.sections(&write) {
        if !schema.sections(&read).contains(section) {
            problems.warning(
                format!("{place}/write"),
                format!("the route may write section '{section}', none of which it can read"),
            );
        }
    }
    let start = match &route.start {
        config::Start::Allowed(false) => None,
        config::Start::Allowed(true) => Some(StartPermission { id: config::IdChoice::Cookie, carry: Vec::new() }),
        config::Start::With(options) => {
            let carry = schema.select(&options.carry, &format!("{place}/start/carry"), problems);
            Some(StartPermission { id: options.id, carry })
        }
    };
    if start.is_some() && route.session == SessionUse::None {
        problems.error(format!("{place}/start"), "a route without sessions cannot start one");
    }
    Permission { write, start, end: route.end }
}

impl Collected {
    /// Takes everything under the prefix out of a response's head or trailers.
    pub fn take(headers: &mut HeaderMap, names: &Names, reserved: &Reserved) -> Self {
        let ours: Vec<HeaderName> = headers.keys().filter(|name| reserved.is_ours(name)).cloned().collect();
        let mut collected = Self::default();
        for name in ours {
            if let Some(place) = collected.place(&name, names) {
                *place = Some(lines(headers, &name));
            }
            headers.remove(name);
        }
        collected
    }

    /// Where what stands under a name belongs; nowhere, if it means nothing in a response.
    fn place(&mut self, name: &HeaderName, names: &Names) -> Option<&mut Option<Vec<u8>>> {
        let places = [
            (&names.set, &mut self.set),
            (&names.unset, &mut self.unset),
            (&names.if_match, &mut self.if_match),
            (&names.start, &mut self.start),
            (&names.rotate, &mut self.rotate),
            (&names.end, &mut self.end),
        ];
        places.into_iter().find_map(|(known, place)| (name == known).then_some(place))
    }

    pub fn is_empty(&self) -> bool {
        self.parts().all(|part| part.is_none())
    }

    /// Whether it asks for the session to be ended, or for another in its place.
    pub fn ends_session(&self) -> bool {
        self.start.is_some() || self.end.is_some()
    }

    fn parts(&self) -> impl Iterator<Item = Option<&Vec<u8>>> {
        [&self.set, &self.unset, &self.if_match, &self.start, &self.rotate, &self.end].into_iter().map(Option::as_ref)
    }
}

/// All lines of a header, combined as structured fields are.
fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    lines.join(&b", "[..])
}

/// Checks what was collected: all of it holds, or none of it counts.
pub struct Checker<'a> {
    pub names: &'a Names,
    pub schema: &'a Schema,
    pub permissions: &'a Permissions,
    pub route: RouteIndex,
    /// Whether a token decided, which no new id can take the place of.
    pub by_token: bool,
    /// Whether others may have written since the session was read: then what looks like no change may be one.
    pub keep_all: bool,
}

/// What no session is ever at: creation makes the first.
const NO_REVISION: u64 = 0;

impl Checker<'_> {
    pub fn check(&self, collected: &Collected, part: Part, session: Option<&Session>) -> Result<Wish, Rejection> {
        if collected.parts().flatten().map(Vec::len).sum::<usize>() > WRITE_BACK_BYTES {
            return Err(Rejection::TooLarge);
        }
        let rotate = self.flag(&self.names.rotate, collected.rotate.as_deref())?;
        let end = self.flag(&self.names.end, collected.end.as_deref())?;
        self.only_in_head(collected, part)?;
        if rotate && self.by_token {
            return Err(Rejection::NotHere(self.names.rotate.clone()));
        }
        if let Some(start) = &collected.start {
            let others = [&collected.set, &collected.unset, &collected.if_match, &collected.rotate, &collected.end];
            if others.into_iter().any(Option::is_some) {
                return Err(Rejection::StartAndChange);
            }
            return self.start(start).map(Wish::Start);
        }
        if end && !self.permissions.end(self.route) {
            return Err(Rejection::NotHere(self.names.end.clone()));
        }
        let proposal = Proposal {
            set: self.set(collected.set.as_deref())?,
            unset: self.unset(collected.unset.as_deref())?,
            if_match: self.if_match(collected.if_match.as_deref())?,
            rotate,
            end,
        };
        if let Some((index, _)) = proposal.set.iter().find(|(index, _)| proposal.unset.contains(index)) {
            return Err(Rejection::SetAndUnset(self.path(*index)));
        }
        if proposal.is_empty() && collected.set.is_none() && collected.unset.is_none() {
            return Ok(Wish::Nothing);
        }
        let session = session.ok_or(Rejection::NoSession)?;
        let proposal = if self.keep_all { proposal } else { proposal.against(session, self.schema) };
        if !proposal.set.is_empty() && !proposal.fits(session, self.schema) {
            return Err(Rejection::SessionTooLarge);
        }
        Ok(if proposal.is_empty() { Wish::Nothing } else { Wish::Change(proposal) })
    }

    fn only_in_head(&self, collected: &Collected, part: Part) -> Result<(), Rejection> {
        if part == Part::Head {
            return Ok(());
        }
        let head_only = [
            (&collected.start, &self.names.start),
            (&collected.rotate, &self.names.rotate),
            (&collected.end, &self.names.end),
        ];
        match head_only.into_iter().find(|(value, _)| value.is_some()) {
            Some((_, name)) => Err(Rejection::NotHere(name.clone())),
            None => Ok(()),
        }
    }

    fn path(&self, index: FieldIndex) -> String {
        self.schema.field(index).map(|field| field.path.to_string()).unwrap_or_default()
    }

    fn flag(&self, name: &HeaderName, value: Option<&[u8]>) -> Result<bool, Rejection> {
        let Some(value) = value else { return Ok(false) };
        let item: Item = parse(name, value)?;
        item.bare_item.as_boolean().ok_or_else(|| Rejection::Unparsable(name.clone()))
    }

    /// The revision that an entity tag names: it is compared as it is written, and one that is no revision's names none.
    fn if_match(&self, value: Option<&[u8]>) -> Result<Option<u64>, Rejection> {
        let name = &self.names.if_match;
        let Some(value) = value else { return Ok(None) };
        let item: Item = parse(name, value)?;
        let tag = item.bare_item.as_string().ok_or_else(|| Rejection::Unparsable(name.clone()))?.as_str();
        let named = tag.parse().ok().filter(|revision: &u64| revision.to_string() == tag);
        Ok(Some(named.unwrap_or(NO_REVISION)))
    }

    fn set(&self, value: Option<&[u8]>) -> Result<Vec<(FieldIndex, Value)>, Rejection> {
        let Some(value) = value else { return Ok(Vec::new()) };
        let members: Dictionary = parse(&self.names.set, value)?;
        members
            .into_iter()
            .map(|(key, member)| self.writable(key.as_str(), Some(member)))
            .map(|write| write.map(valued))
            .collect()
    }

    fn unset(&self, value: Option<&[u8]>) -> Result<Vec<FieldIndex>, Rejection> {
        let Some(value) = value else { return Ok(Vec::new()) };
        let members: List = parse(&self.names.unset, value)?;
        let unparsable = || Rejection::Unparsable(self.names.unset.clone());
        let mut fields = Vec::new();
        for member in members {
            let ListEntry::Item(item) = member else { return Err(unparsable()) };
            let name = match &item.bare_item {
                BareItem::Token(token) => token.as_str(),
                BareItem::String(text) => text.as_str(),
                _ => return Err(unparsable()),
            };
            let (index, _) = self.writable(name, None)?;
            if !fields.contains(&index) {
                fields.push(index);
            }
        }
        Ok(fields)
    }

    /// A field that this route's backend may write, with the value for it if there is one.
    fn writable(&self, name: &str, member: Option<ListEntry>) -> Result<(FieldIndex, Option<Value>), Rejection> {
        let (index, _) = self.schema.find(name).ok_or_else(|| Rejection::Unknown(shortened(name)))?;
        if !self.permissions.write(self.route).contains(&index) {
            return Err(Rejection::NotPermitted(name.to_owned()));
        }
        Ok((index, member.map(|member| self.fit(index, name, member)).transpose()?))
    }

    fn fit(&self, index: FieldIndex, name: &str, member: ListEntry) -> Result<Value, Rejection> {
        let misfit = |misfit| Rejection::Misfit { field: name.to_owned(), misfit };
        let value = Value::from_member(member).map_err(|unfit| match unfit {
            Unfit::Token => misfit(Misfit::Handle),
            Unfit::Type => misfit(Misfit::Type),
        })?;
        let field = self.schema.field(index).ok_or_else(|| Rejection::Unknown(shortened(name)))?;
        field.fit(value).map_err(misfit)
    }

    /// The fields of a new session: any of the schema's, also those that are not writable afterwards.
    fn start(&self, value: &[u8]) -> Result<Vec<(FieldIndex, Value)>, Rejection> {
        if self.permissions.start(self.route).is_none() {
            return Err(Rejection::NotHere(self.names.start.clone()));
        }
        let members: Dictionary = parse(&self.names.start, value)?;
        let mut values = Vec::new();
        for (key, member) in members {
            let (index, _) =
                self.schema.find(key.as_str()).ok_or_else(|| Rejection::Unknown(shortened(key.as_str())))?;
            values.push((index, self.fit(index, key.as_str(), member)?));
        }
        if fits_at_birth(&values, self.schema) { Ok(values) } else { Err(Rejection::SessionTooLarge) }
    }
}

fn valued((index, value): (FieldIndex, Option<Value>)) -> (FieldIndex, Value) {
    // A member was given, so a value came of it.
    (index, value.unwrap_or(Value::List(Vec::new())))
}

fn parse<T: sfv::FieldType>(name: &HeaderName, value: &[u8]) -> Result<T, Rejection> {
    sfv::Parser::new(value).parse().map_err(|_| Rejection::Unparsable(name.clone()))
}

/// A name that a backend made up is told only where it could be a field's: it may be anything, a value too.
fn shortened(name: &str) -> String {
    if is_path(name) { name.to_owned() } else { "…".to_owned() }
}
