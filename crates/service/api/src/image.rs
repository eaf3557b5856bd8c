//! The image API: Glance's, version 2, under `/image/v2`.

mod data;
mod images;
mod imports;
mod members;
mod patch;
mod query;
mod schemas;
mod wire;

use crate::{App, Route};
use arcus_types::policy::image as policy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The one place where bytes are kept.
const STORE: &str = "files";

/// The versions served, newest first: each is what the ones before it are, and a little more. Versions 2.10 and 2.11 are
/// for clouds with several stores.
const VERSIONS: &[&str] =
    &["v2.13", "v2.12", "v2.9", "v2.8", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"];

/// Every route of this service.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/image", policy::VERSIONS, versions_choice),
        Route::get("/image/", policy::VERSIONS, versions_choice),
        Route::get("/image/versions", policy::VERSIONS, versions),
        Route::get("/image/v2", policy::VERSIONS, versions),
        Route::get("/image/v2/", policy::VERSIONS, versions),
        Route::get("/image/v2/schemas/{name}", policy::SCHEMA_GET, schemas::show),
        Route::get("/image/v2/info/stores", policy::STORE_LIST, stores),
    ];
    routes.extend(images::routes());
    routes.extend(data::routes());
    routes.extend(imports::routes());
    routes.extend(members::routes());
    routes
}

/// The versions, for a client that has to choose one of them.
async fn versions_choice(app: State<App>) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, versions(app).await)
}

async fn versions(State(app): State<App>) -> Json<Value> {
    let href = format!("{}/image/v2/", app.endpoint.url);
    let versions: Vec<Value> = VERSIONS
        .iter()
        .enumerate()
        .map(|(at, id)| {
            let status = if at == 0 { "CURRENT" } else { "SUPPORTED" };
            json!({ "id": id, "status": status, "links": [{ "rel": "self", "href": href }] })
        })
        .collect();
    Json(json!({ "versions": versions }))
}

/// Where bytes are kept: one place.
async fn stores() -> Json<Value> {
    Json(json!({ "stores": [{ "id": STORE, "description": "Files of this cloud", "default": "true" }] }))
}
