//! Nodes that are emptied for maintenance, and filled again.

use super::tasks::view;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App};
use arcus_engine::maintenance::{DrainWish, Maintenance};
use arcus_types::{OpCtx, TaskId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    drain: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreBody {
    restore: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Moves at the same time.
    parallel: Option<u32>,
    /// It is given up after so long, in seconds.
    deadline_s: Option<i64>,
    /// Only the plan.
    #[serde(default)]
    plan_only: bool,
}

impl From<Wish> for DrainWish {
    fn from(wish: Wish) -> Self {
        Self { parallel: wish.parallel, deadline_s: wish.deadline_s, plan_only: wish.plan_only }
    }
}

fn servers_view(maintenance: &Maintenance) -> Vec<Value> {
    let shown = |(row, target): &(arcus_store::Relocation, Option<arcus_types::Name>)| {
        json!({
            "server_id": row.server_id,
            "name": row.name,
            "state": row.state.text(),
            "target": target,
            "room_reserved": row.reserved,
            "reason": row.reason,
            "attempts": row.attempts,
            "memory_mib": row.memory_mib,
            "disk_gib": row.disk_gib,
            "predicted_ms": row.predicted_ms,
            "predicted_blackout_ms": row.predicted_blackout_ms,
            "measured_ms": row.measured_ms,
            "measured_blackout_ms": row.measured_blackout_ms,
        })
    };
    maintenance.servers.iter().map(shown).collect()
}

/// The whole: a plan alone has no task.
fn whole(ctx: &OpCtx, maintenance: &Maintenance, plan_only: bool) -> (StatusCode, axum::Json<Value>) {
    let task = (!plan_only).then(|| view(ctx, &maintenance.task));
    let status = if plan_only { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, axum::Json(json!({ "task": task, "servers": servers_view(maintenance) })))
}

/// `POST /arcus/v1/nodes/{name}/drain`: 202 with the task and the plan; 200 with the plan alone if `plan_only`.
pub async fn drain(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(name): Path<String>,
    Json(body): Json<DrainBody>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let wish = DrainWish::from(body.drain);
    let begun = app.engine.node_drain(&ctx, &name, &wish).await?;
    Ok(whole(&ctx, &begun, wish.plan_only))
}

/// `POST /arcus/v1/nodes/{name}/restore`: as above.
pub async fn restore(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(name): Path<String>,
    Json(body): Json<RestoreBody>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let wish = DrainWish::from(body.restore);
    let begun = app.engine.node_restore(&ctx, &name, &wish).await?;
    Ok(whole(&ctx, &begun, wish.plan_only))
}

/// `GET /arcus/v1/tasks/{id}/servers`: the servers of a drain or a restoration; none for other tasks. A drain has at most the
/// servers of one node, so there are no pages.
pub async fn servers(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TaskId>) -> Result<axum::Json<Value>, ApiError> {
    let found = app.engine.maintenance(&ctx, id).await?;
    Ok(axum::Json(json!({ "servers": servers_view(&found) })))
}
