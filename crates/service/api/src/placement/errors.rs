//! Errors in the shape of the placement API.

use crate::ApiError;
use crate::microversion::{Microversion, PLACEMENT_MAX, PLACEMENT_MIN};
use arcus_types::RequestId;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What errors without a code of their own are called.
const UNDEFINED: &str = "placement.undefined_code";

/// The whole answer. From 1.23 on it has a code.
pub fn render(error: &ApiError, request_id: RequestId, version: Option<Microversion>) -> Response {
    let mut one = json!({
        "status": error.status.as_u16(),
        "title": error.status.canonical_reason().unwrap_or("Error"),
        "detail": error.message,
        "request_id": request_id.header(),
    });
    if version.is_some_and(|v| v.at_least(23)) {
        one["code"] = json!(if error.code.starts_with("placement.") { error.code } else { UNDEFINED });
    }
    if error.status == StatusCode::NOT_ACCEPTABLE {
        one["min_version"] = json!(PLACEMENT_MIN.to_string());
        one["max_version"] = json!(PLACEMENT_MAX.to_string());
    }
    (error.status, Json(json!({ "errors": [one] }))).into_response()
}

pub(super) fn bad_value(message: impl Into<String>) -> ApiError {
    ApiError { code: "placement.query.bad_value", ..ApiError::bad_request(message) }
}

pub(super) fn missing_value(message: impl Into<String>) -> ApiError {
    ApiError { code: "placement.query.missing_value", ..ApiError::bad_request(message) }
}

pub(super) fn duplicate_key(key: &str) -> ApiError {
    let message = format!("Query parameter '{key}' cannot be specified multiple times.");
    ApiError { code: "placement.query.duplicate_key", ..ApiError::bad_request(message) }
}
