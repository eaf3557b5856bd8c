//! The query string of a list of servers.

use crate::ApiError;
use crate::body::Pairs;
use crate::compute::fields::truth;
use crate::compute::links::{instant, known, limit, parse as parse_text, parsed};
use crate::microversion::Microversion;
use arcus_engine::servers::{ServerQuery, at_statuses};
use arcus_store::{ServerFilter, ServerSort, ServerVisibility};
use arcus_types::OpCtx;
use arcus_types::servers::{ServerState, ServerTask};

/// Every status that a server may show; source: the compute API guide, "Server concepts".
const STATUSES: &[&str] = &[
    "ACTIVE",
    "BUILD",
    "DELETED",
    "ERROR",
    "HARD_REBOOT",
    "MIGRATING",
    "PASSWORD",
    "PAUSED",
    "REBOOT",
    "REBUILD",
    "RESCUE",
    "RESIZE",
    "REVERT_RESIZE",
    "SHELVED",
    "SHELVED_OFFLOADED",
    "SHUTOFF",
    "SOFT_DELETED",
    "SUSPENDED",
    "UNKNOWN",
    "VERIFY_RESIZE",
];

/// Every parameter of a list of servers; source: the compute API's schema. Some have never filtered anything.
const PARAMETERS: &[&str] = &[
    "user_id",
    "project_id",
    "tenant_id",
    "launch_index",
    "image_ref",
    "image",
    "kernel_id",
    "ramdisk_id",
    "hostname",
    "key_name",
    "instance_type_id",
    "flavor",
    "reservation_id",
    "launched_at",
    "terminated_at",
    "availability_zone",
    "name",
    "display_name",
    "host",
    "node",
    "hypervisor_hostname",
    "uuid",
    "display_description",
    "description",
    "instance_name",
    "changes-since",
    "changes-before",
    "access_ip_v4",
    "access_ip_v6",
    "accessIPv4",
    "accessIPv6",
    "auto_disk_config",
    "config_drive",
    "progress",
    "all_tenants",
    "all_projects",
    "deleted",
    "status",
    "vm_state",
    "task_state",
    "power_state",
    "root_device_name",
    "ip",
    "ip6",
    "created_at",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "locked",
    "limit",
    "marker",
    "sort_key",
    "sort_dir",
    "soft_deleted",
    "block_device_mapping",
    "services",
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "fault",
    "pci_devices",
];

/// What is asked for. Filters that a caller may not use are left out, as the API has always done.
pub fn parse(ctx: &OpCtx, query: &Pairs, version: Microversion) -> Result<ServerQuery, ApiError> {
    let admin = ctx.is_admin();
    if version.at_least(75) {
        known(query, PARAMETERS)?;
    }
    let all_projects = match query.first("all_tenants").or(query.first("all_projects")) {
        None => false,
        Some("") => true,
        Some(text) => truth(text).ok_or_else(|| {
            ApiError::bad_request("Invalid input for query parameters all_tenants. It is not a boolean.")
        })?,
    };
    let mut filter = ServerFilter {
        limit: limit(query)?,
        marker: parsed(query, "marker")?,
        sort: sort(query)?,
        changes_since: instant(query, "changes-since")?,
        changes_before: if version.at_least(66) { instant(query, "changes-before")? } else { None },
        image_id: None,
        flavor_id: parsed(query, "flavor")?,
        zone: query.first("availability_zone").map(str::to_owned),
        ..ServerFilter::default()
    };
    in_order(&filter)?;
    filter.visibility = visibility(query, admin, &filter);
    states(query, &mut filter, admin || version.at_least(83), version)?;
    if let Some(text) = query.first("image") {
        match text.rsplit('/').next().unwrap_or(text).parse() {
            Ok(id) => filter.image_id = Some(id),
            // What is no id matches nothing.
            Err(_) => filter.ids = Some(Vec::new()),
        }
    }
    if let Some(text) = query.first("uuid") {
        filter.ids = Some(vec![parse_text("uuid", text)?]);
    }
    if admin || version.at_least(83) {
        filter.user_id = parsed(query, "user_id")?;
    }
    if admin && all_projects {
        let project = query.first("project_id").or(query.first("tenant_id"));
        filter.project_id = project.map(|text| parse_text("project_id", text)).transpose()?;
    }
    if version.at_least(73) {
        filter.locked = query.first("locked").and_then(truth);
    }
    if version.at_least(26) {
        let list = |key: &str| -> Vec<String> {
            query.every(key).flat_map(|v| v.split(',')).filter(|t| !t.is_empty()).map(str::to_owned).collect()
        };
        filter.tags = list("tags");
        filter.tags_any = list("tags-any");
        filter.not_tags = list("not-tags");
        filter.not_tags_any = list("not-tags-any");
    }
    // Filters that everybody may use from 2.83 on, and administrators always could.
    let open = admin || version.at_least(83);
    let node = query.first("host").or(query.first("node")).or(query.first("hypervisor_hostname"));
    Ok(ServerQuery {
        filter,
        all_projects,
        name: query.first("name").or(query.first("display_name")).map(str::to_owned),
        ip: query.first("ip").map(str::to_owned),
        ip6: query.first("ip6").filter(|_| admin || version.at_least(5)).map(str::to_owned),
        node: node.filter(|_| admin).map(str::to_owned),
        key_name: query.first("key_name").filter(|_| open).map(str::to_owned),
        config_drive: query.first("config_drive").filter(|_| open).and_then(truth),
        around: false,
        secrets: false,
    })
}

