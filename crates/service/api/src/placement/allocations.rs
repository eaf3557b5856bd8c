//! Who claims what of providers.

use super::inventories::read_all;
use super::providers::generation;
use super::query::{AMOUNT_MAX, keys_checked};
use super::{Answer, shown, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::providers::{AllocationWish, ConsumerWish};
use arcus_store::{AllocationRow, Inventory};
use arcus_types::{ConsumerId, ProviderId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn resources(rows: &[AllocationRow], of: ProviderId) -> Map<String, Value> {
    rows.iter().filter(|r| r.provider_id == of).map(|r| (r.class.clone(), json!(r.used))).collect()
}

/// `GET /resource_providers/{id}/allocations`
pub async fn of_provider(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
) -> Answer {
    let (provider, found) = app.engine.provider_allocations(&ctx, id).await?;
    let mut list = Map::new();
    for (consumer, rows) in &found {
        let mut one = json!({ "resources": resources(rows, id) });
        if version.at_least(28) {
            one["consumer_generation"] = json!(consumer.generation);
        }
        list.insert(consumer.id.to_string(), one);
    }
    let modified = found.iter().map(|(c, _)| c.updated_at).max();
    let out = json!({ "allocations": list, "resource_provider_generation": provider.generation });
    shown(version, modified, &out)
}

/// `GET /allocations/{consumer_id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ConsumerId>) -> Answer {
    let Some((consumer, rows)) = app.engine.consumer_get(&ctx, id).await? else {
        return shown(version, None, &json!({ "allocations": {} }));
    };
    let mut list = Map::new();
    for row in &rows {
        let key = row.provider_id.to_string();
        if !list.contains_key(&key) {
            let generation = app.engine.provider_generation(row.provider_id).await?;
            list.insert(key, json!({ "resources": resources(&rows, row.provider_id), "generation": generation }));
        }
    }
    let mut out = json!({ "allocations": list });
    if version.at_least(12) && !rows.is_empty() {
        out["project_id"] = json!(consumer.project);
        out["user_id"] = json!(consumer.owner);
        if version.at_least(28) {
            out["consumer_generation"] = json!(consumer.generation);
        }
        if version.at_least(38) {
            out["consumer_type"] = json!(consumer.kind);
        }
    }
    shown(version, Some(consumer.updated_at), &out)
}

fn amounts(value: &Value) -> Result<Vec<(String, u64)>, ApiError> {
    let map = value.as_object().filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| refused("resources", value, "It must be an object that is not empty."))?;
    map.iter()
        .map(|(class, amount)| {
            let fits = amount.as_u64().filter(|n| (1..=AMOUNT_MAX).contains(n));
            Ok((class.clone(), fits.ok_or_else(|| refused(class, amount, "It must be a whole number from 1 on."))?))
        })
        .collect()
}

fn provider_id(text: &str) -> Result<ProviderId, ApiError> {
    text.parse().map_err(|_| refused("allocations", &json!(text), "A key that is no UUID."))
}

/// The claims: until 1.11 a list, then an object by provider.
fn claims(value: &Value, version: Microversion) -> Result<Vec<AllocationWish>, ApiError> {
    let mut out: Vec<AllocationWish> = Vec::new();
    if version.at_least(12) {
        let map = value.as_object().ok_or_else(|| refused("allocations", value, "It is not an object."))?;
        for (id, one) in map {
            let mut fields = Fields::object(one, "allocations")?;
            fields.raw("generation");
            let said = fields.raw("resources").ok_or_else(|| required("allocations", "resources"))?;
            fields.end()?;
            out.push(AllocationWish { provider_id: provider_id(id)?, resources: amounts(said)? });
        }
        return Ok(out);
    }
    let list = value.as_array().ok_or_else(|| refused("allocations", value, "It is not a list."))?;
    for one in list {
        let mut fields = Fields::object(one, "allocations")?;
        let said = fields.raw("resources").ok_or_else(|| required("allocations", "resources"))?;
        let of = fields.raw("resource_provider").ok_or_else(|| required("allocations", "resource_provider"))?;
        fields.end()?;
        let id = of.get("uuid").and_then(Value::as_str).ok_or_else(|| required("resource_provider", "uuid"))?;
        let provider_id = provider_id(id)?;
        out.retain(|known| known.provider_id != provider_id);
        out.push(AllocationWish { provider_id, resources: amounts(said)? });
    }
    Ok(out)
}

