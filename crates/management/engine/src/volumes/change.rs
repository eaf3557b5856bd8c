//! What owners change about a volume: its texts, its metadata, its size, its flags.

use super::{fault, invalid_input, invalid_volume, metadata_checked, no_volume};
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{QuotaResource, Tx, Volume};
use arcus_types::policy::{Action, volume as policy};
use arcus_types::volumes::{AttachmentStatus, VOLUME_GIB_MAX, VolumeRequest, VolumeStatus};
use arcus_types::{OpCtx, Timestamp, VolumeId, VolumeTypeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a change of a volume's record sets; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct VolumeChange {
    /// The name.
    pub name: Option<Option<String>>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// All of the metadata.
    pub metadata: Option<BTreeMap<String, String>>,
}

impl Engine {
    /// Changes a volume's texts or metadata.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_update(&self, ctx: &OpCtx, id: VolumeId, change: &VolumeChange) -> Result<Volume, EngineError> {
        if let Some(metadata) = &change.metadata {
            metadata_checked(metadata)?;
        }
        let detail = json!({ "name": change.name, "description": change.description });
        self.volume_mark(ctx, policy::VOLUME_UPDATE, id, &detail, |volume| {
            if let Some(name) = &change.name {
                volume.name.clone_from(name);
            }
            if let Some(description) = &change.description {
                volume.description.clone_from(description);
            }
            if let Some(metadata) = &change.metadata {
                volume.metadata.clone_from(metadata);
            }
            Ok(())
        })
        .await
    }

    /// A volume's metadata.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_metadata(&self, ctx: &OpCtx, id: VolumeId) -> Result<BTreeMap<String, String>, EngineError> {
        Ok(self.volume_seen(self.store(), ctx, policy::VOLUME_METADATA_READ, id).await?.metadata)
    }

    /// Changes a volume's metadata; what it is afterwards.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] beyond the limits or in a state that does not admit it, [`EngineError::NotFound`], or a
    /// refusal.
    pub async fn volume_metadata_change(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let detail = json!({ "metadata": true });
        let volume = self
            .volume_mark(ctx, policy::VOLUME_METADATA_WRITE, id, &detail, |volume| {
                if !VolumeRequest::Metadata.admits(volume.status) {
                    return Err(invalid_volume(format!("Volume {id} is {}.", volume.status)));
                }
                change(&mut volume.metadata)?;
                metadata_checked(&volume.metadata)
            })
            .await?;
        Ok(volume.metadata)
    }

    /// Changes what a volume remembers of its image; what it is afterwards.
    ///
    /// # Errors
    /// As [`Engine::volume_metadata_change`].
    pub async fn volume_image_metadata_change(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let detail = json!({ "image_metadata": true });
        let volume = self
            .volume_mark(ctx, policy::VOLUME_METADATA_WRITE, id, &detail, |volume| {
                let mut all = volume.image_metadata.take().unwrap_or_default();
                change(&mut all)?;
                metadata_checked(&all)?;
                volume.image_metadata = (!all.is_empty()).then_some(all);
                Ok(())
            })
            .await?;
        Ok(volume.image_metadata.unwrap_or_default())
    }

    /// Says whether servers can boot from a volume.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_bootable_set(&self, ctx: &OpCtx, id: VolumeId, bootable: bool) -> Result<(), EngineError> {
        self.volume_mark(ctx, policy::VOLUME_UPDATE, id, &json!({ "bootable": bootable }), |volume| {
            volume.bootable = bootable;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Says whether servers get a volume read-only.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] while a server has it, [`EngineError::NotFound`], or a refusal.
    pub async fn volume_read_only_set(&self, ctx: &OpCtx, id: VolumeId, read_only: bool) -> Result<(), EngineError> {
        self.volume_mark(ctx, policy::VOLUME_UPDATE, id, &json!({ "read_only": read_only }), |volume| {
            if !VolumeRequest::ReadOnly.admits(volume.status) {
                return Err(invalid_volume(format!(
                    "Volume {id} status must be available to update readonly flag, but current status is: {}.",
                    volume.status
                )));
            }
            volume.read_only = read_only;
            volume.details.read_only_set = true;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Makes a volume larger; a server that has it sees the new size while it runs. `in_use` says whether that is asked
    /// for at all.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a size that is not larger, a full pool or a state that does not admit it,
    /// [`EngineError::OverQuota`], [`EngineError::NotFound`], or a refusal.
    pub async fn volume_extend(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        size_gib: u64,
        in_use: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_EXTEND, id).await?;
            if !VolumeRequest::Extend.admits(volume.status) || (volume.status == VolumeStatus::InUse && !in_use) {
                return Err(invalid_volume(format!(
                    "Volume {id} status must be '('available',)' to extend, currently {}.",
                    volume.status
                )));
            }
            if size_gib <= volume.size_gib {
                return Err(invalid_input(format!(
                    "New size for extend must be greater than current size. (current: {}, extended: {size_gib}).",
                    volume.size_gib
                )));
            }
            if size_gib > VOLUME_GIB_MAX {
                return Err(invalid_input(format!("The largest volume has {VOLUME_GIB_MAX} GiB.")));
            }
            self.volume_size_admitted(&tx, volume.project_id, size_gib).await?;
            let more = size_gib - volume.size_gib;
            self.volume_quota_claim(&tx, volume.project_id, volume.volume_type_id, None, more).await?;
            let node = volume.node_id.ok_or_else(|| invalid_volume("it is in no pool."))?;
            if !tx.node_claim(node, 0, 0, more).await? {
                return Err(invalid_volume(format!("its pool has no room for {more} GiB more, or is closed.")));
            }
            volume.details.size_gib_before = Some(volume.size_gib);
            volume.size_gib = size_gib;
            volume.status_before = Some(volume.status);
            self.volume_touch(&tx, &mut volume).await?;
            self.volume_set(&tx, &mut volume, VolumeStatus::Extending).await?;
            self.volume_audit(&tx, &volume, policy::VOLUME_EXTEND, &json!({ "size_gib": size_gib })).await?;
            self.volume_usage(&tx, &volume, true).await?;
            self.commit(tx).await
        })
    }

    /// Gives a volume another type. Every type's volumes live in the same pools, so no byte moves.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, [`EngineError::NotFound`] also for the type, or a refusal.
    pub async fn volume_retype(&self, ctx: &OpCtx, id: VolumeId, wanted: &str) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_UPDATE, id).await?;
            if !VolumeRequest::Retype.admits(volume.status) {
                return Err(invalid_volume(format!(
                    "Unable to update type due to incorrect status: {} on volume: {id}. Volume status must be available or in-use.",
                    volume.status
                )));
            }
            let wanted = self.volume_type_for(&tx, ctx, Some(wanted), None).await?;
            if wanted.id == volume.volume_type_id {
                return Err(invalid_input(format!("New volume_type same as original: {}.", wanted.name)));
            }
            self.volume_quota_retype(&tx, &volume, wanted.id).await?;
            volume.volume_type_id = wanted.id;
            self.volume_touch(&tx, &mut volume).await?;
            self.volume_marked(&tx, &mut volume, policy::VOLUME_UPDATE, &json!({ "volume_type": wanted.name })).await?;
            self.commit(tx).await
        })
    }

    /// Moves what a volume and its snapshots count for from the quotas of its type to those of another.
    async fn volume_quota_retype(&self, tx: &Tx, volume: &Volume, to: VolumeTypeId) -> Result<(), EngineError> {
        let snapshots = tx.volume_snapshots_of(volume.id).await?;
        let parts = snapshots.iter().map(|s| (QuotaResource::VolumeSnapshots, s.size_gib));
        for (count, gib) in parts.chain(std::iter::once((QuotaResource::Volumes, volume.size_gib))) {
            self.type_quota_claim(tx, volume.project_id, to, Some(count), gib).await?;
            self.type_quota_release(tx, volume.project_id, volume.volume_type_id, Some(count), gib).await?;
        }
        Ok(())
    }

    /// Declares what state a volume is in, and with `detached` that no server has it, whatever its node says.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal: only administrators may.
    pub async fn volume_status_reset(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        status: Option<VolumeStatus>,
        attachments: Option<AttachmentStatus>,
        detached: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_RESET_STATUS, id).await?;
            for mut attachment in tx.volume_attachments_of(&[id]).await? {
                if detached && !attachment.by_server {
                    tx.volume_attachment_delete(attachment.id).await?;
                } else if let Some(status) = attachments {
                    attachment.status = status;
                    tx.volume_attachment_update(&mut attachment).await?;
                }
            }
            if let Some(status) = status {
                volume.fault = (status == VolumeStatus::Error)
                    .then(|| fault("An administrator has set this volume to error.", ""));
                volume.status_before = None;
                volume.details.lost = false;
                self.volume_set(&tx, &mut volume, status).await?;
                volume.deadline = None;
            }
            let detail = json!({ "status": status.map(VolumeStatus::as_str) });
            self.volume_audit(&tx, &volume, policy::VOLUME_RESET_STATUS, &detail).await?;
            self.commit(tx).await
        })
    }

    /// A change of the record that the node need not know.
    pub(crate) async fn volume_mark(
        &self,
        ctx: &OpCtx,
        action: Action,
        id: VolumeId,
        detail: &Value,
        change: impl Fn(&mut Volume) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<Volume, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, action, id).await?;
            change(&mut volume)?;
            self.volume_marked(&tx, &mut volume, action, detail).await?;
            self.commit(tx).await?;
            Ok(volume)
        })
    }

    async fn volume_marked(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        action: Action,
        detail: &Value,
    ) -> Result<(), EngineError> {
        volume.updated_at = Some(Timestamp::now());
        tx.volume_update(volume).await?;
        self.volume_audit(tx, volume, action, detail).await
    }

    /// The volume as it is now, or that it is gone.
    pub(crate) async fn volume_again(&self, tx: &Tx, id: VolumeId) -> Result<Volume, EngineError> {
        tx.volume_lock(id).await?.ok_or_else(|| no_volume(id))
    }
}
