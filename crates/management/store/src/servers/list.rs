//! Lists of servers: filters, order and pages.

use super::{COLUMNS, Server, server};
use crate::sql::{Param, Where, params};
use crate::{Db, StoreError};
use arcus_types::flavors::FlavorId;
use arcus_types::servers::{ServerState, ServerTask};
use arcus_types::{ImageId, NodeId, ProjectId, ServerGroupId, ServerId, Timestamp, UserId};

/// Whether a list holds servers that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerVisibility {
    /// Only those that are there.
    #[default]
    Live,
    /// Only those that are gone.
    Gone,
    /// Both.
    All,
}

/// What a list of servers can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerSort {
    /// The time of creation.
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The time when it first ran.
    LaunchedAt,
    /// The name.
    Name,
    /// The id.
    Id,
    /// The state.
    State,
    /// What is being done.
    Task,
    /// What its node saw.
    PowerState,
    /// How far a preparation is.
    Progress,
    /// The zone.
    Zone,
    /// The flavor's id.
    Flavor,
    /// The image's id.
    Image,
    /// The owner.
    Project,
    /// The maker.
    User,
    /// Memory claimed.
    Memory,
    /// Virtual CPUs claimed.
    Vcpus,
    /// Disk claimed.
    Disk,
    /// Whether it is locked.
    Locked,
}

impl ServerSort {
    /// An expression that is never NULL.
    const fn expression(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::LaunchedAt => "COALESCE(launched_at, 0)",
            Self::Name => "name",
            Self::Id => "id",
            Self::State => "state",
            Self::Task => "COALESCE(task, '')",
            Self::PowerState => "power_state",
            Self::Progress => "progress",
            Self::Zone => "availability_zone",
            Self::Flavor => "flavor_id",
            Self::Image => "image_id",
            Self::Project => "project_id",
            Self::User => "user_id",
            Self::Memory => "memory_mib",
            Self::Vcpus => "vcpus",
            Self::Disk => "disk_gib",
            Self::Locked => "CASE WHEN locked THEN 1 ELSE 0 END",
        }
    }
}

/// Which servers a list holds, and in which order.
#[derive(Debug, Clone, Default)]
pub struct ServerFilter {
    /// Of this project; `None` is all.
    pub project_id: Option<ProjectId>,
    /// Made by this user.
    pub user_id: Option<UserId>,
    /// With one of these ids.
    pub ids: Option<Vec<ServerId>>,
    /// In one of these states and tasks; an empty list matches nothing.
    pub at: Option<Vec<(ServerState, Option<ServerTask>)>>,
    /// Made of this image.
    pub image_id: Option<ImageId>,
    /// With this flavor.
    pub flavor_id: Option<FlavorId>,
    /// On this node; `Some(None)` is on none.
    pub node_id: Option<Option<NodeId>>,
    /// In this zone.
    pub zone: Option<String>,
    /// With exactly this name.
    pub name: Option<String>,
    /// In this group.
    pub server_group_id: Option<ServerGroupId>,
    /// Locked or not.
    pub locked: Option<bool>,
    /// With this power state's number.
    pub power_state: Option<i64>,
    /// Changed at or after.
    pub changes_since: Option<Timestamp>,
    /// Changed at or before.
    pub changes_before: Option<Timestamp>,
    /// There at some time between these instants.
    pub existed: Option<(Timestamp, Timestamp)>,
    /// Whether those that are gone are meant.
    pub visibility: ServerVisibility,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With any of these tags.
    pub tags_any: Vec<String>,
    /// Without all of these tags.
    pub not_tags: Vec<String>,
    /// Without any of these tags.
    pub not_tags_any: Vec<String>,
    /// What to sort by, each with whether downwards; then by id.
    pub sort: Vec<(ServerSort, bool)>,
    /// The server after which the page begins.
    pub marker: Option<ServerId>,
    /// At most so many rows.
    pub limit: u64,
}

impl Db {
    /// Servers in order, at most `limit + 1` of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_list(&self, wanted: &ServerFilter) -> Result<Vec<Server>, StoreError> {
        let mut filter = Where::default();
        conditions(wanted, &mut filter);
        tag_conditions(wanted, &mut filter);
        let mut sort = wanted.sort.clone();
        if sort.is_empty() {
            sort.push((ServerSort::CreatedAt, true));
        }
        let downwards = sort.first().is_none_or(|(_, down)| *down);
        if !sort.iter().any(|(key, _)| *key == ServerSort::Id) {
            sort.push((ServerSort::Id, downwards));
        }
        if let Some(marker) = wanted.marker {
            behind(&sort, marker, &mut filter);
        }
        let order: Vec<String> = sort
            .iter()
            .map(|(key, down)| format!("{}{}", key.expression(), if *down { " DESC" } else { "" }))
            .collect();
        let limit = wanted.limit.saturating_add(1).min(10_000);
        let sql = format!("SELECT {COLUMNS} FROM servers{} ORDER BY {} LIMIT {limit}", filter.sql(), order.join(", "));
        self.all(sql, filter.params).await?.iter().map(server).collect()
    }
}

