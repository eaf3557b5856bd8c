//! Servers that move while they run: what is in the way and what it would take, or the move itself.

use super::tasks::view;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App};
use arcus_engine::servers::{LiveMigrationPlan, LiveMigrationWish, Prediction};
use arcus_types::ServerId;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    live_migration: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// The node to go to, by name.
    node: Option<String>,
    /// Only say what would come of it.
    #[serde(default)]
    dry_run: bool,
    /// The guest never stands still for longer.
    max_blackout_ms: Option<u32>,
    /// It is given up after so long, in seconds.
    deadline_s: Option<i64>,
}

fn predicted(told: &Prediction) -> Value {
    json!({
        "total_ms": told.total_ms,
        "bytes": told.bytes,
        "blackout_ms": told.blackout_ms,
        "strategy": if told.converges { "plain" } else { "auto-converge" },
        "bytes_per_s": told.bytes_per_s,
        "moves_measured": told.moves_measured,
    })
}

fn planned(id: ServerId, plan: &LiveMigrationPlan) -> Value {
    let blockers = plan.blockers.iter().map(|b| json!({ "name": b.name, "text": b.message }));
    json!({
        "server_id": id,
        "possible": plan.blockers.is_empty(),
        "source": plan.source,
        "target": plan.target,
        "blockers": blockers.collect::<Vec<_>>(),
        "measured": plan.appraisal.map(|guest| json!({
            "memory_bytes": guest.memory_bytes,
            "disk_bytes": guest.disk_bytes,
            "dirty_bytes_per_s": guest.dirty_rate,
        })),
        "prediction": plan.prediction.as_ref().map(predicted),
    })
}

/// `POST /arcus/v1/servers/{id}/live-migration`: 202 with the task; 200 with the plan if `dry_run`.
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ServerId>,
    Json(body): Json<Body>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let Wish { node, dry_run, max_blackout_ms, deadline_s } = body.live_migration;
    let wish = LiveMigrationWish { node, block: None, blackout_ms_max: max_blackout_ms, deadline_s };
    if dry_run {
        let plan = app.engine.server_migrate_live_plan(&ctx, id, &wish).await?;
        return Ok((StatusCode::OK, axum::Json(json!({ "live_migration": planned(id, &plan) }))));
    }
    let asked = app.engine.server_migrate_live_asked(&ctx, id, &wish).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "task": view(&ctx, &asked.task) }))))
}
