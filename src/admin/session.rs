//! Sessions, one at a time and by user.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::config;
use crate::handle::Handle;
use crate::session::{Action, Actor, ActorKind, CommitError, Lifetime, Proposal, Session};

use super::caller::Operator;
use super::input::{self, IfMatch, Named};
use super::problem::{FieldError, Problem};
use super::{Admin, fields};

/// How often a patch without `If-Match` is tried again when another writer was first.
const TRIES: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    #[serde(default)]
    fields: Map<String, Json>,
    #[serde(default)]
    lifetime: NewLifetime,
}

/// What is not given is as configured.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLifetime {
    idle: Option<config::Period>,
    absolute: Option<config::Period>,
}

/// A session as it is shown.
#[derive(Serialize)]
pub struct Document {
    session: Handle,
    schema: u32,
    revision: u64,
    created_at: String,
    last_active_at: String,
    expires_at: String,
    fields: Map<String, Json>,
}

impl Document {
    pub fn of(admin: &Admin, session: &Session) -> Self {
        Self {
            session: session.handle(),
            schema: session.schema_version(),
            revision: session.revision(),
            created_at: session.created_at().to_string(),
            last_active_at: session.last_active().to_string(),
            expires_at: session.expires_at().to_string(),
            fields: fields::shown(&admin.sessions, session),
        }
    }
}

fn tag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn operator() -> Actor {
    Actor::new(ActorKind::Admin)
}

pub async fn create(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    input::Json(new): input::Json<New>,
) -> Result<Response, Problem> {
    let lifetime = lifetime(admin.sessions.lifetime(), &new.lifetime)?;
    let values = fields::values(&admin.sessions.schema, &new.fields)?;
    let created = admin.sessions.create(&values, lifetime, &operator()).await?;
    let id = created.id.reveal();
    let cookie = admin.cookie.as_ref().and_then(|cookie| cookie.set(&id));
    let body = json!({
        "session_id": *id,
        "session": created.id.handle(),
        "revision": 1,
        "expires_at": created.born.expires_at.to_string(),
        "set_cookie": cookie.as_ref().and_then(|cookie| cookie.to_str().ok()),
    });
    let head = [(LOCATION, format!("/v1/sessions/{}", created.id.handle())), (ETAG, tag(1))];
    Ok((StatusCode::CREATED, head, axum::Json(body)).into_response())
}

fn lifetime(configured: Lifetime, asked: &NewLifetime) -> Result<Lifetime, Problem> {
    if [asked.idle, asked.absolute].into_iter().flatten().any(|period| period.0.is_zero()) {
        return Err(Problem::unprocessable("A lifetime is longer than nothing."));
    }
    let absolute = asked.absolute.map_or(configured.absolute, |period| period.0);
    let Some(idle) = asked.idle else { return Ok(Lifetime { absolute, ..configured }) };
    let absolute = config::Period(absolute);
    Ok(Lifetime::compile(&config::Lifetime { idle, absolute, touch_interval: None }))
}

pub async fn show(State(admin): State<Arc<Admin>>, _: Operator, Named(handle): Named) -> Result<Response, Problem> {
    let session = admin.sessions.find(handle).await?;
    Ok(shown(&admin, &session))
}

fn shown(admin: &Admin, session: &Session) -> Response {
    ([(ETAG, tag(session.revision()))], axum::Json(Document::of(admin, session))).into_response()
}

pub async fn patch(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    Named(handle): Named,
    headers: HeaderMap,
    input::Json(patch): input::Json<Map<String, Json>>,
) -> Result<Response, Problem> {
    let wanted = IfMatch::of(&headers)?;
    for _ in 0..TRIES {
        let session = admin.sessions.find(handle).await?;
        let proposal = proposal(&admin, &session, &patch, wanted.as_ref())?;
        if proposal.is_empty() {
            return Ok(shown(&admin, &session));
        }
        let pinned = proposal.if_match.is_some();
        let actor = Actor { user: session.user(), ..operator() };
        match admin.sessions.commit(&session, session.base(None), &proposal, Action::AdminWrite, &actor).await {
            Ok(_) => return Ok(shown(&admin, &admin.sessions.find(handle).await?)),
            // Nothing was said of what the patch was based on: it is applied to what stands there now.
            Err(CommitError::Conflict(_)) if !pinned => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::conflict())
}

/// What a patch of the whole document proposes, once it was found to fit.
fn proposal(
    admin: &Admin,
    session: &Session,
    patch: &Map<String, Json>,
    wanted: Option<&IfMatch>,
) -> Result<Proposal, Problem> {
    let (sessions, schema) = (&admin.sessions, &admin.sessions.schema);
    let if_match = match wanted {
        Some(IfMatch::OneOf(revisions)) if revisions.contains(&session.revision()) => Some(session.revision()),
        Some(IfMatch::OneOf(_)) => return Err(Problem::conflict()),
        Some(IfMatch::Any) | None => None,
    };
    let mut errors = beside_fields(admin, session, patch);
    let proposed = match patch.get("fields") {
        Some(Json::Object(fields)) => fields::proposal(sessions, session, fields),
        Some(_) => Err(vec![FieldError { field: "fields".into(), detail: "is an object".into() }]),
        None => Ok(Proposal::default()),
    };
    let proposed = proposed.unwrap_or_else(|more| {
        errors.extend(more);
        Proposal::default()
    });
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let proposal = Proposal { if_match, ..proposed }.against(session, schema);
    let grows = !proposal.set.is_empty();
    if grows && !proposal.fits(session, schema) { Err(fields::too_large()) } else { Ok(proposal) }
}

/// Members beside the fields: they may stand in a patch, but not change.
fn beside_fields(admin: &Admin, session: &Session, patch: &Map<String, Json>) -> Vec<FieldError> {
    let document = serde_json::to_value(Document::of(admin, session)).unwrap_or_default();
    let differs = |name: &str, value: &Json| document.get(name).unwrap_or(&Json::Null) != value;
    let others = patch.iter().filter(|(name, value)| *name != "fields" && differs(name, value));
    let refused = |name: &String| FieldError {
        field: name.chars().take(64).collect(),
        detail: "cannot be changed: only fields may".into(),
    };
    others.map(|(name, _)| refused(name)).collect()
}

pub async fn revoke(State(admin): State<Arc<Admin>>, _: Operator, Named(handle): Named) -> Result<StatusCode, Problem> {
    match admin.sessions.revoke(handle, None, &operator()).await {
        // Gone is gone, whoever was first.
        Ok(()) | Err(CommitError::NotFound | CommitError::Revoked) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(error.into()),
    }
}
