//! Domains: name spaces of users, groups and projects.

use crate::roles::json_text;
use crate::sql::{Json, Row, Where, params};
use crate::text_tests::{Extra, TextTest};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, Name, Timestamp, UserId};

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Its name, unique in the cloud.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// Whether its users may log in and its projects may be used.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options such as `immutable`.
    pub options: Extra,
    /// Tokens that hold a lower epoch of this domain are void.
    pub token_epoch: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How a caller names a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainKey<'a> {
    /// By id.
    Id(DomainId),
    /// By name.
    Name(&'a str),
}

/// What to change of a domain; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct DomainChange {
    /// Its name.
    pub name: Option<Name>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it may be used.
    pub enabled: Option<bool>,
    /// Attributes of the client's own, all of them.
    pub extra: Option<Extra>,
    /// Options, all of them.
    pub options: Option<Extra>,
}

/// Which domains to list.
#[derive(Debug, Clone, Default)]
pub struct DomainFilter {
    /// With such a name.
    pub names: Vec<TextTest>,
    /// Enabled or not.
    pub enabled: Option<bool>,
    /// Only this one: for callers that may see no other.
    pub id: Option<DomainId>,
    /// Where this user holds a role, directly or through a group.
    pub member: Option<UserId>,
    /// After this one.
    pub marker: Option<DomainId>,
    /// At most so many.
    pub limit: u32,
}

pub(crate) const DOMAIN_COLUMNS: &str =
    "d.id, d.name, d.description, d.enabled, d.extra, d.options, d.token_epoch, d.created_at";

pub(crate) fn domain(row: &Row) -> Result<Domain, StoreError> {
    Ok(Domain {
        id: row.get("id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        extra: row.json("extra")?,
        options: row.json("options")?,
        token_epoch: row.get("token_epoch")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The domain that `key` names.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn domain_get(&self, key: DomainKey<'_>) -> Result<Option<Domain>, StoreError> {
        let mut filter = Where::default();
        match key {
            DomainKey::Id(id) => filter.and("d.id = ?", params![id]),
            DomainKey::Name(name) => filter.and("d.name = ?", params![name]),
        };
        let sql = format!("SELECT {DOMAIN_COLUMNS} FROM domains d{}", filter.sql());
        self.one(sql, filter.params).await?.as_ref().map(domain).transpose()
    }

    /// Domains, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn domain_list(&self, wanted: &DomainFilter) -> Result<Vec<Domain>, StoreError> {
        let mut filter = Where::default();
        filter.and_texts("d.name", &wanted.names);
        if let Some(enabled) = wanted.enabled {
            filter.and("d.enabled = ?", params![enabled]);
        }
        if let Some(id) = wanted.id {
            filter.and("d.id = ?", params![id]);
        }
        if let Some(user_id) = wanted.member {
            filter.and(
                "d.id IN (SELECT a.domain_id FROM role_assignments a WHERE a.domain_id IS NOT NULL AND NOT a.inherited
                 AND (a.user_id = ?
                 OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?)))",
                params![user_id, user_id],
            );
        }
        if let Some(marker) = wanted.marker {
            filter.and("d.id > ?", params![marker]);
        }
        let sql =
            format!("SELECT {DOMAIN_COLUMNS} FROM domains d{} ORDER BY d.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(domain).collect()
    }
}

impl Tx {
    /// Records a domain.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn domain_insert(&self, new: &Domain) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO domains (id, name, description, enabled, extra, options, token_epoch, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            params![
                new.id,
                &new.name,
                &new.description,
                new.enabled,
                Json(&new.extra),
                Json(&new.options),
                new.token_epoch,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Changes a domain; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn domain_update(&self, id: DomainId, change: &DomainChange) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE domains SET name = COALESCE($2, name), description = COALESCE($3, description),
                 enabled = COALESCE($4, enabled), extra = COALESCE($5, extra), options = COALESCE($6, options)
                 WHERE id = $1",
                params![
                    id,
                    change.name.clone(),
                    &change.description,
                    change.enabled,
                    change.extra.as_ref().map(json_text),
                    change.options.as_ref().map(json_text)
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a domain with its projects, users, groups and all that they hold; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn domain_delete(&self, id: DomainId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM domains WHERE id = $1", params![id]).await? == 1)
    }
}
