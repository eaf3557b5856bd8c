//! Aggregates: groups of nodes that administrators make; one with a zone puts its nodes there.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{AggregateId, NodeId, Timestamp};
use std::collections::BTreeMap;

/// A group of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// Its id.
    pub id: AggregateId,
    /// Its number, by which the compute API calls it; given on insertion.
    pub number: u64,
    /// Its name, unique in the cloud.
    pub name: String,
    /// The zone that its nodes are in, if it makes one.
    pub availability_zone: Option<String>,
    /// Free key and value pairs, without the zone.
    pub metadata: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, number, name, availability_zone, metadata, created_at, updated_at";

fn aggregate(row: &Row) -> Result<Aggregate, StoreError> {
    Ok(Aggregate {
        id: row.get("id")?,
        number: row.get("number")?,
        name: row.get("name")?,
        availability_zone: row.opt("availability_zone")?,
        metadata: row.json("metadata")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// Every aggregate, by number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_list(&self) -> Result<Vec<Aggregate>, StoreError> {
        let rows = self.all(format!("SELECT {COLUMNS} FROM aggregates ORDER BY number"), vec![]).await?;
        rows.iter().map(aggregate).collect()
    }

    /// The aggregate with this number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_get(&self, number: u64) -> Result<Option<Aggregate>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM aggregates WHERE number = $1"), params![number]).await?;
        row.as_ref().map(aggregate).transpose()
    }

    /// The nodes of these aggregates, by id and name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_nodes(
        &self,
        aggregates: &[AggregateId],
    ) -> Result<Vec<(AggregateId, NodeId, String)>, StoreError> {
        if aggregates.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("a.aggregate_id", aggregates.to_vec());
        let sql = format!(
            "SELECT a.aggregate_id, a.node_id, n.name FROM aggregate_nodes a JOIN nodes n ON n.id = a.node_id{}
             ORDER BY n.name",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("aggregate_id")?, r.get("node_id")?, r.get("name")?))).collect()
    }

    /// The zones that aggregates put this node in, with the aggregates' numbers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_zones_of(&self, node: NodeId) -> Result<Vec<(u64, String)>, StoreError> {
        let sql =
            "SELECT g.number, g.availability_zone FROM aggregates g JOIN aggregate_nodes a ON a.aggregate_id = g.id
                   WHERE a.node_id = $1 AND g.availability_zone IS NOT NULL ORDER BY g.number";
        let rows = self.all(sql, params![node]).await?;
        rows.iter().map(|r| Ok((r.get("number")?, r.get("availability_zone")?))).collect()
    }
}

impl Tx {
    /// Records an aggregate and gives it its number.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn aggregate_insert(&self, new: &Aggregate) -> Result<Aggregate, StoreError> {
        if self.is_postgres() {
            // Numbers are given one after the other; SQLite has one writer anyway.
            self.exec("LOCK TABLE aggregates IN SHARE ROW EXCLUSIVE MODE", vec![]).await?;
        }
        let number: u64 = match self.one("SELECT COALESCE(MAX(number), 0) + 1 AS n FROM aggregates", vec![]).await? {
            Some(row) => row.get("n")?,
            None => 1,
        };
        self.exec(
            "INSERT INTO aggregates (id, number, name, availability_zone, metadata, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)",
            params![new.id, number, &new.name, &new.availability_zone, Json(&new.metadata), new.created_at],
        )
        .await?;
        Ok(Aggregate { number, ..new.clone() })
    }

    /// Writes an aggregate back.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn aggregate_update(&self, aggregate: &Aggregate) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE aggregates SET name = $2, availability_zone = $3, metadata = $4, updated_at = $5 WHERE id = $1",
                params![
                    aggregate.id,
                    &aggregate.name,
                    &aggregate.availability_zone,
                    Json(&aggregate.metadata),
                    aggregate.updated_at
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Forgets an aggregate.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_delete(&self, id: AggregateId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM aggregates WHERE id = $1", params![id]).await? == 1)
    }

    /// Puts a node into an aggregate; `false` if it is there already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_node_add(&self, id: AggregateId, node: NodeId) -> Result<bool, StoreError> {
        let sql = "INSERT INTO aggregate_nodes (aggregate_id, node_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![id, node]).await? == 1)
    }

    /// Takes a node out of an aggregate; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn aggregate_node_remove(&self, id: AggregateId, node: NodeId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM aggregate_nodes WHERE aggregate_id = $1 AND node_id = $2";
        Ok(self.exec(sql, params![id, node]).await? == 1)
    }

    /// Puts nodes into a zone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_zone_set(&self, node: NodeId, zone: &str) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET availability_zone = $2, updated_at = $3 WHERE id = $1";
        self.exec(sql, params![node, zone, Timestamp::now()]).await?;
        self.provider_changed(node.into());
        Ok(())
    }
}
