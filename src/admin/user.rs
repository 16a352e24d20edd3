//! A user's sessions, and what is no longer to be believed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;

use crate::session::{Actor, ActorKind};

use super::Admin;
use super::caller::Operator;
use super::input::{self, Asked, Moment};
use super::problem::{Kind, Problem};
use super::session::Document;

/// Narrows a user to the one of that issuer; empty, to the one whose sessions no token made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    issuer: Option<String>,
}

#[derive(serde::Serialize)]
pub struct Listing {
    sessions: Vec<Document>,
}

pub async fn list(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    user: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Asked(Issued { issuer }): Asked<Issued>,
) -> Result<Json<Listing>, Problem> {
    let keys = admin.sessions.keys_of_user(issuer.as_deref(), &named(user)?);
    let sessions = admin.sessions.sessions_of(&keys).await?;
    Ok(Json(Listing { sessions: sessions.iter().map(|session| Document::of(&admin, session)).collect() }))
}

pub async fn revoke_all(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    user: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Asked(Issued { issuer }): Asked<Issued>,
) -> Result<StatusCode, Problem> {
    let keys = admin.sessions.keys_of_user(issuer.as_deref(), &named(user)?);
    admin.sessions.revoke_users(&keys, admin.sessions.now(), &Actor::new(ActorKind::Admin)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn named(user: Result<Path<String>, axum::extract::rejection::PathRejection>) -> Result<String, Problem> {
    let malformed =
        |_| Problem::new(Kind::RequestMalformed, "The user's name in the path is not percent-encoded UTF-8.");
    user.map(|Path(user)| user).map_err(malformed)
}

/// No token with a longer id is accepted.
const TOKEN_ID_BYTES: usize = 1024;

/// Of a user or of a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    user: Option<String>,
    issuer: Option<String>,
    not_before: Option<Moment>,
    jti: Option<String>,
    exp: Option<Moment>,
}

pub async fn revoke(
    State(admin): State<Arc<Admin>>,
    _: Operator,
    input::Json(revocation): input::Json<Revocation>,
) -> Result<StatusCode, Problem> {
    let Revocation { user, issuer, not_before, jti, exp } = revocation;
    match (user, jti) {
        (Some(user), None) if exp.is_none() => {
            let keys = admin.sessions.keys_of_user(issuer.as_deref(), &user);
            let not_before = not_before.map_or_else(|| admin.sessions.now(), |moment| moment.0);
            admin.sessions.revoke_users(&keys, not_before, &Actor::new(ActorKind::Admin)).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        (None, Some(jti)) if issuer.is_none() && not_before.is_none() => {
            let exp =
                exp.ok_or_else(|| Problem::unprocessable("A token is revoked until its exp, which is missing."))?;
            if !(1..=TOKEN_ID_BYTES).contains(&jti.len()) {
                return Err(Problem::unprocessable("A jti has 1 to 1024 bytes."));
            }
            admin.sessions.revoke_token(&jti, exp.0).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        _ => Err(Problem::unprocessable("A revocation names a user, with not_before if need be, or jti and exp.")),
    }
}
