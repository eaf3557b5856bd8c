//! Snapshots of groups, and groups made of them or of other groups.

use super::{GROUP_VOLUMES_MAX, invalid_group, maker};
use crate::servers::retried;
use crate::volume_snapshots::VolumeSnapshotNew;
use crate::volumes::{VolumeFrom, VolumeNew, allowed, invalid_volume};
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Tx, VolumeGroup, VolumeGroupFilter, VolumeGroupSnapshot};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::volumes::{VolumeGroupStatus, VolumeRequest};
use arcus_types::{OpCtx, Timestamp, VolumeGroupId, VolumeGroupSnapshotId};
use serde_json::{Value, json};

/// What a group is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeGroupSource {
    /// The snapshots of a group snapshot.
    Snapshot(VolumeGroupSnapshotId),
    /// The volumes of another group.
    Group(VolumeGroupId),
}

fn no_group_snapshot(id: VolumeGroupSnapshotId) -> EngineError {
    EngineError::not_found("GroupSnapshotNotFound", "GroupSnapshot", id)
}

fn invalid_group_snapshot(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidGroupSnapshot", message: format!("Invalid GroupSnapshot: {message}") }
}

async fn audit(tx: &Tx, action: Action, of: &VolumeGroupSnapshot, detail: &Value) -> Result<(), EngineError> {
    let (id, project_id) = (of.id.to_string(), Some(of.project_id));
    Ok(tx.audit(AuditEntry { action, kind: "volume_group_snapshot", id, project_id, detail }).await?)
}