/// Refuses a span of time that ends before it begins.
fn in_order(filter: &ServerFilter) -> Result<(), ApiError> {
    match (filter.changes_since, filter.changes_before) {
        (Some(since), Some(before)) if since > before => {
            Err(ApiError::bad_request("The value of changes-since must be less than or equal to changes-before."))
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// Servers that are gone show in lists of changes, and for administrators who ask for them.
fn visibility(query: &Pairs, admin: bool, filter: &ServerFilter) -> ServerVisibility {
    let asked = query.first("deleted").and_then(truth);
    let status = query.every("status").any(|s| s.eq_ignore_ascii_case("deleted"));
    match asked {
        Some(true) if admin => ServerVisibility::Gone,
        Some(false) => ServerVisibility::Live,
        Some(true) | None if admin && status => ServerVisibility::Gone,
        Some(true) | None if filter.changes_since.is_some() || filter.changes_before.is_some() => ServerVisibility::All,
        Some(true) | None => ServerVisibility::Live,
    }
}

fn states(query: &Pairs, filter: &mut ServerFilter, open: bool, version: Microversion) -> Result<(), ApiError> {
    let statuses: Vec<String> = query.every("status").map(str::to_owned).collect();
    // Before 2.38 an unknown status matched nothing.
    if version.at_least(38)
        && let Some(unknown) = statuses.iter().find(|s| !STATUSES.iter().any(|known| known.eq_ignore_ascii_case(s)))
    {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(ApiError::bad_request(format!("Invalid status value: {unknown}")));
    }
    let vm_states: Vec<ServerState> = query.every("vm_state").filter_map(|s| s.parse().ok()).collect();
    let asked_states = open && query.first("vm_state").is_some();
    let task_asked = query.first("task_state").filter(|_| open);
    if statuses.is_empty() && !asked_states && task_asked.is_none() {
        filter.power_state = if open { parsed(query, "power_state")? } else { None };
        return Ok(());
    }
    let mut at = if statuses.is_empty() { at_any() } else { at_statuses(&statuses) };
    if asked_states {
        at.retain(|(state, _)| vm_states.contains(state));
    }
    if let Some(text) = task_asked {
        at.retain(|(_, task)| match task {
            Some(task) => task.task_state() == text,
            None => text.eq_ignore_ascii_case("none"),
        });
    }
    filter.at = Some(at);
    filter.power_state = if open { parsed(query, "power_state")? } else { None };
    Ok(())
}

fn at_any() -> Vec<(ServerState, Option<ServerTask>)> {
    let statuses: Vec<String> = ServerState::ALL
        .iter()
        .flat_map(|s| {
            let tasks = std::iter::once(None).chain(ServerTask::ALL.iter().copied().map(Some));
            tasks.map(|t| s.status(t).to_owned()).collect::<Vec<_>>()
        })
        .collect();
    at_statuses(&statuses)
}

/// Sort keys with their directions. Keys that all servers share the value of order nothing and are left out.
fn sort(query: &Pairs) -> Result<Vec<(ServerSort, bool)>, ApiError> {
    let dirs: Vec<&str> = query.every("sort_dir").collect();
    let mut sort = Vec::new();
    for (i, key) in query.every("sort_key").enumerate() {
        let downwards = match dirs.get(i).or(dirs.last()) {
            None | Some(&"desc") => true,
            Some(&"asc") => false,
            Some(_) => {
                return Err(ApiError::bad_request("Invalid input for query parameters sort_dir: use asc or desc."));
            }
        };
        let by = match key {
            "created_at" => ServerSort::CreatedAt,
            "updated_at" => ServerSort::UpdatedAt,
            "launched_at" => ServerSort::LaunchedAt,
            "display_name" | "hostname" => ServerSort::Name,
            "uuid" => ServerSort::Id,
            "vm_state" => ServerSort::State,
            "task_state" => ServerSort::Task,
            "power_state" => ServerSort::PowerState,
            "progress" => ServerSort::Progress,
            "availability_zone" => ServerSort::Zone,
            "instance_type_id" => ServerSort::Flavor,
            "image_ref" => ServerSort::Image,
            "project_id" => ServerSort::Project,
            "user_id" => ServerSort::User,
            "memory_mb" => ServerSort::Memory,
            "vcpus" => ServerSort::Vcpus,
            "root_gb" => ServerSort::Disk,
            "locked" => ServerSort::Locked,
            "access_ip_v4"
            | "access_ip_v6"
            | "auto_disk_config"
            | "config_drive"
            | "display_description"
            | "ephemeral_gb"
            | "host"
            | "kernel_id"
            | "key_name"
            | "launch_index"
            | "locked_by"
            | "node"
            | "ramdisk_id"
            | "root_device_name"
            | "terminated_at" => continue,
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(ApiError::bad_request(format!(
                    "Invalid input for query parameters sort_key. Value: {other}."
                )));
            }
        };
        sort.push((by, downwards));
    }
    Ok(sort)
}
