//! Server groups: which servers shall share a node, or shall not.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{NodeId, ProjectId, Rejected, ServerGroupId, ServerId, Timestamp, UserId};

/// How the servers of a group are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPolicy {
    /// All on one node.
    Affinity,
    /// No more than so many on one node.
    AntiAffinity,
    /// On one node if that is possible.
    SoftAffinity,
    /// On different nodes if that is possible.
    SoftAntiAffinity,
}

impl GroupPolicy {
    /// The word in the database and in the API.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::SoftAffinity => "soft-affinity",
            Self::SoftAntiAffinity => "soft-anti-affinity",
        }
    }
}

impl std::str::FromStr for GroupPolicy {
    type Err = Rejected;
    fn from_str(text: &str) -> Result<Self, Rejected> {
        [Self::Affinity, Self::AntiAffinity, Self::SoftAffinity, Self::SoftAntiAffinity]
            .into_iter()
            .find(|p| p.text() == text)
            .ok_or_else(|| Rejected(format!("'{text}' is not a policy of server groups")))
    }
}

/// A group of servers with a placement rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerGroup {
    /// Its id.
    pub id: ServerGroupId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Its name.
    pub name: String,
    /// How its servers are placed.
    pub policy: GroupPolicy,
    /// For anti-affinity: how many members may share a node.
    pub servers_per_node_max: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, project_id, user_id, name, policy, servers_per_node_max, created_at";

fn group(row: &Row) -> Result<ServerGroup, StoreError> {
    Ok(ServerGroup {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        user_id: row.get("user_id")?,
        name: row.get("name")?,
        policy: row.text("policy")?,
        servers_per_node_max: row.get("servers_per_node_max")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The group with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_group_get(&self, id: ServerGroupId) -> Result<Option<ServerGroup>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM server_groups WHERE id = $1"), params![id]).await?;
        row.as_ref().map(group).transpose()
    }

    /// Groups in the order in which they were made; `project` `None` is all projects.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_group_list(
        &self,
        project: Option<ProjectId>,
        limit: u64,
        offset: u32,
    ) -> Result<Vec<ServerGroup>, StoreError> {
        let mut filter = Where::default();
        if let Some(project) = project {
            filter.and("project_id = ?", params![project]);
        }
        let limit = limit.min(1_000);
        let sql =
            format!("SELECT {COLUMNS} FROM server_groups{} ORDER BY id LIMIT {limit} OFFSET {offset}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(group).collect()
    }

    /// The living servers of these groups, each with its node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_group_members(
        &self,
        groups: &[ServerGroupId],
    ) -> Result<Vec<(ServerGroupId, ServerId, Option<NodeId>)>, StoreError> {
        let mut filter = Where::default();
        filter.and("deleted_at IS NULL", vec![]).and_in("server_group_id", groups.to_vec());
        let sql = format!("SELECT server_group_id, id, node_id FROM servers{} ORDER BY id", filter.sql());
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("server_group_id")?, r.get("id")?, r.opt("node_id")?))).collect()
    }
}

impl Tx {
    /// Records a group.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_group_insert(&self, new: &ServerGroup) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO server_groups (id, project_id, user_id, name, policy, servers_per_node_max, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                new.id,
                new.project_id,
                new.user_id,
                &new.name,
                new.policy.text(),
                new.servers_per_node_max,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Removes a group; its servers stay and belong to none. Two statements: the first frees the servers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_group_delete(&self, id: ServerGroupId) -> Result<bool, StoreError> {
        self.exec(
            "UPDATE servers SET server_group_id = NULL, generation = generation + 1 WHERE server_group_id = $1",
            params![id],
        )
        .await?;
        Ok(self.exec("DELETE FROM server_groups WHERE id = $1", params![id]).await? == 1)
    }
}
