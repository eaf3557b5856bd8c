//! Snapshots of groups.

use super::{Made, asked, filter, status};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, required};
use crate::microversion::Microversion;
use crate::volume::links::next;
use crate::volume::volumes::text;
use crate::volume::{Answer, filters, since};
use crate::{ApiError, App};
use arcus_store::VolumeGroupSnapshot;
use arcus_types::{OpCtx, VolumeGroupId, VolumeGroupSnapshotId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn full(ctx: &OpCtx, s: &VolumeGroupSnapshot, version: Microversion) -> Value {
    let mut out = json!({
        "id": s.id,
        "group_id": s.group_id,
        "group_type_id": s.group_type_id,
        "status": s.status.as_str(),
        "created_at": s.created_at.iso_naive(),
        "name": s.name,
        "description": s.description,
    });
    if version.at_least(58) && ctx.is_admin() {
        out["project_id"] = json!(s.project_id);
    }
    out
}

async fn listed(app: &App, ctx: &OpCtx, version: Microversion, query: &Pairs, detail: bool) -> Answer {
    since(version, 14)?;
    filters::admitted(ctx, version, query, "group_snapshot")?;
    let none = Pairs(Vec::new());
    // Before 3.29 this list is neither filtered nor paged by the client.
    let query = if version.at_least(29) { query } else { &none };
    let (mut wanted, all) = filter(ctx, query, version)?;
    wanted.group_id = query.first("group_id").map(|t| t.parse().unwrap_or(VolumeGroupId(uuid::Uuid::nil())));
    let (found, is_full) = app.engine.volume_group_snapshot_list(ctx, all, wanted).await?;
    let view = |s: &VolumeGroupSnapshot| match detail {
        true => full(ctx, s, version),
        false => json!({ "id": s.id, "name": s.name }),
    };
    let mut out = json!({ "group_snapshots": found.iter().map(view).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        let path = if detail { "/group_snapshots/detail" } else { "/group_snapshots" };
        out["group_snapshot_links"] = next(app, ctx, path, query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /group_snapshots`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    listed(&app, &ctx, version, &query, false).await
}

/// `GET /group_snapshots/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    listed(&app, &ctx, version, &query, true).await
}

/// `GET /group_snapshots/{id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupSnapshotId>,
) -> Answer {
    since(version, 14)?;
    let found = app.engine.volume_group_snapshot_show(&ctx, id).await?;
    Ok(axum::Json(json!({ "group_snapshot": full(&ctx, &found, version) })))
}

/// `POST /group_snapshots`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Made {
    since(version, 14)?;
    let mut fields = Fields::of(&body, "group_snapshot", &[])?;
    let group = fields.parsed("group_id")?.ok_or_else(|| required("group_snapshot", "group_id"))?;
    let name = text(&mut fields, "name", "name")?.flatten();
    let description = text(&mut fields, "description", "description")?.flatten();
    fields.end()?;
    let made = app.engine.volume_group_snapshot_create(&ctx, group, name, description).await?;
    let out = json!({ "id": made.id, "name": made.name, "group_type_id": made.group_type_id });
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "group_snapshot": out }))))
}

/// `DELETE /group_snapshots/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupSnapshotId>,
) -> Result<StatusCode, ApiError> {
    since(version, 14)?;
    app.engine.volume_group_snapshot_delete(&ctx, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /group_snapshots/{id}/action`: `reset_status`, from 3.19 on
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupSnapshotId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 19)?;
    let (name, value) = asked(&body)?;
    if name != "reset_status" {
        let name: String = name.chars().take(64).collect();
        return Err(ApiError::bad_request(format!("There is no such action: {name}")));
    }
    app.engine.volume_group_snapshot_status_reset(&ctx, id, status(name, value)?).await?;
    Ok(StatusCode::ACCEPTED)
}
