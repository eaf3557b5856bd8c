//! Volumes: what users ask of them, what nodes say of them.
//!
//! As with servers, every change holds the row, decides, writes the wish, touches the node and commits. What nodes answer
//! comes back through [`Engine::volumes_observed`]; what they fail to answer ends in [`Engine::volumes_sweep`].

mod change;
mod create;
mod delete;
mod list;
mod observe;
mod refill;
mod sweep;
mod tasks;
mod upload;
mod view;

pub(crate) use create::{Place, image_metadata, size_for_image};

pub use change::VolumeChange;
pub use create::{VolumeFrom, VolumeNew};
pub use list::{SUMMARY_PAIRS_MAX, VolumeQuery};
pub use upload::VolumeImageWish;
pub use view::VolumeView;

pub(crate) use list::viewer;

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, QuotaResource, Tx, TypeQuotaKind, UsageEntry, Volume, VolumeFault};
use arcus_types::policy::{Action, Denied, Target, authorize};
use arcus_types::volumes::{VOLUME_METADATA_MAX, VolumeStatus};
use arcus_types::{OpCtx, ProjectId, Timestamp, VolumeId, VolumeTypeId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) fn no_volume(id: VolumeId) -> EngineError {
    EngineError::not_found("VolumeNotFound", "Volume", id)
}

/// A refusal because of the volume's state, in the words that clients look for.
pub(crate) fn invalid_volume(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidVolume", message: format!("Invalid volume: {message}") }
}

/// A refusal of what was sent.
pub(crate) fn invalid_input(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidInput", message: format!("Invalid input received: {message}") }
}

/// Whether the caller may do `action` to what belongs to `project`; `missing` is the answer to all others.
pub(crate) fn allowed(
    ctx: &OpCtx,
    action: Action,
    project: ProjectId,
    missing: impl Fn() -> EngineError,
) -> Result<(), EngineError> {
    match authorize(ctx, action, &Target::project(project)) {
        Ok(()) => Ok(()),
        Err(Denied::Hidden) => Err(missing()),
        Err(Denied::Forbidden(_)) if ctx.project_id() != Some(project) => Err(missing()),
        Err(denied) => Err(denied.into()),
    }
}

/// Refuses metadata beyond its limits.
pub(crate) fn metadata_checked(metadata: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if metadata.len() > VOLUME_METADATA_MAX {
        return Err(EngineError::invalid(format!("A volume has at most {VOLUME_METADATA_MAX} metadata items.")));
    }
    Ok(())
}

