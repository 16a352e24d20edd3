//! What requests carry, read with bounds: names in paths, queries, bodies.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::clock::Time;
use crate::handle::Handle;

use super::Admin;
use super::problem::{Kind, Problem};

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The session that the path names.
pub struct Named(pub Handle);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Problem::no_session())?;
        Handle::parse(&text).map(Self).ok_or_else(Problem::no_session)
    }
}

/// The query, of which every parameter is known.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let malformed = |_| Problem::new(Kind::RequestMalformed, "The query has parameters that mean nothing here.");
        Query::from_request_parts(parts, state).await.map(|Query(query)| Self(query)).map_err(malformed)
    }
}

/// A JSON body of that shape.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let bytes = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, admin)).await;
        let late = |_| Problem::new(Kind::RequestMalformed, "The body did not come in time.");
        let bytes = bytes.map_err(late)?.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Kind::ContentTooLarge, "The body is over 64 KiB."),
            _ => Problem::new(Kind::RequestMalformed, "The body broke off."),
        })?;
        parse(&bytes).map(Self)
    }
}

/// A body of no stated type is taken for JSON, as tools often leave it out.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(stated) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence = stated.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" | "application/merge-patch+json" => Ok(()),
        // `curl -d` says so of whatever it sends. A page of a foreign origin may say it too, and has no token to go with it.
        "application/x-www-form-urlencoded" if headers.contains_key(AUTHORIZATION) => Ok(()),
        _ => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "Bodies are application/json or application/merge-patch+json.",
        )),
    }
}

/// The parser's own words may quote the body, which may be secret: only the place is told.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        match inner.classify() {
            Category::Data => misshapen(&path),
            Category::Syntax | Category::Eof | Category::Io => unparsable(inner),
        }
    })?;
    reader.end().map_err(|error| unparsable(&error))?;
    // Members without names would be taken for those of the same place.
    if bytes.trim_ascii_start().starts_with(b"{") { Ok(parsed) } else { Err(misshapen("")) }
}

fn unparsable(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    Problem::new(Kind::RequestMalformed, format!("The body is not JSON: line {line}, column {column}."))
}

fn misshapen(path: &str) -> Problem {
    let place: String = path.chars().take(64).collect();
    match place.as_str() {
        "." | "" | "?" => Problem::unprocessable("The body is not of the shape that this endpoint takes."),
        place => Problem::unprocessable(format!("The body is not of the shape that this endpoint takes, at {place}.")),
    }
}

/// A time in a request: Unix seconds or RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Moment(pub Time);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Seconds(u64),
    Text(String),
}

impl TryFrom<Written> for Moment {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Seconds(seconds) => Some(Time(seconds.saturating_mul(1000))),
            Written::Text(text) => Time::parse(&text),
        }
        .map(Self)
        .ok_or("a time is Unix seconds or RFC 3339")
    }
}

/// The revisions that `If-Match` lets a change be based on.
#[derive(Debug, PartialEq, Eq)]
pub enum IfMatch {
    Any,
    /// Tags that are no revision of ours are left out: they match nothing.
    OneOf(Vec<u64>),
}

impl IfMatch {
    /// Reads the header (RFC 9110, section 13.1.1); none if it does not stand.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let malformed = || Problem::new(Kind::RequestMalformed, "If-Match is * or a list of entity tags.");
        let mut revisions = None;
        for line in headers.get_all(IF_MATCH) {
            let line = line.to_str().map_err(|_| malformed())?;
            if line.trim() == "*" {
                return Ok(Some(Self::Any));
            }
            for tag in line.split(',').map(str::trim) {
                let revision = tag_revision(tag).ok_or_else(malformed)?;
                revisions.get_or_insert_with(Vec::new).extend(revision);
            }
        }
        Ok(revisions.map(Self::OneOf))
    }
}

/// The revision that an entity tag names, if it is one of ours; a weak tag never matches here.
fn tag_revision(tag: &str) -> Option<Option<u64>> {
    let (weak, quoted) = tag.strip_prefix("W/").map_or((false, tag), |rest| (true, rest));
    let inner = quoted.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.contains('"'))?;
    let digits = !weak && inner.bytes().all(|byte| byte.is_ascii_digit());
    Some(inner.parse().ok().filter(|_| digits))
}

/// A member that may be left out, and is no null where it is there.
pub fn present<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(value: &str) -> Option<Option<IfMatch>> {
        let headers = [(IF_MATCH, value.parse().unwrap())].into_iter().collect();
        IfMatch::of(&headers).ok()
    }

    #[test]
    fn if_match_names_revisions() {
        assert_eq!(if_match("\"17\""), Some(Some(IfMatch::OneOf(vec![17]))));
        assert_eq!(if_match("\"17\", \"18\""), Some(Some(IfMatch::OneOf(vec![17, 18]))));
        assert_eq!(if_match("*"), Some(Some(IfMatch::Any)));
        for foreign in ["W/\"17\"", "\"abc\"", "\"+17\"", "\"\""] {
            assert_eq!(if_match(foreign), Some(Some(IfMatch::OneOf(vec![]))), "{foreign}");
        }
        for malformed in ["17", "\"17", "", "\"1\" \"2\""] {
            assert_eq!(if_match(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn times_are_unix_seconds_or_rfc_3339() {
        let read = |text: &str| serde_json::from_str::<Moment>(text).ok().map(|moment| moment.0);
        assert_eq!(read("1795421702"), Some(Time(1_795_421_702_000)));
        assert_eq!(read("\"2026-11-23T08:15:02Z\""), Some(Time(1_795_421_702_000)));
        for wrong in ["-1", "1.5", "\"yesterday\"", "null"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
