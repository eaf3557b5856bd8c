//! QoS specs: limits of volumes, tied to volume types.

use crate::sql::{Json, Row, Where, params};
use crate::volumes::ordered;
use crate::{Db, StoreError, Tx};
use arcus_types::volume_qos::QosConsumer;
use arcus_types::{NodeId, QosSpecsId, Timestamp, VolumeId};
use std::collections::BTreeMap;

/// Limits of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosSpecs {
    /// Its id.
    pub id: QosSpecsId,
    /// Its name, unique in the cloud.
    pub name: String,
    /// Who enforces it.
    pub consumer: QosConsumer,
    /// Key and value pairs.
    pub specs: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, name, consumer, specs, created_at, updated_at";

fn qos(row: &Row) -> Result<QosSpecs, StoreError> {
    Ok(QosSpecs {
        id: row.get("id")?,
        name: row.get("name")?,
        consumer: row.text("consumer")?,
        specs: row.json("specs")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
    })
}

impl Db {
    /// The specs with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_specs_get(&self, id: QosSpecsId) -> Result<Option<QosSpecs>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_qos_specs WHERE id = $1"), params![id]).await?;
        row.as_ref().map(qos).transpose()
    }

    /// Specs by name, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_specs_list(&self, marker: Option<QosSpecsId>, limit: u64) -> Result<Vec<QosSpecs>, StoreError> {
        let mut filter = Where::default();
        let sort = vec![("name", false)];
        let sql = ordered("volume_qos_specs", COLUMNS, &mut filter, sort, marker.map(|m| m.0), limit, 0);
        self.all(sql, filter.params).await?.iter().map(qos).collect()
    }

    /// The specs of a node's volumes, where the volume's type has some.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_specs_by_node(&self, node: NodeId) -> Result<Vec<(VolumeId, QosSpecs)>, StoreError> {
        let sql = "SELECT v.id AS volume_id, q.id AS id, q.name AS name, q.consumer AS consumer, q.specs AS specs,
             q.created_at AS created_at, q.updated_at AS updated_at
             FROM volumes v JOIN volume_types t ON t.id = v.volume_type_id
             JOIN volume_qos_specs q ON q.id = t.qos_specs_id WHERE v.node_id = $1";
        let rows = self.all(sql, params![node]).await?;
        rows.iter().map(|row| Ok((row.get("volume_id")?, qos(row)?))).collect()
    }
}

impl Tx {
    /// Records specs.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken.
    pub async fn qos_specs_insert(&self, new: &QosSpecs) -> Result<(), StoreError> {
        self.exec(
            format!("INSERT INTO volume_qos_specs ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)"),
            params![new.id, &new.name, new.consumer.as_str(), Json(&new.specs), new.created_at, new.updated_at],
        )
        .await?;
        Ok(())
    }

    /// Writes specs back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_specs_update(&self, changed: &QosSpecs) -> Result<(), StoreError> {
        self.exec(
            "UPDATE volume_qos_specs SET consumer = $2, specs = $3, updated_at = $4 WHERE id = $1",
            params![changed.id, changed.consumer.as_str(), Json(&changed.specs), changed.updated_at],
        )
        .await?;
        Ok(())
    }

    /// Takes specs from all types that have them; how many those are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn qos_specs_release(&self, id: QosSpecsId) -> Result<u64, StoreError> {
        self.exec("UPDATE volume_types SET qos_specs_id = NULL WHERE qos_specs_id = $1", params![id]).await
    }

    /// Forgets specs; `false` if they are not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a type has them.
    pub async fn qos_specs_delete(&self, id: QosSpecsId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_qos_specs WHERE id = $1", params![id]).await? == 1)
    }
}