impl Engine {
    /// Makes a snapshot of each volume of a group, also of those that servers use.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a group without volumes or in a state that does not admit it,
    /// [`EngineError::OverQuota`], [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_snapshot_create(
        &self,
        ctx: &OpCtx,
        group_id: VolumeGroupId,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<VolumeGroupSnapshot, EngineError> {
        authorize(ctx, policy::GROUP_SNAPSHOT_CREATE, &Target::own(ctx))?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let group = self.volume_group_seen(&tx, ctx, policy::GROUP_SNAPSHOT_CREATE, group_id).await?;
            let volumes = tx.volumes_of_group_lock(group_id).await?;
            if volumes.is_empty() {
                return Err(invalid_group(format!("group {group_id} has no volumes to make snapshots of.")));
            }
            if group.status != VolumeGroupStatus::Available {
                return Err(invalid_group(format!("group {group_id} must be available, it is {}.", group.status)));
            }
            let made = VolumeGroupSnapshot {
                id: VolumeGroupSnapshotId::random(),
                group_id,
                group_type_id: group.group_type_id,
                project_id: group.project_id,
                user_id: ctx.user_id().unwrap_or(group.user_id),
                name: name.clone(),
                description: description.clone(),
                status: VolumeGroupStatus::Creating,
                created_at: Timestamp::now(),
                updated_at: None,
            };
            tx.volume_group_snapshot_insert(&made).await?;
            for mut volume in volumes {
                if !VolumeRequest::SnapshotForced.admits(volume.status) {
                    return Err(invalid_volume(format!(
                        "Volume {} status must be available or in-use, but current status is: {}.",
                        volume.id, volume.status
                    )));
                }
                let new = VolumeSnapshotNew {
                    volume_id: volume.id,
                    name: name.clone(),
                    description: description.clone(),
                    metadata: Default::default(),
                    force: true,
                    group_snapshot_id: Some(made.id),
                };
                self.volume_snapshot_insert_in(&tx, &mut volume, &new).await?;
            }
            audit(&tx, policy::GROUP_SNAPSHOT_CREATE, &made, &json!({ "group_id": group_id })).await?;
            self.commit(tx).await?;
            Ok(made)
        })
    }

    async fn volume_group_snapshot_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: VolumeGroupSnapshotId,
    ) -> Result<VolumeGroupSnapshot, EngineError> {
        let found = db.volume_group_snapshot_get(id).await?.ok_or_else(|| no_group_snapshot(id))?;
        allowed(ctx, action, found.project_id, || no_group_snapshot(id))?;
        Ok(found)
    }

    /// One group snapshot.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_group_snapshot_show(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupSnapshotId,
    ) -> Result<VolumeGroupSnapshot, EngineError> {
        self.volume_group_snapshot_seen(self.store(), ctx, policy::GROUP_SNAPSHOT_READ, id).await
    }

    /// A page of group snapshots, and whether it is full.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a marker that is none of the caller's, or a refusal.
    pub async fn volume_group_snapshot_list(
        &self,
        ctx: &OpCtx,
        all_projects: bool,
        mut filter: VolumeGroupFilter,
    ) -> Result<(Vec<VolumeGroupSnapshot>, bool), EngineError> {
        authorize(ctx, policy::GROUP_SNAPSHOT_READ, &Target::own(ctx))?;
        filter.project_id = crate::volumes::viewer(ctx, all_projects, filter.project_id);
        if let Some(marker) = filter.marker {
            self.volume_group_snapshot_show(ctx, VolumeGroupSnapshotId(marker)).await?;
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut found = self.store().volume_group_snapshot_list(&filter).await?;
        let full = found.len() >= limit;
        found.truncate(limit);
        Ok((found, full))
    }

    /// Removes a group snapshot with its snapshots; it is gone when they are.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it or while something is being made of it,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_snapshot_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupSnapshotId,
    ) -> Result<(), EngineError> {
        let action = policy::GROUP_SNAPSHOT_DELETE;
        retried!({
            let tx = self.store().begin(ctx).await?;
            self.volume_group_snapshot_seen(&tx, ctx, action, id).await?;
            let mut held = Vec::new();
            for seen in tx.volume_snapshots_of_group(id).await? {
                let volume = self.volume_again(&tx, seen.volume_id).await?;
                let snapshot = tx.volume_snapshot_lock(seen.id).await?.ok_or_else(crate::servers::stale)?;
                held.push((volume, snapshot));
            }
            let found = tx.volume_group_snapshot_lock(id).await?.ok_or_else(|| no_group_snapshot(id))?;
            match found.status {
                VolumeGroupStatus::Available | VolumeGroupStatus::Error | VolumeGroupStatus::ErrorDeleting => {}
                status @ (VolumeGroupStatus::Creating | VolumeGroupStatus::Updating | VolumeGroupStatus::Deleting) => {
                    return Err(invalid_group_snapshot(format!("it must be available or error, it is {status}.")));
                }
            }
            tx.volume_group_snapshot_set(id, VolumeGroupStatus::Deleting).await?;
            for (mut volume, mut snapshot) in held {
                if tx.volume_count_made_of(volume.id, Some(snapshot.id)).await? > 0 {
                    return Err(invalid_group_snapshot(format!("a volume is being made of snapshot {}.", snapshot.id)));
                }
                self.volume_snapshot_delete_in(&tx, &mut volume, &mut snapshot, action).await?;
            }
            tx.volume_group_snapshot_settle(id).await?;
            audit(&tx, action, &found, &json!({})).await?;
            self.commit(tx).await
        })
    }

    /// Declares what state a group snapshot is in.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal: only administrators may.
    pub async fn volume_group_snapshot_status_reset(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupSnapshotId,
        status: VolumeGroupStatus,
    ) -> Result<(), EngineError> {
        let action = policy::GROUP_SNAPSHOT_RESET_STATUS;
        let tx = self.store().begin(ctx).await?;
        let found = self.volume_group_snapshot_seen(&tx, ctx, action, id).await?;
        tx.volume_group_snapshot_set(id, status).await?;
        audit(&tx, action, &found, &json!({ "status": status.as_str() })).await?;
        Ok(tx.commit().await?)
    }

    /// Makes a group of copies of what another group or a group snapshot holds.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for an empty source, [`EngineError::OverQuota`], [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_create_from(
        &self,
        ctx: &OpCtx,
        name: Option<String>,
        description: Option<String>,
        source: VolumeGroupSource,
    ) -> Result<VolumeGroup, EngineError> {
        authorize(ctx, policy::GROUP_CREATE, &Target::own(ctx))?;
        let (project_id, user_id) = maker(ctx)?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let (of, parts) = self.volume_group_parts(&tx, ctx, source).await?;
            if parts.is_empty() || parts.len() > GROUP_VOLUMES_MAX {
                return Err(invalid_group("what it shall be made of has no volumes."));
            }
            let (group_snapshot_id, source_group_id) = match source {
                VolumeGroupSource::Snapshot(id) => (Some(id), None),
                VolumeGroupSource::Group(id) => (None, Some(id)),
            };
            let group = VolumeGroup {
                id: VolumeGroupId::random(),
                project_id,
                user_id,
                name: name.clone(),
                description: description.clone(),
                status: VolumeGroupStatus::Creating,
                group_snapshot_id,
                source_group_id,
                created_at: Timestamp::now(),
                updated_at: None,
                ..of
            };
            self.volume_group_insert_in(&tx, &group).await?;
            for (from, kind) in parts {
                let volume_type = Some(kind.to_string());
                let new = VolumeNew { from, volume_type, group_id: Some(group.id), ..VolumeNew::default() };
                let plan = self.volume_plan(&tx, ctx, &new, None).await?;
                let place = self.volume_place_for(&tx, &plan).await?;
                self.volume_insert_in(&tx, plan, place).await?;
            }
            self.volume_group_settled(&tx, group.id).await?;
            self.commit(tx).await?;
            Ok(group)
        })
    }

    /// What the volumes of a new group are made of, and of which types they are.
    async fn volume_group_parts(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        source: VolumeGroupSource,
    ) -> Result<(VolumeGroup, Vec<(VolumeFrom, arcus_types::VolumeTypeId)>), EngineError> {
        let mut parts = Vec::new();
        let group = match source {
            VolumeGroupSource::Group(id) => {
                let group = self.volume_group_seen(tx, ctx, policy::GROUP_READ, id).await?;
                for volume in tx.volumes_of_group_lock(id).await? {
                    parts.push((VolumeFrom::Volume(volume.id), volume.volume_type_id));
                }
                group
            }
            VolumeGroupSource::Snapshot(id) => {
                let found = self.volume_group_snapshot_seen(tx, ctx, policy::GROUP_SNAPSHOT_READ, id).await?;
                for snapshot in tx.volume_snapshots_of_group(id).await? {
                    let volume = self.volume_again(tx, snapshot.volume_id).await?;
                    parts.push((VolumeFrom::Snapshot(snapshot.id), volume.volume_type_id));
                }
                self.volume_group_seen(tx, ctx, policy::GROUP_READ, found.group_id).await?
            }
        };
        Ok((group, parts))
    }
}
