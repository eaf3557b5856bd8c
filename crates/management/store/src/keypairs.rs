//! Key pairs: public keys that users have put here for their servers.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{Timestamp, UserId};

/// A public key of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keypair {
    /// Whose.
    pub user_id: UserId,
    /// Its name, unique for the user.
    pub name: String,
    /// `ssh` or `x509`.
    pub kind: String,
    /// MD5 (ssh) or SHA-1 (x509) of the key, in hexadecimal with colons.
    pub fingerprint: String,
    /// The key in OpenSSH's one-line form, or the certificate in PEM.
    pub public_key: String,
    /// When it was put here.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "user_id, name, kind, fingerprint, public_key, created_at";

fn keypair(row: &Row) -> Result<Keypair, StoreError> {
    Ok(Keypair {
        user_id: row.get("user_id")?,
        name: row.get("name")?,
        kind: row.get("kind")?,
        fingerprint: row.get("fingerprint")?,
        public_key: row.get("public_key")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// A user's key with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keypair_get(&self, user: UserId, name: &str) -> Result<Option<Keypair>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keypairs WHERE user_id = $1 AND name = $2");
        self.one(sql, params![user, name]).await?.as_ref().map(keypair).transpose()
    }

    /// A user's keys by name, at most `limit + 1`, from behind `marker` on.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keypair_list(
        &self,
        user: UserId,
        marker: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Keypair>, StoreError> {
        let mut filter = Where::default();
        filter.and("user_id = ?", params![user]);
        if let Some(marker) = marker {
            filter.and("name > ?", params![marker]);
        }
        let limit = limit.saturating_add(1).min(10_000);
        let sql = format!("SELECT {COLUMNS} FROM keypairs{} ORDER BY name LIMIT {limit}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(keypair).collect()
    }

    /// How many keys a user has.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keypair_count(&self, user: UserId) -> Result<u64, StoreError> {
        let row = self.one("SELECT COUNT(*) AS n FROM keypairs WHERE user_id = $1", params![user]).await?;
        row.map_or(Ok(0), |r| r.get("n"))
    }
}

impl Tx {
    /// Records a key.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the user has one with this name.
    pub async fn keypair_insert(&self, new: &Keypair) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO keypairs (user_id, name, kind, fingerprint, public_key, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.user_id, &new.name, &new.kind, &new.fingerprint, &new.public_key, new.created_at],
        )
        .await?;
        Ok(())
    }

    /// Removes a key; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keypair_delete(&self, user: UserId, name: &str) -> Result<bool, StoreError> {
        let changed = self.exec("DELETE FROM keypairs WHERE user_id = $1 AND name = $2", params![user, name]).await?;
        Ok(changed == 1)
    }
}
