//! Clusters: nodes whose guests can move between them. A cluster's figures stand beside each of its nodes, too: see
//! [`Tx::cluster_update`].

use crate::nodes::{self, overcommit};
use crate::sql::{Row, params};
use crate::{Db, Node, Store, StoreError, Tx};
use arcus_types::clusters::Overcommit;
use arcus_types::placement::Filling;
use arcus_types::{ClusterId, NodeId, Timestamp};

/// The zone of the default cluster of a new cloud.
const DEFAULT_ZONE: &str = "nova";

/// A set of nodes between which guests move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name, unique in the cloud.
    pub name: String,
    /// The zone of its nodes, unless an aggregate puts them elsewhere.
    pub zone: String,
    /// In an operator's words.
    pub description: String,
    /// What may be claimed of its nodes.
    pub overcommit: Overcommit,
    /// Which node is taken first.
    pub filling: Filling,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// What the nodes of a cluster have, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterUse {
    /// How many there are.
    pub nodes: u64,
    /// Virtual CPUs that may be claimed, and that are.
    pub vcpus: (u64, u64),
    /// Memory that may be claimed, and that is, in MiB.
    pub memory_mib: (u64, u64),
    /// Disk that may be claimed, and that is, in GiB.
    pub disk_gib: (u64, u64),
}

const COLUMNS: &str =
    "id, name, zone, description, vcpus_percent, memory_percent, disk_percent, filling, created_at, updated_at";

fn cluster(row: &Row) -> Result<Cluster, StoreError> {
    Ok(Cluster {
        id: row.get("id")?,
        name: row.get("name")?,
        zone: row.get("zone")?,
        description: row.get("description")?,
        overcommit: overcommit(row)?,
        filling: row.text("filling")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Store {
    /// Makes the default cluster where there is none, and puts nodes into it that are in none.
    pub(crate) async fn cluster_default_ensure(&self) -> Result<(), StoreError> {
        if self.cluster_get(ClusterId::DEFAULT).await?.is_some() {
            return Ok(());
        }
        let (tx, now) = (self.begin_unaudited().await?, Timestamp::now());
        tx.cluster_insert(&Cluster {
            id: ClusterId::DEFAULT,
            name: "default".to_owned(),
            zone: DEFAULT_ZONE.to_owned(),
            description: "Takes nodes that name no cluster.".to_owned(),
            overcommit: Overcommit::default(),
            filling: Filling::default(),
            created_at: now,
            updated_at: now,
        })
        .await?;
        let sql = "UPDATE nodes SET cluster_id = $1 WHERE cluster_id IS NULL";
        tx.exec(sql, params![ClusterId::DEFAULT]).await?;
        tx.commit().await
    }
}

impl Db {
    /// Clusters by name, at most `limit`, those after `after`; only the one called `name`, if one is named.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_page(
        &self,
        name: Option<&str>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Cluster>, StoreError> {
        let named = if name.is_some() { "AND name = $2" } else { "" };
        let sql = format!("SELECT {COLUMNS} FROM clusters WHERE name > $1 {named} ORDER BY name LIMIT {limit}");
        let mut values = params![after.unwrap_or_default()];
        if let Some(name) = name {
            values.extend(params![name]);
        }
        self.all(sql, values).await?.iter().map(cluster).collect()
    }

    /// What the nodes of these clusters have; clusters without nodes are left out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_uses(&self, ids: &[ClusterId]) -> Result<Vec<(ClusterId, ClusterUse)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = crate::sql::Where::default();
        filter.and_in("cluster_id", ids.to_vec());
        // PostgreSQL adds BIGINTs up to a NUMERIC.
        let sum = |column: &str| format!("CAST(SUM({column}) AS BIGINT) AS {column}");
        let names = ["vcpus_cap", "vcpus_used", "memory_mib_cap", "memory_mib_used", "disk_gib_cap", "disk_gib_used"];
        let sums: Vec<String> = names.iter().map(|name| sum(name)).collect();
        let sql = format!(
            "SELECT cluster_id, COUNT(*) AS nodes, {} FROM nodes{} GROUP BY cluster_id",
            sums.join(", "),
            filter.sql()
        );
        let used = |row: &Row| {
            let both = |cap: &str, used: &str| Ok::<_, StoreError>((row.get(cap)?, row.get(used)?));
            let figures = ClusterUse {
                nodes: row.get("nodes")?,
                vcpus: both("vcpus_cap", "vcpus_used")?,
                memory_mib: both("memory_mib_cap", "memory_mib_used")?,
                disk_gib: both("disk_gib_cap", "disk_gib_used")?,
            };
            Ok((row.get("cluster_id")?, figures))
        };
        self.all(sql, filter.params).await?.iter().map(used).collect()
    }

    /// The cluster with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_get(&self, id: ClusterId) -> Result<Option<Cluster>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM clusters WHERE id = $1"), params![id]).await?;
        row.as_ref().map(cluster).transpose()
    }

    /// The nodes of a cluster, by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_nodes(&self, id: ClusterId) -> Result<Vec<Node>, StoreError> {
        let sql = format!("SELECT {} FROM nodes WHERE cluster_id = $1 ORDER BY name", nodes::COLUMNS);
        self.all(sql, params![id]).await?.iter().map(|row| self.node(row)).collect()
    }
}

