//! Application credentials on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{AccessRuleNew, ApplicationCredentialNew, ApplicationCredentialView, RoleRef};
use arcus_types::policy::identity as policy;
use arcus_types::{Name, Timestamp, UserId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ALL: &str = "/identity/v3/users/{user_id}/application_credentials";
    const ONE: &str = "/identity/v3/users/{user_id}/application_credentials/{application_credential_id}";
    vec![
        Route::get(ALL, policy::APPLICATION_CREDENTIAL_LIST, list),
        Route::post(ALL, policy::APPLICATION_CREDENTIAL_CREATE, create),
        Route::get(ONE, policy::APPLICATION_CREDENTIAL_GET, get),
        Route::delete(ONE, policy::APPLICATION_CREDENTIAL_DELETE, delete),
    ]
}

#[derive(Deserialize)]
struct CreateRequest {
    application_credential: Create,
}

#[derive(Deserialize)]
struct Create {
    name: Name,
    description: Option<String>,
    secret: Option<String>,
    roles: Option<Vec<RolePart>>,
    unrestricted: Option<bool>,
    expires_at: Option<String>,
    access_rules: Option<Vec<RulePart>>,
}

#[derive(Deserialize)]
struct RulePart {
    id: Option<String>,
    service: Option<String>,
    method: Option<String>,
    path: Option<String>,
}

#[derive(Deserialize)]
struct RolePart {
    id: Option<String>,
    name: Option<String>,
}

fn body(app: &App, view: &ApplicationCredentialView) -> Value {
    let credential = &view.credential;
    let role = |(id, name): &(arcus_types::RoleId, Name)| json!({ "id": id, "name": name, "domain_id": null });
    let path = format!("users/{}/application_credentials", credential.user_id);
    let mut body = json!({
        "id": credential.id,
        "name": credential.name,
        "description": credential.description,
        "user_id": credential.user_id,
        "project_id": credential.project_id,
        "system": null,
        "roles": view.roles.iter().map(role).collect::<Vec<_>>(),
        "unrestricted": credential.unrestricted,
        "expires_at": credential.expires_at.map(Timestamp::iso_naive),
        "links": { "self": super::link(app, &path, credential.id) },
    });
    if let Some(rules) = &view.access_rules {
        body["access_rules"] = rules.iter().map(super::access_rules::body).collect();
    }
    body
}

async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(user_id): Id<UserId>,
    query: Listing,
) -> Result<axum::Json<Value>, ApiError> {
    let (name, marker) = (query.text("name"), query.marker()?);
    let found = app.identity.application_credential_list(&ctx, user_id, name.as_deref(), marker, query.ask()).await?;
    let path = format!("users/{user_id}/application_credentials");
    Ok(query.render(&app, &path, "application_credentials", found, |v| v.credential.id, |v| body(&app, v)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(user_id): Id<UserId>,
    Json(CreateRequest { application_credential: new }): Json<CreateRequest>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let rule = |part: RulePart| match part {
        RulePart { id: Some(id), service: None, method: None, path: None } => {
            Ok(AccessRuleNew::Known(super::id_or_none_such(&id)))
        }
        RulePart { id: _, service: Some(service), method: Some(method), path: Some(path) } => {
            Ok(AccessRuleNew::New(service, method, path))
        }
        RulePart { .. } => Err(ApiError::bad_request("An access rule needs an id, or a service, a method and a path.")),
    };
    let access_rules = new.access_rules.map(|parts| parts.into_iter().map(rule).collect::<Result<Vec<_>, _>>());
    let expires_at = new.expires_at.map(|text| {
        Timestamp::parse_iso(&text).ok_or_else(|| ApiError::bad_request("expires_at is not an ISO 8601 date and time."))
    });
    let role = |part: RolePart| match part {
        RolePart { id: Some(id), .. } => Ok(RoleRef::Id(super::id_or_none_such(&id))),
        RolePart { id: None, name: Some(name) } => Ok(RoleRef::Name(name)),
        RolePart { id: None, name: None } => Err(ApiError::bad_request("A role needs an id or a name.")),
    };
    let roles = new.roles.map(|parts| parts.into_iter().map(role).collect::<Result<Vec<_>, _>>()).transpose()?;
    let new = ApplicationCredentialNew {
        name: new.name,
        description: new.description,
        secret: new.secret,
        roles,
        unrestricted: new.unrestricted.unwrap_or(false),
        expires_at: expires_at.transpose()?,
        access_rules: access_rules.transpose()?,
    };
    let (view, secret) = app.identity.application_credential_create(&ctx, user_id, new).await?;
    let mut body = body(&app, &view);
    body["secret"] = json!(secret);
    Ok((StatusCode::CREATED, axum::Json(json!({ "application_credential": body }))))
}

async fn get(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((user, credential)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let view = app.identity.application_credential_get(&ctx, super::id(&user)?, super::id(&credential)?).await?;
    Ok(axum::Json(json!({ "application_credential": body(&app, &view) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((user, credential)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.application_credential_delete(&ctx, super::id(&user)?, super::id(&credential)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
