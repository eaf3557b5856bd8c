//! Removing volumes: the node removes the bytes, then the claims are given back. A node that is gone does not keep a volume
//! from being removed.

use super::invalid_volume;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{QuotaResource, Tx, Volume};
use arcus_types::policy::{Action, volume as policy};
use arcus_types::volumes::{VolumeRequest, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{OpCtx, Timestamp, VolumeId};
use serde_json::json;

impl Engine {
    /// Removes a volume; with `cascade` its snapshots too. It is gone when its node says so; at once when it is in no pool
    /// or its node is down.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] while a server has it, it has snapshots or something is being made of it,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        cascade: bool,
        force: bool,
    ) -> Result<(), EngineError> {
        let action = if force { policy::VOLUME_FORCE_DELETE } else { policy::VOLUME_DELETE };
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, action, id).await?;
            if !force && !VolumeRequest::Delete.admits(volume.status) {
                return Err(invalid_volume(
                    "Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
                ));
            }
            if let Some(group) = volume.group_id {
                return Err(invalid_volume(format!(
                    "it belongs to group {group}: take it out of the group, or delete that with its volumes."
                )));
            }
            self.volume_delete_in(&tx, &mut volume, action, cascade).await?;
            self.commit(tx).await
        })
    }

    /// Removes a volume that the caller holds and whose state has been checked.
    pub(crate) async fn volume_delete_in(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        action: Action,
        cascade: bool,
    ) -> Result<(), EngineError> {
        let id = volume.id;
        if volume.status == VolumeStatus::Deleting {
            return Ok(());
        }
        if tx.volume_attachments_of(&[id]).await?.iter().any(|a| a.by_server) {
            return Err(invalid_volume("Volume is attached: detach it first."));
        }
        let snapshots = tx.volume_snapshots_of(id).await?;
        if !cascade && !snapshots.is_empty() {
            return Err(invalid_volume(
                "Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
            ));
        }
        let busy = tx.volume_count_made_of(id, None).await?;
        if busy > 0 {
            return Err(invalid_volume(format!("{busy} volumes are being made of it.")));
        }
        self.volume_touch(tx, volume).await?;
        for mut snapshot in snapshots {
            if tx.volume_count_made_of(id, Some(snapshot.id)).await? > 0 {
                return Err(invalid_volume(format!("a volume is being made of its snapshot {}.", snapshot.id)));
            }
            let now = Timestamp::now();
            snapshot.status = VolumeSnapshotStatus::Deleting;
            snapshot.deadline = None;
            snapshot.node_generation = volume.node_generation;
            snapshot.updated_at = Some(now);
            tx.volume_snapshot_update(&mut snapshot).await?;
        }
        self.volume_audit(tx, volume, action, &json!({ "cascade": cascade })).await?;
        volume.status_before = Some(volume.status);
        if self.volume_node_alive(tx, volume).await? {
            return self.volume_set(tx, volume, VolumeStatus::Deleting).await;
        }
        self.volume_remove_in(tx, volume, action).await
    }

    async fn volume_node_alive(&self, tx: &Tx, volume: &Volume) -> Result<bool, EngineError> {
        let Some(id) = volume.node_id else { return Ok(false) };
        Ok(tx.node_get(id).await?.is_some_and(|node| self.node_alive(&node, Timestamp::now())))
    }

    /// Gives back all that a volume holds and forgets it, with its snapshots. The caller holds the row.
    pub(super) async fn volume_remove_in(&self, tx: &Tx, volume: &Volume, action: Action) -> Result<(), EngineError> {
        for snapshot in tx.volume_snapshots_of(volume.id).await? {
            self.volume_snapshot_remove_in(tx, volume, &snapshot, action).await?;
        }
        let (kind, count) = (volume.volume_type_id, Some(QuotaResource::Volumes));
        self.volume_quota_release(tx, volume.project_id, kind, count, volume.size_gib).await?;
        if let Some(node) = volume.node_id {
            tx.node_release(node, 0, 0, volume.size_gib).await?;
            self.volume_usage(tx, volume, false).await?;
        }
        tx.volume_delete(volume.id).await?;
        self.volume_tasks_end(tx, volume).await?;
        if let Some(group) = volume.group_id {
            self.volume_group_settled(tx, group).await?;
        }
        self.volume_audit(tx, volume, action, &json!({ "gone": true })).await?;
        tracing::info!(volume.id = %volume.id, "a volume is gone");
        Ok(())
    }
}
