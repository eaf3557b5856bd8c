//! A server's volumes.

use super::{Answer, server_id};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::query::{known, limit};
use crate::{ApiError, App};
use arcus_engine::servers::AttachWish;
use arcus_store::VolumeAttachment;
use arcus_types::{ServerId, VolumeId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn shown(a: &VolumeAttachment, version: Microversion) -> Value {
    let mut out = json!({ "volumeId": a.volume_id, "serverId": a.server_id, "device": a.device });
    if version.at_least(89) {
        out["bdm_uuid"] = json!(a.bdm_id);
        out["attachment_id"] = json!(a.id);
    } else {
        out["id"] = json!(a.volume_id);
    }
    if version.at_least(70) {
        out["tag"] = json!(a.tag);
    }
    if version.at_least(79) {
        out["delete_on_termination"] = json!(a.delete_on_termination);
    }
    out
}

fn volume_id(text: &str) -> Result<VolumeId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Volume", text.chars().take(64).collect::<String>()))
}

/// `GET /servers/{id}/os-volume_attachments`
pub async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    query: Pairs,
) -> Answer {
    if version.at_least(75) {
        known(&query, &["limit", "offset"])?;
    }
    let all = app.engine.server_volumes(&ctx, id).await?;
    let limit = usize::try_from(limit(&query)?).unwrap_or(usize::MAX);
    let offset: usize = crate::query::parsed(&query, "offset")?.unwrap_or(0);
    let list: Vec<Value> = all.iter().skip(offset).take(limit).map(|a| shown(a, version)).collect();
    Ok(axum::Json(json!({ "volumeAttachments": list })))
}

/// `GET /servers/{id}/os-volume_attachments/{volume_id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
) -> Answer {
    let found = app.engine.server_volume(&ctx, server_id(&id)?, volume_id(&volume)?).await?;
    Ok(axum::Json(json!({ "volumeAttachment": shown(&found, version) })))
}

/// `POST /servers/{id}/os-volume_attachments`
pub async fn attach(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "volumeAttachment", &[])?;
    let volume = fields.parsed("volumeId")?.ok_or_else(|| required("volumeAttachment", "volumeId"))?;
    let wish = AttachWish {
        device: fields.text("device", 0, 255)?.map(str::to_owned),
        tag: if version.at_least(49) { fields.text("tag", 1, 60)?.map(str::to_owned) } else { None },
        delete_on_termination: if version.at_least(79) {
            fields.boolean("delete_on_termination")?.unwrap_or(false)
        } else {
            false
        },
        boot_index: None,
        while_shelved: version.at_least(20),
    };
    fields.end()?;
    let made = app.engine.server_volume_attach(&ctx, id, volume, &wish).await?;
    // The answer to this call has kept the volume's id as its own in all microversions.
    let mut out = shown(&made, Microversion(2, version.1.min(88)));
    if !version.at_least(70) {
        out.as_object_mut().and_then(|map| map.remove("tag"));
    }
    Ok(axum::Json(json!({ "volumeAttachment": out })))
}

/// `PUT /servers/{id}/os-volume_attachments/{volume_id}`: from 2.85 on, whether the volume goes with the server. Another
/// volume in its place is not given while the server runs.
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let (id, volume) = (server_id(&id)?, volume_id(&volume)?);
    let found = app.engine.server_volume(&ctx, id, volume).await?;
    let mut fields = Fields::of(&body, "volumeAttachment", &[])?;
    let wanted: VolumeId = fields.parsed("volumeId")?.ok_or_else(|| required("volumeAttachment", "volumeId"))?;
    let mut keep = None;
    if version.at_least(85) {
        keep = fields.boolean("delete_on_termination")?;
        for (key, have) in
            [("device", json!(found.device)), ("serverId", json!(id)), ("tag", json!(found.tag)), ("id", json!(volume))]
        {
            if fields.raw(key).is_some_and(|given| *given != have) {
                return Err(refused(key, &body["volumeAttachment"][key], "It cannot be changed."));
            }
        }
    }
    fields.end()?;
    if wanted != volume {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "This cloud does not swap the volumes of a server: detach the one and attach the other.",
        ));
    }
    match keep {
        Some(keep) => app.engine.server_volume_keep(&ctx, id, volume, keep).await?,
        None if version.at_least(85) => return Err(required("volumeAttachment", "delete_on_termination")),
        None => {
            return Err(ApiError::bad_request("The volume that is to take the place of another must be another one."));
        }
    }
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /servers/{id}/os-volume_attachments/{volume_id}`
pub async fn detach(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, volume)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let while_shelved = version.at_least(20);
    app.engine.server_volume_detach(&ctx, server_id(&id)?, volume_id(&volume)?, while_shelved).await?;
    Ok(StatusCode::ACCEPTED)
}
