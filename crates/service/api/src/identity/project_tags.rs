//! Tags of projects on the wire.

use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_types::ProjectId;
use arcus_types::policy::identity as policy;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ALL: &str = "/identity/v3/projects/{project_id}/tags";
    const ONE: &str = "/identity/v3/projects/{project_id}/tags/{tag}";
    vec![
        Route::get(ALL, policy::PROJECT_GET, list),
        Route::put(ALL, policy::PROJECT_UPDATE, replace),
        Route::delete(ALL, policy::PROJECT_UPDATE, clear),
        Route::get(ONE, policy::PROJECT_GET, check),
        Route::put(ONE, policy::PROJECT_UPDATE, add),
        Route::delete(ONE, policy::PROJECT_UPDATE, remove),
    ]
}

#[derive(Deserialize)]
struct TagsRequest {
    tags: Vec<String>,
}

fn body(app: &App, id: ProjectId, tags: &[String]) -> axum::Json<Value> {
    let here = format!("{}/tags", super::link(app, "projects", id));
    axum::Json(json!({ "tags": tags, "links": { "self": here, "next": null, "previous": null } }))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<axum::Json<Value>, ApiError> {
    let project = app.identity.project_get(&ctx, id).await?;
    Ok(body(&app, id, &project.tags))
}

async fn replace(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ProjectId>,
    Json(TagsRequest { tags }): Json<TagsRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let project = app.identity.project_tags_set(&ctx, id, tags).await?;
    Ok(body(&app, id, &project.tags))
}

async fn clear(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<StatusCode, ApiError> {
    app.identity.project_tags_set(&ctx, id, Vec::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let project = app.identity.project_get(&ctx, super::id(&id)?).await?;
    if project.tags.contains(&tag) { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found("Tag", tag)) }
}

async fn add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    let id: ProjectId = super::id(&id)?;
    app.identity.project_tag_change(&ctx, id, tag, true).await?;
    let mut headers = HeaderMap::new();
    let here = format!("{}/tags", super::link(&app, "projects", id));
    if let Ok(value) = HeaderValue::from_str(&here) {
        headers.insert(header::LOCATION, value);
    }
    Ok((StatusCode::CREATED, headers))
}

async fn remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.identity.project_tag_change(&ctx, super::id(&id)?, tag, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
