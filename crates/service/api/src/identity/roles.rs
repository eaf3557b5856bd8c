//! Roles on the wire, and which role implies which.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::RoleNew;
use arcus_store::{Extra, Implication, RoleChange, RoleEntry, RoleFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, Name, RoleId};
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
        Route::head("/identity/v3/roles/{role_id}/implies/{implied_id}", policy::ROLE_GET, implies_check),
        Route::put("/identity/v3/roles/{role_id}/implies/{implied_id}", policy::ROLE_UPDATE, implies_add),
        Route::delete("/identity/v3/roles/{role_id}/implies/{implied_id}", policy::ROLE_UPDATE, implies_remove),
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
    domain_id: Option<DomainId>,
    #[serde(default)]
    options: Extra,
}

#[derive(Deserialize)]
struct RoleUpdate {
    name: Option<Name>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    domain_id: Option<DomainId>,
    options: Option<Extra>,
}

fn body(app: &App, role: &RoleEntry) -> Value {
    let options = if role.builtin { json!({ "immutable": true }) } else { json!(role.options) };
    json!({
        "id": role.id,
        "name": role.name,
        "domain_id": role.domain_id,
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
    let filter = RoleFilter {
        names: query.tests("name"),
        domain_id: Some(query.id("domain_id")),
        ids: None,
        marker: query.marker()?,
        limit: query.ask(),
    };
    let found = app.identity.role_list(&ctx, &filter).await?;
    Ok(query.render(&app, "roles", "roles", found, |r| r.id, |r| body(&app, r)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(RoleRequest { role: new }): Json<RoleRequest<RoleCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let RoleCreate { name, description, domain_id, options } = new;
    let role = app.identity.role_create(&ctx, RoleNew { name, description, domain_id, options }).await?;
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
    if change.domain_id.is_some() {
        super::same_domain(app.identity.role_get(&ctx, id).await?.domain_id, change.domain_id)?;
    }
    let change = RoleChange { name: change.name, description: change.description, options: change.options };
    Ok(one(&app, &app.identity.role_update(&ctx, id, change).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RoleId>) -> Result<StatusCode, ApiError> {
    app.identity.role_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

type Side = (RoleId, Name, Option<DomainId>);

fn side(app: &App, role: &Side) -> Value {
    brief(app, role.0, role.1.as_str())
}

async fn implies(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RoleId>) -> Result<axum::Json<Value>, ApiError> {
    let role = app.identity.role_get(&ctx, id).await?;
    let found = app.identity.implications(&ctx, Some(id)).await?;
    let implied: Vec<Value> = found.iter().map(|pair| side(&app, &pair.implied)).collect();
    Ok(axum::Json(json!({
        "role_inference": { "prior_role": brief(&app, id, role.name.as_str()), "implies": implied },
        "links": { "self": format!("{}/implies", super::link(&app, "roles", id)) },
    })))
}

fn inference(app: &App, pair: &Implication) -> axum::Json<Value> {
    let here = format!("{}/implies/{}", super::link(app, "roles", pair.prior.0), pair.implied.0);
    axum::Json(json!({
        "role_inference": { "prior_role": side(app, &pair.prior), "implies": side(app, &pair.implied) },
        "links": { "self": here },
    }))
}

async fn implies_one(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((prior, implied)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let (prior, implied): (RoleId, RoleId) = (super::id(&prior)?, super::id(&implied)?);
    let found = app.identity.implications(&ctx, Some(prior)).await?;
    let pair = found.iter().find(|pair| pair.implied.0 == implied);
    Ok(inference(&app, pair.ok_or_else(|| ApiError::not_found("Role inference", implied))?))
}

async fn implies_check(ctx: Ctx, app: State<App>, path: Path<(String, String)>) -> Result<StatusCode, ApiError> {
    implies_one(ctx, app, path).await.map(|_| StatusCode::NO_CONTENT)
}

async fn implies_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((prior, implied)): Path<(String, String)>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let pair = app.identity.implication_create(&ctx, super::id(&prior)?, super::id(&implied)?).await?;
    Ok((StatusCode::CREATED, inference(&app, &pair)))
}

async fn implies_remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((prior, implied)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.implication_delete(&ctx, super::id(&prior)?, super::id(&implied)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn inferences(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<Value>, ApiError> {
    let pairs = app.identity.implications(&ctx, None).await?;
    let rule = |pairs: &[Implication]| {
        let implied: Vec<Value> = pairs.iter().map(|pair| side(&app, &pair.implied)).collect();
        json!({ "prior_role": pairs.first().map(|pair| side(&app, &pair.prior)), "implies": implied })
    };
    let items: Vec<Value> = pairs.chunk_by(|a, b| a.prior.0 == b.prior.0).map(rule).collect();
    let links = json!({ "self": format!("{}/identity/v3/role_inferences", app.endpoint.url) });
    Ok(axum::Json(json!({ "role_inferences": items, "links": links })))
}
