//! Volume types, their extra specs, who may use the private ones, and the default types of projects.

use super::links::next;
use super::{Answer, page, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required, texts, truth};
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_engine::volume_types::{EXTRA_SPECS_VISIBLE, VolumeTypeChange, VolumeTypeNew, extra_spec_not_found};
use arcus_store::{VolumeType, VolumeTypeFilter, VolumeTypeSort};
use arcus_types::{OpCtx, ProjectId, VolumeTypeId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a caller sees of a type's extra specs: administrators all, others what tells them what its volumes can do.
fn extra_specs_seen(ctx: &OpCtx, kind: &VolumeType) -> BTreeMap<String, String> {
    let seen = |key: &String| ctx.is_admin() || EXTRA_SPECS_VISIBLE.contains(&key.as_str());
    kind.extra_specs.iter().filter(|(key, _)| seen(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A type as every answer shows it.
fn brief(ctx: &OpCtx, kind: &VolumeType) -> Value {
    json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.is_public,
        "extra_specs": extra_specs_seen(ctx, kind),
    })
}

/// A type as it is shown and listed.
fn full(ctx: &OpCtx, kind: &VolumeType) -> Value {
    let mut out = brief(ctx, kind);
    out["os-volume-type-access:is_public"] = json!(kind.is_public);
    if ctx.is_admin() {
        out["qos_specs_id"] = json!(kind.qos_specs_id);
    }
    out
}

fn filter(ctx: &OpCtx, version: Microversion, query: &Pairs) -> Result<VolumeTypeFilter, ApiError> {
    let is_public = match query.first("is_public") {
        None => Some(true),
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(text) => Some(truth(text).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            ApiError::bad_request(format!("Invalid is_public filter [{text}]"))
        })?),
    };
    let sort = page::sort(query, |key| {
        Some(match key {
            "created_at" => VolumeTypeSort::CreatedAt,
            "updated_at" => VolumeTypeSort::UpdatedAt,
            "id" => VolumeTypeSort::Id,
            "name" => VolumeTypeSort::Name,
            "is_public" => VolumeTypeSort::IsPublic,
            "description" => VolumeTypeSort::Description,
            _ => return None,
        })
    })?;
    let extra_specs = match version.at_least(52) {
        true => page::pairs(query, "extra_specs")?,
        false => Vec::new(),
    };
    Ok(VolumeTypeFilter {
        viewer: None,
        is_public: if ctx.is_admin() { is_public } else { None },
        name: query.first("name").map(str::to_owned),
        description: query.first("description").map(str::to_owned),
        extra_specs,
        sort,
        marker: parsed(query, "marker")?,
        offset: page::offset(query)?,
        limit: page::limit(query)?,
    })
}

