//! Groups on the wire.

use super::listing::Listing;
use super::users;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::GroupNew;
use arcus_store::{Extra, Group, GroupFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, GroupId, Name, UserId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/groups", policy::GROUP_LIST, list),
        Route::post("/identity/v3/groups", policy::GROUP_CREATE, create),
        Route::get("/identity/v3/groups/{group_id}", policy::GROUP_GET, get),
        Route::patch("/identity/v3/groups/{group_id}", policy::GROUP_UPDATE, update),
        Route::delete("/identity/v3/groups/{group_id}", policy::GROUP_DELETE, delete),
        Route::get("/identity/v3/groups/{group_id}/users", policy::GROUP_USERS_LIST, users_of),
        Route::get("/identity/v3/groups/{group_id}/users/{user_id}", policy::GROUP_USER_CHECK, user_check),
        Route::put("/identity/v3/groups/{group_id}/users/{user_id}", policy::GROUP_USER_ADD, user_add),
        Route::delete("/identity/v3/groups/{group_id}/users/{user_id}", policy::GROUP_USER_REMOVE, user_remove),
        Route::get("/identity/v3/users/{user_id}/groups", policy::USER_GROUPS_LIST, of_user),
    ]
}

#[derive(Deserialize)]
struct GroupRequest<T> {
    group: T,
}

#[derive(Deserialize)]
struct GroupCreate {
    name: Name,
    domain_id: Option<DomainId>,
    description: Option<String>,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct GroupUpdate {
    name: Option<Name>,
    domain_id: Option<DomainId>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    #[serde(flatten)]
    extra: Extra,
}

fn body(app: &App, group: &Group) -> Value {
    let body = json!({
        "id": group.id,
        "name": group.name,
        "domain_id": group.domain_id,
        "description": group.description,
        "links": { "self": super::link(app, "groups", group.id) },
    });
    super::over(&group.extra, body)
}

fn one(app: &App, group: &Group) -> axum::Json<Value> {
    axum::Json(json!({ "group": body(app, group) }))
}

fn filter(query: &Listing) -> Result<GroupFilter, ApiError> {
    Ok(GroupFilter {
        domain_id: query.id("domain_id"),
        names: query.tests("name"),
        user_id: None,
        marker: query.marker()?,
        limit: query.ask(),
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.group_list(&ctx, filter(&query)?).await?;
    Ok(query.render(&app, "groups", "groups", found, |g| g.id, |g| body(&app, g)))
}

async fn of_user(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<UserId>,
    query: Listing,
) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.user_groups(&ctx, id, filter(&query)?).await?;
    Ok(query.render(&app, &format!("users/{id}/groups"), "groups", found, |g| g.id, |g| body(&app, g)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(GroupRequest { group: new }): Json<GroupRequest<GroupCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let new = GroupNew {
        name: new.name,
        domain_id: new.domain_id,
        description: new.description.unwrap_or_default(),
        extra: super::extra(new.extra),
    };
    let group = app.identity.group_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, one(&app, &group)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<GroupId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.group_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<GroupId>,
    Json(GroupRequest { group: change }): Json<GroupRequest<GroupUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    if let Some(domain_id) = change.domain_id {
        super::same_domain(app.identity.group_get(&ctx, id).await?.domain_id, domain_id)?;
    }
    let description = change.description.map(Option::unwrap_or_default);
    let extra = Some(super::extra(change.extra));
    Ok(one(&app, &app.identity.group_update(&ctx, id, change.name, description, extra).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<GroupId>) -> Result<StatusCode, ApiError> {
    app.identity.group_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn users_of(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<GroupId>,
    query: Listing,
) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.group_users(&ctx, id, users::filter(&app, &query)?).await?;
    Ok(query.render(&app, &format!("groups/{id}/users"), "users", found, |u| u.id, |u| users::body(&app, u)))
}

async fn user_check(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((group, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.group_user_check(&ctx, super::id(&group)?, super::id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn user_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((group, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.group_user_add(&ctx, super::id(&group)?, super::id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn user_remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((group, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.group_user_remove(&ctx, super::id(&group)?, super::id(&user)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
