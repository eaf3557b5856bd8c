//! QoS specs and the volume types that have them. Some of these calls change something with `GET`, as they always did.

use super::links::{links, next};
use super::{Answer, page};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required, texts};
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_store::QosSpecs;
use arcus_types::volume_qos::{QOS_KEYS_MAX, QosConsumer};
use arcus_types::{QosSpecsId, VolumeTypeId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn full(qos: &QosSpecs) -> Value {
    json!({ "id": qos.id, "name": qos.name, "consumer": qos.consumer.as_str(), "specs": qos.specs })
}

/// Takes the consumer out of what a client sent; the rest are the specs.
fn split(map: &Map<String, Value>) -> Result<(Option<QosConsumer>, BTreeMap<String, String>), ApiError> {
    let mut rest = map.clone();
    let consumer = match rest.remove("consumer") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|e: arcus_types::Rejected| ApiError::bad_request(e.0))?),
        Some(other) => return Err(refused("consumer", &other, "It is not a string.")),
    };
    Ok((consumer, texts("qos_specs", &Value::Object(rest))?))
}

/// The object under `qos_specs`.
fn specs_of(body: &Value) -> Result<&Map<String, Value>, ApiError> {
    let found = body.get("qos_specs").ok_or_else(|| required("body", "qos_specs"))?;
    found.as_object().ok_or_else(|| refused("qos_specs", found, "It is not an object."))
}

/// `GET /qos-specs`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Answer {
    let (all, is_full) = app.engine.qos_specs_list(&ctx, parsed(&query, "marker")?, page::limit(&query)?).await?;
    let mut out = json!({ "qos_specs": all.iter().map(full).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, all.last()) {
        out["qos_specs_links"] = next(&app, &ctx, "/qos-specs", &query, last.id);
    }
    Ok(axum::Json(out))
}

/// `GET /qos-specs/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<QosSpecsId>) -> Answer {
    let found = app.engine.qos_specs_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "qos_specs": full(&found), "links": links(&app, &ctx, "qos-specs", id) })))
}

/// `POST /qos-specs`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, Json(body): Json<Value>) -> Answer {
    let mut map = specs_of(&body)?.clone();
    let name = map.remove("name").unwrap_or_default();
    let given = name.as_str().map(str::trim).filter(|text| (1..=255).contains(&text.chars().count()));
    let given = given.ok_or_else(|| refused("name", &name, "It must have 1 to 255 characters."))?;
    let (consumer, specs) = split(&map)?;
    let consumer = consumer.unwrap_or(QosConsumer::BackEnd);
    let made = app.engine.qos_specs_create(&ctx, given.to_owned(), consumer, specs).await?;
    Ok(axum::Json(json!({ "qos_specs": full(&made), "links": links(&app, &ctx, "qos-specs", made.id) })))
}

/// `PUT /qos-specs/{id}`: adds or replaces keys
pub async fn update(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<QosSpecsId>, Json(body): Json<Value>) -> Answer {
    let map = specs_of(&body)?;
    let (consumer, specs) = split(map)?;
    app.engine.qos_specs_set(&ctx, id, consumer, specs).await?;
    Ok(axum::Json(json!({ "qos_specs": map })))
}

/// `PUT /qos-specs/{id}/delete_keys`
pub async fn keys_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosSpecsId>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::object(&body, "body")?;
    let keys = fields.list("keys", QOS_KEYS_MAX)?.ok_or_else(|| required("body", "keys"))?;
    fields.end()?;
    let keys = keys
        .iter()
        .map(|key| key.as_str().map(str::to_owned).ok_or_else(|| refused("keys", key, "It is not a string.")));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    app.engine.qos_specs_unset(&ctx, id, &keys).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `DELETE /qos-specs/{id}?force=`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosSpecsId>,
    query: Pairs,
) -> Result<StatusCode, ApiError> {
    let force = page::flag(&query, "force")?.unwrap_or(false);
    app.engine.qos_specs_delete(&ctx, id, force).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/associations`
pub async fn associations(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<QosSpecsId>) -> Answer {
    let types = app.engine.qos_specs_types(&ctx, id).await?;
    let list = types.iter().map(|t| json!({ "association_type": "volume_type", "name": t.name, "id": t.id }));
    Ok(axum::Json(json!({ "qos_associations": list.collect::<Vec<_>>() })))
}

/// The type that a query names.
fn named(query: &Pairs) -> Result<VolumeTypeId, ApiError> {
    let missing = || ApiError::bad_request("Volume Type id must not be None: give vol_type_id in the query.");
    parsed(query, "vol_type_id")?.ok_or_else(missing)
}

/// `GET /qos-specs/{id}/associate?vol_type_id=`
pub async fn associate(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosSpecsId>,
    query: Pairs,
) -> Result<StatusCode, ApiError> {
    app.engine.qos_specs_tie(&ctx, id, named(&query)?, true).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/disassociate?vol_type_id=`
pub async fn disassociate(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosSpecsId>,
    query: Pairs,
) -> Result<StatusCode, ApiError> {
    app.engine.qos_specs_tie(&ctx, id, named(&query)?, false).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /qos-specs/{id}/disassociate_all`
pub async fn disassociate_all(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosSpecsId>,
) -> Result<StatusCode, ApiError> {
    app.engine.qos_specs_untie_all(&ctx, id).await?;
    Ok(StatusCode::ACCEPTED)
}
