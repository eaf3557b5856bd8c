//! Groups of volumes, and snapshots of them.
//!
//! A group is there at once; only while volumes are made for it, or removed with it, does its status wait for them
//! ([`Tx::volume_group_settle`]). The same holds for a group's snapshot and the snapshots of its volumes.

use crate::sql::{Json, Param, Row, Where, params};
use crate::volumes::{contains, ordered};
use crate::{Db, StoreError, Tx, Volume, VolumeSnapshot};
use arcus_types::volumes::{VolumeGroupStatus, VolumeSnapshotStatus, VolumeStatus};
use arcus_types::{
    ProjectId, Timestamp, UserId, VolumeGroupId, VolumeGroupSnapshotId, VolumeGroupTypeId, VolumeId, VolumeTypeId,
};
use std::collections::HashMap;

/// A group of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its id.
    pub id: VolumeGroupId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// What state it is in.
    pub status: VolumeGroupStatus,
    /// Its type.
    pub group_type_id: VolumeGroupTypeId,
    /// The types that its volumes may be of.
    pub volume_types: Vec<VolumeTypeId>,
    /// The zone that was asked for, or the cloud's.
    pub availability_zone: String,
    /// The group snapshot that it was made of.
    pub group_snapshot_id: Option<VolumeGroupSnapshotId>,
    /// The group that it was made of.
    pub source_group_id: Option<VolumeGroupId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
}

/// Snapshots of all volumes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroupSnapshot {
    /// Its id.
    pub id: VolumeGroupSnapshotId,
    /// Of which group.
    pub group_id: VolumeGroupId,
    /// The type of that group.
    pub group_type_id: VolumeGroupTypeId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// What state it is in.
    pub status: VolumeGroupStatus,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
}

/// What a list of groups or of their snapshots can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeGroupSort {
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The name.
    Name,
    /// The id.
    Id,
    /// The state.
    Status,
}

/// Which groups, or which snapshots of groups, a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeGroupFilter {
    /// Of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// With this id, of a group or of a snapshot.
    pub id: Option<uuid::Uuid>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With this text in the name.
    pub name_like: Option<String>,
    /// With exactly this description.
    pub description: Option<String>,
    /// In one of these states; an empty list matches nothing.
    pub statuses: Option<Vec<VolumeGroupStatus>>,
    /// Of this group type.
    pub group_type_id: Option<VolumeGroupTypeId>,
    /// In this zone: groups only.
    pub zone: Option<String>,
    /// Of this group: snapshots only.
    pub group_id: Option<VolumeGroupId>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeGroupSort, bool)>,
    /// The one after which the page begins.
    pub marker: Option<uuid::Uuid>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

const GROUP: &str = "id, project_id, user_id, name, description, status, group_type_id, volume_types, availability_zone, \
     group_snapshot_id, source_group_id, created_at, updated_at";
const SNAPSHOT: &str =
    "id, group_id, group_type_id, project_id, user_id, name, description, status, created_at, updated_at";

fn group(row: &Row) -> Result<VolumeGroup, StoreError> {
    Ok(VolumeGroup {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.opt("name")?,
        description: row.opt("description")?,
        status: row.text("status")?,
        group_type_id: row.get("group_type_id")?,
        volume_types: row.json("volume_types")?,
        availability_zone: row.get("availability_zone")?,
        group_snapshot_id: row.opt("group_snapshot_id")?,
        source_group_id: row.opt("source_group_id")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
    })
}

fn group_snapshot(row: &Row) -> Result<VolumeGroupSnapshot, StoreError> {
    Ok(VolumeGroupSnapshot {
        id: row.get("id")?,
        group_id: row.get("group_id")?,
        group_type_id: row.get("group_type_id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.opt("name")?,
        description: row.opt("description")?,
        status: row.text("status")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
    })
}

fn listed(table: &str, columns: &str, wanted: &VolumeGroupFilter, postgres: bool) -> (String, Vec<sea_orm::Value>) {
    let mut filter = Where::default();
    if let Some(statuses) = &wanted.statuses {
        filter.and_in("status", statuses.iter().map(|s| s.as_str()).collect());
    }
    let mut equal = |column: &str, value: Option<sea_orm::Value>| {
        if let Some(value) = value {
            filter.and(&format!("{column} = ?"), vec![value]);
        }
    };
    equal("project_id", wanted.project_id.map(Param::value));
    equal("id", wanted.id.map(|id| VolumeGroupId(id).value()));
    equal("name", wanted.name.as_ref().map(Param::value));
    equal("description", wanted.description.as_ref().map(Param::value));
    equal("group_type_id", wanted.group_type_id.map(Param::value));
    equal("availability_zone", wanted.zone.as_ref().map(Param::value));
    equal("group_id", wanted.group_id.map(Param::value));
    if let Some(text) = &wanted.name_like {
        contains(&mut filter, postgres, "COALESCE(name, '')", text);
    }
    let key = |sort: VolumeGroupSort| match sort {
        VolumeGroupSort::CreatedAt => "created_at",
        VolumeGroupSort::UpdatedAt => "COALESCE(updated_at, 0)",
        VolumeGroupSort::Name => "COALESCE(name, '')",
        VolumeGroupSort::Id => "id",
        VolumeGroupSort::Status => "status",
    };
    let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(sort, down)| (key(*sort), *down)).collect();
    if sort.is_empty() {
        sort.push(("created_at", true));
    }
    let sql = ordered(table, columns, &mut filter, sort, wanted.marker, wanted.limit, wanted.offset);
    (sql, filter.params)
}

