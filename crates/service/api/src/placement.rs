//! The placement API, 1.0 to 1.39: resource providers, what they have, and who claims it.
//!
//! Nodes are the root providers. What the API tells of them is what servers are placed by.

mod allocations;
mod candidates;
mod errors;
mod inventories;
mod providers;
mod query;
mod words;

pub use errors::render;

use crate::microversion::{Microversion, PLACEMENT_MAX, PLACEMENT_MIN};
use crate::{ApiError, App, Route};
use arcus_types::Timestamp;
use arcus_types::policy::placement as policy;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// What a handler answers.
type Answer = Result<Response, ApiError>;

/// The routes of the placement API.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/placement", policy::VERSIONS, versions),
        Route::get("/placement/", policy::VERSIONS, versions),
        Route::get("/placement/allocation_candidates", policy::CANDIDATE_LIST, candidates::list),
        Route::get("/placement/resource_providers", policy::PROVIDER_LIST, providers::list),
        Route::post("/placement/resource_providers", policy::PROVIDER_CREATE, providers::create),
        Route::get("/placement/resource_providers/{id}", policy::PROVIDER_SHOW, providers::show),
        Route::put("/placement/resource_providers/{id}", policy::PROVIDER_UPDATE, providers::update),
        Route::delete("/placement/resource_providers/{id}", policy::PROVIDER_DELETE, providers::delete),
        Route::get("/placement/resource_providers/{id}/usages", policy::PROVIDER_SHOW, providers::usages),
        Route::get("/placement/resource_providers/{id}/aggregates", policy::PROVIDER_SHOW, providers::aggregates),
        Route::put(
            "/placement/resource_providers/{id}/aggregates",
            policy::PROVIDER_AGGREGATES_UPDATE,
            providers::aggregates_set,
        ),
        Route::get("/placement/resource_providers/{id}/traits", policy::PROVIDER_SHOW, providers::traits),
        Route::put("/placement/resource_providers/{id}/traits", policy::PROVIDER_TRAITS_UPDATE, providers::traits_set),
        Route::delete(
            "/placement/resource_providers/{id}/traits",
            policy::PROVIDER_TRAITS_UPDATE,
            providers::traits_delete,
        ),
        Route::get("/placement/resource_providers/{id}/allocations", policy::ALLOCATION_READ, allocations::of_provider),
    ];
    routes.extend(inventory_routes());
    routes.extend(word_routes());
    routes.extend([
        Route::post("/placement/allocations", policy::ALLOCATION_UPDATE, allocations::set_many),
        Route::get("/placement/allocations/{consumer_id}", policy::ALLOCATION_READ, allocations::show),
        Route::put("/placement/allocations/{consumer_id}", policy::ALLOCATION_UPDATE, allocations::set),
        Route::delete("/placement/allocations/{consumer_id}", policy::ALLOCATION_UPDATE, allocations::delete),
        Route::get("/placement/usages", policy::USAGE_READ, allocations::usages),
        Route::post("/placement/reshaper", policy::RESHAPE, allocations::reshape),
    ]);
    routes
}

fn inventory_routes() -> [Route; 7] {
    let (all, one) =
        ("/placement/resource_providers/{id}/inventories", "/placement/resource_providers/{id}/inventories/{class}");
    [
        Route::get(all, policy::INVENTORY_READ, inventories::list),
        Route::post(all, policy::INVENTORY_UPDATE, inventories::create),
        Route::put(all, policy::INVENTORY_UPDATE, inventories::set),
        Route::delete(all, policy::INVENTORY_UPDATE, inventories::delete_all),
        Route::get(one, policy::INVENTORY_READ, inventories::show),
        Route::put(one, policy::INVENTORY_UPDATE, inventories::update),
        Route::delete(one, policy::INVENTORY_UPDATE, inventories::delete),
    ]
}

fn word_routes() -> [Route; 9] {
    let (classes, class) = ("/placement/resource_classes", "/placement/resource_classes/{name}");
    let (traits, one) = ("/placement/traits", "/placement/traits/{name}");
    [
        Route::get(classes, policy::CLASS_READ, words::classes),
        Route::post(classes, policy::CLASS_UPDATE, words::class_create),
        Route::get(class, policy::CLASS_READ, words::class_show),
        Route::put(class, policy::CLASS_UPDATE, words::class_put),
        Route::delete(class, policy::CLASS_UPDATE, words::class_delete),
        Route::get(traits, policy::TRAIT_READ, words::traits),
        Route::get(one, policy::TRAIT_READ, words::trait_show),
        Route::put(one, policy::TRAIT_UPDATE, words::trait_put),
        Route::delete(one, policy::TRAIT_UPDATE, words::trait_delete),
    ]
}

async fn versions(State(app): State<App>) -> axum::Json<Value> {
    axum::Json(json!({ "versions": [{
        "id": "v1.0",
        "status": "CURRENT",
        "min_version": PLACEMENT_MIN.to_string(),
        "max_version": PLACEMENT_MAX.to_string(),
        "links": [{ "rel": "self", "href": format!("{}/placement", app.endpoint.url) }],
    }] }))
}

/// What there is only from 1.`minor` on.
fn since(version: Microversion, minor: u16) -> Result<(), ApiError> {
    if version.at_least(minor) {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found."))
}

/// Says from 1.15 on when what is told last changed, and that it must be asked for anew.
fn dated(mut response: Response, version: Microversion, modified: Option<Timestamp>) -> Response {
    if version.at_least(15) {
        let text = modified.unwrap_or_else(Timestamp::now).http_date();
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::LAST_MODIFIED, value);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

fn shown(version: Microversion, modified: Option<Timestamp>, body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).map_err(|e| crate::error::internal(&e))?;
    let response = ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response();
    Ok(dated(response, version, modified))
}

fn location(status: StatusCode, app: &App, path: &str) -> Response {
    (status, [(header::LOCATION, format!("{}/placement/{path}", app.endpoint.url))]).into_response()
}
