//! How much projects have used, in the simple form that old clients ask for.

use super::Answer;
use super::fields::truth;
use super::links::{self, instant};
use crate::App;
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::microversion::Microversion;
use arcus_store::Server;
use arcus_types::{ProjectId, ServerId, Timestamp};
use axum::extract::State;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MICROS_PER_HOUR: f64 = 3_600_000_000.0;
/// The report covers this long unless the caller says otherwise, in seconds.
const DEFAULT_SPAN_S: i64 = 4 * 7 * 24 * 3600;

/// The hours of a span of microseconds: a figure for people, never for bills.
#[expect(clippy::cast_precision_loss, reason = "hours that people read need no 53 bits")]
fn hours(micros: i64) -> f64 {
    micros as f64 / MICROS_PER_HOUR
}

#[expect(clippy::cast_precision_loss, reason = "hours that people read need no 53 bits")]
fn times(hours: f64, amount: u64) -> f64 {
    hours * amount as f64
}

fn span(query: &Pairs) -> Result<(Timestamp, Timestamp), crate::ApiError> {
    let now = Timestamp::now();
    let to = instant(query, "end")?.unwrap_or(now);
    let from = instant(query, "start")?.unwrap_or_else(|| to.plus_seconds(-DEFAULT_SPAN_S));
    if from >= to {
        return Err(crate::ApiError::bad_request(
            "Invalid start time. The start time cannot occur after the end time.",
        ));
    }
    Ok((from, to))
}

fn report(project: &ProjectId, servers: &[Server], from: Timestamp, to: Timestamp, detailed: bool) -> Value {
    let now = Timestamp::now();
    let (mut total, mut vcpus, mut memory, mut disk) = (0.0, 0.0, 0.0, 0.0);
    let mut list = Vec::new();
    for s in servers {
        let began = s.created_at.max(from);
        let ended = s.deleted_at.unwrap_or(now).min(to);
        let used = hours((ended.0 - began.0).max(0));
        total += used;
        vcpus += times(used, u64::from(s.flavor.vcpus));
        memory += times(used, s.flavor.memory_mib);
        disk += times(used, s.flavor.disk_gib);
        list.push(json!({
            "instance_id": s.id,
            "name": s.name,
            "tenant_id": s.project_id,
            "flavor": s.flavor.name,
            "vcpus": s.flavor.vcpus,
            "memory_mb": s.flavor.memory_mib,
            "local_gb": s.flavor.disk_gib,
            "hours": used,
            "started_at": links::naive(s.created_at),
            "ended_at": s.deleted_at.map(links::naive),
            "state": if s.deleted_at.is_some() { "terminated" } else { s.state.text() },
            "uptime": (s.deleted_at.unwrap_or(now).0 - s.created_at.0) / 1_000_000,
        }));
    }
    let mut out = json!({
        "tenant_id": project,
        "start": links::naive(from),
        "stop": links::naive(to),
        "total_hours": total,
        "total_vcpus_usage": vcpus,
        "total_memory_mb_usage": memory,
        "total_local_gb_usage": disk,
    });
    if detailed {
        out["server_usages"] = json!(list);
    }
    out
}

/// From 2.40 on there are pages: their size and the server after which one begins.
fn page(query: &Pairs, version: Microversion) -> Result<(u64, Option<ServerId>), crate::ApiError> {
    if version.at_least(75) {
        links::known(query, &["start", "end", "detailed", "limit", "marker"])?;
    }
    if version.at_least(40) {
        return Ok((links::limit(query)?, links::parsed(query, "marker")?));
    }
    Ok((links::PAGE_MAX, None))
}

/// `GET /os-simple-tenant-usage`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let page = page(&query, version)?;
    let (from, to) = span(&query)?;
    let detailed = query.first("detailed").and_then(truth).unwrap_or(false);
    let mut projects: BTreeMap<ProjectId, Vec<Server>> = BTreeMap::new();
    let (servers, more) = app.engine.usage_servers(&ctx, None, from, to, page).await?;
    let last = servers.last().map(|s| s.id.to_string());
    for server in servers {
        projects.entry(server.project_id).or_default().push(server);
    }
    let list: Vec<Value> = projects.iter().map(|(id, servers)| report(id, servers, from, to, detailed)).collect();
    let mut out = json!({ "tenant_usages": list });
    if let (true, true, Some(last)) = (more, version.at_least(40), last) {
        out["tenant_usages_links"] = links::next(&app, "/os-simple-tenant-usage", &query, &last);
    }
    Ok(axum::Json(out))
}

/// `GET /os-simple-tenant-usage/{project_id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProjectId>,
    query: Pairs,
) -> Answer {
    let page = page(&query, version)?;
    let (from, to) = span(&query)?;
    let (servers, more) = app.engine.usage_servers(&ctx, Some(id), from, to, page).await?;
    if servers.is_empty() {
        return Ok(axum::Json(json!({ "tenant_usage": {} })));
    }
    let mut out = json!({ "tenant_usage": report(&id, &servers, from, to, true) });
    if let (true, true, Some(last)) = (more, version.at_least(40), servers.last()) {
        let path = format!("/os-simple-tenant-usage/{id}");
        out["tenant_usage_links"] = links::next(&app, &path, &query, &last.id.to_string());
    }
    Ok(axum::Json(out))
}
