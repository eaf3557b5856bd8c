//! Nodes, with what is held of them and why.

use crate::auth::Ctx;
use crate::body::{self, Pairs};
use crate::{ApiError, App, query};
use axum::extract::State;
use axum::response::Response;
use serde_json::json;

/// `GET /arcus/v1/nodes?cluster_id=&limit=&marker=`, by name; `marker` is the name after which to go on, told as `next`.
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Response, ApiError> {
    query::known(&query, &["cluster_id", "limit", "marker"])?;
    let cluster = query::parsed(&query, "cluster_id")?;
    let (nodes, more) = app.engine.node_page(&ctx, cluster, query.first("marker"), query::limit(&query)?).await?;
    let next = nodes.last().filter(|_| more).map(|node| ("next", json!(node.name)));
    let shown = nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "name": node.name,
            "availability_zone": node.availability_zone,
            "cluster_id": node.cluster_id,
            "enabled": node.enabled,
            "disabled_reason": node.disabled_reason,
            "state": node.state.text(),
            "state_since": (node.state_at.0 > 0).then(|| node.state_at.to_string()),
            "state_reason": node.state_reason,
            "recovery_held": node.held,
            "last_report_at": (node.seen_at.0 > 0).then(|| node.seen_at.to_string()),
            "agent_version": node.facts.agent_version,
            "vcpus": node.facts.vcpus,
            "memory_mib": node.facts.memory_mib,
            "disk_gib": node.facts.disk_gib,
            "measured": node.facts.measured,
        })
    });
    Ok(body::list("nodes", shown, next))
}
