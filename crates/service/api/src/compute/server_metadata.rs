//! A server's metadata and tags.

use super::fields::{Fields, refused, required, texts};
use super::{Answer, server_id, since};
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_engine::servers::TAGS_MAX;
use arcus_types::ServerId;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `GET /servers/{id}/metadata`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>) -> Answer {
    let metadata = app.engine.server_metadata(&ctx, id).await?;
    Ok(axum::Json(json!({ "metadata": metadata })))
}

fn metadata(body: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let mut fields = Fields::object(body, "body")?;
    let given = fields.raw("metadata").ok_or_else(|| required("body", "metadata"))?;
    let given = texts("metadata", given)?;
    fields.end()?;
    Ok(given)
}

/// `POST /servers/{id}/metadata`: adds and replaces
pub async fn update(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>, Json(body): Json<Value>) -> Answer {
    let given = metadata(&body)?;
    let change = move |all: &mut BTreeMap<String, String>| {
        all.extend(given.clone());
        Ok(())
    };
    let metadata = app.engine.server_metadata_change(&ctx, id, change).await?;
    Ok(axum::Json(json!({ "metadata": metadata })))
}

/// `PUT /servers/{id}/metadata`: replaces all
pub async fn replace(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerId>, Json(body): Json<Value>) -> Answer {
    let given = metadata(&body)?;
    let change = move |all: &mut BTreeMap<String, String>| {
        all.clone_from(&given);
        Ok(())
    };
    let metadata = app.engine.server_metadata_change(&ctx, id, change).await?;
    Ok(axum::Json(json!({ "metadata": metadata })))
}

fn no_item() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Metadata item was not found")
}

/// `GET /servers/{id}/metadata/{key}`
pub async fn item(Ctx(ctx): Ctx, State(app): State<App>, Path((id, key)): Path<(String, String)>) -> Answer {
    let metadata = app.engine.server_metadata(&ctx, server_id(&id)?).await?;
    let value = metadata.get(&key).ok_or_else(no_item)?;
    Ok(axum::Json(json!({ "meta": { key: value } })))
}

/// `PUT /servers/{id}/metadata/{key}`
pub async fn item_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, key)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    let id = server_id(&id)?;
    let mut fields = Fields::object(&body, "body")?;
    let given = fields.raw("meta").ok_or_else(|| required("body", "meta"))?;
    let given = texts("meta", given)?;
    fields.end()?;
    if given.len() != 1 {
        return Err(refused("meta", &body["meta"], "It holds not exactly one item."));
    }
    if !given.contains_key(&key) {
        return Err(ApiError::bad_request("Request body and URI mismatch"));
    }
    let answer = json!({ "meta": given });
    let change = move |all: &mut BTreeMap<String, String>| {
        all.extend(given.clone());
        Ok(())
    };
    app.engine.server_metadata_change(&ctx, id, change).await?;
    Ok(axum::Json(answer))
}

/// `DELETE /servers/{id}/metadata/{key}`
pub async fn item_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = server_id(&id)?;
    let change = move |all: &mut BTreeMap<String, String>| match all.remove(&key) {
        Some(_) => Ok(()),
        None => Err(EngineError::not_found("MetadataItemNotFound", "Metadata item", "of this key")),
    };
    app.engine.server_metadata_change(&ctx, id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /servers/{id}/tags`
pub async fn tags(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerId>) -> Answer {
    since(version, 26)?;
    Ok(axum::Json(json!({ "tags": app.engine.server_tags(&ctx, id).await? })))
}

/// `PUT /servers/{id}/tags`
pub async fn tags_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    Json(body): Json<Value>,
) -> Answer {
    since(version, 26)?;
    let mut fields = Fields::object(&body, "body")?;
    let list = fields.list("tags", TAGS_MAX)?.ok_or_else(|| required("body", "tags"))?;
    fields.end()?;
    let text = |v: &Value| v.as_str().map(str::to_owned).ok_or_else(|| refused("tags", v, "It is not a string."));
    let mut tags: Vec<String> = list.iter().map(text).collect::<Result<_, _>>()?;
    tags.sort();
    tags.dedup();
    app.engine.server_tags_set(&ctx, id, &tags).await?;
    Ok(axum::Json(json!({ "tags": tags })))
}

/// `DELETE /servers/{id}/tags`
pub async fn tags_clear(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
) -> Result<StatusCode, ApiError> {
    since(version, 26)?;
    app.engine.server_tags_set(&ctx, id, &[]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /servers/{id}/tags/{tag}`
pub async fn tag(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    since(version, 26)?;
    let tags = app.engine.server_tags(&ctx, server_id(&id)?).await?;
    if tags.contains(&tag) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let tag: String = tag.chars().take(64).collect();
    Err(ApiError::new(StatusCode::NOT_FOUND, format!("Server {id} has no tag '{tag}'")))
}

/// `PUT /servers/{id}/tags/{tag}`
pub async fn tag_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, tag)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    since(version, 26)?;
    let new = app.engine.server_tag_add(&ctx, server_id(&id)?, &tag).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    let mut response = status.into_response();
    let location = format!("{}/compute/v2.1/servers/{id}/tags/{tag}", app.endpoint.url);
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// `DELETE /servers/{id}/tags/{tag}`
pub async fn tag_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    since(version, 26)?;
    app.engine.server_tag_delete(&ctx, server_id(&id)?, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}
