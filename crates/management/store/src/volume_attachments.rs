//! Which volume is on which server.

use crate::sql::{Json, Param, Row, Where, params};
use crate::volumes::ordered;
use crate::{Db, StoreError, Tx};
use arcus_types::volumes::AttachmentStatus;
use arcus_types::{AttachmentId, NodeId, ProjectId, ServerId, Timestamp, UserId, VolumeId};
use uuid::Uuid;

/// One volume on one server.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeAttachment {
    /// Its id.
    pub id: AttachmentId,
    /// The volume.
    pub volume_id: VolumeId,
    /// Who owns the volume.
    pub project_id: ProjectId,
    /// Who asked for it.
    pub user_id: UserId,
    /// The server, if it is one.
    pub server_id: Option<ServerId>,
    /// Whether the server has the volume as a disk; otherwise it is only noted.
    pub by_server: bool,
    /// What state it is in.
    pub status: AttachmentStatus,
    /// Until when what is being done must be over.
    pub deadline: Option<Timestamp>,
    /// Whether the server may only read; `None` while it is not settled.
    pub read_only: Option<bool>,
    /// The device that the guest is told, such as `/dev/vdb`.
    pub device: Option<String>,
    /// The machine that a client named.
    pub host_name: Option<String>,
    /// What a client said of its side.
    pub connector: serde_json::Value,
    /// The compute API's name of the same thing.
    pub bdm_id: Uuid,
    /// Its place in the boot order; 0 is the root disk.
    pub boot_index: Option<u32>,
    /// What the guest may know the disk by.
    pub tag: Option<String>,
    /// Whether the volume goes with the server.
    pub delete_on_termination: bool,
    /// The node's spec generation that carries the last wish.
    pub node_generation: u64,
    /// Rises with every write.
    pub generation: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
    /// When the server got the volume.
    pub attached_at: Option<Timestamp>,
}

/// What a list of attachments can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeAttachmentSort {
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The id.
    Id,
    /// The state.
    Status,
    /// The volume.
    Volume,
}

impl VolumeAttachmentSort {
    /// An expression that is never NULL.
    const fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "COALESCE(updated_at, 0)",
            Self::Id => "id",
            Self::Status => "status",
            Self::Volume => "volume_id",
        }
    }
}

/// Which attachments a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeAttachmentFilter {
    /// Of volumes of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// Of this volume.
    pub volume_id: Option<VolumeId>,
    /// Of this server.
    pub server_id: Option<ServerId>,
    /// In one of these states; an empty list matches nothing.
    pub statuses: Option<Vec<AttachmentStatus>>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeAttachmentSort, bool)>,
    /// The attachment after which the page begins.
    pub marker: Option<AttachmentId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

const COLUMNS: &str = "id, volume_id, project_id, user_id, server_id, by_server, status, deadline, mode, device, host_name, \
     connector, bdm_id, boot_index, tag, delete_on_termination, node_generation, generation, created_at, updated_at, \
     attached_at";

fn attachment(row: &Row) -> Result<VolumeAttachment, StoreError> {
    Ok(VolumeAttachment {
        id: row.get("id")?,
        volume_id: row.get("volume_id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        server_id: row.opt("server_id")?,
        by_server: row.get("by_server")?,
        status: row.text("status")?,
        deadline: row.opt("deadline")?,
        read_only: row.opt::<String>("mode")?.map(|mode| mode == "ro"),
        device: row.opt("device")?,
        host_name: row.opt("host_name")?,
        connector: row.json("connector")?,
        bdm_id: row.get("bdm_id")?,
        boot_index: row.opt("boot_index")?,
        tag: row.opt("tag")?,
        delete_on_termination: row.get("delete_on_termination")?,
        node_generation: row.get("node_generation")?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
        attached_at: row.opt("attached_at")?,
    })
}

fn mode(a: &VolumeAttachment) -> Option<&'static str> {
    a.read_only.map(|only| if only { "ro" } else { "rw" })
}

