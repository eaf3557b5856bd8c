//! The catalogue on the wire: as a whole, and as services, endpoints and regions. It follows from the cloud's endpoint
//! and is not changed by calls.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::{ApiError, App, Route};
use arcus_identity::{CatalogEndpoint, CatalogService};
use arcus_types::policy::identity as policy;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/services", policy::CATALOG_GET, services),
        Route::get("/identity/v3/services/{service_id}", policy::CATALOG_GET, service),
        Route::get("/identity/v3/endpoints", policy::CATALOG_GET, endpoints),
        Route::get("/identity/v3/endpoints/{endpoint_id}", policy::CATALOG_GET, endpoint),
        Route::get("/identity/v3/regions", policy::CATALOG_GET, regions),
        Route::get("/identity/v3/regions/{region_id}", policy::CATALOG_GET, region),
    ]
}

/// The catalogue as tokens hold it.
pub fn body(catalog: Vec<CatalogService>) -> Value {
    let endpoint = |e: CatalogEndpoint| json!({ "id": e.id, "interface": e.interface, "region": e.region, "region_id": e.region, "url": e.url });
    let service = |s: CatalogService| {
        let endpoints: Vec<Value> = s.endpoints.into_iter().map(endpoint).collect();
        json!({ "id": s.id, "type": s.kind, "name": s.name, "endpoints": endpoints })
    };
    catalog.into_iter().map(service).collect()
}

/// `GET /identity/v3/auth/catalog`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>) -> Json<Value> {
    let here = format!("{}/identity/v3/auth/catalog", app.endpoint.url);
    let links = json!({ "self": here, "next": null, "previous": null });
    Json(json!({ "catalog": body(app.identity.catalog(ctx.project_id())), "links": links }))
}

fn service_body(app: &App, service: &CatalogService) -> Value {
    json!({
        "id": service.id,
        "type": service.kind,
        "name": service.name,
        "description": "",
        "enabled": true,
        "links": { "self": super::link(app, "services", service.id) },
    })
}

fn endpoint_body(app: &App, service: &CatalogService, endpoint: &CatalogEndpoint) -> Value {
    json!({
        "id": endpoint.id,
        "service_id": service.id,
        "interface": endpoint.interface,
        "region": endpoint.region,
        "region_id": endpoint.region,
        "url": endpoint.url,
        "enabled": true,
        "links": { "self": super::link(app, "endpoints", endpoint.id) },
    })
}

fn region_body(app: &App) -> Value {
    let id = &app.endpoint.region;
    json!({
        "id": id,
        "description": "",
        "parent_region_id": null,
        "links": { "self": super::link(app, "regions", id) },
    })
}

async fn services(Ctx(_): Ctx, State(app): State<App>, query: Listing) -> Json<Value> {
    let (kind, name) = (query.text("type"), query.text("name"));
    let wanted = |s: &&CatalogService| {
        kind.as_deref().is_none_or(|k| k == s.kind) && name.as_deref().is_none_or(|n| n == s.name)
    };
    let catalog = app.identity.catalog(None);
    let items = catalog.iter().filter(wanted).map(|s| service_body(&app, s)).collect();
    super::list(&app, "services", "services", items, None)
}

async fn service(Ctx(_): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let catalog = app.identity.catalog(None);
    let found = catalog.iter().find(|s| s.id.to_string() == id);
    let found = found.ok_or_else(|| ApiError::not_found("Service", &id))?;
    Ok(Json(json!({ "service": service_body(&app, found) })))
}

async fn endpoints(Ctx(_): Ctx, State(app): State<App>, query: Listing) -> Json<Value> {
    let (interface, service, region) = (query.text("interface"), query.text("service_id"), query.text("region_id"));
    let wanted = |(s, e): &(&CatalogService, &CatalogEndpoint)| {
        interface.as_deref().is_none_or(|i| i == e.interface)
            && service.as_deref().is_none_or(|id| id == s.id.to_string())
            && region.as_deref().is_none_or(|r| r == e.region)
    };
    let catalog = app.identity.catalog(None);
    let all = catalog.iter().flat_map(|s| s.endpoints.iter().map(move |e| (s, e)));
    let items = all.filter(wanted).map(|(s, e)| endpoint_body(&app, s, e)).collect();
    super::list(&app, "endpoints", "endpoints", items, None)
}

async fn endpoint(Ctx(_): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let catalog = app.identity.catalog(None);
    let found = catalog.iter().find_map(|s| Some((s, s.endpoints.iter().find(|e| e.id.to_string() == id)?)));
    let (service, endpoint) = found.ok_or_else(|| ApiError::not_found("Endpoint", &id))?;
    Ok(Json(json!({ "endpoint": endpoint_body(&app, service, endpoint) })))
}

async fn regions(Ctx(_): Ctx, State(app): State<App>) -> Json<Value> {
    super::list(&app, "regions", "regions", vec![region_body(&app)], None)
}

async fn region(Ctx(_): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    if id != app.endpoint.region {
        return Err(ApiError::not_found("Region", &id));
    }
    Ok(Json(json!({ "region": region_body(&app) })))
}
