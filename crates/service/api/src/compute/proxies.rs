//! What the compute API did for others before they had APIs of their own: networks, floating IPs and rules of security
//! groups until 2.35, metadata of images until 2.38.

use super::fields::{Fields, refused, required, texts};
use super::security_groups;
use super::{Answer, before};
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_engine::floating_ips::FloatingIpNew;
use arcus_engine::images::ImageChange;
use arcus_engine::security_groups::rules::RuleNew;
use arcus_store::{FloatingIp, Listing, NETWORK_FIELDS, Network, Port};
use arcus_types::agent::EtherType;
use arcus_types::{FloatingIpId, ImageId, NetworkId, OpCtx, SecurityGroupId, SecurityGroupRuleId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// A network as it was shown here; what Neutron-like networks have no word for is null.
fn network_old(network: &Network) -> Value {
    let mut out = json!({ "id": network.id, "label": network.name });
    for key in [
        "bridge",
        "vpn_public_port",
        "dhcp_start",
        "bridge_interface",
        "updated_at",
        "cidr_v6",
        "deleted_at",
        "gateway",
        "rxtx_base",
        "priority",
        "project_id",
        "vpn_private_address",
        "deleted",
        "vlan",
        "broadcast",
        "netmask",
        "injected",
        "cidr",
        "vpn_public_address",
        "multi_host",
        "dns2",
        "created_at",
        "host",
        "gateway_v6",
        "netmask_v6",
        "dns1",
        "mtu",
        "dhcp_server",
        "enable_dhcp",
        "share_address",
    ] {
        out[key] = Value::Null;
    }
    out["mtu"] = json!(network.mtu);
    out
}

fn network_brief(network: &Network) -> Value {
    json!({ "id": network.id, "label": network.name, "cidr": "None" })
}

async fn networks_as(app: &App, ctx: &OpCtx, show: fn(&Network) -> Value) -> Answer {
    let listing = Listing { viewer: ctx.project_id(), ..Listing::default() };
    let page = app.engine.network_list(ctx, listing).await?;
    Ok(axum::Json(json!({ "networks": page.rows.iter().map(show).collect::<Vec<_>>() })))
}

/// `GET /os-networks`
pub async fn networks(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    before(version, 36)?;
    networks_as(&app, &ctx, network_old).await
}

/// `GET /os-networks/{id}`
pub async fn network(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<NetworkId>) -> Answer {
    before(version, 36)?;
    let found = app.engine.network_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "network": network_old(&found) })))
}

/// `GET /os-tenant-networks`
pub async fn tenant_networks(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    before(version, 36)?;
    networks_as(&app, &ctx, network_brief).await
}

/// `GET /os-tenant-networks/{id}`
pub async fn tenant_network(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<NetworkId>,
) -> Answer {
    before(version, 36)?;
    let found = app.engine.network_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "network": network_brief(&found) })))
}

async fn external_networks(app: &App, ctx: &OpCtx) -> Result<Vec<Network>, ApiError> {
    let by = NETWORK_FIELDS.iter().find(|f| f.name == "router:external").copied();
    let filters = by.map(|by| (by, vec!["true".to_owned()])).into_iter().collect();
    let listing = Listing { filters, viewer: ctx.project_id(), ..Listing::default() };
    Ok(app.engine.network_list(ctx, listing).await?.rows)
}

/// `GET /os-floating-ip-pools`
pub async fn floating_ip_pools(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    before(version, 36)?;
    let pools = external_networks(&app, &ctx).await?;
    let list: Vec<Value> = pools.iter().map(|n| json!({ "name": n.name })).collect();
    Ok(axum::Json(json!({ "floating_ip_pools": list })))
}

/// Floating IPs with what is around them: their pools' names and the servers that they lead to.
async fn floating_ips_shown(app: &App, ctx: &OpCtx, ips: &[FloatingIp]) -> Result<Vec<Value>, ApiError> {
    let pools = external_networks(app, ctx).await?;
    let ports: Vec<Port> =
        app.engine.ports_by_ids(ctx, &ips.iter().filter_map(|ip| ip.port_id).collect::<Vec<_>>()).await?;
    let shown = |ip: &FloatingIp| {
        let pool = pools.iter().find(|n| n.id == ip.network_id).map(|n| n.name.clone());
        let server = ports.iter().find(|p| Some(p.id) == ip.port_id).and_then(|p| p.server_id);
        json!({ "id": ip.id, "ip": ip.address, "fixed_ip": ip.fixed_address, "instance_id": server, "pool": pool })
    };
    Ok(ips.iter().map(shown).collect())
}

