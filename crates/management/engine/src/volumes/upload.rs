//! Images of volumes: the image is recorded at once, the volume's node fills it.

use super::invalid_volume;
use crate::images::ImageAwaited;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{Volume, VolumeUpload};
use arcus_types::agent::{DiskFormat, SnapshotReport, SnapshotState};
use arcus_types::images::{Visibility, disk_format_name};
use arcus_types::policy::volume as policy;
use arcus_types::volumes::{VolumeEvent, VolumeRequest, VolumeStatus};
use arcus_types::{ImageId, Name, NodeId, OpCtx, VolumeId};
use serde_json::json;
use std::collections::BTreeMap;

/// The image that is asked for.
#[derive(Debug, Clone)]
pub struct VolumeImageWish {
    /// Its name.
    pub name: Name,
    /// How its bytes are laid out: raw or qcow2.
    pub disk_format: DiskFormat,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// Also if a server has the volume: the image is then as after a power loss.
    pub force: bool,
}

impl Engine {
    /// Makes an image of a volume: the volume as it is now, and the image.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it or for a format that nodes do not write,
    /// [`EngineError::OverQuota`], [`EngineError::NotFound`], or a refusal.
    pub async fn volume_upload(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        wish: &VolumeImageWish,
    ) -> Result<(Volume, ImageId), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_UPLOAD, id).await?;
            let Some(node_id) = admitted(&volume, wish)? else { return Err(crate::servers::stale()) };
            let image = ImageAwaited {
                project_id: volume.project_id,
                node_id,
                name: wish.name.clone(),
                disk_format: wish.disk_format,
                visibility: wish.visibility,
                protected: wish.protected,
                properties: inherited(&volume),
            };
            let image_id = self.image_awaited_in(&tx, ctx, image).await?;
            let disk_format = disk_format_name(wish.disk_format).to_owned();
            let upload = VolumeUpload { image_id, volume_id: id, node_id, request_id: ctx.request_id, disk_format };
            tx.volume_upload_insert(&upload).await?;
            self.volume_touch(&tx, &mut volume).await?;
            self.volume_set(&tx, &mut volume, VolumeStatus::Uploading).await?;
            self.volume_audit(&tx, &volume, policy::VOLUME_UPLOAD, &json!({ "image_id": image_id })).await?;
            self.commit(tx).await?;
            Ok((volume, image_id))
        })
    }

    /// What a node says of the images that it makes of volumes.
    pub(super) async fn volume_uploads_observed(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        reports: &[SnapshotReport],
    ) -> Result<(), EngineError> {
        let over = |r: &&SnapshotReport| match r.state {
            SnapshotState::Done | SnapshotState::Failed(_) => true,
            SnapshotState::Copying | SnapshotState::Uploading => false,
        };
        let over: Vec<&SnapshotReport> = reports.iter().filter(over).collect();
        if over.is_empty() {
            return Ok(());
        }
        for upload in self.store().volume_uploads_by_node(node).await? {
            if let Some(report) = over.iter().find(|r| r.image_id == upload.image_id) {
                retried!({ self.volume_upload_over(ctx, &upload, &report.state).await })?;
            }
        }
        Ok(())
    }

    async fn volume_upload_over(
        &self,
        ctx: &OpCtx,
        upload: &VolumeUpload,
        state: &SnapshotState,
    ) -> Result<(), EngineError> {
        let why = match state {
            SnapshotState::Done => None,
            SnapshotState::Failed(fault) => Some((fault.message.clone(), fault.details.clone())),
            SnapshotState::Copying | SnapshotState::Uploading => return Ok(()),
        };
        let tx = self.store().begin(ctx).await?;
        let Some(mut volume) = tx.volume_lock(upload.volume_id).await? else { return Ok(()) };
        if !tx.volume_upload_delete(upload.image_id).await? {
            return Ok(());
        }
        if why.is_some() {
            self.image_snapshot_failed_in(&tx, upload.image_id).await?;
        }
        self.volume_touch(&tx, &mut volume).await?;
        self.volume_happened(&tx, &mut volume, VolumeEvent::UploadEnded, why).await?;
        self.commit(tx).await
    }
}

/// The node that can make an image of this volume now.
fn admitted(volume: &Volume, wish: &VolumeImageWish) -> Result<Option<NodeId>, EngineError> {
    if !VolumeRequest::Upload.admits(volume.status) {
        return Err(invalid_volume(format!("status must be available or in-use, it is {}", volume.status)));
    }
    if volume.status == VolumeStatus::InUse && !wish.force {
        return Err(invalid_volume("a server has it: detach it first, or use force"));
    }
    match wish.disk_format {
        DiskFormat::Raw | DiskFormat::Qcow2 => Ok(volume.node_id),
        other => {
            let message = format!("An image of a volume is raw or qcow2, not {}.", disk_format_name(other));
            Err(EngineError::invalid(message))
        }
    }
}

/// What a server that is made of the image must inherit.
fn inherited(volume: &Volume) -> BTreeMap<String, String> {
    let kept = |key: &str| key.starts_with("hw_") || key.starts_with("os_") || key == "architecture";
    let known = volume.image_metadata.iter().flatten();
    known.filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}
