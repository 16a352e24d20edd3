//! Handles resolved for named callers: the one way by which a sensitive value leaves.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::handle::{FieldHandle, Handle};
use crate::session::{Action, Actor, ActorKind, LoadError};

use super::Admin;
use super::caller::Authorized;
use super::input;
use super::problem::{Kind, Problem};

/// A purpose is a line in the audit trail, not a document.
const PURPOSE_CHARACTERS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    handle: String,
    session: String,
    purpose: String,
}

#[derive(serde::Serialize)]
struct Resolved<'a> {
    value: &'a RawValue,
}

pub async fn resolve(
    State(admin): State<Arc<Admin>>,
    Authorized(caller): Authorized,
    input::Json(wanted): input::Json<Wanted>,
) -> Result<Response, Problem> {
    caller.take().map_err(Problem::rate_limited)?;
    let purpose = purpose(&wanted.purpose)?;
    let (session, field) = names(&wanted).ok_or_else(unknown)?;
    let sessions = &admin.sessions;
    let session = sessions.find(session).await.map_err(|error| match error {
        // A caller is not told whether a session is dead or was never there.
        LoadError::NotFound | LoadError::Revoked => unknown(),
        error => error.into(),
    })?;
    let index = sessions.field_of(&session, field).ok_or_else(unknown)?;
    let actor = Actor {
        name: Some(caller.name.clone()),
        purpose: Some(purpose.into()),
        user: session.user(),
        ..Actor::new(ActorKind::Caller)
    };
    if !caller.may_resolve(index) {
        sessions.audit_attempt(Some(&session), Action::Resolve, "forbidden", &actor);
        return Err(Problem::new(Kind::Forbidden, "This caller may not have that field's handles resolved."));
    }
    let plain = sessions.resolve(&session, index, &actor).await?.ok_or_else(unknown)?;
    let value: &RawValue = serde_json::from_str(&plain).map_err(|_| unknown())?;
    Ok(axum::Json(Resolved { value }).into_response())
}

fn names(wanted: &Wanted) -> Option<(Handle, FieldHandle)> {
    Some((Handle::parse(&wanted.session)?, FieldHandle::parse(&wanted.handle)?))
}

fn unknown() -> Problem {
    Problem::new(Kind::HandleNotFound, "That handle stands for nothing in that session.")
}

fn purpose(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    let sound = (1..=PURPOSE_CHARACTERS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    let unfit = || Problem::unprocessable("A purpose is 1 to 256 characters on one line.");
    if sound { Ok(text) } else { Err(unfit()) }
}
