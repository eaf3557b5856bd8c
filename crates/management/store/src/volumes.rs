//! Volumes: the record, the wish that a node acts on, and what the node last said.
//!
//! As with servers, a change reads the row with [`Tx::volume_lock`], decides, and writes it back whole with
//! [`Tx::volume_update`]; the generation in the row catches whoever does otherwise.

mod list;
mod usage;

pub use list::{VolumeCounts, VolumeFilter, VolumeSort};
pub(crate) use list::{contains, ordered, pairs, times};
pub use usage::{FaultyVolume, PoolShare};

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::ImageSource;
use arcus_types::volumes::VolumeStatus;
use arcus_types::{
    ImageId, NodeId, ProjectId, Timestamp, UserId, VolumeGroupId, VolumeId, VolumeSnapshotId, VolumeTypeId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A block device, with the wish that its node acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Who owns and pays for it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// What state it is in.
    pub status: VolumeStatus,
    /// The state that it had before a task began that leads back there.
    pub status_before: Option<VolumeStatus>,
    /// Until when what is being done to it must be over.
    pub deadline: Option<Timestamp>,
    /// What is claimed of the node and the quota, in GiB.
    pub size_gib: u64,
    /// Its type.
    pub volume_type_id: VolumeTypeId,
    /// The zone that it is in, or that was asked for.
    pub availability_zone: String,
    /// The node whose pool it is in.
    pub node_id: Option<NodeId>,
    /// The node's spec generation that carries the last wish.
    pub node_generation: u64,
    /// Rises with every wish.
    pub version: u64,
    /// Whether a server can boot from it.
    pub bootable: bool,
    /// Whether servers get it read-only.
    pub read_only: bool,
    /// Whether several servers may have it at once.
    pub multiattach: bool,
    /// Whether its node has made it.
    pub made: bool,
    /// What its bytes begin as.
    pub source: VolumeOrigin,
    /// The volume that it was made of, while that was there.
    pub source_volume_id: Option<VolumeId>,
    /// The snapshot that it was made of, while that was there.
    pub source_snapshot_id: Option<VolumeSnapshotId>,
    /// Free key and value pairs of the owner.
    pub metadata: BTreeMap<String, String>,
    /// Properties of the image that it began as.
    pub image_metadata: Option<BTreeMap<String, String>>,
    /// What went wrong.
    pub fault: Option<VolumeFault>,
    /// What no query asks for.
    pub details: VolumeDetails,
    /// Rises with every write.
    pub generation: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
    /// When it was made.
    pub launched_at: Option<Timestamp>,
    /// The group that it is in.
    pub group_id: Option<VolumeGroupId>,
}

/// What a volume's bytes begin as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeOrigin {
    /// Zeros.
    Blank,
    /// An image.
    Image(ImageSource),
    /// Another volume on the same node.
    Volume(VolumeId),
    /// A snapshot of a volume on the same node.
    Snapshot {
        /// The volume.
        volume_id: VolumeId,
        /// The snapshot.
        snapshot_id: VolumeSnapshotId,
    },
}

/// What went wrong with a volume or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFault {
    /// A sentence for the owner.
    pub message: String,
    /// For the operator.
    pub details: String,
    /// When.
    pub at: Timestamp,
}

/// What of a volume no query asks for, kept as one document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeDetails {
    /// While it is extended: the size that it had, in GiB.
    pub size_gib_before: Option<u64>,
    /// How far its making is, in percent.
    pub progress_percent: u8,
    /// What is being done while it is made.
    pub step: Option<String>,
    /// Whether its read-only flag was ever set: then it shows in its metadata.
    pub read_only_set: bool,
    /// Whether its node does not have it any more.
    pub lost: bool,
    /// While it gets other content: what.
    pub refill: Option<VolumeRefillWish>,
}

/// Other content for a volume that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRefillWish {
    /// The volume's version with this wish: its node does none twice.
    pub number: u64,
    /// What it shall hold.
    pub origin: VolumeOrigin,
}

pub(crate) const COLUMNS: &str = "id, project_id, user_id, name, description, status, status_before, deadline, size_gib, \
     volume_type_id, availability_zone, node_id, node_generation, version, bootable, read_only, multiattach, made, source, \
     source_volume_id, source_snapshot_id, metadata, image_metadata, fault, details, generation, created_at, updated_at, \
     launched_at, group_id";

