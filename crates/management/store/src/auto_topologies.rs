//! What a project got that asked for no more than any network: a network behind a router.

use crate::sql::params;
use crate::{Db, StoreError, Tx};
use arcus_types::{NetworkId, ProjectId, RouterId, SubnetPoolId};

impl Db {
    /// The network and router that a project has got.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn auto_topology_get(&self, project: ProjectId) -> Result<Option<(NetworkId, RouterId)>, StoreError> {
        let row = self
            .one("SELECT network_id, router_id FROM auto_topologies WHERE project_id = $1", params![project])
            .await?;
        row.map(|r| Ok((r.get("network_id")?, r.get("router_id")?))).transpose()
    }

    /// The external network to take where none is named.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_external_default(&self) -> Result<Option<NetworkId>, StoreError> {
        let row = self.one("SELECT id FROM networks WHERE external AND is_default ORDER BY id", params![]).await?;
        row.map(|r| r.get("id")).transpose()
    }

    /// The subnet pools to take where none is named, one of an IP version at most.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_pools_default(&self) -> Result<Vec<(u32, SubnetPoolId)>, StoreError> {
        let rows = self
            .all("SELECT ip_version, id FROM subnet_pools WHERE is_default ORDER BY ip_version, id", params![])
            .await?;
        rows.iter().map(|r| Ok((r.get("ip_version")?, r.get("id")?))).collect()
    }
}

impl Tx {
    /// Records what a project has got; `false` if it has got something meanwhile, and then nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the network or router is gone.
    pub async fn auto_topology_insert(
        &self,
        project: ProjectId,
        network: NetworkId,
        router: RouterId,
    ) -> Result<bool, StoreError> {
        let sql = "INSERT INTO auto_topologies (project_id, network_id, router_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![project, network, router]).await? == 1)
    }

    /// Forgets what a project has got.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn auto_topology_delete(&self, project: ProjectId) -> Result<(), StoreError> {
        self.exec("DELETE FROM auto_topologies WHERE project_id = $1", params![project]).await?;
        Ok(())
    }
}
