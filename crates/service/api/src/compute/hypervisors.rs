//! Nodes: hypervisors, services and availability zones.

use super::fields::{Fields, required};
use super::{Answer, before, since};
use crate::auth::Ctx;
use crate::body::{Json, Pairs};
use crate::compute::links;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::hypervisors::{Hypervisor, Zone};
use arcus_engine::node_services::ServiceChange;
use arcus_types::{NodeId, OpCtx};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Before 2.53 nodes had numbers: this one stays the same for a node.
fn number(id: NodeId) -> u32 {
    (id.0.as_u128() & 0x7FFF_FFFF) as u32
}

fn id(h: &Hypervisor, version: Microversion) -> Value {
    if version.at_least(53) { json!(h.node.id) } else { json!(number(h.node.id)) }
}

const fn state(h: &Hypervisor) -> &'static str {
    if h.alive { "up" } else { "down" }
}

const fn status(h: &Hypervisor) -> &'static str {
    if h.node.enabled { "enabled" } else { "disabled" }
}

fn brief(h: &Hypervisor, version: Microversion) -> Value {
    json!({
        "id": id(h, version), "hypervisor_hostname": h.node.name, "state": state(h), "status": status(h),
    })
}

/// `7.2.22` as the number that the API has always shown: 7002022.
fn version_number(text: &str) -> u32 {
    let mut parts = text.split('.').map(|p| p.parse::<u32>().unwrap_or(0).min(999));
    let mut next = || parts.next().unwrap_or(0);
    next() * 1_000_000 + next() * 1_000 + next()
}

fn full(h: &Hypervisor, version: Microversion) -> Value {
    let n = &h.node;
    let mut out = brief(h, version);
    out["hypervisor_type"] = json!("QEMU");
    out["hypervisor_version"] = json!(version_number(&n.facts.hypervisor_version));
    let host_ip = n.facts.underlay.map_or_else(|| "127.0.0.1".to_owned(), |a| a.to_string());
    out["host_ip"] = json!(host_ip);
    out["service"] = json!({ "id": id(h, version), "host": n.name, "disabled_reason": n.disabled_reason });
    // From 2.88 on, what belongs to the placement API is gone.
    if version.at_least(88) {
        out["uptime"] = json!(uptime(h));
        return out;
    }
    out["vcpus"] = json!(n.facts.vcpus);
    out["vcpus_used"] = json!(n.vcpus_used);
    out["memory_mb"] = json!(n.facts.memory_mib);
    out["memory_mb_used"] = json!(n.memory_mib_used);
    out["free_ram_mb"] = json!(n.facts.memory_mib.saturating_sub(n.memory_mib_used));
    out["local_gb"] = json!(n.facts.disk_gib);
    out["local_gb_used"] = json!(n.disk_gib_used);
    out["free_disk_gb"] = json!(n.facts.disk_gib.saturating_sub(n.disk_gib_used));
    out["disk_available_least"] = json!(n.facts.disk_free_gib);
    out["current_workload"] = json!(0);
    out["running_vms"] = json!(h.servers);
    let seen = &n.facts.cpu;
    let features: Vec<&str> = seen.features.split_whitespace().collect();
    let arch = if seen.architecture.is_empty() { "x86_64" } else { &seen.architecture };
    let cpu = json!({ "arch": arch, "model": n.facts.cpu_model, "vendor": seen.vendor, "features": features,
        "topology": { "sockets": 1, "cores": n.facts.vcpus, "threads": 1 } });
    out["cpu_info"] = if version.at_least(28) { cpu } else { json!(cpu.to_string()) };
    out
}

