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

/// What is noted about who has a volume.
#[derive(Debug, Clone)]
pub enum VolumeNote {
    /// It is kept for somebody.
    Reserve,
    /// It is no longer kept.
    Unreserve,
    /// It is about to be detached.
    DetachBegin,
    /// That is taken back.
    DetachRollBack,
    /// A machine has it.
    Attach(AttachNote),
    /// A machine does not have it any more: the one of this attachment, or the only one.
    Detach(Option<AttachmentId>),
    /// The same, whatever was noted before: no machine has it if no attachment is named. Administrators only.
    DetachForced(Option<AttachmentId>),
}

impl VolumeNote {
    const fn action(&self) -> Action {
        match self {
            Self::Reserve | Self::Unreserve | Self::Attach(_) => policy::VOLUME_ATTACH,
            Self::DetachBegin | Self::DetachRollBack | Self::Detach(_) => policy::VOLUME_DETACH,
            Self::DetachForced(_) => policy::VOLUME_DETACH_FORCED,
        }
    }
}

impl Engine {
    /// Notes something about who has a volume.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, [`EngineError::Conflict`] for a server's own disk,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_note(&self, ctx: &OpCtx, id: VolumeId, note: &VolumeNote) -> Result<(), EngineError> {
        let action = note.action();
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, action, id).await?;
            let status = self.volume_noted(&tx, &volume, note).await?;
            self.volume_set(&tx, &mut volume, status).await?;
            self.volume_audit(&tx, &volume, action, &json!({ "status": status.as_str() })).await?;
            self.commit(tx).await
        })
    }

    /// The state that a note leads to.
    async fn volume_noted(&self, tx: &Tx, volume: &Volume, note: &VolumeNote) -> Result<VolumeStatus, EngineError> {
        let status = volume.status;
        match note {
            VolumeNote::Reserve if VolumeRequest::Reserve.admits(status) => Ok(VolumeStatus::Attaching),
            VolumeNote::Reserve => {
                Err(invalid_volume(format!("Volume status must be available to reserve, but the status is {status}.")))
            }
            VolumeNote::Unreserve if matches!(status, VolumeStatus::Attaching | VolumeStatus::Reserved) => {
                self.volume_resting(tx, volume.id).await
            }
            VolumeNote::Unreserve => Ok(status),
            VolumeNote::DetachBegin if status == VolumeStatus::InUse => Ok(VolumeStatus::Detaching),
            VolumeNote::DetachBegin => Err(invalid_volume(format!(
                "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach. Currently: status: '{status}'."
            ))),
            VolumeNote::DetachRollBack if status == VolumeStatus::Detaching => Ok(VolumeStatus::InUse),
            VolumeNote::DetachRollBack => Ok(status),
            VolumeNote::Attach(note) => self.volume_attach_noted(tx, volume, note).await,
            VolumeNote::Detach(attachment) => self.volume_detach_noted(tx, volume, *attachment, false).await,
            VolumeNote::DetachForced(attachment) => self.volume_detach_noted(tx, volume, *attachment, true).await,
        }
    }

    async fn volume_attach_noted(
        &self,
        tx: &Tx,
        volume: &Volume,
        note: &AttachNote,
    ) -> Result<VolumeStatus, EngineError> {
        let id = volume.id;
        if !VolumeRequest::Attach.admits(volume.status) {
            return Err(invalid_volume(format!("Volume {id} is {}, it cannot be attached.", volume.status)));
        }
        if volume.read_only && note.read_only == Some(false) {
            return Err(invalid_volume(format!("Volume {id} is read-only: attach it with mode 'ro'.")));
        }
        let user = tx.ctx().user_id().unwrap_or(volume.user_id);
        let mut attachment = attachment_begun(volume, user, AttachmentStatus::Attached);
        attachment.server_id = note.server_id;
        attachment.host_name.clone_from(&note.host_name);
        attachment.device = Some(note.device.clone());
        attachment.read_only = Some(note.read_only.unwrap_or(volume.read_only));
        attachment.attached_at = Some(Timestamp::now());
        tx.volume_attachment_insert(&attachment).await?;
        Ok(VolumeStatus::InUse)
    }

    async fn volume_detach_noted(
        &self,
        tx: &Tx,
        volume: &Volume,
        attachment: Option<AttachmentId>,
        all: bool,
    ) -> Result<VolumeStatus, EngineError> {
        let mut known: Vec<VolumeAttachment> = tx.volume_attachments_of(&[volume.id]).await?;
        if let Some(wanted) = attachment {
            known.retain(|a| a.id == wanted);
            if known.is_empty() {
                return Err(super::no_attachment(wanted));
            }
        }
        if known.len() > 1 && !all {
            return Err(invalid_volume("Volume has several attachments: name the one to detach."));
        }
        for one in &known {
            noted(one)?;
            tx.volume_attachment_delete(one.id).await?;
        }
        self.volume_resting(tx, volume.id).await
    }

    /// How a client would reach a volume: it would not, because volumes are files of the node that runs the guest.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_connection(&self, ctx: &OpCtx, id: VolumeId) -> Result<Value, EngineError> {
        let volume = self.volume_seen(self.store(), ctx, policy::VOLUME_ATTACH, id).await?;
        let mode = if volume.read_only { "ro" } else { "rw" };
        Ok(json!({
            "driver_volume_type": "arcus",
            "data": { "volume_id": id, "access_mode": mode, "encrypted": false, "discard": true },
        }))
    }
}
