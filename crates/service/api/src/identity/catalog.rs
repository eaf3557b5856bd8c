//! The catalogue on the wire: as a whole, and as services and endpoints. Our own follow from the cloud's endpoint and are
//! not changed by calls; others may be added.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{CatalogChange, EndpointNew, ServiceNew};
use arcus_store::{EndpointEntry, Extra, ServiceEntry};
use arcus_types::policy::identity as policy;
use arcus_types::{EndpointId, ProjectId, ServiceId};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Vec<Route> {
    const SERVICE: &str = "/identity/v3/services/{service_id}";
    const ENDPOINT: &str = "/identity/v3/endpoints/{endpoint_id}";
    vec![
        Route::get("/identity/v3/services", policy::CATALOG_GET, services),
        Route::post("/identity/v3/services", policy::SERVICE_CHANGE, service_create),
        Route::get(SERVICE, policy::CATALOG_GET, service),
        Route::patch(SERVICE, policy::SERVICE_CHANGE, service_update),
        Route::delete(SERVICE, policy::SERVICE_CHANGE, service_delete),
        Route::get("/identity/v3/endpoints", policy::CATALOG_GET, endpoints),
        Route::post("/identity/v3/endpoints", policy::ENDPOINT_CHANGE, endpoint_create),
        Route::get(ENDPOINT, policy::CATALOG_GET, endpoint),
        Route::patch(ENDPOINT, policy::ENDPOINT_CHANGE, endpoint_update),
        Route::delete(ENDPOINT, policy::ENDPOINT_CHANGE, endpoint_delete),
    ]
}

/// The catalogue as tokens of a project hold it: a JSON array.
pub fn text(app: &App, project_id: Option<ProjectId>) -> Arc<str> {
    app.identity.catalog_shown(project_id, |catalog| {
        let endpoint = |(e, url): (&EndpointEntry, String)| {
            json!({ "id": e.id, "interface": e.interface, "region": e.region_id, "region_id": e.region_id, "url": url })
        };
        let service = |(s, endpoints): (&ServiceEntry, Vec<(&EndpointEntry, String)>)| {
            let endpoints: Vec<Value> = endpoints.into_iter().map(endpoint).collect();
            json!({ "id": s.id, "type": s.kind, "name": s.name, "endpoints": endpoints })
        };
        Value::Array(catalog.of_token(project_id).into_iter().map(service).collect()).to_string()
    })
}

/// `GET /identity/v3/auth/catalog`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>) -> axum::Json<Value> {
    let here = format!("{}/identity/v3/auth/catalog", app.endpoint.url);
    let links = json!({ "self": here, "next": null, "previous": null });
    let catalog: Value = serde_json::from_str(&text(&app, ctx.project_id())).unwrap_or_default();
    axum::Json(json!({ "catalog": catalog, "links": links }))
}

#[derive(Deserialize)]
struct ServiceRequest<T> {
    service: T,
}

#[derive(Deserialize)]
struct ServiceCreate {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct ServiceUpdate {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct EndpointRequest<T> {
    endpoint: T,
}

#[derive(Deserialize)]
struct EndpointCreate {
    service_id: ServiceId,
    interface: String,
    url: String,
    region: Option<String>,
    region_id: Option<String>,
    enabled: Option<bool>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct EndpointUpdate {
    service_id: Option<ServiceId>,
    interface: Option<String>,
    url: Option<String>,
    region: Option<String>,
    region_id: Option<String>,
    enabled: Option<bool>,
    #[serde(flatten)]
    extra: Extra,
}

fn service_body(app: &App, service: &ServiceEntry) -> Value {
    let body = json!({
        "id": service.id,
        "type": service.kind,
        "name": service.name,
        "description": service.description,
        "enabled": service.enabled,
        "links": { "self": super::link(app, "services", service.id) },
    });
    super::over(&service.extra, body)
}

fn endpoint_body(app: &App, endpoint: &EndpointEntry) -> Value {
    let body = json!({
        "id": endpoint.id,
        "service_id": endpoint.service_id,
        "interface": endpoint.interface,
        "region": endpoint.region_id,
        "region_id": endpoint.region_id,
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "links": { "self": super::link(app, "endpoints", endpoint.id) },
    });
    super::over(&endpoint.extra, body)
}

async fn services(Ctx(_): Ctx, State(app): State<App>, query: Listing) -> axum::Json<Value> {
    let (kind, name) = (query.text("type"), query.text("name"));
    let wanted = |s: &&ServiceEntry| {
        kind.as_ref().is_none_or(|k| *k == s.kind) && name.as_ref().is_none_or(|n| Some(n) == s.name.as_ref())
    };
    let catalog = app.identity.catalog();
    let items = catalog.services.iter().map(|s| &s.entry).filter(wanted).map(|s| service_body(&app, s)).collect();
    super::list(&app, "services", "services", items, None)
}

async fn service(Ctx(_): Ctx, State(app): State<App>, Id(id): Id<ServiceId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(json!({ "service": service_body(&app, &app.identity.catalog().service(id)?.entry) })))
}

async fn service_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(ServiceRequest { service: new }): Json<ServiceRequest<ServiceCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let entry = ServiceNew {
        kind: new.kind,
        name: new.name,
        description: new.description.unwrap_or_default(),
        enabled: new.enabled.unwrap_or(true),
        extra: super::extra(new.extra),
    }
    .entry();
    let change = CatalogChange::ServiceAdd(entry.clone());
    app.identity.catalog_change(&ctx, policy::SERVICE_CHANGE, change).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "service": service_body(&app, &entry) }))))
}

