//! What is in the pools, and what went wrong there.

use crate::sql::{Json, Row, Where, params};
use crate::volumes::VolumeFault;
use crate::{Db, StoreError};
use arcus_types::{NodeId, ProjectId, RequestId, VolumeId};
use std::collections::HashMap;

/// What a project has in one node's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShare {
    /// The project.
    pub project_id: ProjectId,
    /// Volumes.
    pub volumes: u64,
    /// Their size together, in GiB.
    pub volume_gibs: u64,
    /// Snapshots of them.
    pub snapshots: u64,
    /// Their size together, in GiB.
    pub snapshot_gibs: u64,
}

/// A volume with which something went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyVolume {
    /// The volume.
    pub id: VolumeId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// What went wrong.
    pub fault: VolumeFault,
    /// The request that made the volume.
    pub request_id: Option<RequestId>,
}

impl Db {
    /// Who has how much in a node's pool.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_pool_shares(&self, node: NodeId) -> Result<Vec<PoolShare>, StoreError> {
        let rows = self
            .all(
                "SELECT v.project_id AS project_id, COUNT(*) AS volumes,
                 CAST(COALESCE(SUM(v.size_gib), 0) AS BIGINT) AS gibs
                 FROM volumes v WHERE v.node_id = $1 GROUP BY v.project_id ORDER BY v.project_id LIMIT 10000",
                params![node],
            )
            .await?;
        let snapshots = self
            .all(
                "SELECT v.project_id AS project_id, COUNT(*) AS snapshots,
                 CAST(COALESCE(SUM(s.size_gib), 0) AS BIGINT) AS gibs
                 FROM volume_snapshots s JOIN volumes v ON v.id = s.volume_id WHERE v.node_id = $1
                 GROUP BY v.project_id LIMIT 10000",
                params![node],
            )
            .await?;
        let mut held: HashMap<ProjectId, (u64, u64)> = HashMap::new();
        for row in &snapshots {
            held.insert(row.get("project_id")?, (row.get("snapshots")?, row.get("gibs")?));
        }
        rows.iter()
            .map(|row| {
                let project_id = row.get("project_id")?;
                let (snapshots, snapshot_gibs) = held.get(&project_id).copied().unwrap_or_default();
                let (volumes, volume_gibs) = (row.get("volumes")?, row.get("gibs")?);
                Ok(PoolShare { project_id, volumes, volume_gibs, snapshots, snapshot_gibs })
            })
            .collect()
    }

    /// How many volumes each node's pool holds, and their size together in GiB.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_count_by_node(&self) -> Result<HashMap<NodeId, (u64, u64)>, StoreError> {
        let sql = "SELECT node_id, COUNT(*) AS n, CAST(COALESCE(SUM(size_gib), 0) AS BIGINT) AS gibs FROM volumes
             WHERE node_id IS NOT NULL GROUP BY node_id";
        let rows = self.all(sql, vec![]).await?;
        rows.iter().map(|r| Ok((r.get("node_id")?, (r.get("n")?, r.get("gibs")?)))).collect()
    }

    /// Volumes with which something went wrong, by id downwards, at most `limit + 1`; of one project, or of all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_faults(
        &self,
        project: Option<ProjectId>,
        only: Option<VolumeId>,
        marker: Option<VolumeId>,
        limit: u64,
    ) -> Result<Vec<FaultyVolume>, StoreError> {
        let mut filter = Where::default();
        filter.and("fault IS NOT NULL", vec![]);
        if let Some(project) = project {
            filter.and("project_id = ?", params![project]);
        }
        if let Some(id) = only {
            filter.and("id = ?", params![id]);
        }
        if let Some(marker) = marker {
            filter.and("id < ?", params![marker]);
        }
        let limit = limit.saturating_add(1).min(2_000);
        let sql = format!("SELECT id, project_id, fault FROM volumes{} ORDER BY id DESC LIMIT {limit}", filter.sql());
        let mut found = self.all(sql, filter.params).await?.iter().map(faulty).collect::<Result<Vec<_>, _>>()?;
        let requests = self.first_requests(&found).await?;
        for volume in &mut found {
            volume.request_id = requests.get(&volume.id.to_string()).copied();
        }
        Ok(found)
    }

    /// The requests that made these volumes, by the volume's id.
    async fn first_requests(&self, volumes: &[FaultyVolume]) -> Result<HashMap<String, RequestId>, StoreError> {
        let mut filter = Where::default();
        filter.and("a.target_kind = 'volume'", vec![]);
        filter.and_in("a.target_id", volumes.iter().map(|v| v.id.to_string()).collect());
        let sql = format!(
            "SELECT a.target_id AS target_id, a.request_id AS request_id FROM audit_events a{} AND a.at = (SELECT MIN(b.at)
             FROM audit_events b WHERE b.target_kind = a.target_kind AND b.target_id = a.target_id)",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("target_id")?, r.get("request_id")?))).collect()
    }
}

fn faulty(row: &Row) -> Result<FaultyVolume, StoreError> {
    let fault = row.get::<Json<VolumeFault>>("fault")?.0;
    Ok(FaultyVolume { id: row.get("id")?, project_id: row.get("project_id")?, fault, request_id: None })
}
