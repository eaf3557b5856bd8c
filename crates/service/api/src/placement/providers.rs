//! Resource providers, their usages, aggregates and traits.

use super::query::{self, keys_checked};
use super::{Answer, location, shown, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::Fields;
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::fleet::Member;
use arcus_engine::providers::ProviderFilter;
use arcus_types::{ProviderAggregateId, ProviderId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// The longest name of a provider, in characters.
const NAME_CHARS_MAX: usize = 200;

fn body(m: &Member, version: Microversion) -> Value {
    let own = format!("/placement/resource_providers/{}", m.view.id);
    let mut links = vec![json!({ "rel": "self", "href": own })];
    for (minor, rel) in [(0, "inventories"), (0, "usages"), (1, "aggregates"), (6, "traits"), (11, "allocations")] {
        if version.at_least(minor) {
            links.push(json!({ "rel": rel, "href": format!("{own}/{rel}") }));
        }
    }
    let mut out = json!({ "uuid": m.view.id, "name": m.name, "generation": m.generation, "links": links });
    if version.at_least(14) {
        out["parent_provider_uuid"] = json!(m.view.parent_id);
        out["root_provider_uuid"] = json!(m.view.root_id);
    }
    out
}

/// `GET /resource_providers`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let mut known = vec!["name", "uuid"];
    for (minor, key) in [(3, "member_of"), (4, "resources"), (14, "in_tree"), (18, "required")] {
        if version.at_least(minor) {
            known.push(key);
        }
    }
    let repeated: &[&str] = if version.at_least(39) {
        &["member_of", "required"]
    } else if version.at_least(24) {
        &["member_of"]
    } else {
        &[]
    };
    keys_checked(&query, &known, repeated)?;
    let mut filter = ProviderFilter { name: query.first("name").map(str::to_owned), ..ProviderFilter::default() };
    filter.id = query.first("uuid").map(|text| query::provider("uuid", text)).transpose()?;
    filter.in_tree = query.first("in_tree").map(|text| query::provider("in_tree", text)).transpose()?;
    filter.group.resources = query.first("resources").map(query::resources).transpose()?.unwrap_or_default();
    for text in query.every("required") {
        query::required(&mut filter.group, text, version)?;
    }
    for text in query.every("member_of") {
        query::member_of(&mut filter.group, text, version)?;
    }
    let found = app.engine.provider_list(&ctx, &filter).await?;
    let modified = found.iter().map(|m| m.updated_at).max();
    let list: Vec<Value> = found.iter().map(|m| body(m, version)).collect();
    shown(version, modified, &json!({ "resource_providers": list }))
}

fn name<'a>(fields: &mut Fields<'a>) -> Result<&'a str, ApiError> {
    fields.text_required("name", 1, NAME_CHARS_MAX)
}

fn parent(fields: &mut Fields<'_>, version: Microversion) -> Result<Option<Option<ProviderId>>, ApiError> {
    if !version.at_least(14) {
        return Ok(None);
    }
    match fields.raw("parent_provider_uuid") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => {
            let id = value.as_str().and_then(|text| text.parse().ok());
            let id = id.ok_or_else(|| crate::fields::refused("parent_provider_uuid", value, "It is no UUID."))?;
            Ok(Some(Some(id)))
        }
    }
}

/// `POST /resource_providers`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(said): Json<Value>) -> Answer {
    let mut fields = Fields::object(&said, "body")?;
    let name = name(&mut fields)?;
    let id: Option<ProviderId> = fields.parsed("uuid")?;
    let parent = parent(&mut fields, version)?.flatten();
    fields.end()?;
    let made = app.engine.provider_create(&ctx, id.unwrap_or_else(ProviderId::random), name, parent).await?;
    let path = format!("resource_providers/{}", made.view.id);
    if version.at_least(20) {
        let mut response = shown(version, Some(made.updated_at), &body(&made, version))?;
        response.headers_mut().extend(location(StatusCode::OK, &app, &path).headers().clone());
        return Ok(response);
    }
    Ok(location(StatusCode::CREATED, &app, &path))
}

/// `GET /resource_providers/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ProviderId>) -> Answer {
    let found = app.engine.provider_get(&ctx, id).await?;
    shown(version, Some(found.updated_at), &body(&found, version))
}

