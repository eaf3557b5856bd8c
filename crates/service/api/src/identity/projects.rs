//! Projects on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::ProjectNew;
use arcus_store::{Project, ProjectChange, ProjectFilter};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, Name, ProjectId, UserId};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/projects", policy::PROJECT_LIST, list),
        Route::post("/identity/v3/projects", policy::PROJECT_CREATE, create),
        Route::get("/identity/v3/projects/{project_id}", policy::PROJECT_GET, get),
        Route::patch("/identity/v3/projects/{project_id}", policy::PROJECT_UPDATE, update),
        Route::delete("/identity/v3/projects/{project_id}", policy::PROJECT_DELETE, delete),
        Route::get("/identity/v3/users/{user_id}/projects", policy::USER_PROJECTS_LIST, of_user),
    ]
}

#[derive(Deserialize)]
struct ProjectRequest<T> {
    project: T,
}

#[derive(Deserialize)]
struct ProjectCreate {
    name: Name,
    description: Option<String>,
    enabled: Option<bool>,
    domain_id: Option<DomainId>,
    parent_id: Option<String>,
    is_domain: Option<bool>,
}

#[derive(Deserialize)]
struct ProjectUpdate {
    name: Option<Name>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    enabled: Option<bool>,
    domain_id: Option<DomainId>,
}

/// A project's body. Directly below its domain, a project's parent is the domain.
pub fn body(app: &App, project: &Project) -> Value {
    let parent_id = project.parent_id.map_or_else(|| project.domain_id.to_string(), |id| id.to_string());
    json!({
        "id": project.id,
        "name": project.name,
        "domain_id": project.domain_id,
        "parent_id": parent_id,
        "description": project.description,
        "enabled": project.enabled,
        "is_domain": false,
        "tags": [],
        "options": {},
        "links": { "self": super::link(app, "projects", project.id) },
    })
}

fn one(app: &App, project: &Project) -> axum::Json<Value> {
    axum::Json(json!({ "project": body(app, project) }))
}

fn filter(query: &Listing) -> Result<ProjectFilter, ApiError> {
    // A parent that is a domain has the projects directly below it, which name no parent.
    let parent: Option<DomainId> = query.id("parent_id");
    let (top, parent_id) = match parent {
        Some(DomainId::DEFAULT) => (Some(DomainId::DEFAULT), Some(None)),
        Some(DomainId(id)) => (None, Some(Some(ProjectId(id)))),
        None => (None, None),
    };
    Ok(ProjectFilter {
        domain_id: query.id("domain_id").or(top),
        name: query.text("name"),
        enabled: query.either("enabled"),
        parent_id,
        member: None,
        marker: query.marker()?,
        limit: query.ask(),
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let found =
        if query.flag("is_domain") { Vec::new() } else { app.identity.project_list(&ctx, filter(&query)?).await? };
    Ok(query.render(&app, "projects", "projects", found, |p| p.id, |p| body(&app, p)))
}

async fn of_user(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<UserId>,
    query: Listing,
) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.user_projects(&ctx, id, filter(&query)?).await?;
    let path = format!("users/{id}/projects");
    Ok(query.render(&app, &path, "projects", found, |p| p.id, |p| body(&app, p)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(ProjectRequest { project: new }): Json<ProjectRequest<ProjectCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    if new.is_domain == Some(true) {
        return Err(ApiError::bad_request("A project cannot act as a domain here; create a domain instead."));
    }
    // The parent may be a domain, whose spelling differs.
    let parent_id = new.parent_id.map(|text| super::id::<DomainId>(&text)).transpose()?;
    let new = ProjectNew {
        name: new.name,
        description: new.description.unwrap_or_default(),
        enabled: new.enabled.unwrap_or(true),
        domain_id: new.domain_id,
        parent_id: parent_id.map(|id| ProjectId(id.0)),
    };
    let project = app.identity.project_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, one(&app, &project)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.project_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ProjectId>,
    Json(ProjectRequest { project: change }): Json<ProjectRequest<ProjectUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    if let Some(domain_id) = change.domain_id {
        super::same_domain(app.identity.project_get(&ctx, id).await?.domain_id, domain_id)?;
    }
    let change = ProjectChange {
        name: change.name,
        description: change.description.map(Option::unwrap_or_default),
        enabled: change.enabled,
    };
    Ok(one(&app, &app.identity.project_update(&ctx, id, change).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<StatusCode, ApiError> {
    app.identity.project_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
