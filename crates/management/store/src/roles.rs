//! Roles.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{Name, RoleId, Timestamp};

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleEntry {
    /// Its id.
    pub id: RoleId,
    /// Its name, unique in the cloud.
    pub name: Name,
    /// What it is for.
    pub description: Option<String>,
    /// Whether the policy table knows it: then it is neither renamed nor deleted.
    pub builtin: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which roles to list.
#[derive(Debug, Clone, Default)]
pub struct RoleFilter {
    /// With this name.
    pub name: Option<String>,
    /// With one of these ids.
    pub ids: Option<Vec<RoleId>>,
    /// After this one.
    pub marker: Option<RoleId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "r.id, r.name, r.description, r.builtin, r.created_at";

fn role(row: &Row) -> Result<RoleEntry, StoreError> {
    Ok(RoleEntry {
        id: row.get("id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        builtin: row.get("builtin")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The role with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn role_get(&self, id: RoleId) -> Result<Option<RoleEntry>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM roles r WHERE r.id = $1"), params![id]).await?;
        row.as_ref().map(role).transpose()
    }

    /// Roles, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn role_list(&self, wanted: &RoleFilter) -> Result<Vec<RoleEntry>, StoreError> {
        let mut filter = Where::default();
        if let Some(name) = &wanted.name {
            filter.and("r.name = ?", params![name]);
        }
        if let Some(ids) = &wanted.ids {
            filter.and_in("r.id", ids.clone());
        }
        if let Some(marker) = wanted.marker {
            filter.and("r.id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM roles r{} ORDER BY r.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(role).collect()
    }
}

impl Tx {
    /// Records a role.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn role_insert(&self, new: &RoleEntry) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO roles (id, name, description, builtin, created_at) VALUES ($1, $2, $3, $4, $5)",
            params![new.id, &new.name, &new.description, new.builtin, new.created_at],
        )
        .await?;
        Ok(())
    }

    /// Changes a role that is not built in; `Some(None)` clears the description; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn role_update(
        &self,
        id: RoleId,
        name: Option<&Name>,
        description: Option<Option<&str>>,
    ) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE roles SET name = COALESCE($2, name), description = CASE WHEN $3 THEN $4 ELSE description END
                 WHERE id = $1 AND NOT builtin",
                params![id, name.cloned(), description.is_some(), description.flatten()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a role that is not built in, with its assignments; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn role_delete(&self, id: RoleId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM roles WHERE id = $1 AND NOT builtin", params![id]).await? == 1)
    }
}
