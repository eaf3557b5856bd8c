//! Flavors, their further settings and who may use the private ones.

use super::Answer;
use super::fields::{Fields, refused, required, texts, truth};
use super::links::{self, limit, parsed};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::flavors::{FlavorNew, extra_spec_not_found};
use arcus_store::{Flavor, FlavorFilter, FlavorSort};
use arcus_types::flavors::FlavorId;
use arcus_types::{OpCtx, ProjectId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The largest number that a flavor's quantity may be; source: the compute API's schema.
const QUANTITY_MAX: i64 = 0x7FFF_FFFF;

fn brief(app: &App, flavor: &Flavor, version: Microversion) -> Value {
    let mut out = json!({
        "id": flavor.id, "name": flavor.name, "links": links::links(app, "flavors", flavor.id.as_str()),
    });
    if version.at_least(55) {
        out["description"] = json!(flavor.description);
    }
    out
}

/// A flavor in full.
fn full(app: &App, flavor: &Flavor, version: Microversion) -> Value {
    let mut out = brief(app, flavor, version);
    out["ram"] = json!(flavor.memory_mib);
    out["disk"] = json!(flavor.disk_gib);
    out["vcpus"] = json!(flavor.vcpus);
    // Before 2.75 no swap is an empty text.
    out["swap"] = if flavor.swap_mib == 0 && !version.at_least(75) { json!("") } else { json!(flavor.swap_mib) };
    out["OS-FLV-EXT-DATA:ephemeral"] = json!(flavor.ephemeral_gib);
    out["OS-FLV-DISABLED:disabled"] = json!(false);
    out["os-flavor-access:is_public"] = json!(flavor.is_public);
    out["rxtx_factor"] = json!(f64::from(flavor.rxtx_percent) / 100.0);
    if version.at_least(61) {
        out["extra_specs"] = json!(flavor.extra_specs);
    }
    out
}

fn filter(ctx: &OpCtx, query: &Pairs) -> Result<FlavorFilter, ApiError> {
    let sort = match query.first("sort_key") {
        None | Some("flavorid" | "id") => FlavorSort::Id,
        Some("name") => FlavorSort::Name,
        Some("memory_mb") => FlavorSort::Memory,
        Some("root_gb" | "ephemeral_gb") => FlavorSort::Disk,
        Some("vcpus") => FlavorSort::Vcpus,
        Some("created_at") => FlavorSort::CreatedAt,
        Some("updated_at") => FlavorSort::UpdatedAt,
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            return Err(ApiError::bad_request(format!("Invalid input for query parameters sort_key. Value: {other}.")));
        }
    };
    let descending = match query.first("sort_dir") {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(ApiError::bad_request("Invalid input for query parameters sort_dir.")),
    };
    let is_public = match query.first("is_public") {
        None => Some(true),
        Some(text) if text.eq_ignore_ascii_case("none") => None,
        Some(text) => Some(truth(text).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            ApiError::bad_request(format!("Invalid is_public filter [{text}]"))
        })?),
    };
    Ok(FlavorFilter {
        viewer: None,
        is_public: if ctx.is_admin() { is_public } else { None },
        memory_mib_min: parsed(query, "minRam")?.unwrap_or(0),
        disk_gib_min: parsed(query, "minDisk")?.unwrap_or(0),
        sort: Some(sort),
        descending,
        marker: parsed(query, "marker")?,
        limit: limit(query)?,
    })
}

/// `GET /flavors`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    list_as(&ctx, &app, version, &query, "/flavors", brief).await
}

/// `GET /flavors/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    list_as(&ctx, &app, version, &query, "/flavors/detail", full).await
}

async fn list_as(
    ctx: &OpCtx,
    app: &App,
    version: Microversion,
    query: &Pairs,
    path: &str,
    show: fn(&App, &Flavor, Microversion) -> Value,
) -> Answer {
    if version.at_least(75) {
        links::known(query, &["limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir"])?;
    }
    let (flavors, more) = app.engine.flavor_list(ctx, filter(ctx, query)?).await?;
    let mut out = json!({ "flavors": flavors.iter().map(|f| show(app, f, version)).collect::<Vec<_>>() });
    if let (true, Some(last)) = (more, flavors.last()) {
        out["flavors_links"] = links::next(app, path, query, last.id.as_str());
    }
    Ok(axum::Json(out))
}

