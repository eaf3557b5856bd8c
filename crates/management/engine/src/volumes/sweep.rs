//! Nothing stays stuck: what was not over in time is ended here.

use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_types::policy::volume as policy;
use arcus_types::volumes::{VolumeEvent, VolumeStatus};
use arcus_types::{OpCtx, Timestamp, VolumeId};
use serde_json::json;

/// Volumes that one sweep looks at.
const BATCH: u32 = 200;

impl Engine {
    /// Ends what was not over in time, for volumes, snapshots and attachments. To be called now and then; how many it
    /// ended.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn volumes_sweep(&self, now: Timestamp) -> Result<u32, EngineError> {
        let ctx = OpCtx::system();
        let mut ended = 0;
        for id in self.store().volume_list_overdue(now, BATCH).await? {
            if retried!({ self.volume_overdue(&ctx, id, now).await })? {
                ended += 1;
            }
        }
        for id in self.store().volume_snapshot_list_overdue(now, BATCH).await? {
            if retried!({ self.volume_snapshot_overdue(&ctx, id, now).await })? {
                ended += 1;
            }
        }
        for attachment in self.store().volume_attachment_list_overdue(now, BATCH).await? {
            if retried!({ self.volume_attachment_overdue(&ctx, &attachment, now).await })? {
                ended += 1;
            }
        }
        Ok(ended)
    }

    async fn volume_overdue(&self, ctx: &OpCtx, id: VolumeId, now: Timestamp) -> Result<bool, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut volume) = tx.volume_lock(id).await? else { return Ok(false) };
        if volume.deadline.is_none_or(|d| d >= now) {
            return Ok(false);
        }
        tracing::warn!(volume.id = %id, status = %volume.status, "what was being done to a volume was not over in time");
        let why = Some((
            format!("It was not over in time while the volume was {}. Its node may be down.", volume.status),
            String::new(),
        ));
        let event = match volume.status {
            // The node does not name it in its spec any more and removes it when it comes back.
            VolumeStatus::Deleting => {
                self.volume_touch(&tx, &mut volume).await?;
                self.volume_remove_in(&tx, &volume, policy::VOLUME_DELETE).await?;
                self.commit(tx).await?;
                return Ok(true);
            }
            VolumeStatus::Creating => VolumeEvent::MakeFailed,
            VolumeStatus::Extending => VolumeEvent::ExtendFailed,
            VolumeStatus::Reverting | VolumeStatus::Downloading => VolumeEvent::RefillFailed,
            VolumeStatus::Uploading => {
                for upload in tx.volume_uploads_by_volume(id).await? {
                    tx.volume_upload_delete(upload.image_id).await?;
                    self.image_snapshot_failed_in(&tx, upload.image_id).await?;
                }
                VolumeEvent::UploadEnded
            }
            VolumeStatus::Available
            | VolumeStatus::Reserved
            | VolumeStatus::Attaching
            | VolumeStatus::InUse
            | VolumeStatus::Detaching
            | VolumeStatus::Retyping
            | VolumeStatus::Maintenance
            | VolumeStatus::AwaitingTransfer
            | VolumeStatus::BackingUp
            | VolumeStatus::RestoringBackup
            | VolumeStatus::Error
            | VolumeStatus::ErrorDeleting
            | VolumeStatus::ErrorExtending
            | VolumeStatus::ErrorRestoring => {
                volume.deadline = None;
                let status = self.volume_resting(&tx, id).await?;
                self.volume_set(&tx, &mut volume, status).await?;
                self.volume_audit(&tx, &volume, policy::VOLUME_UPDATE, &json!({ "overdue": true })).await?;
                self.commit(tx).await?;
                return Ok(true);
            }
        };
        self.volume_happened(&tx, &mut volume, event, why).await?;
        self.commit(tx).await?;
        Ok(true)
    }
}
