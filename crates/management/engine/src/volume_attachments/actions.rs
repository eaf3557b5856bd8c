//! The actions of the volume API that are older than attachments: keep, release, attach, detach. All of them are notes;
//! what a server has is changed through the compute API.

use super::{attachment_begun, noted};
use crate::servers::retried;
use crate::volumes::invalid_volume;
use crate::{Engine, EngineError};
use arcus_store::{Tx, Volume, VolumeAttachment};
use arcus_types::policy::{Action, volume as policy};
use arcus_types::volumes::{AttachmentStatus, VolumeRequest, VolumeStatus};
use arcus_types::{AttachmentId, OpCtx, ServerId, Timestamp, VolumeId};
use serde_json::{Value, json};

/// How a volume is noted to be attached.
#[derive(Debug, Clone, Default)]
pub struct AttachNote {
    /// To this machine of the cloud.
    pub server_id: Option<ServerId>,
    /// To this machine elsewhere.
    pub host_name: Option<String>,
    /// As this device.
    pub device: String,
    /// Whether it is only read.
    pub read_only: Option<bool>,
}

impl Engine {
    /// Keeps a volume for somebody.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn volume_reserve(&self, ctx: &OpCtx, id: VolumeId) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_ATTACH, id, async |_, volume| {
            if !VolumeRequest::Reserve.admits(volume.status) {
                return Err(invalid_volume(format!(
                    "Volume status must be available to reserve, but the status is {}.",
                    volume.status
                )));
            }
            volume.status = VolumeStatus::Attaching;
            Ok(())
        })
        .await
    }

    /// Lets go a volume that was kept.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`].
    pub async fn volume_unreserve(&self, ctx: &OpCtx, id: VolumeId) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_ATTACH, id, async |tx, volume| {
            if matches!(volume.status, VolumeStatus::Attaching | VolumeStatus::Reserved) {
                volume.status = self.volume_resting(tx, id).await?;
            }
            Ok(())
        })
        .await
    }

    /// Notes that a volume is about to be detached.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`].
    pub async fn volume_detach_begin(&self, ctx: &OpCtx, id: VolumeId) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_DETACH, id, async |_, volume| {
            if volume.status != VolumeStatus::InUse {
                return Err(invalid_volume(format!(
                    "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach. Currently: status: '{}'.",
                    volume.status
                )));
            }
            volume.status = VolumeStatus::Detaching;
            Ok(())
        })
        .await
    }

    /// Takes that back.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`].
    pub async fn volume_detach_roll_back(&self, ctx: &OpCtx, id: VolumeId) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_DETACH, id, async |_, volume| {
            if volume.status == VolumeStatus::Detaching {
                volume.status = VolumeStatus::InUse;
            }
            Ok(())
        })
        .await
    }

    /// Notes that a machine has a volume.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`].
    pub async fn volume_attach(&self, ctx: &OpCtx, id: VolumeId, note: &AttachNote) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_ATTACH, id, async |tx, volume| {
            if !VolumeRequest::Attach.admits(volume.status) {
                return Err(invalid_volume(format!("Volume {id} is {}, it cannot be attached.", volume.status)));
            }
            if volume.read_only && note.read_only == Some(false) {
                return Err(invalid_volume(format!("Volume {id} is read-only: attach it with mode 'ro'.")));
            }
            let now = Timestamp::now();
            let user = tx.ctx().user_id().unwrap_or(volume.user_id);
            let mut attachment = attachment_begun(volume, user, AttachmentStatus::Attached);
            attachment.server_id = note.server_id;
            attachment.host_name.clone_from(&note.host_name);
            attachment.device = Some(note.device.clone());
            attachment.read_only = Some(note.read_only.unwrap_or(volume.read_only));
            attachment.attached_at = Some(now);
            tx.volume_attachment_insert(&attachment).await?;
            volume.status = VolumeStatus::InUse;
            Ok(())
        })
        .await
    }

    /// Notes that a machine does not have a volume any more; with `all` that none has.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`], and [`EngineError::Conflict`] for a server's own disk.
    pub async fn volume_detach(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        attachment: Option<AttachmentId>,
        all: bool,
    ) -> Result<(), EngineError> {
        self.volume_noted(ctx, policy::VOLUME_DETACH, id, async |tx, volume| {
            let mut known: Vec<VolumeAttachment> = tx.volume_attachments_of(&[id]).await?;
            if let Some(wanted) = attachment {
                known.retain(|a| a.id == wanted);
            }
            if known.is_empty() && attachment.is_some() {
                return Err(super::no_attachment(attachment.unwrap_or_default()));
            }
            if known.len() > 1 && !all {
                return Err(invalid_volume("Volume has several attachments: name the one to detach."));
            }
            for one in &known {
                noted(one)?;
                tx.volume_attachment_delete(one.id).await?;
            }
            volume.status = self.volume_resting(tx, id).await?;
            Ok(())
        })
        .await
    }

    /// How a client would reach a volume: it would not, because volumes are files of the node that runs the guest.
    ///
    /// # Errors
    /// As [`Engine::volume_reserve`].
    pub async fn volume_connection(&self, ctx: &OpCtx, id: VolumeId) -> Result<Value, EngineError> {
        let volume = self.volume_seen(self.store(), ctx, policy::VOLUME_ATTACH, id).await?;
        let mode = if volume.read_only { "ro" } else { "rw" };
        Ok(json!({
            "driver_volume_type": "arcus",
            "data": { "volume_id": id, "access_mode": mode, "encrypted": false, "discard": true },
        }))
    }

    async fn volume_noted(
        &self,
        ctx: &OpCtx,
        action: Action,
        id: VolumeId,
        change: impl AsyncFn(&Tx, &mut Volume) -> Result<(), EngineError> + Sync,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, action, id).await?;
            change(&tx, &mut volume).await?;
            let status = volume.status;
            self.volume_set(&tx, &mut volume, status).await?;
            self.volume_audit(&tx, &volume, action, &json!({ "status": status.as_str() })).await?;
            self.commit(tx).await
        })
    }
}
