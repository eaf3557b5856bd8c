//! Users on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::UserNew;
use arcus_store::{Extra, User, UserChange, UserFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, Name, OpCtx, ProjectId, RequestId, Timestamp, UserId};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/users", policy::USER_LIST, list),
        Route::post("/identity/v3/users", policy::USER_CREATE, create),
        Route::get("/identity/v3/users/{user_id}", policy::USER_GET, get),
        Route::patch("/identity/v3/users/{user_id}", policy::USER_UPDATE, update),
        Route::delete("/identity/v3/users/{user_id}", policy::USER_DELETE, delete),
        Route::post("/identity/v3/users/{user_id}/password", policy::USER_PASSWORD_CHANGE, password),
    ]
}

#[derive(Deserialize)]
struct UserRequest<T> {
    user: T,
}

#[derive(Deserialize)]
struct UserCreate {
    name: Name,
    domain_id: Option<DomainId>,
    description: Option<String>,
    email: Option<String>,
    enabled: Option<bool>,
    default_project_id: Option<ProjectId>,
    password: Option<String>,
    #[serde(default)]
    options: Extra,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct UserUpdate {
    name: Option<Name>,
    domain_id: Option<DomainId>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "super::given")]
    email: Option<Option<String>>,
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "super::given")]
    default_project_id: Option<Option<ProjectId>>,
    password: Option<String>,
    options: Option<Extra>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct PasswordChange {
    original_password: String,
    password: String,
}

/// A user's body. What was never given is left out, as Keystone does.
pub fn body(app: &App, user: &User) -> Value {
    let mut body = json!({
        "id": user.id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": app.identity.password_expires_at(user).map(Timestamp::iso_naive),
        "options": user.options,
        "links": { "self": super::link(app, "users", user.id) },
    });
    if let Some(description) = &user.description {
        body["description"] = json!(description);
    }
    if let Some(email) = &user.email {
        body["email"] = json!(email);
    }
    if let Some(id) = user.default_project_id {
        body["default_project_id"] = json!(id);
    }
    super::over(&user.extra, body)
}

fn one(app: &App, user: &User) -> axum::Json<Value> {
    axum::Json(json!({ "user": body(app, user) }))
}

/// The filters of a list of users.
pub fn filter(app: &App, query: &Listing) -> Result<UserFilter, ApiError> {
    let mut password_set = (None, None);
    for text in query.texts("password_expires_at") {
        expiry(app, &text, &mut password_set)?;
    }
    Ok(UserFilter {
        domain_id: query.id("domain_id"),
        names: query.tests("name"),
        password_set,
        enabled: query.either("enabled"),
        group_id: None,
        marker: query.marker()?,
        limit: query.ask(),
    })
}

/// Narrows the time in which passwords were set by `operator:time` of their expiry.
fn expiry(app: &App, text: &str, set: &mut (Option<Timestamp>, Option<Timestamp>)) -> Result<(), ApiError> {
    const MICROSECOND: i64 = 1;
    let invalid = || ApiError::bad_request("password_expires_at is an operator such as lt, a colon and a time.");
    let (operator, time) = match text.split_once(':') {
        Some((operator, time)) if matches!(operator, "lt" | "lte" | "gt" | "gte" | "eq" | "neq") => (operator, time),
        Some(_) | None => ("eq", text),
    };
    let expires = Timestamp::parse_iso(time).ok_or_else(invalid)?;
    // Where no password expires, none expires then.
    let at = app.identity.password_set_before(expires).unwrap_or(Timestamp(i64::MAX - MICROSECOND));
    let after = Timestamp(at.0 + MICROSECOND);
    match operator {
        "lt" => set.1 = Some(at),
        "lte" => set.1 = Some(after),
        "gt" => set.0 = Some(after),
        "gte" => set.0 = Some(at),
        "eq" => *set = (Some(at), Some(after)),
        _ => return Err(invalid()),
    }
    Ok(())
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.user_list(&ctx, filter(&app, &query)?).await?;
    Ok(query.render(&app, "users", "users", found, |u| u.id, |u| body(&app, u)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(UserRequest { user: new }): Json<UserRequest<UserCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let new = UserNew {
        name: new.name,
        domain_id: new.domain_id,
        description: new.description,
        email: new.email,
        enabled: new.enabled.unwrap_or(true),
        default_project_id: new.default_project_id,
        password: new.password,
        options: new.options,
        extra: super::extra(new.extra),
    };
    let user = app.identity.user_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, one(&app, &user)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<UserId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.user_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<UserId>,
    Json(UserRequest { user: change }): Json<UserRequest<UserUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    if let Some(domain_id) = change.domain_id {
        super::same_domain(app.identity.user_get(&ctx, id).await?.domain_id, domain_id)?;
    }
    let fields = UserChange {
        name: change.name,
        description: change.description,
        email: change.email,
        enabled: change.enabled,
        default_project_id: change.default_project_id,
        options: change.options,
        extra: Some(super::extra(change.extra)),
    };
    Ok(one(&app, &app.identity.user_update(&ctx, id, fields, change.password).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<UserId>) -> Result<StatusCode, ApiError> {
    app.identity.user_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn password(
    Extension(request_id): Extension<RequestId>,
    State(app): State<App>,
    Id(id): Id<UserId>,
    Json(UserRequest { user: change }): Json<UserRequest<PasswordChange>>,
) -> Result<StatusCode, ApiError> {
    let ctx = OpCtx::anonymous(request_id);
    app.identity.user_password_change(&ctx, id, &change.original_password, &change.password).await?;
    Ok(StatusCode::NO_CONTENT)
}
