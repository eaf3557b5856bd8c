//! The plan of a drain or a restoration: for each server a node with its room claimed, or what keeps it where it is.

use super::LivePlace;
use crate::{Engine, EngineError};
use arcus_placement::Amounts;
use arcus_store::{MoveFigures, Node, Relocation, Server, Task, Tx};
use arcus_types::NodeId;
use arcus_types::Timestamp;
use arcus_types::servers::ServerRequest;
use arcus_types::tasks::RelocationState;
use std::collections::HashMap;

/// What is sent in a millisecond while nothing has been measured, in bytes.
const RATE_ASSUMED: u64 = 100_000;
/// How long a guest stands still while nothing has been measured, in milliseconds.
const BLACKOUT_MS_ASSUMED: u64 = 100;
/// How long a move takes beyond sending, in milliseconds: nodes hear of it, disks and machines are made.
const OVERHEAD_MS: u64 = 1_000;
/// So many of the last moves are looked at.
const MEASURED_MAX: u64 = 16;

/// What the last moves tell of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rates {
    /// Bytes a millisecond.
    rate: u64,
    /// What of disks is sent, in bytes; `None` if nothing was measured: then a disk counts whole.
    disk_bytes: Option<u64>,
    blackout_ms: u64,
    /// Of so many moves.
    measured: usize,
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

impl Rates {
    pub(crate) fn of(moves: &[MoveFigures]) -> Self {
        let known: Vec<_> = moves.iter().map(|m| m.figures).filter(|figures| figures.total_ms > 0).collect();
        let rates = known.iter().map(|f| (f.memory_sent + f.disk_sent) / f.total_ms).filter(|rate| *rate > 0).collect();
        Self {
            rate: median(rates).unwrap_or(RATE_ASSUMED),
            disk_bytes: median(known.iter().map(|f| f.disk_sent).collect()),
            blackout_ms: median(known.iter().map(|f| f.downtime_ms).collect()).unwrap_or(BLACKOUT_MS_ASSUMED),
            measured: known.len(),
        }
    }

    /// What is sent in a millisecond, in bytes.
    pub(crate) fn bytes_per_ms(&self) -> u64 {
        self.rate
    }

    /// How long a guest stands still, in milliseconds.
    pub(crate) fn blackout_ms(&self) -> u64 {
        self.blackout_ms
    }

    /// How long a move takes beyond sending, in milliseconds.
    pub(crate) fn overhead_ms(&self) -> u64 {
        OVERHEAD_MS
    }

    /// How many moves tell so.
    pub(crate) fn measured(&self) -> usize {
        self.measured
    }

    /// What is likely to be sent of a disk, in bytes.
    pub(crate) fn disk_bytes(&self, disk_gib: u64) -> u64 {
        let whole = disk_gib.saturating_mul(1 << 30);
        self.disk_bytes.map_or(whole, |bytes| bytes.min(whole))
    }

    /// How long a move should take.
    fn time_ms(&self, memory_mib: u64, disk_gib: u64) -> u64 {
        let bytes = memory_mib.saturating_mul(1 << 20).saturating_add(self.disk_bytes(disk_gib));
        OVERHEAD_MS.saturating_add(bytes / self.rate.max(1))
    }
}

fn row(task: &Task, server: &Server, position: usize, rates: &Rates) -> Relocation {
    Relocation {
        task_id: task.id,
        server_id: server.id,
        position: u64::try_from(position).unwrap_or(u64::MAX),
        name: server.name.to_string(),
        source_id: server.node_id.unwrap_or_default(),
        target_id: None,
        vcpus: server.vcpus,
        memory_mib: server.memory_mib,
        disk_gib: server.disk_gib,
        reserved: false,
        state: RelocationState::Waiting,
        reason: None,
        attempts: 0,
        not_before: Timestamp(0),
        migration_id: None,
        predicted_ms: Some(rates.time_ms(server.memory_mib, server.disk_gib)),
        predicted_blackout_ms: Some(rates.blackout_ms),
        measured_ms: None,
        measured_blackout_ms: None,
    }
}

