//! `/network/v2.0/floatingips`.

use super::lists::{answer, listing, prune};
use super::port_forwardings;
use super::wire::{IfMatch, domain, one, present, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::floating_ips::{FloatingIpChange, FloatingIpNew};
use arcus_store::{FLOATING_IP_FIELDS, FloatingIp};
use arcus_types::policy::network as policy;
use arcus_types::{FloatingIpId, NetworkId, PortId, ProjectId, QosPolicyId, SubnetId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routes of floating IPs.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/floatingips", policy::FLOATING_IP_LIST, list),
        Route::post("/network/v2.0/floatingips", policy::FLOATING_IP_CREATE, create),
        Route::get("/network/v2.0/floatingips/{id}", policy::FLOATING_IP_GET, show),
        Route::put("/network/v2.0/floatingips/{id}", policy::FLOATING_IP_UPDATE, update),
        Route::delete("/network/v2.0/floatingips/{id}", policy::FLOATING_IP_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloatingIpCreateRequest {
    floating_network_id: NetworkId,
    subnet_id: Option<SubnetId>,
    floating_ip_address: Option<IpAddr>,
    port_id: Option<PortId>,
    fixed_ip_address: Option<IpAddr>,
    description: Option<String>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    dns_name: Option<String>,
    dns_domain: Option<String>,
    qos_policy_id: Option<QosPolicyId>,
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloatingIpUpdateRequest {
    #[serde(default, deserialize_with = "present")]
    port_id: Option<Option<PortId>>,
    fixed_ip_address: Option<IpAddr>,
    description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    qos_policy_id: Option<Option<QosPolicyId>>,
}

fn view(ip: &FloatingIp) -> Value {
    let shown = json!({
        "id": ip.id,
        "project_id": ip.project_id,
        "tenant_id": ip.project_id,
        "floating_network_id": ip.network_id,
        "floating_ip_address": ip.address,
        "port_id": ip.port_id,
        "fixed_ip_address": ip.fixed_address,
        "router_id": ip.router_id,
        "status": if ip.router_id.is_some() { "ACTIVE" } else { "DOWN" },
        "dns_name": ip.dns_name,
        "dns_domain": ip.dns_domain,
        "qos_policy_id": ip.qos_policy_id,
        "port_forwardings": ip.forwardings.iter().map(port_forwardings::inner_view).collect::<Vec<_>>(),
        "tags": ip.tags,
    });
    with_standard(shown, &ip.description, ip.revision, ip.created_at, ip.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.floating_ip_list(&ctx, listing(&query, FLOATING_IP_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "floatingips", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: FloatingIpCreateRequest = one(body, "floatingip")?;
    let new = FloatingIpNew {
        project_id: asked.project_id.or(asked.tenant_id),
        description: text("description", asked.description)?.unwrap_or_default(),
        network_id: asked.floating_network_id,
        subnet_id: asked.subnet_id,
        address: asked.floating_ip_address,
        port_id: asked.port_id,
        fixed_address: asked.fixed_ip_address,
        dns_name: text("dns_name", asked.dns_name)?.unwrap_or_default(),
        dns_domain: domain(asked.dns_domain)?.unwrap_or_default(),
        qos_policy_id: asked.qos_policy_id,
        tags: tags(asked.tags)?,
    };
    let ip = app.engine.floating_ip_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "floatingip": view(&ip) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<FloatingIpId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let ip = app.engine.floating_ip_get(&ctx, id).await?;
    Ok(Json(json!({ "floatingip": prune(&query, view(&ip)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<FloatingIpId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: FloatingIpUpdateRequest = one(body, "floatingip")?;
    let change = FloatingIpChange {
        description: text("description", asked.description)?,
        port_id: asked.port_id,
        fixed_address: asked.fixed_ip_address,
        qos_policy_id: asked.qos_policy_id,
        if_match,
    };
    let ip = app.engine.floating_ip_update(&ctx, id, change).await?;
    Ok(Json(json!({ "floatingip": view(&ip) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<FloatingIpId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.floating_ip_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
