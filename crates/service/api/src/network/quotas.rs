//! `/network/v2.0/quotas`.

use super::wire::one;
use crate::auth::Ctx;
use crate::body::{Id, Json as Body};
use crate::{ApiError, App, Route};
use arcus_engine::network_quotas::NETWORK_QUOTAS;
use arcus_store::Quota;
use arcus_types::ProjectId;
use arcus_types::policy::network as policy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// The routes of quotas.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/quotas", policy::QUOTA_LIST, list),
        Route::get("/network/v2.0/quotas/{id}", policy::QUOTA_GET, show),
        Route::put("/network/v2.0/quotas/{id}", policy::QUOTA_UPDATE, update),
        Route::delete("/network/v2.0/quotas/{id}", policy::QUOTA_DELETE, delete),
        Route::get("/network/v2.0/quotas/{id}/default", policy::QUOTA_GET, defaults),
        Route::get("/network/v2.0/quotas/{id}/details", policy::QUOTA_GET, details),
        Route::get("/network/v2.0/quotas/{id}/details.json", policy::QUOTA_GET, details),
    ]
}

fn view(quotas: &[Quota]) -> Map<String, Value> {
    quotas.iter().map(|quota| (quota.resource.name().to_owned(), json!(quota.cap))).collect()
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let all = app.engine.network_quota_list(&ctx).await?;
    let show = |(project, quotas): &(ProjectId, Vec<Quota>)| {
        let mut shown = view(quotas);
        shown.insert("project_id".into(), json!(project));
        shown.insert("tenant_id".into(), json!(project));
        Value::Object(shown)
    };
    Ok(Json(json!({ "quotas": all.iter().map(show).collect::<Vec<_>>() })))
}

async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<Json<Value>, ApiError> {
    let quotas = app.engine.network_quota_get(&ctx, id).await?;
    Ok(Json(json!({ "quota": view(&quotas) })))
}

async fn defaults(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<Json<Value>, ApiError> {
    app.engine.network_quota_get(&ctx, id).await?;
    let shown: Map<String, Value> =
        NETWORK_QUOTAS.iter().map(|r| (r.name().to_owned(), json!(r.default_cap()))).collect();
    Ok(Json(json!({ "quota": shown })))
}

async fn details(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<Json<Value>, ApiError> {
    let quotas = app.engine.network_quota_get(&ctx, id).await?;
    let shown: Map<String, Value> = quotas
        .iter()
        .map(|q| (q.resource.name().to_owned(), json!({ "limit": q.cap, "used": q.used, "reserved": 0 })))
        .collect();
    Ok(Json(json!({ "quota": shown })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ProjectId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let mut asked: Map<String, Value> = one(body, "quota")?;
    let check_limit = asked.remove("check_limit").is_some_and(|value| value == true || value == "true");
    let mut caps = Vec::with_capacity(asked.len());
    for (name, value) in asked {
        if matches!(name.as_str(), "tenant_id" | "project_id" | "force") {
            continue;
        }
        let resource = NETWORK_QUOTAS.iter().find(|r| r.name() == name);
        let resource = resource.ok_or_else(|| ApiError::bad_request(format!("Unrecognized attribute(s) '{name}'")))?;
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let cap = number.ok_or_else(|| {
            ApiError::bad_request(format!("Invalid input for {name}. Reason: '{value}' is not an integer."))
        })?;
        caps.push((*resource, cap));
    }
    let quotas = app.engine.network_quota_update(&ctx, id, &caps, check_limit).await?;
    Ok(Json(json!({ "quota": view(&quotas) })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<StatusCode, ApiError> {
    app.engine.network_quota_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