/// Rows that come after the marker: greater in the first key, or equal there and greater in the next, and so on.
fn behind(sort: &[(ServerSort, bool)], marker: ServerId, filter: &mut Where) {
    let at = |key: ServerSort| format!("(SELECT {} FROM servers WHERE id = ?)", key.expression());
    let mut choices = Vec::new();
    let mut marks = 0;
    for (i, (key, down)) in sort.iter().enumerate() {
        let mut parts: Vec<String> =
            sort[..i].iter().map(|(k, _)| format!("{} = {}", k.expression(), at(*k))).collect();
        parts.push(format!("{} {} {}", key.expression(), if *down { "<" } else { ">" }, at(*key)));
        marks += parts.len();
        choices.push(format!("({})", parts.join(" AND ")));
    }
    filter.and(&format!("({})", choices.join(" OR ")), vec![marker.value(); marks]);
}

fn conditions(wanted: &ServerFilter, filter: &mut Where) {
    match wanted.visibility {
        ServerVisibility::Live => filter.and("deleted_at IS NULL", vec![]),
        ServerVisibility::Gone => filter.and("deleted_at IS NOT NULL", vec![]),
        ServerVisibility::All => filter,
    };
    if let Some(ids) = &wanted.ids {
        filter.and_in("id", ids.clone());
    }
    if let Some(at) = &wanted.at {
        let mut texts = Vec::new();
        let mut values = Vec::new();
        for (state, task) in at {
            values.push(state.text().value());
            match task {
                None => texts.push("(state = ? AND task IS NULL)"),
                Some(task) => {
                    values.push(task.text().value());
                    texts.push("(state = ? AND task = ?)");
                }
            }
        }
        let any = if texts.is_empty() { "1 = 0".to_owned() } else { texts.join(" OR ") };
        filter.and(&format!("({any})"), values);
    }
    match wanted.node_id {
        Some(Some(node)) => filter.and("node_id = ?", params![node]),
        Some(None) => filter.and("node_id IS NULL", vec![]),
        None => filter,
    };
    let mut equal = |column: &str, value: Option<sea_orm::Value>| {
        if let Some(value) = value {
            filter.and(&format!("{column} = ?"), vec![value]);
        }
    };
    equal("project_id", wanted.project_id.map(Param::value));
    equal("user_id", wanted.user_id.map(Param::value));
    equal("image_id", wanted.image_id.map(Param::value));
    equal("flavor_id", wanted.flavor_id.as_ref().map(|f| f.as_str().value()));
    equal("availability_zone", wanted.zone.as_ref().map(Param::value));
    equal("name", wanted.name.as_ref().map(Param::value));
    equal("server_group_id", wanted.server_group_id.map(Param::value));
    equal("locked", wanted.locked.map(Param::value));
    equal("power_state", wanted.power_state.map(Param::value));
    if let Some((from, to)) = wanted.existed {
        filter.and("created_at < ? AND (deleted_at IS NULL OR deleted_at > ?)", params![to, from]);
    }
    if let Some(at) = wanted.changes_since {
        filter.and("updated_at >= ?", params![at]);
    }
    if let Some(at) = wanted.changes_before {
        filter.and("updated_at <= ?", params![at]);
    }
}

fn tag_conditions(wanted: &ServerFilter, filter: &mut Where) {
    let has = "id IN (SELECT server_id FROM server_tags WHERE tag = ?)";
    for tag in &wanted.tags {
        filter.and(has, params![tag]);
    }
    let any = |tags: &[String]| {
        let marks = vec!["?"; tags.len()].join(", ");
        let values: Vec<sea_orm::Value> = tags.iter().map(Param::value).collect();
        (format!("IN (SELECT server_id FROM server_tags WHERE tag IN ({marks}))"), values)
    };
    if !wanted.tags_any.is_empty() {
        let (text, values) = any(&wanted.tags_any);
        filter.and(&format!("id {text}"), values);
    }
    if !wanted.not_tags.is_empty() {
        let all = vec![has; wanted.not_tags.len()].join(" AND ");
        filter.and(&format!("NOT ({all})"), wanted.not_tags.iter().map(Param::value).collect());
    }
    if !wanted.not_tags_any.is_empty() {
        let (text, values) = any(&wanted.not_tags_any);
        filter.and(&format!("id NOT {text}"), values);
    }
}
