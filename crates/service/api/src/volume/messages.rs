//! Messages: what went wrong with volumes, in words; from 3.3 on.

use super::links::{links, next};
use super::{Answer, filters, page, since};
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_store::FaultyVolume;
use arcus_types::{OpCtx, VolumeId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The event that all messages are of: something that was asked of a volume failed.
const EVENT: &str = "VOLUME_VOLUME_001_001";

fn view(app: &App, ctx: &OpCtx, volume: &FaultyVolume) -> Value {
    json!({
        "id": volume.id,
        "event_id": EVENT,
        "user_message": volume.fault.message,
        "message_level": "ERROR",
        "resource_type": "VOLUME",
        "resource_uuid": volume.id,
        "request_id": volume.request_id.map(|id| id.header()).unwrap_or_default(),
        "created_at": volume.fault.at.iso_naive(),
        "links": links(app, ctx, "messages", volume.id),
    })
}

/// `GET /messages`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 3)?;
    filters::admitted(&ctx, version, &query, "message")?;
    // Before 3.5 this list is neither filtered nor paged by the client.
    let query = if version.at_least(5) { query } else { Pairs(Vec::new()) };
    let all_are = |key: &str, value: &str| query.first(key).is_none_or(|wanted| wanted == value);
    if !(all_are("event_id", EVENT) && all_are("resource_type", "VOLUME") && all_are("message_level", "ERROR")) {
        return Ok(axum::Json(json!({ "messages": [] })));
    }
    // What is no id is the id of nothing.
    let only = query.first("resource_uuid").map(|text| text.parse().unwrap_or(VolumeId(uuid::Uuid::nil())));
    let (marker, limit) = (parsed(&query, "marker")?, page::limit(&query)?);
    let (found, is_full) = app.engine.volume_message_list(&ctx, only, marker, limit).await?;
    let mut out = json!({ "messages": found.iter().map(|v| view(&app, &ctx, v)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["messages_links"] = next(&app, &ctx, "/messages", &query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /messages/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<VolumeId>) -> Answer {
    since(version, 3)?;
    let found = app.engine.volume_message_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "message": view(&app, &ctx, &found) })))
}

/// `DELETE /messages/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeId>,
) -> Result<StatusCode, ApiError> {
    since(version, 3)?;
    app.engine.volume_message_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