/// `GET /types`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let (types, is_full) = app.engine.volume_type_list(&ctx, filter(&ctx, version, &query)?).await?;
    let mut out = json!({ "volume_types": types.iter().map(|t| full(&ctx, t)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, types.last()) {
        out["volume_type_links"] = next(&app, &ctx, "/types", &query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /types/{id}`, where `default` is the one that volumes have unless they name one
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, Path(id): Path<String>) -> Answer {
    let kind = match id.as_str() {
        "default" => app.engine.volume_type_default(&ctx).await?,
        id => app.engine.volume_type_get(&ctx, type_id(id)?).await?,
    };
    Ok(axum::Json(json!({ "volume_type": full(&ctx, &kind) })))
}

/// A type's id from a path.
fn type_id(text: &str) -> Result<VolumeTypeId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Volume type", text.chars().take(64).collect::<String>()))
}

/// A name without white space around it.
fn name_checked(name: &str) -> Result<String, ApiError> {
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Err(refused("name", &json!(name), "It is empty."));
    }
    Ok(trimmed.to_owned())
}

/// `POST /types`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, Json(body): Json<Value>) -> Answer {
    let mut fields = Fields::of(&body, "volume_type", &[])?;
    let new = VolumeTypeNew {
        name: name_checked(fields.text_required("name", 1, 255)?)?,
        description: fields.text("description", 0, 255)?.map(str::to_owned),
        is_public: fields.boolean("os-volume-type-access:is_public")?.unwrap_or(true),
        extra_specs: fields.texts("extra_specs")?.unwrap_or_default(),
    };
    fields.end()?;
    let kind = app.engine.volume_type_create(&ctx, new).await?;
    let mut out = brief(&ctx, &kind);
    out["os-volume-type-access:is_public"] = json!(kind.is_public);
    Ok(axum::Json(json!({ "volume_type": out })))
}

/// `PUT /types/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<VolumeTypeId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "volume_type", &[])?;
    let change = VolumeTypeChange {
        name: fields.text("name", 0, 255)?.map(name_checked).transpose()?,
        description: fields.text_or_null("description", 255)?,
        is_public: fields.boolean("is_public")?,
    };
    fields.end()?;
    if change.name.is_none() && change.description.is_none() && change.is_public.is_none() {
        return Err(ApiError::bad_request(
            "Specify volume type name, description, is_public or a combination thereof.",
        ));
    }
    let kind = app.engine.volume_type_update(&ctx, id, change).await?;
    Ok(axum::Json(json!({ "volume_type": brief(&ctx, &kind) })))
}

/// `DELETE /types/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<VolumeTypeId>) -> Result<StatusCode, ApiError> {
    app.engine.volume_type_delete(&ctx, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /types/{id}/extra_specs`
pub async fn extra_specs(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<VolumeTypeId>) -> Answer {
    let kind = app.engine.volume_type_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "extra_specs": extra_specs_seen(&ctx, &kind) })))
}

/// `POST /types/{id}/extra_specs`
pub async fn extra_specs_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<VolumeTypeId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::object(&body, "body")?;
    let specs = texts("extra_specs", fields.raw("extra_specs").ok_or_else(|| required("body", "extra_specs"))?)?;
    fields.end()?;
    app.engine.volume_type_extra_specs_set(&ctx, id, specs.clone()).await?;
    Ok(axum::Json(json!({ "extra_specs": specs })))
}

/// `GET /types/{id}/extra_specs/{key}`
pub async fn extra_spec(Ctx(ctx): Ctx, State(app): State<App>, Path((id, key)): Path<(String, String)>) -> Answer {
    let id = type_id(&id)?;
    let kind = app.engine.volume_type_get(&ctx, id).await?;
    let seen = extra_specs_seen(&ctx, &kind);
    let value = seen.get(&key).ok_or_else(|| extra_spec_not_found(id, &key))?;
    Ok(axum::Json(json!({ key: value })))
}

/// `PUT /types/{id}/extra_specs/{key}`
pub async fn extra_spec_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, key)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    let specs = texts("extra_specs", &body)?;
    if specs.len() != 1 || !specs.contains_key(&key) {
        return Err(ApiError::bad_request("The request body must hold the key of the path, and nothing else."));
    }
    app.engine.volume_type_extra_specs_set(&ctx, type_id(&id)?, specs.clone()).await?;
    Ok(axum::Json(json!(specs)))
}

/// `DELETE /types/{id}/extra_specs/{key}`
pub async fn extra_spec_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.engine.volume_type_extra_spec_delete(&ctx, type_id(&id)?, &key).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /types/{id}/os-volume-type-access`
pub async fn access_list(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<VolumeTypeId>) -> Answer {
    let projects = app.engine.volume_type_access_list(&ctx, id).await?;
    let list: Vec<Value> = projects.iter().map(|p| json!({ "volume_type_id": id, "project_id": p })).collect();
    Ok(axum::Json(json!({ "volume_type_access": list })))
}

/// `POST /types/{id}/action`: `addProjectAccess` or `removeProjectAccess`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<VolumeTypeId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let allowed = body.get("addProjectAccess").is_some();
    let mut fields = Fields::of(&body, if allowed { "addProjectAccess" } else { "removeProjectAccess" }, &[])?;
    let project: ProjectId = fields.parsed("project")?.ok_or_else(|| required("body", "project"))?;
    fields.end()?;
    app.engine.volume_type_access_change(&ctx, id, project, allowed).await?;
    Ok(StatusCode::ACCEPTED)
}

fn default_type((project, kind): (ProjectId, VolumeTypeId)) -> Value {
    json!({ "project_id": project, "volume_type_id": kind })
}

/// `GET /default-types`, from 3.62 on
pub async fn defaults(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    since(version, 62)?;
    let all = app.engine.volume_type_defaults(&ctx, None).await?;
    Ok(axum::Json(json!({ "default_types": all.into_iter().map(default_type).collect::<Vec<_>>() })))
}

/// `GET /default-types/{project_id}`, from 3.62 on
pub async fn default_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(project): Id<ProjectId>,
) -> Answer {
    since(version, 62)?;
    let found = app.engine.volume_type_defaults(&ctx, Some(project)).await?;
    Ok(axum::Json(json!({ "default_type": found.into_iter().next().map(default_type) })))
}

/// `PUT /default-types/{project_id}`, from 3.62 on
pub async fn default_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(project): Id<ProjectId>,
    Json(body): Json<Value>,
) -> Answer {
    since(version, 62)?;
    let mut fields = Fields::of(&body, "default_type", &[])?;
    let name = fields.text_required("volume_type", 1, 255)?;
    fields.end()?;
    let kind = app.engine.volume_type_default_set(&ctx, project, name).await?;
    Ok(axum::Json(json!({ "default_type": default_type((project, kind)) })))
}

/// `DELETE /default-types/{project_id}`, from 3.62 on
pub async fn default_unset(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(project): Id<ProjectId>,
) -> Result<StatusCode, ApiError> {
    since(version, 62)?;
    app.engine.volume_type_default_unset(&ctx, project).await?;
    Ok(StatusCode::NO_CONTENT)
}
