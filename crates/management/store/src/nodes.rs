//! Nodes, their capacity and the tokens that they join with.

use crate::sql::{Json, Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::NodeFacts;
use arcus_types::clusters::Overcommit;
use arcus_types::nodes::NodeState;
use arcus_types::placement::Filling;
use arcus_types::{ClusterId, Name, NodeId, Timestamp};

/// A machine that runs guests.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name, unique in the cloud.
    pub name: Name,
    /// The availability zone that it is in.
    pub availability_zone: String,
    /// The cluster that it is in.
    pub cluster_id: ClusterId,
    /// What may be claimed of it: its cluster's figures.
    pub overcommit: Overcommit,
    /// How its cluster is filled.
    pub filling: Filling,
    /// Whether new servers may be placed on it.
    pub enabled: bool,
    /// Why not, in an operator's words.
    pub disabled_reason: Option<String>,
    /// An administrator's word that it is down, whatever it says itself.
    pub forced_down: bool,
    /// What is held of it.
    pub state: NodeState,
    /// Since when; the epoch if that never changed.
    pub state_at: Timestamp,
    /// Why, in words for an operator.
    pub state_reason: Option<String>,
    /// Whether nothing may be started elsewhere by itself for its being lost: too much was lost at once.
    pub held: bool,
    /// Rises whenever something that the node must bring about changes.
    pub spec_generation: u64,
    /// What it last said of itself.
    pub facts: NodeFacts,
    /// When it was last heard of; the epoch before its first report.
    pub seen_at: Timestamp,
    /// Virtual CPUs that servers may claim, overcommit included.
    pub vcpus_cap: u64,
    /// Virtual CPUs claimed.
    pub vcpus_used: u64,
    /// Memory that servers may claim, in MiB.
    pub memory_mib_cap: u64,
    /// Memory claimed, in MiB.
    pub memory_mib_used: u64,
    /// Disk that servers may claim, in GiB.
    pub disk_gib_cap: u64,
    /// Disk claimed, in GiB.
    pub disk_gib_used: u64,
    /// When it joined.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// A node that joins.
#[derive(Debug, Clone)]
pub struct NodeNew {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: Name,
    /// The availability zone that it is in.
    pub availability_zone: String,
}

/// What is held of a node from now on.
#[derive(Debug, Clone, Copy)]
pub struct NodeStateNew<'a> {
    /// The state.
    pub state: NodeState,
    /// Since when.
    pub at: Timestamp,
    /// Why, in words for an operator.
    pub reason: Option<&'a str>,
    /// Whether nothing may be started elsewhere by itself.
    pub held: bool,
}

pub(crate) const COLUMNS: &str = "id, name, availability_zone, cluster_id, vcpus_percent, memory_percent, disk_percent, filling, enabled, disabled_reason, forced_down, state, state_at, \
     state_reason, held, spec_generation, facts, seen_at, vcpus_cap, vcpus_used, memory_mib_cap, memory_mib_used, disk_gib_cap, disk_gib_used, created_at, updated_at";

/// The figures of a cluster, beside it or beside its nodes.
pub(crate) fn overcommit(row: &Row) -> Result<Overcommit, StoreError> {
    Ok(Overcommit {
        vcpus_percent: row.get("vcpus_percent")?,
        memory_percent: row.get("memory_percent")?,
        disk_percent: row.get("disk_percent")?,
    })
}

/// More of anything a node does not have: what may be claimed of it stays a number of the database.
const QUANTITY_MAX: u64 = 1 << 40;

