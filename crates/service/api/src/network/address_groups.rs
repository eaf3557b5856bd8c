//! `/network/v2.0/address-groups`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, one, range, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::address_groups::{AddressGroupChange, AddressGroupNew};
use arcus_store::{ADDRESS_GROUP_FIELDS, AddressGroup};
use arcus_types::policy::network as policy;
use arcus_types::{AddressGroupId, ProjectId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of address groups.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/address-groups", policy::ADDRESS_GROUP_LIST, list),
        Route::post("/network/v2.0/address-groups", policy::ADDRESS_GROUP_CREATE, create),
        Route::get("/network/v2.0/address-groups/{id}", policy::ADDRESS_GROUP_GET, show),
        Route::put("/network/v2.0/address-groups/{id}", policy::ADDRESS_GROUP_UPDATE, update),
        Route::delete("/network/v2.0/address-groups/{id}", policy::ADDRESS_GROUP_DELETE, delete),
        Route::put("/network/v2.0/address-groups/{id}/add_addresses", policy::ADDRESS_GROUP_UPDATE, add),
        Route::put("/network/v2.0/address-groups/{id}/remove_addresses", policy::ADDRESS_GROUP_UPDATE, remove),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressGroupCreateRequest {
    name: Option<String>,
    description: Option<String>,
    addresses: Option<Vec<String>>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressGroupUpdateRequest {
    name: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressesRequest {
    addresses: Vec<String>,
}

fn ranges(texts: &[String]) -> Result<Vec<IpNet>, ApiError> {
    texts.iter().map(|text| range("addresses", text)).collect()
}

fn view(group: &AddressGroup) -> Value {
    let shown = json!({
        "id": group.id,
        "name": group.name,
        "project_id": group.project_id,
        "tenant_id": group.project_id,
        "addresses": group.addresses,
        "shared": group.shared,
    });
    with_standard(shown, &group.description, group.revision, group.created_at, group.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.address_group_list(&ctx, listing(&query, ADDRESS_GROUP_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "address_groups", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: AddressGroupCreateRequest = one(body, "address_group")?;
    let new = AddressGroupNew {
        project_id: asked.project_id.or(asked.tenant_id),
        name: text("name", asked.name)?.unwrap_or_default(),
        description: text("description", asked.description)?.unwrap_or_default(),
        addresses: ranges(&asked.addresses.unwrap_or_default())?,
    };
    let group = app.engine.address_group_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "address_group": view(&group) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressGroupId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let group = app.engine.address_group_get(&ctx, id).await?;
    Ok(Json(json!({ "address_group": prune(&query, view(&group)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressGroupId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: AddressGroupUpdateRequest = one(body, "address_group")?;
    let change = AddressGroupChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        if_match,
        ..AddressGroupChange::default()
    };
    let group = app.engine.address_group_update(&ctx, id, change).await?;
    Ok(Json(json!({ "address_group": view(&group) })))
}

/// The ranges of a body: by themselves, or under the group's name.
fn asked(body: Value) -> Result<Vec<IpNet>, ApiError> {
    let inner: AddressesRequest = match body {
        Value::Object(mut map) if map.contains_key("addresses") => {
            let addresses = map.remove("addresses").unwrap_or_default();
            one(json!({ "address_group": { "addresses": addresses } }), "address_group")?
        }
        other => one(other, "address_group")?,
    };
    ranges(&inner.addresses)
}

async fn add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressGroupId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let change = AddressGroupChange { add: asked(body)?, ..AddressGroupChange::default() };
    let group = app.engine.address_group_update(&ctx, id, change).await?;
    Ok(Json(json!({ "address_group": view(&group) })))
}

async fn remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressGroupId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let change = AddressGroupChange { remove: asked(body)?, ..AddressGroupChange::default() };
    let group = app.engine.address_group_update(&ctx, id, change).await?;
    Ok(Json(json!({ "address_group": view(&group) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<AddressGroupId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.address_group_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