impl Db {
    /// The group with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_get(&self, id: VolumeGroupId) -> Result<Option<VolumeGroup>, StoreError> {
        let row = self.one(format!("SELECT {GROUP} FROM volume_groups WHERE id = $1"), params![id]).await?;
        row.as_ref().map(group).transpose()
    }

    /// Groups in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_list(&self, wanted: &VolumeGroupFilter) -> Result<Vec<VolumeGroup>, StoreError> {
        let (sql, params) = listed("volume_groups", GROUP, wanted, self.is_postgres());
        self.all(sql, params).await?.iter().map(group).collect()
    }

    /// The volumes of these groups, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_ids_by_groups(
        &self,
        groups: &[VolumeGroupId],
    ) -> Result<HashMap<VolumeGroupId, Vec<VolumeId>>, StoreError> {
        let mut found: HashMap<VolumeGroupId, Vec<VolumeId>> = HashMap::new();
        if groups.is_empty() {
            return Ok(found);
        }
        let mut filter = Where::default();
        filter.and_in("group_id", groups.to_vec());
        let sql = format!("SELECT group_id, id FROM volumes{} ORDER BY created_at, id", filter.sql());
        for row in self.all(sql, filter.params).await? {
            found.entry(row.get("group_id")?).or_default().push(row.get("id")?);
        }
        Ok(found)
    }

    /// The group snapshot with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_snapshot_get(
        &self,
        id: VolumeGroupSnapshotId,
    ) -> Result<Option<VolumeGroupSnapshot>, StoreError> {
        let row = self.one(format!("SELECT {SNAPSHOT} FROM volume_group_snapshots WHERE id = $1"), params![id]).await?;
        row.as_ref().map(group_snapshot).transpose()
    }

    /// Group snapshots in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_snapshot_list(
        &self,
        wanted: &VolumeGroupFilter,
    ) -> Result<Vec<VolumeGroupSnapshot>, StoreError> {
        let (sql, params) = listed("volume_group_snapshots", SNAPSHOT, wanted, self.is_postgres());
        self.all(sql, params).await?.iter().map(group_snapshot).collect()
    }

    /// The snapshots that a group snapshot is made of, in the order of their volumes' ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshots_of_group(
        &self,
        id: VolumeGroupSnapshotId,
    ) -> Result<Vec<VolumeSnapshot>, StoreError> {
        let sql = format!(
            "SELECT {} FROM volume_snapshots WHERE group_snapshot_id = $1 ORDER BY volume_id",
            crate::volume_snapshots::COLUMNS
        );
        self.all(sql, params![id]).await?.iter().map(crate::volume_snapshots::snapshot).collect()
    }
}