fn stored(row: &Row) -> Result<Node, StoreError> {
    Ok(Node {
        id: row.get("id")?,
        name: row.get("name")?,
        availability_zone: row.get("availability_zone")?,
        cluster_id: row.opt("cluster_id")?.unwrap_or(ClusterId::DEFAULT),
        overcommit: overcommit(row)?,
        filling: row.text("filling")?,
        enabled: row.get("enabled")?,
        disabled_reason: row.opt("disabled_reason")?,
        forced_down: row.get("forced_down")?,
        state: row.text("state")?,
        state_at: row.get("state_at")?,
        state_reason: row.opt("state_reason")?,
        held: row.get("held")?,
        spec_generation: row.get("spec_generation")?,
        facts: row.json("facts")?,
        seen_at: row.get("seen_at")?,
        vcpus_cap: row.get("vcpus_cap")?,
        vcpus_used: row.get("vcpus_used")?,
        memory_mib_cap: row.get("memory_mib_cap")?,
        memory_mib_used: row.get("memory_mib_used")?,
        disk_gib_cap: row.get("disk_gib_cap")?,
        disk_gib_used: row.get("disk_gib_used")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// A node as it is written, heard of when it was: that is written later.
    pub(crate) fn node(&self, row: &Row) -> Result<Node, StoreError> {
        let mut node = stored(row)?;
        if let Some(heard) = self.presence().of(node.id) {
            // Another replica may have heard of it since.
            node.seen_at = if self.is_postgres() { node.seen_at.max(heard) } else { heard };
        }
        Ok(node)
    }

    /// The node with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_get(&self, id: NodeId) -> Result<Option<Node>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM nodes WHERE id = $1"), params![id]).await?;
        row.as_ref().map(|row| self.node(row)).transpose()
    }

    /// The node with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_by_name(&self, name: &str) -> Result<Option<Node>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM nodes WHERE name = $1"), params![name]).await?;
        row.as_ref().map(|row| self.node(row)).transpose()
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_list(&self) -> Result<Vec<Node>, StoreError> {
        let rows = self.all(format!("SELECT {COLUMNS} FROM nodes ORDER BY name"), vec![]).await?;
        rows.iter().map(|row| self.node(row)).collect()
    }

    /// Nodes by name, at most `limit`, those after `after`; only those of `cluster`, if one is named.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_page(
        &self,
        cluster: Option<ClusterId>,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Node>, StoreError> {
        let mut values = params![after.unwrap_or_default()];
        let mut filter = "";
        if let Some(cluster) = cluster {
            values.extend(params![cluster]);
            filter = "AND cluster_id = $2";
        }
        let sql = format!("SELECT {COLUMNS} FROM nodes WHERE name > $1 {filter} ORDER BY name LIMIT {limit}");
        let rows = self.all(sql, values).await?;
        rows.iter().map(|row| self.node(row)).collect()
    }

    /// What is held of a node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_state(&self, id: NodeId) -> Result<Option<NodeState>, StoreError> {
        let row = self.one("SELECT state FROM nodes WHERE id = $1", params![id]).await?;
        row.map(|r| r.text("state")).transpose()
    }

    /// The generation of what a node must bring about.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_spec_generation(&self, id: NodeId) -> Result<Option<u64>, StoreError> {
        let row = self.one("SELECT spec_generation FROM nodes WHERE id = $1", params![id]).await?;
        row.map(|r| r.get("spec_generation")).transpose()
    }
}

