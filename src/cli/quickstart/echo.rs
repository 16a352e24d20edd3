//! An agent that shows what it received, and asks for the changes that its caller names.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

/// Query parameters that become write-back headers.
const ASKS: [(&str, HeaderName); 6] = [
    ("set", HeaderName::from_static("cloakroom-set")),
    ("unset", HeaderName::from_static("cloakroom-unset")),
    ("if_match", HeaderName::from_static("cloakroom-if-match")),
    ("start", HeaderName::from_static("cloakroom-start")),
    ("rotate", HeaderName::from_static("cloakroom-rotate")),
    ("end", HeaderName::from_static("cloakroom-end")),
];

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) {
    if let Err(error) = axum::serve(listener, Router::new().fallback(echo)).await {
        tracing::warn!(target: "cloakroom::quickstart", %error, "the echo agent ended");
    }
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let asked = asked(uri.query().unwrap_or_default());
    let (context, others): (Vec<_>, Vec<_>) =
        headers.iter().partition(|(name, _)| name.as_str().starts_with("cloakroom-"));
    let seen = json!({
        "context": lines(&context),
        "asks_for": lines(&asked.iter().collect::<Vec<_>>()),
        "method": method.as_str(),
        "target": uri.to_string(),
        "headers": lines(&others),
        "body_bytes": body.len(),
    });
    let text = serde_json::to_string_pretty(&seen).unwrap_or_default() + "\n";
    let mut response = ([(CONTENT_TYPE, "application/json")], text).into_response();
    response.headers_mut().extend(asked);
    response
}

/// The write-back headers that a query names, percent-decoded.
fn asked(query: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        let header = ASKS.iter().find(|(parameter, _)| *parameter == name).map(|(_, header)| header.clone());
        if let (Some(header), Ok(value)) = (header, HeaderValue::from_str(&decoded)) {
            headers.append(header, value);
        }
    }
    headers
}

fn lines(headers: &[(&HeaderName, &HeaderValue)]) -> BTreeMap<String, Json> {
    let mut lines: BTreeMap<String, Json> = BTreeMap::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes());
        lines
            .entry(name.to_string())
            .and_modify(|before| *before = format!("{}, {text}", before.as_str().unwrap_or_default()).into())
            .or_insert_with(|| Json::String(text.into_owned()));
    }
    lines
}
