//! Regions on the wire. The first one is the cloud's own and is not changed by calls.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::Json;
use crate::{ApiError, App, Route};
use arcus_identity::CatalogChange;
use arcus_store::{Extra, RegionEntry};
use arcus_types::policy::identity as policy;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ONE: &str = "/identity/v3/regions/{region_id}";
    vec![
        Route::get("/identity/v3/regions", policy::CATALOG_GET, list),
        Route::post("/identity/v3/regions", policy::REGION_CHANGE, create),
        Route::get(ONE, policy::CATALOG_GET, get),
        Route::put(ONE, policy::REGION_CHANGE, create_named),
        Route::patch(ONE, policy::REGION_CHANGE, update),
        Route::delete(ONE, policy::REGION_CHANGE, delete),
    ]
}

#[derive(Deserialize)]
struct RegionRequest {
    region: Region,
}

#[derive(Deserialize)]
struct Region {
    id: Option<String>,
    #[serde(default, deserialize_with = "super::given")]
    parent_region_id: Option<Option<String>>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    #[serde(flatten)]
    extra: Extra,
}

fn body(app: &App, region: &RegionEntry) -> Value {
    let body = json!({
        "id": region.id,
        "description": region.description,
        "parent_region_id": region.parent_id,
        "links": { "self": super::link(app, "regions", &region.id) },
    });
    super::over(&region.extra, body)
}

fn one(app: &App, region: &RegionEntry) -> axum::Json<Value> {
    axum::Json(json!({ "region": body(app, region) }))
}

async fn list(Ctx(_): Ctx, State(app): State<App>, query: Listing) -> axum::Json<Value> {
    let parent = query.text("parent_region_id");
    let catalog = app.identity.catalog();
    let wanted = |r: &&RegionEntry| parent.as_ref().is_none_or(|id| Some(id) == r.parent_id.as_ref());
    let items = catalog.regions.iter().filter(wanted).map(|r| body(&app, r)).collect();
    super::list(&app, "regions", "regions", items, None)
}

async fn get(Ctx(_): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, app.identity.catalog().region(&id)?))
}

async fn add(
    ctx: arcus_types::OpCtx,
    app: App,
    id: Option<String>,
    new: Region,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let id = match (id, new.id) {
        (Some(wanted), Some(other)) if wanted != other => {
            return Err(ApiError::bad_request("The id of the region differs from that in the path."));
        }
        (Some(id), _) | (None, Some(id)) if !id.is_empty() => id,
        (_, _) => uuid::Uuid::new_v4().as_simple().to_string(),
    };
    let region = RegionEntry {
        id,
        parent_id: new.parent_region_id.flatten(),
        description: new.description.flatten().unwrap_or_default(),
        extra: super::extra(new.extra),
    };
    let change = CatalogChange::RegionAdd(region.clone());
    app.identity.catalog_change(&ctx, policy::REGION_CHANGE, change).await?;
    Ok((StatusCode::CREATED, one(&app, &region)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(RegionRequest { region }): Json<RegionRequest>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    add(ctx, app, None, region).await
}

async fn create_named(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(id): Path<String>,
    Json(RegionRequest { region }): Json<RegionRequest>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    add(ctx, app, Some(id), region).await
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(id): Path<String>,
    Json(RegionRequest { region: change }): Json<RegionRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let mut region = app.identity.catalog().region(&id)?.clone();
    region.parent_id = change.parent_region_id.unwrap_or(region.parent_id);
    region.description = change.description.map_or(region.description, Option::unwrap_or_default);
    region.extra.extend(super::extra(change.extra));
    let change = CatalogChange::RegionSet(region.clone());
    app.identity.catalog_change(&ctx, policy::REGION_CHANGE, change).await?;
    Ok(one(&app, &region))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    app.identity.catalog_change(&ctx, policy::REGION_CHANGE, CatalogChange::RegionRemove(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
