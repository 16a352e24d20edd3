//! For the kubelet, for Prometheus, and for whoever wants to know what can be asked here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use crate::telemetry::Exposition;

use super::Admin;
use super::problem::{Kind, Problem};

/// What can be asked of the admin listener (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("openapi.json");

/// The process runs: nothing else is looked at, so that no outage has it restarted.
pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let report = admin.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// The figures, in the form that is asked for.
pub async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = Exposition::of(accept);
    let unwritten = || Problem::new(Kind::Internal, "The figures cannot be written.");
    let text = admin.metrics.encode(form).ok_or_else(unwritten)?;
    Ok(([(CONTENT_TYPE, form.content_type())], text).into_response())
}

pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
