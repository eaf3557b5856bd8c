//! The history of servers that went to other nodes or got other flavors.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{MigrationId, ProjectId, ServerId, Timestamp, UserId};

/// A server's way to another node or flavor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMigration {
    /// Its id.
    pub id: MigrationId,
    /// Its number, by which the compute API calls it; given on insertion.
    pub number: u64,
    /// The server.
    pub server_id: ServerId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who asked.
    pub user_id: Option<UserId>,
    /// `resize`, `migration`, `live-migration` or `evacuation`.
    pub kind: String,
    /// How far it is, in the compute API's words.
    pub status: String,
    /// The name of the node that it came from.
    pub source_node: String,
    /// The name of the node that it goes to.
    pub dest_node: String,
    /// The id of the flavor that it had.
    pub old_flavor: String,
    /// The id of the flavor that it gets.
    pub new_flavor: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, number, server_id, project_id, user_id, kind, status, source_node, dest_node, old_flavor, \
     new_flavor, created_at, updated_at";

fn migration(row: &Row) -> Result<ServerMigration, StoreError> {
    Ok(ServerMigration {
        id: row.get("id")?,
        number: row.get("number")?,
        server_id: row.get("server_id")?,
        project_id: row.get("project_id")?,
        user_id: row.opt("user_id")?,
        kind: row.get("kind")?,
        status: row.get("status")?,
        source_node: row.get("source_node")?,
        dest_node: row.get("dest_node")?,
        old_flavor: row.get("old_flavor")?,
        new_flavor: row.get("new_flavor")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

/// Which migrations a list holds; the newest comes first.
#[derive(Debug, Clone, Default)]
pub struct ServerMigrationFilter {
    /// Of this server.
    pub server_id: Option<ServerId>,
    /// Of this project.
    pub project_id: Option<ProjectId>,
    /// Asked for by this user.
    pub user_id: Option<UserId>,
    /// Of this kind.
    pub kind: Option<String>,
    /// With this status.
    pub status: Option<String>,
    /// From or to this node.
    pub node: Option<String>,
    /// From this node.
    pub source_node: Option<String>,
    /// Changed at or after.
    pub changes_since: Option<Timestamp>,
    /// Changed at or before.
    pub changes_before: Option<Timestamp>,
    /// The number of the migration after which the page begins.
    pub marker: Option<u64>,
    /// At most so many rows.
    pub limit: u64,
}

impl Db {
    /// Migrations, the newest first, at most `limit + 1`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_migration_list(
        &self,
        wanted: &ServerMigrationFilter,
    ) -> Result<Vec<ServerMigration>, StoreError> {
        let mut filter = Where::default();
        if let Some(server) = wanted.server_id {
            filter.and("server_id = ?", params![server]);
        }
        if let Some(project) = wanted.project_id {
            filter.and("project_id = ?", params![project]);
        }
        if let Some(user) = wanted.user_id {
            filter.and("user_id = ?", params![user]);
        }
        for (column, value) in
            [("kind", &wanted.kind), ("status", &wanted.status), ("source_node", &wanted.source_node)]
        {
            if let Some(value) = value {
                filter.and(&format!("{column} = ?"), params![value]);
            }
        }
        if let Some(node) = &wanted.node {
            filter.and("(source_node = ? OR dest_node = ?)", params![node, node]);
        }
        if let Some(at) = wanted.changes_since {
            filter.and("updated_at >= ?", params![at]);
        }
        if let Some(at) = wanted.changes_before {
            filter.and("updated_at <= ?", params![at]);
        }
        if let Some(marker) = wanted.marker {
            filter.and("number < ?", params![marker]);
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM server_migrations{} ORDER BY number DESC LIMIT {}",
            filter.sql(),
            wanted.limit.saturating_add(1).min(10_000)
        );
        self.all(sql, filter.params).await?.iter().map(migration).collect()
    }

    /// The migration with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_migration_get(&self, id: MigrationId) -> Result<Option<ServerMigration>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM server_migrations WHERE id = $1"), params![id]).await?;
        row.as_ref().map(migration).transpose()
    }
}

impl Tx {
    /// Records a migration and gives it its number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_migration_insert(&self, new: &ServerMigration) -> Result<(), StoreError> {
        if self.is_postgres() {
            // Numbers are given one after the other; SQLite has one writer anyway.
            self.exec("LOCK TABLE server_migrations IN SHARE ROW EXCLUSIVE MODE", vec![]).await?;
        }
        self.exec(
            "INSERT INTO server_migrations (id, number, server_id, project_id, user_id, kind, status, source_node,
             dest_node, old_flavor, new_flavor, created_at, updated_at)
             VALUES ($1, (SELECT COALESCE(MAX(number), 0) + 1 FROM server_migrations), $2, $3, $4, $5, $6, $7, $8, $9,
             $10, $11, $11)",
            params![
                new.id,
                new.server_id,
                new.project_id,
                new.user_id,
                &new.kind,
                &new.status,
                &new.source_node,
                &new.dest_node,
                &new.old_flavor,
                &new.new_flavor,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Notes how far the newest migration of a server is. Nothing happens if it has none.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_migration_moved(
        &self,
        server: ServerId,
        status: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.exec(
            "UPDATE server_migrations SET status = $2, updated_at = $3
             WHERE number = (SELECT MAX(number) FROM server_migrations WHERE server_id = $1)",
            params![server, status, at],
        )
        .await?;
        Ok(())
    }
}
