//! `/network/v2.0/floatingips/{id}/port_forwardings`.

use super::lists::{answer_at, listing, prune};
use super::wire::{Ids, number, one, text};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::port_forwardings::PortForwardingWish;
use arcus_store::{PORT_FORWARDING_FIELDS, PortForwarding};
use arcus_types::policy::network as policy;
use arcus_types::{FloatingIpId, PortForwardingId, PortId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The routes of port forwardings.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/floatingips/{id}/port_forwardings", policy::PORT_FORWARDING_LIST, list),
        Route::post("/network/v2.0/floatingips/{id}/port_forwardings", policy::PORT_FORWARDING_CREATE, create),
        Route::get("/network/v2.0/floatingips/{id}/port_forwardings/{forwarding}", policy::PORT_FORWARDING_GET, show),
        Route::put(
            "/network/v2.0/floatingips/{id}/port_forwardings/{forwarding}",
            policy::PORT_FORWARDING_UPDATE,
            update,
        ),
        Route::delete(
            "/network/v2.0/floatingips/{id}/port_forwardings/{forwarding}",
            policy::PORT_FORWARDING_DELETE,
            delete,
        ),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortForwardingRequest {
    internal_port_id: Option<PortId>,
    internal_ip_address: Option<IpAddr>,
    #[serde(default, deserialize_with = "number")]
    internal_port: Option<i64>,
    internal_port_range: Option<String>,
    #[serde(default, deserialize_with = "number")]
    external_port: Option<i64>,
    external_port_range: Option<String>,
    protocol: Option<String>,
    description: Option<String>,
    // Who owns the floating IP owns what is forwarded; clients send these all the same.
    #[serde(rename = "project_id")]
    _project_id: Option<String>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

/// One port, or a range such as `80:89`.
fn ports(attribute: &str, one: Option<i64>, range: Option<String>) -> Result<Option<(u16, u16)>, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!("Invalid input for {attribute}. Reason: it is not a port or a range of ports."))
    };
    let small = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(wrong);
    match (one, range) {
        (Some(_), Some(_)) => Err(ApiError::bad_request(format!(
            "Bad port_forwarding request: the {attribute} and {attribute}_range attributes are mutually exclusive."
        ))),
        (Some(port), None) => small(port).map(|port| Some((port, port))),
        (None, Some(text)) => {
            let number = |text: &str| text.trim().parse().map_err(|_| wrong()).and_then(small);
            match text.split_once(':') {
                Some((first, last)) => Ok(Some((number(first)?, number(last)?))),
                None => number(&text).map(|port| Some((port, port))),
            }
        }
        (None, None) => Ok(None),
    }
}

impl PortForwardingRequest {
    fn into_domain(self) -> Result<PortForwardingWish, ApiError> {
        Ok(PortForwardingWish {
            port_id: self.internal_port_id,
            address: self.internal_ip_address,
            protocol: self.protocol.map(|protocol| protocol.to_ascii_lowercase()),
            internal_ports: ports("internal_port", self.internal_port, self.internal_port_range)?,
            external_ports: ports("external_port", self.external_port, self.external_port_range)?,
            description: text("description", self.description)?,
        })
    }
}

fn fields(of: &PortForwarding) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("protocol".into(), json!(of.protocol));
    map.insert("internal_ip_address".into(), json!(of.address));
    for (name, (first, last)) in [("internal_port", of.internal_ports), ("external_port", of.external_ports)] {
        map.insert(format!("{name}_range"), json!(format!("{first}:{last}")));
        map.insert(name.into(), if first == last { json!(first) } else { Value::Null });
    }
    map
}

/// A forwarding as a part of its floating IP.
pub fn inner_view(of: &PortForwarding) -> Value {
    Value::Object(fields(of))
}

fn view(of: &PortForwarding) -> Value {
    let mut map = fields(of);
    map.insert("id".into(), json!(of.id));
    map.insert("internal_port_id".into(), json!(of.port_id));
    map.insert("description".into(), json!(of.description));
    Value::Object(map)
}

async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<FloatingIpId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let page = app.engine.port_forwarding_list(&ctx, id, listing(&query, PORT_FORWARDING_FIELDS)?).await?;
    let path = format!("floatingips/{id}/port_forwardings");
    Ok(Json(answer_at(&app, &query, "port_forwardings", &path, &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<FloatingIpId>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: PortForwardingRequest = one(body, "port_forwarding")?;
    let made = app.engine.port_forwarding_create(&ctx, id, asked.into_domain()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "port_forwarding": view(&made) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(ip, id): Ids<FloatingIpId, PortForwardingId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let of = app.engine.port_forwarding_get(&ctx, ip, id).await?;
    Ok(Json(json!({ "port_forwarding": prune(&query, view(&of)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(ip, id): Ids<FloatingIpId, PortForwardingId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: PortForwardingRequest = one(body, "port_forwarding")?;
    let of = app.engine.port_forwarding_update(&ctx, ip, id, asked.into_domain()?).await?;
    Ok(Json(json!({ "port_forwarding": view(&of) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(ip, id): Ids<FloatingIpId, PortForwardingId>,
) -> Result<StatusCode, ApiError> {
    app.engine.port_forwarding_delete(&ctx, ip, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