async fn service_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ServiceId>,
    Json(ServiceRequest { service: change }): Json<ServiceRequest<ServiceUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    let mut entry = app.identity.catalog().service(id)?.entry.clone();
    entry.kind = change.kind.unwrap_or(entry.kind);
    entry.name = change.name.or(entry.name);
    entry.description = change.description.unwrap_or(entry.description);
    entry.enabled = change.enabled.unwrap_or(entry.enabled);
    entry.extra.extend(super::extra(change.extra));
    let change = CatalogChange::ServiceSet(entry.clone());
    app.identity.catalog_change(&ctx, policy::SERVICE_CHANGE, change).await?;
    Ok(axum::Json(json!({ "service": service_body(&app, &entry) })))
}

async fn service_delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServiceId>) -> Result<StatusCode, ApiError> {
    app.identity.catalog_change(&ctx, policy::SERVICE_CHANGE, CatalogChange::ServiceRemove(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn endpoints(Ctx(_): Ctx, State(app): State<App>, query: Listing) -> axum::Json<Value> {
    let (interface, region) = (query.text("interface"), query.text("region_id").or(query.text("region")));
    let service: Option<ServiceId> = query.id("service_id");
    let wanted = |e: &&EndpointEntry| {
        interface.as_ref().is_none_or(|i| *i == e.interface)
            && service.is_none_or(|id| id == e.service_id)
            && region.as_ref().is_none_or(|r| Some(r) == e.region_id.as_ref())
    };
    let catalog = app.identity.catalog();
    let items = catalog.endpoints().map(|e| &e.entry).filter(wanted).map(|e| endpoint_body(&app, e)).collect();
    super::list(&app, "endpoints", "endpoints", items, None)
}

async fn endpoint(Ctx(_): Ctx, State(app): State<App>, Id(id): Id<EndpointId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(json!({ "endpoint": endpoint_body(&app, &app.identity.catalog().endpoint(id)?.entry) })))
}

async fn endpoint_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(EndpointRequest { endpoint: new }): Json<EndpointRequest<EndpointCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let entry = EndpointNew {
        service_id: new.service_id,
        region_id: new.region_id.or(new.region),
        interface: new.interface,
        url: new.url,
        enabled: new.enabled.unwrap_or(true),
        extra: super::extra(new.extra),
    }
    .entry();
    let change = CatalogChange::EndpointAdd(entry.clone());
    app.identity.catalog_change(&ctx, policy::ENDPOINT_CHANGE, change).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "endpoint": endpoint_body(&app, &entry) }))))
}

async fn endpoint_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<EndpointId>,
    Json(EndpointRequest { endpoint: change }): Json<EndpointRequest<EndpointUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    let mut entry = app.identity.catalog().endpoint(id)?.entry.clone();
    entry.service_id = change.service_id.unwrap_or(entry.service_id);
    entry.interface = change.interface.unwrap_or(entry.interface);
    entry.url = change.url.unwrap_or(entry.url);
    entry.region_id = change.region_id.or(change.region).or(entry.region_id);
    entry.enabled = change.enabled.unwrap_or(entry.enabled);
    entry.extra.extend(super::extra(change.extra));
    let change = CatalogChange::EndpointSet(entry.clone());
    app.identity.catalog_change(&ctx, policy::ENDPOINT_CHANGE, change).await?;
    Ok(axum::Json(json!({ "endpoint": endpoint_body(&app, &entry) })))
}

async fn endpoint_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<EndpointId>,
) -> Result<StatusCode, ApiError> {
    app.identity.catalog_change(&ctx, policy::ENDPOINT_CHANGE, CatalogChange::EndpointRemove(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