async fn list_as(
    app: &App,
    ctx: &OpCtx,
    version: Microversion,
    query: &Pairs,
    path: &str,
    show: fn(&Hypervisor, Microversion) -> Value,
) -> Answer {
    if version.at_least(53) {
        links::known(query, &["hypervisor_hostname_pattern", "with_servers", "limit", "marker"])?;
    }
    let mut all = app.engine.hypervisor_list(ctx).await?;
    if let Some(pattern) = query.first("hypervisor_hostname_pattern").filter(|_| version.at_least(53)) {
        all.retain(|h| h.node.name.as_str().contains(pattern));
        if all.is_empty() {
            let pattern: String = pattern.chars().take(64).collect();
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                format!("No hypervisor matching '{pattern}' could be found."),
            ));
        }
    }
    let mut more = false;
    if version.at_least(33) {
        if let Some(marker) = query.first("marker") {
            let at =
                all.iter().position(|h| h.node.id.to_string() == marker || number(h.node.id).to_string() == marker);
            let at = at.ok_or_else(|| ApiError::bad_request("marker not found"))?;
            all.drain(..=at);
        }
        let limit = usize::try_from(links::limit(query)?).unwrap_or(usize::MAX);
        more = all.len() > limit;
        all.truncate(limit);
    }
    let with_servers =
        version.at_least(53) && query.first("with_servers").is_some_and(|t| super::fields::truth(t) == Some(true));
    let mut list = Vec::new();
    for h in &all {
        let mut one = show(h, version);
        // Before 2.75 the list of a node without servers is left out.
        if with_servers && (h.servers > 0 || version.at_least(75)) {
            one["servers"] = servers(app, ctx, h).await?;
        }
        list.push(one);
    }
    let mut out = json!({ "hypervisors": list });
    if let (true, Some(last)) = (more, all.last()) {
        let marker = id(last, version);
        let marker = marker.as_str().map_or_else(|| marker.to_string(), str::to_owned);
        out["hypervisors_links"] = links::next(app, path, query, &marker);
    }
    Ok(axum::Json(out))
}

async fn servers(app: &App, ctx: &OpCtx, h: &Hypervisor) -> Result<Value, ApiError> {
    let servers = app.engine.hypervisor_servers(ctx, h.node.id).await?;
    Ok(servers.into_iter().map(|(id, name)| json!({ "uuid": id, "name": name })).collect())
}

/// `GET /os-hypervisors`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    list_as(&app, &ctx, version, &query, "/os-hypervisors", brief).await
}

/// `GET /os-hypervisors/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    list_as(&app, &ctx, version, &query, "/os-hypervisors/detail", full).await
}

/// `GET /os-hypervisors/{id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(wanted): Path<String>,
    query: Pairs,
) -> Answer {
    if version.at_least(53) {
        links::known(&query, &["with_servers"])?;
    }
    let h = find(&app, &ctx, &wanted, version).await?;
    let mut out = full(&h, version);
    let asked = query.first("with_servers").is_some_and(|t| super::fields::truth(t) == Some(true));
    if version.at_least(53) && asked && (h.servers > 0 || version.at_least(75)) {
        out["servers"] = servers(&app, &ctx, &h).await?;
    }
    Ok(axum::Json(json!({ "hypervisor": out })))
}

/// The node of this id, or before 2.53 of this number.
async fn find(app: &App, ctx: &OpCtx, wanted: &str, version: Microversion) -> Result<Hypervisor, ApiError> {
    let all = app.engine.hypervisor_list(ctx).await?;
    let named = |h: &Hypervisor| {
        if version.at_least(53) { h.node.id.to_string() == wanted } else { number(h.node.id).to_string() == wanted }
    };
    let found = all.into_iter().find(named);
    found.ok_or_else(|| {
        let wanted: String = wanted.chars().take(64).collect();
        ApiError::new(StatusCode::NOT_FOUND, format!("Hypervisor with ID '{wanted}' could not be found."))
    })
}

/// How long a node has been up, as its own command of that name would say it; `None` if it did not tell.
fn uptime(h: &Hypervisor) -> Option<String> {
    let now = arcus_types::Timestamp::now();
    let booted = i64::try_from(h.node.facts.booted_at_s).ok().filter(|at| *at > 0)?;
    let up_s = (now.0 / 1_000_000 - booted).max(0);
    let (days, hours, minutes) = (up_s / 86_400, up_s / 3_600 % 24, up_s / 60 % 60);
    let clock = links::naive(now);
    let clock = clock.split('T').nth(1).and_then(|t| t.split('.').next()).unwrap_or_default();
    Some(format!(" {clock} up {days} days, {hours:2}:{minutes:02},  0 users,  load average: 0.00, 0.00, 0.00"))
}

/// `GET /os-hypervisors/{id}/uptime`, until 2.87
pub async fn uptime_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(wanted): Path<String>,
) -> Answer {
    before(version, 88)?;
    let h = find(&app, &ctx, &wanted, version).await?;
    if !h.alive {
        return Err(ApiError::bad_request(format!("Service is unavailable: node {} is down.", h.node.name)));
    }
    let mut out = brief(&h, version);
    let text =
        uptime(&h).ok_or_else(|| ApiError::new(StatusCode::BAD_REQUEST, "The node does not tell its uptime."))?;
    out["uptime"] = json!(text);
    Ok(axum::Json(json!({ "hypervisor": out })))
}

