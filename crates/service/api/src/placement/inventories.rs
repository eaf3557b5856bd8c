//! What providers have.

use super::providers::generation;
use super::query::AMOUNT_MAX;
use super::{Answer, dated, location, shown};
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::fields::{Fields, refused, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::fleet::Member;
use arcus_store::Inventory;
use arcus_types::ProviderId;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

fn body(i: &Inventory) -> Value {
    // A ratio is shown as it was given; that of a node follows from what may be claimed of it.
    let ratio = (i.ratio_millionths as f64 / 100.0).round() / 10_000.0;
    json!({
        "total": i.total, "reserved": i.reserved, "min_unit": i.min_unit, "max_unit": i.max_unit,
        "step_size": i.step_size, "allocation_ratio": ratio,
    })
}

fn one_body(m: &Member, i: &Inventory) -> Value {
    let mut out = body(i);
    out["resource_provider_generation"] = json!(m.generation);
    out
}

fn all(m: &Member, version: Microversion) -> Answer {
    let list: Map<String, Value> = m.inventories.iter().map(|i| (i.class.clone(), body(i))).collect();
    let out = json!({ "resource_provider_generation": m.generation, "inventories": list });
    shown(version, Some(m.updated_at), &out)
}

/// One inventory as a client says it. `fields` is left for what else the body holds.
pub(super) fn read(fields: &mut Fields<'_>, class: &str, version: Microversion) -> Result<Inventory, ApiError> {
    let max = i64::try_from(AMOUNT_MAX).unwrap_or(i64::MAX);
    let mut number = |key: &'static str, min: i64, default: Option<u64>| -> Result<u64, ApiError> {
        match (fields.integer(key, min, max)?, default) {
            (Some(value), _) => Ok(u64::try_from(value).unwrap_or(0)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(required("inventory", key)),
        }
    };
    let total = number("total", 1, None)?;
    let reserved = number("reserved", 0, Some(0))?;
    let min_unit = number("min_unit", 1, Some(1))?;
    let max_unit = number("max_unit", 1, Some(AMOUNT_MAX))?;
    let step_size = number("step_size", 1, Some(1))?;
    let ratio = match fields.raw("allocation_ratio") {
        None => 1.0,
        Some(value) => {
            let ratio = value.as_f64().filter(|r| (0.0..=1e6).contains(r));
            ratio.ok_or_else(|| refused("allocation_ratio", value, "It must be a number from 0 to 1000000."))?
        }
    };
    let ratio_millionths = (ratio * 1e6).round() as u64;
    let cap = Inventory::cap_of(total, reserved, ratio_millionths);
    if reserved > total || (cap == 0 && !version.at_least(26)) {
        return Err(ApiError::bad_request(format!(
            "Invalid inventory for '{class}'. The reserved value is greater than or equal to total."
        )));
    }
    Ok(Inventory {
        class: class.to_owned(),
        total,
        reserved,
        min_unit,
        max_unit,
        step_size,
        ratio_millionths,
        cap,
        used: 0,
    })
}

/// `GET /resource_providers/{id}/inventories`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ProviderId>) -> Answer {
    all(&*app.engine.provider_get(&ctx, id).await?, version)
}

/// `PUT /resource_providers/{id}/inventories`: all of them.
pub async fn set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
    Json(said): Json<Value>,
) -> Answer {
    let mut fields = Fields::object(&said, "body")?;
    let known = generation(&mut fields)?;
    let wanted = read_all(&mut fields, version)?;
    fields.end()?;
    all(&*app.engine.inventories_set(&ctx, id, Some(known), wanted, false).await?, version)
}

/// The object `inventories` by class.
pub(super) fn read_all(fields: &mut Fields<'_>, version: Microversion) -> Result<Vec<Inventory>, ApiError> {
    let list = fields.raw("inventories").ok_or_else(|| required("body", "inventories"))?;
    let list = list.as_object().ok_or_else(|| refused("inventories", list, "It is not an object."))?;
    let mut wanted = Vec::new();
    for (class, one) in list {
        let mut fields = Fields::object(one, class)?;
        fields.raw("resource_provider_generation");
        wanted.push(read(&mut fields, class, version)?);
        fields.end()?;
    }
    Ok(wanted)
}

/// `POST /resource_providers/{id}/inventories`: one more.
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
    Json(said): Json<Value>,
) -> Answer {
    let mut fields = Fields::object(&said, "body")?;
    let class = fields.text_required("resource_class", 1, 255)?;
    fields.raw("resource_provider_generation");
    let wanted = read(&mut fields, class, version)?;
    fields.end()?;
    let known = app.engine.provider_get(&ctx, id).await?;
    if known.inventories.iter().any(|i| i.class == class) {
        let message = format!("Update conflict: inventory of {class} exists; change it instead.");
        return Err(ApiError { code: "placement.concurrent_update", ..ApiError::new(StatusCode::CONFLICT, message) });
    }
    let m = app.engine.inventories_set(&ctx, id, Some(known.generation), vec![wanted], true).await?;
    let made = found(&m, class)?;
    let headers = location(StatusCode::CREATED, &app, &format!("resource_providers/{id}/inventories/{class}"));
    let mut response = (StatusCode::CREATED, axum::Json(one_body(&m, made))).into_response();
    response.headers_mut().extend(headers.headers().clone());
    Ok(dated(response, version, Some(m.updated_at)))
}

fn found<'a>(m: &'a Member, class: &str) -> Result<&'a Inventory, ApiError> {
    m.inventories.iter().find(|i| i.class == class).ok_or_else(|| {
        let class: String = class.chars().take(255).collect();
        ApiError::new(StatusCode::NOT_FOUND, format!("No inventory of class {class} for {}", m.view.id))
    })
}

/// Both words of the path.
fn both(path: (String, String)) -> Result<(ProviderId, String), ApiError> {
    let shown: String = path.0.chars().take(64).collect();
    Ok((path.0.parse().map_err(|_| ApiError::not_found("Resource provider", shown))?, path.1))
}

/// `GET /resource_providers/{id}/inventories/{class}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(path): Path<(String, String)>,
) -> Answer {
    let (id, class) = both(path)?;
    let m = app.engine.provider_get(&ctx, id).await?;
    shown(version, Some(m.updated_at), &one_body(&m, found(&m, &class)?))
}

/// `PUT /resource_providers/{id}/inventories/{class}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path(path): Path<(String, String)>,
    Json(said): Json<Value>,
) -> Answer {
    let (id, class) = both(path)?;
    let mut fields = Fields::object(&said, "body")?;
    let known = generation(&mut fields)?;
    let wanted = read(&mut fields, &class, version)?;
    fields.end()?;
    let before = app.engine.provider_get(&ctx, id).await?;
    if !before.inventories.iter().any(|i| i.class == class) {
        let class: String = class.chars().take(255).collect();
        return Err(ApiError::bad_request(format!("No inventory record with resource class {class}: create it.")));
    }
    let m = app.engine.inventories_set(&ctx, id, Some(known), vec![wanted], true).await?;
    shown(version, Some(m.updated_at), &one_body(&m, found(&m, &class)?))
}

/// `DELETE /resource_providers/{id}/inventories/{class}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, class) = both(path)?;
    app.engine.inventory_delete(&ctx, id, Some(&class)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /resource_providers/{id}/inventories`, from 1.5 on
pub async fn delete_all(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProviderId>,
) -> Result<StatusCode, ApiError> {
    if !version.at_least(5) {
        let message = "The method DELETE is not allowed for this resource.";
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    app.engine.inventory_delete(&ctx, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
