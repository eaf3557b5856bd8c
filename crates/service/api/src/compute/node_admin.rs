//! What administrators ask of nodes beside hypervisors and services: the hosts of old, quota classes, the audit of usage,
//! events from other services and console tokens.

use super::Answer;
use super::fields::{Fields, refused, required};
use super::{before, links, since};
use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::hypervisors::Hypervisor;
use arcus_engine::node_services::ServiceChange;
use arcus_engine::server_extras::{EventFate, ExternalEvent};
use arcus_types::agent::RelayKind;
use arcus_types::{ServerId, Timestamp};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The most events of one request.
const EVENTS_MAX: usize = 1_000;

async fn host(app: &App, ctx: &arcus_types::OpCtx, name: &str) -> Result<Hypervisor, ApiError> {
    let all = app.engine.host_list(ctx).await?;
    let found = all.into_iter().find(|h| h.node.name.as_str() == name);
    found.ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        ApiError::new(StatusCode::NOT_FOUND, format!("Compute host {name} could not be found."))
    })
}

/// `GET /os-hosts`, until 2.42
pub async fn hosts(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    before(version, 43)?;
    let mut all = app.engine.host_list(&ctx).await?;
    if let Some(zone) = query.first("zone").filter(|zone| !zone.is_empty()) {
        all.retain(|h| h.node.availability_zone == zone);
    }
    let one =
        |h: &Hypervisor| json!({ "host_name": h.node.name, "service": "compute", "zone": h.node.availability_zone });
    Ok(axum::Json(json!({ "hosts": all.iter().map(one).collect::<Vec<_>>() })))
}

/// `GET /os-hosts/{name}`, until 2.42
pub async fn host_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Answer {
    before(version, 43)?;
    let h = host(&app, &ctx, &name).await?;
    let resource = |project: &str, cpu: u64, memory: u64, disk: u64| json!({ "resource": { "project": project, "host": h.node.name, "cpu": cpu, "memory_mb": memory, "disk_gb": disk } });
    let (facts, n) = (&h.node.facts, &h.node);
    Ok(axum::Json(json!({ "host": [
        resource("(total)", u64::from(facts.vcpus), facts.memory_mib, facts.disk_gib),
        resource("(used_now)", n.vcpus_used, n.memory_mib_used, n.disk_gib_used),
        resource("(used_max)", n.vcpus_used, n.memory_mib_used, n.disk_gib_used),
    ] })))
}

/// `PUT /os-hosts/{name}`, until 2.42
pub async fn host_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 43)?;
    let mut fields = Fields::object(&body, "body")?;
    let status = fields.text("status", 1, 16)?;
    let maintenance = fields.text("maintenance_mode", 1, 16)?;
    fields.end()?;
    let found = host(&app, &ctx, &name).await?;
    if let Some(mode) = maintenance {
        return Err(refused("maintenance_mode", &json!(mode), "Nodes have no such mode here: use the status."));
    }
    let enabled = match status {
        Some("enable") => true,
        Some("disable") => false,
        Some(other) => return Err(refused("status", &json!(other), "It is neither 'enable' nor 'disable'.")),
        None => return Err(required("body", "status")),
    };
    let change = ServiceChange { enabled: Some((enabled, None)), forced_down: None };
    app.engine.service_change(&ctx, found.node.id, &change).await?;
    let word = if enabled { "enabled" } else { "disabled" };
    Ok(axum::Json(json!({ "host": found.node.name, "status": word })))
}

/// `GET /os-hosts/{name}/startup` and its kin, until 2.42: nodes are not switched from here.
pub async fn host_power(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(name): Path<String>,
) -> Answer {
    before(version, 43)?;
    let found = host(&app, &ctx, &name).await?;
    Err(ApiError::bad_request(format!("Node {} cannot be switched on or off from here.", found.node.name)))
}

fn class(quotas: &[arcus_store::Quota], version: Microversion, id: Option<&str>) -> Value {
    let mut out = super::limits::class(quotas, version);
    if let Some(id) = id {
        out.insert("id".into(), json!(id));
    }
    json!({ "quota_class_set": out })
}

/// `GET /os-quota-class-sets/{id}`: the class `default` is what projects have unless their quotas say otherwise.
pub async fn quota_class(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
) -> Answer {
    let quotas = app.engine.quota_class_show(&ctx).await?;
    let id: String = id.chars().take(255).collect();
    Ok(axum::Json(class(&quotas, version, Some(&id))))
}

/// `PUT /os-quota-class-sets/{id}`
pub async fn quota_class_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    if id != "default" {
        return Err(ApiError::bad_request("Only the quota class 'default' has a meaning in this cloud."));
    }
    let caps = super::limits::class_caps(&body, version)?;
    let quotas = app.engine.quota_class_update(&ctx, &caps).await?;
    Ok(axum::Json(class(&quotas, version, None)))
}

/// `GET /os-instance_usage_audit_log`
pub async fn audit_log(Ctx(ctx): Ctx, State(app): State<App>) -> Answer {
    audit(&app, &ctx, Timestamp::now(), "instance_usage_audit_logs").await
}

