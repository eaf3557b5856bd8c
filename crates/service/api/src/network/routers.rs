//! `/network/v2.0/routers`.

use super::lists::{answer, listing, prune};
use super::networks::zones;
use super::ports::FixedIpRequest;
use super::wire::{IfMatch, one, present, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::port_addresses::FixedIpWish;
use arcus_engine::routers::{GatewayWish, Interface, InterfaceOf, RouterChange, RouterNew, RoutesChange};
use arcus_store::{HostRoute, ROUTER_FIELDS, Router};
use arcus_types::policy::network as policy;
use arcus_types::{NetworkId, PortId, ProjectId, RouterId, SubnetId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of routers.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/routers", policy::ROUTER_LIST, list),
        Route::post("/network/v2.0/routers", policy::ROUTER_CREATE, create),
        Route::get("/network/v2.0/routers/{id}", policy::ROUTER_GET, show),
        Route::put("/network/v2.0/routers/{id}", policy::ROUTER_UPDATE, update),
        Route::delete("/network/v2.0/routers/{id}", policy::ROUTER_DELETE, delete),
        Route::put("/network/v2.0/routers/{id}/add_router_interface", policy::ROUTER_INTERFACE_ADD, add),
        Route::put("/network/v2.0/routers/{id}/remove_router_interface", policy::ROUTER_INTERFACE_REMOVE, remove),
        Route::put("/network/v2.0/routers/{id}/add_extraroutes", policy::ROUTER_UPDATE, routes_add),
        Route::put("/network/v2.0/routers/{id}/remove_extraroutes", policy::ROUTER_UPDATE, routes_remove),
    ]
}

/// The way out. An empty object means the same as null: none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayRequest {
    network_id: Option<NetworkId>,
    enable_snat: Option<bool>,
    external_fixed_ips: Option<Vec<FixedIpRequest>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouterCreateRequest {
    name: Option<String>,
    description: Option<String>,
    admin_state_up: Option<bool>,
    external_gateway_info: Option<GatewayRequest>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    availability_zone_hints: Option<Vec<String>>,
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouterUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    admin_state_up: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    external_gateway_info: Option<Option<GatewayRequest>>,
    #[serde(default, deserialize_with = "present")]
    routes: Option<Option<Vec<HostRoute>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceRequest {
    subnet_id: Option<SubnetId>,
    port_id: Option<PortId>,
}

fn gateway(asked: Option<GatewayRequest>) -> Result<Option<GatewayWish>, ApiError> {
    match asked {
        None | Some(GatewayRequest { network_id: None, enable_snat: None, external_fixed_ips: None }) => Ok(None),
        Some(GatewayRequest { network_id: Some(network_id), enable_snat, external_fixed_ips }) => {
            let fixed_ips = external_fixed_ips.filter(|ips| !ips.is_empty());
            Ok(Some(GatewayWish {
                network_id,
                snat: enable_snat,
                fixed_ips: fixed_ips.map(|ips| ips.into_iter().map(FixedIpWish::from).collect()),
            }))
        }
        Some(_) => Err(ApiError::bad_request(
            "Invalid input for external_gateway_info. Reason: Validation of dictionary's keys failed. Expected keys: {'network_id'}.",
        )),
    }
}

fn view(app: &App, router: &Router) -> Value {
    let gateway = router.gateway_network_id.map(|network_id| {
        let ips: Vec<Value> = router
            .gateway_addresses
            .iter()
            .map(|ip| json!({ "subnet_id": ip.subnet_id, "ip_address": ip.address }))
            .collect();
        json!({ "network_id": network_id, "enable_snat": router.snat, "external_fixed_ips": ips })
    });
    let shown = json!({
        "id": router.id,
        "name": router.name,
        "project_id": router.project_id,
        "tenant_id": router.project_id,
        "admin_state_up": router.admin_up,
        "status": "ACTIVE",
        "external_gateway_info": gateway,
        "routes": router.routes,
        "availability_zone_hints": router.zone_hints,
        "availability_zones": zones(app, &router.zone_hints),
        "tags": router.tags,
    });
    with_standard(shown, &router.description, router.revision, router.created_at, router.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.router_list(&ctx, listing(&query, ROUTER_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "routers", &page, |router| view(&app, router))))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: RouterCreateRequest = one(body, "router")?;
    let new = RouterNew {
        project_id: asked.project_id.or(asked.tenant_id),
        name: text("name", asked.name)?.unwrap_or_default(),
        description: text("description", asked.description)?.unwrap_or_default(),
        admin_up: asked.admin_state_up,
        gateway: gateway(asked.external_gateway_info)?,
        zone_hints: asked.availability_zone_hints.unwrap_or_default(),
        tags: tags(asked.tags)?,
    };
    let router = app.engine.router_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "router": view(&app, &router) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let router = app.engine.router_get(&ctx, id).await?;
    Ok(Json(json!({ "router": prune(&query, view(&app, &router)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: RouterUpdateRequest = one(body, "router")?;
    let change = RouterChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        admin_up: asked.admin_state_up,
        gateway: asked.external_gateway_info.map(gateway).transpose()?,
        routes: asked.routes.map(Option::unwrap_or_default),
        if_match,
    };
    let router = app.engine.router_update(&ctx, id, change).await?;
    Ok(Json(json!({ "router": view(&app, &router) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.router_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesRequest {
    routes: Vec<HostRoute>,
}

async fn routes_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: RoutesRequest = one(body, "router")?;
    let router = app.engine.router_routes_change(&ctx, id, RoutesChange::Add(asked.routes)).await?;
    Ok(Json(json!({ "router": view(&app, &router) })))
}

async fn routes_remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: RoutesRequest = one(body, "router")?;
    let router = app.engine.router_routes_change(&ctx, id, RoutesChange::Remove(asked.routes)).await?;
    Ok(Json(json!({ "router": view(&app, &router) })))
}

fn meant(asked: &InterfaceRequest) -> Result<InterfaceOf, ApiError> {
    match (asked.port_id, asked.subnet_id) {
        (Some(port), Some(subnet)) => Ok(InterfaceOf::Both(port, subnet)),
        (Some(port), None) => Ok(InterfaceOf::Port(port)),
        (None, Some(subnet)) => Ok(InterfaceOf::Subnet(subnet)),
        (None, None) => Err(ApiError::bad_request("Either subnet_id or port_id must be specified")),
    }
}

fn interface_view(interface: &Interface) -> Value {
    json!({
        "id": interface.router.id,
        "project_id": interface.router.project_id,
        "tenant_id": interface.router.project_id,
        "port_id": interface.port_id,
        "network_id": interface.network_id,
        "subnet_id": interface.subnet_ids.first(),
        "subnet_ids": interface.subnet_ids,
    })
}

async fn add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    Body(body): Body<InterfaceRequest>,
) -> Result<Json<Value>, ApiError> {
    let interface = app.engine.router_interface_add(&ctx, id, meant(&body)?).await?;
    Ok(Json(interface_view(&interface)))
}

async fn remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RouterId>,
    Body(body): Body<InterfaceRequest>,
) -> Result<Json<Value>, ApiError> {
    let interface = app.engine.router_interface_remove(&ctx, id, meant(&body)?).await?;
    Ok(Json(interface_view(&interface)))
}
