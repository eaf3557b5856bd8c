//! `/network/v2.0/ports`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, domain, made, number, one, present, range, some, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::port_addresses::FixedIpWish;
use arcus_engine::ports::{DhcpOptionChange, PortChange, PortNew};
use arcus_store::{AllowedPair, DhcpOption, PORT_FIELDS, Port, PortFilter};
use arcus_types::policy::network as policy;
use arcus_types::{MacAddr, NetworkId, OpCtx, PortId, ProjectId, QosPolicyId, SecurityGroupId, SubnetId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routes of ports.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/ports", policy::PORT_LIST, list),
        Route::post("/network/v2.0/ports", policy::PORT_CREATE, create),
        Route::get("/network/v2.0/ports/{id}", policy::PORT_GET, show),
        Route::put("/network/v2.0/ports/{id}", policy::PORT_UPDATE, update),
        Route::delete("/network/v2.0/ports/{id}", policy::PORT_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FixedIpRequest {
    subnet_id: Option<SubnetId>,
    ip_address: Option<IpAddr>,
}

impl From<FixedIpRequest> for FixedIpWish {
    fn from(asked: FixedIpRequest) -> Self {
        Self { subnet_id: asked.subnet_id, address: asked.ip_address }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedPairRequest {
    ip_address: String,
    mac_address: Option<MacAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortCreateRequest {
    network_id: NetworkId,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    mac_address: Option<MacAddr>,
    tags: Option<Vec<String>>,
    #[serde(flatten)]
    rest: PortRequest,
}

/// An option that DHCP tells besides; null as its value takes it away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DhcpOptionRequest {
    opt_name: String,
    opt_value: Option<String>,
    #[serde(default, deserialize_with = "number")]
    ip_version: Option<i64>,
}

/// What a create and an update have in common.
#[derive(Debug, Default, Deserialize)]
struct PortRequest {
    name: Option<String>,
    description: Option<String>,
    admin_state_up: Option<bool>,
    fixed_ips: Option<Vec<FixedIpRequest>>,
    #[serde(default, deserialize_with = "present")]
    security_groups: Option<Option<Vec<SecurityGroupId>>>,
    device_id: Option<String>,
    device_owner: Option<String>,
    allowed_address_pairs: Option<Vec<AllowedPairRequest>>,
    port_security_enabled: Option<bool>,
    dns_name: Option<String>,
    dns_domain: Option<String>,
    extra_dhcp_opts: Option<Vec<DhcpOptionRequest>>,
    #[serde(default, deserialize_with = "present")]
    qos_policy_id: Option<Option<QosPolicyId>>,
    #[serde(rename = "binding:host_id")]
    host_id: Option<String>,
    #[serde(rename = "binding:profile")]
    profile: Option<Value>,
    #[serde(rename = "binding:vnic_type")]
    vnic_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortUpdateRequest {
    mac_address: Option<MacAddr>,
    #[serde(flatten)]
    rest: PortRequest,
}

fn pairs(asked: Vec<AllowedPairRequest>) -> Result<Vec<AllowedPair>, ApiError> {
    let pair = |asked: AllowedPairRequest| {
        Ok(AllowedPair { cidr: range("allowed_address_pairs", &asked.ip_address)?, mac: asked.mac_address })
    };
    asked.into_iter().map(pair).collect()
}

fn options(asked: Vec<DhcpOptionRequest>) -> Result<Vec<DhcpOptionChange>, ApiError> {
    let option = |asked: DhcpOptionRequest| {
        let ip_version = match asked.ip_version {
            None | Some(4) => 4,
            Some(6) => 6,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "Invalid input for extra_dhcp_opts. Reason: ip_version {other} is not 4 or 6."
                )));
            }
        };
        Ok(DhcpOptionChange { name: asked.opt_name, value: asked.opt_value, ip_version })
    };
    asked.into_iter().map(option).collect()
}

impl PortRequest {
    fn into_change(self, mac: Option<MacAddr>) -> Result<PortChange, ApiError> {
        if self.vnic_type.as_deref().is_some_and(|kind| kind != "normal") {
            return Err(ApiError::bad_request(
                "Invalid input for binding:vnic_type. Reason: only 'normal' is offered.",
            ));
        }
        if let Some(name) = self.dns_name.as_deref().filter(|name| !name.is_empty()) {
            dns_label(name)?;
        }
        if self.profile.as_ref().is_some_and(|profile| !profile.is_object()) {
            return Err(ApiError::bad_request("Invalid input for binding:profile. Reason: it is not a dictionary."));
        }
        Ok(PortChange {
            name: text("name", self.name)?,
            description: text("description", self.description)?,
            mac,
            fixed_ips: self.fixed_ips.map(|ips| ips.into_iter().map(FixedIpWish::from).collect()),
            admin_up: self.admin_state_up,
            device_id: text("device_id", self.device_id)?,
            device_owner: text("device_owner", self.device_owner)?,
            binding_host: text("binding:host_id", self.host_id)?,
            binding_profile: self.profile,
            security_groups: self.security_groups.map(Option::unwrap_or_default),
            port_security: self.port_security_enabled,
            allowed_pairs: self.allowed_address_pairs.map(pairs).transpose()?,
            dns_name: self.dns_name,
            dns_domain: domain(self.dns_domain)?,
            dhcp_options: self.extra_dhcp_opts.map(options).transpose()?.unwrap_or_default(),
            qos_policy_id: self.qos_policy_id,
            if_match: None,
        })
    }
}

/// A host name as DNS takes it: letters, digits and dashes, 63 at most.
fn dns_label(name: &str) -> Result<(), ApiError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-') {
        Ok(())
    } else {
        Err(ApiError::bad_request("Invalid input for dns_name. Reason: it is not a valid host name."))
    }
}

