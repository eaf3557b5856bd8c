//! Snapshots of volumes.

use super::volumes::query;
use super::{Answer, filters, links};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::volume_snapshots::{VolumeSnapshotChange, VolumeSnapshotNew};
use arcus_store::VolumeSnapshot;
use arcus_types::VolumeSnapshotId;
use arcus_types::volumes::VolumeSnapshotStatus;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn shown(s: &VolumeSnapshot, version: Microversion, detail: bool) -> Value {
    let mut out = json!({
        "id": s.id,
        "name": s.name,
        "description": s.description,
        "volume_id": s.volume_id,
        "status": s.status.as_str(),
        "size": s.size_gib,
        "metadata": s.metadata,
        "created_at": s.created_at.iso_naive(),
        "updated_at": s.updated_at.map(|t| t.iso_naive()),
    });
    if detail {
        let progress = if s.status == VolumeSnapshotStatus::Available { "100%" } else { "0%" };
        out["os-extended-snapshot-attributes:progress"] = json!(progress);
        out["os-extended-snapshot-attributes:project_id"] = json!(s.project_id);
    }
    if version.at_least(14) {
        out["group_snapshot_id"] = json!(s.group_snapshot_id);
    }
    if version.at_least(41) {
        out["user_id"] = json!(s.user_id);
    }
    if version.at_least(65) {
        out["consumes_quota"] = json!(true);
    }
    out
}

async fn page(ctx: &arcus_types::OpCtx, app: &App, version: Microversion, query: &Pairs, detail: bool) -> Answer {
    filters::admitted(ctx, version, query, "snapshot")?;
    let asked = query::snapshots(ctx, query, version)?;
    let (found, is_full, count) = app.engine.volume_snapshot_list(ctx, asked).await?;
    let list: Vec<Value> = found.iter().map(|s| shown(s, version, detail)).collect();
    let mut out = json!({ "snapshots": list });
    if let (true, Some(last)) = (is_full, found.last()) {
        let path = if detail { "/snapshots/detail" } else { "/snapshots" };
        out["snapshots_links"] = links::next(app, ctx, path, query, last.id);
    }
    if let Some(count) = count {
        out["count"] = json!(count);
    }
    Ok(axum::Json(out))
}

/// `GET /snapshots`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    page(&ctx, &app, version, &query, false).await
}

/// `GET /snapshots/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    page(&ctx, &app, version, &query, true).await
}

/// `GET /snapshots/{id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeSnapshotId>,
) -> Answer {
    let found = app.engine.volume_snapshot_show(&ctx, id).await?;
    Ok(axum::Json(json!({ "snapshot": shown(&found, version, true) })))
}

/// `POST /snapshots`
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let mut fields = Fields::of(&body, "snapshot", &[])?;
    let volume_id = match fields.raw("volume_id") {
        // As in the reference implementation: null is the name of no volume, and nothing is a mistake.
        Some(Value::Null) => return Err(ApiError::not_found("Volume", "None")),
        _ => fields.parsed("volume_id")?.ok_or_else(|| required("snapshot", "volume_id"))?,
    };
    let force = fields.boolean("force")?;
    if version.at_least(66) && force == Some(false) {
        return Err(ApiError::bad_request(
            "Since microversion 3.66 the 'force' parameter is invalid for this request: snapshots are made of volumes that are in use, too.",
        ));
    }
    let new = VolumeSnapshotNew {
        volume_id,
        name: super::volumes::text(&mut fields, "name", "display_name")?.flatten(),
        description: super::volumes::text(&mut fields, "description", "display_description")?.flatten(),
        metadata: fields.texts("metadata")?.unwrap_or_default(),
        force: force.unwrap_or(false) || version.at_least(66),
        group_snapshot_id: None,
    };
    let made = app.engine.volume_snapshot_create(&ctx, &new).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "snapshot": shown(&made, version, false) }))))
}

/// `PUT /snapshots/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeSnapshotId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "snapshot", &[])?;
    let change = VolumeSnapshotChange {
        name: super::volumes::text(&mut fields, "name", "display_name")?,
        description: super::volumes::text(&mut fields, "description", "display_description")?,
    };
    fields.end()?;
    if change.name.is_none() && change.description.is_none() {
        return Err(required("snapshot", "name"));
    }
    let changed = app.engine.volume_snapshot_update(&ctx, id, &change).await?;
    Ok(axum::Json(json!({ "snapshot": shown(&changed, version, false) })))
}

/// `DELETE /snapshots/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<VolumeSnapshotId>,
) -> Result<StatusCode, ApiError> {
    app.engine.volume_snapshot_delete(&ctx, id, false).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /snapshots/{id}/action`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<VolumeSnapshotId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let map = body.as_object().ok_or_else(|| refused("body", &body, "It is not an object."))?;
    let mut actions = map.iter();
    let (Some((name, value)), None) = (actions.next(), actions.next()) else {
        return Err(ApiError::bad_request("The body must hold exactly one action."));
    };
    match name.as_str() {
        "os-reset_status" | "os-update_snapshot_status" => {
            let mut fields = Fields::object(value, name)?;
            let status = fields.parsed("status")?.ok_or_else(|| required(name, "status"))?;
            if name == "os-update_snapshot_status" {
                fields.text("progress", 0, 255)?;
            }
            fields.end()?;
            app.engine.volume_snapshot_status_reset(&ctx, id, status).await?;
        }
        "os-force_delete" => app.engine.volume_snapshot_delete(&ctx, id, true).await?,
        "os-unmanage" => {
            return Err(ApiError::new(StatusCode::CONFLICT, "'os-unmanage' is not done by this cloud."));
        }
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(ApiError::bad_request(format!("There is no such action: {other}")));
        }
    }
    Ok(StatusCode::ACCEPTED)
}
