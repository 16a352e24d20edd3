//! What a client is told when its request goes no further; the only place that knows statuses.

mod problem;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};

use crate::headers::Names;
use crate::identity::{Ambiguous, ForeignOrigin, Unverified};
use crate::limit::LimitError;
use crate::quota::{Exceeded, whole_seconds};
use crate::route::RouteError;
use crate::session::{CommitError, LoadError};
use crate::upstream::UpstreamError;
use crate::writeback::Rejection;

pub use problem::{Action, Code};

/// How long a client waits before it asks an ailing part again, in seconds.
const RETRY_AFTER: u64 = 1;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Why a request goes no further; a room's own words for it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("no credential came")]
    NoCredential,
    #[error("the credential is no session id")]
    BadCredential,
    #[error(transparent)]
    Token(#[from] Unverified),
    #[error("too many bad credentials came from this address")]
    TooManyBad(Exceeded),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Origin(#[from] ForeignOrigin),
    #[error("the route's requirements do not hold of the session")]
    Requirements,
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error("the request's body is over its bound")]
    BodyTooLarge,
    #[error("the request's body broke off or is malformed")]
    BodyBroken,
    #[error("the head for the backend is over its bound")]
    HeadTooLarge,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the session ended while the backend was at work")]
    SessionEnded,
    #[error("the write-back was refused: {0}")]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Refusal {
    pub fn code(&self) -> Code {
        match self {
            Self::Route(RouteError::Malformed(_))
            | Self::Ambiguous(_)
            | Self::BodyBroken
            | Self::Upstream(UpstreamError::Unsent) => Code::RequestMalformed,
            Self::Route(RouteError::NotFound) => Code::RouteNotFound,
            Self::Route(RouteError::MethodNotAllowed { .. }) => Code::MethodNotAllowed,
            Self::NoCredential => Code::CredentialMissing,
            Self::Token(Unverified::Unavailable) => Code::IdentityUnavailable,
            Self::BadCredential
            | Self::Token(Unverified::Flawed(_))
            | Self::Load(LoadError::WrongSecret | LoadError::Foreign) => Code::CredentialInvalid,
            Self::Load(LoadError::NotFound) | Self::Commit(CommitError::NotFound) => Code::SessionNotFound,
            Self::Load(LoadError::Uninitialised) => Code::SessionToBegin,
            Self::Load(LoadError::Revoked) | Self::Commit(CommitError::Revoked) | Self::SessionEnded => {
                Code::SessionRevoked
            }
            Self::Load(LoadError::Store(_) | LoadError::UnknownKey(_) | LoadError::Contended)
            | Self::Limit(LimitError::Store(_))
            | Self::Commit(CommitError::Store(_) | CommitError::Entropy(_) | CommitError::Crypto) => {
                Code::StoreUnavailable
            }
            Self::Origin(_) | Self::Requirements => Code::Forbidden,
            Self::TooManyBad(_) | Self::Limit(LimitError::Rate { .. }) => Code::RateLimited,
            Self::Limit(LimitError::Concurrency) => Code::Overloaded,
            Self::BodyTooLarge => Code::ContentTooLarge,
            Self::HeadTooLarge => Code::HeadersTooLarge,
            Self::Upstream(UpstreamError::ResponseTimeout | UpstreamError::Unread) => Code::UpstreamTimeout,
            Self::Upstream(UpstreamError::Down(_)) => Code::UpstreamDown,
            Self::Upstream(
                UpstreamError::Connect(_)
                | UpstreamError::ConnectTimeout
                | UpstreamError::Broken(_)
                | UpstreamError::Unasked,
            ) => Code::UpstreamUnavailable,
            Self::Rejected(_) | Self::Commit(CommitError::TooLarge) => Code::WriteBackRejected,
            Self::Commit(CommitError::Conflict(_) | CommitError::Exists) => Code::SessionConflict,
        }
    }

    /// Whether the credential that came is of a session that is known to be dead.
    fn means_dead(&self) -> bool {
        matches!(self.code(), Code::SessionNotFound | Code::SessionRevoked)
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyBad(exceeded) | Self::Limit(LimitError::Rate { exceeded, .. }) => {
                Some(whole_seconds(exceeded.retry_after))
            }
            Self::Upstream(UpstreamError::Down(wait)) => Some(whole_seconds(*wait)),
            _ => (self.code().status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER),
        }
    }

    fn exceeded(&self) -> Option<&Exceeded> {
        match self {
            Self::TooManyBad(exceeded) | Self::Limit(LimitError::Rate { exceeded, .. }) => Some(exceeded),
            _ => None,
        }
    }
}

/// What of a request its refusal depends on; not looked into unless there is one.
#[derive(Debug)]
pub struct Asker {
    content_type: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    target: Uri,
    /// Whether this is a GET, and asks for no other protocol.
    gets: bool,
}

impl Asker {
    pub fn of(head: &Parts, upgrades: bool) -> Self {
        Self {
            content_type: head.headers.get(header::CONTENT_TYPE).cloned(),
            accept: head.headers.get(header::ACCEPT).cloned(),
            target: head.uri.clone(),
            gets: head.method == Method::GET && !upgrades,
        }
    }

    fn speaks_grpc(&self) -> bool {
        text(self.content_type.as_ref()).to_ascii_lowercase().starts_with("application/grpc")
    }

