//! Flavors: the shapes that servers come in, and which projects may use the private ones.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::flavors::FlavorId;
use arcus_types::{ProjectId, Timestamp};
use std::collections::BTreeMap;

/// A shape that servers come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flavor {
    /// Its id: any short text.
    pub id: FlavorId,
    /// Its name, unique in the cloud.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The root disk in GiB; 0 is the image's own size.
    pub disk_gib: u64,
    /// A second disk in GiB; only kept for clients that send it.
    pub ephemeral_gib: u64,
    /// Swap space in MiB; only kept for clients that send it.
    pub swap_mib: u64,
    /// Network share in percent of normal; only kept for clients that send it.
    pub rxtx_percent: u32,
    /// Whether every project may use it.
    pub is_public: bool,
    /// Free text.
    pub description: Option<String>,
    /// Further settings.
    pub extra_specs: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Which flavors a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct FlavorFilter {
    /// Only what this project may use; `None` is everything.
    pub viewer: Option<ProjectId>,
    /// Only public (`true`) or private (`false`) ones.
    pub is_public: Option<bool>,
    /// At least so much memory, in MiB.
    pub memory_mib_min: u64,
    /// At least so much disk, in GiB.
    pub disk_gib_min: u64,
    /// What to sort by before the id, and whether downwards.
    pub sort: Option<FlavorSort>,
    /// Downwards.
    pub descending: bool,
    /// The flavor after which the page begins.
    pub marker: Option<FlavorId>,
    /// At most so many rows.
    pub limit: u64,
}

/// What a list of flavors can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlavorSort {
    /// The id.
    Id,
    /// The name.
    Name,
    /// The memory.
    Memory,
    /// The disk.
    Disk,
    /// The number of virtual CPUs.
    Vcpus,
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
}

impl FlavorSort {
    const fn column(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Memory => "memory_mib",
            Self::Disk => "disk_gib",
            Self::Vcpus => "vcpus",
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
        }
    }
}

const COLUMNS: &str = "id, name, vcpus, memory_mib, disk_gib, ephemeral_gib, swap_mib, rxtx_percent, is_public, description, \
     extra_specs, created_at, updated_at";

fn flavor(row: &Row) -> Result<Flavor, StoreError> {
    Ok(Flavor {
        id: row.text("id")?,
        name: row.get("name")?,
        vcpus: row.get("vcpus")?,
        memory_mib: row.get("memory_mib")?,
        disk_gib: row.get("disk_gib")?,
        ephemeral_gib: row.get("ephemeral_gib")?,
        swap_mib: row.get("swap_mib")?,
        rxtx_percent: row.get("rxtx_percent")?,
        is_public: row.get("is_public")?,
        description: row.opt("description")?,
        extra_specs: row.json("extra_specs")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The flavor with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_get(&self, id: &FlavorId) -> Result<Option<Flavor>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM flavors WHERE id = $1"), params![id.as_str()]).await?;
        row.as_ref().map(flavor).transpose()
    }

    /// Flavors in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_list(&self, wanted: &FlavorFilter) -> Result<Vec<Flavor>, StoreError> {
        let mut filter = Where::default();
        if let Some(viewer) = wanted.viewer {
            let mine = "(is_public OR id IN (SELECT flavor_id FROM flavor_access WHERE project_id = ?))";
            filter.and(mine, params![viewer]);
        }
        if let Some(is_public) = wanted.is_public {
            filter.and("is_public = ?", params![is_public]);
        }
        if wanted.memory_mib_min > 0 {
            filter.and("memory_mib >= ?", params![wanted.memory_mib_min]);
        }
        if wanted.disk_gib_min > 0 {
            filter.and("disk_gib >= ?", params![wanted.disk_gib_min]);
        }
        let column = wanted.sort.unwrap_or(FlavorSort::Id).column();
        let (beyond, order) = if wanted.descending { ("<", "DESC") } else { (">", "ASC") };
        if let Some(marker) = &wanted.marker {
            let at = format!("(SELECT m.{column} FROM flavors m WHERE m.id = ?)");
            filter.and(
                &format!("({column} {beyond} {at} OR ({column} = {at} AND id {beyond} ?))"),
                params![marker.as_str(), marker.as_str(), marker.as_str()],
            );
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM flavors{} ORDER BY {column} {order}, id {order} LIMIT {}",
            filter.sql(),
            wanted.limit.saturating_add(1).min(10_000)
        );
        self.all(sql, filter.params).await?.iter().map(flavor).collect()
    }

    /// The projects that may use a private flavor.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_access_list(&self, id: &FlavorId) -> Result<Vec<ProjectId>, StoreError> {
        let rows = self
            .all("SELECT project_id FROM flavor_access WHERE flavor_id = $1 ORDER BY project_id", params![id.as_str()])
            .await?;
        rows.iter().map(|r| r.get("project_id")).collect()
    }
}

impl Tx {
    /// Records a flavor.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its id or name is taken.
    pub async fn flavor_insert(&self, new: &Flavor) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO flavors (id, name, vcpus, memory_mib, disk_gib, ephemeral_gib, swap_mib, rxtx_percent, is_public,
             description, extra_specs, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)",
            params![
                new.id.as_str(), &new.name, new.vcpus, new.memory_mib, new.disk_gib, new.ephemeral_gib, new.swap_mib,
                new.rxtx_percent, new.is_public, &new.description, Json(&new.extra_specs), new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a flavor may change: its description and its further settings.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_update(&self, flavor: &Flavor) -> Result<(), StoreError> {
        self.exec(
            "UPDATE flavors SET description = $2, extra_specs = $3, updated_at = $4 WHERE id = $1",
            params![flavor.id.as_str(), &flavor.description, Json(&flavor.extra_specs), Timestamp::now()],
        )
        .await?;
        Ok(())
    }

    /// Removes a flavor; servers keep their copy of it. `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_delete(&self, id: &FlavorId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM flavors WHERE id = $1", params![id.as_str()]).await? == 1)
    }

    /// Lets a project use a private flavor.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if it may already.
    pub async fn flavor_access_insert(&self, id: &FlavorId, project: ProjectId) -> Result<(), StoreError> {
        self.exec("INSERT INTO flavor_access (flavor_id, project_id) VALUES ($1, $2)", params![id.as_str(), project])
            .await?;
        Ok(())
    }

    /// Takes that right back; `false` if the project did not have it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn flavor_access_delete(&self, id: &FlavorId, project: ProjectId) -> Result<bool, StoreError> {
        let changed = self
            .exec("DELETE FROM flavor_access WHERE flavor_id = $1 AND project_id = $2", params![id.as_str(), project])
            .await?;
        Ok(changed == 1)
    }
}
