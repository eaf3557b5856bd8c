//! Groups of volumes: what is asked of a group is asked of each of its volumes, in one transaction.
//!
//! Snapshots of a group's volumes are made one after the other, each as of its own moment: no pool makes them as of one, so
//! a group of a type that asks for that (`consistent_group_snapshot_enabled`) is in error from the beginning.

mod snapshots;

pub use snapshots::VolumeGroupSource;

use crate::servers::retried;
use crate::volumes::allowed;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, QuotaResource, Tx, Volume, VolumeGroup, VolumeGroupFilter};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::volumes::{VolumeGroupStatus, VolumeRequest};
use arcus_types::{OpCtx, ProjectId, Timestamp, UserId, VolumeGroupId, VolumeId, VolumeTypeId};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// The most volume types of one group.
pub const GROUP_TYPES_MAX: usize = 100;
/// The most volumes of one group.
pub const GROUP_VOLUMES_MAX: usize = 200;
/// What a group type asks for that no pool does.
const CONSISTENT: &str = "consistent_group_snapshot_enabled";

/// A group that a user asks for.
#[derive(Debug, Clone)]
pub struct VolumeGroupNew {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Name or id of its type.
    pub group_type: String,
    /// Names or ids of the types that its volumes may be of.
    pub volume_types: Vec<String>,
    /// The zone that its volumes shall be in.
    pub zone: Option<String>,
}

/// What of a group shall change; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct VolumeGroupChange {
    /// Its name.
    pub name: Option<Option<String>>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// Volumes that come into it.
    pub add: Vec<VolumeId>,
    /// Volumes that leave it.
    pub remove: Vec<VolumeId>,
}

/// A page of groups with their volumes, and whether it is full.
pub type VolumeGroupPage = (Vec<(VolumeGroup, Vec<VolumeId>)>, bool);

fn no_group(id: VolumeGroupId) -> EngineError {
    EngineError::not_found("GroupNotFound", "Group", id)
}

fn invalid_group(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "InvalidGroup", message: format!("Invalid group: {message}") }
}

async fn audit(tx: &Tx, action: Action, group: &VolumeGroup, detail: &Value) -> Result<(), EngineError> {
    let (id, project_id) = (group.id.to_string(), Some(group.project_id));
    Ok(tx.audit(AuditEntry { action, kind: "volume_group", id, project_id, detail }).await?)
}

/// Who makes something in which project.
fn maker(ctx: &OpCtx) -> Result<(ProjectId, UserId), EngineError> {
    let who = ctx.project_id().zip(ctx.user_id());
    who.ok_or_else(|| EngineError::Forbidden("A group is made by a user in a project: use a project's token.".into()))
}

impl Engine {
    /// Makes a group, which is empty.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a type that is not there, [`EngineError::OverQuota`], [`EngineError::Invalid`], or a
    /// refusal.
    pub async fn volume_group_create(&self, ctx: &OpCtx, new: &VolumeGroupNew) -> Result<VolumeGroup, EngineError> {
        authorize(ctx, policy::GROUP_CREATE, &Target::own(ctx))?;
        let (project_id, user_id) = maker(ctx)?;
        let nodes = self.store().node_list().await?;
        if let Some(zone) = &new.zone
            && !nodes.iter().any(|n| n.availability_zone == *zone)
        {
            return Err(EngineError::invalid(format!("Availability zone '{zone}' is invalid.")));
        }
        retried!({
            let tx = self.store().begin(ctx).await?;
            let kind = self.volume_group_type_usable(&tx, ctx, &new.group_type).await?;
            let mut volume_types = Vec::new();
            for asked in &new.volume_types {
                volume_types.push(self.volume_type_for(&tx, ctx, Some(asked), None).await?.id);
            }
            let wants_one_moment = kind.specs.get(CONSISTENT).is_some_and(|v| v.eq_ignore_ascii_case("<is> True"));
            let status = if wants_one_moment { VolumeGroupStatus::Error } else { VolumeGroupStatus::Available };
            let group = VolumeGroup {
                id: VolumeGroupId::random(),
                project_id,
                user_id,
                name: new.name.clone(),
                description: new.description.clone(),
                status,
                group_type_id: kind.id,
                volume_types,
                availability_zone: new.zone.clone().unwrap_or_else(|| self.config().default_zone.clone()),
                group_snapshot_id: None,
                source_group_id: None,
                created_at: Timestamp::now(),
                updated_at: None,
            };
            self.volume_group_insert_in(&tx, &group).await?;
            tx.commit().await?;
            Ok(group)
        })
    }

    async fn volume_group_insert_in(&self, tx: &Tx, group: &VolumeGroup) -> Result<(), EngineError> {
        if !tx.quota_claim(group.project_id, QuotaResource::VolumeGroups, 1).await? {
            let quotas = tx.quota_list(group.project_id, &[QuotaResource::VolumeGroups]).await?;
            let cap = quotas.first().map_or(0, |q| q.cap);
            let message = format!("GroupLimitExceeded: Maximum number of groups allowed ({cap}) exceeded.");
            return Err(EngineError::OverQuota { code: "GroupLimitExceeded", message });
        }
        tx.volume_group_insert(group).await?;
        audit(tx, policy::GROUP_CREATE, group, &json!({ "name": group.name })).await
    }

