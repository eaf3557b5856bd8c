//! Servers: the record, the wish that a node acts on, and what the node last saw.
//!
//! A change reads the row with [`Tx::server_lock`], decides, and writes it back whole with [`Tx::server_update`]; the
//! generation in the row catches whoever does otherwise.

mod list;
mod secrets;

pub use list::{ServerFilter, ServerSort, ServerVisibility};
pub use secrets::{ServerSecrets, ServerSnapshot};

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::{DeviceModel, ImageSource, LocalDisk, Power};
use arcus_types::flavors::FlavorId;
use arcus_types::servers::{PowerState, ServerState, ServerTask};
use arcus_types::{
    DiskPoolId, ImageId, Name, NodeId, PortId, ProjectId, RequestId, ServerGroupId, ServerId, Timestamp, UserId,
    VolumeId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A guest, with the wish that its node acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Who owns and pays for it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: Name,
    /// Where it rests.
    pub state: ServerState,
    /// What is being done to it.
    pub task: Option<ServerTask>,
    /// Until when the task must be over.
    pub task_deadline: Option<Timestamp>,
    /// What its node last saw.
    pub power_state: PowerState,
    /// How far a preparation is, in percent.
    pub progress: u8,
    /// The state that its node keeps it in.
    pub power: Power,
    /// Rises with every wish.
    pub version: u64,
    /// The right to write to its disks.
    pub epoch: u64,
    /// How often it was asked to restart.
    pub restarts: u64,
    /// Whether the last restart is hard.
    pub restart_hard: bool,
    /// Rises with every rebuild.
    pub incarnation: u64,
    /// The node that it lives on.
    pub node_id: Option<NodeId>,
    /// The node's spec generation that carries the last wish.
    pub node_generation: u64,
    /// The zone that it is in, or that was asked for.
    pub availability_zone: String,
    /// Virtual CPUs claimed of the node and the quota.
    pub vcpus: u64,
    /// Memory claimed, in MiB.
    pub memory_mib: u64,
    /// Disk claimed, in GiB: its root disk's size, and what its local disks take.
    pub disk_gib: u64,
    /// The flavor as it was when it was given.
    pub flavor: ServerFlavor,
    /// The image that the root disk began as.
    pub image: ImageSource,
    /// Free key and value pairs of the owner.
    pub metadata: BTreeMap<String, String>,
    /// Whether only administrators may change it.
    pub locked: bool,
    /// The group that it is in.
    pub server_group_id: Option<ServerGroupId>,
    /// The request whose action is under way.
    pub request_id: Option<RequestId>,
    /// What went wrong.
    pub fault: Option<ServerFault>,
    /// What no query asks for.
    pub details: ServerDetails,
    /// Rises with every write.
    pub generation: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed in a way that its owner sees.
    pub updated_at: Timestamp,
    /// When it first ran.
    pub launched_at: Option<Timestamp>,
    /// When it was gone.
    pub deleted_at: Option<Timestamp>,
}

impl Server {
    /// The size of its root disk, in GiB; 0 if it boots from a volume.
    #[must_use]
    pub fn root_gib(&self) -> u64 {
        self.disk_gib.saturating_sub(self.details.local_gib)
    }
}

/// A flavor as a server got it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFlavor {
    /// Its id.
    pub id: FlavorId,
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Root disk in GiB; 0 is the image's own size.
    pub disk_gib: u64,
    /// Further disks together, in GiB.
    pub ephemeral_gib: u64,
    /// Swap in MiB.
    pub swap_mib: u64,
    /// Further settings.
    pub extra_specs: BTreeMap<String, String>,
}

/// What went wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFault {
    /// An HTTP-like number, as clients expect.
    pub code: u16,
    /// A sentence for the owner.
    pub message: String,
    /// For the operator.
    pub details: String,
    /// When.
    pub at: Timestamp,
    /// Whether the node goes on trying by itself.
    pub transient: bool,
}

