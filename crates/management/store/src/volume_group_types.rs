//! Kinds of groups of volumes.

use crate::sql::{Json, Row, Where, params};
use crate::volumes::ordered;
use crate::{Db, StoreError, Tx};
use arcus_types::{Timestamp, VolumeGroupTypeId};
use std::collections::BTreeMap;

/// A kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeGroupType {
    /// Its id.
    pub id: VolumeGroupTypeId,
    /// Its name, unique in the cloud.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whether everybody may use it; otherwise only administrators do.
    pub is_public: bool,
    /// Key and value pairs.
    pub specs: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Option<Timestamp>,
}

/// What a list of group types can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeGroupTypeSort {
    /// The time of creation.
    CreatedAt,
    /// The name.
    Name,
    /// The id.
    Id,
}

/// Which group types a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeGroupTypeFilter {
    /// Only public (`true`) or other (`false`) ones.
    pub is_public: Option<bool>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeGroupTypeSort, bool)>,
    /// The type after which the page begins.
    pub marker: Option<VolumeGroupTypeId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

const COLUMNS: &str = "id, name, description, is_public, specs, created_at, updated_at";

fn group_type(row: &Row) -> Result<VolumeGroupType, StoreError> {
    Ok(VolumeGroupType {
        id: row.get("id")?,
        name: row.get("name")?,
        description: row.opt("description")?,
        is_public: row.get("is_public")?,
        specs: row.json("specs")?,
        created_at: row.get("created_at")?,
        updated_at: row.opt("updated_at")?,
    })
}

impl Db {
    /// The group type with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_type_get(&self, id: VolumeGroupTypeId) -> Result<Option<VolumeGroupType>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_group_types WHERE id = $1"), params![id]).await?;
        row.as_ref().map(group_type).transpose()
    }

    /// The group type with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_type_by_name(&self, name: &str) -> Result<Option<VolumeGroupType>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM volume_group_types WHERE name = $1"), params![name]).await?;
        row.as_ref().map(group_type).transpose()
    }

    /// Group types in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_group_type_list(
        &self,
        wanted: &VolumeGroupTypeFilter,
    ) -> Result<Vec<VolumeGroupType>, StoreError> {
        let mut filter = Where::default();
        if let Some(is_public) = wanted.is_public {
            filter.and("is_public = ?", params![is_public]);
        }
        let key = |sort: VolumeGroupTypeSort| match sort {
            VolumeGroupTypeSort::CreatedAt => "created_at",
            VolumeGroupTypeSort::Name => "name",
            VolumeGroupTypeSort::Id => "id",
        };
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(sort, down)| (key(*sort), *down)).collect();
        if sort.is_empty() {
            sort.push(("created_at", true));
        }
        let marker = wanted.marker.map(|m| m.0);
        let sql = ordered("volume_group_types", COLUMNS, &mut filter, sort, marker, wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(group_type).collect()
    }
}

impl Tx {
    /// Records a group type.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its name is taken.
    pub async fn volume_group_type_insert(&self, new: &VolumeGroupType) -> Result<(), StoreError> {
        self.exec(
            format!("INSERT INTO volume_group_types ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"),
            params![
                new.id,
                &new.name,
                &new.description,
                new.is_public,
                Json(&new.specs),
                new.created_at,
                new.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Writes a group type back.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its name is taken.
    pub async fn volume_group_type_update(&self, changed: &VolumeGroupType) -> Result<(), StoreError> {
        self.exec(
            "UPDATE volume_group_types SET name = $2, description = $3, is_public = $4, specs = $5, updated_at = $6
             WHERE id = $1",
            params![
                changed.id,
                &changed.name,
                &changed.description,
                changed.is_public,
                Json(&changed.specs),
                changed.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Forgets a group type; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a group is of this type.
    pub async fn volume_group_type_delete(&self, id: VolumeGroupTypeId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_group_types WHERE id = $1", params![id]).await? == 1)
    }
}
