//! The root of the endpoint: which services are where, for people and for load balancers' health checks.

use crate::{App, Route};
use arcus_types::policy::arcus;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Where each service begins: its type in the catalogue and its path.
const SERVICES: &[(&str, &str)] = &[
    ("identity", "/identity/v3"),
    ("compute", "/compute/v2.1"),
    ("image", "/image/v2"),
    ("network", "/network/v2.0"),
    ("placement", "/placement"),
    ("block-storage", "/volume/v3"),
];

/// The routes of the root.
pub fn routes() -> Vec<Route> {
    vec![Route::get("/", arcus::VERSIONS, versions), Route::get("/healthcheck", arcus::VERSIONS, healthcheck)]
}

async fn versions(State(app): State<App>) -> Json<Value> {
    let services: Vec<Value> = SERVICES
        .iter()
        .map(|(service, path)| {
            json!({ "type": service, "links": [{ "rel": "self", "href": format!("{}{path}", app.endpoint.url) }] })
        })
        .collect();
    Json(json!({ "name": "arcus", "version": env!("CARGO_PKG_VERSION"), "services": services }))
}

/// 200 while the database answers, 503 otherwise.
async fn healthcheck(State(app): State<App>) -> StatusCode {
    match app.engine.store().node_list().await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