pub(crate) fn volume(row: &Row) -> Result<Volume, StoreError> {
    Ok(Volume {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.opt("name")?,
        description: row.opt("description")?,
        status: row.text("status")?,
        status_before: match row.opt::<String>("status_before")? {
            Some(_) => Some(row.text("status_before")?),
            None => None,
        },
        deadline: row.opt("deadline")?,
        size_gib: row.get("size_gib")?,
        volume_type_id: row.get("volume_type_id")?,
        availability_zone: row.get("availability_zone")?,
        node_id: row.opt("node_id")?,
        node_generation: row.get("node_generation")?,
        version: row.get("version")?,
        bootable: row.get("bootable")?,
        read_only: row.get("read_only")?,
        multiattach: row.get("multiattach")?,
        made: row.get("made")?,
        source: row.json("source")?,
        source_volume_id: row.opt("source_volume_id")?,
        source_snapshot_id: row.opt("source_snapshot_id")?,
        metadata: row.json("metadata")?,
        image_metadata: row.opt::<Json<BTreeMap<String, String>>>("image_metadata")?.map(|m| m.0),
        fault: row.opt::<Json<VolumeFault>>("fault")?.map(|f| f.0),
        details: row.json("details")?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
        launched_at: row.opt("launched_at")?,
        group_id: row.opt("group_id")?,
    })
}

/// A document, or NULL.
pub(crate) fn optional_json<T: Serialize>(value: Option<&T>) -> Option<String> {
    value.and_then(|v| serde_json::to_string(v).ok())
}

/// An image that is being made of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUpload {
    /// The image.
    pub image_id: ImageId,
    /// The volume.
    pub volume_id: VolumeId,
    /// The node that does it.
    pub node_id: NodeId,
    /// The request that asked for it.
    pub request_id: arcus_types::RequestId,
    /// The form of the image, as the image API writes it.
    pub disk_format: String,
}

impl Db {
    /// The volume with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_get(&self, id: VolumeId) -> Result<Option<Volume>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volumes WHERE id = $1"), params![id]).await?;
        row.as_ref().map(volume).transpose()
    }

    /// The volumes with these ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_get_many(&self, ids: &[VolumeId]) -> Result<Vec<Volume>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        let sql = format!("SELECT {COLUMNS} FROM volumes{}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(volume).collect()
    }

    /// The volumes that are in a node's pool.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_list_by_node(&self, node: NodeId) -> Result<Vec<Volume>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM volumes WHERE node_id = $1 ORDER BY id");
        self.all(sql, params![node]).await?.iter().map(volume).collect()
    }

    /// Volumes whose task should have been over at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_list_overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<VolumeId>, StoreError> {
        let sql = format!("SELECT id FROM volumes WHERE deadline < $1 ORDER BY deadline LIMIT {limit}");
        self.all(sql, params![now]).await?.iter().map(|r| r.get("id")).collect()
    }

    /// How many volumes are being made of this volume, or of a snapshot of it, just now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_count_made_of(
        &self,
        volume: VolumeId,
        snapshot: Option<VolumeSnapshotId>,
    ) -> Result<u64, StoreError> {
        let row = match snapshot {
            None => {
                let sql = "SELECT COUNT(*) AS n FROM volumes WHERE source_volume_id = $1 AND made = FALSE
                           AND status IN ('creating', 'reserved', 'attaching')";
                self.one(sql, params![volume]).await?
            }
            Some(snapshot) => {
                let sql = "SELECT COUNT(*) AS n FROM volumes WHERE source_snapshot_id = $1 AND made = FALSE
                           AND status IN ('creating', 'reserved', 'attaching')";
                self.one(sql, params![snapshot]).await?
            }
        };
        row.map_or(Ok(0), |r| r.get("n"))
    }

    /// The images that a node is to make of its volumes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_uploads_by_node(&self, node: NodeId) -> Result<Vec<VolumeUpload>, StoreError> {
        self.volume_uploads("node_id = $1", params![node]).await
    }

    /// The images that are being made of a volume.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_uploads_by_volume(&self, volume: VolumeId) -> Result<Vec<VolumeUpload>, StoreError> {
        self.volume_uploads("volume_id = $1", params![volume]).await
    }

    async fn volume_uploads(
        &self,
        condition: &str,
        params: Vec<sea_orm::Value>,
    ) -> Result<Vec<VolumeUpload>, StoreError> {
        let sql = format!(
            "SELECT image_id, volume_id, node_id, request_id, disk_format FROM volume_uploads WHERE {condition}
             ORDER BY created_at"
        );
        let rows = self.all(sql, params).await?;
        rows.iter()
            .map(|r| {
                Ok(VolumeUpload {
                    image_id: r.get("image_id")?,
                    volume_id: r.get("volume_id")?,
                    node_id: r.get("node_id")?,
                    request_id: r.get("request_id")?,
                    disk_format: r.get("disk_format")?,
                })
            })
            .collect()
    }
}

