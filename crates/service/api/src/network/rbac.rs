//! `/network/v2.0/rbac-policies`.

use super::lists::{answer, listing, prune};
use super::wire::one;
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::rbac::RbacNew;
use arcus_store::{RBAC_FIELDS, RbacAction, RbacPolicy, RbacType};
use arcus_types::policy::network as policy;
use arcus_types::{ProjectId, RbacPolicyId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// The routes of RBAC policies.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/rbac-policies", policy::RBAC_LIST, list),
        Route::post("/network/v2.0/rbac-policies", policy::RBAC_CREATE, create),
        Route::get("/network/v2.0/rbac-policies/{id}", policy::RBAC_GET, show),
        Route::put("/network/v2.0/rbac-policies/{id}", policy::RBAC_UPDATE, update),
        Route::delete("/network/v2.0/rbac-policies/{id}", policy::RBAC_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RbacCreateRequest {
    object_type: String,
    object_id: Uuid,
    action: String,
    target_tenant: Option<String>,
    target_project: Option<String>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RbacUpdateRequest {
    target_tenant: Option<String>,
    target_project: Option<String>,
}

/// Every project (`*`), or one.
fn target(named: Option<String>) -> Result<Option<ProjectId>, ApiError> {
    let wrong = |why: &str| ApiError::bad_request(format!("Invalid input for target_tenant. Reason: {why}."));
    match named.as_deref() {
        None => Err(wrong("it is required")),
        Some("*") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| wrong("it is neither a project nor '*'")),
    }
}

fn word<T: std::str::FromStr>(attribute: &str, text: &str) -> Result<T, ApiError> {
    let shown: String = text.chars().take(64).collect();
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid input for {attribute}. Reason: '{shown}' is not a valid RBAC {attribute}."
        ))
    })
}

fn view(of: &RbacPolicy) -> Value {
    json!({
        "id": of.id,
        "project_id": of.project_id,
        "tenant_id": of.project_id,
        "object_type": of.object_type.as_str(),
        "object_id": of.object_id,
        "action": of.action.as_str(),
        "target_tenant": of.target.map_or_else(|| "*".to_owned(), |project| project.to_string()),
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.rbac_list(&ctx, listing(&query, RBAC_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "rbac_policies", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: RbacCreateRequest = one(body, "rbac_policy")?;
    let new = RbacNew {
        project_id: asked.project_id.or(asked.tenant_id),
        object_type: word::<RbacType>("object_type", &asked.object_type)?,
        object_id: asked.object_id,
        action: word::<RbacAction>("action", &asked.action)?,
        target: target(asked.target_tenant.or(asked.target_project))?,
    };
    let made = app.engine.rbac_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "rbac_policy": view(&made) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RbacPolicyId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let of = app.engine.rbac_get(&ctx, id).await?;
    Ok(Json(json!({ "rbac_policy": prune(&query, view(&of)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<RbacPolicyId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: RbacUpdateRequest = one(body, "rbac_policy")?;
    let of = app.engine.rbac_update(&ctx, id, target(asked.target_tenant.or(asked.target_project))?).await?;
    Ok(Json(json!({ "rbac_policy": view(&of) })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<RbacPolicyId>) -> Result<StatusCode, ApiError> {
    app.engine.rbac_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
