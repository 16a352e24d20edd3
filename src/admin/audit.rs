//! A session's trail, and whether it is whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::session::Verdict;

use super::Admin;
use super::caller::Operator;
use super::input::{Asked, Named};
use super::problem::{Kind, Problem};

/// Records of a page, if not told otherwise.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Where the page before said that the next begins.
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub struct Page {
    /// Byte for byte as they are kept, so that they can be verified elsewhere.
    records: Vec<Box<RawValue>>,
    next: Option<u64>,
}

pub async fn show(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    Named(handle): Named,
    Asked(Range { after, limit }): Asked<Range>,
) -> Result<Json<Page>, Problem> {
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::new(Kind::RequestMalformed, "limit is from 1 to 1000."));
    }
    let trail = admin.sessions.trail(handle, after, limit).await?;
    if trail.records.is_empty() && after.is_none() {
        // Every session's trail begins with its creation.
        admin.sessions.find(handle).await?;
    }
    let records = trail.records.into_iter().map(raw).collect::<Result<_, _>>();
    let records = records.map_err(|_| Problem::new(Kind::Internal, "A record of the trail cannot be shown."))?;
    Ok(Json(Page { records, next: trail.next }))
}

/// A record that is no JSON any more is shown as a text: somebody has altered it, and is to be found out.
fn raw(record: String) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(record.clone()).or_else(|_| serde_json::value::to_raw_value(&record))
}

pub async fn verify(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    Named(handle): Named,
) -> Result<Json<Verdict>, Problem> {
    let verdict = admin.sessions.verify(handle).await?;
    if verdict.records == 0 && !verdict.end_checked { Err(Problem::no_session()) } else { Ok(Json(verdict)) }
}
