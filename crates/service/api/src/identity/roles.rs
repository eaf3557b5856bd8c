//! Roles on the wire, and which role implies which.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::builtin::{BUILTIN, Builtin, implied};
use arcus_store::{RoleEntry, RoleFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{Name, RoleId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/roles", policy::ROLE_LIST, list),
        Route::post("/identity/v3/roles", policy::ROLE_CREATE, create),
        Route::get("/identity/v3/roles/{role_id}", policy::ROLE_GET, get),
        Route::patch("/identity/v3/roles/{role_id}", policy::ROLE_UPDATE, update),
        Route::delete("/identity/v3/roles/{role_id}", policy::ROLE_DELETE, delete),
        Route::get("/identity/v3/roles/{role_id}/implies", policy::ROLE_GET, implies),
        Route::get("/identity/v3/roles/{role_id}/implies/{implied_id}", policy::ROLE_GET, implies_one),
        Route::get("/identity/v3/role_inferences", policy::ROLE_LIST, inferences),
    ]
}

#[derive(Deserialize)]
struct RoleRequest<T> {
    role: T,
}

#[derive(Deserialize)]
struct RoleCreate {
    name: Name,
    description: Option<String>,
    domain_id: Option<String>,
}

#[derive(Deserialize)]
struct RoleUpdate {
    name: Option<Name>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
}

fn body(app: &App, role: &RoleEntry) -> Value {
    let options = if role.builtin { json!({ "immutable": true }) } else { json!({}) };
    json!({
        "id": role.id,
        "name": role.name,
        "domain_id": null,
        "description": role.description,
        "options": options,
        "links": { "self": super::link(app, "roles", role.id) },
    })
}

fn one(app: &App, role: &RoleEntry) -> axum::Json<Value> {
    axum::Json(json!({ "role": body(app, role) }))
}

/// A role where it is only mentioned.
pub fn brief(app: &App, id: RoleId, name: &str) -> Value {
    json!({ "id": id, "name": name, "links": { "self": super::link(app, "roles", id) } })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let filter = RoleFilter { name: query.text("name"), ids: None, marker: query.marker()?, limit: query.ask() };
    // Every role here is the cloud's; roles of one domain are not offered.
    let found =
        if query.text("domain_id").is_some() { Vec::new() } else { app.identity.role_list(&ctx, &filter).await? };
    Ok(query.render(&app, "roles", "roles", found, |r| r.id, |r| body(&app, r)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(RoleRequest { role: new }): Json<RoleRequest<RoleCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    if new.domain_id.is_some() {
        return Err(ApiError::bad_request("Roles of one domain are not offered; leave domain_id out."));
    }
    let role = app.identity.role_create(&ctx, new.name, new.description).await?;
    Ok((StatusCode::CREATED, one(&app, &role)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RoleId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.role_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RoleId>,
    Json(RoleRequest { role: change }): Json<RoleRequest<RoleUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.role_update(&ctx, id, change.name, change.description).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RoleId>) -> Result<StatusCode, ApiError> {
    app.identity.role_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The role that a built-in role implies directly.
fn next(role: &Builtin) -> Option<&'static Builtin> {
    implied(role.id).next()
}

async fn implies(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RoleId>) -> Result<axum::Json<Value>, ApiError> {
    let role = app.identity.role_get(&ctx, id).await?;
    let wider: Vec<Value> = implied(id).take(1).map(|b| brief(&app, b.id, b.name)).collect();
    Ok(axum::Json(json!({
        "role_inference": { "prior_role": brief(&app, id, role.name.as_str()), "implies": wider },
        "links": { "self": format!("{}/implies", super::link(&app, "roles", id)) },
    })))
}

async fn implies_one(
    Ctx(_): Ctx,
    State(app): State<App>,
    Path((prior, wanted)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let (prior, wanted): (RoleId, RoleId) = (super::id(&prior)?, super::id(&wanted)?);
    let pair = BUILTIN.iter().find(|b| b.id == prior).and_then(|b| Some((b, next(b).filter(|n| n.id == wanted)?)));
    let (prior, wider) = pair.ok_or_else(|| ApiError::not_found("Role inference", wanted))?;
    Ok(axum::Json(json!({
        "role_inference": {
            "prior_role": brief(&app, prior.id, prior.name), "implies": brief(&app, wider.id, wider.name),
        },
        "links": { "self": format!("{}/implies/{}", super::link(&app, "roles", prior.id), wider.id) },
    })))
}

async fn inferences(Ctx(_): Ctx, State(app): State<App>) -> axum::Json<Value> {
    let pairs = BUILTIN.iter().filter_map(|b| Some((b, next(b)?)));
    let items: Vec<Value> = pairs
        .map(|(prior, wider)| {
            json!({ "prior_role": brief(&app, prior.id, prior.name), "implies": [brief(&app, wider.id, wider.name)] })
        })
        .collect();
    let links = json!({ "self": format!("{}/identity/v3/role_inferences", app.endpoint.url) });
    axum::Json(json!({ "role_inferences": items, "links": links }))
}
