//! `/network/v2.0/networks`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, domain, made, number, one, present, some, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::networks::{NetworkChange, NetworkNew};
use arcus_store::{NETWORK_FIELDS, Network};
use arcus_types::policy::network as policy;
use arcus_types::{NetworkId, OpCtx, ProjectId, QosPolicyId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of networks.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/networks", policy::NETWORK_LIST, list),
        Route::post("/network/v2.0/networks", policy::NETWORK_CREATE, create),
        Route::get("/network/v2.0/networks/{id}", policy::NETWORK_GET, show),
        Route::put("/network/v2.0/networks/{id}", policy::NETWORK_UPDATE, update),
        Route::delete("/network/v2.0/networks/{id}", policy::NETWORK_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkCreateRequest {
    name: Option<String>,
    description: Option<String>,
    admin_state_up: Option<bool>,
    shared: Option<bool>,
    #[serde(rename = "router:external")]
    external: Option<bool>,
    is_default: Option<bool>,
    #[serde(default, deserialize_with = "number")]
    mtu: Option<i64>,
    port_security_enabled: Option<bool>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    #[serde(rename = "provider:network_type")]
    kind: Option<String>,
    #[serde(rename = "provider:physical_network")]
    physical: Option<String>,
    #[serde(default, rename = "provider:segmentation_id", deserialize_with = "number")]
    segment: Option<i64>,
    availability_zone_hints: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    qos_policy_id: Option<Option<QosPolicyId>>,
    dns_domain: Option<String>,
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    admin_state_up: Option<bool>,
    shared: Option<bool>,
    #[serde(rename = "router:external")]
    external: Option<bool>,
    is_default: Option<bool>,
    #[serde(default, deserialize_with = "number")]
    mtu: Option<i64>,
    port_security_enabled: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    qos_policy_id: Option<Option<QosPolicyId>>,
    dns_domain: Option<String>,
}

fn mtu(value: Option<i64>) -> Result<Option<u32>, ApiError> {
    let small = |mtu| u32::try_from(mtu).map_err(|_| ApiError::bad_request(format!("Invalid input for mtu: {mtu}.")));
    value.map(small).transpose()
}

impl NetworkCreateRequest {
    fn into_domain(self) -> Result<NetworkNew, ApiError> {
        if self.physical.is_some() {
            return Err(ApiError::bad_request(
                "Invalid input for provider:physical_network. Reason: networks of this cloud are not bound to a physical one.",
            ));
        }
        let segment =
            |id| u32::try_from(id).map_err(|_| ApiError::bad_request("Invalid input for provider:segmentation_id."));
        Ok(NetworkNew {
            project_id: self.project_id.or(self.tenant_id),
            name: text("name", self.name)?.unwrap_or_default(),
            description: text("description", self.description)?.unwrap_or_default(),
            admin_up: self.admin_state_up,
            shared: self.shared.unwrap_or(false),
            external: self.external.unwrap_or(false),
            is_default: self.is_default.unwrap_or(false),
            mtu: mtu(self.mtu)?,
            port_security: self.port_security_enabled,
            segment: self.segment.map(segment).transpose()?,
            kind: self.kind,
            qos_policy_id: self.qos_policy_id,
            dns_domain: domain(self.dns_domain)?.unwrap_or_default(),
            zone_hints: self.availability_zone_hints.unwrap_or_default(),
            tags: tags(self.tags)?,
        })
    }
}

/// The zones that a thing which is in every zone names: those that its owner asked for, else the default one.
pub fn zones(app: &App, hints: &[String]) -> Vec<String> {
    if hints.is_empty() { vec![app.engine.config().default_zone.clone()] } else { hints.to_vec() }
}

/// A network on the wire; what it is made of only administrators see.
pub fn view(app: &App, ctx: &OpCtx, network: &Network) -> Value {
    let mut shown = json!({
        "id": network.id,
        "name": network.name,
        "project_id": network.project_id,
        "tenant_id": network.project_id,
        "admin_state_up": network.admin_up,
        "status": "ACTIVE",
        "shared": network.shared,
        "router:external": network.external,
        "is_default": network.is_default,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security,
        "subnets": network.subnets,
        "availability_zone_hints": network.zone_hints,
        "availability_zones": zones(app, &network.zone_hints),
        "ipv4_address_scope": network.ipv4_address_scope,
        "ipv6_address_scope": network.ipv6_address_scope,
        "qos_policy_id": network.qos_policy_id,
        "dns_domain": network.dns_domain,
        "tags": network.tags,
    });
    if ctx.is_admin()
        && let Value::Object(map) = &mut shown
    {
        let (kind, segment) = if network.external { ("flat", Value::Null) } else { ("vxlan", json!(network.segment)) };
        map.insert("provider:network_type".into(), json!(kind));
        map.insert("provider:physical_network".into(), Value::Null);
        map.insert("provider:segmentation_id".into(), segment);
    }
    with_standard(shown, &network.description, network.revision, network.created_at, network.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.network_list(&ctx, listing(&query, NETWORK_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "networks", &page, |network| view(&app, &ctx, network))))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = some::<NetworkCreateRequest>(body, "network", "networks")?;
    let wishes = asked.all.into_iter().map(NetworkCreateRequest::into_domain).collect::<Result<_, _>>()?;
    let networks = app.engine.networks_create(&ctx, wishes).await?;
    let shown = networks.iter().map(|network| view(&app, &ctx, network)).collect();
    Ok((StatusCode::CREATED, Json(made(shown, asked.bulk, "network", "networks"))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<NetworkId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let network = app.engine.network_get(&ctx, id).await?;
    Ok(Json(json!({ "network": prune(&query, view(&app, &ctx, &network)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<NetworkId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: NetworkUpdateRequest = one(body, "network")?;
    let change = NetworkChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        admin_up: asked.admin_state_up,
        shared: asked.shared,
        external: asked.external,
        is_default: asked.is_default,
        mtu: mtu(asked.mtu)?,
        port_security: asked.port_security_enabled,
        qos_policy_id: asked.qos_policy_id,
        dns_domain: domain(asked.dns_domain)?,
        if_match,
    };
    let network = app.engine.network_update(&ctx, id, change).await?;
    Ok(Json(json!({ "network": view(&app, &ctx, &network) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<NetworkId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.network_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
