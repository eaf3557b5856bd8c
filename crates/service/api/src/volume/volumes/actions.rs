//! `POST /volumes/{id}/action`: one entry for everything else that can be asked of a volume.

use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::fields::{Fields, refused, required, texts};
use crate::microversion::Microversion;
use crate::volume::uploads::upload;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_engine::volume_attachments::{AttachNote, VolumeNote};
use arcus_types::volumes::{AttachmentStatus, VolumeStatus};
use arcus_types::{AttachmentId, OpCtx, VolumeId};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One action on one volume.
struct Asked<'a> {
    ctx: &'a OpCtx,
    app: &'a App,
    version: Microversion,
    id: VolumeId,
    name: &'a str,
    /// What the action was given.
    value: &'a Value,
}

fn accepted() -> Response {
    StatusCode::ACCEPTED.into_response()
}

/// `POST /volumes/{id}/action`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeId>,
    Json(body): Json<Value>,
) -> Result<Response, ApiError> {
    let map = body.as_object().ok_or_else(|| refused("body", &body, "It is not an object."))?;
    let mut actions = map.iter();
    let (Some((name, value)), None) = (actions.next(), actions.next()) else {
        return Err(ApiError::bad_request("The body must hold exactly one action."));
    };
    // Whoever may not see the volume is told so before what was sent is looked at.
    app.engine.volume_show(&ctx, id).await?;
    let asked = Asked { ctx: &ctx, app: &app, version, id, name, value };
    match name.as_str() {
        "os-extend"
        | "os-reset_status"
        | "os-force_delete"
        | "os-retype"
        | "os-set_bootable"
        | "os-update_readonly_flag" => asked.change().await,
        "os-set_image_metadata" | "os-unset_image_metadata" | "os-show_image_metadata" => asked.image_metadata().await,
        "os-volume_upload_image" => upload(&app, &ctx, version, id, value).await,
        "os-reserve"
        | "os-unreserve"
        | "os-begin_detaching"
        | "os-roll_detaching"
        | "os-attach"
        | "os-detach"
        | "os-force_detach"
        | "os-initialize_connection"
        | "os-terminate_connection" => asked.attachment().await,
        "revert" if version.at_least(40) => asked.revert().await,
        "os-reimage" if version.at_least(68) => asked.reimage().await,
        "os-migrate_volume" | "os-migrate_volume_completion" | "os-unmanage" => {
            Err(ApiError::new(StatusCode::CONFLICT, format!("'{name}' is not done by this cloud.")))
        }
        other => {
            let other: String = other.chars().take(64).collect();
            Err(ApiError::bad_request(format!("There is no such action: {other}")))
        }
    }
}

