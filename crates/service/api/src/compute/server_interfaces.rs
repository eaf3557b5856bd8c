//! A server's interfaces and security groups.

use super::fields::{Fields, refused};
use super::{Answer, server_id};
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::servers::{Interface, InterfaceWish, NetworkOrPort};
use arcus_types::{PortId, ServerId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn shown(interface: &Interface, version: Microversion) -> Value {
    let port = &interface.port;
    let fixed: Vec<Value> =
        port.fixed_ips.iter().map(|f| json!({ "ip_address": f.address, "subnet_id": f.subnet_id })).collect();
    let mut out = json!({
        "port_id": port.id,
        "net_id": port.network_id,
        "mac_addr": port.mac.to_string(),
        "port_state": port.status.as_str(),
        "fixed_ips": fixed,
    });
    if version.at_least(70) {
        out["tag"] = json!(interface.tag);
    }
    out
}

/// `GET /servers/{id}/os-interface`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerId>) -> Answer {
    let all = app.engine.server_interfaces(&ctx, id).await?;
    let list: Vec<Value> = all.iter().map(|i| shown(i, version)).collect();
    Ok(axum::Json(json!({ "interfaceAttachments": list })))
}

fn port_id(text: &str) -> Result<PortId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Port", text.chars().take(64).collect::<String>()))
}

/// `GET /servers/{id}/os-interface/{port_id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, port)): Path<(String, String)>,
) -> Answer {
    let found = app.engine.server_interface(&ctx, server_id(&id)?, port_id(&port)?).await?;
    Ok(axum::Json(json!({ "interfaceAttachment": shown(&found, version) })))
}

/// `POST /servers/{id}/os-interface`
pub async fn attach(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "interfaceAttachment", &[])?;
    let network = fields.parsed("net_id")?;
    let port = fields.parsed("port_id")?;
    let fixed_ip = match fields.list("fixed_ips", 1)? {
        None | Some([]) => None,
        Some([one, ..]) => {
            let mut fixed = Fields::object(one, "fixed_ips")?;
            let address = fixed.parsed("ip_address")?;
            fixed.end()?;
            address
        }
    };
    let tag = if version.at_least(49) { fields.text("tag", 1, 60)?.map(str::to_owned) } else { None };
    fields.end()?;
    let what = match (port, network) {
        (Some(_), Some(_)) => return Err(ApiError::bad_request("Must not input both network_id and port_id")),
        (Some(port), None) => Some(NetworkOrPort::Port(port)),
        (None, Some(network)) => Some(NetworkOrPort::Network(network)),
        (None, None) => None,
    };
    if fixed_ip.is_some() && network.is_none() {
        return Err(refused("fixed_ips", &json!(fixed_ip), "Must input network_id when request IP address"));
    }
    let wish = InterfaceWish { what, fixed_ip, tag };
    let made = app.engine.server_interface_attach(&ctx, id, &wish).await?;
    Ok(axum::Json(json!({ "interfaceAttachment": shown(&made, version) })))
}

/// `DELETE /servers/{id}/os-interface/{port_id}`
pub async fn detach(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, port)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.engine.server_interface_detach(&ctx, server_id(&id)?, port_id(&port)?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /servers/{id}/os-security-groups`
pub async fn security_groups(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>) -> Answer {
    let groups = app.engine.server_security_groups(&ctx, id).await?;
    let known = groups.iter().map(|g| (g.id, (g.project_id, g.name.clone()))).collect();
    let list: Vec<Value> = groups.iter().map(|g| super::security_groups::group(g, &known)).collect();
    Ok(axum::Json(json!({ "security_groups": list })))
}
