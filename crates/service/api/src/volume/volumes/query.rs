//! The query strings of lists of volumes, snapshots and attachments.

use crate::ApiError;
use crate::body::Pairs;
use crate::fields::truth;
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::volume::page::{flag, limit, offset, pairs, sort};
use arcus_engine::volume_attachments::AttachmentQuery;
use arcus_engine::volume_snapshots::VolumeSnapshotQuery;
use arcus_engine::volumes::VolumeQuery;
use arcus_store::{
    TimeTest, VolumeAttachmentFilter, VolumeAttachmentSort, VolumeFilter, VolumeSnapshotFilter, VolumeSnapshotSort,
    VolumeSort,
};
use arcus_types::{OpCtx, ProjectId, Timestamp, VolumeGroupId};

/// Which volumes are asked for. What no list filters by is left alone.
pub fn volumes(ctx: &OpCtx, query: &Pairs, version: Microversion) -> Result<VolumeQuery, ApiError> {
    let sort = sort(query, |key| {
        Some(match key {
            "created_at" => VolumeSort::CreatedAt,
            "updated_at" => VolumeSort::UpdatedAt,
            "name" | "display_name" => VolumeSort::Name,
            "id" => VolumeSort::Id,
            "status" => VolumeSort::Status,
            "size" => VolumeSort::Size,
            "availability_zone" => VolumeSort::Zone,
            "volume_type" | "volume_type_id" => VolumeSort::Type,
            "bootable" => VolumeSort::Bootable,
            "project_id" | "tenant_id" => VolumeSort::Project,
            "user_id" => VolumeSort::User,
            "host" => VolumeSort::Node,
            _ => return None,
        })
    })?;
    let all = all_projects(ctx, query)?;
    let statuses = query.first("status").map(|text| text.parse().into_iter().collect());
    let statuses = if counted(query, version)? { statuses } else { Some(Vec::new()) };
    let filter = VolumeFilter {
        project_id: project(ctx, query, all),
        user_id: parsed(query, "user_id")?,
        ids: query.first("id").map(|text| text.parse().into_iter().collect()),
        name: query.first("name").or(query.first("display_name")).map(str::to_owned),
        name_like: like(query, version, "name~").or_else(|| like(query, version, "display_name~")),
        description: query.first("description").or(query.first("display_description")).map(str::to_owned),
        statuses,
        zone: query.first("availability_zone").map(str::to_owned),
        bootable: bootable(query, version)?,
        multiattach: flag(query, "multiattach")?,
        size_gib: parsed(query, "size")?,
        // What is no id is the id of nothing.
        group_id: query
            .first("group_id")
            .filter(|_| version.at_least(10))
            .map(|text| text.parse().unwrap_or(VolumeGroupId(uuid::Uuid::nil()))),
        metadata: pairs(query, "metadata")?,
        image_metadata: pairs(query, "glance_metadata")?,
        created_at: times(query, version, "created_at")?,
        updated_at: times(query, version, "updated_at")?,
        sort,
        marker: parsed(query, "marker")?,
        offset: offset(query)?,
        limit: limit(query)?,
        ..VolumeFilter::default()
    };
    let host = query.first("host").filter(|_| ctx.is_admin());
    Ok(VolumeQuery {
        filter,
        all_projects: all,
        volume_type: query.first("volume_type").or(query.first("volume_type_id")).map(str::to_owned),
        node: host.map(|text| text.split('@').next().unwrap_or(text).to_owned()),
        count: with_count(query, version)?,
    })
}

/// Which snapshots are asked for.
pub fn snapshots(ctx: &OpCtx, query: &Pairs, version: Microversion) -> Result<VolumeSnapshotQuery, ApiError> {
    let sort = sort(query, |key| {
        Some(match key {
            "created_at" => VolumeSnapshotSort::CreatedAt,
            "updated_at" => VolumeSnapshotSort::UpdatedAt,
            "name" | "display_name" => VolumeSnapshotSort::Name,
            "id" => VolumeSnapshotSort::Id,
            "status" => VolumeSnapshotSort::Status,
            "size" | "volume_size" => VolumeSnapshotSort::Size,
            "volume_id" => VolumeSnapshotSort::Volume,
            _ => return None,
        })
    })?;
    let all = all_projects(ctx, query)?;
    let statuses = query.first("status").map(|text| text.parse().into_iter().collect());
    let filter = VolumeSnapshotFilter {
        project_id: project(ctx, query, all),
        ids: query.first("id").map(|text| text.parse().into_iter().collect()),
        volume_id: parsed(query, "volume_id")?,
        name: query.first("name").or(query.first("display_name")).map(str::to_owned),
        name_like: like(query, version, "name~").or_else(|| like(query, version, "display_name~")),
        description: query.first("description").or(query.first("display_description")).map(str::to_owned),
        statuses: if counted(query, version)? { statuses } else { Some(Vec::new()) },
        size_gib: parsed(query, "volume_size")?,
        metadata: pairs(query, "metadata")?,
        created_at: times(query, version, "created_at")?,
        updated_at: times(query, version, "updated_at")?,
        sort,
        marker: parsed(query, "marker")?,
        offset: offset(query)?,
        limit: limit(query)?,
    };
    Ok(VolumeSnapshotQuery { filter, all_projects: all, count: with_count(query, version)? })
}

