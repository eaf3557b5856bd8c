//! Unified limits on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{LIST_MAX, LimitNew, RegisteredLimitNew};
use arcus_store::{LimitEntry, LimitFilter, LimitOwner, RegisteredLimit};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, LimitId, ProjectId, RegisteredLimitId, ServiceId};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The most limits that one request makes.
const AT_ONCE_MAX: usize = 256;

pub fn routes() -> Vec<Route> {
    const REGISTERED: &str = "/identity/v3/registered_limits/{registered_limit_id}";
    const LIMIT: &str = "/identity/v3/limits/{limit_id}";
    vec![
        Route::get("/identity/v3/registered_limits", policy::REGISTERED_LIMIT_GET, registered_list),
        Route::post("/identity/v3/registered_limits", policy::REGISTERED_LIMIT_CREATE, registered_create),
        Route::get(REGISTERED, policy::REGISTERED_LIMIT_GET, registered_get),
        Route::patch(REGISTERED, policy::REGISTERED_LIMIT_UPDATE, registered_update),
        Route::delete(REGISTERED, policy::REGISTERED_LIMIT_DELETE, registered_delete),
        Route::get("/identity/v3/limits/model", policy::LIMIT_MODEL_GET, model),
        Route::get("/identity/v3/limits", policy::LIMIT_LIST, list),
        Route::post("/identity/v3/limits", policy::LIMIT_CREATE, create),
        Route::get(LIMIT, policy::LIMIT_LIST, get),
        Route::patch(LIMIT, policy::LIMIT_UPDATE, update),
        Route::delete(LIMIT, policy::LIMIT_DELETE, delete),
    ]
}

#[derive(Deserialize)]
struct RegisteredList {
    registered_limits: Vec<RegisteredCreate>,
}

#[derive(Deserialize)]
struct RegisteredCreate {
    service_id: ServiceId,
    region_id: Option<String>,
    resource_name: String,
    default_limit: i64,
    description: Option<String>,
}

#[derive(Deserialize)]
struct RegisteredRequest {
    registered_limit: RegisteredUpdate,
}

#[derive(Deserialize)]
struct RegisteredUpdate {
    service_id: Option<ServiceId>,
    region_id: Option<String>,
    resource_name: Option<String>,
    default_limit: Option<i64>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct LimitList {
    limits: Vec<LimitCreate>,
}

#[derive(Deserialize)]
struct LimitCreate {
    service_id: ServiceId,
    region_id: Option<String>,
    resource_name: String,
    project_id: Option<ProjectId>,
    domain_id: Option<DomainId>,
    resource_limit: i64,
    description: Option<String>,
}

#[derive(Deserialize)]
struct LimitRequest {
    limit: LimitUpdate,
}

#[derive(Deserialize)]
struct LimitUpdate {
    resource_limit: Option<i64>,
    description: Option<String>,
}

fn registered_body(app: &App, limit: &RegisteredLimit) -> Value {
    json!({
        "id": limit.id,
        "service_id": limit.service_id,
        "region_id": limit.region_id,
        "resource_name": limit.resource_name,
        "default_limit": limit.default_limit,
        "description": limit.description,
        "links": { "self": super::link(app, "registered_limits", limit.id) },
    })
}

fn body(app: &App, limit: &LimitEntry) -> Value {
    let (project_id, domain_id) = match limit.owner {
        LimitOwner::Project(id) => (Some(id), None),
        LimitOwner::Domain(id) => (None, Some(id)),
    };
    json!({
        "id": limit.id,
        "service_id": limit.registered.service_id,
        "region_id": limit.registered.region_id,
        "resource_name": limit.registered.resource_name,
        "project_id": project_id,
        "domain_id": domain_id,
        "resource_limit": limit.resource_limit,
        "description": limit.description,
        "links": { "self": super::link(app, "limits", limit.id) },
    })
}

fn filter(query: &Listing) -> LimitFilter {
    LimitFilter {
        service_id: query.id("service_id"),
        region_id: query.text("region_id"),
        resource_name: query.text("resource_name"),
        project_id: query.id("project_id"),
        domain_id: query.id("domain_id"),
        limit: LIST_MAX,
    }
}

fn few<T>(all: Vec<T>) -> Result<Vec<T>, ApiError> {
    if all.is_empty() || all.len() > AT_ONCE_MAX {
        return Err(ApiError::bad_request(format!("Give 1 to {AT_ONCE_MAX} limits at once.")));
    }
    Ok(all)
}

async fn registered_list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.registered_limit_list(&ctx, &filter(&query)).await?;
    let items = found.iter().map(|limit| registered_body(&app, limit)).collect();
    Ok(super::list(&app, "registered_limits", "registered_limits", items, None))
}