fn option(asked: DhcpOptionChange) -> Option<DhcpOption> {
    Some(DhcpOption { name: asked.name, value: asked.value?, ip_version: asked.ip_version })
}

impl PortCreateRequest {
    fn into_domain(self) -> Result<PortNew, ApiError> {
        let rest = self.rest.into_change(self.mac_address)?;
        Ok(PortNew {
            network_id: self.network_id,
            project_id: self.project_id.or(self.tenant_id),
            name: rest.name.unwrap_or_default(),
            description: rest.description.unwrap_or_default(),
            mac: rest.mac,
            fixed_ips: rest.fixed_ips,
            admin_up: rest.admin_up,
            device_id: rest.device_id.unwrap_or_default(),
            device_owner: rest.device_owner.unwrap_or_default(),
            binding_host: rest.binding_host.unwrap_or_default(),
            binding_profile: rest.binding_profile,
            security_groups: rest.security_groups,
            port_security: rest.port_security,
            allowed_pairs: rest.allowed_pairs.unwrap_or_default(),
            dns_name: rest.dns_name.unwrap_or_default(),
            dns_domain: rest.dns_domain.unwrap_or_default(),
            dhcp_options: rest.dhcp_options.into_iter().filter_map(option).collect(),
            qos_policy_id: rest.qos_policy_id.flatten(),
            tags: tags(self.tags)?,
            ..PortNew::default()
        })
    }
}

fn pair_view(port: &Port, pair: &AllowedPair) -> Value {
    let single = pair.cidr.prefix_len() == pair.cidr.max_prefix_len();
    let range = if single { pair.cidr.addr().to_string() } else { pair.cidr.to_string() };
    json!({ "ip_address": range, "mac_address": pair.mac.unwrap_or(port.mac) })
}

