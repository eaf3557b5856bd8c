//! Users, their passwords and their default projects.

use crate::domains::DomainKey;
use crate::roles::json_text;
use crate::sql::{Json, Row, Where, params};
use crate::text_tests::{Extra, TextTest};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, GroupId, Name, ProjectId, Timestamp, UserId};

/// A user, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The domain that it is in.
    pub domain_id: DomainId,
    /// Its name, unique in the domain.
    pub name: Name,
    /// Who it is.
    pub description: Option<String>,
    /// Its mail address.
    pub email: Option<String>,
    /// Whether it may log in.
    pub enabled: bool,
    /// Where it is taken to when it logs in without saying where.
    pub default_project_id: Option<ProjectId>,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options such as `lock_password`.
    pub options: Extra,
    /// When the present password was set; 0: there is none, or it is not known.
    pub password_set_at: Timestamp,
    /// Tokens that hold a lower epoch of this user are void.
    pub token_epoch: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How a caller names a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKey<'a> {
    /// By id.
    Id(UserId),
    /// By name in a domain.
    Name {
        /// The domain.
        domain: DomainKey<'a>,
        /// The name.
        name: &'a str,
    },
}

/// A user with what logging in needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: User,
    /// The PHC string of its password; `None`: it has none.
    pub password_hash: Option<String>,
    /// PHC strings of earlier passwords, newest first.
    pub password_history: Vec<String>,
    /// Wrong passwords in a row.
    pub failures: u64,
    /// When the last of them was given.
    pub failed_at: Timestamp,
    /// The name of the user's domain.
    pub domain_name: Name,
    /// Whether the user's domain may be used.
    pub domain_enabled: bool,
    /// The domain's token epoch.
    pub domain_epoch: u64,
}

/// What to change of a user; `None` leaves it as it is, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// Its name.
    pub name: Option<Name>,
    /// Who it is.
    pub description: Option<Option<String>>,
    /// Its mail address.
    pub email: Option<Option<String>>,
    /// Whether it may log in.
    pub enabled: Option<bool>,
    /// Where it is taken to when it logs in without saying where.
    pub default_project_id: Option<Option<ProjectId>>,
    /// Attributes of the client's own, all of them.
    pub extra: Option<Extra>,
    /// Options, all of them.
    pub options: Option<Extra>,
}

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// In this domain.
    pub domain_id: Option<DomainId>,
    /// With such a name.
    pub names: Vec<TextTest>,
    /// With a password that was set in this time: from the first, before the second.
    pub password_set: (Option<Timestamp>, Option<Timestamp>),
    /// Enabled or not.
    pub enabled: Option<bool>,
    /// Members of this group.
    pub group_id: Option<GroupId>,
    /// After this one.
    pub marker: Option<UserId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "u.id, u.domain_id, u.name, u.description, u.email, u.enabled, u.default_project_id, \
     u.extra, u.options, u.password_set_at, u.token_epoch, u.created_at";

