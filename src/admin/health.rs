//! For the kubelet, for Prometheus, and for whoever wants to know what can be asked here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Admin;
use super::problem::{Kind, Problem};

/// OpenMetrics 1.0, as Prometheus asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

pub async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let text = admin.metrics.encode().ok_or_else(|| Problem::new(Kind::Internal, "The figures cannot be written."))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
