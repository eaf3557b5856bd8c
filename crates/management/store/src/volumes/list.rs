//! Lists of volumes: filters, order and pages.

use super::{COLUMNS, Volume, volume};
use crate::images::TimeTest;
use crate::listing::behind;
use crate::sql::{Param, Where, params};
use crate::{Db, StoreError};
use arcus_types::volumes::VolumeStatus;
use arcus_types::{NodeId, ProjectId, Timestamp, UserId, VolumeGroupId, VolumeId, VolumeTypeId};

/// What a list of volumes can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeSort {
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The name.
    Name,
    /// The id.
    Id,
    /// The state.
    Status,
    /// The size.
    Size,
    /// The zone.
    Zone,
    /// The type's id.
    Type,
    /// Whether a server can boot from it.
    Bootable,
    /// The owner.
    Project,
    /// The maker.
    User,
    /// The node.
    Node,
}

impl VolumeSort {
    /// An expression that is never NULL.
    const fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "COALESCE(updated_at, 0)",
            Self::Name => "COALESCE(name, '')",
            Self::Id => "id",
            Self::Status => "status",
            Self::Size => "size_gib",
            Self::Zone => "availability_zone",
            Self::Type => "volume_type_id",
            Self::Bootable => "CASE WHEN bootable THEN 1 ELSE 0 END",
            Self::Project => "project_id",
            Self::User => "user_id",
            // The order of ids is as good as any other, and no node is the first.
            Self::Node => "CASE WHEN node_id IS NULL THEN id ELSE node_id END",
        }
    }
}

/// Which volumes a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct VolumeFilter {
    /// Of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// Made by this user.
    pub user_id: Option<UserId>,
    /// With one of these ids.
    pub ids: Option<Vec<VolumeId>>,
    /// With exactly this name.
    pub name: Option<String>,
    /// With this text in the name.
    pub name_like: Option<String>,
    /// With this description.
    pub description: Option<String>,
    /// In one of these states; an empty list matches nothing.
    pub statuses: Option<Vec<VolumeStatus>>,
    /// In this zone.
    pub zone: Option<String>,
    /// Bootable or not.
    pub bootable: Option<bool>,
    /// Shareable or not.
    pub multiattach: Option<bool>,
    /// Of this type.
    pub volume_type_id: Option<VolumeTypeId>,
    /// In this node's pool.
    pub node_id: Option<NodeId>,
    /// In this group.
    pub group_id: Option<VolumeGroupId>,
    /// Of this size in GiB.
    pub size_gib: Option<u64>,
    /// With all of these pairs in its metadata.
    pub metadata: Vec<(String, String)>,
    /// With all of these pairs in its image metadata.
    pub image_metadata: Vec<(String, String)>,
    /// Asked for then.
    pub created_at: Vec<(TimeTest, Timestamp)>,
    /// Changed then.
    pub updated_at: Vec<(TimeTest, Timestamp)>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(VolumeSort, bool)>,
    /// The volume after which the page begins.
    pub marker: Option<VolumeId>,
    /// So many rows are skipped.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u64,
}

/// How many volumes there are, and how large they are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeCounts {
    /// How many.
    pub count: u64,
    /// The sum of their sizes in GiB.
    pub gibs: u64,
}

impl Db {
    /// Volumes in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_list(&self, wanted: &VolumeFilter) -> Result<Vec<Volume>, StoreError> {
        let mut filter = Where::default();
        conditions(wanted, self.is_postgres(), &mut filter);
        let mut sort: Vec<(&str, bool)> = wanted.sort.iter().map(|(key, down)| (key.expression(), *down)).collect();
        if sort.is_empty() {
            sort.push((VolumeSort::CreatedAt.expression(), true));
        }
        let sql =
            ordered("volumes", COLUMNS, &mut filter, sort, wanted.marker.map(|m| m.0), wanted.limit, wanted.offset);
        self.all(sql, filter.params).await?.iter().map(volume).collect()
    }

    /// How many volumes match, and how large they are together; order and page do not count.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_count(&self, wanted: &VolumeFilter) -> Result<VolumeCounts, StoreError> {
        let mut filter = Where::default();
        conditions(wanted, self.is_postgres(), &mut filter);
        let sql = format!(
            "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(size_gib), 0) AS BIGINT) AS gibs FROM volumes{}",
            filter.sql()
        );
        let row = self.one(sql, filter.params).await?;
        row.map_or(Ok(VolumeCounts::default()), |r| Ok(VolumeCounts { count: r.get("n")?, gibs: r.get("gibs")? }))
    }
}