impl Tx {
    /// The volume with this id, held against other writers until this transaction ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_lock(&self, id: VolumeId) -> Result<Option<Volume>, StoreError> {
        // SQLite's writers are alone already: a transaction begins with its write lock.
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {COLUMNS} FROM volumes WHERE id = $1{lock}"), params![id]).await?;
        row.as_ref().map(volume).transpose()
    }

    /// Records a volume.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id is taken, [`StoreError::Referenced`] if its type is not there.
    pub async fn volume_insert(&self, v: &Volume) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO volumes ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                 $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, 1, $26, $27, $28, $29)"
            ),
            params![
                v.id, v.project_id, v.user_id, &v.name, &v.description, v.status.as_str(),
                v.status_before.map(VolumeStatus::as_str), v.deadline, v.size_gib, v.volume_type_id,
                &v.availability_zone, v.node_id, v.node_generation, v.version, v.bootable, v.read_only, v.multiattach,
                v.made, Json(&v.source), v.source_volume_id, v.source_snapshot_id, Json(&v.metadata),
                optional_json(v.image_metadata.as_ref()), optional_json(v.fault.as_ref()), Json(&v.details),
                v.created_at, v.updated_at, v.launched_at, v.group_id
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a volume back; its generation rises by one.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn volume_update(&self, v: &mut Volume) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE volumes SET project_id = $3, user_id = $4, name = $5, description = $6, status = $7,
                 status_before = $8, deadline = $9, size_gib = $10, volume_type_id = $11, availability_zone = $12,
                 node_id = $13, node_generation = $14, version = $15, bootable = $16, read_only = $17,
                 multiattach = $18, made = $19, source = $20, source_volume_id = $21, source_snapshot_id = $22,
                 metadata = $23, image_metadata = $24, fault = $25, details = $26, updated_at = $27, launched_at = $28,
                 group_id = $29, generation = generation + 1
                 WHERE id = $1 AND generation = $2",
                params![
                    v.id,
                    v.generation,
                    v.project_id,
                    v.user_id,
                    &v.name,
                    &v.description,
                    v.status.as_str(),
                    v.status_before.map(VolumeStatus::as_str),
                    v.deadline,
                    v.size_gib,
                    v.volume_type_id,
                    &v.availability_zone,
                    v.node_id,
                    v.node_generation,
                    v.version,
                    v.bootable,
                    v.read_only,
                    v.multiattach,
                    v.made,
                    Json(&v.source),
                    v.source_volume_id,
                    v.source_snapshot_id,
                    Json(&v.metadata),
                    optional_json(v.image_metadata.as_ref()),
                    optional_json(v.fault.as_ref()),
                    Json(&v.details),
                    v.updated_at,
                    v.launched_at,
                    v.group_id
                ],
            )
            .await?;
        if changed == 0 {
            return Err(StoreError::Stale("the volume"));
        }
        v.generation += 1;
        Ok(())
    }

    /// Forgets a volume, with its attachments; its snapshots must be gone before. More than one statement: what was made
    /// of it forgets where it came from.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a snapshot of it is still there.
    pub async fn volume_delete(&self, id: VolumeId) -> Result<(), StoreError> {
        self.exec("UPDATE volumes SET source_volume_id = NULL WHERE source_volume_id = $1", params![id]).await?;
        self.exec("DELETE FROM volumes WHERE id = $1", params![id]).await?;
        Ok(())
    }

    /// Records an image that a node is to make of a volume.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`].
    pub async fn volume_upload_insert(&self, new: &VolumeUpload) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO volume_uploads (image_id, volume_id, node_id, request_id, disk_format, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.image_id, new.volume_id, new.node_id, new.request_id, &new.disk_format, Timestamp::now()],
        )
        .await?;
        Ok(())
    }

    /// Forgets an image that is done or given up; `false` if that has happened already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_upload_delete(&self, image: ImageId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_uploads WHERE image_id = $1", params![image]).await? == 1)
    }
}
