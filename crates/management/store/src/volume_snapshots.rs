//! Snapshots of volumes.

use crate::images::TimeTest;
use crate::sql::{Json, Param, Row, Where, params};
use crate::volumes::{contains, optional_json, ordered, pairs, times};
use crate::{Db, StoreError, Tx, VolumeFault};
use arcus_types::volumes::VolumeSnapshotStatus;
use arcus_types::{NodeId, ProjectId, Timestamp, UserId, VolumeGroupSnapshotId, VolumeId, VolumeSnapshotId};
use std::collections::BTreeMap;

/// A state of a volume that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeSnapshot {
    /// Its id.
    pub id: VolumeSnapshotId,
    /// Of which volume.
    pub volume_id: VolumeId,
    /// Who owns and pays for it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// What state it is in.
    pub status: VolumeSnapshotStatus,
    /// Until when what is being done to it must be over.
    pub deadline: Option<Timestamp>,
    /// The volume's size at the time, in GiB.
    pub size_gib: u64,
    /// The node's spec generation that carries the last wish.
    pub node_generation: u64,
    /// Free key and value pairs of the owner.
    pub metadata: BTreeMap<String, String>,
    /// What went wrong.
    pub fault: Option<VolumeFault>,
    /// Rises with every write.
    pub generation: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
    /// The group snapshot that it is a part of.
    pub group_snapshot_id: Option<VolumeGroupSnapshotId>,
}

/// What a list of snapshots can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSnapshotSort {
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
    /// The size.
    Size,
    /// The volume.
    Volume,
}

impl VolumeSnapshotSort {
    /// An expression that is never NULL.
    const fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "COALESCE(updated_at, 0)",
            Self::Name => "COALESCE(name, '')",
            Self::Id => "id",
            Self::Status => "status",
            Self::Size => "size_gib",
            Self::Volume => "volume_id",
        }
    }
}

/// Which snapshots a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeSnapshotFilter {
    /// Of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// With one of these ids.
    pub ids: Option<Vec<VolumeSnapshotId>>,
    /// Of this volume.
    pub volume_id: Option<VolumeId>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With this text in the name.
    pub name_like: Option<String>,
    /// With this description.
    pub description: Option<String>,
    /// In one of these states; an empty list matches nothing.
    pub statuses: Option<Vec<VolumeSnapshotStatus>>,
    /// Of volumes of this size in GiB.
    pub size_gib: Option<u64>,
    /// With all of these pairs in its metadata.
    pub metadata: Vec<(String, String)>,
    /// Asked for then.
    pub created_at: Vec<(TimeTest, Timestamp)>,
    /// Changed then.
    pub updated_at: Vec<(TimeTest, Timestamp)>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeSnapshotSort, bool)>,
    /// The snapshot after which the page begins.
    pub marker: Option<VolumeSnapshotId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

pub(crate) const COLUMNS: &str = "id, volume_id, project_id, user_id, name, description, status, deadline, size_gib, node_generation, \
     metadata, fault, generation, created_at, updated_at, group_snapshot_id";