/// Which attachments are asked for.
pub fn attachments(ctx: &OpCtx, query: &Pairs) -> Result<AttachmentQuery, ApiError> {
    let sort = sort(query, |key| {
        Some(match key {
            "created_at" => VolumeAttachmentSort::CreatedAt,
            "updated_at" => VolumeAttachmentSort::UpdatedAt,
            "id" => VolumeAttachmentSort::Id,
            "status" | "attach_status" => VolumeAttachmentSort::Status,
            "volume_id" => VolumeAttachmentSort::Volume,
            _ => return None,
        })
    })?;
    let all = all_projects(ctx, query)?;
    let status = query.first("status").or(query.first("attach_status"));
    let filter = VolumeAttachmentFilter {
        project_id: project(ctx, query, all),
        volume_id: parsed(query, "volume_id")?,
        server_id: parsed(query, "instance_id")?.or(parsed(query, "instance_uuid")?),
        statuses: status.map(|text| text.parse().into_iter().collect()),
        sort,
        marker: parsed(query, "marker")?,
        offset: offset(query)?,
        limit: limit(query)?,
    };
    Ok(AttachmentQuery { filter, all_projects: all })
}

fn all_projects(ctx: &OpCtx, query: &Pairs) -> Result<bool, ApiError> {
    match query.first("all_tenants").or(query.first("all_projects")) {
        None => Ok(false),
        Some("") => Ok(ctx.is_admin()),
        Some(text) => {
            let asked = truth(text).ok_or_else(|| {
                ApiError::bad_request("Invalid input for query parameters all_tenants. It is not a boolean.")
            })?;
            Ok(asked && ctx.is_admin())
        }
    }
}

/// The one project whose things an administrator asks for.
fn project(ctx: &OpCtx, query: &Pairs, all: bool) -> Option<ProjectId> {
    let asked = query.first("project_id").or(query.first("tenant_id"));
    // What is no id is no project.
    asked.filter(|_| ctx.is_admin() && all).map(|text| text.parse().unwrap_or(ProjectId(uuid::Uuid::nil())))
}

/// Before 3.2 whatever is not false is true.
fn bootable(query: &Pairs, version: Microversion) -> Result<Option<bool>, ApiError> {
    if version.at_least(2) {
        return flag(query, "bootable");
    }
    Ok(query.first("bootable").map(|text| !matches!(text, "false" | "False")))
}

/// From 3.65 on: everything that users see counts against their quotas.
fn counted(query: &Pairs, version: Microversion) -> Result<bool, ApiError> {
    Ok(!version.at_least(65) || flag(query, "consumes_quota")?.unwrap_or(true))
}

fn like(query: &Pairs, version: Microversion, key: &str) -> Option<String> {
    query.first(key).filter(|_| version.at_least(31)).map(str::to_owned)
}

fn with_count(query: &Pairs, version: Microversion) -> Result<bool, ApiError> {
    if version.at_least(45) { Ok(flag(query, "with_count")?.unwrap_or(false)) } else { Ok(false) }
}

/// `gt:2026-01-01T00:00:00,lt:…`, from 3.60 on.
fn times(query: &Pairs, version: Microversion, key: &str) -> Result<Vec<(TimeTest, Timestamp)>, ApiError> {
    let Some(text) = query.first(key).filter(|_| version.at_least(60)) else { return Ok(Vec::new()) };
    text.split(',')
        .map(|item| {
            let (test, at) = match item.split_once(':') {
                Some(("gt", at)) => (TimeTest::Gt, at),
                Some(("gte", at)) => (TimeTest::Gte, at),
                Some(("lt", at)) => (TimeTest::Lt, at),
                Some(("lte", at)) => (TimeTest::Lte, at),
                Some(("eq", at)) => (TimeTest::Eq, at),
                Some(("neq", at)) => (TimeTest::Neq, at),
                Some(_) | None => (TimeTest::Eq, item),
            };
            let at = Timestamp::parse_iso(at).or_else(|| Timestamp::parse_iso(&at.replace(' ', "+")));
            at.map(|at| (test, at)).ok_or_else(|| {
                let item: String = item.chars().take(64).collect();
                ApiError::bad_request(format!("filters[{key}] value '{item}' is not a time."))
            })
        })
        .collect()
}