/// A port on the wire; where it lives only administrators see.
pub fn view(ctx: &OpCtx, port: &Port) -> Value {
    let fixed: Vec<Value> =
        port.fixed_ips.iter().map(|ip| json!({ "subnet_id": ip.subnet_id, "ip_address": ip.address })).collect();
    let owner = port.project_id.map(|id| id.to_string()).unwrap_or_default();
    let mut shown = json!({
        "id": port.id,
        "name": port.name,
        "network_id": port.network_id,
        "project_id": owner,
        "tenant_id": owner,
        "mac_address": port.mac,
        "fixed_ips": fixed,
        "admin_state_up": port.admin_up,
        "status": port.status.as_str(),
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "security_groups": port.security_groups,
        "port_security_enabled": port.port_security,
        "allowed_address_pairs": port.allowed_pairs.iter().map(|pair| pair_view(port, pair)).collect::<Vec<_>>(),
        "dns_name": port.dns_name,
        "dns_domain": port.dns_domain,
        "extra_dhcp_opts": port.dhcp_options.iter().map(|o| json!({
            "opt_name": o.name, "opt_value": o.value, "ip_version": o.ip_version,
        })).collect::<Vec<_>>(),
        "qos_policy_id": port.qos_policy_id,
        "qos_network_policy_id": port.qos_network_policy_id,
        "tags": port.tags,
        "binding:vnic_type": port.vnic_type,
    });
    if ctx.is_admin()
        && let Value::Object(map) = &mut shown
    {
        map.insert("binding:host_id".into(), json!(port.binding_host));
        map.insert("binding:profile".into(), port.binding_profile.clone());
        map.insert("binding:vif_type".into(), json!(if port.node_id.is_some() { "tap" } else { "unbound" }));
        map.insert("binding:vif_details".into(), json!({}));
    }
    with_standard(shown, &port.description, port.revision, port.created_at, port.updated_at)
}

/// `fixed_ips=ip_address=10.0.0.4`, `fixed_ips=subnet_id=…`, `fixed_ips=ip_address_substr=10.0.`, `security_groups=…`.
fn filter(query: &Pairs) -> Result<PortFilter, ApiError> {
    let mut filter = PortFilter::default();
    let bad =
        |what: &str| ApiError::bad_request(format!("Invalid input for fixed_ips. Reason: '{what}' is not a filter."));
    for condition in query.every("fixed_ips") {
        match condition.split_once('=') {
            Some(("ip_address", value)) => filter.addresses.push(value.parse().map_err(|_| bad(condition))?),
            Some(("subnet_id", value)) => filter.subnets.push(value.parse().map_err(|_| bad(condition))?),
            Some(("ip_address_substr", value)) => filter.address_parts.push(value.to_owned()),
            Some(_) | None => return Err(bad(condition)),
        }
    }
    for id in query.every("security_groups").chain(query.every("security_group_ids")) {
        // Text that is no id, such as a group's name, names no group: nothing has the nil id.
        filter.security_groups.push(id.parse().unwrap_or(SecurityGroupId(uuid::Uuid::nil())));
    }
    Ok(filter)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.port_list(&ctx, listing(&query, PORT_FIELDS)?, &filter(&query)?).await?;
    Ok(Json(answer(&app, &query, "ports", &page, |port| view(&ctx, port))))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = some::<PortCreateRequest>(body, "port", "ports")?;
    let wishes = asked.all.into_iter().map(PortCreateRequest::into_domain).collect::<Result<_, _>>()?;
    let ports = app.engine.ports_create(&ctx, wishes).await?;
    let shown = ports.iter().map(|port| view(&ctx, port)).collect();
    Ok((StatusCode::CREATED, Json(made(shown, asked.bulk, "port", "ports"))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<PortId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let port = app.engine.port_get(&ctx, id).await?;
    Ok(Json(json!({ "port": prune(&query, view(&ctx, &port)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<PortId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: PortUpdateRequest = one(body, "port")?;
    let change = PortChange { if_match, ..asked.rest.into_change(asked.mac_address)? };
    let port = app.engine.port_update(&ctx, id, change).await?;
    Ok(Json(json!({ "port": view(&ctx, &port) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<PortId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.port_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