impl Db {
    /// The attachment with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachment_get(&self, id: AttachmentId) -> Result<Option<VolumeAttachment>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_attachments WHERE id = $1"), params![id]).await?;
        row.as_ref().map(attachment).transpose()
    }

    /// Attachments in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachment_list(
        &self,
        wanted: &VolumeAttachmentFilter,
    ) -> Result<Vec<VolumeAttachment>, StoreError> {
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
        equal("volume_id", wanted.volume_id.map(Param::value));
        equal("server_id", wanted.server_id.map(Param::value));
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(key, down)| (key.expression(), *down)).collect();
        if sort.is_empty() {
            sort.push((VolumeAttachmentSort::CreatedAt.expression(), true));
        }
        let marker = wanted.marker.map(|m| m.0);
        let sql = ordered("volume_attachments", COLUMNS, &mut filter, sort, marker, wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(attachment).collect()
    }

    /// The attachments of these volumes, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachments_of(&self, volumes: &[VolumeId]) -> Result<Vec<VolumeAttachment>, StoreError> {
        self.volume_attachments("volume_id", volumes.to_vec()).await
    }

    /// The volumes that these servers have, or are getting or giving back, as disks, in the order of the guest's devices.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachments_by_servers(
        &self,
        servers: &[ServerId],
    ) -> Result<Vec<VolumeAttachment>, StoreError> {
        let mut found = self.volume_attachments("server_id", servers.to_vec()).await?;
        found.retain(|a| a.by_server);
        Ok(found)
    }

    async fn volume_attachments<T: Param>(
        &self,
        column: &str,
        values: Vec<T>,
    ) -> Result<Vec<VolumeAttachment>, StoreError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in(column, values);
        let sql = format!("SELECT {COLUMNS} FROM volume_attachments{} ORDER BY created_at, id", filter.sql());
        self.all(sql, filter.params).await?.iter().map(attachment).collect()
    }

    /// The attachments of the servers on a node, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachments_by_node(&self, node: NodeId) -> Result<Vec<VolumeAttachment>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM volume_attachments WHERE by_server = TRUE AND server_id IN
             (SELECT id FROM servers WHERE node_id = $1 AND deleted_at IS NULL) ORDER BY created_at, id"
        );
        self.all(sql, params![node]).await?.iter().map(attachment).collect()
    }

    /// Attachments that should have been settled at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachment_list_overdue(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<VolumeAttachment>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM volume_attachments WHERE deadline < $1 ORDER BY deadline LIMIT {limit}");
        self.all(sql, params![now]).await?.iter().map(attachment).collect()
    }
}

impl Tx {
    /// Records an attachment.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id is taken, [`StoreError::Referenced`] if its volume is not there.
    pub async fn volume_attachment_insert(&self, a: &VolumeAttachment) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO volume_attachments ({COLUMNS})
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 1, $18, $19, $20)"
            ),
            params![
                a.id,
                a.volume_id,
                a.project_id,
                a.user_id,
                a.server_id,
                a.by_server,
                a.status.as_str(),
                a.deadline,
                mode(a),
                &a.device,
                &a.host_name,
                Json(&a.connector),
                a.bdm_id,
                a.boot_index,
                &a.tag,
                a.delete_on_termination,
                a.node_generation,
                a.created_at,
                a.updated_at,
                a.attached_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes an attachment back; its generation rises by one.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn volume_attachment_update(&self, a: &mut VolumeAttachment) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE volume_attachments SET status = $3, deadline = $4, mode = $5, device = $6, host_name = $7,
                 connector = $8, boot_index = $9, tag = $10, delete_on_termination = $11, node_generation = $12,
                 updated_at = $13, attached_at = $14, volume_id = $15, server_id = $16, generation = generation + 1
                 WHERE id = $1 AND generation = $2",
                params![
                    a.id,
                    a.generation,
                    a.status.as_str(),
                    a.deadline,
                    mode(a),
                    &a.device,
                    &a.host_name,
                    Json(&a.connector),
                    a.boot_index,
                    &a.tag,
                    a.delete_on_termination,
                    a.node_generation,
                    a.updated_at,
                    a.attached_at,
                    a.volume_id,
                    a.server_id
                ],
            )
            .await?;
        if changed == 0 {
            return Err(StoreError::Stale("the attachment"));
        }
        a.generation += 1;
        Ok(())
    }

    /// Forgets an attachment; `false` if that has happened already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_attachment_delete(&self, id: AttachmentId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_attachments WHERE id = $1", params![id]).await? == 1)
    }
}
