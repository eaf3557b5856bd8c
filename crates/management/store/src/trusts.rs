//! Trusts: a user lets another one act in a project with some of the first one's roles.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, RoleId, Timestamp, TrustId, UserId};

/// A trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Its id.
    pub id: TrustId,
    /// Who gives.
    pub trustor: UserId,
    /// Who may act.
    pub trustee: UserId,
    /// Where; `None`: it says only that one trusts the other.
    pub project_id: Option<ProjectId>,
    /// Whether the one acts as the other.
    pub impersonation: bool,
    /// With which roles.
    pub roles: Vec<RoleId>,
    /// From then on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// How many tokens it still gives; `None`: any number.
    pub remaining_uses: Option<u64>,
    /// How many more times it may be handed on.
    pub redelegation_count: u64,
    /// The trust that it was handed on from.
    pub redelegated_from: Option<TrustId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Which trusts to list.
#[derive(Debug, Clone, Default)]
pub struct TrustFilter {
    /// Given by this user.
    pub trustor: Option<UserId>,
    /// Given to this user.
    pub trustee: Option<UserId>,
    /// After this one.
    pub marker: Option<TrustId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "id, trustor_user_id, trustee_user_id, project_id, impersonation, roles, expires_at, \
     remaining_uses, redelegation_count, redelegated_trust_id, created_at";

fn trust(row: &Row) -> Result<Trust, StoreError> {
    Ok(Trust {
        id: row.get("id")?,
        trustor: row.get("trustor_user_id")?,
        trustee: row.get("trustee_user_id")?,
        project_id: row.opt("project_id")?,
        impersonation: row.get("impersonation")?,
        roles: row.json("roles")?,
        expires_at: row.opt("expires_at")?,
        remaining_uses: row.opt("remaining_uses")?,
        redelegation_count: row.get("redelegation_count")?,
        redelegated_from: row.opt("redelegated_trust_id")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The trust with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trust_get(&self, id: TrustId) -> Result<Option<Trust>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM trusts WHERE id = $1"), params![id]).await?;
        row.as_ref().map(trust).transpose()
    }

    /// Trusts, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trust_list(&self, wanted: &TrustFilter) -> Result<Vec<Trust>, StoreError> {
        let mut filter = Where::default();
        if let Some(id) = wanted.trustor {
            filter.and("trustor_user_id = ?", params![id]);
        }
        if let Some(id) = wanted.trustee {
            filter.and("trustee_user_id = ?", params![id]);
        }
        if let Some(marker) = wanted.marker {
            filter.and("id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM trusts{} ORDER BY id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(trust).collect()
    }

    /// A trust and all that were handed on from it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trust_descendants(&self, id: TrustId) -> Result<Vec<TrustId>, StoreError> {
        let sql = "WITH RECURSIVE below(id) AS (SELECT id FROM trusts WHERE id = $1
             UNION SELECT t.id FROM trusts t JOIN below b ON t.redelegated_trust_id = b.id) SELECT id FROM below";
        self.all(sql, params![id]).await?.iter().map(|row| row.get("id")).collect()
    }
}

impl Tx {
    /// Records a trust.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a user, the project or the trust that it comes from is gone.
    pub async fn trust_insert(&self, new: &Trust) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO trusts (id, trustor_user_id, trustee_user_id, project_id, impersonation, roles, expires_at,
             remaining_uses, redelegation_count, redelegated_trust_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                new.id,
                new.trustor,
                new.trustee,
                new.project_id,
                new.impersonation,
                Json(&new.roles),
                new.expires_at,
                new.remaining_uses,
                new.redelegation_count,
                new.redelegated_from,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Takes one use of a trust whose uses are counted; `false` if none is left.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trust_use(&self, id: TrustId) -> Result<bool, StoreError> {
        let sql = "UPDATE trusts SET remaining_uses = remaining_uses - 1 WHERE id = $1 AND remaining_uses > 0";
        Ok(self.exec(sql, params![id]).await? == 1)
    }

    /// Deletes a trust and all that were handed on from it; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn trust_delete(&self, id: TrustId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM trusts WHERE id = $1", params![id]).await? >= 1)
    }
}
