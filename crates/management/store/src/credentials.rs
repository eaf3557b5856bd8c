//! Secrets that users keep for other programs, sealed before they come here.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{CredentialId, ProjectId, Timestamp, UserId};

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialEntry {
    /// Its id.
    pub id: CredentialId,
    /// Whose.
    pub user_id: UserId,
    /// The project that it is for.
    pub project_id: Option<ProjectId>,
    /// Its type, such as `cert`.
    pub kind: String,
    /// The sealed secret.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which secrets to list.
#[derive(Debug, Clone, Default)]
pub struct CredentialFilter {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// Of this type.
    pub kind: Option<String>,
    /// After this one.
    pub marker: Option<CredentialId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "id, user_id, project_id, kind, sealed, created_at";

fn credential(row: &Row) -> Result<CredentialEntry, StoreError> {
    Ok(CredentialEntry {
        id: row.get("id")?,
        user_id: row.get("user_id")?,
        project_id: row.opt("project_id")?,
        kind: row.get("kind")?,
        sealed: row.get("sealed")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The secret with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credential_get(&self, id: CredentialId) -> Result<Option<CredentialEntry>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM credentials WHERE id = $1"), params![id]).await?;
        row.as_ref().map(credential).transpose()
    }

    /// Secrets, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credential_list(&self, wanted: &CredentialFilter) -> Result<Vec<CredentialEntry>, StoreError> {
        let mut filter = Where::default();
        if let Some(id) = wanted.user_id {
            filter.and("user_id = ?", params![id]);
        }
        if let Some(kind) = &wanted.kind {
            filter.and("kind = ?", params![kind]);
        }
        if let Some(marker) = wanted.marker {
            filter.and("id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM credentials{} ORDER BY id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(credential).collect()
    }
}

impl Tx {
    /// Records a secret.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the user or project is gone.
    pub async fn credential_insert(&self, new: &CredentialEntry) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO credentials (id, user_id, project_id, kind, sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.id, new.user_id, new.project_id, &new.kind, &new.sealed, new.created_at],
        )
        .await?;
        Ok(())
    }

    /// Replaces a secret; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credential_update(&self, id: CredentialId, sealed: &str) -> Result<bool, StoreError> {
        Ok(self.exec("UPDATE credentials SET sealed = $2 WHERE id = $1", params![id, sealed]).await? == 1)
    }

    /// Deletes a secret; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn credential_delete(&self, id: CredentialId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM credentials WHERE id = $1", params![id]).await? == 1)
    }
}
