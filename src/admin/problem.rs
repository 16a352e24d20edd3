//! What an admin request is told when it is not done (RFC 9457). No value of any field ever stands in it.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::session::{CommitError, LoadError};
use crate::store::StoreError;

/// How long to wait before an ailing store is asked again.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// Why an admin request was not done.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
}

/// What is wrong with one field of a request.
#[derive(Debug, Serialize)]
pub struct FieldError {
    pub field: String,
    pub detail: Cow<'static, str>,
}

/// The kinds of problems, by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    RequestMalformed,
    CredentialMissing,
    CredentialInvalid,
    Forbidden,
    NotFound,
    SessionNotFound,
    SessionRevoked,
    HandleNotFound,
    MethodNotAllowed,
    SessionConflict,
    ContentTooLarge,
    UnsupportedMediaType,
    Unprocessable,
    RateLimited,
    Internal,
    StoreUnavailable,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
}

impl Kind {
    const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::RequestMalformed => ("request-malformed", S::BAD_REQUEST, "Request malformed"),
            Self::CredentialMissing => ("credential-missing", S::UNAUTHORIZED, "Token missing"),
            Self::CredentialInvalid => ("credential-invalid", S::UNAUTHORIZED, "Token invalid"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "Forbidden"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "Not found"),
            Self::SessionNotFound => ("session-not-found", S::NOT_FOUND, "Session not found"),
            Self::SessionRevoked => ("session-revoked", S::NOT_FOUND, "Session revoked"),
            Self::HandleNotFound => ("handle-not-found", S::NOT_FOUND, "Handle not found"),
            Self::MethodNotAllowed => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::SessionConflict => ("session-conflict", S::PRECONDITION_FAILED, "Session conflict"),
            Self::ContentTooLarge => ("content-too-large", S::PAYLOAD_TOO_LARGE, "Content too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type")
            }
            Self::Unprocessable => ("unprocessable", S::UNPROCESSABLE_ENTITY, "Unprocessable content"),
            Self::RateLimited => ("rate-limited", S::TOO_MANY_REQUESTS, "Rate limited"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::StoreUnavailable => ("store-unavailable", S::SERVICE_UNAVAILABLE, "Store unavailable"),
        }
    }
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    pub fn unprocessable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unprocessable, detail)
    }

    /// Fields that do not fit, all at once.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::unprocessable("Some fields do not fit; nothing was written.") }
    }

    pub fn no_session() -> Self {
        Self::new(Kind::SessionNotFound, "There is no such session: it has expired or never was.")
    }

    pub fn conflict() -> Self {
        Self::new(Kind::SessionConflict, "The session is not what this change was based on; nothing was written.")
    }

    pub fn rate_limited(wait: Duration) -> Self {
        let problem = Self::new(Kind::RateLimited, "Too many requests came; Retry-After says when to come again.");
        Self { retry_after: Some(wait), ..problem }
    }

    fn revoked() -> Self {
        Self::new(Kind::SessionRevoked, "The session was ended.")
    }

    /// The store's own words go to the log.
    fn store(error: &dyn std::error::Error) -> Self {
        tracing::warn!(target: "cloakroom::admin", %error, "an admin request met an ailing store");
        let problem = Self::new(
            Kind::StoreUnavailable,
            "The session store did not answer; whether a change was written is not known.",
        );
        Self { retry_after: Some(STORE_WAIT), ..problem }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::store(&error)
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotFound | LoadError::WrongSecret | LoadError::Uninitialised | LoadError::Foreign => {
                Self::no_session()
            }
            LoadError::Revoked => Self::revoked(),
            LoadError::Store(_) | LoadError::UnknownKey(_) | LoadError::Contended => Self::store(&error),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) | CommitError::Exists => Self::conflict(),
            CommitError::NotFound => Self::no_session(),
            CommitError::Revoked => Self::revoked(),
            CommitError::TooLarge => super::fields::too_large(),
            CommitError::Store(_) | CommitError::Entropy(_) | CommitError::Crypto => Self::store(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status, title) = self.kind.facts();
        let r#type = format!("urn:cloakroom:problem:{name}");
        let body = Body { r#type, title, status: status.as_u16(), detail: &self.detail, errors: &self.errors };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let challenge = match self.kind {
            Kind::CredentialMissing => Some("Bearer realm=\"cloakroom\""),
            Kind::CredentialInvalid => Some("Bearer realm=\"cloakroom\", error=\"invalid_token\""),
            _ => None,
        };
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(wait) = self.retry_after {
            // Rounded up, so that whoever waits so long is let in.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
        }
        response
    }
}
