//! Groups of volumes, from 3.13 on, and their snapshots, from 3.14 on.

pub mod snapshots;

use super::links::next;
use super::volumes::text;
use super::{Answer, filters, page, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_engine::volume_groups::{GROUP_TYPES_MAX, VolumeGroupChange, VolumeGroupNew, VolumeGroupSource};
use arcus_store::{VolumeGroup, VolumeGroupFilter, VolumeGroupSort};
use arcus_types::volumes::VolumeGroupStatus;
use arcus_types::{OpCtx, VolumeGroupId, VolumeId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// An answer that something was begun.
type Made = Result<(StatusCode, axum::Json<Value>), ApiError>;

fn brief(group: &VolumeGroup) -> Value {
    json!({ "id": group.id, "name": group.name })
}

fn full(ctx: &OpCtx, group: &VolumeGroup, volumes: &[VolumeId], version: Microversion, query: &Pairs) -> Value {
    let mut out = json!({
        "id": group.id,
        "status": group.status.as_str(),
        "availability_zone": group.availability_zone,
        "created_at": group.created_at.iso_naive(),
        "name": group.name,
        "description": group.description,
        "group_type": group.group_type_id,
        "volume_types": group.volume_types,
    });
    if version.at_least(14) {
        out["group_snapshot_id"] = json!(group.group_snapshot_id);
        out["source_group_id"] = json!(group.source_group_id);
    }
    let asked = query.first("list_volume").and_then(crate::fields::truth).unwrap_or(false);
    if version.at_least(25) && asked {
        out["volumes"] = json!(volumes);
    }
    if version.at_least(38) {
        out["replication_status"] = json!("disabled");
    }
    if version.at_least(58) && ctx.is_admin() {
        out["project_id"] = json!(group.project_id);
    }
    out
}

/// Which groups, or which snapshots of groups, are asked for, and whether those of all projects.
fn filter(ctx: &OpCtx, query: &Pairs, version: Microversion) -> Result<(VolumeGroupFilter, bool), ApiError> {
    let sort = page::sort(query, |key| {
        Some(match key {
            "created_at" => VolumeGroupSort::CreatedAt,
            "updated_at" => VolumeGroupSort::UpdatedAt,
            "name" => VolumeGroupSort::Name,
            "id" => VolumeGroupSort::Id,
            "status" => VolumeGroupSort::Status,
            _ => return None,
        })
    })?;
    let all = page::flag(query, "all_tenants")?.unwrap_or(false) && ctx.is_admin();
    // What is no id is the id of nothing.
    let id = |text: &str| text.parse().unwrap_or(uuid::Uuid::nil());
    let filter = VolumeGroupFilter {
        project_id: query.first("project_id").filter(|_| all).map(|text| arcus_types::ProjectId(id(text))),
        id: query.first("id").map(id),
        name: query.first("name").map(str::to_owned),
        name_like: query.first("name~").filter(|_| version.at_least(34)).map(str::to_owned),
        description: query.first("description").map(str::to_owned),
        statuses: query.first("status").map(|text| text.parse().into_iter().collect()),
        group_type_id: query.first("group_type_id").map(|text| arcus_types::VolumeGroupTypeId(id(text))),
        zone: None,
        group_id: None,
        sort,
        marker: parsed(query, "marker")?,
        offset: page::offset(query)?,
        limit: page::limit(query)?,
    };
    Ok((filter, all))
}

async fn listed(app: &App, ctx: &OpCtx, version: Microversion, query: &Pairs, detail: bool) -> Answer {
    since(version, 13)?;
    filters::admitted(ctx, version, query, "group")?;
    let (mut wanted, all) = filter(ctx, query, version)?;
    wanted.zone = query.first("availability_zone").map(str::to_owned);
    let (found, is_full) = app.engine.volume_group_list(ctx, all, wanted).await?;
    let view = |(group, volumes): &(VolumeGroup, Vec<VolumeId>)| match detail {
        true => full(ctx, group, volumes, version, query),
        false => brief(group),
    };
    let mut out = json!({ "groups": found.iter().map(view).collect::<Vec<_>>() });
    if let (true, Some((last, _))) = (is_full, found.last()) {
        out["group_links"] = next(app, ctx, if detail { "/groups/detail" } else { "/groups" }, query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /groups`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    listed(&app, &ctx, version, &query, false).await
}

/// `GET /groups/detail?list_volume=`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    listed(&app, &ctx, version, &query, true).await
}

/// `GET /groups/{id}?list_volume=`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupId>,
    query: Pairs,
) -> Answer {
    since(version, 13)?;
    let (group, volumes) = app.engine.volume_group_show(&ctx, id).await?;
    Ok(axum::Json(json!({ "group": full(&ctx, &group, &volumes, version, &query) })))
}

/// `POST /groups`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Made {
    since(version, 13)?;
    let mut fields = Fields::of(&body, "group", &[])?;
    let types = fields.list("volume_types", GROUP_TYPES_MAX)?.ok_or_else(|| required("group", "volume_types"))?;
    let mut volume_types = Vec::new();
    for item in types {
        let text = item.as_str().filter(|text| (1..=255).contains(&text.chars().count()));
        volume_types.push(text.ok_or_else(|| refused("volume_types", item, "It is no volume type."))?.to_owned());
    }
    if volume_types.is_empty() {
        return Err(refused("volume_types", &json!([]), "It is empty."));
    }
    let new = VolumeGroupNew {
        name: text(&mut fields, "name", "name")?.flatten(),
        description: text(&mut fields, "description", "description")?.flatten(),
        group_type: fields.text_required("group_type", 1, 255)?.to_owned(),
        volume_types,
        zone: fields.text("availability_zone", 0, 255)?.filter(|t| !t.is_empty()).map(str::to_owned),
    };
    fields.end()?;
    let group = app.engine.volume_group_create(&ctx, &new).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "group": brief(&group) }))))
}

/// Volumes, their ids with commas between them.
fn ids(fields: &mut Fields<'_>, key: &'static str) -> Result<Vec<VolumeId>, ApiError> {
    let Some(text) = fields.text(key, 0, 10_000)? else { return Ok(Vec::new()) };
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|e| refused(key, &json!(word), &format!("{e}.")))).collect()
}

/// `PUT /groups/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 13)?;
    let mut fields = Fields::of(&body, "group", &[])?;
    let change = VolumeGroupChange {
        name: text(&mut fields, "name", "name")?,
        description: text(&mut fields, "description", "description")?,
        add: ids(&mut fields, "add_volumes")?,
        remove: ids(&mut fields, "remove_volumes")?,
    };
    fields.end()?;
    if change.name.is_none() && change.description.is_none() && change.add.is_empty() && change.remove.is_empty() {
        return Err(ApiError::bad_request("Name, description, add_volumes or remove_volumes must be given."));
    }
    app.engine.volume_group_update(&ctx, id, &change).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `POST /groups/action`: `create-from-src`, from 3.14 on
pub async fn create_from(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Made {
    since(version, 14)?;
    let mut fields = Fields::of(&body, "create-from-src", &[])?;
    let name = text(&mut fields, "name", "name")?.flatten();
    let description = text(&mut fields, "description", "description")?.flatten();
    let (snapshot, group) = (fields.parsed("group_snapshot_id")?, fields.parsed("source_group_id")?);
    fields.end()?;
    let source = match (snapshot, group) {
        (Some(id), None) => VolumeGroupSource::Snapshot(id),
        (None, Some(id)) => VolumeGroupSource::Group(id),
        (Some(_), Some(_)) | (None, None) => {
            return Err(ApiError::bad_request("Name either group_snapshot_id or source_group_id."));
        }
    };
    let made = app.engine.volume_group_create_from(&ctx, name, description, source).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "group": brief(&made) }))))
}