/// What of a server no query asks for, kept as one document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerDetails {
    /// The host name that the guest is given.
    pub hostname: String,
    /// Free text of the owner.
    pub description: Option<String>,
    /// The name of the key pair that was given.
    pub key_name: Option<String>,
    /// Whether the guest has a config drive.
    pub config_drive: bool,
    /// An address that the owner notes down.
    pub access_ip_v4: Option<IpAddr>,
    /// An address that the owner notes down.
    pub access_ip_v6: Option<IpAddr>,
    /// Whether the owner partitions the disk: only kept for clients that send it.
    pub disk_config_manual: bool,
    /// The same for all servers of one request.
    pub reservation_id: String,
    /// Its place among the servers of one request.
    pub launch_index: u32,
    /// The zone that was asked for, if one was.
    pub zone_asked: Option<String>,
    /// Whether an administrator locked it, rather than its owner.
    pub locked_by_admin: bool,
    /// Why it is locked.
    pub locked_reason: Option<String>,
    /// Its ports in the order of the guest's interfaces.
    pub ports: Vec<PortId>,
    /// Tags of its ports, where they were given.
    pub port_tags: BTreeMap<PortId, String>,
    /// Names of security groups as they were asked for.
    pub security_groups: Vec<String>,
    /// Devices as the image asks for them.
    pub devices: DeviceModel,
    /// What is being done while it is prepared.
    pub step: Option<String>,
    /// A resize that its owner has neither confirmed nor reverted.
    pub resize: Option<ServerResize>,
    /// Whether it boots from its volume with boot index 0 and has no root disk of its own.
    pub volume_root: bool,
    /// Its disks besides the root disk.
    pub local_disks: Vec<LocalDisk>,
    /// What of the claimed disk is theirs, in GiB.
    pub local_gib: u64,
    /// What its root disk began as, where that is not its image: it was shelved and started again.
    pub disk_source: Option<ImageSource>,
    /// Set while it is being shelved and until it has started again.
    pub shelve: Option<ServerShelve>,
    /// Set while it is rescued.
    pub rescue: Option<ServerRescue>,
    /// Set while the volume that it boots from is being refilled.
    pub rebuild: Option<ServerRebuild>,
    /// The shared folder that its disks are in; `None`: they are on its node's own storage. Queries have a column for it.
    pub disk_pool: Option<DiskPoolId>,
    /// Why it stays on a node that is lost though its disks could be reached, for its owner.
    pub recovery: Option<String>,
    /// How often a new password was asked for.
    pub passwords: u64,
    /// Properties of the image at the time, as the image API had them.
    pub image_properties: BTreeMap<String, String>,
    /// Placement hints as they were given.
    pub scheduler_hints: serde_json::Value,
}

/// What a server is shelved as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerShelve {
    /// The image of its root disk; a server without one of its own has none.
    pub image_id: Option<ImageId>,
}

/// A rebuild of a server that boots from a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRebuild {
    /// The volume.
    pub volume_id: VolumeId,
    /// Whether it runs afterwards.
    pub runs: bool,
    /// Whether its node has seen it stopped.
    pub stopped: bool,
}

/// What a server is rescued with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRescue {
    /// What the rescue disk begins as.
    pub image: ImageSource,
    /// Tells one rescue from the next.
    pub incarnation: u64,
}

/// A resize that its owner has neither confirmed nor reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerResize {
    /// The flavor that is not in use: while resizing and reverting, the one to come; in between, the old one.
    pub other: ServerFlavor,
    /// The local disks that go with it.
    #[serde(default)]
    pub local_disks: Vec<LocalDisk>,
    /// Whether it ran before.
    pub ran: bool,
    /// Set if it changes its node, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<ServerPlace>,
}

/// The node that a server does not use, of the two that it can choose from: on its way there or back, the one to come; in
/// between, the one that it left. What it needs there is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlace {
    /// The node.
    pub node_id: NodeId,
    /// The virtual CPUs that are claimed there.
    pub vcpus: u64,
    /// The memory that is claimed there, in MiB.
    pub memory_mib: u64,
    /// The disk that is claimed there, in GiB.
    pub disk_gib: u64,
    /// What of it is for local disks, in GiB.
    #[serde(default)]
    pub local_gib: u64,
    /// The image of its disk as it was when it shut down: what both nodes can make it of. None is needed where both see the
    /// disk, and none is there before it is begun.
    pub image_id: Option<ImageId>,
}

pub(crate) const COLUMNS: &str = "id, project_id, user_id, name, state, task, task_deadline, power_state, progress, power, \
     version, epoch, restarts, restart_hard, incarnation, node_id, node_generation, availability_zone, vcpus, memory_mib, \
     disk_gib, flavor, image, metadata, locked, server_group_id, request_id, fault, details, generation, created_at, \
     updated_at, launched_at, deleted_at";