impl Engine {
    /// Where each server of a node goes.
    pub(super) async fn drain_plan(&self, tx: &Tx, task: &Task, node: &Node) -> Result<Vec<Relocation>, EngineError> {
        let rates = Rates::of(&tx.moves_measured(MEASURED_MAX).await?);
        let mut servers: Vec<Server> = tx.server_list_by_node(node.id).await?;
        // Large ones first: they are the hardest to find room for.
        servers.sort_by_key(|server| (std::cmp::Reverse(server.memory_mib), server.created_at, server.id));
        let mut rows = Vec::with_capacity(servers.len());
        let mut taken = HashMap::new();
        for server in servers.iter().filter(|server| server.deleted_at.is_none()) {
            let planned = row(task, server, rows.len(), &rates);
            rows.push(self.relocation_planned(tx, server, planned, None, &mut taken).await?);
        }
        Ok(rows)
    }

    /// Which of the servers that a drain took away come back.
    pub(super) async fn restore_plan(
        &self,
        tx: &Tx,
        task: &Task,
        node: &Node,
        away: &[Relocation],
    ) -> Result<Vec<Relocation>, EngineError> {
        let rates = Rates::of(&tx.moves_measured(MEASURED_MAX).await?);
        let mut rows = Vec::new();
        let mut taken = HashMap::new();
        for old in away.iter().filter(|old| old.state == RelocationState::Moved) {
            let Some(server) = tx.server_get(old.server_id).await?.filter(|server| server.deleted_at.is_none()) else {
                continue;
            };
            if server.node_id.is_none_or(|now| now == node.id) {
                continue;
            }
            let planned = row(task, &server, rows.len(), &rates);
            rows.push(self.relocation_planned(tx, &server, planned, Some(node.id), &mut taken).await?);
        }
        Ok(rows)
    }

    /// One server of a plan, with its room claimed.
    async fn relocation_planned(
        &self,
        tx: &Tx,
        server: &Server,
        mut row: Relocation,
        only: Option<NodeId>,
        taken: &mut HashMap<NodeId, Amounts>,
    ) -> Result<Relocation, EngineError> {
        if let Err(refused) = ServerRequest::LiveMigrate.admit(server.state, None) {
            row.state = RelocationState::Stays;
            row.reason = Some(format!("it is {}, and only servers that run are moved", refused.value));
            (row.predicted_ms, row.predicted_blackout_ms) = (None, None);
            return Ok(row);
        }
        let place = LivePlace { first: None, only };
        match self.live_room(tx, server, &place, taken).await {
            Ok(target) => {
                let amounts = taken.entry(target).or_default();
                amounts.vcpus += server.vcpus;
                amounts.memory_mib += server.memory_mib;
                amounts.disk_gib += server.disk_gib;
                (row.target_id, row.reserved) = (Some(target), true);
            }
            Err(EngineError::Store(error)) => return Err(error.into()),
            Err(why) => {
                row.state = RelocationState::Blocked;
                row.reason = Some(why.to_string());
                (row.predicted_ms, row.predicted_blackout_ms) = (None, None);
            }
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::MigrationFigures;

    #[test]
    fn a_prediction_follows_from_what_was_measured() {
        let nothing = Rates::of(&[]);
        assert_eq!(nothing.time_ms(100, 0), OVERHEAD_MS + 100 * (1 << 20) / RATE_ASSUMED);
        let figures = MigrationFigures {
            memory_sent: 90_000_000,
            disk_sent: 10_000_000,
            downtime_ms: 7,
            total_ms: 500,
            ..MigrationFigures::default()
        };
        let measured = Rates::of(&[MoveFigures { status: "completed".into(), figures }]);
        assert_eq!((measured.rate, measured.blackout_ms), (200_000, 7));
        assert_eq!(measured.time_ms(0, 1), OVERHEAD_MS + 50);
    }
}
