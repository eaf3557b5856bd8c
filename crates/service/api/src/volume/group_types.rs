//! Group types and their specs; from 3.11 on.

use super::links::next;
use super::{Answer, page, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required, texts, truth};
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_engine::volume_group_types::{VolumeGroupTypeChange, group_spec_not_found};
use arcus_store::{VolumeGroupType, VolumeGroupTypeFilter, VolumeGroupTypeSort};
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::{OpCtx, VolumeGroupTypeId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

type Made = Result<(StatusCode, axum::Json<Value>), ApiError>;

/// A group type; its specs are for administrators.
fn view(ctx: &OpCtx, kind: &VolumeGroupType) -> Value {
    let mut out = json!({
        "id": kind.id,
        "name": kind.name,
        "description": kind.description,
        "is_public": kind.is_public,
    });
    if ctx.is_admin() {
        out["group_specs"] = json!(kind.specs);
    }
    out
}

/// `GET /group_types`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 11)?;
    let is_public = match query.first("is_public") {
        None => Some(true),
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(text) => Some(truth(text).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            ApiError::bad_request(format!("Invalid is_public filter [{text}]"))
        })?),
    };
    let sort = page::sort(&query, |key| {
        Some(match key {
            "created_at" => VolumeGroupTypeSort::CreatedAt,
            "name" => VolumeGroupTypeSort::Name,
            "id" => VolumeGroupTypeSort::Id,
            _ => return None,
        })
    })?;
    let filter = VolumeGroupTypeFilter {
        is_public,
        sort,
        marker: parsed(&query, "marker")?,
        offset: page::offset(&query)?,
        limit: page::limit(&query)?,
    };
    let (found, is_full) = app.engine.volume_group_type_list(&ctx, filter).await?;
    let mut out = json!({ "group_types": found.iter().map(|t| view(&ctx, t)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["group_type_links"] = next(&app, &ctx, "/group_types", &query, last.id);
    }
    Ok(axum::Json(out))
}

fn type_id(text: &str) -> Result<VolumeGroupTypeId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Group type", text.chars().take(64).collect::<String>()))
}

/// `GET /group_types/{id}`; there is no default one
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Path(id): Path<String>) -> Answer {
    since(version, 11)?;
    authorize(&ctx, policy::GROUP_TYPE_READ, &Target::own(&ctx))?;
    if id == "default" {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "Default group type can not be found: this cloud has none."));
    }
    let kind = app.engine.volume_group_type_get(&ctx, type_id(&id)?).await?;
    Ok(axum::Json(json!({ "group_type": view(&ctx, &kind) })))
}

/// A name without white space around it.
fn named(name: &str) -> Result<String, ApiError> {
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Err(refused("name", &json!(name), "It is empty."));
    }
    Ok(trimmed.to_owned())
}

/// `POST /group_types`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Made {
    since(version, 11)?;
    let mut fields = Fields::of(&body, "group_type", &[])?;
    let name = named(fields.text_required("name", 1, 255)?)?;
    let description = fields.text("description", 0, 255)?.map(str::to_owned);
    let is_public = fields.boolean("is_public")?.unwrap_or(true);
    let specs = fields.texts("group_specs")?.unwrap_or_default();
    fields.end()?;
    let kind = app.engine.volume_group_type_create(&ctx, name, description, is_public, specs).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "group_type": view(&ctx, &kind) }))))
}

/// `PUT /group_types/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupTypeId>,
    Json(body): Json<Value>,
) -> Answer {
    since(version, 11)?;
    let mut fields = Fields::of(&body, "group_type", &[])?;
    let change = VolumeGroupTypeChange {
        name: fields.text("name", 0, 255)?.map(named).transpose()?,
        description: fields.text_or_null("description", 255)?,
        is_public: fields.boolean("is_public")?,
    };
    fields.end()?;
    if change.name.is_none() && change.description.is_none() && change.is_public.is_none() {
        return Err(ApiError::bad_request("Specify group type name, description or a combination thereof."));
    }
    let kind = app.engine.volume_group_type_update(&ctx, id, change).await?;
    Ok(axum::Json(json!({ "group_type": view(&ctx, &kind) })))
}

/// `DELETE /group_types/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupTypeId>,
) -> Result<StatusCode, ApiError> {
    since(version, 11)?;
    app.engine.volume_group_type_delete(&ctx, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /group_types/{id}/group_specs`
pub async fn specs(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupTypeId>,
) -> Answer {
    since(version, 11)?;
    authorize(&ctx, policy::GROUP_TYPE_SPECS, &Target::own(&ctx))?;
    let kind = app.engine.volume_group_type_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "group_specs": kind.specs })))
}

/// `POST /group_types/{id}/group_specs`: adds and replaces
pub async fn specs_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeGroupTypeId>,
    Json(body): Json<Value>,
) -> Made {
    since(version, 11)?;
    let mut fields = Fields::object(&body, "body")?;
    let given = fields.texts("group_specs")?.ok_or_else(|| required("body", "group_specs"))?;
    fields.end()?;
    app.engine.volume_group_specs_set(&ctx, id, given.clone()).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "group_specs": given }))))
}

/// `GET /group_types/{id}/group_specs/{key}`
pub async fn spec(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
) -> Answer {
    since(version, 11)?;
    authorize(&ctx, policy::GROUP_TYPE_SPECS, &Target::own(&ctx))?;
    let id = type_id(&id)?;
    let kind = app.engine.volume_group_type_get(&ctx, id).await?;
    let value = kind.specs.get(&key).ok_or_else(|| group_spec_not_found(id, &key))?;
    Ok(axum::Json(json!({ key: value })))
}

/// `PUT /group_types/{id}/group_specs/{key}`
pub async fn spec_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    since(version, 11)?;
    let id = type_id(&id)?;
    let given = texts("body", &body)?;
    if given.len() != 1 || !given.contains_key(&key) {
        return Err(ApiError::bad_request("Request body and URI mismatch."));
    }
    app.engine.volume_group_specs_set(&ctx, id, given).await?;
    Ok(axum::Json(body))
}

/// `DELETE /group_types/{id}/group_specs/{key}`
pub async fn spec_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    since(version, 11)?;
    app.engine.volume_group_spec_delete(&ctx, type_id(&id)?, &key).await?;
    Ok(StatusCode::ACCEPTED)
}
