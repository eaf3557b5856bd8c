//! Trusts on the wire (`OS-TRUST`).

use super::listing::Listing;
use super::roles::brief;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{RoleRef, TrustNew, TrustView};
use arcus_store::{Trust, TrustFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{ProjectId, RoleId, Timestamp, TrustId, UserId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ONE: &str = "/identity/v3/OS-TRUST/trusts/{trust_id}";
    vec![
        Route::get("/identity/v3/OS-TRUST/trusts", policy::TRUST_LIST, list),
        Route::get("/identity/v3/OS-TRUST/trusts/", policy::TRUST_LIST, list),
        Route::post("/identity/v3/OS-TRUST/trusts", policy::TRUST_CREATE, create),
        Route::get(ONE, policy::TRUST_GET, get),
        Route::delete(ONE, policy::TRUST_DELETE, delete),
        Route::get("/identity/v3/OS-TRUST/trusts/{trust_id}/roles", policy::TRUST_GET, roles),
        Route::get("/identity/v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", policy::TRUST_GET, role),
    ]
}

#[derive(Deserialize)]
struct TrustRequest {
    trust: TrustCreate,
}

#[derive(Deserialize)]
struct TrustCreate {
    trustor_user_id: UserId,
    trustee_user_id: String,
    project_id: Option<ProjectId>,
    impersonation: bool,
    #[serde(default)]
    roles: Vec<RolePart>,
    expires_at: Option<String>,
    remaining_uses: Option<u64>,
    allow_redelegation: Option<bool>,
    redelegation_count: Option<u64>,
}

#[derive(Deserialize)]
struct RolePart {
    id: Option<String>,
    name: Option<String>,
}

fn body(app: &App, trust: &Trust) -> Value {
    let mut body = json!({
        "id": trust.id,
        "trustor_user_id": trust.trustor,
        "trustee_user_id": trust.trustee,
        "project_id": trust.project_id,
        "impersonation": trust.impersonation,
        "expires_at": trust.expires_at.map(Timestamp::iso_micros),
        "deleted_at": null,
        "remaining_uses": trust.remaining_uses,
        "redelegation_count": trust.redelegation_count,
        "links": { "self": super::link(app, "OS-TRUST/trusts", trust.id) },
    });
    if let Some(from) = trust.redelegated_from {
        body["redelegated_trust_id"] = json!(from);
    }
    body
}

fn one(app: &App, view: &TrustView) -> axum::Json<Value> {
    let mut body = body(app, &view.trust);
    body["roles"] = view.roles.iter().map(|(id, name)| brief(app, *id, name.as_str())).collect();
    let roles = format!("{}/roles", super::link(app, "OS-TRUST/trusts", view.trust.id));
    body["roles_links"] = json!({ "self": roles, "next": null, "previous": null });
    axum::Json(json!({ "trust": body }))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let filter = TrustFilter {
        trustor: query.id("trustor_user_id"),
        trustee: query.id("trustee_user_id"),
        marker: query.marker()?,
        limit: query.ask(),
    };
    let found = app.identity.trust_list(&ctx, &filter).await?;
    Ok(query.render(&app, "OS-TRUST/trusts", "trusts", found, |t| t.id, |t| body(&app, t)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(TrustRequest { trust: new }): Json<TrustRequest>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let time = |text: String| {
        Timestamp::parse_iso(&text).ok_or_else(|| ApiError::bad_request("expires_at is not an ISO 8601 date and time."))
    };
    let role = |part: RolePart| match part {
        RolePart { id: Some(id), .. } => Ok(RoleRef::Id(super::id_or_none_such(&id))),
        RolePart { id: None, name: Some(name) } => Ok(RoleRef::Name(name)),
        RolePart { id: None, name: None } => Err(ApiError::bad_request("A role needs an id or a name.")),
    };
    let new = TrustNew {
        trustor: new.trustor_user_id,
        trustee: super::id_or_none_such(&new.trustee_user_id),
        project_id: new.project_id,
        impersonation: new.impersonation,
        roles: new.roles.into_iter().map(role).collect::<Result<_, _>>()?,
        expires_at: new.expires_at.map(time).transpose()?,
        remaining_uses: new.remaining_uses,
        allow_redelegation: new.allow_redelegation.unwrap_or(false),
        redelegation_count: new.redelegation_count,
    };
    Ok((StatusCode::CREATED, one(&app, &app.identity.trust_create(&ctx, new).await?)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TrustId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.trust_get(&ctx, id).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TrustId>) -> Result<StatusCode, ApiError> {
    app.identity.trust_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn roles(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TrustId>) -> Result<axum::Json<Value>, ApiError> {
    let view = app.identity.trust_get(&ctx, id).await?;
    let items = view.roles.iter().map(|(id, name)| brief(&app, *id, name.as_str())).collect();
    Ok(super::list(&app, &format!("OS-TRUST/trusts/{id}/roles"), "roles", items, None))
}

async fn role(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((trust, role)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let view = app.identity.trust_get(&ctx, super::id(&trust)?).await?;
    let wanted: RoleId = super::id(&role)?;
    let (id, name) =
        view.roles.iter().find(|(id, _)| *id == wanted).ok_or_else(|| ApiError::not_found("Role", wanted))?;
    Ok(axum::Json(json!({ "role": brief(&app, *id, name.as_str()) })))
}