impl Engine {
    /// The volume, if the caller may do `action` to it.
    pub(crate) async fn volume_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: VolumeId,
    ) -> Result<Volume, EngineError> {
        let volume = db.volume_get(id).await?.ok_or_else(|| no_volume(id))?;
        allowed(ctx, action, volume.project_id, || no_volume(id))?;
        Ok(volume)
    }

    /// The volume, held against other writers, if the caller may do `action` to it.
    pub(crate) async fn volume_held(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        action: Action,
        id: VolumeId,
    ) -> Result<Volume, EngineError> {
        let volume = tx.volume_lock(id).await?.ok_or_else(|| no_volume(id))?;
        allowed(ctx, action, volume.project_id, || no_volume(id))?;
        Ok(volume)
    }

    /// Puts a volume into a state, with the deadline that it has, and writes it.
    pub(crate) async fn volume_set(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        status: VolumeStatus,
    ) -> Result<(), EngineError> {
        let now = Timestamp::now();
        let before = std::mem::replace(&mut volume.status, status);
        volume.deadline = status.deadline_s().map(|s| now.plus_seconds(s));
        volume.updated_at = Some(now);
        tx.volume_update(volume).await?;
        self.volume_task_follow(tx, volume, Some(before)).await
    }

    /// Says that a volume's node has something new to do about it; the caller writes the row.
    pub(crate) async fn volume_touch(&self, tx: &Tx, volume: &mut Volume) -> Result<(), EngineError> {
        volume.version += 1;
        if let Some(node) = volume.node_id {
            tx.node_touch(node).await?;
            volume.node_generation = tx.node_spec_generation(node).await?.unwrap_or(0);
        }
        Ok(())
    }

    pub(crate) async fn volume_audit(
        &self,
        tx: &Tx,
        volume: &Volume,
        action: Action,
        detail: &Value,
    ) -> Result<(), EngineError> {
        let entry = AuditEntry {
            action,
            kind: "volume",
            id: volume.id.to_string(),
            project_id: Some(volume.project_id),
            detail,
        };
        Ok(tx.audit(entry).await?)
    }

    /// Records what the volume uses from now on; `false` ends the use.
    pub(crate) async fn volume_usage(&self, tx: &Tx, volume: &Volume, used: bool) -> Result<(), EngineError> {
        let uses = if used { json!({ "disk_gib": volume.size_gib }) } else { json!({}) };
        let entry = UsageEntry { project_id: volume.project_id, kind: "volume", id: volume.id.0, uses: &uses };
        Ok(tx.usage(entry).await?)
    }

    /// Claims one volume or snapshot and its size, of all types and of this one, or refuses in the words that clients look
    /// for.
    pub(crate) async fn volume_quota_claim(
        &self,
        tx: &Tx,
        project: ProjectId,
        volume_type: VolumeTypeId,
        count: Option<QuotaResource>,
        gib: u64,
    ) -> Result<(), EngineError> {
        if let Some(resource) = count
            && !tx.quota_claim(project, resource, 1).await?
        {
            let quotas = tx.quota_list(project, &[resource]).await?;
            let cap = quotas.first().map_or(0, |q| q.cap);
            let what = if resource == QuotaResource::VolumeSnapshots { "snapshots" } else { "volumes" };
            return Err(EngineError::OverQuota {
                code: "VolumeLimitExceeded",
                message: format!(
                    "{}: Maximum number of {what} allowed ({cap}) exceeded for quota '{}'.",
                    if what == "snapshots" { "SnapshotLimitExceeded" } else { "VolumeLimitExceeded" },
                    resource.name()
                ),
            });
        }
        if !tx.quota_claim(project, QuotaResource::VolumeGigabytes, gib).await? {
            let quotas = tx.quota_list(project, &[QuotaResource::VolumeGigabytes]).await?;
            let (cap, used) = quotas.first().map_or((0, 0), |q| (q.cap, q.used));
            return Err(EngineError::OverQuota {
                code: "VolumeSizeExceedsAvailableQuota",
                message: format!(
                    "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested {gib}G, quota is {cap}G and {used}G has been consumed."
                ),
            });
        }
        self.type_quota_claim(tx, project, volume_type, count, gib).await
    }

    /// The same of one type only.
    pub(crate) async fn type_quota_claim(
        &self,
        tx: &Tx,
        project: ProjectId,
        volume_type: VolumeTypeId,
        count: Option<QuotaResource>,
        gib: u64,
    ) -> Result<(), EngineError> {
        for (kind, amount) in type_amounts(count, gib) {
            if tx.type_quota_claim(project, kind, volume_type, amount).await? {
                continue;
            }
            let name = tx.volume_type_get(volume_type).await?.map(|t| t.name).unwrap_or_default();
            let (code, what) = match kind {
                TypeQuotaKind::Volumes => ("VolumeLimitExceeded", "Maximum number of volumes allowed"),
                TypeQuotaKind::Snapshots => ("SnapshotLimitExceeded", "Maximum number of snapshots allowed"),
                TypeQuotaKind::Gigabytes => ("VolumeSizeExceedsAvailableQuota", "The allowed size of volumes is"),
            };
            let message = format!("{code}: {what} exceeded for quota '{}_{name}'.", kind.name());
            return Err(EngineError::OverQuota { code, message });
        }
        Ok(())
    }

    /// Gives back one volume or snapshot and its size.
    pub(crate) async fn volume_quota_release(
        &self,
        tx: &Tx,
        project: ProjectId,
        volume_type: VolumeTypeId,
        count: Option<QuotaResource>,
        gib: u64,
    ) -> Result<(), EngineError> {
        if let Some(resource) = count {
            tx.quota_release(project, resource, 1).await?;
        }
        tx.quota_release(project, QuotaResource::VolumeGigabytes, gib).await?;
        self.type_quota_release(tx, project, volume_type, count, gib).await
    }

    /// The same of one type only.
    pub(crate) async fn type_quota_release(
        &self,
        tx: &Tx,
        project: ProjectId,
        volume_type: VolumeTypeId,
        count: Option<QuotaResource>,
        gib: u64,
    ) -> Result<(), EngineError> {
        for (kind, amount) in type_amounts(count, gib) {
            tx.type_quota_release(project, kind, volume_type, amount).await?;
        }
        Ok(())
    }

    /// Refuses a volume that is larger than one volume of the project may be.
    pub(crate) async fn volume_size_admitted(&self, db: &Db, project: ProjectId, gib: u64) -> Result<(), EngineError> {
        let quotas = db.quota_list(project, &[QuotaResource::VolumeGigabytesEach]).await?;
        match quotas.first().and_then(|q| u64::try_from(q.cap).ok()) {
            Some(cap) if gib > cap => Err(EngineError::OverQuota {
                code: "VolumeSizeExceedsLimit",
                message: format!("Requested volume size {gib}G is larger than maximum allowed limit {cap}G."),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// What one volume or snapshot, and its size, count as among those of its type.
fn type_amounts(count: Option<QuotaResource>, gib: u64) -> impl Iterator<Item = (TypeQuotaKind, u64)> {
    let counted = count.map(|resource| match resource {
        QuotaResource::VolumeSnapshots => (TypeQuotaKind::Snapshots, 1),
        _ => (TypeQuotaKind::Volumes, 1),
    });
    counted.into_iter().chain(std::iter::once((TypeQuotaKind::Gigabytes, gib)))
}

/// What went wrong, now.
pub(crate) fn fault(message: impl Into<String>, details: impl Into<String>) -> VolumeFault {
    VolumeFault { message: message.into(), details: details.into(), at: Timestamp::now() }
}