impl Tx {
    /// Records a node that joins, in the default cluster; it can hold nothing until its first report, and does not count as alive before that.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn node_insert(&self, new: &NodeNew) -> Result<(), StoreError> {
        let now = Timestamp::now();
        self.exec(
            "INSERT INTO nodes (id, name, availability_zone, enabled, spec_generation, facts, seen_at, vcpus_cap, vcpus_used,
             memory_mib_cap, memory_mib_used, disk_gib_cap, disk_gib_used, created_at, updated_at)
             VALUES ($1, $2, $3, TRUE, 1, $4, $5, 0, 0, 0, 0, 0, 0, $6, $6)",
            params![new.id, &new.name, &new.availability_zone, Json(&NodeFacts::default()), Timestamp(0), now],
        )
        .await?;
        self.node_cluster_set(new.id, ClusterId::DEFAULT).await?;
        self.exec(
            "INSERT INTO providers (id, name, parent_id, root_id, generation, created_at, updated_at)
             VALUES ($1, $2, NULL, $1, 0, $3, $3)",
            params![new.id, &new.name, now],
        )
        .await?;
        self.provider_changed(new.id.into());
        Ok(())
    }

    /// Says that something which this node must bring about has changed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_touch(&self, id: NodeId) -> Result<(), StoreError> {
        self.exec("UPDATE nodes SET spec_generation = spec_generation + 1 WHERE id = $1", params![id]).await?;
        self.touched_add(&[id]);
        Ok(())
    }

    /// Says the same of every node: for changes whose reach is not known more closely.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_touch_all(&self) -> Result<(), StoreError> {
        self.exec("UPDATE nodes SET spec_generation = spec_generation + 1", vec![]).await?;
        Ok(())
    }

    /// Records what a node said of itself; what may be claimed of it follows from that and from its cluster's figures.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_facts_set(&self, id: NodeId, facts: &NodeFacts) -> Result<(), StoreError> {
        self.exec(
            "UPDATE nodes SET facts = $2, vcpus_total = $3, memory_mib_total = $4, disk_gib_total = $5, seen_at = $6, updated_at = $6,
             vcpus_cap = $3 * vcpus_percent / 100, memory_mib_cap = $4 * memory_percent / 100,
             disk_gib_cap = $5 * disk_percent / 100 WHERE id = $1",
            params![
                id,
                Json(facts),
                u64::from(facts.vcpus),
                facts.memory_mib.min(QUANTITY_MAX),
                facts.disk_gib.min(QUANTITY_MAX),
                Timestamp::now()
            ],
        )
        .await?;
        self.provider_changed(id.into());
        Ok(())
    }

    /// Claims capacity on a node; `false` if it is not there any more, and then nothing is claimed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_claim(&self, id: NodeId, vcpus: u64, memory_mib: u64, disk_gib: u64) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE nodes SET vcpus_used = vcpus_used + $2, memory_mib_used = memory_mib_used + $3,
                 disk_gib_used = disk_gib_used + $4
                 WHERE id = $1 AND enabled AND vcpus_used + $2 <= vcpus_cap AND memory_mib_used + $3 <= memory_mib_cap
                 AND disk_gib_used + $4 <= disk_gib_cap",
                params![id, vcpus, memory_mib, disk_gib],
            )
            .await?;
        self.provider_changed(id.into());
        Ok(changed == 1)
    }

    /// Gives claimed capacity back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_release(&self, id: NodeId, vcpus: u64, memory_mib: u64, disk_gib: u64) -> Result<(), StoreError> {
        self.exec(
            "UPDATE nodes SET vcpus_used = vcpus_used - $2, memory_mib_used = memory_mib_used - $3,
             disk_gib_used = disk_gib_used - $4 WHERE id = $1",
            params![id, vcpus, memory_mib, disk_gib],
        )
        .await?;
        self.provider_changed(id.into());
        Ok(())
    }

    /// Opens or closes a node for new servers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_enable(&self, id: NodeId, enabled: bool, reason: Option<&str>) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE nodes SET enabled = $2, disabled_reason = $3, updated_at = $4 WHERE id = $1",
                params![id, enabled, reason, Timestamp::now()],
            )
            .await?;
        self.provider_changed(id.into());
        Ok(changed == 1)
    }

    /// Moves a node from one state to another; `false` if it is not in the first one any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_state_set(&self, id: NodeId, from: NodeState, to: &NodeStateNew<'_>) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE nodes SET state = $3, state_at = $4, state_reason = $5, held = $6, forced_down = $7, updated_at = $4
                 WHERE id = $1 AND state = $2",
                params![
                    id,
                    from.text(),
                    to.state.text(),
                    to.at,
                    to.reason,
                    to.held,
                    to.state == NodeState::Dead
                ],
            )
            .await?;
        self.provider_changed(id.into());
        Ok(changed == 1)
    }

    /// Forgets a node that holds nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`], also if something still refers to it.
    pub async fn node_delete(&self, id: NodeId) -> Result<bool, StoreError> {
        self.provider_delete(id.into()).await?;
        Ok(self.exec("DELETE FROM nodes WHERE id = $1", params![id]).await? == 1)
    }

    /// Records a join token by its hash.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn join_token_insert(&self, hash: &str, uses: u64, expires_at: Timestamp) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO join_tokens (token_hash, uses_left, expires_at) VALUES ($1, $2, $3)",
            params![hash, uses, expires_at],
        )
        .await?;
        Ok(())
    }

    /// Uses a join token once; `false` if it is unknown, used up or too old.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn join_token_use(&self, hash: &str, now: Timestamp) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE join_tokens SET uses_left = uses_left - 1
                 WHERE token_hash = $1 AND uses_left > 0 AND expires_at > $2",
                params![hash, now],
            )
            .await?;
        Ok(changed == 1)
    }
}
