//! Attachments as the volume API has them, from 3.27 on: notes about who has a volume.

use super::volumes::query;
use super::{Answer, filters, links, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::volume_attachments::AttachmentNew;
use arcus_store::VolumeAttachment;
use arcus_types::AttachmentId;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn summary(a: &VolumeAttachment) -> Value {
    json!({ "id": a.id, "status": a.status.as_str(), "instance": a.server_id, "volume_id": a.volume_id })
}

fn shown(a: &VolumeAttachment) -> Value {
    let mode = a.read_only.map(|only| if only { "ro" } else { "rw" });
    let mut out = summary(a);
    out["attach_mode"] = json!(mode);
    out["attached_at"] = json!(a.attached_at.map(|t| t.iso_naive()));
    out["detached_at"] = Value::Null;
    out["connection_info"] = if a.read_only.is_some() {
        json!({
            "driver_volume_type": "arcus",
            "volume_id": a.volume_id,
            "attachment_id": a.id,
            "access_mode": mode,
            "encrypted": false,
        })
    } else {
        json!({})
    };
    out
}

/// A client's side of a connection.
fn connector<'a>(fields: &mut Fields<'a>) -> Result<Option<&'a Value>, ApiError> {
    match fields.raw("connector") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) if map.is_empty() => Ok(None),
        Some(value @ Value::Object(_)) if value.to_string().len() <= 16_384 => Ok(Some(value)),
        Some(other) => Err(refused("connector", other, "It is not an object of moderate size.")),
    }
}

fn mode(fields: &mut Fields<'_>, connector: Option<&Value>) -> Result<Option<bool>, ApiError> {
    let given = fields.text("mode", 2, 2)?.or_else(|| connector.and_then(|c| c.get("mode")).and_then(Value::as_str));
    match given {
        None => Ok(None),
        Some("rw") => Ok(Some(false)),
        Some("ro") => Ok(Some(true)),
        Some(other) => Err(refused("mode", &json!(other), "It is neither 'rw' nor 'ro'.")),
    }
}

/// `GET /attachments` and `GET /attachments/summary`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 27)?;
    filters::admitted(&ctx, version, &query, "attachment")?;
    let (found, is_full) = app.engine.attachment_list(&ctx, query::attachments(&ctx, &query)?).await?;
    let mut out = json!({ "attachments": found.iter().map(summary).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["attachments_links"] = links::next(&app, &ctx, "/attachments", &query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /attachments/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 27)?;
    filters::admitted(&ctx, version, &query, "attachment")?;
    let (found, is_full) = app.engine.attachment_list(&ctx, query::attachments(&ctx, &query)?).await?;
    let mut out = json!({ "attachments": found.iter().map(shown).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["attachments_links"] = links::next(&app, &ctx, "/attachments/detail", &query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /attachments/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<AttachmentId>) -> Answer {
    since(version, 27)?;
    let found = app.engine.attachment_show(&ctx, id).await?;
    Ok(axum::Json(json!({ "attachment": shown(&found) })))
}

/// `POST /attachments`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Answer {
    since(version, 27)?;
    let mut fields = Fields::of(&body, "attachment", &[])?;
    let connector = connector(&mut fields)?;
    let new = AttachmentNew {
        volume_id: fields.parsed("volume_uuid")?.ok_or_else(|| required("attachment", "volume_uuid"))?,
        server_id: fields.parsed("instance_uuid")?,
        connector: connector.cloned(),
        read_only: mode(&mut fields, connector)?,
    };
    fields.end()?;
    let made = app.engine.attachment_create(&ctx, &new).await?;
    Ok(axum::Json(json!({ "attachment": shown(&made) })))
}

/// `PUT /attachments/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<AttachmentId>,
    Json(body): Json<Value>,
) -> Answer {
    since(version, 27)?;
    let mut fields = Fields::of(&body, "attachment", &[])?;
    let connector = connector(&mut fields)?.ok_or_else(|| required("attachment", "connector"))?;
    let read_only = mode(&mut fields, Some(connector))?;
    fields.end()?;
    let changed = app.engine.attachment_connect(&ctx, id, connector, read_only).await?;
    Ok(axum::Json(json!({ "attachment": shown(&changed) })))
}

/// `POST /attachments/{id}/action`: `os-complete`, from 3.44 on
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<AttachmentId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 44)?;
    if body.get("os-complete").is_none() {
        return Err(required("body", "os-complete"));
    }
    app.engine.attachment_complete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /attachments/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<AttachmentId>) -> Answer {
    since(version, 27)?;
    let left = app.engine.attachment_delete(&ctx, id).await?;
    Ok(axum::Json(json!({ "attachments": left.iter().map(summary).collect::<Vec<_>>() })))
}
