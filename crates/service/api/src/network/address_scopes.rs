//! `/network/v2.0/address-scopes`.

use super::lists::{answer, listing, prune};
use super::wire::{number, one, text};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::address_scopes::{AddressScopeChange, AddressScopeNew};
use arcus_store::{ADDRESS_SCOPE_FIELDS, AddressScope};
use arcus_types::policy::network as policy;
use arcus_types::{AddressScopeId, ProjectId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of address scopes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/address-scopes", policy::ADDRESS_SCOPE_LIST, list),
        Route::post("/network/v2.0/address-scopes", policy::ADDRESS_SCOPE_CREATE, create),
        Route::get("/network/v2.0/address-scopes/{id}", policy::ADDRESS_SCOPE_GET, show),
        Route::put("/network/v2.0/address-scopes/{id}", policy::ADDRESS_SCOPE_UPDATE, update),
        Route::delete("/network/v2.0/address-scopes/{id}", policy::ADDRESS_SCOPE_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressScopeCreateRequest {
    name: String,
    #[serde(default, deserialize_with = "number")]
    ip_version: Option<i64>,
    shared: Option<bool>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressScopeUpdateRequest {
    name: Option<String>,
    shared: Option<bool>,
}

fn view(scope: &AddressScope) -> Value {
    json!({
        "id": scope.id,
        "name": scope.name,
        "project_id": scope.project_id,
        "tenant_id": scope.project_id,
        "ip_version": scope.ip_version,
        "shared": scope.shared,
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.address_scope_list(&ctx, listing(&query, ADDRESS_SCOPE_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "address_scopes", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: AddressScopeCreateRequest = one(body, "address_scope")?;
    let version = asked.ip_version.and_then(|version| u32::try_from(version).ok());
    let new = AddressScopeNew {
        project_id: asked.project_id.or(asked.tenant_id),
        name: text("name", Some(asked.name))?.unwrap_or_default(),
        ip_version: version.ok_or_else(|| {
            ApiError::bad_request("Failed to parse request. Required attribute 'ip_version' not specified")
        })?,
        shared: asked.shared.unwrap_or(false),
    };
    let scope = app.engine.address_scope_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "address_scope": view(&scope) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressScopeId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let scope = app.engine.address_scope_get(&ctx, id).await?;
    Ok(Json(json!({ "address_scope": prune(&query, view(&scope)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressScopeId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: AddressScopeUpdateRequest = one(body, "address_scope")?;
    let change = AddressScopeChange { name: text("name", asked.name)?, shared: asked.shared };
    let scope = app.engine.address_scope_update(&ctx, id, change).await?;
    Ok(Json(json!({ "address_scope": view(&scope) })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<AddressScopeId>) -> Result<StatusCode, ApiError> {
    app.engine.address_scope_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