impl Asked<'_> {
    fn fields(&self) -> Result<Fields<'_>, ApiError> {
        Fields::object(self.value, self.name)
    }

    /// What changes the volume itself.
    async fn change(&self) -> Result<Response, ApiError> {
        let (engine, ctx, id) = (&self.app.engine, self.ctx, self.id);
        match self.name {
            "os-extend" => {
                let mut fields = self.fields()?;
                let size = super::size(&mut fields, "new_size")?.ok_or_else(|| required("os-extend", "new_size"))?;
                fields.end()?;
                engine.volume_extend(ctx, id, size, self.version.at_least(42)).await?;
            }
            "os-reset_status" => self.reset_status().await?,
            "os-force_delete" => engine.volume_delete(ctx, id, false, true).await?,
            "os-retype" => {
                let mut fields = self.fields()?;
                let wanted = fields.text_required("new_type", 1, 255)?;
                let policy = fields.text("migration_policy", 1, 16)?;
                fields.end()?;
                if policy.is_some_and(|p| p != "never" && p != "on-demand") {
                    return Err(ApiError::bad_request("migration_policy must be 'on-demand' or 'never'."));
                }
                engine.volume_retype(ctx, id, wanted).await?;
            }
            "os-set_bootable" => {
                let mut fields = self.fields()?;
                let bootable = fields.boolean("bootable")?.ok_or_else(|| required("os-set_bootable", "bootable"))?;
                engine.volume_bootable_set(ctx, id, bootable).await?;
                return Ok(StatusCode::OK.into_response());
            }
            _ => {
                let mut fields = self.fields()?;
                let flag = fields.boolean("readonly")?.ok_or_else(|| required(self.name, "readonly"))?;
                engine.volume_read_only_set(ctx, id, flag).await?;
            }
        }
        Ok(accepted())
    }

    async fn reset_status(&self) -> Result<(), ApiError> {
        let mut fields = self.fields()?;
        let status: Option<VolumeStatus> = fields.parsed("status")?;
        let attach = fields.text("attach_status", 1, 32)?;
        let migration = fields.text("migration_status", 1, 32)?;
        fields.end()?;
        if status.is_none() && attach.is_none() && migration.is_none() {
            return Err(ApiError::bad_request("Invalid input for field/attribute os-reset_status. Name a status."));
        }
        let (attachments, detached) = match attach {
            None => (None, false),
            Some("detached") => (None, true),
            Some(text) => {
                let parsed: Result<AttachmentStatus, _> = text.parse();
                (Some(parsed.map_err(|e| ApiError::bad_request(e.to_string()))?), false)
            }
        };
        Ok(self.app.engine.volume_status_reset(self.ctx, self.id, status, attachments, detached).await?)
    }

    /// Puts the volume back to its last snapshot.
    async fn revert(&self) -> Result<Response, ApiError> {
        let mut fields = self.fields()?;
        let snapshot = fields.parsed("snapshot_id")?.ok_or_else(|| required(self.name, "snapshot_id"))?;
        fields.end()?;
        self.app.engine.volume_revert(self.ctx, self.id, snapshot).await?;
        Ok(accepted())
    }

    /// Fills the volume with another image.
    async fn reimage(&self) -> Result<Response, ApiError> {
        let mut fields = self.fields()?;
        let image = fields.parsed("image_id")?.ok_or_else(|| required(self.name, "image_id"))?;
        let reserved = fields.boolean("reimage_reserved")?.unwrap_or(false);
        fields.end()?;
        self.app.engine.volume_reimage(self.ctx, self.id, image, reserved).await?;
        Ok(accepted())
    }

    /// What the volume remembers of its image.
    async fn image_metadata(&self) -> Result<Response, ApiError> {
        let (engine, ctx, id) = (&self.app.engine, self.ctx, self.id);
        match self.name {
            "os-set_image_metadata" => {
                let mut fields = self.fields()?;
                let given = fields.raw("metadata").ok_or_else(|| required(self.name, "metadata"))?;
                let given = texts("metadata", given)?;
                fields.end()?;
                let change = move |all: &mut BTreeMap<String, String>| {
                    all.extend(given.clone());
                    Ok(())
                };
                let all = engine.volume_image_metadata_change(ctx, id, change).await?;
                Ok(axum::Json(json!({ "metadata": all })).into_response())
            }
            "os-unset_image_metadata" => {
                let mut fields = self.fields()?;
                let key = fields.text_required("key", 1, 255)?.to_owned();
                fields.end()?;
                let change = move |all: &mut BTreeMap<String, String>| match all.remove(&key) {
                    Some(_) => Ok(()),
                    None => Err(EngineError::not_found("GlanceMetadataNotFound", "Metadata item", &key)),
                };
                engine.volume_image_metadata_change(ctx, id, change).await?;
                Ok(StatusCode::OK.into_response())
            }
            _ => {
                let found = engine.volume_show(ctx, id).await?;
                let all = found.volume.image_metadata.unwrap_or_default();
                Ok(axum::Json(json!({ "metadata": all })).into_response())
            }
        }
    }

    /// Notes about who has the volume.
    async fn attachment(&self) -> Result<Response, ApiError> {
        let (engine, ctx, id) = (&self.app.engine, self.ctx, self.id);
        let note = match self.name {
            "os-reserve" => VolumeNote::Reserve,
            "os-unreserve" => VolumeNote::Unreserve,
            "os-begin_detaching" => VolumeNote::DetachBegin,
            "os-roll_detaching" => VolumeNote::DetachRollBack,
            "os-attach" => VolumeNote::Attach(self.attach()?),
            "os-detach" => VolumeNote::Detach(self.attachment_id()?),
            "os-force_detach" => VolumeNote::DetachForced(self.attachment_id()?),
            other => {
                let mut fields = self.fields()?;
                fields.raw("connector").ok_or_else(|| required(self.name, "connector"))?;
                let connection = engine.volume_connection(ctx, id).await?;
                if other == "os-initialize_connection" {
                    return Ok(axum::Json(json!({ "connection_info": connection })).into_response());
                }
                // There is no connection that would have to end.
                return Ok(accepted());
            }
        };
        engine.volume_note(ctx, id, &note).await?;
        Ok(accepted())
    }

    fn attachment_id(&self) -> Result<Option<AttachmentId>, ApiError> {
        if self.value.is_null() {
            return Ok(None);
        }
        let mut fields = self.fields()?;
        let id = fields.parsed("attachment_id")?;
        fields.raw("connector");
        fields.end()?;
        Ok(id)
    }

    fn attach(&self) -> Result<AttachNote, ApiError> {
        let mut fields = self.fields()?;
        let note = AttachNote {
            server_id: fields.parsed("instance_uuid")?,
            host_name: fields.text("host_name", 1, 255)?.map(str::to_owned),
            device: fields.text_required("mountpoint", 1, 255)?.to_owned(),
            read_only: match fields.text("mode", 2, 2)? {
                None => None,
                Some("rw") => Some(false),
                Some("ro") => Some(true),
                Some(other) => return Err(refused("mode", &json!(other), "It is neither 'rw' nor 'ro'.")),
            },
        };
        fields.end()?;
        if note.server_id.is_some() == note.host_name.is_some() {
            return Err(ApiError::bad_request("Name either instance_uuid or host_name."));
        }
        Ok(note)
    }
}
