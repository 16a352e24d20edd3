use http::HeaderName;

/// Names that mean something to every client, server or proxy, so that they are nobody's own.
#[rustfmt::skip]
const STANDARD: &[&str] = &[
    "accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "access-control-allow-credentials",
    "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-origin", "access-control-expose-headers",
    "access-control-max-age", "access-control-request-headers", "access-control-request-method", "age", "allow", "alt-svc",
    "authorization", "baggage", "cache-control", "connection", "content-disposition", "content-encoding", "content-language",
    "content-length", "content-location", "content-range", "content-security-policy", "content-type", "cookie",
    "cross-origin-opener-policy", "date", "etag", "expect", "expires", "forwarded", "from", "grpc-accept-encoding",
    "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "keep-alive", "last-event-id", "last-modified", "link", "location", "max-forwards",
    "origin", "permissions-policy", "pragma", "prefer", "priority", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "range", "ratelimit", "ratelimit-policy", "referer", "referrer-policy", "retry-after",
    "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "sec-websocket-accept", "sec-websocket-extensions",
    "sec-websocket-key", "sec-websocket-protocol", "sec-websocket-version", "server", "server-timing", "set-cookie",
    "strict-transport-security", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
    "upgrade-insecure-requests", "user-agent", "vary", "via", "www-authenticate", "x-content-type-options",
    "x-envoy-original-path", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto",
    "x-frame-options", "x-original-url", "x-real-ip", "x-request-id", "x-rewrite-url",
];

/// Why this cannot be the name of a header that cloakroom takes for its own.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Err(_) => Some("this is not a header name"),
        Ok(name) if STANDARD.contains(&name.as_str()) => Some("this header has a meaning of its own"),
        Ok(_) => None,
    }
}

/// The first standard name that a prefix would make cloakroom's, with `_` and worse read as `-`.
pub(super) fn swallowed(prefix: &str) -> Option<&'static str> {
    let folded: String = prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    STANDARD.iter().find(|name| name.starts_with(&folded)).copied()
}