impl Tx {
    /// The group with this id, held against other writers until this transaction ends. Whoever holds volumes of it too
    /// takes them first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_lock(&self, id: VolumeGroupId) -> Result<Option<VolumeGroup>, StoreError> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {GROUP} FROM volume_groups WHERE id = $1{lock}"), params![id]).await?;
        row.as_ref().map(group).transpose()
    }

    /// The volumes of a group, held against other writers, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volumes_of_group_lock(&self, id: VolumeGroupId) -> Result<Vec<Volume>, StoreError> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT {} FROM volumes WHERE group_id = $1 ORDER BY id{lock}", crate::volumes::COLUMNS);
        self.all(sql, params![id]).await?.iter().map(crate::volumes::volume).collect()
    }

    /// Records a group.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if its type is not there.
    pub async fn volume_group_insert(&self, g: &VolumeGroup) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO volume_groups ({GROUP}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
            ),
            params![
                g.id,
                g.project_id,
                g.user_id,
                &g.name,
                &g.description,
                g.status.as_str(),
                g.group_type_id,
                Json(&g.volume_types),
                &g.availability_zone,
                g.group_snapshot_id,
                g.source_group_id,
                g.created_at,
                g.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a group's name, description and state. The caller holds it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_update(&self, g: &VolumeGroup) -> Result<(), StoreError> {
        self.exec(
            "UPDATE volume_groups SET name = $2, description = $3, status = $4, updated_at = $5 WHERE id = $1",
            params![g.id, &g.name, &g.description, g.status.as_str(), g.updated_at],
        )
        .await?;
        Ok(())
    }

    /// Forgets a group that has no volumes and no snapshots.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if it has.
    pub async fn volume_group_delete(&self, id: VolumeGroupId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_groups WHERE id = $1", params![id]).await? == 1)
    }

    /// Moves a group on that waits for its volumes: to be made, or to be gone. Answers it if it is gone with them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_settle(&self, id: VolumeGroupId) -> Result<Option<VolumeGroup>, StoreError> {
        let Some(mut group) = self.volume_group_lock(id).await? else { return Ok(None) };
        let rows = self.all("SELECT status FROM volumes WHERE group_id = $1", params![id]).await?;
        let statuses = rows.iter().map(|r| r.text("status")).collect::<Result<Vec<VolumeStatus>, _>>()?;
        let status = match group.status {
            VolumeGroupStatus::Deleting if statuses.is_empty() => {
                self.volume_group_delete(id).await?;
                return Ok(Some(group));
            }
            VolumeGroupStatus::Creating if statuses.contains(&VolumeStatus::Error) => VolumeGroupStatus::Error,
            VolumeGroupStatus::Creating if !statuses.contains(&VolumeStatus::Creating) => VolumeGroupStatus::Available,
            VolumeGroupStatus::Creating
            | VolumeGroupStatus::Available
            | VolumeGroupStatus::Updating
            | VolumeGroupStatus::Deleting
            | VolumeGroupStatus::Error
            | VolumeGroupStatus::ErrorDeleting => return Ok(None),
        };
        (group.status, group.updated_at) = (status, Some(Timestamp::now()));
        self.volume_group_update(&group).await?;
        Ok(None)
    }

    /// The group snapshot with this id, held against other writers until this transaction ends. Whoever holds volumes or
    /// snapshots of it too takes them first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_snapshot_lock(
        &self,
        id: VolumeGroupSnapshotId,
    ) -> Result<Option<VolumeGroupSnapshot>, StoreError> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT {SNAPSHOT} FROM volume_group_snapshots WHERE id = $1{lock}");
        self.one(sql, params![id]).await?.as_ref().map(group_snapshot).transpose()
    }

    /// Records a group snapshot.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if its group is not there.
    pub async fn volume_group_snapshot_insert(&self, s: &VolumeGroupSnapshot) -> Result<(), StoreError> {
        self.exec(
            format!("INSERT INTO volume_group_snapshots ({SNAPSHOT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"),
            params![
                s.id,
                s.group_id,
                s.group_type_id,
                s.project_id,
                s.user_id,
                &s.name,
                &s.description,
                s.status.as_str(),
                s.created_at,
                s.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a group snapshot's state.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_snapshot_set(
        &self,
        id: VolumeGroupSnapshotId,
        status: VolumeGroupStatus,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE volume_group_snapshots SET status = $2, updated_at = $3 WHERE id = $1";
        self.exec(sql, params![id, status.as_str(), Timestamp::now()]).await?;
        Ok(())
    }

    /// Moves a group snapshot on that waits for its snapshots: to be made, or to be gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_snapshot_settle(&self, id: VolumeGroupSnapshotId) -> Result<(), StoreError> {
        let Some(found) = self.volume_group_snapshot_lock(id).await? else { return Ok(()) };
        let rows = self.all("SELECT status FROM volume_snapshots WHERE group_snapshot_id = $1", params![id]).await?;
        let statuses = rows.iter().map(|r| r.text("status")).collect::<Result<Vec<VolumeSnapshotStatus>, _>>()?;
        match found.status {
            VolumeGroupStatus::Deleting if statuses.is_empty() => {
                self.exec("DELETE FROM volume_group_snapshots WHERE id = $1", params![id]).await?;
                Ok(())
            }
            VolumeGroupStatus::Creating if statuses.contains(&VolumeSnapshotStatus::Error) => {
                self.volume_group_snapshot_set(id, VolumeGroupStatus::Error).await
            }
            VolumeGroupStatus::Creating if !statuses.contains(&VolumeSnapshotStatus::Creating) => {
                self.volume_group_snapshot_set(id, VolumeGroupStatus::Available).await
            }
            VolumeGroupStatus::Creating
            | VolumeGroupStatus::Available
            | VolumeGroupStatus::Updating
            | VolumeGroupStatus::Deleting
            | VolumeGroupStatus::Error
            | VolumeGroupStatus::ErrorDeleting => Ok(()),
        }
    }
}
