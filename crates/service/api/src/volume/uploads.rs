//! `os-volume_upload_image`: an image that is made of a volume.

use crate::fields::{Fields, refused};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::volumes::VolumeImageWish;
use arcus_types::agent::DiskFormat;
use arcus_types::images::{Visibility, disk_format_from_name, disk_format_name};
use arcus_types::{Name, OpCtx, VolumeId};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a client asks for; visibility and protection came with 3.1.
fn wish(value: &Value, version: Microversion) -> Result<VolumeImageWish, ApiError> {
    let mut fields = Fields::object(value, "os-volume_upload_image")?;
    let name = fields.text_required("image_name", 1, 255)?;
    let name: Name = name.parse().map_err(|e: arcus_types::Rejected| ApiError::bad_request(e.0))?;
    let force = fields.boolean("force")?.unwrap_or(false);
    let disk_format = match fields.text("disk_format", 1, 32)? {
        None => DiskFormat::Raw,
        Some(text) => {
            let known = disk_format_from_name(text);
            known.map_err(|_| refused("disk_format", &json!(text), "An image of a volume is raw or qcow2."))?
        }
    };
    if let Some(container) = fields.text("container_format", 1, 32)?
        && container != "bare"
    {
        return Err(refused("container_format", &json!(container), "The only container is bare."));
    }
    let (mut visibility, mut protected) = (Visibility::Private, false);
    if version.at_least(1) {
        visibility = fields.parsed("visibility")?.unwrap_or(visibility);
        protected = fields.boolean("protected")?.unwrap_or(false);
    }
    fields.end()?;
    Ok(VolumeImageWish { name, disk_format, visibility, protected, force })
}

/// Makes an image of a volume.
///
/// # Errors
/// 400 for what is not valid or a state that does not admit it, 404, 413 for an exceeded quota.
pub async fn upload(
    app: &App,
    ctx: &OpCtx,
    version: Microversion,
    id: VolumeId,
    value: &Value,
) -> Result<Response, ApiError> {
    let wish = wish(value, version)?;
    let (volume, image_id) = app.engine.volume_upload(ctx, id, &wish).await?;
    let kind = app.engine.volume_type_get(ctx, volume.volume_type_id).await.ok();
    let kind = kind.map(|t| {
        json!({
            "id": t.id,
            "name": t.name,
            "description": t.description,
            "is_public": t.is_public,
            "qos_specs_id": t.qos_specs_id.filter(|_| ctx.is_admin()),
        })
    });
    let mut out = json!({
        "id": volume.id,
        "updated_at": volume.updated_at.unwrap_or(volume.created_at).iso_naive(),
        "status": volume.status.as_str(),
        "display_description": volume.description,
        "size": volume.size_gib,
        "volume_type": kind,
        "image_id": image_id,
        "image_name": wish.name,
        "container_format": "bare",
        "disk_format": disk_format_name(wish.disk_format),
    });
    if version.at_least(1) {
        out["visibility"] = json!(wish.visibility.as_str());
        out["protected"] = json!(wish.protected);
    }
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "os-volume_upload_image": out }))).into_response())
}