fn user(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.get("id")?,
        domain_id: row.get("domain_id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        email: row.opt("email")?,
        enabled: row.get("enabled")?,
        default_project_id: row.opt("default_project_id")?,
        extra: row.json("extra")?,
        options: row.json("options")?,
        password_set_at: row.get("password_set_at")?,
        token_epoch: row.get("token_epoch")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The user that `key` names, with its password's hash and its domain.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_login(&self, key: UserKey<'_>) -> Result<Option<Login>, StoreError> {
        let mut filter = Where::default();
        match key {
            UserKey::Id(id) => filter.and("u.id = ?", params![id]),
            UserKey::Name { domain: DomainKey::Id(id), name } => {
                filter.and("u.domain_id = ?", params![id]).and("u.name = ?", params![name])
            }
            UserKey::Name { domain: DomainKey::Name(domain), name } => {
                filter.and("d.name = ?", params![domain]).and("u.name = ?", params![name])
            }
        };
        let sql = format!(
            "SELECT {COLUMNS}, u.password_hash, u.password_history, u.failures, u.failed_at, d.name AS domain_name,
             d.enabled AS domain_enabled, d.token_epoch AS domain_epoch
             FROM users u JOIN domains d ON d.id = u.domain_id{}",
            filter.sql()
        );
        let Some(row) = self.one(sql, filter.params).await? else { return Ok(None) };
        Ok(Some(Login {
            user: user(&row)?,
            password_hash: row.opt("password_hash")?,
            password_history: row.json("password_history")?,
            failures: row.get("failures")?,
            failed_at: row.get("failed_at")?,
            domain_name: row.get("domain_name")?,
            domain_enabled: row.get("domain_enabled")?,
            domain_epoch: row.get("domain_epoch")?,
        }))
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_get(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM users u WHERE u.id = $1"), params![id]).await?;
        row.as_ref().map(user).transpose()
    }

    /// Users, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_list(&self, wanted: &UserFilter) -> Result<Vec<User>, StoreError> {
        let mut filter = Where::default();
        if let Some(domain_id) = wanted.domain_id {
            filter.and("u.domain_id = ?", params![domain_id]);
        }
        filter.and_texts("u.name", &wanted.names);
        if let Some(from) = wanted.password_set.0 {
            filter.and("u.password_set_at >= ?", params![from]);
        }
        if let Some(before) = wanted.password_set.1 {
            filter.and("u.password_set_at > 0 AND u.password_set_at < ?", params![before]);
        }
        if let Some(enabled) = wanted.enabled {
            filter.and("u.enabled = ?", params![enabled]);
        }
        if let Some(group_id) = wanted.group_id {
            filter.and("u.id IN (SELECT m.user_id FROM user_group_members m WHERE m.group_id = ?)", params![group_id]);
        }
        if let Some(marker) = wanted.marker {
            filter.and("u.id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM users u{} ORDER BY u.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(user).collect()
    }
}

impl Tx {
    /// Records a user with the hash of its password.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn user_insert(&self, new: &User, password_hash: Option<&str>) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO users (id, domain_id, name, description, email, enabled, default_project_id, password_hash,
             password_history, failures, failed_at, extra, options, password_set_at, token_epoch, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '[]', 0, 0, $9, $10, $11, $12, $13)",
            params![
                new.id,
                new.domain_id,
                &new.name,
                &new.description,
                &new.email,
                new.enabled,
                new.default_project_id,
                password_hash,
                Json(&new.extra),
                Json(&new.options),
                new.password_set_at,
                new.token_epoch,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Changes a user; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn user_update(&self, id: UserId, change: &UserChange) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE users SET name = COALESCE($2, name), enabled = COALESCE($3, enabled),
                 description = CASE WHEN $4 THEN $5 ELSE description END,
                 email = CASE WHEN $6 THEN $7 ELSE email END,
                 default_project_id = CASE WHEN $8 THEN $9 ELSE default_project_id END,
                 extra = COALESCE($10, extra), options = COALESCE($11, options)
                 WHERE id = $1",
                params![
                    id,
                    change.name.clone(),
                    change.enabled,
                    change.description.is_some(),
                    change.description.clone().flatten(),
                    change.email.is_some(),
                    change.email.clone().flatten(),
                    change.default_project_id.is_some(),
                    change.default_project_id.flatten(),
                    change.extra.as_ref().map(json_text),
                    change.options.as_ref().map(json_text)
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Replaces a user's password, provided that it is still `old_hash`; `false` if it is not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_password_set(
        &self,
        id: UserId,
        old_hash: Option<&str>,
        hash: Option<&str>,
        history: &[String],
        set_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE users SET password_hash = $2, password_history = $3, password_set_at = $5, failures = 0,
                 failed_at = 0
                 WHERE id = $1 AND COALESCE(password_hash, '') = $4",
                params![id, hash, Json(&history), old_hash.unwrap_or(""), set_at],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Counts a wrong password.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_failure_add(&self, id: UserId, at: Timestamp) -> Result<(), StoreError> {
        self.exec("UPDATE users SET failures = failures + 1, failed_at = $2 WHERE id = $1", params![id, at]).await?;
        Ok(())
    }

    /// Forgets wrong passwords.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_failures_clear(&self, id: UserId) -> Result<(), StoreError> {
        self.exec("UPDATE users SET failures = 0, failed_at = 0 WHERE id = $1", params![id]).await?;
        Ok(())
    }

    /// Deletes a user with its memberships, assignments and application credentials; `false` if there is none with this
    /// id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn user_delete(&self, id: UserId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM users WHERE id = $1", params![id]).await? == 1)
    }
}
