//! The query strings of lists of volumes, snapshots and attachments.

use crate::ApiError;
use crate::body::Pairs;
use crate::fields::truth;
use crate::microversion::Microversion;
use crate::query::{PAGE_MAX, parsed};
use arcus_engine::volume_attachments::AttachmentQuery;
use arcus_engine::volume_snapshots::VolumeSnapshotQuery;
use arcus_engine::volumes::VolumeQuery;
use arcus_store::{
    TimeTest, VolumeAttachmentFilter, VolumeAttachmentSort, VolumeFilter, VolumeSnapshotFilter, VolumeSnapshotSort,
    VolumeSort,
};
use arcus_types::{OpCtx, ProjectId, Timestamp};

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
    let filter = VolumeFilter {
        project_id: project(ctx, query, all),
        user_id: parsed(query, "user_id")?,
        ids: query.first("id").map(|text| text.parse().into_iter().collect()),
        name: query.first("name").or(query.first("display_name")).map(str::to_owned),
        name_like: like(query, version, "name~").or_else(|| like(query, version, "display_name~")),
        description: query.first("description").or(query.first("display_description")).map(str::to_owned),
        statuses,
        zone: query.first("availability_zone").map(str::to_owned),
        bootable: flag(query, "bootable")?,
        multiattach: flag(query, "multiattach")?,
        size_gib: parsed(query, "size")?,
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
    let filter = VolumeSnapshotFilter {
        project_id: project(ctx, query, all),
        ids: query.first("id").map(|text| text.parse().into_iter().collect()),
        volume_id: parsed(query, "volume_id")?,
        name: query.first("name").or(query.first("display_name")).map(str::to_owned),
        name_like: like(query, version, "name~").or_else(|| like(query, version, "display_name~")),
        description: query.first("description").or(query.first("display_description")).map(str::to_owned),
        statuses: query.first("status").map(|text| text.parse().into_iter().collect()),
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

fn like(query: &Pairs, version: Microversion, key: &str) -> Option<String> {
    query.first(key).filter(|_| version.at_least(31)).map(str::to_owned)
}

fn flag(query: &Pairs, key: &str) -> Result<Option<bool>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(None) };
    truth(text).map(Some).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!("{key}={text} is not a boolean"))
    })
}

fn with_count(query: &Pairs, version: Microversion) -> Result<bool, ApiError> {
    if version.at_least(45) { Ok(flag(query, "with_count")?.unwrap_or(false)) } else { Ok(false) }
}

fn number(query: &Pairs, key: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok());
    number.map(Some).ok_or_else(|| {
        let text: String = text.chars().take(32).collect();
        ApiError::bad_request(format!(
            "Invalid input received: {key} must be an integer of 0 or more. The given value is '{text}'."
        ))
    })
}

fn limit(query: &Pairs) -> Result<u64, ApiError> {
    Ok(number(query, "limit")?.unwrap_or(PAGE_MAX).min(PAGE_MAX))
}

fn offset(query: &Pairs) -> Result<u64, ApiError> {
    Ok(number(query, "offset")?.unwrap_or(0))
}

/// `sort=name:asc,size`, or the older `sort_key` and `sort_dir`.
fn sort<T>(query: &Pairs, by: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, bool)>, ApiError> {
    let refused = |what: &str| {
        let what: String = what.chars().take(64).collect();
        ApiError::bad_request(format!("Invalid input received: Invalid sort key or direction: {what}."))
    };
    let down = |text: &str| match text.trim() {
        "" | "desc" => Ok(true),
        "asc" => Ok(false),
        other => Err(refused(other)),
    };
    let mut out = Vec::new();
    if let Some(text) = query.first("sort") {
        for item in text.split(',').filter(|i| !i.trim().is_empty()) {
            let (key, direction) = item.split_once(':').unwrap_or((item, "desc"));
            out.push((by(key.trim()).ok_or_else(|| refused(key))?, down(direction)?));
        }
        return Ok(out);
    }
    let direction = down(query.first("sort_dir").unwrap_or("desc"))?;
    match query.first("sort_key") {
        Some(key) => out.push((by(key).ok_or_else(|| refused(key))?, direction)),
        None if !direction => out.extend(by("created_at").map(|key| (key, false))),
        None => {}
    }
    Ok(out)
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

/// A dictionary as clients write it: `{'key': 'value'}`, with quotes of either kind.
fn pairs(query: &Pairs, key: &str) -> Result<Vec<(String, String)>, ApiError> {
    let Some(text) = query.first(key) else { return Ok(Vec::new()) };
    dictionary(text).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        ApiError::bad_request(format!(
            "Invalid input for query parameters {key}. Value: {text}. It is not a dictionary."
        ))
    })
}

fn dictionary(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        let (value, after) = quoted(after.trim_start().strip_prefix(':')?.trim_start())?;
        out.push((key, value));
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(',')?.trim_start(),
        };
    }
    Some(out)
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('u').unwrap_or(text);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + c.len_utf8()..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_as_clients_write_them() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(dictionary("{'Type': 'work'}"), Some(vec![pair("Type", "work")]));
        assert_eq!(dictionary(r#"{"a": "it's", 'b':"x,y:z"}"#), Some(vec![pair("a", "it's"), pair("b", "x,y:z")]));
        assert_eq!(dictionary(r"{'a': 'it\'s'}"), Some(vec![pair("a", "it's")]));
        assert_eq!(dictionary("{}"), Some(vec![]));
        for bad in ["", "a", "{a: b}", "{'a'}", "{'a': 'b'", "{'a': 'b' 'c': 'd'}", "{'a': 'b}"] {
            assert_eq!(dictionary(bad), None, "{bad}");
        }
    }
}