    async fn volume_group_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: VolumeGroupId,
    ) -> Result<VolumeGroup, EngineError> {
        let group = db.volume_group_get(id).await?.ok_or_else(|| no_group(id))?;
        allowed(ctx, action, group.project_id, || no_group(id))?;
        Ok(group)
    }

    /// One group, with its volumes.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_group_show(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupId,
    ) -> Result<(VolumeGroup, Vec<VolumeId>), EngineError> {
        let group = self.volume_group_seen(self.store(), ctx, policy::GROUP_READ, id).await?;
        let volumes = self.store().volume_ids_by_groups(&[id]).await?.remove(&id).unwrap_or_default();
        Ok((group, volumes))
    }

    /// A page of groups with their volumes.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a marker that is no group of the caller, or a refusal.
    pub async fn volume_group_list(
        &self,
        ctx: &OpCtx,
        all_projects: bool,
        mut filter: VolumeGroupFilter,
    ) -> Result<VolumeGroupPage, EngineError> {
        authorize(ctx, policy::GROUP_READ, &Target::own(ctx))?;
        filter.project_id = crate::volumes::viewer(ctx, all_projects, filter.project_id);
        if let Some(marker) = filter.marker {
            self.volume_group_seen(self.store(), ctx, policy::GROUP_READ, VolumeGroupId(marker)).await?;
        }
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut groups = self.store().volume_group_list(&filter).await?;
        let full = groups.len() >= limit;
        groups.truncate(limit);
        let ids: Vec<VolumeGroupId> = groups.iter().map(|g| g.id).collect();
        let mut volumes: HashMap<VolumeGroupId, Vec<VolumeId>> = self.store().volume_ids_by_groups(&ids).await?;
        let mut with = |group: VolumeGroup| {
            let volumes = volumes.remove(&group.id).unwrap_or_default();
            (group, volumes)
        };
        Ok((groups.into_iter().map(&mut with).collect(), full))
    }

    /// The group, held, if a volume of this type may be made in it.
    pub(crate) async fn volume_group_admits(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        id: VolumeGroupId,
        kind: Option<VolumeTypeId>,
    ) -> Result<(), EngineError> {
        let group = tx.volume_group_lock(id).await?.ok_or_else(|| no_group(id))?;
        allowed(ctx, policy::GROUP_UPDATE, group.project_id, || no_group(id))?;
        let Some(kind) = kind else {
            return Err(EngineError::invalid("volume_type must be provided when creating a volume in a group."));
        };
        if !group.volume_types.contains(&kind) {
            return Err(EngineError::invalid(format!("Volume type {kind} is none of those of group {id}.")));
        }
        match group.status {
            VolumeGroupStatus::Available | VolumeGroupStatus::Creating => Ok(()),
            VolumeGroupStatus::Updating
            | VolumeGroupStatus::Deleting
            | VolumeGroupStatus::Error
            | VolumeGroupStatus::ErrorDeleting => {
                Err(invalid_group(format!("group {id} must be available, it is {}.", group.status)))
            }
        }
    }

    /// Changes a group's texts, and which volumes are in it.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a volume that cannot come in or is not in it, [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_update(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupId,
        change: &VolumeGroupChange,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            self.volume_group_seen(&tx, ctx, policy::GROUP_UPDATE, id).await?;
            let mut touched: Vec<VolumeId> = change.add.iter().chain(&change.remove).copied().collect();
            touched.sort_unstable();
            if touched.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(invalid_group("a volume is named twice."));
            }
            let mut volumes = Vec::new();
            for volume in touched {
                let missing = || invalid_group(format!("cannot change group {id}: volume {volume} cannot be found."));
                let found = tx.volume_lock(volume).await?.ok_or_else(missing)?;
                allowed(ctx, policy::VOLUME_UPDATE, found.project_id, missing)?;
                volumes.push(found);
            }
            let mut group = tx.volume_group_lock(id).await?.ok_or_else(|| no_group(id))?;
            if group.status != VolumeGroupStatus::Available {
                return Err(invalid_group(format!("group {id} must be available, it is {}.", group.status)));
            }
            let mut held = tx.volume_ids_by_groups(&[id]).await?.remove(&id).unwrap_or_default().len();
            for volume in &mut volumes {
                if change.add.contains(&volume.id) {
                    group_takes(&group, volume)?;
                    volume.group_id = Some(id);
                    held += 1;
                } else {
                    if volume.group_id != Some(id) {
                        return Err(invalid_group(format!("volume {} is not in group {id}.", volume.id)));
                    }
                    volume.group_id = None;
                }
                volume.updated_at = Some(Timestamp::now());
                tx.volume_update(volume).await?;
            }
            if held > GROUP_VOLUMES_MAX {
                return Err(invalid_group(format!("a group has at most {GROUP_VOLUMES_MAX} volumes.")));
            }
            if let Some(name) = &change.name {
                group.name.clone_from(name);
            }
            if let Some(description) = &change.description {
                group.description.clone_from(description);
            }
            group.updated_at = Some(Timestamp::now());
            tx.volume_group_update(&group).await?;
            let detail = json!({ "name": group.name, "add": change.add, "remove": change.remove });
            audit(&tx, policy::GROUP_UPDATE, &group, &detail).await?;
            self.commit(tx).await
        })
    }

    /// Removes a group; with `with_volumes` its volumes too, and then it is gone when they are.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] if it has volumes that shall stay, or snapshots, or a volume cannot go;
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_delete(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupId,
        with_volumes: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            self.volume_group_seen(&tx, ctx, policy::GROUP_DELETE, id).await?;
            let volumes = tx.volumes_of_group_lock(id).await?;
            let mut group = tx.volume_group_lock(id).await?.ok_or_else(|| no_group(id))?;
            let now = tx.volume_ids_by_groups(&[id]).await?.remove(&id).unwrap_or_default();
            if now.len() != volumes.len() {
                return Err(crate::servers::stale());
            }
            let deletable = match group.status {
                VolumeGroupStatus::Available | VolumeGroupStatus::Error | VolumeGroupStatus::ErrorDeleting => true,
                VolumeGroupStatus::Creating | VolumeGroupStatus::Updating | VolumeGroupStatus::Deleting => false,
            };
            if !deletable {
                return Err(invalid_group(format!("group {id} must be available or error, it is {}.", group.status)));
            }
            if !volumes.is_empty() && !with_volumes {
                return Err(invalid_group(format!(
                    "group {id} is not empty. The flag delete-volumes must be set to delete it with its volumes."
                )));
            }
            let snapshots = VolumeGroupFilter { group_id: Some(id), limit: 1, ..VolumeGroupFilter::default() };
            if !tx.volume_group_snapshot_list(&snapshots).await?.is_empty() {
                return Err(invalid_group(format!("group {id} has group snapshots: delete them first.")));
            }
            group.status = VolumeGroupStatus::Deleting;
            group.updated_at = Some(Timestamp::now());
            tx.volume_group_update(&group).await?;
            for mut volume in volumes {
                if !VolumeRequest::Delete.admits(volume.status) {
                    return Err(invalid_group(format!("volume {} is {}.", volume.id, volume.status)));
                }
                self.volume_delete_in(&tx, &mut volume, policy::GROUP_DELETE, false).await?;
            }
            audit(&tx, policy::GROUP_DELETE, &group, &json!({ "with_volumes": with_volumes })).await?;
            self.volume_group_settled(&tx, id).await?;
            self.commit(tx).await
        })
    }

    /// Moves a group on that waits for its volumes.
    pub(crate) async fn volume_group_settled(&self, tx: &Tx, id: VolumeGroupId) -> Result<(), EngineError> {
        if let Some(gone) = tx.volume_group_settle(id).await? {
            tx.quota_release(gone.project_id, QuotaResource::VolumeGroups, 1).await?;
            audit(tx, policy::GROUP_DELETE, &gone, &json!({ "gone": true })).await?;
        }
        Ok(())
    }

    /// Declares what state a group is in.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal: only administrators may.
    pub async fn volume_group_status_reset(
        &self,
        ctx: &OpCtx,
        id: VolumeGroupId,
        status: VolumeGroupStatus,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.volume_group_seen(&tx, ctx, policy::GROUP_RESET_STATUS, id).await?;
        let mut group = tx.volume_group_lock(id).await?.ok_or_else(|| no_group(id))?;
        (group.status, group.updated_at) = (status, Some(Timestamp::now()));
        tx.volume_group_update(&group).await?;
        audit(&tx, policy::GROUP_RESET_STATUS, &group, &json!({ "status": status.as_str() })).await?;
        Ok(tx.commit().await?)
    }

    /// Refuses what is about groups whose volumes are replicated: none is.
    ///
    /// # Errors
    /// Always: [`EngineError::Invalid`], [`EngineError::NotFound`], or a refusal.
    pub async fn volume_group_replication(&self, ctx: &OpCtx, id: VolumeGroupId) -> Result<(), EngineError> {
        self.volume_group_seen(self.store(), ctx, policy::GROUP_ACTION, id).await?;
        Err(invalid_group(format!("the volumes of group {id} are not replicated: no pool of this cloud does that.")))
    }
}

/// Refuses a volume that cannot come into a group.
fn group_takes(group: &VolumeGroup, volume: &Volume) -> Result<(), EngineError> {
    let refused = |why: String| Err(invalid_group(format!("cannot add volume {} to {}: {why}", volume.id, group.id)));
    let types: HashSet<VolumeTypeId> = group.volume_types.iter().copied().collect();
    if volume.project_id != group.project_id {
        return refused("it is another project's.".into());
    }
    match volume.group_id {
        Some(other) if other != group.id => return refused(format!("it is in group {other}.")),
        Some(_) => return refused("it is in it already.".into()),
        None => {}
    }
    if !types.contains(&volume.volume_type_id) {
        return refused("its type is none of the group's.".into());
    }
    if !VolumeRequest::Group.admits(volume.status) {
        return refused(format!("it must be available or in-use, it is {}.", volume.status));
    }
    Ok(())
}