impl Db {
    /// The pairs in the metadata of the volumes that match, at most `limit` of them, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn volume_metadata_pairs(
        &self,
        wanted: &VolumeFilter,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let mut filter = Where::default();
        conditions(wanted, self.is_postgres(), &mut filter);
        let each = if self.is_postgres() { "jsonb_each_text(v.metadata::jsonb)" } else { "json_each(v.metadata)" };
        let sql = format!(
            "SELECT DISTINCT j.key AS k, j.value AS v FROM (SELECT metadata FROM volumes{}) v, {each} j
             ORDER BY k, v LIMIT {limit}",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|r| Ok((r.get("k")?, r.get("v")?))).collect()
    }
}

fn conditions(wanted: &VolumeFilter, postgres: bool, filter: &mut Where) {
    if let Some(ids) = &wanted.ids {
        filter.and_in("id", ids.clone());
    }
    if let Some(statuses) = &wanted.statuses {
        filter.and_in("status", statuses.iter().map(|s| s.as_str()).collect());
    }
    let mut equal = |column: &str, value: Option<sea_orm::Value>| {
        if let Some(value) = value {
            filter.and(&format!("{column} = ?"), vec![value]);
        }
    };
    equal("project_id", wanted.project_id.map(Param::value));
    equal("user_id", wanted.user_id.map(Param::value));
    equal("name", wanted.name.as_ref().map(Param::value));
    equal("description", wanted.description.as_ref().map(Param::value));
    equal("availability_zone", wanted.zone.as_ref().map(Param::value));
    equal("bootable", wanted.bootable.map(Param::value));
    equal("multiattach", wanted.multiattach.map(Param::value));
    equal("volume_type_id", wanted.volume_type_id.map(Param::value));
    equal("node_id", wanted.node_id.map(Param::value));
    equal("size_gib", wanted.size_gib.map(Param::value));
    equal("group_id", wanted.group_id.map(Param::value));
    if let Some(text) = &wanted.name_like {
        contains(filter, postgres, "COALESCE(name, '')", text);
    }
    pairs(filter, postgres, "metadata", &wanted.metadata);
    pairs(filter, postgres, "COALESCE(image_metadata, '{}')", &wanted.image_metadata);
    times(filter, "created_at", &wanted.created_at);
    times(filter, "COALESCE(updated_at, created_at)", &wanted.updated_at);
}

/// Rows whose `column` contains `text`, capitals told apart.
pub(crate) fn contains(filter: &mut Where, postgres: bool, column: &str, text: &str) {
    let function = if postgres { "strpos" } else { "instr" };
    filter.and(&format!("{function}({column}, ?) > 0"), params![text]);
}

/// Rows whose document of texts holds all of these pairs. Such a document is always written in the same way, with its
/// quotes escaped, so a pair is there exactly if its written form is.
pub(crate) fn pairs(filter: &mut Where, postgres: bool, column: &str, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        let written = |text: &str| serde_json::to_string(text).unwrap_or_default();
        contains(filter, postgres, column, &format!("{}:{}", written(key), written(value)));
    }
}

/// Rows whose instant passes all of these tests, to the second.
pub(crate) fn times(filter: &mut Where, column: &str, tests: &[(TimeTest, Timestamp)]) {
    for (test, at) in tests {
        let second = at.0.div_euclid(1_000_000).saturating_mul(1_000_000);
        filter.and(&format!("({column} / 1000000) * 1000000 {} ?", test.sql()), params![Timestamp(second)]);
    }
}

/// The text of a list query: the filter's conditions, sort keys that end in the id, and one row more than the page has.
pub(crate) fn ordered(
    table: &str,
    columns: &str,
    filter: &mut Where,
    mut sort: Vec<(&str, bool)>,
    marker: Option<uuid::Uuid>,
    limit: u64,
    offset: u64,
) -> String {
    let downwards = sort.first().is_none_or(|(_, down)| *down);
    if !sort.iter().any(|(key, _)| *key == "id") {
        sort.push(("id", downwards));
    }
    if let Some(marker) = marker {
        behind(filter, table, &sort, marker);
    }
    let order: Vec<String> =
        sort.iter().map(|(key, down)| format!("{key}{}", if *down { " DESC" } else { "" })).collect();
    let limit = limit.saturating_add(1).min(10_000);
    let offset = if offset > 0 { format!(" OFFSET {offset}") } else { String::new() };
    format!("SELECT {columns} FROM {table}{} ORDER BY {} LIMIT {limit}{offset}", filter.sql(), order.join(", "))
}
