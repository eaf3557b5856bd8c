//! Why servers are where they are: the last few decisions about each.

use crate::sql::{Json, Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::placement::DecisionRecord;
use arcus_types::{NodeId, RequestId, ServerId, Timestamp};

/// So many decisions are kept of a server.
pub const PLACEMENT_DECISIONS_MAX: u64 = 8;

/// A decision about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementDecision {
    /// The server.
    pub server_id: ServerId,
    /// The request that led to it.
    pub request_id: RequestId,
    /// What it was decided for, such as `create`.
    pub occasion: String,
    /// The node that was taken, with its name; none if none could be.
    pub node: Option<(NodeId, String)>,
    /// What was asked and what was found.
    pub record: DecisionRecord,
    /// When.
    pub decided_at: Timestamp,
}

fn decision(row: &Row) -> Result<PlacementDecision, StoreError> {
    Ok(PlacementDecision {
        server_id: row.get("server_id")?,
        request_id: row.get("request_id")?,
        occasion: row.get("occasion")?,
        node: row.opt("node_id")?.zip(row.opt("node")?),
        record: row.json("document")?,
        decided_at: row.get("decided_at")?,
    })
}

impl Db {
    /// The decisions about a server, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn placement_decision_list(&self, server: ServerId) -> Result<Vec<PlacementDecision>, StoreError> {
        let sql = format!(
            "SELECT server_id, request_id, occasion, node_id, node, document, decided_at FROM placement_decisions
             WHERE server_id = $1 ORDER BY decided_at DESC, request_id DESC LIMIT {PLACEMENT_DECISIONS_MAX}"
        );
        self.all(sql, params![server]).await?.iter().map(decision).collect()
    }
}

impl Tx {
    /// Records a decision; a request has one for each server. Those beyond [`PLACEMENT_DECISIONS_MAX`] are forgotten, the
    /// oldest first; `first` says that there can be none before it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn placement_decision_insert(&self, new: &PlacementDecision, first: bool) -> Result<(), StoreError> {
        let (node_id, node) = new.node.as_ref().map(|(id, name)| (*id, name.as_str())).unzip();
        self.exec(
            "INSERT INTO placement_decisions (server_id, request_id, occasion, node_id, node, document, decided_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (server_id, request_id) DO UPDATE SET occasion = excluded.occasion, node_id = excluded.node_id,
             node = excluded.node, document = excluded.document, decided_at = excluded.decided_at",
            params![new.server_id, new.request_id, &new.occasion, node_id, node, Json(&new.record), new.decided_at],
        )
        .await?;
        if first {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM placement_decisions WHERE server_id = $1 AND request_id NOT IN (SELECT request_id
             FROM placement_decisions WHERE server_id = $1 ORDER BY decided_at DESC, request_id DESC
             LIMIT {PLACEMENT_DECISIONS_MAX})"
        );
        self.exec(sql, params![new.server_id]).await?;
        Ok(())
    }
}