async fn matching(app: &App, ctx: &OpCtx, pattern: &str) -> Result<Vec<Hypervisor>, ApiError> {
    let mut all = app.engine.hypervisor_list(ctx).await?;
    all.retain(|h| h.node.name.as_str().contains(pattern));
    if all.is_empty() {
        let pattern: String = pattern.chars().take(64).collect();
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("No hypervisor matching '{pattern}' could be found."),
        ));
    }
    Ok(all)
}

/// `GET /os-hypervisors/{pattern}/search`, until 2.52
pub async fn search(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(pattern): Path<String>,
) -> Answer {
    before(version, 53)?;
    let all = matching(&app, &ctx, &pattern).await?;
    Ok(axum::Json(json!({ "hypervisors": all.iter().map(|h| brief(h, version)).collect::<Vec<_>>() })))
}

/// `GET /os-hypervisors/{pattern}/servers`, until 2.52
pub async fn servers_of(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(pattern): Path<String>,
) -> Answer {
    before(version, 53)?;
    let mut list = Vec::new();
    for h in matching(&app, &ctx, &pattern).await? {
        let mut one = brief(&h, version);
        if h.servers > 0 {
            one["servers"] = servers(&app, &ctx, &h).await?;
        }
        list.push(one);
    }
    Ok(axum::Json(json!({ "hypervisors": list })))
}

/// `GET /os-hypervisors/statistics`, until 2.87
pub async fn statistics(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    before(version, 88)?;
    let all = app.engine.hypervisor_list(&ctx).await?;
    let sum = |f: fn(&Hypervisor) -> u64| all.iter().map(f).sum::<u64>();
    Ok(axum::Json(json!({ "hypervisor_statistics": {
        "count": all.len(),
        "vcpus": sum(|h| u64::from(h.node.facts.vcpus)),
        "vcpus_used": sum(|h| h.node.vcpus_used),
        "memory_mb": sum(|h| h.node.facts.memory_mib),
        "memory_mb_used": sum(|h| h.node.memory_mib_used),
        "free_ram_mb": sum(|h| h.node.facts.memory_mib.saturating_sub(h.node.memory_mib_used)),
        "local_gb": sum(|h| h.node.facts.disk_gib),
        "local_gb_used": sum(|h| h.node.disk_gib_used),
        "free_disk_gb": sum(|h| h.node.facts.disk_gib.saturating_sub(h.node.disk_gib_used)),
        "disk_available_least": sum(|h| h.node.facts.disk_free_gib),
        "current_workload": 0,
        "running_vms": sum(|h| h.servers),
    } })))
}

fn service(h: &Hypervisor, version: Microversion) -> Value {
    let mut out = json!({
        "id": id(h, version),
        "binary": "nova-compute",
        "host": h.node.name,
        "zone": h.node.availability_zone,
        "status": status(h),
        "state": state(h),
        "updated_at": links::naive(h.node.seen_at),
        "disabled_reason": h.node.disabled_reason,
    });
    if version.at_least(11) {
        out["forced_down"] = json!(h.node.forced_down);
    }
    out
}

/// `GET /os-services`
pub async fn services(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    if version.at_least(75) {
        links::known(&query, &["host", "binary"])?;
    }
    let mut all = app.engine.service_list(&ctx).await?;
    if let Some(host) = query.first("host") {
        all.retain(|h| h.node.name.as_str() == host);
    }
    if query.first("binary").is_some_and(|binary| binary != "nova-compute") {
        all.clear();
    }
    Ok(axum::Json(json!({ "services": all.iter().map(|h| service(h, version)).collect::<Vec<_>>() })))
}

/// `PUT /os-services/{id}`, from 2.53 on; before, `enable`, `disable` and `disable-log-reason` stand for the id.
pub async fn service_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(wanted): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    if !version.at_least(53) {
        return service_update_old(&app, &ctx, &wanted, &body, version).await;
    }
    since(version, 53)?;
    let mut fields = Fields::object(&body, "body")?;
    let status = fields.text("status", 1, 16)?;
    let reason = fields.text("disabled_reason", 1, 255)?;
    let forced_down = fields.boolean("forced_down")?;
    fields.end()?;
    let all = app.engine.service_list(&ctx).await?;
    let found = all.into_iter().find(|h| h.node.id.to_string() == wanted);
    let found = found.ok_or_else(|| ApiError::not_found("Service", wanted.chars().take(64).collect::<String>()))?;
    let enabled = match status {
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => return Err(ApiError::bad_request("status is neither 'enabled' nor 'disabled'.")),
        None => None,
    };
    if enabled != Some(false) && reason.is_some() {
        return Err(ApiError::bad_request("Specifying 'disabled_reason' when status is not 'disabled' is invalid."));
    }
    if enabled.is_none() && forced_down.is_none() {
        return Err(ApiError::bad_request("No updates were requested: 'status' or 'forced_down' should be specified."));
    }
    let change = ServiceChange { enabled: enabled.map(|e| (e, reason.map(str::to_owned))), forced_down };
    let changed = app.engine.service_change(&ctx, found.node.id, &change).await?;
    Ok(axum::Json(json!({ "service": service(&changed, version) })))
}