async fn registered_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(RegisteredList { registered_limits }): Json<RegisteredList>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let new = |limit: RegisteredCreate| RegisteredLimitNew {
        service_id: limit.service_id,
        region_id: limit.region_id,
        resource_name: limit.resource_name,
        default_limit: limit.default_limit,
        description: limit.description,
    };
    let new = few(registered_limits)?.into_iter().map(new).collect();
    let made = app.identity.registered_limits_create(&ctx, new).await?;
    let items = made.iter().map(|limit| registered_body(&app, limit)).collect();
    Ok((StatusCode::CREATED, super::list(&app, "registered_limits", "registered_limits", items, None)))
}

async fn registered_get(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RegisteredLimitId>,
) -> Result<axum::Json<Value>, ApiError> {
    let limit = app.identity.registered_limit_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "registered_limit": registered_body(&app, &limit) })))
}

async fn registered_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RegisteredLimitId>,
    Json(RegisteredRequest { registered_limit: change }): Json<RegisteredRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let mut limit = app.identity.registered_limit_get(&ctx, id).await?;
    limit.service_id = change.service_id.unwrap_or(limit.service_id);
    limit.region_id = change.region_id.or(limit.region_id);
    limit.resource_name = change.resource_name.unwrap_or(limit.resource_name);
    limit.default_limit = change.default_limit.unwrap_or(limit.default_limit);
    limit.description = change.description.or(limit.description);
    let limit = app.identity.registered_limit_update(&ctx, limit).await?;
    Ok(axum::Json(json!({ "registered_limit": registered_body(&app, &limit) })))
}

async fn registered_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RegisteredLimitId>,
) -> Result<StatusCode, ApiError> {
    app.identity.registered_limit_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Limits of projects stand beside each other: none bounds those below it.
async fn model(Ctx(_): Ctx) -> axum::Json<Value> {
    let description = "Limit enforcement and validation does not take project hierarchy into consideration.";
    axum::Json(json!({ "model": { "name": "flat", "description": description } }))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.limit_list(&ctx, filter(&query)).await?;
    let items = found.iter().map(|limit| body(&app, limit)).collect();
    Ok(super::list(&app, "limits", "limits", items, None))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(LimitList { limits }): Json<LimitList>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let new = |limit: LimitCreate| LimitNew {
        service_id: limit.service_id,
        region_id: limit.region_id,
        resource_name: limit.resource_name,
        project_id: limit.project_id,
        domain_id: limit.domain_id,
        resource_limit: limit.resource_limit,
        description: limit.description,
    };
    let new = few(limits)?.into_iter().map(new).collect();
    let made = app.identity.limits_create(&ctx, new).await?;
    let items = made.iter().map(|limit| body(&app, limit)).collect();
    Ok((StatusCode::CREATED, super::list(&app, "limits", "limits", items, None)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<LimitId>) -> Result<axum::Json<Value>, ApiError> {
    let limit = app.identity.limit_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "limit": body(&app, &limit) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<LimitId>,
    Json(LimitRequest { limit: change }): Json<LimitRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let limit = app.identity.limit_update(&ctx, id, change.resource_limit, change.description).await?;
    Ok(axum::Json(json!({ "limit": body(&app, &limit) })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<LimitId>) -> Result<StatusCode, ApiError> {
    app.identity.limit_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