/// `GET /flavors/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<FlavorId>) -> Answer {
    let flavor = app.engine.flavor_get(&ctx, &id).await?;
    Ok(axum::Json(json!({ "flavor": full(&app, &flavor, version) })))
}

/// `POST /flavors`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Answer {
    let mut fields = Fields::of(&body, "flavor", &[])?;
    let name = fields.text_required("name", 1, 255)?;
    if name.trim() != name || name.chars().any(char::is_control) {
        return Err(refused("name", &json!(name), "It begins or ends with white space or holds control characters."));
    }
    let id = match fields.raw("id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text == "auto" => None,
        Some(Value::Number(n)) => Some(n.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_))) => {
            return Err(refused("id", other, "It is neither a string nor a number."));
        }
    };
    let id: Option<FlavorId> =
        id.map(|text| text.parse()).transpose().map_err(|e: arcus_types::Rejected| ApiError::bad_request(e.0))?;
    let mut number = |key, min| -> Result<Option<u64>, ApiError> {
        Ok(fields.integer(key, min, QUANTITY_MAX)?.and_then(|n| u64::try_from(n).ok()))
    };
    let memory_mib = number("ram", 1)?.ok_or_else(|| required("flavor", "ram"))?;
    let vcpus = number("vcpus", 1)?.ok_or_else(|| required("flavor", "vcpus"))?;
    let disk_gib = number("disk", 0)?.ok_or_else(|| required("flavor", "disk"))?;
    let ephemeral_gib = number("OS-FLV-EXT-DATA:ephemeral", 0)?.unwrap_or(0);
    let swap_mib = number("swap", 0)?.unwrap_or(0);
    let rxtx_percent = match fields.raw("rxtx_factor") {
        None | Some(Value::Null) => 100,
        Some(value) => rxtx(value)?,
    };
    let is_public = fields.boolean("os-flavor-access:is_public")?.unwrap_or(true);
    let description =
        if version.at_least(55) { fields.text("description", 0, 65_535)?.map(str::to_owned) } else { None };
    fields.end()?;
    let new = FlavorNew {
        id,
        name: name.to_owned(),
        vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
        memory_mib,
        disk_gib,
        ephemeral_gib,
        swap_mib,
        rxtx_percent,
        is_public,
        description,
    };
    let flavor = app.engine.flavor_create(&ctx, new).await?;
    Ok(axum::Json(json!({ "flavor": full(&app, &flavor, version) })))
}

/// A factor such as `1.5` in percent.
fn rxtx(value: &Value) -> Result<u32, ApiError> {
    let text = match value {
        Value::Number(n) => n.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let percent = whole.parse::<u32>().ok().zip(format!("{part:0<2}").get(..2).and_then(|p| p.parse::<u32>().ok()));
    match percent {
        Some((whole, part)) if part < 100 && whole < 10_000_000 && whole * 100 + part > 0 => Ok(whole * 100 + part),
        Some(_) | None => Err(refused("rxtx_factor", value, "It is not a positive number.")),
    }
}

/// `PUT /flavors/{id}`, from 2.55 on
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<FlavorId>,
    Json(body): Json<Value>,
) -> Answer {
    super::since(version, 55)?;
    let mut fields = Fields::of(&body, "flavor", &[])?;
    let description = fields.text_or_null("description", 65_535)?.ok_or_else(|| required("flavor", "description"))?;
    fields.end()?;
    let flavor = app.engine.flavor_describe(&ctx, &id, description).await?;
    Ok(axum::Json(json!({ "flavor": full(&app, &flavor, version) })))
}

