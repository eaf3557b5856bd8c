//! `/network/v2.0/subnetpools`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, number, one, present, range, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::subnet_pools::{SubnetPoolChange, SubnetPoolNew};
use arcus_store::{SUBNET_POOL_FIELDS, SubnetPool};
use arcus_types::policy::network as policy;
use arcus_types::{AddressScopeId, ProjectId, SubnetPoolId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of subnet pools.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/subnetpools", policy::SUBNET_POOL_LIST, list),
        Route::post("/network/v2.0/subnetpools", policy::SUBNET_POOL_CREATE, create),
        Route::get("/network/v2.0/subnetpools/{id}", policy::SUBNET_POOL_GET, show),
        Route::put("/network/v2.0/subnetpools/{id}", policy::SUBNET_POOL_UPDATE, update),
        Route::delete("/network/v2.0/subnetpools/{id}", policy::SUBNET_POOL_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetPoolCreateRequest {
    name: String,
    description: Option<String>,
    prefixes: Vec<String>,
    #[serde(default, deserialize_with = "number")]
    default_prefixlen: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    min_prefixlen: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    max_prefixlen: Option<i64>,
    default_quota: Option<u64>,
    shared: Option<bool>,
    is_default: Option<bool>,
    address_scope_id: Option<AddressScopeId>,
    tags: Option<Vec<String>>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetPoolUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    prefixes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "number")]
    default_prefixlen: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    min_prefixlen: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    max_prefixlen: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    default_quota: Option<Option<u64>>,
    is_default: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    address_scope_id: Option<Option<AddressScopeId>>,
}

fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, ApiError> {
    texts.iter().map(|text| range("prefixes", text)).collect()
}

fn length(value: Option<i64>) -> Result<Option<u8>, ApiError> {
    let small = |bits| u8::try_from(bits).map_err(|_| ApiError::bad_request(format!("Invalid prefix length: {bits}.")));
    value.map(small).transpose()
}

fn view(pool: &SubnetPool) -> Value {
    let shown = json!({
        "id": pool.id,
        "name": pool.name,
        "project_id": pool.project_id,
        "tenant_id": pool.project_id,
        "prefixes": pool.prefixes,
        "ip_version": pool.ip_version(),
        "default_prefixlen": pool.prefix_default,
        "min_prefixlen": pool.prefix_min,
        "max_prefixlen": pool.prefix_max,
        "default_quota": pool.quota,
        "shared": pool.shared,
        "is_default": pool.is_default,
        "address_scope_id": pool.address_scope_id,
        "tags": pool.tags,
    });
    with_standard(shown, &pool.description, pool.revision, pool.created_at, pool.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.subnet_pool_list(&ctx, listing(&query, SUBNET_POOL_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "subnetpools", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: SubnetPoolCreateRequest = one(body, "subnetpool")?;
    let new = SubnetPoolNew {
        project_id: asked.project_id.or(asked.tenant_id),
        name: text("name", Some(asked.name))?.unwrap_or_default(),
        description: text("description", asked.description)?.unwrap_or_default(),
        prefixes: prefixes(&asked.prefixes)?,
        prefix_default: length(asked.default_prefixlen)?,
        prefix_min: length(asked.min_prefixlen)?,
        prefix_max: length(asked.max_prefixlen)?,
        quota: asked.default_quota,
        shared: asked.shared.unwrap_or(false),
        is_default: asked.is_default.unwrap_or(false),
        address_scope_id: asked.address_scope_id,
        tags: tags(asked.tags)?,
    };
    let pool = app.engine.subnet_pool_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "subnetpool": view(&pool) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetPoolId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let pool = app.engine.subnet_pool_get(&ctx, id).await?;
    Ok(Json(json!({ "subnetpool": prune(&query, view(&pool)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetPoolId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: SubnetPoolUpdateRequest = one(body, "subnetpool")?;
    let change = SubnetPoolChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        prefixes: asked.prefixes.as_deref().map(prefixes).transpose()?,
        prefix_default: length(asked.default_prefixlen)?,
        prefix_min: length(asked.min_prefixlen)?,
        prefix_max: length(asked.max_prefixlen)?,
        quota: asked.default_quota,
        is_default: asked.is_default,
        address_scope_id: asked.address_scope_id,
        if_match,
    };
    let pool = app.engine.subnet_pool_update(&ctx, id, change).await?;
    Ok(Json(json!({ "subnetpool": view(&pool) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetPoolId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.subnet_pool_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