/// `DELETE /os-services/{id}`
pub async fn service_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(wanted): Path<String>,
) -> Result<StatusCode, ApiError> {
    let all = app.engine.service_list(&ctx).await?;
    let named = |h: &&Hypervisor| {
        let number = !version.at_least(53) && number(h.node.id).to_string() == wanted;
        number || (version.at_least(53) && h.node.id.to_string() == wanted)
    };
    let shown: String = wanted.chars().take(64).collect();
    if wanted.parse::<NodeId>().is_err() && wanted.parse::<u64>().is_err() {
        return Err(ApiError::bad_request(format!("Invalid service id {shown}.")));
    }
    let found = all.iter().find(named).ok_or_else(|| ApiError::not_found("Service", shown))?;
    app.engine.service_delete(&ctx, found.node.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn service_update_old(app: &App, ctx: &OpCtx, verb: &str, body: &Value, version: Microversion) -> Answer {
    let mut fields = Fields::object(body, "body")?;
    let host = fields.text_required("host", 1, 255)?;
    let binary = fields.text_required("binary", 1, 255)?;
    let reason = fields.text("disabled_reason", 1, 255)?;
    let forced = fields.boolean("forced_down")?;
    fields.end()?;
    let forcing = verb == "force-down" && version.at_least(11);
    let enabled = match verb {
        "force-down" if forcing && forced.is_some() => true,
        "force-down" if forcing => return Err(required("body", "forced_down")),
        "enable" => true,
        "disable" => false,
        "disable-log-reason" if reason.is_some() => false,
        "disable-log-reason" => return Err(required("body", "disabled_reason")),
        _ => return Err(ApiError::new(StatusCode::NOT_FOUND, "Unknown action")),
    };
    let all = app.engine.service_list(ctx).await?;
    let found = all.into_iter().find(|h| h.node.name.as_str() == host && binary == "nova-compute");
    let found = found.ok_or_else(|| ApiError::not_found("Service on host", host))?;
    let change = if forcing {
        ServiceChange { enabled: None, forced_down: forced }
    } else {
        ServiceChange { enabled: Some((enabled, reason.map(str::to_owned))), forced_down: None }
    };
    let changed = app.engine.service_change(ctx, found.node.id, &change).await?;
    if forcing {
        let service = json!({ "host": host, "binary": binary, "forced_down": changed.node.forced_down });
        return Ok(axum::Json(json!({ "service": service })));
    }
    let mut out = json!({ "host": host, "binary": binary, "status": status(&changed) });
    if let Some(reason) = reason {
        out["disabled_reason"] = json!(reason);
    }
    Ok(axum::Json(json!({ "service": out })))
}

fn zone(zone: &Zone, detail: bool) -> Value {
    let hosts = detail.then(|| {
        let one = |(name, enabled, alive, seen): &(String, bool, bool, arcus_types::Timestamp)| {
            let service = json!({ "available": alive, "active": enabled, "updated_at": links::naive(*seen) });
            (name.clone(), json!({ "nova-compute": service }))
        };
        zone.nodes.iter().map(one).collect::<serde_json::Map<_, _>>()
    });
    json!({ "zoneName": zone.name, "zoneState": { "available": zone.available }, "hosts": hosts })
}

/// `GET /os-availability-zone`
pub async fn zones(Ctx(ctx): Ctx, State(app): State<App>) -> Answer {
    let zones = app.engine.zone_list(&ctx, false).await?;
    Ok(axum::Json(json!({ "availabilityZoneInfo": zones.iter().map(|z| zone(z, false)).collect::<Vec<_>>() })))
}

/// `GET /os-availability-zone/detail`
pub async fn zones_detail(Ctx(ctx): Ctx, State(app): State<App>) -> Answer {
    let zones = app.engine.zone_list(&ctx, true).await?;
    Ok(axum::Json(json!({ "availabilityZoneInfo": zones.iter().map(|z| zone(z, true)).collect::<Vec<_>>() })))
}