/// `DELETE /flavors/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<FlavorId>) -> Result<StatusCode, ApiError> {
    app.engine.flavor_delete(&ctx, &id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /flavors/{id}/os-extra_specs`
pub async fn extra_specs(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<FlavorId>) -> Answer {
    let flavor = app.engine.flavor_get(&ctx, &id).await?;
    Ok(axum::Json(json!({ "extra_specs": flavor.extra_specs })))
}

/// `POST /flavors/{id}/os-extra_specs`
pub async fn extra_specs_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<FlavorId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::object(&body, "body")?;
    let given = fields.raw("extra_specs").ok_or_else(|| required("body", "extra_specs"))?;
    let specs = specs(given)?;
    effective(&specs, version)?;
    fields.end()?;
    app.engine.flavor_extra_specs_set(&ctx, &id, specs.clone()).await?;
    Ok(axum::Json(json!({ "extra_specs": specs })))
}

/// The settings that nodes act on.
const HONOURED: [&str; 3] = ["quota:cpu_shares", "quota:cpu_quota", "quota:cpu_period"];
/// Name spaces whose settings mean something to the cloud, so that one which is not honoured would deceive.
const RESERVED: [&str; 10] =
    ["accel", "capabilities", "hw", "hw_rng", "hw_video", "os", "pci_passthrough", "quota", "resources", "trait"];

/// From 2.86 on, a setting that would have no effect is refused.
fn effective(specs: &BTreeMap<String, String>, version: Microversion) -> Result<(), ApiError> {
    if !version.at_least(86) {
        return Ok(());
    }
    for (key, value) in specs {
        let space = key.split(':').next().unwrap_or_default();
        if HONOURED.contains(&key.as_str()) {
            if value.parse::<u32>().is_err() {
                return Err(ApiError::bad_request(format!(
                    "Validation failed; extra spec '{key}' must be a whole number."
                )));
            }
        } else if key == "hw:cpu_policy" && value == "shared" {
            // That is how every guest runs here.
        } else if key.contains(':') && RESERVED.contains(&space) {
            return Err(ApiError::bad_request(format!(
                "Validation failed; extra spec '{key}' has no effect in this cloud."
            )));
        }
    }
    Ok(())
}

/// Settings may be numbers and booleans too; they are kept as text.
fn specs(value: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let map = value.as_object().ok_or_else(|| refused("extra_specs", value, "It is not an object."))?;
    let plain: serde_json::Map<String, Value> = map
        .iter()
        .map(|(k, v)| {
            let v = match v {
                Value::Number(n) => json!(n.to_string()),
                Value::Bool(b) => json!(b.to_string()),
                Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => v.clone(),
            };
            (k.clone(), v)
        })
        .collect();
    texts("extra_specs", &Value::Object(plain))
}

/// `GET /flavors/{id}/os-extra_specs/{key}`
pub async fn extra_spec(Ctx(ctx): Ctx, State(app): State<App>, Path((id, key)): Path<(String, String)>) -> Answer {
    let id = flavor_id(&id)?;
    let flavor = app.engine.flavor_get(&ctx, &id).await?;
    let value = flavor.extra_specs.get(&key).ok_or_else(|| extra_spec_not_found(&id, &key))?;
    Ok(axum::Json(json!({ key: value })))
}

/// `PUT /flavors/{id}/os-extra_specs/{key}`
pub async fn extra_spec_set(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, key)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Answer {
    let given = specs(&body)?;
    effective(&given, version)?;
    if given.len() != 1 || !given.contains_key(&key) {
        return Err(ApiError::bad_request("Request body and URI mismatch"));
    }
    app.engine.flavor_extra_specs_set(&ctx, &flavor_id(&id)?, given.clone()).await?;
    Ok(axum::Json(json!(given)))
}

/// `DELETE /flavors/{id}/os-extra_specs/{key}`
pub async fn extra_spec_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.engine.flavor_extra_spec_delete(&ctx, &flavor_id(&id)?, &key).await?;
    Ok(StatusCode::OK)
}

fn flavor_id(text: &str) -> Result<FlavorId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Flavor", text.chars().take(64).collect::<String>()))
}

fn access(id: &FlavorId, projects: &[ProjectId]) -> Value {
    let list: Vec<Value> = projects.iter().map(|p| json!({ "flavor_id": id, "tenant_id": p })).collect();
    json!({ "flavor_access": list })
}

/// `GET /flavors/{id}/os-flavor-access`
pub async fn access_list(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<FlavorId>) -> Answer {
    let projects = app.engine.flavor_access_list(&ctx, &id).await?;
    Ok(axum::Json(access(&id, &projects)))
}

/// `POST /flavors/{id}/action`: `addTenantAccess` or `removeTenantAccess`
pub async fn action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<FlavorId>,
    Json(body): Json<Value>,
) -> Answer {
    let allowed = body.get("addTenantAccess").is_some();
    let mut fields = Fields::of(&body, if allowed { "addTenantAccess" } else { "removeTenantAccess" }, &[])?;
    let project: ProjectId = fields.parsed("tenant")?.ok_or_else(|| required("body", "tenant"))?;
    fields.end()?;
    let projects = app.engine.flavor_access_change(&ctx, &id, project, allowed, !version.at_least(7)).await?;
    Ok(axum::Json(access(&id, &projects)))
}
