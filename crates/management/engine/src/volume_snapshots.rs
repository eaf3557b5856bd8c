//! Snapshots of volumes: what users ask of them, what nodes say of them.

use crate::servers::retried;
use crate::volumes::{allowed, fault, invalid_volume, metadata_checked};
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, QuotaResource, Tx, UsageEntry, Volume, VolumeSnapshot, VolumeSnapshotFilter};
use arcus_types::agent::{NodeReport, VolumeSnapshotReport, VolumeSnapshotState};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::volumes::{VolumeRequest, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{NodeId, OpCtx, Timestamp, VolumeGroupSnapshotId, VolumeId, VolumeSnapshotId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

pub(crate) fn no_snapshot(id: VolumeSnapshotId) -> EngineError {
    EngineError::not_found("SnapshotNotFound", "Snapshot", id)
}

fn invalid_snapshot(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidSnapshot", message: format!("Invalid snapshot: {message}") }
}

/// A snapshot that a user asks for.
#[derive(Debug, Clone)]
pub struct VolumeSnapshotNew {
    /// Of which volume.
    pub volume_id: VolumeId,
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Free key and value pairs.
    pub metadata: BTreeMap<String, String>,
    /// Also while a server uses the volume.
    pub force: bool,
    /// The group snapshot that it is a part of.
    pub group_snapshot_id: Option<VolumeGroupSnapshotId>,
}

/// What a change of a snapshot's record sets; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct VolumeSnapshotChange {
    /// The name.
    pub name: Option<Option<String>>,
    /// Free text.
    pub description: Option<Option<String>>,
}

/// Which snapshots a list holds.
#[derive(Debug, Clone, Default)]
pub struct VolumeSnapshotQuery {
    /// What the database filters by; the project is set by the engine unless an administrator asks for all.
    pub filter: VolumeSnapshotFilter,
    /// Those of every project: administrators only, ignored for others.
    pub all_projects: bool,
    /// Whether all snapshots that match are counted.
    pub count: bool,
}

impl Engine {
    /// Makes a snapshot. It is recorded when this returns; the volume's node makes it.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, [`EngineError::OverQuota`], [`EngineError::NotFound`],
    /// or a refusal.
    pub async fn volume_snapshot_create(
        &self,
        ctx: &OpCtx,
        new: &VolumeSnapshotNew,
    ) -> Result<VolumeSnapshot, EngineError> {
        authorize(ctx, policy::SNAPSHOT_CREATE, &Target::own(ctx))?;
        metadata_checked(&new.metadata)?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::SNAPSHOT_CREATE, new.volume_id).await?;
            let request = if new.force { VolumeRequest::SnapshotForced } else { VolumeRequest::Snapshot };
            if !request.admits(volume.status) {
                return Err(invalid_volume(format!(
                    "Volume {} status must be {}, but current status is: {}.",
                    volume.id,
                    if new.force { "available or in-use" } else { "available" },
                    volume.status
                )));
            }
            let snapshot = self.volume_snapshot_insert_in(&tx, &mut volume, new).await?;
            self.commit(tx).await?;
            Ok(snapshot)
        })
    }

    /// Claims quota and room, and records a snapshot of a volume that the caller holds and whose state has been checked.
    pub(crate) async fn volume_snapshot_insert_in(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        new: &VolumeSnapshotNew,
    ) -> Result<VolumeSnapshot, EngineError> {
        let node = volume.node_id.ok_or_else(|| invalid_volume(format!("Volume {} is in no pool.", volume.id)))?;
        let size_gib = volume.size_gib;
        let (kind, count) = (volume.volume_type_id, Some(QuotaResource::VolumeSnapshots));
        self.volume_quota_claim(tx, volume.project_id, kind, count, size_gib).await?;
        if !tx.node_claim(node, 0, 0, size_gib).await? {
            return Err(invalid_volume(format!(
                "the pool of volume {} has no room for a snapshot of {size_gib} GiB, or is closed.",
                volume.id
            )));
        }
        self.volume_touch(tx, volume).await?;
        tx.volume_update(volume).await?;
        let now = Timestamp::now();
        let status = VolumeSnapshotStatus::Creating;
        let snapshot = VolumeSnapshot {
            id: VolumeSnapshotId::random(),
            volume_id: volume.id,
            project_id: volume.project_id,
            user_id: tx.ctx().user_id().unwrap_or(volume.user_id),
            name: new.name.clone(),
            description: new.description.clone(),
            status,
            deadline: status.deadline_s().map(|s| now.plus_seconds(s)),
            size_gib,
            node_generation: volume.node_generation,
            metadata: new.metadata.clone(),
            fault: None,
            generation: 1,
            created_at: now,
            updated_at: None,
            group_snapshot_id: new.group_snapshot_id,
        };
        tx.volume_snapshot_insert(&snapshot).await?;
        let detail = json!({ "volume_id": volume.id, "size_gib": size_gib });
        self.volume_snapshot_audit(tx, &snapshot, policy::SNAPSHOT_CREATE, &detail).await?;
        self.volume_snapshot_usage(tx, &snapshot, true).await?;
        Ok(snapshot)
    }

    /// A page of snapshots, whether it is full, and how many there are in all if that was asked for.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a marker that is no snapshot of the caller, or a refusal.
    pub async fn volume_snapshot_list(
        &self,
        ctx: &OpCtx,
        mut query: VolumeSnapshotQuery,
    ) -> Result<(Vec<VolumeSnapshot>, bool, Option<u64>), EngineError> {
        authorize(ctx, policy::SNAPSHOT_LIST, &Target::own(ctx))?;
        query.filter.project_id = crate::volumes::viewer(ctx, query.all_projects, query.filter.project_id);
        if let Some(marker) = query.filter.marker {
            self.volume_snapshot_seen(self.store(), ctx, policy::SNAPSHOT_SHOW, marker).await?;
        }
        let count = if query.count { Some(self.store().volume_snapshot_count(&query.filter).await?) } else { None };
        let limit = usize::try_from(query.filter.limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok((Vec::new(), false, count));
        }
        let mut snapshots = self.store().volume_snapshot_list(&query.filter).await?;
        let full = snapshots.len() >= limit;
        snapshots.truncate(limit);
        Ok((snapshots, full, count))
    }

    async fn volume_snapshot_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: VolumeSnapshotId,
    ) -> Result<VolumeSnapshot, EngineError> {
        let snapshot = db.volume_snapshot_get(id).await?.ok_or_else(|| no_snapshot(id))?;
        allowed(ctx, action, snapshot.project_id, || no_snapshot(id))?;
        Ok(snapshot)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_snapshot_show(&self, ctx: &OpCtx, id: VolumeSnapshotId) -> Result<VolumeSnapshot, EngineError> {
        self.volume_snapshot_seen(self.store(), ctx, policy::SNAPSHOT_SHOW, id).await
    }

    /// Changes a snapshot's texts.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_snapshot_update(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        change: &VolumeSnapshotChange,
    ) -> Result<VolumeSnapshot, EngineError> {
        self.volume_snapshot_mark(ctx, policy::SNAPSHOT_UPDATE, id, |snapshot| {
            if let Some(name) = &change.name {
                snapshot.name.clone_from(name);
            }
            if let Some(description) = &change.description {
                snapshot.description.clone_from(description);
            }
            Ok(())
        })
        .await
    }

    /// A snapshot's metadata.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_snapshot_metadata(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        Ok(self.volume_snapshot_seen(self.store(), ctx, policy::SNAPSHOT_METADATA_READ, id).await?.metadata)
    }

    /// Changes a snapshot's metadata; what it is afterwards.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] beyond the limits, [`EngineError::NotFound`], or a refusal.
    pub async fn volume_snapshot_metadata_change(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let snapshot = self
            .volume_snapshot_mark(ctx, policy::SNAPSHOT_METADATA_WRITE, id, |snapshot| {
                change(&mut snapshot.metadata)?;
                metadata_checked(&snapshot.metadata)
            })
            .await?;
        Ok(snapshot.metadata)
    }

    /// Declares what state a snapshot is in, whatever its node says.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal: only administrators may.
    pub async fn volume_snapshot_status_reset(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        status: VolumeSnapshotStatus,
    ) -> Result<(), EngineError> {
        self.volume_snapshot_mark(ctx, policy::SNAPSHOT_ACTION, id, |snapshot| {
            snapshot.status = status;
            snapshot.deadline = None;
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn volume_snapshot_mark(
        &self,
        ctx: &OpCtx,
        action: Action,
        id: VolumeSnapshotId,
        change: impl Fn(&mut VolumeSnapshot) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<VolumeSnapshot, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut snapshot = tx.volume_snapshot_lock(id).await?.ok_or_else(|| no_snapshot(id))?;
            allowed(ctx, action, snapshot.project_id, || no_snapshot(id))?;
            change(&mut snapshot)?;
            snapshot.updated_at = Some(Timestamp::now());
            tx.volume_snapshot_update(&mut snapshot).await?;
            self.volume_snapshot_audit(&tx, &snapshot, action, &json!({})).await?;
            self.commit(tx).await?;
            Ok(snapshot)
        })
    }

    /// Removes a snapshot. It is gone when its node says so; at once when that is down.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it or while a volume is being made of it,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_snapshot_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        force: bool,
    ) -> Result<(), EngineError> {
        let action = if force { policy::SNAPSHOT_ACTION } else { policy::SNAPSHOT_DELETE };
        retried!({
            let tx = self.store().begin(ctx).await?;
            let seen = self.volume_snapshot_seen(&tx, ctx, action, id).await?;
            // The volume first, as everywhere: two locks that are always taken in one order do not meet crosswise.
            let mut volume = self.volume_again(&tx, seen.volume_id).await?;
            let mut snapshot = tx.volume_snapshot_lock(id).await?.ok_or_else(|| no_snapshot(id))?;
            if !force && !snapshot.status.deletable() {
                return Err(invalid_snapshot("Snapshot status must be available or error."));
            }
            if volume.status == VolumeStatus::Reverting {
                return Err(invalid_snapshot("its volume is being put back to it."));
            }
            if tx.volume_count_made_of(volume.id, Some(id)).await? > 0 {
                return Err(invalid_snapshot("a volume is being made of it."));
            }
            if let Some(group) = snapshot.group_snapshot_id {
                return Err(invalid_snapshot(format!("it is a part of group snapshot {group}: delete that.")));
            }
            self.volume_snapshot_delete_in(&tx, &mut volume, &mut snapshot, action).await?;
            self.commit(tx).await
        })
    }

    /// Removes a snapshot that the caller holds, with its volume, and whose state has been checked.
    pub(crate) async fn volume_snapshot_delete_in(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        snapshot: &mut VolumeSnapshot,
        action: Action,
    ) -> Result<(), EngineError> {
        self.volume_touch(tx, volume).await?;
        tx.volume_update(volume).await?;
        let now = Timestamp::now();
        let alive = match volume.node_id {
            Some(node) => tx.node_get(node).await?.is_some_and(|n| self.node_alive(&n, now)),
            None => false,
        };
        self.volume_snapshot_audit(tx, snapshot, action, &json!({})).await?;
        if !alive {
            return self.volume_snapshot_remove_in(tx, volume, snapshot, action).await;
        }
        snapshot.status = VolumeSnapshotStatus::Deleting;
        snapshot.deadline = snapshot.status.deadline_s().map(|s| now.plus_seconds(s));
        snapshot.node_generation = volume.node_generation;
        snapshot.updated_at = Some(now);
        tx.volume_snapshot_update(snapshot).await?;
        Ok(())
    }

    /// Gives back all that a snapshot holds and forgets it.
    pub(crate) async fn volume_snapshot_remove_in(
        &self,
        tx: &Tx,
        volume: &Volume,
        snapshot: &VolumeSnapshot,
        action: Action,
    ) -> Result<(), EngineError> {
        let (kind, count) = (volume.volume_type_id, Some(QuotaResource::VolumeSnapshots));
        self.volume_quota_release(tx, snapshot.project_id, kind, count, snapshot.size_gib).await?;
        if let Some(node) = volume.node_id {
            tx.node_release(node, 0, 0, snapshot.size_gib).await?;
        }
        self.volume_snapshot_usage(tx, snapshot, false).await?;
        tx.volume_snapshot_delete(snapshot.id).await?;
        if let Some(group) = snapshot.group_snapshot_id {
            tx.volume_group_snapshot_settle(group).await?;
        }
        self.volume_snapshot_audit(tx, snapshot, action, &json!({ "gone": true })).await
    }

    async fn volume_snapshot_audit(
        &self,
        tx: &Tx,
        snapshot: &VolumeSnapshot,
        action: Action,
        detail: &Value,
    ) -> Result<(), EngineError> {
        let entry = AuditEntry {
            action,
            kind: "volume_snapshot",
            id: snapshot.id.to_string(),
            project_id: Some(snapshot.project_id),
            detail,
        };
        Ok(tx.audit(entry).await?)
    }

    async fn volume_snapshot_usage(&self, tx: &Tx, snapshot: &VolumeSnapshot, used: bool) -> Result<(), EngineError> {
        let uses = if used { json!({ "disk_gib": snapshot.size_gib }) } else { json!({}) };
        let entry =
            UsageEntry { project_id: snapshot.project_id, kind: "volume_snapshot", id: snapshot.id.0, uses: &uses };
        Ok(tx.usage(entry).await?)
    }

    /// What a node says of snapshots.
    pub(crate) async fn volume_snapshots_observed(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        report: &NodeReport,
    ) -> Result<(), EngineError> {
        let reports: HashMap<VolumeSnapshotId, &VolumeSnapshotReport> =
            report.volumes.iter().flat_map(|v| v.snapshots.iter()).map(|s| (s.id, s)).collect();
        for snapshot in self.store().volume_snapshots_by_node(node).await? {
            let said = reports.get(&snapshot.id).copied();
            let verdict = judge(&snapshot, said, report.spec_generation);
            if verdict != Verdict::Same {
                retried!({ self.volume_snapshot_observed(ctx, &snapshot, &verdict).await })?;
            }
        }
        Ok(())
    }

    async fn volume_snapshot_observed(
        &self,
        ctx: &OpCtx,
        seen: &VolumeSnapshot,
        verdict: &Verdict,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(volume) = tx.volume_lock(seen.volume_id).await? else { return Ok(()) };
        let found = tx.volume_snapshot_lock(seen.id).await?;
        let Some(mut snapshot) = found.filter(|s| s.generation == seen.generation) else { return Ok(()) };
        match verdict {
            Verdict::Same => return Ok(()),
            Verdict::Gone => {
                self.volume_snapshot_remove_in(&tx, &volume, &snapshot, policy::VOLUME_OBSERVE).await?;
                return self.commit(tx).await;
            }
            Verdict::Made => snapshot.status = VolumeSnapshotStatus::Available,
            Verdict::Failed { message, details } => {
                snapshot.status = VolumeSnapshotStatus::Error;
                snapshot.fault = Some(fault(message.clone(), details.clone()));
            }
        }
        snapshot.deadline = None;
        snapshot.updated_at = Some(Timestamp::now());
        tx.volume_snapshot_update(&mut snapshot).await?;
        if let Some(group) = snapshot.group_snapshot_id {
            tx.volume_group_snapshot_settle(group).await?;
        }
        let detail = json!({ "status": snapshot.status.as_str() });
        self.volume_snapshot_audit(&tx, &snapshot, policy::VOLUME_OBSERVE, &detail).await?;
        self.commit(tx).await
    }

    pub(crate) async fn volume_snapshot_overdue(
        &self,
        ctx: &OpCtx,
        id: VolumeSnapshotId,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let Some(seen) = self.store().volume_snapshot_get(id).await?.filter(|s| s.deadline.is_some_and(|d| d < now))
        else {
            return Ok(false);
        };
        let verdict = match seen.status {
            VolumeSnapshotStatus::Deleting => Verdict::Gone,
            VolumeSnapshotStatus::Creating
            | VolumeSnapshotStatus::Available
            | VolumeSnapshotStatus::BackingUp
            | VolumeSnapshotStatus::Error
            | VolumeSnapshotStatus::ErrorDeleting => Verdict::Failed {
                message: "It was not made in time. Its node may be down.".into(),
                details: String::new(),
            },
        };
        self.volume_snapshot_observed(ctx, &seen, &verdict).await?;
        Ok(true)
    }
}

/// What a report means for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Same,
    Made,
    Failed { message: String, details: String },
    Gone,
}

fn judge(snapshot: &VolumeSnapshot, report: Option<&VolumeSnapshotReport>, spec_generation: u64) -> Verdict {
    match (snapshot.status, report.map(|r| &r.state)) {
        // Without a deadline an administrator has declared it to be so.
        (VolumeSnapshotStatus::Creating, Some(VolumeSnapshotState::Ready)) if snapshot.deadline.is_some() => {
            Verdict::Made
        }
        (VolumeSnapshotStatus::Creating, Some(VolumeSnapshotState::Failed(why))) if !why.transient => {
            Verdict::Failed { message: why.message.clone(), details: why.details.clone() }
        }
        (VolumeSnapshotStatus::Deleting, None) if spec_generation >= snapshot.node_generation => Verdict::Gone,
        (
            VolumeSnapshotStatus::Creating
            | VolumeSnapshotStatus::Available
            | VolumeSnapshotStatus::BackingUp
            | VolumeSnapshotStatus::Deleting
            | VolumeSnapshotStatus::Error
            | VolumeSnapshotStatus::ErrorDeleting,
            Some(_) | None,
        ) => Verdict::Same,
    }
}
