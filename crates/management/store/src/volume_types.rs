//! Volume types: kinds of volumes, with their limits and who may use them.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, QosSpecsId, Timestamp, VolumeTypeId};
use std::collections::BTreeMap;

/// The name of the type that volumes have unless they name one; made when it is first needed.
pub const VOLUME_TYPE_DEFAULT: &str = "__DEFAULT__";

/// A kind of volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeType {
    /// Its id.
    pub id: VolumeTypeId,
    /// Its name, unique in the cloud.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Key and value pairs for the pools.
    pub extra_specs: BTreeMap<String, String>,
    /// Limits that its volumes have.
    pub qos_specs_id: Option<QosSpecsId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, name, description, is_public, extra_specs, qos_specs_id, created_at, updated_at";

fn volume_type(row: &Row) -> Result<VolumeType, StoreError> {
    Ok(VolumeType {
        id: row.get("id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        is_public: row.get("is_public")?,
        extra_specs: row.json("extra_specs")?,
        qos_specs_id: row.opt("qos_specs_id")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
    })
}

impl Db {
    /// The type with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_get(&self, id: VolumeTypeId) -> Result<Option<VolumeType>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_types WHERE id = $1"), params![id]).await?;
        row.as_ref().map(volume_type).transpose()
    }

    /// The type with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_by_name(&self, name: &str) -> Result<Option<VolumeType>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_types WHERE name = $1"), params![name]).await?;
        row.as_ref().map(volume_type).transpose()
    }

    /// Whether a project was given the use of a type that is not public.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_accessible(&self, id: VolumeTypeId, project: ProjectId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS n FROM volume_type_access WHERE volume_type_id = $1 AND project_id = $2";
        Ok(self.one(sql, params![id, project]).await?.is_some())
    }

    /// The type that a project's volumes get unless they name one, if that is not the cloud's.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_default_of(&self, project: ProjectId) -> Result<Option<VolumeTypeId>, StoreError> {
        let sql = "SELECT volume_type_id FROM volume_default_types WHERE project_id = $1";
        self.one(sql, params![project]).await?.map(|r| r.get("volume_type_id")).transpose()
    }

    /// The names of these types.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_names(&self, ids: &[VolumeTypeId]) -> Result<Vec<(VolumeTypeId, String)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        let rows = self.all(format!("SELECT id, name FROM volume_types{}", filter.sql()), filter.params).await?;
        rows.iter().map(|r| Ok((r.get("id")?, r.get("name")?))).collect()
    }
}

impl Tx {
    /// Records a type.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its name is taken.
    pub async fn volume_type_insert(&self, new: &VolumeType) -> Result<(), StoreError> {
        self.exec(
            format!("INSERT INTO volume_types ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"),
            params![
                new.id,
                &new.name,
                &new.description,
                new.is_public,
                Json(&new.extra_specs),
                new.qos_specs_id,
                new.created_at,
                new.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// The type that volumes have unless they name one; made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_default(&self) -> Result<VolumeType, StoreError> {
        if let Some(found) = self.volume_type_by_name(VOLUME_TYPE_DEFAULT).await? {
            return Ok(found);
        }
        self.exec(
            format!(
                "INSERT INTO volume_types ({COLUMNS}) VALUES ($1, $2, $3, TRUE, '{{}}', NULL, $4, NULL)
                 ON CONFLICT DO NOTHING"
            ),
            params![VolumeTypeId::random(), VOLUME_TYPE_DEFAULT, "Default Volume Type", Timestamp::now()],
        )
        .await?;
        self.volume_type_by_name(VOLUME_TYPE_DEFAULT).await?.ok_or(StoreError::Stale("the default volume type"))
    }
}