/// `GET /os-floating-ips`
pub async fn floating_ips(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    before(version, 36)?;
    let listing = Listing { viewer: ctx.project_id(), ..Listing::default() };
    let page = app.engine.floating_ip_list(&ctx, listing).await?;
    Ok(axum::Json(json!({ "floating_ips": floating_ips_shown(&app, &ctx, &page.rows).await? })))
}

async fn floating_ip_answer(app: &App, ctx: &OpCtx, ip: FloatingIp) -> Answer {
    let shown = floating_ips_shown(app, ctx, &[ip]).await?;
    Ok(axum::Json(json!({ "floating_ip": shown.into_iter().next() })))
}

/// `GET /os-floating-ips/{id}`
pub async fn floating_ip(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<FloatingIpId>,
) -> Answer {
    before(version, 36)?;
    let found = app.engine.floating_ip_get(&ctx, id).await?;
    floating_ip_answer(&app, &ctx, found).await
}

/// `POST /os-floating-ips`
pub async fn floating_ip_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    body: axum::body::Bytes,
) -> Answer {
    before(version, 36)?;
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|_| ApiError::bad_request("The request body is not JSON."))?
    };
    let wanted = body.get("pool").and_then(Value::as_str);
    let pools = external_networks(&app, &ctx).await?;
    let pool = pools.iter().find(|n| wanted.is_none_or(|w| n.name == w || n.id.to_string() == w));
    let pool = pool.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "Floating IP pool not found."))?;
    let new = FloatingIpNew { network_id: pool.id, ..FloatingIpNew::default() };
    let made = app.engine.floating_ip_create(&ctx, new).await?;
    floating_ip_answer(&app, &ctx, made).await
}

/// `DELETE /os-floating-ips/{id}`
pub async fn floating_ip_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<FloatingIpId>,
) -> Result<StatusCode, ApiError> {
    before(version, 36)?;
    app.engine.floating_ip_delete(&ctx, id, None).await?;
    Ok(StatusCode::ACCEPTED)
}

fn port_number(value: &Value, key: &'static str) -> Result<Option<i64>, ApiError> {
    match value {
        Value::Null => Ok(None),
        Value::Number(n) => n.as_i64().map(Some).ok_or_else(|| refused(key, value, "It is not an integer.")),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| refused(key, value, "It is not an integer.")),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(refused(key, value, "It is not an integer.")),
    }
}

/// `POST /os-security-group-rules`
pub async fn rule_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 36)?;
    let mut fields = Fields::of(&body, "security_group_rule", &[])?;
    let parent = fields.text_required("parent_group_id", 0, 255)?;
    let parent: SecurityGroupId =
        parent.parse().map_err(|_| ApiError::bad_request(format!("Security group id {parent:?} is not a UUID.")))?;
    let protocol = fields.text("ip_protocol", 0, 32)?.map(str::to_ascii_lowercase);
    let null = Value::Null;
    let from = port_number(fields.raw("from_port").unwrap_or(&null), "from_port")?;
    let to = port_number(fields.raw("to_port").unwrap_or(&null), "to_port")?;
    let cidr: Option<ipnet::IpNet> = fields.parsed("cidr")?;
    let group: Option<SecurityGroupId> = match fields.text("group_id", 0, 255)? {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| refused("group_id", &json!(text), "It is not a UUID."))?),
    };
    fields.end()?;
    let protocol = protocol.ok_or_else(|| required("security_group_rule", "ip_protocol"))?;
    let any = |port: Option<i64>| port.filter(|p| *p != -1);
    if protocol != "icmp" && any(from).is_none() != any(to).is_none() {
        return Err(ApiError::bad_request("Valid TCP ports should be between 1-65535"));
    }
    if let (Some(from), Some(to)) = (any(from), any(to))
        && protocol != "icmp"
        && (from > to || from < 1 || to > 65_535)
    {
        return Err(ApiError::bad_request("Valid TCP ports should be between 1-65535, the former not greater."));
    }
    if !matches!(protocol.as_str(), "tcp" | "udp" | "icmp") {
        return Err(ApiError::bad_request(format!("Invalid IP protocol {protocol}.")));
    }
    let v6 = cidr.is_some_and(|c| c.addr().is_ipv6());
    let mut wish = RuleNew::ingress(parent);
    wish.ethertype = if v6 { EtherType::V6 } else { EtherType::V4 };
    wish.protocol = Some(protocol);
    (wish.port_min, wish.port_max) = (any(from), any(to));
    wish.remote_cidr = if group.is_some() { None } else { cidr };
    wish.remote_group_id = group;
    let made = app.engine.security_group_rules_create(&ctx, vec![wish]).await.map_err(old_error)?;
    let made = made.into_iter().next().ok_or_else(|| ApiError::bad_request("No rule was made."))?;
    let known = security_groups::remotes(&app, &ctx, std::slice::from_ref(&made)).await?;
    Ok(axum::Json(json!({ "security_group_rule": security_groups::rule(&made, &known) })))
}

