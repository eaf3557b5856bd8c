//! `/network/v2.0/subnets`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, made, number, one, present, range, some, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::subnets::{SubnetChange, SubnetNew};
use arcus_store::{AllocationPool, HostRoute, Ipv6Mode, SUBNET_FIELDS, Subnet};
use arcus_types::policy::network as policy;
use arcus_types::{NetworkId, ProjectId, SubnetId, SubnetPoolId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routes of subnets.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/subnets", policy::SUBNET_LIST, list),
        Route::post("/network/v2.0/subnets", policy::SUBNET_CREATE, create),
        Route::get("/network/v2.0/subnets/{id}", policy::SUBNET_GET, show),
        Route::put("/network/v2.0/subnets/{id}", policy::SUBNET_UPDATE, update),
        Route::delete("/network/v2.0/subnets/{id}", policy::SUBNET_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetCreateRequest {
    network_id: NetworkId,
    name: Option<String>,
    description: Option<String>,
    #[serde(default, deserialize_with = "number")]
    ip_version: Option<i64>,
    cidr: Option<String>,
    #[serde(default, deserialize_with = "number")]
    prefixlen: Option<i64>,
    subnetpool_id: Option<SubnetPoolId>,
    #[serde(default, deserialize_with = "present")]
    gateway_ip: Option<Option<IpAddr>>,
    enable_dhcp: Option<bool>,
    allocation_pools: Option<Vec<AllocationPool>>,
    dns_nameservers: Option<Vec<IpAddr>>,
    host_routes: Option<Vec<HostRoute>>,
    ipv6_ra_mode: Option<Ipv6Mode>,
    ipv6_address_mode: Option<Ipv6Mode>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    service_types: Option<Vec<String>>,
    segment_id: Option<String>,
    use_default_subnetpool: Option<bool>,
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    #[serde(default, deserialize_with = "present")]
    gateway_ip: Option<Option<IpAddr>>,
    enable_dhcp: Option<bool>,
    allocation_pools: Option<Vec<AllocationPool>>,
    dns_nameservers: Option<Vec<IpAddr>>,
    host_routes: Option<Vec<HostRoute>>,
    service_types: Option<Vec<String>>,
}

fn no_service_types(types: Option<Vec<String>>) -> Result<(), ApiError> {
    match types {
        Some(types) if !types.is_empty() => {
            Err(ApiError::bad_request("Invalid input for service_types. Reason: subnets serve every kind of port."))
        }
        Some(_) | None => Ok(()),
    }
}

impl SubnetCreateRequest {
    fn into_domain(self) -> Result<SubnetNew, ApiError> {
        no_service_types(self.service_types)?;
        if self.segment_id.is_some() {
            return Err(ApiError::bad_request("Invalid input for segment_id. Reason: a network is one segment."));
        }
        let cidr = self.cidr.as_deref().map(|text| range("cidr", text)).transpose()?;
        let of_cidr = cidr.map(|c| if c.addr().is_ipv4() { 4 } else { 6 });
        match (self.ip_version, of_cidr) {
            (Some(4 | 6) | None, None) => {}
            (None, Some(_)) => {
                return Err(ApiError::bad_request(
                    "Failed to parse request. Required attribute 'ip_version' not specified",
                ));
            }
            (Some(said), Some(is)) if said == is => {}
            (Some(said), _) => {
                return Err(ApiError::bad_request(format!(
                    "Invalid input for operation: cidr '{}' does not match the ip_version '{said}'.",
                    self.cidr.unwrap_or_default()
                )));
            }
        }
        let prefix = |bits| {
            u8::try_from(bits).map_err(|_| ApiError::bad_request(format!("Invalid input for prefixlen: {bits}.")))
        };
        Ok(SubnetNew {
            network_id: self.network_id,
            project_id: self.project_id.or(self.tenant_id),
            name: text("name", self.name)?.unwrap_or_default(),
            description: text("description", self.description)?.unwrap_or_default(),
            cidr,
            prefix_len: self.prefixlen.map(prefix).transpose()?,
            subnet_pool_id: self.subnetpool_id,
            ip_version: self.ip_version.and_then(|version| u32::try_from(version).ok()),
            use_default_pool: self.use_default_subnetpool.unwrap_or(false),
            tags: tags(self.tags)?,
            gateway: self.gateway_ip,
            dhcp: self.enable_dhcp,
            pools: self.allocation_pools,
            dns_servers: self.dns_nameservers.unwrap_or_default(),
            host_routes: self.host_routes.unwrap_or_default(),
            ipv6_ra_mode: self.ipv6_ra_mode,
            ipv6_address_mode: self.ipv6_address_mode,
        })
    }
}

/// A subnet on the wire.
pub fn view(subnet: &Subnet) -> Value {
    let shown = json!({
        "id": subnet.id,
        "name": subnet.name,
        "network_id": subnet.network_id,
        "project_id": subnet.project_id,
        "tenant_id": subnet.project_id,
        "ip_version": subnet.ip_version(),
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway,
        "enable_dhcp": subnet.dhcp,
        "allocation_pools": subnet.pools,
        "dns_nameservers": subnet.dns_servers,
        "host_routes": subnet.host_routes,
        "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "subnetpool_id": subnet.subnet_pool_id,
        "service_types": [],
        "router:external": subnet.external,
        "tags": subnet.tags,
    });
    with_standard(shown, &subnet.description, subnet.revision, subnet.created_at, subnet.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.subnet_list(&ctx, listing(&query, SUBNET_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "subnets", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = some::<SubnetCreateRequest>(body, "subnet", "subnets")?;
    let wishes = asked.all.into_iter().map(SubnetCreateRequest::into_domain).collect::<Result<_, _>>()?;
    let subnets = app.engine.subnets_create(&ctx, wishes).await?;
    Ok((StatusCode::CREATED, Json(made(subnets.iter().map(view).collect(), asked.bulk, "subnet", "subnets"))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let subnet = app.engine.subnet_get(&ctx, id).await?;
    Ok(Json(json!({ "subnet": prune(&query, view(&subnet)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: SubnetUpdateRequest = one(body, "subnet")?;
    no_service_types(asked.service_types)?;
    let change = SubnetChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        gateway: asked.gateway_ip,
        dhcp: asked.enable_dhcp,
        pools: asked.allocation_pools,
        dns_servers: asked.dns_nameservers,
        host_routes: asked.host_routes,
        if_match,
    };
    let subnet = app.engine.subnet_update(&ctx, id, change).await?;
    Ok(Json(json!({ "subnet": view(&subnet) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SubnetId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.subnet_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