pub(crate) fn server(row: &Row) -> Result<Server, StoreError> {
    let power_state: i64 = row.get("power_state")?;
    Ok(Server {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.get("name")?,
        state: row.text("state")?,
        task: optional_text(row, "task")?,
        task_deadline: row.opt("task_deadline")?,
        power_state: PowerState::from_number(power_state).unwrap_or(PowerState::NoState),
        progress: row.get("progress")?,
        power: row.json("power")?,
        version: row.get("version")?,
        epoch: row.get("epoch")?,
        restarts: row.get("restarts")?,
        restart_hard: row.get("restart_hard")?,
        incarnation: row.get("incarnation")?,
        node_id: row.opt("node_id")?,
        node_generation: row.get("node_generation")?,

        availability_zone: row.get("availability_zone")?,
        vcpus: row.get("vcpus")?,
        memory_mib: row.get("memory_mib")?,
        disk_gib: row.get("disk_gib")?,
        flavor: row.json("flavor")?,
        image: row.json("image")?,
        metadata: row.json("metadata")?,
        locked: row.get("locked")?,
        server_group_id: row.opt("server_group_id")?,
        request_id: row.opt("request_id")?,
        fault: row.opt::<Json<ServerFault>>("fault")?.map(|f| f.0),
        details: row.json("details")?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        launched_at: row.opt("launched_at")?,
        deleted_at: row.opt("deleted_at")?,
    })
}

fn optional_text(row: &Row, column: &str) -> Result<Option<ServerTask>, StoreError> {
    match row.opt::<String>(column)? {
        None => Ok(None),
        Some(_) => row.text(column).map(Some),
    }
}

impl Db {
    /// The server with this id, gone or not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_get(&self, id: ServerId) -> Result<Option<Server>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM servers WHERE id = $1"), params![id]).await?;
        row.as_ref().map(server).transpose()
    }

    /// The servers that live on a node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_list_by_node(&self, node: NodeId) -> Result<Vec<Server>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM servers WHERE node_id = $1 AND deleted_at IS NULL ORDER BY id");
        self.all(sql, params![node]).await?.iter().map(server).collect()
    }

    /// Servers that are gone, or leave their node for good, and whose shared disks it has still to remove; at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_disk_removals(&self, node: NodeId, limit: u32) -> Result<Vec<ServerId>, StoreError> {
        let sql = format!(
            "SELECT id FROM servers WHERE node_id = $1 AND disk_pool IS NOT NULL
             AND (deleted_at IS NOT NULL OR task = $2 OR task = $3) ORDER BY id LIMIT {limit}"
        );
        let (deleting, offloading) = (ServerTask::Deleting.text(), ServerTask::ShelvingOffloading.text());
        self.all(sql, params![node, deleting, offloading]).await?.iter().map(|r| r.get("id")).collect()
    }

    /// Servers whose task should have been over at `now`, at most `limit` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_list_overdue(&self, now: Timestamp, limit: u32) -> Result<Vec<ServerId>, StoreError> {
        let sql = format!(
            "SELECT id FROM servers WHERE task IS NOT NULL AND task_deadline < $1 AND deleted_at IS NULL
             ORDER BY task_deadline LIMIT {limit}"
        );
        self.all(sql, params![now]).await?.iter().map(|r| r.get("id")).collect()
    }

    /// How many servers live on each node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_count_by_node(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        let sql = "SELECT node_id, COUNT(*) AS n FROM servers WHERE node_id IS NOT NULL AND deleted_at IS NULL
                   GROUP BY node_id";
        self.all(sql, vec![]).await?.iter().map(|r| Ok((r.get("node_id")?, r.get("n")?))).collect()
    }

    /// The tags of these servers, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_tags(&self, servers: &[ServerId]) -> Result<Vec<(ServerId, String)>, StoreError> {
        if servers.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("server_id", servers.to_vec());
        let sql = format!("SELECT server_id, tag FROM server_tags{} ORDER BY server_id, tag", filter.sql());
        self.all(sql, filter.params).await?.iter().map(|r| Ok((r.get("server_id")?, r.get("tag")?))).collect()
    }
}

