//! What only the guest and its owner may see, sealed; and snapshots that are under way.

use crate::seal::is_sealed;
use crate::sql::{Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ImageId, NodeId, RequestId, ServerId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What only the guest and its owner may see.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSecrets {
    /// User data in base64.
    pub user_data_base64: Option<String>,
    /// Files that it was given when it was made: where, and what is in them in base64.
    pub files: Vec<(String, String)>,
    /// The password of the login user.
    pub admin_password: Option<String>,
    /// SSH public keys: name and OpenSSH line.
    pub public_keys: Vec<(String, String)>,
    /// Seeds the guest's entropy.
    pub random_seed_base64: Option<String>,
    /// A password that the guest's agent is to set, until it has.
    pub password_wish: Option<String>,
    /// The password of the rescue system, while it is rescued.
    pub rescue_password: Option<String>,
    /// What the guest left in its metadata service: its password, encrypted for the owner's key.
    pub password_left: Option<String>,
    /// How often that was thrown away: what a guest left before no longer counts.
    pub password_turn: u64,
}

/// What a server's secrets are sealed for.
fn place(server: ServerId) -> String {
    format!("the secrets of server {server}")
}

impl std::fmt::Debug for ServerSecrets {
    /// Shows nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSecrets(..)")
    }
}

/// An image that is being made of a server's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// The image.
    pub image_id: ImageId,
    /// Whose disk.
    pub server_id: ServerId,
    /// The node that makes it.
    pub node_id: NodeId,
    /// The request that asked for it.
    pub request_id: RequestId,
    /// For a backup: how many of its kind are kept.
    pub rotation: Option<u32>,
}

impl Db {
    /// The secrets of these servers: one statement.
    ///
    /// # Errors
    /// [`StoreError::Database`], or [`StoreError::Seal`] for what was sealed with another key.
    pub async fn server_secrets(&self, servers: &[ServerId]) -> Result<HashMap<ServerId, ServerSecrets>, StoreError> {
        if servers.is_empty() {
            return Ok(HashMap::new());
        }
        let mut of = Where::default();
        of.and_in("server_id", servers.to_vec());
        self.server_secrets_where(of).await
    }

    /// The secrets of the servers that live on a node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_secrets_by_node(&self, node: NodeId) -> Result<HashMap<ServerId, ServerSecrets>, StoreError> {
        let mut of = Where::default();
        of.and("server_id IN (SELECT id FROM servers WHERE node_id = ? AND deleted_at IS NULL)", params![node]);
        self.server_secrets_where(of).await
    }

    async fn server_secrets_where(&self, of: Where) -> Result<HashMap<ServerId, ServerSecrets>, StoreError> {
        let sql = format!("SELECT server_id, document FROM server_secrets{}", of.sql());
        let rows = self.all(sql, of.params).await?;
        rows.iter()
            .map(|row| {
                let (id, text): (ServerId, String) = (row.get("server_id")?, row.get("document")?);
                // Those of before there was a key are sealed when they are next written.
                let text = if is_sealed(&text) { self.seal_key()?.unseal(&place(id), &text)? } else { text };
                let secrets = serde_json::from_str(&text).map_err(|_| StoreError::Corrupt {
                    column: "document".to_owned(),
                    value: "(a secret)".to_owned(),
                })?;
                Ok((id, secrets))
            })
            .collect()
    }

    /// The snapshots that a node is to make.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_snapshots_by_node(&self, node: NodeId) -> Result<Vec<ServerSnapshot>, StoreError> {
        self.snapshots("node_id = $1", params![node]).await
    }

    /// The snapshots that are being made of a server.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_snapshots_by_server(&self, server: ServerId) -> Result<Vec<ServerSnapshot>, StoreError> {
        self.snapshots("server_id = $1", params![server]).await
    }

    async fn snapshots(&self, condition: &str, params: Vec<sea_orm::Value>) -> Result<Vec<ServerSnapshot>, StoreError> {
        let sql = format!(
            "SELECT image_id, server_id, node_id, request_id, rotation FROM server_snapshots WHERE {condition} ORDER BY created_at"
        );
        let rows = self.all(sql, params).await?;
        rows.iter()
            .map(|r| {
                Ok(ServerSnapshot {
                    image_id: r.get("image_id")?,
                    server_id: r.get("server_id")?,
                    node_id: r.get("node_id")?,
                    request_id: r.get("request_id")?,
                    rotation: r.opt("rotation")?,
                })
            })
            .collect()
    }
}

impl Tx {
    /// Records a server's secrets, new or changed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_secrets_set(&self, server: ServerId, secrets: &ServerSecrets) -> Result<(), StoreError> {
        let text = serde_json::to_string(secrets).unwrap_or_default();
        let sealed = self.seal_key()?.seal(&place(server), &text)?;
        self.exec(
            "INSERT INTO server_secrets (server_id, document) VALUES ($1, $2)
             ON CONFLICT (server_id) DO UPDATE SET document = excluded.document",
            params![server, sealed],
        )
        .await?;
        Ok(())
    }

    /// Forgets a server's secrets.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_secrets_delete(&self, server: ServerId) -> Result<(), StoreError> {
        self.exec("DELETE FROM server_secrets WHERE server_id = $1", params![server]).await?;
        Ok(())
    }

    /// Records a snapshot that a node is to make.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`].
    pub async fn server_snapshot_insert(&self, new: &ServerSnapshot) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO server_snapshots (image_id, server_id, node_id, request_id, created_at, rotation)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.image_id, new.server_id, new.node_id, new.request_id, Timestamp::now(), new.rotation],
        )
        .await?;
        Ok(())
    }

    /// Forgets a snapshot that is done or given up; `false` if that has happened already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_snapshot_delete(&self, image: ImageId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM server_snapshots WHERE image_id = $1", params![image]).await? == 1)
    }
}