fn consumer(id: ConsumerId, said: &Value, version: Microversion) -> Result<ConsumerWish, ApiError> {
    let mut fields = Fields::object(said, "body")?;
    let list = fields.raw("allocations").ok_or_else(|| required("body", "allocations"))?;
    let claims = claims(list, version)?;
    let (mut project, mut owner, mut kind, mut known) = (None, None, None, None);
    if version.at_least(8) {
        project = Some(fields.text_required("project_id", 1, 255)?.to_owned());
        owner = Some(fields.text_required("user_id", 1, 255)?.to_owned());
    }
    if version.at_least(28) {
        let said = fields.raw("consumer_generation").ok_or_else(|| required("body", "consumer_generation"))?;
        known = Some(match said {
            Value::Null => None,
            value => Some(value.as_u64().ok_or_else(|| refused("consumer_generation", value, "It is no number."))?),
        });
    }
    if version.at_least(38) {
        let text = fields.text_required("consumer_type", 1, 255)?;
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !text.chars().all(plain) {
            return Err(refused("consumer_type", &json!(text), "It must match ^[A-Z0-9_]+$."));
        }
        kind = Some(text.to_owned());
    }
    if version.at_least(34) {
        fields.raw("mappings");
    }
    fields.end()?;
    Ok(ConsumerWish { id, project, owner, kind, generation: known, claims })
}

/// `PUT /allocations/{consumer_id}`
pub async fn set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ConsumerId>,
    Json(said): Json<Value>,
) -> Result<StatusCode, ApiError> {
    let wish = consumer(id, &said, version)?;
    if wish.claims.is_empty() && !version.at_least(28) {
        return Err(refused("allocations", &said["allocations"], "It must not be empty."));
    }
    app.engine.allocations_set(&ctx, &[wish]).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn consumers(said: &Value, version: Microversion) -> Result<Vec<ConsumerWish>, ApiError> {
    let map = said.as_object().ok_or_else(|| refused("body", said, "It is not an object."))?;
    map.iter()
        .map(|(id, one)| {
            let id = id.parse().map_err(|_| refused("body", &json!(id), "A key that is no UUID."))?;
            consumer(id, one, version)
        })
        .collect()
}

/// `POST /allocations`, from 1.13 on: several consumers, all or none.
pub async fn set_many(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(said): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 13)?;
    let wishes = consumers(&said, version)?;
    if wishes.is_empty() {
        return Err(refused("body", &said, "It must not be empty."));
    }
    app.engine.allocations_set(&ctx, &wishes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /allocations/{consumer_id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ConsumerId>) -> Result<StatusCode, ApiError> {
    app.engine.allocations_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /usages`, from 1.9 on: of a project, or of one user in it; from 1.38 on by kind of consumer.
pub async fn usages(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 9)?;
    let known: &[&str] =
        if version.at_least(38) { &["project_id", "user_id", "consumer_type"] } else { &["project_id", "user_id"] };
    keys_checked(&query, known, &[])?;
    let project = query.first("project_id").filter(|text| !text.is_empty() && text.len() <= 255);
    let project = project.ok_or_else(|| ApiError::bad_request("'project_id' is a required property"))?;
    let wanted = query.first("consumer_type").filter(|kind| *kind != "all");
    let found = app.engine.consumer_usages(&ctx, project, query.first("user_id"), wanted).await?;
    let mut out = Map::new();
    if !version.at_least(38) || query.first("consumer_type") == Some("all") {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (class, used) in found.iter().flat_map(|u| &u.classes) {
            *sums.entry(class).or_default() += used;
        }
        let mut all: Map<String, Value> =
            sums.into_iter().map(|(class, used)| (class.to_owned(), json!(used))).collect();
        if version.at_least(38) {
            if !all.is_empty() {
                all.insert("consumer_count".into(), json!(found.iter().map(|u| u.count).sum::<u64>()));
                out.insert("all".into(), Value::Object(all));
            }
        } else {
            out = all;
        }
    } else {
        for usage in &found {
            let mut one: Map<String, Value> = usage.classes.iter().map(|(c, used)| (c.clone(), json!(used))).collect();
            one.insert("consumer_count".into(), json!(usage.count));
            out.insert(usage.kind.clone(), Value::Object(one));
        }
    }
    shown(version, None, &json!({ "usages": out }))
}

/// `POST /reshaper`, from 1.30 on: inventories and claims at once.
pub async fn reshape(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(said): Json<Value>,
) -> Result<StatusCode, ApiError> {
    since(version, 30)?;
    let mut fields = Fields::object(&said, "body")?;
    let list = fields.raw("inventories").ok_or_else(|| required("body", "inventories"))?;
    let list = list.as_object().ok_or_else(|| refused("inventories", list, "It is not an object."))?;
    let claims = fields.raw("allocations").ok_or_else(|| required("body", "allocations"))?;
    fields.end()?;
    let mut inventories: BTreeMap<ProviderId, (u64, Vec<Inventory>)> = BTreeMap::new();
    for (id, one) in list {
        let mut fields = Fields::object(one, "inventories")?;
        let known = generation(&mut fields)?;
        let wanted = read_all(&mut fields, version)?;
        fields.end()?;
        inventories.insert(provider_id(id)?, (known, wanted));
    }
    app.engine.reshape(&ctx, &inventories, &consumers(claims, version)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
