//! Other content for a volume that is there: that of its last snapshot, or that of an image.
//!
//! The wish has a number that never comes again, so that a node that reads it twice, or late, does it once; and it is
//! withdrawn whatever comes of it ([`super::observe`]), so that it cannot come about when a server has the volume.

use super::create::{image_metadata, size_for_image};
use super::invalid_volume;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{Tx, Volume, VolumeOrigin, VolumeRefillWish};
use arcus_types::policy::{Action, volume as policy};
use arcus_types::volumes::{VolumeRequest, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{ImageId, OpCtx, VolumeId, VolumeSnapshotId};
use serde_json::{Value, json};

impl Engine {
    /// Puts a volume back to what its last snapshot holds. What was written since is lost.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a snapshot that is not its last or of another size, [`EngineError::Conflict`] in a state
    /// that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn volume_revert(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        snapshot_id: VolumeSnapshotId,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_REVERT, id).await?;
            let Some(last) = tx.volume_snapshots_of(id).await?.pop() else {
                return Err(EngineError::invalid(format!("Volume {id} doesn't have any snapshots.")));
            };
            if last.id != snapshot_id {
                return Err(EngineError::invalid(format!(
                    "Specified snapshot {snapshot_id} is not the latest one of volume {id}: that is {}.",
                    last.id
                )));
            }
            if last.size_gib != volume.size_gib {
                return Err(EngineError::invalid(format!(
                    "Can't revert volume {id} to its latest snapshot {snapshot_id}. The volume size must be equal to the snapshot size."
                )));
            }
            if !VolumeRequest::Revert.admits(volume.status) || last.status != VolumeSnapshotStatus::Available {
                return Err(EngineError::Conflict {
                    code: "InvalidVolume",
                    message: format!(
                        "Can't revert volume {id} to its latest snapshot {snapshot_id}. Volume and snapshot must be 'available'; they are '{}' and '{}'.",
                        volume.status, last.status
                    ),
                });
            }
            let origin = VolumeOrigin::Snapshot { volume_id: id, snapshot_id };
            let detail = json!({ "snapshot_id": snapshot_id });
            self.volume_refill_in(&tx, &mut volume, VolumeStatus::Reverting, origin, policy::VOLUME_REVERT, &detail)
                .await?;
            self.commit(tx).await
        })
    }

    /// Fills a volume with an image. What it held is lost. With `reserved` also one that is kept for a server.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, for a volume with snapshots, or for an image that is too
    /// large or cannot be used; [`EngineError::NotFound`], or a refusal.
    pub async fn volume_reimage(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        image_id: ImageId,
        reserved: bool,
    ) -> Result<(), EngineError> {
        self.volume_seen(self.store(), ctx, policy::VOLUME_REIMAGE, id).await?;
        let image = self.image_for_boot(ctx, image_id).await?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_REIMAGE, id).await?;
            let request = if reserved { VolumeRequest::ReimageReserved } else { VolumeRequest::Reimage };
            if !request.admits(volume.status) {
                let states: Vec<&str> = request.states().iter().map(|s| s.as_str()).collect();
                return Err(invalid_volume(format!(
                    "Volume {id} status must be {}, but current status is {}.",
                    states.join(" or "),
                    volume.status
                )));
            }
            if volume.node_id.is_none() || !volume.made {
                return Err(invalid_volume(format!("Volume {id} was never made: delete it and make another.")));
            }
            if tx.volume_attachments_of(&[id]).await?.iter().any(|a| a.by_server) {
                return Err(invalid_volume(format!("Volume {id} is attached to a server: detach it first.")));
            }
            if !tx.volume_snapshots_of(id).await?.is_empty() {
                return Err(invalid_volume(format!("Volume {id} has snapshots, which would go: delete them first.")));
            }
            size_for_image(&image, Some(volume.size_gib))?;
            let source = image.source();
            let source = source.ok_or_else(|| EngineError::invalid(format!("Image {image_id} has no bytes.")))?;
            volume.bootable = true;
            volume.image_metadata = Some(image_metadata(&image));
            let (origin, detail) = (VolumeOrigin::Image(source), json!({ "image_id": image_id }));
            self.volume_refill_in(&tx, &mut volume, VolumeStatus::Downloading, origin, policy::VOLUME_REIMAGE, &detail)
                .await?;
            self.commit(tx).await
        })
    }

    async fn volume_refill_in(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        status: VolumeStatus,
        origin: VolumeOrigin,
        action: Action,
        detail: &Value,
    ) -> Result<(), EngineError> {
        self.volume_touch(tx, volume).await?;
        volume.details.refill = Some(VolumeRefillWish { number: volume.version, origin });
        self.volume_set(tx, volume, status).await?;
        self.volume_audit(tx, volume, action, detail).await
    }
}
