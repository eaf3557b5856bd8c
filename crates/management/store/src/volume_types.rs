//! Volume types: kinds of volumes, with their limits and who may use them.

use crate::sql::{Json, Row, Where, params};
use crate::volumes::{ordered, pairs};
use crate::{Db, StoreError, Tx};
use arcus_types::{ProjectId, QosSpecsId, Timestamp, VolumeTypeId};
use std::collections::BTreeMap;

/// The name of the type that volumes have unless they name one; made when it is first needed.
pub const VOLUME_TYPE_DEFAULT: &str = "dir";

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

/// What a list of types can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeTypeSort {
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The name.
    Name,
    /// The id.
    Id,
    /// Whether every project may use it.
    IsPublic,
    /// The description.
    Description,
}

impl VolumeTypeSort {
    /// An expression that is never NULL.
    const fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "COALESCE(updated_at, 0)",
            Self::Name => "name",
            Self::Id => "id",
            Self::IsPublic => "CASE WHEN is_public THEN 1 ELSE 0 END",
            Self::Description => "COALESCE(description, '')",
        }
    }
}

/// Which types a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeTypeFilter {
    /// Only what this project may use; `None` is everything.
    pub viewer: Option<ProjectId>,
    /// Only public (`true`) or private (`false`) ones.
    pub is_public: Option<bool>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With exactly this description.
    pub description: Option<String>,
    /// With all of these pairs in its extra specs.
    pub extra_specs: Vec<(String, String)>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeTypeSort, bool)>,
    /// The type after which the page begins.
    pub marker: Option<VolumeTypeId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
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

    /// Types in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_list(&self, wanted: &VolumeTypeFilter) -> Result<Vec<VolumeType>, StoreError> {
        let mut filter = Where::default();
        if let Some(viewer) = wanted.viewer {
            let mine = "(is_public OR id IN (SELECT volume_type_id FROM volume_type_access WHERE project_id = ?))";
            filter.and(mine, params![viewer]);
        }
        if let Some(is_public) = wanted.is_public {
            filter.and("is_public = ?", params![is_public]);
        }
        if let Some(name) = &wanted.name {
            filter.and("name = ?", params![name]);
        }
        if let Some(description) = &wanted.description {
            filter.and("description = ?", params![description]);
        }
        pairs(&mut filter, self.is_postgres(), "extra_specs", &wanted.extra_specs);
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(key, down)| (key.expression(), *down)).collect();
        if sort.is_empty() {
            sort.push((VolumeTypeSort::CreatedAt.expression(), true));
        }
        let marker = wanted.marker.map(|m| m.0);
        let sql = ordered("volume_types", COLUMNS, &mut filter, sort, marker, wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(volume_type).collect()
    }

    /// The types that have these limits, by name; at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_list_by_qos(&self, id: QosSpecsId, limit: u32) -> Result<Vec<VolumeType>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM volume_types WHERE qos_specs_id = $1 ORDER BY name LIMIT {limit}");
        self.all(sql, params![id]).await?.iter().map(volume_type).collect()
    }

    /// The projects that were given the use of a type that is not public.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_access_list(&self, id: VolumeTypeId) -> Result<Vec<ProjectId>, StoreError> {
        let sql = "SELECT project_id FROM volume_type_access WHERE volume_type_id = $1 ORDER BY project_id LIMIT 10000";
        self.all(sql, params![id]).await?.iter().map(|r| r.get("project_id")).collect()
    }

    /// The projects whose volumes get a type of their own unless they name one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_default_list(&self) -> Result<Vec<(ProjectId, VolumeTypeId)>, StoreError> {
        let sql = "SELECT project_id, volume_type_id FROM volume_default_types ORDER BY project_id LIMIT 10000";
        let rows = self.all(sql, vec![]).await?;
        rows.iter().map(|r| Ok((r.get("project_id")?, r.get("volume_type_id")?))).collect()
    }

    /// Whether a volume is of this type.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_used(&self, id: VolumeTypeId) -> Result<bool, StoreError> {
        Ok(self.one("SELECT 1 AS n FROM volumes WHERE volume_type_id = $1 LIMIT 1", params![id]).await?.is_some())
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

    /// Writes a type back.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its name is taken.
    pub async fn volume_type_update(&self, changed: &VolumeType) -> Result<(), StoreError> {
        self.exec(
            "UPDATE volume_types SET name = $2, description = $3, is_public = $4, extra_specs = $5, qos_specs_id = $6,
             updated_at = $7 WHERE id = $1",
            params![
                changed.id,
                &changed.name,
                &changed.description,
                changed.is_public,
                Json(&changed.extra_specs),
                changed.qos_specs_id,
                changed.updated_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Forgets a type, and that it was some projects' own default; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a volume is of this type.
    pub async fn volume_type_delete(&self, id: VolumeTypeId) -> Result<bool, StoreError> {
        self.exec("DELETE FROM volume_default_types WHERE volume_type_id = $1", params![id]).await?;
        self.type_quota_forget(id).await?;
        Ok(self.exec("DELETE FROM volume_types WHERE id = $1", params![id]).await? == 1)
    }

    /// Gives a project the use of a type; `false` if it has that already.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_access_insert(&self, id: VolumeTypeId, project: ProjectId) -> Result<bool, StoreError> {
        let sql = "INSERT INTO volume_type_access (volume_type_id, project_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        Ok(self.exec(sql, params![id, project]).await? == 1)
    }

    /// Takes the use of a type from a project; `false` if it does not have it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_access_delete(&self, id: VolumeTypeId, project: ProjectId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM volume_type_access WHERE volume_type_id = $1 AND project_id = $2";
        Ok(self.exec(sql, params![id, project]).await? == 1)
    }

    /// Sets the type that a project's volumes get unless they name one.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if there is no such type.
    pub async fn volume_type_default_set(&self, project: ProjectId, id: VolumeTypeId) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO volume_default_types (project_id, volume_type_id) VALUES ($1, $2)
             ON CONFLICT (project_id) DO UPDATE SET volume_type_id = excluded.volume_type_id",
            params![project, id],
        )
        .await?;
        Ok(())
    }

    /// Gives a project's volumes the cloud's default type again; `false` if they have it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_type_default_unset(&self, project: ProjectId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM volume_default_types WHERE project_id = $1", params![project]).await? == 1)
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
            params![VolumeTypeId::random(), VOLUME_TYPE_DEFAULT, "Files on the disks of nodes.", Timestamp::now()],
        )
        .await?;
        self.volume_type_by_name(VOLUME_TYPE_DEFAULT).await?.ok_or(StoreError::Stale("the default volume type"))
    }
}
