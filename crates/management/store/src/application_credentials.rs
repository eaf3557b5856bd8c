//! Application credentials: a secret that stands for a user in one project, with no more than some of its roles.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ApplicationCredentialId, Name, ProjectId, RoleId, Timestamp, UserId};

/// An application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationCredential {
    /// Its id.
    pub id: ApplicationCredentialId,
    /// The user whom it stands for.
    pub user_id: UserId,
    /// The project that it opens.
    pub project_id: ProjectId,
    /// Its name, unique for the user.
    pub name: Name,
    /// What it is for.
    pub description: Option<String>,
    /// The PHC string of its secret.
    pub secret_hash: String,
    /// The roles that it carries, as far as the user still holds them.
    pub roles: Vec<RoleId>,
    /// Whether it may be used to make and delete application credentials.
    pub unrestricted: bool,
    /// Whether access rules say what it may call; without any it may then call nothing.
    pub ruled: bool,
    /// From then on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How a caller names an application credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationCredentialKey<'a> {
    /// By id.
    Id(ApplicationCredentialId),
    /// By name, of a user.
    Name {
        /// The user.
        user_id: UserId,
        /// The name.
        name: &'a str,
    },
}

const COLUMNS: &str =
    "id, user_id, project_id, name, description, secret_hash, roles, unrestricted, ruled, expires_at, created_at";

fn application_credential(row: &Row) -> Result<ApplicationCredential, StoreError> {
    Ok(ApplicationCredential {
        id: row.get("id")?,
        user_id: row.get("user_id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        secret_hash: row.get("secret_hash")?,
        roles: row.json("roles")?,
        unrestricted: row.get("unrestricted")?,
        ruled: row.get("ruled")?,
        expires_at: row.opt("expires_at")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The application credential that `key` names.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn application_credential_get(
        &self,
        key: ApplicationCredentialKey<'_>,
    ) -> Result<Option<ApplicationCredential>, StoreError> {
        let mut filter = Where::default();
        match key {
            ApplicationCredentialKey::Id(id) => filter.and("id = ?", params![id]),
            ApplicationCredentialKey::Name { user_id, name } => {
                filter.and("user_id = ?", params![user_id]).and("name = ?", params![name])
            }
        };
        let sql = format!("SELECT {COLUMNS} FROM application_credentials{}", filter.sql());
        self.one(sql, filter.params).await?.as_ref().map(application_credential).transpose()
    }

    /// A user's application credentials, by id, at most `limit` after `marker`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn application_credential_list(
        &self,
        user_id: UserId,
        name: Option<&str>,
        marker: Option<ApplicationCredentialId>,
        limit: u32,
    ) -> Result<Vec<ApplicationCredential>, StoreError> {
        let mut filter = Where::default();
        filter.and("user_id = ?", params![user_id]);
        if let Some(name) = name {
            filter.and("name = ?", params![name]);
        }
        if let Some(marker) = marker {
            filter.and("id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM application_credentials{} ORDER BY id LIMIT {limit}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(application_credential).collect()
    }
}

impl Tx {
    /// Records an application credential.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the user has one with this name.
    pub async fn application_credential_insert(&self, new: &ApplicationCredential) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO application_credentials (id, user_id, project_id, name, description, secret_hash, roles,
             unrestricted, ruled, expires_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                new.id,
                new.user_id,
                new.project_id,
                &new.name,
                &new.description,
                &new.secret_hash,
                Json(&new.roles),
                new.unrestricted,
                new.ruled,
                new.expires_at,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Deletes an application credential of a user; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn application_credential_delete(
        &self,
        user_id: UserId,
        id: ApplicationCredentialId,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM application_credentials WHERE id = $1 AND user_id = $2";
        Ok(self.exec(sql, params![id, user_id]).await? == 1)
    }
}