/// `GET /os-instance_usage_audit_log/{before}`
pub async fn audit_log_before(Ctx(ctx): Ctx, State(app): State<App>, Path(before): Path<String>) -> Answer {
    let at = Timestamp::parse_iso(&before).or_else(|| Timestamp::parse_iso(&before.replace(' ', "T")));
    let at = at.ok_or_else(|| {
        let before: String = before.chars().take(64).collect();
        ApiError::bad_request(format!("Invalid timestamp for date {before}"))
    })?;
    audit(&app, &ctx, at, "instance_usage_audit_log").await
}

/// Usage is recorded with each change here, in the change's own transaction: no node has an audit to run.
async fn audit(app: &App, ctx: &arcus_types::OpCtx, at: Timestamp, key: &str) -> Answer {
    let all = app.engine.usage_audit(ctx).await?;
    let log: serde_json::Map<String, Value> = all
        .iter()
        .map(|h| {
            let entry = json!({ "state": "DONE", "instances": h.servers, "errors": 0,
                "message": format!("Usage is recorded with each change: {} instances.", h.servers) });
            (h.node.name.to_string(), entry)
        })
        .collect();
    Ok(axum::Json(json!({ key: {
        "period_beginning": links::naive(at.plus_seconds(-3_600)).replace('T', " "),
        "period_ending": links::naive(at).replace('T', " "),
        "num_hosts": all.len(), "num_hosts_done": all.len(), "num_hosts_not_run": 0, "num_hosts_running": 0,
        "hosts_not_run": [], "total_instances": all.iter().map(|h| h.servers).sum::<u64>(), "total_errors": 0,
        "overall_status": format!("ALL hosts done. 0 errors."), "log": log,
    } })))
}

fn event_known(name: &str, version: Microversion) -> bool {
    match name {
        "network-changed" | "network-vif-plugged" | "network-vif-unplugged" | "network-vif-deleted" => true,
        "volume-extended" => version.at_least(51),
        "power-update" => version.at_least(76),
        "accelerator-request-bound" => version.at_least(82),
        "volume-reimaged" => version.at_least(93),
        _ => false,
    }
}

fn event(value: &Value, version: Microversion) -> Result<ExternalEvent, ApiError> {
    let mut fields = Fields::object(value, "events")?;
    let name = fields.text_required("name", 1, 255)?;
    if !event_known(name, version) {
        return Err(refused("name", &json!(name), "It is not an event that is known."));
    }
    let server_id: Option<ServerId> = fields.parsed("server_uuid")?;
    let status = fields.text("status", 1, 16)?.unwrap_or("completed");
    if !matches!(status, "failed" | "completed" | "in-progress") {
        return Err(refused("status", &json!(status), "It is none of failed, completed and in-progress."));
    }
    let tag = fields.text("tag", 0, 255)?.map(str::to_owned);
    fields.end()?;
    let server_id = server_id.ok_or_else(|| required("events", "server_uuid"))?;
    Ok(ExternalEvent { name: name.to_owned(), server_id, tag, status: status.to_owned() })
}

/// `POST /os-server-external-events`
pub async fn events(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let list = body.get("events").and_then(Value::as_array).ok_or_else(|| required("body", "events"))?;
    if list.len() > EVENTS_MAX || body.as_object().is_some_and(|map| map.len() > 1) {
        return Err(ApiError::bad_request(format!("The body has the one field 'events', with at most {EVENTS_MAX}.")));
    }
    let events: Vec<ExternalEvent> = list.iter().map(|e| event(e, version)).collect::<Result<_, _>>()?;
    let fates = app.engine.server_events(&ctx, &events).await?;
    let shown = |(e, fate): (&ExternalEvent, &EventFate)| {
        let (code, status) = match fate {
            EventFate::Recorded => (200, e.status.as_str()),
            EventFate::NoServer => (404, "failed"),
            EventFate::NoNode => (422, "failed"),
        };
        let mut out = json!({ "name": e.name, "server_uuid": e.server_id, "status": status, "code": code });
        if let Some(tag) = &e.tag {
            out["tag"] = json!(tag);
        }
        out
    };
    let good = fates.iter().filter(|f| **f == EventFate::Recorded).count();
    if good == 0 && fates.contains(&EventFate::NoServer) && !fates.contains(&EventFate::NoNode) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "No instances found for any event"));
    }
    let status = if good == fates.len() { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let list: Vec<Value> = events.iter().zip(&fates).map(shown).collect();
    Ok((status, axum::Json(json!({ "events": list }))))
}

/// `GET /os-console-auth-tokens/{token}`
pub async fn console_token(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(token): Path<String>,
) -> Answer {
    since(version, 31)?;
    let (server, _, kind) = app.engine.console_token_show(&ctx, &token)?;
    let path = match kind {
        RelayKind::Vnc => "/console/vnc",
        RelayKind::Serial | RelayKind::ConsoleLog { .. } | RelayKind::Appraisal => "/console/serial",
    };
    let url = app.endpoint.url.split_once("://").map_or(app.endpoint.url.as_str(), |(_, rest)| rest);
    let authority = url.split('/').next().unwrap_or(url);
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
    Ok(axum::Json(json!({ "console": {
        "instance_uuid": server, "host": host, "port": port.parse::<u16>().unwrap_or(443), "internal_access_path": path,
    } })))
}