pub(crate) fn snapshot(row: &Row) -> Result<VolumeSnapshot, StoreError> {
    Ok(VolumeSnapshot {
        id: row.get("id")?,
        volume_id: row.get("volume_id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.opt("name")?,
        description: row.opt("description")?,
        status: row.text("status")?,
        deadline: row.opt("deadline")?,
        size_gib: row.get("size_gib")?,
        node_generation: row.get("node_generation")?,
        metadata: row.json("metadata")?,
        fault: row.opt::<Json<VolumeFault>>("fault")?.map(|f| f.0),
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
        group_snapshot_id: row.opt("group_snapshot_id")?,
    })
}

fn conditions(wanted: &VolumeSnapshotFilter, postgres: bool) -> Where {
    let mut filter = Where::default();
    if let Some(ids) = &wanted.ids {
        filter.and_in("id", ids.clone());
    }
    if let Some(statuses) = &wanted.statuses {
        filter.and_in("status", statuses.iter().map(|s| s.as_str()).collect());
    }
    let mut equal = |column: &str, value: Option<sea_orm::Value>| {
        if let Some(value) = value {
            filter.and(&format!("{column} = ?"), vec![value]);
        }
    };
    equal("project_id", wanted.project_id.map(Param::value));
    equal("volume_id", wanted.volume_id.map(Param::value));
    equal("name", wanted.name.as_ref().map(Param::value));
    equal("description", wanted.description.as_ref().map(Param::value));
    equal("size_gib", wanted.size_gib.map(Param::value));
    if let Some(text) = &wanted.name_like {
        contains(&mut filter, postgres, "COALESCE(name, '')", text);
    }
    pairs(&mut filter, postgres, "metadata", &wanted.metadata);
    times(&mut filter, "created_at", &wanted.created_at);
    times(&mut filter, "COALESCE(updated_at, created_at)", &wanted.updated_at);
    filter
}

impl Db {
    /// The snapshot with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_get(&self, id: VolumeSnapshotId) -> Result<Option<VolumeSnapshot>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_snapshots WHERE id = $1"), params![id]).await?;
        row.as_ref().map(snapshot).transpose()
    }

    /// Snapshots in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_list(&self, wanted: &VolumeSnapshotFilter) -> Result<Vec<VolumeSnapshot>, StoreError> {
        let mut filter = conditions(wanted, self.is_postgres());
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(key, down)| (key.expression(), *down)).collect();
        if sort.is_empty() {
            sort.push((VolumeSnapshotSort::CreatedAt.expression(), true));
        }
        let marker = wanted.marker.map(|m| m.0);
        let sql = ordered("volume_snapshots", COLUMNS, &mut filter, sort, marker, wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(snapshot).collect()
    }

    /// How many snapshots match; order and page do not count.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_count(&self, wanted: &VolumeSnapshotFilter) -> Result<u64, StoreError> {
        let filter = conditions(wanted, self.is_postgres());
        let sql = format!("SELECT COUNT(*) AS n FROM volume_snapshots{}", filter.sql());
        self.one(sql, filter.params).await?.map_or(Ok(0), |r| r.get("n"))
    }

    /// The snapshots of a volume, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshots_of(&self, volume: VolumeId) -> Result<Vec<VolumeSnapshot>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM volume_snapshots WHERE volume_id = $1 ORDER BY created_at, id");
        self.all(sql, params![volume]).await?.iter().map(snapshot).collect()
    }

    /// The snapshots of the volumes in a node's pool, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshots_by_node(&self, node: NodeId) -> Result<Vec<VolumeSnapshot>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM volume_snapshots WHERE volume_id IN (SELECT id FROM volumes WHERE node_id = $1)
             ORDER BY created_at, id"
        );
        self.all(sql, params![node]).await?.iter().map(snapshot).collect()
    }

    /// Snapshots whose task should have been over at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_list_overdue(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<VolumeSnapshotId>, StoreError> {
        let sql = format!("SELECT id FROM volume_snapshots WHERE deadline < $1 ORDER BY deadline LIMIT {limit}");
        self.all(sql, params![now]).await?.iter().map(|r| r.get("id")).collect()
    }
}

impl Tx {
    /// The snapshot with this id, held against other writers until this transaction ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_lock(&self, id: VolumeSnapshotId) -> Result<Option<VolumeSnapshot>, StoreError> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_snapshots WHERE id = $1{lock}"), params![id]).await?;
        row.as_ref().map(snapshot).transpose()
    }

    /// Records a snapshot.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id is taken, [`StoreError::Referenced`] if its volume is not there.
    pub async fn volume_snapshot_insert(&self, s: &VolumeSnapshot) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO volume_snapshots ({COLUMNS})
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, $13, $14, $15)"
            ),
            params![
                s.id,
                s.volume_id,
                s.project_id,
                s.user_id,
                &s.name,
                &s.description,
                s.status.as_str(),
                s.deadline,
                s.size_gib,
                s.node_generation,
                Json(&s.metadata),
                optional_json(s.fault.as_ref()),
                s.created_at,
                s.updated_at,
                s.group_snapshot_id
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a snapshot back; its generation rises by one.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn volume_snapshot_update(&self, s: &mut VolumeSnapshot) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE volume_snapshots SET project_id = $3, user_id = $4, name = $5, description = $6, status = $7,
                 deadline = $8, size_gib = $9, node_generation = $10, metadata = $11, fault = $12, updated_at = $13,
                 generation = generation + 1 WHERE id = $1 AND generation = $2",
                params![
                    s.id,
                    s.generation,
                    s.project_id,
                    s.user_id,
                    &s.name,
                    &s.description,
                    s.status.as_str(),
                    s.deadline,
                    s.size_gib,
                    s.node_generation,
                    Json(&s.metadata),
                    optional_json(s.fault.as_ref()),
                    s.updated_at
                ],
            )
            .await?;
        if changed == 0 {
            return Err(StoreError::Stale("the snapshot"));
        }
        s.generation += 1;
        Ok(())
    }

    /// Forgets a snapshot. More than one statement: volumes that were made of it forget where they came from.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_snapshot_delete(&self, id: VolumeSnapshotId) -> Result<(), StoreError> {
        self.exec("UPDATE volumes SET source_snapshot_id = NULL WHERE source_snapshot_id = $1", params![id]).await?;
        self.exec("DELETE FROM volume_snapshots WHERE id = $1", params![id]).await?;
        Ok(())
    }
}