impl Tx {
    /// The server with this id, held against other writers until this transaction ends.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_lock(&self, id: ServerId) -> Result<Option<Server>, StoreError> {
        // SQLite's writers are alone already: a transaction begins with its write lock.
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {COLUMNS} FROM servers WHERE id = $1{lock}"), params![id]).await?;
        row.as_ref().map(server).transpose()
    }

    /// Records a server.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the id is taken.
    pub async fn server_insert(&self, s: &Server) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO servers (id, project_id, user_id, name, state, task, task_deadline, power_state, progress, power,
             version, epoch, restarts, restart_hard, incarnation, node_id, node_generation, availability_zone, vcpus,
             memory_mib, disk_gib, flavor_id, flavor, image_id, image, metadata, locked, server_group_id, request_id,
             fault, details, generation, created_at, updated_at, launched_at, deleted_at, disk_pool)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23, $24, $25, $26, $27, $28, $29, $30, $31, 1, $32, $33, $34, $35, $36)",
            params![
                s.id, s.project_id, s.user_id, &s.name, s.state.text(), s.task.map(ServerTask::text), s.task_deadline,
                s.power_state.number(), s.progress, Json(&s.power), s.version, s.epoch, s.restarts, s.restart_hard,
                s.incarnation, s.node_id, s.node_generation, &s.availability_zone, s.vcpus, s.memory_mib, s.disk_gib,
                s.flavor.id.as_str(), Json(&s.flavor), s.image.id, Json(&s.image), Json(&s.metadata), s.locked,
                s.server_group_id, s.request_id, fault_text(s), Json(&s.details), s.created_at, s.updated_at,
                s.launched_at, s.deleted_at, s.details.disk_pool
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a server back; its generation rises by one.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn server_update(&self, s: &mut Server) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE servers SET name = $3, state = $4, task = $5, task_deadline = $6, power_state = $7, progress = $8,
                 power = $9, version = $10, epoch = $11, restarts = $12, restart_hard = $13, incarnation = $14,
                 node_id = $15, node_generation = $16, availability_zone = $17, vcpus = $18, memory_mib = $19,
                 disk_gib = $20, flavor_id = $21, flavor = $22, image_id = $23, image = $24, metadata = $25, locked = $26,
                 server_group_id = $27, request_id = $28, fault = $29, details = $30, updated_at = $31,
                 launched_at = $32, deleted_at = $33, disk_pool = $34, generation = generation + 1
                 WHERE id = $1 AND generation = $2",
                params![
                    s.id, s.generation, &s.name, s.state.text(), s.task.map(ServerTask::text), s.task_deadline,
                    s.power_state.number(), s.progress, Json(&s.power), s.version, s.epoch, s.restarts,
                    s.restart_hard, s.incarnation, s.node_id, s.node_generation, &s.availability_zone, s.vcpus,
                    s.memory_mib, s.disk_gib, s.flavor.id.as_str(), Json(&s.flavor), s.image.id, Json(&s.image),
                    Json(&s.metadata), s.locked, s.server_group_id, s.request_id, fault_text(s), Json(&s.details),
                    s.updated_at, s.launched_at, s.deleted_at, s.details.disk_pool
                ],
            )
            .await?;
        if changed != 1 {
            return Err(StoreError::Stale("server"));
        }
        s.generation += 1;
        Ok(())
    }

    /// A node has removed the shared disks of a server that is gone; `false` if that was known.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_disks_removed(&self, node: NodeId, id: ServerId) -> Result<bool, StoreError> {
        let sql = "UPDATE servers SET disk_pool = NULL
                   WHERE id = $1 AND node_id = $2 AND deleted_at IS NOT NULL AND disk_pool IS NOT NULL";
        Ok(self.exec(sql, params![id, node]).await? == 1)
    }

    /// Forgets on which node servers lived that are gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn servers_gone_detach(&self, node: NodeId) -> Result<u64, StoreError> {
        let sql = "UPDATE servers SET node_id = NULL WHERE node_id = $1 AND deleted_at IS NOT NULL";
        self.exec(sql, params![node]).await
    }

    /// Replaces a server's tags.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_tags_set(&self, server: ServerId, tags: &[String]) -> Result<(), StoreError> {
        self.exec("DELETE FROM server_tags WHERE server_id = $1", params![server]).await?;
        for tag in tags {
            self.server_tag_insert(server, tag).await?;
        }
        Ok(())
    }

    /// Adds a tag; `false` if it is there already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_tag_insert(&self, server: ServerId, tag: &str) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "INSERT INTO server_tags (server_id, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                params![server, tag],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Removes a tag; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_tag_delete(&self, server: ServerId, tag: &str) -> Result<bool, StoreError> {
        let changed =
            self.exec("DELETE FROM server_tags WHERE server_id = $1 AND tag = $2", params![server, tag]).await?;
        Ok(changed == 1)
    }

    /// Forgets servers that have been gone since before `before`; how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_purge(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.exec("DELETE FROM servers WHERE deleted_at IS NOT NULL AND deleted_at < $1", params![before]).await
    }
}

fn fault_text(server: &Server) -> Option<String> {
    server.fault.as_ref().and_then(|f| serde_json::to_string(f).ok())
}