/// The one action in a body, and what it was given.
fn asked(body: &Value) -> Result<(&str, &Value), ApiError> {
    let map = body.as_object().ok_or_else(|| refused("body", body, "It is not an object."))?;
    let mut actions = map.iter();
    match (actions.next(), actions.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        (Some(_) | None, Some(_) | None) => Err(ApiError::bad_request("The body must hold exactly one action.")),
    }
}

/// The status that a `reset_status` sets.
fn status(name: &str, value: &Value) -> Result<VolumeGroupStatus, ApiError> {
    let mut fields = Fields::object(value, name)?;
    let text = fields.text_required("status", 1, 64)?.to_ascii_lowercase();
    fields.end()?;
    text.parse().map_err(|e: arcus_types::text::Rejected| ApiError::bad_request(e.to_string()))
}

/// `POST /groups/{id}/action`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 13)?;
    app.engine.volume_group_show(&ctx, id).await?;
    let (name, value) = asked(&body)?;
    match name {
        "delete" => {
            let mut fields = Fields::object(value, name)?;
            let with_volumes = fields.boolean("delete-volumes")?.unwrap_or(false);
            fields.end()?;
            app.engine.volume_group_delete(&ctx, id, with_volumes).await?;
        }
        "reset_status" if version.at_least(20) => {
            app.engine.volume_group_status_reset(&ctx, id, status(name, value)?).await?;
        }
        "enable_replication" | "disable_replication" | "failover_replication" | "list_replication_targets"
            if version.at_least(38) =>
        {
            app.engine.volume_group_replication(&ctx, id).await?;
        }
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(ApiError::bad_request(format!("There is no such action: {other}")));
        }
    }
    Ok(StatusCode::ACCEPTED)
}
