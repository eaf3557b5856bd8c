//! Roles, and which of them imply others.

use crate::sql::{Json, Row, Where, params};
use crate::text_tests::{Extra, TextTest};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, Name, RoleId, Timestamp};

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleEntry {
    /// Its id.
    pub id: RoleId,
    /// The domain that it belongs to; `None`: the whole cloud. A role of a domain grants only what it implies.
    pub domain_id: Option<DomainId>,
    /// Its name, unique in its domain or in the cloud.
    pub name: Name,
    /// What it is for.
    pub description: Option<String>,
    /// Whether the policy table knows it: then it is neither renamed nor deleted.
    pub builtin: bool,
    /// Options such as `immutable`.
    pub options: Extra,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What to change of a role; `None` leaves it as it is, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// Its name.
    pub name: Option<Name>,
    /// What it is for.
    pub description: Option<Option<String>>,
    /// Options.
    pub options: Option<Extra>,
}

/// Which roles to list.
#[derive(Debug, Clone, Default)]
pub struct RoleFilter {
    /// With such a name.
    pub names: Vec<TextTest>,
    /// Of the cloud (`Some(None)`) or of this domain.
    pub domain_id: Option<Option<DomainId>>,
    /// With one of these ids.
    pub ids: Option<Vec<RoleId>>,
    /// After this one.
    pub marker: Option<RoleId>,
    /// At most so many.
    pub limit: u32,
}

/// Who holds the first role holds the second one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Implication {
    /// The role that implies.
    pub prior: (RoleId, Name, Option<DomainId>),
    /// The role that is implied.
    pub implied: (RoleId, Name, Option<DomainId>),
}

const COLUMNS: &str = "r.id, r.domain_id, r.name, r.description, r.builtin, r.options, r.created_at";

fn role(row: &Row) -> Result<RoleEntry, StoreError> {
    Ok(RoleEntry {
        id: row.get("id")?,
        domain_id: row.opt("domain_id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        builtin: row.get("builtin")?,
        options: row.json("options")?,
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
        filter.and_texts("r.name", &wanted.names);
        match wanted.domain_id {
            Some(Some(id)) => filter.and("r.domain_id = ?", params![id]),
            Some(None) => filter.and("r.domain_id IS NULL", vec![]),
            None => &mut filter,
        };
        if let Some(ids) = &wanted.ids {
            filter.and_in("r.id", ids.clone());
        }
        if let Some(marker) = wanted.marker {
            filter.and("r.id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM roles r{} ORDER BY r.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(role).collect()
    }

    /// Which role directly implies which: those of one role, or the first `limit` of all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn implication_list(&self, prior: Option<RoleId>, limit: u32) -> Result<Vec<Implication>, StoreError> {
        let mut filter = Where::default();
        if let Some(id) = prior {
            filter.and("i.prior_id = ?", params![id]);
        }
        let sql = format!(
            "SELECT p.id AS prior_id, p.name AS prior_name, p.domain_id AS prior_domain,
             r.id AS implied_id, r.name AS implied_name, r.domain_id AS implied_domain
             FROM role_implications i JOIN roles p ON p.id = i.prior_id JOIN roles r ON r.id = i.implied_id{}
             ORDER BY i.prior_id, i.implied_id LIMIT {limit}",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        let side = |row: &Row, side: &str| {
            Ok::<_, StoreError>((
                row.get(&format!("{side}_id"))?,
                row.get(&format!("{side}_name"))?,
                row.opt(&format!("{side}_domain"))?,
            ))
        };
        rows.iter().map(|row| Ok(Implication { prior: side(row, "prior")?, implied: side(row, "implied")? })).collect()
    }

    /// Whether who holds the first role holds the second one, perhaps by way of others.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn role_leads_to(&self, prior: RoleId, implied: RoleId) -> Result<bool, StoreError> {
        let sql = "WITH RECURSIVE held(id) AS (SELECT implied_id FROM role_implications WHERE prior_id = $1
             UNION SELECT i.implied_id FROM role_implications i JOIN held h ON i.prior_id = h.id)
             SELECT 1 AS one FROM held WHERE id = $2 LIMIT 1";
        Ok(self.one(sql, params![prior, implied]).await?.is_some())
    }
}

impl Tx {
    /// Records a role.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn role_insert(&self, new: &RoleEntry) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO roles (id, domain_id, name, description, builtin, options, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                new.id,
                new.domain_id,
                &new.name,
                &new.description,
                new.builtin,
                Json(&new.options),
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Changes a role that is not built in; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn role_update(&self, id: RoleId, change: &RoleChange) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE roles SET name = COALESCE($2, name), description = CASE WHEN $3 THEN $4 ELSE description END,
                 options = COALESCE($5, options) WHERE id = $1 AND NOT builtin",
                params![
                    id,
                    change.name.clone(),
                    change.description.is_some(),
                    change.description.clone().flatten(),
                    change.options.as_ref().map(json_text)
                ],
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

    /// Lets a role imply another one; `false` if it does already.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if either is gone.
    pub async fn implication_insert(&self, prior: RoleId, implied: RoleId) -> Result<bool, StoreError> {
        let sql = "INSERT INTO role_implications (prior_id, implied_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![prior, implied]).await? == 1)
    }

    /// Ends that; `false` if it was not so.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn implication_delete(&self, prior: RoleId, implied: RoleId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM role_implications WHERE prior_id = $1 AND implied_id = $2";
        Ok(self.exec(sql, params![prior, implied]).await? == 1)
    }
}

/// A JSON object as the text that a column holds.
pub(crate) fn json_text(object: &Extra) -> String {
    serde_json::to_string(object).unwrap_or_default()
}