    /// The target to come back to, if this is a browser going to a page.
    fn navigates_to(&self) -> Option<&str> {
        let navigates = self.gets && prefers_html(text(self.accept.as_ref()));
        navigates.then(|| self.target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether `Accept` names HTML with a weight that nothing else exceeds.
fn prefers_html(accept: &str) -> bool {
    let ranges = || accept.split(',').map(str::trim);
    let is_html = |range: &&str| range.split(';').next().is_some_and(|of| of.trim().eq_ignore_ascii_case("text/html"));
    let html = ranges().filter(is_html).map(weight).fold(0.0, f32::max);
    html > 0.0 && ranges().all(|range| weight(range) <= html)
}

/// A range's `q`; one that cannot be read is none.
fn weight(range: &str) -> f32 {
    let q = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
    };
    range.split(';').skip(1).find_map(q).unwrap_or(1.0)
}

/// What a refusal is answered with, beside the refusal itself.
pub struct Setting<'a> {
    pub names: &'a Names,
    pub asker: &'a Asker,
    pub request_id: &'a str,
    /// Whether any credential came.
    pub credential_came: bool,
    /// What clears the cookie, if it was the cookie that decided.
    pub clear_cookie: Option<HeaderValue>,
    pub login_url: Option<&'a str>,
}

/// Answers a refused request.
pub fn refuse(refusal: &Refusal, setting: &Setting<'_>) -> Response<Bytes> {
    let code = refusal.code();
    let mut response = match login(code, setting) {
        Some(response) => response,
        None if setting.asker.speaks_grpc() => grpc(code),
        None => problem_json(code, setting),
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if code.status() == StatusCode::UNAUTHORIZED && status != StatusCode::SEE_OTHER {
        let challenge = if setting.credential_came {
            "Bearer realm=\"cloakroom\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"cloakroom\""
        };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        if let Some(action) = code.action() {
            headers.insert(&setting.names.action, HeaderValue::from_static(action.name()));
        }
    }
    if refusal.means_dead()
        && let Some(clear) = &setting.clear_cookie
    {
        headers.append(header::SET_COOKIE, clear.clone());
    }
    if code == Code::RequestMalformed {
        // Where one request was misread, what follows it may be as well.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Refusal::Route(RouteError::MethodNotAllowed { allow }) = refusal
        && let Ok(allow) = HeaderValue::from_str(allow)
    {
        headers.insert(header::ALLOW, allow);
    }
    if let Some(seconds) = refusal.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(exceeded) = refusal.exceeded() {
        headers.extend(exceeded.limit().map(|limit| (RATE_LIMIT, limit)));
        headers.insert(RATE_LIMIT_POLICY, exceeded.policies.clone());
    }
    response
}

/// Answers what could not be parsed as a request: a whole response in HTTP/1.1, and how long its body is.
pub fn refuse_unparsed(status: StatusCode, request_id: &str) -> (Code, Bytes, usize) {
    let code = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => Code::HeadersTooLarge,
        _ => Code::RequestMalformed,
    };
    let body = code.to_json(request_id);
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        code.status(),
        body.len()
    );
    (code, [head.as_bytes(), &body].concat().into(), body.len())
}

/// A redirect to the login page, for a browser that is going to a page and has to prove itself first.
fn login(code: Code, setting: &Setting<'_>) -> Option<Response<Bytes>> {
    let target = setting.asker.navigates_to()?;
    let url = setting.login_url.filter(|_| code.status() == StatusCode::UNAUTHORIZED)?;
    // Exactly one slash: two would begin another host's name.
    let path = format!("/{}", target.trim_start_matches('/'));
    let return_to = percent_encoding::utf8_percent_encode(&path, percent_encoding::NON_ALPHANUMERIC);
    let separator = if url.contains('?') { '&' } else { '?' };
    let location = HeaderValue::from_str(&format!("{url}{separator}return_to={return_to}")).ok()?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

fn problem_json(code: Code, setting: &Setting<'_>) -> Response<Bytes> {
    let mut response = Response::new(code.to_json(setting.request_id));
    *response.status_mut() = code.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// A trailers-only answer, as gRPC clients expect it.
fn grpc(code: Code) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(code.grpc_status()));
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(code.name()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_going_to_a_page_are_told_apart() {
        assert!(prefers_html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers_html("*/*;q=0.8, Text/HTML ; Q=0.9"));
        assert!(!prefers_html("*/*"));
        assert!(!prefers_html("application/json, text/html;q=0.5"));
        assert!(!prefers_html("application/json, text/html;Q=0.5"));
        assert!(!prefers_html("text/html;q=0"));
        assert!(!prefers_html(""));
    }

    #[test]
    fn the_way_back_never_leads_to_another_origin() {
        let names = Names::new("cloakroom-").unwrap();
        let asker = Asker {
            content_type: None,
            accept: Some(HeaderValue::from_static("text/html")),
            target: Uri::from_static("//evil.example/a?b=1"),
            gets: true,
        };
        let setting = Setting {
            names: &names,
            asker: &asker,
            request_id: "r",
            credential_came: false,
            clear_cookie: None,
            login_url: Some("https://login.example/start?x=1"),
        };
        let response = refuse(&Refusal::NoCredential, &setting);
        assert_eq!(response.status(), 303);
        assert_eq!(
            response.headers()[header::LOCATION],
            "https://login.example/start?x=1&return_to=%2Fevil%2Eexample%2Fa%3Fb%3D1"
        );
    }
}
