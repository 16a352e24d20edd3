//! The problems that clients are told of (RFC 9457).

use bytes::Bytes;
use http::StatusCode;

/// A problem's name; each has one status, one title and one detail, and no value ever stands in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    CredentialMissing,
    CredentialInvalid,
    SessionNotFound,
    /// Of a token that is good and leads to no session: the same name, and something else to do.
    SessionToBegin,
    SessionRevoked,
    Forbidden,
    RouteNotFound,
    MethodNotAllowed,
    RequestMalformed,
    RateLimited,
    SessionConflict,
    WriteBackRejected,
    UpstreamUnavailable,
    /// The same problem, known beforehand: its circuit is open.
    UpstreamDown,
    UpstreamTimeout,
    StoreUnavailable,
    IdentityUnavailable,
    Overloaded,
    HeadersTooLarge,
    ContentTooLarge,
}

/// What a client can do about a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Prove itself anew.
    Reauth,
    /// Begin a session with the same credential.
    Reinit,
    /// Read the session again, and decide whether to repeat the request.
    Reload,
}

impl Action {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reauth => "reauth",
            Self::Reinit => "reinit",
            Self::Reload => "reload",
        }
    }
}

/// A problem's name, status, gRPC status, title and detail.
struct Facts(&'static str, StatusCode, u8, &'static str, &'static str);

impl Code {
    const fn facts(self) -> Facts {
        use StatusCode as S;
        match self {
            Self::CredentialMissing => Facts(
                "credential-missing",
                S::UNAUTHORIZED,
                16,
                "Credential missing",
                "This route needs a session, and no credential came with the request.",
            ),
            Self::CredentialInvalid => Facts(
                "credential-invalid",
                S::UNAUTHORIZED,
                16,
                "Credential invalid",
                "The credential that came with the request does not prove a session.",
            ),
            Self::SessionNotFound => Facts(
                "session-not-found",
                S::UNAUTHORIZED,
                16,
                "Session not found",
                "There is no such session: it has expired or never was.",
            ),
            Self::SessionToBegin => Facts(
                "session-not-found",
                S::UNAUTHORIZED,
                16,
                "Session not found",
                "The token is good, and there is no session for it: it has expired or was not begun yet.",
            ),
            Self::SessionRevoked => {
                Facts("session-revoked", S::UNAUTHORIZED, 16, "Session revoked", "The session was ended.")
            }
            Self::Forbidden => Facts(
                "forbidden",
                S::FORBIDDEN,
                7,
                "Forbidden",
                "The session does not meet what this route requires, or the request comes from a foreign origin.",
            ),
            Self::RouteNotFound => {
                Facts("route-not-found", S::NOT_FOUND, 12, "Route not found", "No route takes this host and path.")
            }
            Self::MethodNotAllowed => Facts(
                "method-not-allowed",
                S::METHOD_NOT_ALLOWED,
                12,
                "Method not allowed",
                "No route takes this method here.",
            ),
            Self::RequestMalformed => Facts(
                "request-malformed",
                S::BAD_REQUEST,
                3,
                "Request malformed",
                "The request can be read in more than one way, or not at all.",
            ),
            Self::RateLimited => Facts(
                "rate-limited",
                S::TOO_MANY_REQUESTS,
                8,
                "Rate limited",
                "Too many requests came; Retry-After says when to come again.",
            ),
            Self::SessionConflict => Facts(
                "session-conflict",
                S::CONFLICT,
                10,
                "Session conflict",
                "Another writer changed the session first. The backend has acted; its changes to the session were not written.",
            ),
            Self::WriteBackRejected => Facts(
                "write-back-rejected",
                S::BAD_GATEWAY,
                14,
                "Write-back rejected",
                "The backend asked for a change to the session that it may not make. Nothing was written.",
            ),
            Self::UpstreamUnavailable => Facts(
                "upstream-unavailable",
                S::BAD_GATEWAY,
                14,
                "Upstream unavailable",
                "The backend could not be reached, or broke off before it answered.",
            ),
            Self::UpstreamDown => Facts(
                "upstream-unavailable",
                S::SERVICE_UNAVAILABLE,
                14,
                "Upstream unavailable",
                "The backend takes no connections; Retry-After says when to come again.",
            ),
            Self::UpstreamTimeout => Facts(
                "upstream-timeout",
                S::GATEWAY_TIMEOUT,
                4,
                "Upstream timeout",
                "The backend did not answer in time.",
            ),
            Self::StoreUnavailable => Facts(
                "store-unavailable",
                S::SERVICE_UNAVAILABLE,
                14,
                "Store unavailable",
                "The session store did not answer. The session itself is not affected; whether a change was written is not known.",
            ),
            Self::IdentityUnavailable => Facts(
                "identity-unavailable",
                S::SERVICE_UNAVAILABLE,
                14,
                "Identity unavailable",
                "Whether the token is good could not be found out. Neither it nor the session is affected.",
            ),
            Self::Overloaded => Facts(
                "overloaded",
                S::SERVICE_UNAVAILABLE,
                14,
                "Overloaded",
                "As many requests as this route takes are in flight.",
            ),
            Self::HeadersTooLarge => Facts(
                "headers-too-large",
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                3,
                "Headers too large",
                "The request's headers are over their bound.",
            ),
            Self::ContentTooLarge => Facts(
                "content-too-large",
                S::PAYLOAD_TOO_LARGE,
                3,
                "Content too large",
                "The request's body is over its bound.",
            ),
        }
    }

    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    pub const fn status(self) -> StatusCode {
        self.facts().1
    }

    /// As in gRPC's `google.rpc.Code`.
    pub const fn grpc_status(self) -> u16 {
        self.facts().2 as u16
    }

    pub const fn action(self) -> Option<Action> {
        match self {
            Self::CredentialMissing | Self::CredentialInvalid | Self::SessionNotFound | Self::SessionRevoked => {
                Some(Action::Reauth)
            }
            Self::SessionToBegin => Some(Action::Reinit),
            Self::SessionConflict => Some(Action::Reload),
            _ => None,
        }
    }

    pub(super) fn to_json(self, request_id: &str) -> Bytes {
        let Facts(name, status, _, title, detail) = self.facts();
        let mut problem = serde_json::json!({
            "type": format!("urn:cloakroom:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "request_id": request_id,
        });
        if let (Some(action), Some(object)) = (self.action(), problem.as_object_mut()) {
            object.insert("action".into(), action.name().into());
        }
        problem.to_string().into()
    }
}