/// Here, a rule that is there already has always been called a bad request.
fn old_error(error: EngineError) -> ApiError {
    match error {
        EngineError::Conflict { message, .. } => ApiError::bad_request(message),
        other => other.into(),
    }
}

/// `DELETE /os-security-group-rules/{id}`
pub async fn rule_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    before(version, 36)?;
    let rule: SecurityGroupRuleId = id.parse().map_err(|_| {
        let id: String = id.chars().take(64).collect();
        ApiError::bad_request(format!("Security group rule id {id:?} is not a UUID."))
    })?;
    app.engine.security_group_rule_delete(&ctx, rule).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /images/{id}/metadata`
pub async fn image_metadata(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ImageId>,
) -> Answer {
    before(version, 39)?;
    let image = app.engine.image_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "metadata": image.properties })))
}

async fn image_metadata_write(app: &App, ctx: &OpCtx, id: ImageId, body: &Value, replace: bool) -> Answer {
    let given = body.get("metadata").ok_or_else(|| required("body", "metadata"))?;
    let given = texts("metadata", given)?;
    let image = app.engine.image_get(ctx, id).await?;
    let mut changes: Vec<ImageChange> = Vec::new();
    if replace {
        let gone = image.properties.keys().filter(|key| !given.contains_key(*key));
        changes.extend(gone.map(|key| ImageChange::PropertyRemove(key.clone())));
    }
    changes.extend(given.into_iter().map(|(key, value)| ImageChange::PropertySet(key, value)));
    let image = app.engine.image_update(ctx, id, &changes).await?;
    Ok(axum::Json(json!({ "metadata": image.properties })))
}

/// `POST /images/{id}/metadata`
pub async fn image_metadata_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ImageId>,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 39)?;
    image_metadata_write(&app, &ctx, id, &body, false).await
}

/// `PUT /images/{id}/metadata`
pub async fn image_metadata_replace(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ImageId>,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 39)?;
    image_metadata_write(&app, &ctx, id, &body, true).await
}

fn image_id(text: &str) -> Result<ImageId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Image", text.chars().take(64).collect::<String>()))
}

fn no_item(key: &str) -> ApiError {
    let key: String = key.chars().take(64).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("Metadata item {key} was not found"))
}

/// `GET /images/{id}/metadata/{key}`
pub async fn image_metadata_item(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
) -> Answer {
    before(version, 39)?;
    let image = app.engine.image_get(&ctx, image_id(&id)?).await?;
    let value = image.properties.get(&key).ok_or_else(|| no_item(&key))?;
    Ok(axum::Json(json!({ "meta": { key: value } })))
}

/// `PUT /images/{id}/metadata/{key}`
pub async fn image_metadata_item_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 39)?;
    let given = texts("meta", body.get("meta").ok_or_else(|| required("body", "meta"))?)?;
    let value = given.get(&key).filter(|_| given.len() == 1);
    let value = value.ok_or_else(|| ApiError::bad_request("Request body and URI mismatch"))?;
    let change = ImageChange::PropertySet(key.clone(), value.clone());
    app.engine.image_update(&ctx, image_id(&id)?, &[change]).await?;
    Ok(axum::Json(json!({ "meta": { key: value } })))
}

/// `DELETE /images/{id}/metadata/{key}`
pub async fn image_metadata_item_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    before(version, 39)?;
    let removed = app.engine.image_update(&ctx, image_id(&id)?, &[ImageChange::PropertyRemove(key.clone())]).await;
    match removed {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        // Nothing else can be wrong with a removal than that there is nothing to remove.
        Err(EngineError::Conflict { .. } | EngineError::Invalid { .. }) => Err(no_item(&key)),
        Err(error) => Err(error.into()),
    }
}
