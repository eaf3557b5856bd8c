//! Servers that go to another node while they run: what is under way. What is over is in `server_migrations`.

use crate::sql::{Json, Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::{FlowSpec, MachineLayout, MigrationFigures, MigrationPlace};
use arcus_types::{MacAddr, MigrationId, NetworkId, NodeId, PortId, ServerId, Timestamp};
use serde::{Deserialize, Serialize};

/// A server on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveMigration {
    /// Its id, also in the history.
    pub id: MigrationId,
    /// The server.
    pub server_id: ServerId,
    /// The node that it leaves.
    pub source_id: NodeId,
    /// The node that it goes to.
    pub dest_id: NodeId,
    /// What both nodes have, in hexadecimal.
    pub key: String,
    /// Virtual CPUs claimed of the destination.
    pub vcpus: u64,
    /// Memory claimed, in MiB.
    pub memory_mib: u64,
    /// Disk claimed, in GiB.
    pub disk_gib: u64,
    /// How far it is.
    pub progress: LiveProgress,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// How far a live migration is: what was asked and what its two nodes have said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LiveProgress {
    /// How long the guest may stand still, in milliseconds.
    pub downtime_ms_max: u32,
    /// Never let it stand still for longer than that.
    pub downtime_strict: bool,
    /// Let it stand still for as long as it takes.
    pub force: bool,
    /// Give up then.
    pub deadline: Option<Timestamp>,
    /// It was given up because that has passed.
    pub overdue: bool,
    /// Give up if that is still possible.
    pub cancel: bool,
    /// What the guest's machine looks like: the source has said it.
    pub layout: Option<MachineLayout>,
    /// Where the destination's machine waits.
    pub place: Option<MigrationPlace>,
    /// The source has so little left that the guest may stand still for it.
    pub ready: bool,
    /// The destination keeps packets for the guest.
    pub open: bool,
    /// The guest stands still, or has been sent whole.
    pub switching: bool,
    /// The source has sent all of it.
    pub moved: bool,
    /// The guest's process at the source is gone.
    pub gone: bool,
    /// The destination has it.
    pub arrived: bool,
    /// Why the destination cannot have it.
    pub lost: Option<String>,
    /// The destination shall give up: the source is down.
    pub give_up: bool,
    /// What has been sent.
    pub figures: MigrationFigures,
    /// The guest's connections.
    pub flows: Vec<FlowSpec>,
}

/// A port whose server is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMoving {
    /// The port.
    pub port_id: PortId,
    /// Its network.
    pub network_id: NetworkId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The node that its server leaves.
    pub source_id: NodeId,
    /// The node that its server goes to.
    pub dest_id: NodeId,
    /// Whether the destination shall keep packets for it.
    pub ready: bool,
    /// Its connections.
    pub flows: Vec<FlowSpec>,
}

const COLUMNS: &str = "migration_id, server_id, source_id, dest_id, key, vcpus, memory_mib, disk_gib, progress, created_at, \
     updated_at";

fn live(row: &Row) -> Result<LiveMigration, StoreError> {
    Ok(LiveMigration {
        id: row.get("migration_id")?,
        server_id: row.get("server_id")?,
        source_id: row.get("source_id")?,
        dest_id: row.get("dest_id")?,
        key: row.get("key")?,
        vcpus: row.get("vcpus")?,
        memory_mib: row.get("memory_mib")?,
        disk_gib: row.get("disk_gib")?,
        progress: row.json("progress")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The live migrations that a node takes part in.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_migration_list_by_node(&self, node: NodeId) -> Result<Vec<LiveMigration>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM live_migrations WHERE source_id = $1 OR dest_id = $1 ORDER BY migration_id");
        self.all(sql, params![node]).await?.iter().map(live).collect()
    }

    /// All live migrations.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_migration_list(&self) -> Result<Vec<LiveMigration>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM live_migrations ORDER BY migration_id");
        self.all(sql, vec![]).await?.iter().map(live).collect()
    }

    /// The live migration of a server.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_migration_of(&self, server: ServerId) -> Result<Option<LiveMigration>, StoreError> {
        let row =
            self.one(format!("SELECT {COLUMNS} FROM live_migrations WHERE server_id = $1"), params![server]).await?;
        row.as_ref().map(live).transpose()
    }

    /// The ports of all servers that are on their way: few, however many ports there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ports_moving(&self) -> Result<Vec<PortMoving>, StoreError> {
        let rows = self
            .all(
                "SELECT p.id, p.network_id, p.mac, m.source_id, m.dest_id, m.progress
                 FROM live_migrations m JOIN ports p ON p.server_id = m.server_id ORDER BY p.id",
                vec![],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let progress: LiveProgress = row.json("progress")?;
                let port_id: PortId = row.get("id")?;
                Ok(PortMoving {
                    port_id,
                    flows: progress.flows.into_iter().filter(|flow| flow.port == port_id).collect(),
                    network_id: row.get("network_id")?,
                    mac: row.get("mac")?,
                    source_id: row.get("source_id")?,
                    dest_id: row.get("dest_id")?,
                    ready: progress.ready,
                })
            })
            .collect()
    }
}

impl Tx {
    /// Records a live migration; its entry in the history exists.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the server is on its way already.
    pub async fn live_migration_insert(&self, new: &LiveMigration) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO live_migrations (migration_id, server_id, source_id, dest_id, key, vcpus, memory_mib, disk_gib,
             progress, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
            params![
                new.id,
                new.server_id,
                new.source_id,
                new.dest_id,
                &new.key,
                new.vcpus,
                new.memory_mib,
                new.disk_gib,
                Json(&new.progress),
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes how far a live migration is, also into the history, where `status` is the compute API's word for it. The
    /// caller holds the server's row.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_migration_update(&self, live: &LiveMigration, status: &str) -> Result<(), StoreError> {
        let now = Timestamp::now();
        self.exec(
            "UPDATE live_migrations SET progress = $2, updated_at = $3 WHERE migration_id = $1",
            params![live.id, Json(&live.progress), now],
        )
        .await?;
        self.exec(
            "UPDATE server_migrations SET status = $2, updated_at = $3 WHERE id = $1 AND status <> $2",
            params![live.id, status, now],
        )
        .await?;
        Ok(())
    }

    /// Forgets a live migration and writes its end into the history; `false` if it was over already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn live_migration_end(
        &self,
        live: &LiveMigration,
        status: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let gone = self.exec("DELETE FROM live_migrations WHERE migration_id = $1", params![live.id]).await?;
        if gone == 0 {
            return Ok(false);
        }
        self.exec(
            "UPDATE server_migrations SET status = $2, outcome = $3, updated_at = $4 WHERE id = $1",
            params![live.id, status, Json(&live.progress.figures), at],
        )
        .await?;
        Ok(true)
    }

    /// Binds a server's ports to another node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ports_rebind(&self, server: ServerId, node: NodeId) -> Result<(), StoreError> {
        self.exec(
            "UPDATE ports SET node_id = $2, revision = revision + 1, updated_at = $3 WHERE server_id = $1",
            params![server, node, Timestamp::now()],
        )
        .await?;
        Ok(())
    }
}