/// `PUT /resource_providers/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
    Json(said): Json<Value>,
) -> Answer {
    let mut fields = Fields::object(&said, "body")?;
    let name = name(&mut fields)?;
    let parent = parent(&mut fields, version)?;
    fields.end()?;
    let found = app.engine.provider_update(&ctx, id, name, parent, version.at_least(37)).await?;
    shown(version, Some(found.updated_at), &body(&found, version))
}

/// `DELETE /resource_providers/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProviderId>) -> Result<StatusCode, ApiError> {
    app.engine.provider_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /resource_providers/{id}/usages`
pub async fn usages(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ProviderId>) -> Answer {
    let found = app.engine.provider_get(&ctx, id).await?;
    let used: Map<String, Value> = found.inventories.iter().map(|i| (i.class.clone(), json!(i.used))).collect();
    shown(version, None, &json!({ "resource_provider_generation": found.generation, "usages": used }))
}

fn aggregates_body(m: &Member, version: Microversion) -> Value {
    let mut out = json!({ "aggregates": m.view.aggregates });
    if version.at_least(19) {
        out["resource_provider_generation"] = json!(m.generation);
    }
    out
}

/// `GET /resource_providers/{id}/aggregates`, from 1.1 on
pub async fn aggregates(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
) -> Answer {
    since(version, 1)?;
    let found = app.engine.provider_get(&ctx, id).await?;
    shown(version, None, &aggregates_body(&found, version))
}

/// `PUT /resource_providers/{id}/aggregates`, from 1.1 on: a list, and from 1.19 on an object with the generation.
pub async fn aggregates_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
    Json(said): Json<Value>,
) -> Answer {
    since(version, 1)?;
    let (list, generation) = if version.at_least(19) {
        let mut fields = Fields::object(&said, "body")?;
        let generation = generation(&mut fields)?;
        let list = fields.raw("aggregates").cloned().ok_or_else(|| crate::fields::required("body", "aggregates"))?;
        fields.end()?;
        (list, Some(generation))
    } else {
        (said, None)
    };
    let mut ids: Vec<ProviderAggregateId> = serde_json::from_value(list)
        .map_err(|e| ApiError::bad_request(format!("JSON does not validate: aggregates: {e}")))?;
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < count {
        return Err(ApiError::bad_request("JSON does not validate: aggregates has non-unique elements"));
    }
    let found = app.engine.provider_aggregates_set(&ctx, id, generation, ids).await?;
    shown(version, None, &aggregates_body(&found, version))
}

/// The generation that a caller must know.
pub(super) fn generation(fields: &mut Fields<'_>) -> Result<u64, ApiError> {
    let value = fields.integer("resource_provider_generation", 0, i64::MAX)?;
    let value = value.ok_or_else(|| crate::fields::required("body", "resource_provider_generation"))?;
    Ok(u64::try_from(value).unwrap_or(0))
}

fn traits_body(m: &Member) -> Value {
    json!({ "traits": m.view.traits, "resource_provider_generation": m.generation })
}

/// `GET /resource_providers/{id}/traits`, from 1.6 on
pub async fn traits(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ProviderId>) -> Answer {
    since(version, 6)?;
    let found = app.engine.provider_get(&ctx, id).await?;
    shown(version, Some(found.updated_at), &traits_body(&found))
}

/// `PUT /resource_providers/{id}/traits`, from 1.6 on
pub async fn traits_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
    Json(said): Json<Value>,
) -> Answer {
    since(version, 6)?;
    let mut fields = Fields::object(&said, "body")?;
    let generation = generation(&mut fields)?;
    let list = fields.raw("traits").cloned().ok_or_else(|| crate::fields::required("body", "traits"))?;
    fields.end()?;
    let names: Vec<String> = serde_json::from_value(list)
        .map_err(|e| ApiError::bad_request(format!("JSON does not validate: traits: {e}")))?;
    let found = app.engine.provider_traits_set(&ctx, id, Some(generation), names).await?;
    shown(version, Some(found.updated_at), &traits_body(&found))
}

/// `DELETE /resource_providers/{id}/traits`, from 1.6 on
pub async fn traits_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
) -> Result<StatusCode, ApiError> {
    since(version, 6)?;
    app.engine.provider_traits_set(&ctx, id, None, Vec::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}
