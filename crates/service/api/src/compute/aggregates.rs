//! Aggregates of nodes.

use super::Answer;
use super::fields::{Fields, refused, required};
use super::links;
use crate::auth::Ctx;
use crate::body::Json;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::aggregates::AggregateView;
use arcus_types::ImageId;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

fn shown((aggregate, nodes): &AggregateView, version: Microversion) -> Value {
    let mut metadata = aggregate.metadata.clone();
    if let Some(zone) = &aggregate.availability_zone {
        metadata.insert("availability_zone".into(), zone.clone());
    }
    let changed = aggregate.updated_at != aggregate.created_at;
    let mut out = json!({
        "id": aggregate.number,
        "name": aggregate.name,
        "availability_zone": aggregate.availability_zone,
        "metadata": metadata,
        "hosts": nodes,
        "created_at": links::naive(aggregate.created_at),
        "updated_at": changed.then(|| links::naive(aggregate.updated_at)),
        "deleted": false,
        "deleted_at": null,
    });
    if version.at_least(41) {
        out["uuid"] = json!(aggregate.id);
    }
    out
}

/// The most images of one request.
const IMAGES_MAX: usize = 100;

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Aggregate", text.chars().take(64).collect::<String>()))
}

/// A name as it may be: not blank, without spaces at its ends.
fn named<'a>(key: &str, text: &'a str) -> Result<&'a str, ApiError> {
    if text.trim() == text && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(refused(key, &json!(text), "It has spaces at an end, or characters that do not print."))
}

/// A zone's name, which also must not hold a colon.
fn zone<'a>(fields: &mut Fields<'a>) -> Result<Option<Option<&'a str>>, ApiError> {
    match fields.raw("availability_zone") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => {
            let text = fields.text_required("availability_zone", 1, 255)?;
            if text.contains(':') {
                return Err(refused("availability_zone", value, "A zone's name has no colon."));
            }
            named("availability_zone", text).map(|zone| Some(Some(zone)))
        }
    }
}

/// `GET /os-aggregates`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion) -> Answer {
    let all = app.engine.aggregate_list(&ctx).await?;
    Ok(axum::Json(json!({ "aggregates": all.iter().map(|a| shown(a, version)).collect::<Vec<_>>() })))
}

/// `POST /os-aggregates`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Answer {
    let mut fields = Fields::of(&body, "aggregate", &[])?;
    let name = named("name", fields.text_required("name", 1, 255)?)?;
    let zone = zone(&mut fields)?.flatten();
    fields.end()?;
    let made = app.engine.aggregate_create(&ctx, name, zone).await?;
    let mut out = shown(&made, version);
    // A new one has never had these.
    if let Some(map) = out.as_object_mut() {
        map.remove("hosts");
        map.remove("metadata");
    }
    Ok(axum::Json(json!({ "aggregate": out })))
}

/// `GET /os-aggregates/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Path(id): Path<String>) -> Answer {
    let found = app.engine.aggregate_get(&ctx, number(&id)?).await?;
    Ok(axum::Json(json!({ "aggregate": shown(&found, version) })))
}

/// `PUT /os-aggregates/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "aggregate", &[])?;
    let name = fields.text("name", 1, 255)?.map(|name| named("name", name)).transpose()?;
    let zone = zone(&mut fields)?;
    fields.end()?;
    if name.is_none() && zone.is_none() {
        return Err(ApiError::bad_request("Invalid input for field/attribute aggregate. Nothing is to be changed."));
    }
    let changed = app.engine.aggregate_update(&ctx, number(&id)?, name, zone).await?;
    Ok(axum::Json(json!({ "aggregate": shown(&changed, version) })))
}

/// `DELETE /os-aggregates/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Path(id): Path<String>) -> Result<(), ApiError> {
    Ok(app.engine.aggregate_delete(&ctx, number(&id)?).await?)
}

/// `POST /os-aggregates/{id}/action`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let id = number(&id)?;
    let map = body.as_object().ok_or_else(|| refused("body", &body, "It is not an object."))?;
    let changed = match map.keys().next().map(String::as_str).filter(|_| map.len() == 1) {
        Some(key @ ("add_host" | "remove_host")) => {
            let mut fields = Fields::of(&body, key, &[])?;
            let host = fields.text_required("host", 1, 255)?;
            fields.end()?;
            app.engine.aggregate_node_set(&ctx, id, host, key == "add_host").await?
        }
        Some("set_metadata") => {
            let mut fields = Fields::of(&body, "set_metadata", &[])?;
            let pairs = fields.raw("metadata").and_then(Value::as_object);
            let pairs = pairs.ok_or_else(|| required("set_metadata", "metadata"))?;
            fields.end()?;
            app.engine.aggregate_metadata_set(&ctx, id, &metadata(pairs)?).await?
        }
        _ => return Err(ApiError::bad_request("An action is one of add_host, remove_host and set_metadata.")),
    };
    Ok(axum::Json(json!({ "aggregate": shown(&changed, version) })))
}

/// `POST /os-aggregates/{id}/images`, from 2.81 on: images that its nodes shall have in their caches.
pub async fn images(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    super::since(version, 81)?;
    let id = number(&id)?;
    let mut fields = Fields::object(&body, "body")?;
    let list = fields.list("cache", IMAGES_MAX)?.filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| required("body", "cache"))?;
    let image = |item: &Value| {
        let mut one = Fields::object(item, "cache")?;
        let image: ImageId = one.parsed("id")?.ok_or_else(|| required("cache", "id"))?;
        one.end()?;
        Ok(image)
    };
    let images = list.iter().map(image).collect::<Result<Vec<_>, ApiError>>()?;
    fields.end()?;
    app.engine.aggregate_images_cache(&ctx, id, &images).await?;
    Ok(StatusCode::ACCEPTED)
}

fn metadata(pairs: &Map<String, Value>) -> Result<Vec<(String, Option<String>)>, ApiError> {
    let one = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Null => None,
            Value::String(text) if text.chars().count() <= 255 => Some(text.clone()),
            other => return Err(refused(key, other, "It is neither null nor a string of at most 255 characters.")),
        };
        if key.is_empty() || key.chars().count() > 255 {
            return Err(refused("metadata", &json!(key), "A key has 1 to 255 characters."));
        }
        Ok((key.clone(), value))
    };
    pairs.iter().map(one).collect()
}
