//! Servers that are taken from one node to another together, each with the room that is kept for it.

use crate::sql::{Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::MigrationFigures;
use arcus_types::tasks::RelocationState;
use arcus_types::{MigrationId, NodeId, ServerId, TaskId, Timestamp};

/// A server of a drain or a restoration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// The task that it belongs to.
    pub task_id: TaskId,
    /// The server.
    pub server_id: ServerId,
    /// Its turn, from 0.
    pub position: u64,
    /// What it was called.
    pub name: String,
    /// The node that it leaves.
    pub source_id: NodeId,
    /// The node that it goes to.
    pub target_id: Option<NodeId>,
    /// Virtual CPUs that it has claimed.
    pub vcpus: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Disk, in GiB.
    pub disk_gib: u64,
    /// Whether that much is claimed of the target by this row.
    pub reserved: bool,
    /// How far it is.
    pub state: RelocationState,
    /// Why it is so, in words for an operator.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// It is not tried again before.
    pub not_before: Timestamp,
    /// The move that is under way, or was the last.
    pub migration_id: Option<MigrationId>,
    /// How long its move should take, in milliseconds.
    pub predicted_ms: Option<u64>,
    /// How long it should stand still, in milliseconds.
    pub predicted_blackout_ms: Option<u64>,
    /// How long its move took, in milliseconds.
    pub measured_ms: Option<u64>,
    /// How long it stood still, in milliseconds.
    pub measured_blackout_ms: Option<u64>,
}

/// How a move went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveFigures {
    /// `completed`, `failed` or another word of the compute API's.
    pub status: String,
    /// What was measured; nothing for one that never began.
    pub figures: MigrationFigures,
}

const COLUMNS: &str = "task_id, server_id, position, name, source_id, target_id, vcpus, memory_mib, disk_gib, reserved, \
     state, reason, attempts, not_before, migration_id, predicted_ms, predicted_blackout_ms, measured_ms, measured_blackout_ms";

fn relocation(row: &Row) -> Result<Relocation, StoreError> {
    Ok(Relocation {
        task_id: row.get("task_id")?,
        server_id: row.get("server_id")?,
        position: row.get("position")?,
        name: row.get("name")?,
        source_id: row.get("source_id")?,
        target_id: row.opt("target_id")?,
        vcpus: row.get("vcpus")?,
        memory_mib: row.get("memory_mib")?,
        disk_gib: row.get("disk_gib")?,
        reserved: row.get("reserved")?,
        state: row.text("state")?,
        reason: row.opt("reason")?,
        attempts: row.get("attempts")?,
        not_before: row.get("not_before")?,
        migration_id: row.opt("migration_id")?,
        predicted_ms: row.opt("predicted_ms")?,
        predicted_blackout_ms: row.opt("predicted_blackout_ms")?,
        measured_ms: row.opt("measured_ms")?,
        measured_blackout_ms: row.opt("measured_blackout_ms")?,
    })
}

fn figures(row: &Row) -> Result<MoveFigures, StoreError> {
    let figures = row.opt::<crate::sql::Json<MigrationFigures>>("outcome")?.map(|json| json.0).unwrap_or_default();
    Ok(MoveFigures { status: row.get("status")?, figures })
}

impl Db {
    /// The servers of a drain or a restoration, in their order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn relocation_list(&self, task: TaskId) -> Result<Vec<Relocation>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM relocations WHERE task_id = $1 ORDER BY position");
        self.all(sql, params![task]).await?.iter().map(relocation).collect()
    }

    /// How the newest live migrations went that completed, the last one first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn moves_measured(&self, limit: u64) -> Result<Vec<MoveFigures>, StoreError> {
        let sql = format!(
            "SELECT status, outcome FROM server_migrations WHERE outcome IS NOT NULL AND status = 'completed'
             ORDER BY number DESC LIMIT {}",
            limit.min(1_000)
        );
        self.all(sql, vec![]).await?.iter().map(figures).collect()
    }

    /// How a move went, or how far it is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn move_figures(&self, id: MigrationId) -> Result<Option<MoveFigures>, StoreError> {
        let row = self.one("SELECT status, outcome FROM server_migrations WHERE id = $1", params![id]).await?;
        row.as_ref().map(figures).transpose()
    }
}

impl Tx {
    /// Records a server of a drain or a restoration; what it says of room has been claimed.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`].
    pub async fn relocation_insert(&self, new: &Relocation) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO relocations ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
                 $16, $17, $18, $19)"
            ),
            params![
                new.task_id,
                new.server_id,
                new.position,
                &new.name,
                new.source_id,
                new.target_id,
                new.vcpus,
                new.memory_mib,
                new.disk_gib,
                new.reserved,
                new.state.text(),
                &new.reason,
                new.attempts,
                new.not_before,
                new.migration_id,
                new.predicted_ms,
                new.predicted_blackout_ms,
                new.measured_ms,
                new.measured_blackout_ms
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a server of a drain or a restoration. The caller holds the task's row.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn relocation_update(&self, row: &Relocation) -> Result<(), StoreError> {
        self.exec(
            "UPDATE relocations SET target_id = $3, reserved = $4, state = $5, reason = $6, attempts = $7, not_before = $8,
             migration_id = $9, measured_ms = $10, measured_blackout_ms = $11 WHERE task_id = $1 AND server_id = $2",
            params![
                row.task_id,
                row.server_id,
                row.target_id,
                row.reserved,
                row.state.text(),
                &row.reason,
                row.attempts,
                row.not_before,
                row.migration_id,
                row.measured_ms,
                row.measured_blackout_ms
            ],
        )
        .await?;
        Ok(())
    }
}
