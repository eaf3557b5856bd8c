//! Version documents of the identity API.

use crate::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The identity API's version as its document tells it. Source: Keystone 2026.1, `v3.14`, whose calls are the newest.
fn version(app: &App) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{}/identity/v3/", app.endpoint.url) }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    })
}

/// `GET /identity`
pub async fn list(State(app): State<App>) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, Json(json!({ "versions": { "values": [version(&app)] } })))
}

/// `GET /identity/v3`
pub async fn v3(State(app): State<App>) -> Json<Value> {
    Json(json!({ "version": version(&app) }))
}