impl Tx {
    /// The cluster with this id, which nobody else changes until the end of this transaction.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_hold(&self, id: ClusterId) -> Result<Option<Cluster>, StoreError> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {COLUMNS} FROM clusters WHERE id = $1{lock}"), params![id]).await?;
        row.as_ref().map(cluster).transpose()
    }

    /// Records a cluster.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn cluster_insert(&self, new: &Cluster) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO clusters (id, name, zone, description, vcpus_percent, memory_percent, disk_percent, filling, created_at,
             updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
            params![
                new.id,
                &new.name,
                &new.zone,
                &new.description,
                new.overcommit.vcpus_percent,
                new.overcommit.memory_percent,
                new.overcommit.disk_percent,
                new.filling.text(),
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a cluster back, and what follows from it for its nodes: what may be claimed of each and how it is filled. What is
    /// claimed stays, even if it is more than that. Three statements; the caller holds the cluster.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn cluster_update(&self, changed: &Cluster) -> Result<(), StoreError> {
        let figures = &changed.overcommit;
        let (vcpus, memory, disk) = (figures.vcpus_percent, figures.memory_percent, figures.disk_percent);
        self.exec(
            "UPDATE clusters SET name = $2, zone = $3, description = $4, vcpus_percent = $5, memory_percent = $6,
             disk_percent = $7, filling = $8, updated_at = $9 WHERE id = $1",
            params![
                changed.id,
                &changed.name,
                &changed.zone,
                &changed.description,
                vcpus,
                memory,
                disk,
                changed.filling.text(),
                changed.updated_at
            ],
        )
        .await?;
        for row in self.all("SELECT id FROM nodes WHERE cluster_id = $1", params![changed.id]).await? {
            let id: NodeId = row.get("id")?;
            self.provider_changed(id.into());
        }
        let sql = node_figures("cluster_id = $1 AND vcpus_total > 0");
        self.exec(sql, params![changed.id, vcpus, memory, disk, changed.filling.text()]).await?;
        let sql = "UPDATE nodes SET vcpus_percent = $2, memory_percent = $3, disk_percent = $4, filling = $5
                   WHERE cluster_id = $1 AND vcpus_total = 0";
        self.exec(sql, params![changed.id, vcpus, memory, disk, changed.filling.text()]).await?;
        Ok(())
    }

    /// Forgets a cluster; `false` if there is none, or it has nodes. The caller holds it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn cluster_delete(&self, id: ClusterId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM clusters WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM nodes WHERE cluster_id = $1)";
        Ok(self.exec(sql, params![id]).await? == 1)
    }

    /// Puts a node into a cluster, with what follows from its figures; `false` if one of the two is not there. Holds the cluster.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_cluster_set(&self, node: NodeId, id: ClusterId) -> Result<bool, StoreError> {
        let Some(cluster) = self.cluster_hold(id).await? else { return Ok(false) };
        let figures = &cluster.overcommit;
        let sql = node_figures("id = $1");
        let filling = cluster.filling.text();
        let values = params![node, figures.vcpus_percent, figures.memory_percent, figures.disk_percent, filling];
        self.exec(sql, values).await?;
        let sql = "UPDATE nodes SET cluster_id = $2, updated_at = $3 WHERE id = $1";
        let changed = self.exec(sql, params![node, id, Timestamp::now()]).await?;
        self.provider_changed(node.into());
        Ok(changed == 1)
    }
}

/// Gives nodes a cluster's figures. One statement, so that neither a report nor a claim comes in between.
fn node_figures(which: &str) -> String {
    format!(
        "UPDATE nodes SET vcpus_percent = $2, memory_percent = $3, disk_percent = $4, filling = $5,
         vcpus_cap = vcpus_total * $2 / 100, memory_mib_cap = memory_mib_total * $3 / 100,
         disk_gib_cap = disk_gib_total * $4 / 100 WHERE {which}"
    )
}
