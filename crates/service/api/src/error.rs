//! The one error of the HTTP surface, and the one mapping from it to statuses and to each service's body shape.

use arcus_engine::EngineError;
use arcus_types::policy::Denied;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a client is told when a request fails.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// Short name of the kind of error; the network API shows it as `type`.
    pub code: &'static str,
    /// A sentence for the client.
    pub message: String,
    /// Whether a quota is in the way: the volume API answers that with a status of its own.
    pub over_quota: bool,
}

impl ApiError {
    /// An error with a status and a sentence.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, code: "HTTPError", message: message.into(), over_quota: false }
    }

    /// 400: the request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "BadRequest", message: message.into(), over_quota: false }
    }

    /// 404: there is no such thing.
    pub fn not_found(kind: &str, id: impl std::fmt::Display) -> Self {
        let message = format!("{kind} {id} could not be found.");
        Self { status: StatusCode::NOT_FOUND, code: "NotFound", message, over_quota: false }
    }

    /// 401: nobody has been recognised.
    pub fn unauthorized() -> Self {
        Self::from(Denied::Anonymous)
    }

    /// The status that the service of `path` uses: block storage answers 413 where a quota is in the way.
    fn status_of(&self, path: &str) -> StatusCode {
        if self.over_quota && path.starts_with("/volume/") { StatusCode::PAYLOAD_TOO_LARGE } else { self.status }
    }

    /// The body in the shape of the service that `path` belongs to.
    fn body(&self, path: &str) -> Value {
        let status = self.status_of(path);
        let code = status.as_u16();
        let title = status.canonical_reason().unwrap_or("Error");
        match path.split('/').nth(1) {
            Some("compute" | "volume") => {
                let name = match code {
                    400 => "badRequest",
                    401 => "unauthorized",
                    403 => "forbidden",
                    404 => "itemNotFound",
                    405 => "badMethod",
                    409 => "conflictingRequest",
                    413 | 429 => "overLimit",
                    415 => "badMediaType",
                    501 => "notImplemented",
                    503 => "serviceUnavailable",
                    _ => "computeFault",
                };
                json!({ name: { "code": code, "message": self.message } })
            }
            Some("network") => {
                json!({ "NeutronError": { "type": self.code, "message": self.message, "detail": "" } })
            }
            _ => json!({ "error": { "code": code, "title": title, "message": self.message } }),
        }
    }

    /// The whole answer in the shape of the service that `path` belongs to.
    pub fn render(&self, path: &str) -> Response {
        let mut response = (self.status_of(path), Json(self.body(path))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone uri=\"/identity/v3\""));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    /// The body is written by [`crate::route::finish`], which knows the service.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let (status, code) = match denied {
            Denied::Anonymous => (StatusCode::UNAUTHORIZED, "HTTPUnauthorized"),
            Denied::Hidden => (StatusCode::NOT_FOUND, "HTTPNotFound"),
            Denied::Forbidden(_) => (StatusCode::FORBIDDEN, "PolicyNotAuthorized"),
        };
        let message = match denied {
            Denied::Hidden => "The resource could not be found.".to_owned(),
            Denied::Anonymous | Denied::Forbidden(_) => denied.to_string(),
        };
        Self { status, code, message, over_quota: false }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let over_quota = matches!(error, EngineError::OverQuota { .. });
        let (status, code) = match error {
            EngineError::Invalid { code, .. } => (StatusCode::BAD_REQUEST, code),
            EngineError::NotFound { code, .. } => (StatusCode::NOT_FOUND, code),
            EngineError::Conflict { code, .. } => (StatusCode::CONFLICT, code),
            EngineError::Precondition { code, .. } => (StatusCode::PRECONDITION_FAILED, code),
            EngineError::OverQuota { code, .. } => (StatusCode::FORBIDDEN, code),
            EngineError::Denied(denied) => return denied.into(),
            EngineError::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            EngineError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            EngineError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
            EngineError::Store(source) if source.is_transient() => {
                tracing::warn!(error = %chain(&source), "the database asked to try again");
                let message = "The database is busy; try again.".to_owned();
                return Self { code: "ServiceUnavailable", ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) };
            }
            EngineError::Store(source) => return internal(&source),
            EngineError::Io { .. } | EngineError::Authority(_) => return internal(&error),
        };
        Self { status, code, message, over_quota }
    }
}

/// An error that is ours: the whole chain is logged here, once; the client gets the request id to quote.
pub fn internal(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(error = %chain(error), "a request failed");
    let message = "Arcus failed to do this. Give the operator the x-openstack-request-id of this answer.";
    ApiError { code: "InternalServerError", ..ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message) }
}

/// An error and all that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
