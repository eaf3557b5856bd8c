//! Projects on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{DomainNew, Kin, ProjectNew};
use arcus_store::{Domain, DomainChange, DomainFilter, Extra, Project, ProjectChange, ProjectFilter, ProjectTags};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, Name, OpCtx, ProjectId, UserId};
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
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    options: Extra,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct ProjectUpdate {
    name: Option<Name>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    enabled: Option<bool>,
    domain_id: Option<DomainId>,
    parent_id: Option<String>,
    is_domain: Option<bool>,
    tags: Option<Vec<String>>,
    options: Option<Extra>,
    #[serde(flatten)]
    extra: Extra,
}

/// A project's body. Directly below its domain, a project's parent is the domain.
pub fn body(app: &App, project: &Project) -> Value {
    let parent_id = project.parent_id.map_or_else(|| project.domain_id.to_string(), |id| id.to_string());
    let body = json!({
        "id": project.id,
        "name": project.name,
        "domain_id": project.domain_id,
        "parent_id": parent_id,
        "description": project.description,
        "enabled": project.enabled,
        "is_domain": false,
        "tags": project.tags,
        "options": project.options,
        "links": { "self": super::link(app, "projects", project.id) },
    });
    super::over(&project.extra, body)
}

/// A domain as a project that acts as one.
fn body_of_domain(app: &App, domain: &Domain) -> Value {
    let body = json!({
        "id": domain.id,
        "name": domain.name,
        "domain_id": null,
        "parent_id": null,
        "description": domain.description,
        "enabled": domain.enabled,
        "is_domain": true,
        "tags": [],
        "options": domain.options,
        "links": { "self": super::link(app, "projects", domain.id) },
    });
    super::over(&domain.extra, body)
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
        names: query.tests("name"),
        tags: ProjectTags {
            all: query.words("tags"),
            any: query.words("tags-any"),
            not_all: query.words("not-tags"),
            not_any: query.words("not-tags-any"),
        },
        enabled: query.either("enabled"),
        parent_id,
        member: None,
        marker: query.marker()?,
        limit: query.ask(),
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    if query.flag("is_domain") {
        let filter = DomainFilter {
            names: query.tests("name"),
            enabled: query.either("enabled"),
            marker: query.marker()?,
            limit: query.ask(),
            ..DomainFilter::default()
        };
        let found = app.identity.domain_list(&ctx, filter).await?;
        return Ok(query.render(&app, "projects", "projects", found, |d| d.id, |d| body_of_domain(&app, d)));
    }
    let found = app.identity.project_list(&ctx, filter(&query)?).await?;
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
        if new.domain_id.is_some() || new.parent_id.is_some() {
            return Err(ApiError::bad_request("A project that acts as a domain has neither a domain nor a parent."));
        }
        let new = DomainNew {
            name: new.name,
            description: new.description.unwrap_or_default(),
            enabled: new.enabled.unwrap_or(true),
            options: new.options,
            extra: super::extra(new.extra),
        };
        let domain = app.identity.domain_create(&ctx, new).await?;
        return Ok((StatusCode::CREATED, axum::Json(json!({ "project": body_of_domain(&app, &domain) }))));
    }
    // The parent may be a domain, whose spelling differs.
    let parent_id = new.parent_id.map(|text| super::id::<DomainId>(&text)).transpose()?;
    let new = ProjectNew {
        name: new.name,
        description: new.description.unwrap_or_default(),
        enabled: new.enabled.unwrap_or(true),
        domain_id: new.domain_id,
        parent_id: parent_id.map(|id| ProjectId(id.0)),
        tags: new.tags,
        options: new.options,
        extra: super::extra(new.extra),
    };
    let project = app.identity.project_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, one(&app, &project)))
}

/// What an id of this collection names: a project, or a domain as a project that acts as one.
async fn domain_meant(app: &App, ctx: &OpCtx, id: DomainId) -> Result<Option<Domain>, ApiError> {
    if app.identity.is_domain(id).await? { Ok(Some(app.identity.domain_get(ctx, id).await?)) } else { Ok(None) }
}

async fn get(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<DomainId>,
    query: Listing,
) -> Result<axum::Json<Value>, ApiError> {
    let id = ProjectId(id.0);
    let project = match app.identity.project_get(&ctx, id).await {
        Ok(project) => project,
        Err(error) => {
            return match domain_meant(&app, &ctx, DomainId(id.0)).await? {
                Some(domain) => Ok(axum::Json(json!({ "project": body_of_domain(&app, &domain) }))),
                None => Err(error.into()),
            };
        }
    };
    let mut shown = body(&app, &project);
    for (word, kin) in [("parents", Kin::Above), ("subtree", Kin::Below)] {
        if query.flag(&format!("{word}_as_ids")) {
            let found = app.identity.project_kin(&ctx, id, kin).await?;
            let top = if kin == Kin::Above { project.parent_id } else { Some(id) };
            shown[word] = nested(&found, top, kin);
        } else if query.flag(&format!("{word}_as_list")) {
            let found = app.identity.project_kin(&ctx, id, kin).await?;
            let seen = app.identity.projects_seen(&ctx, found).await?;
            shown[word] = seen.iter().map(|p| json!({ "project": body(&app, p) })).collect();
        }
    }
    Ok(axum::Json(json!({ "project": shown })))
}

/// The ids of projects, each with those beyond it below its own id. The domain is above all of them.
fn nested(found: &[Project], at: Option<ProjectId>, kin: Kin) -> Value {
    match kin {
        Kin::Above => {
            let domain = found.last().map(|p| p.domain_id);
            let mut tree = domain.map_or(Value::Null, |id| json!({ id.to_string(): null }));
            for project in found.iter().rev() {
                tree = json!({ project.id.to_string(): tree });
            }
            tree
        }
        Kin::Below => {
            let children = found.iter().filter(|p| p.parent_id == at);
            let tree: Extra =
                children.map(|child| (child.id.to_string(), nested(found, Some(child.id), kin))).collect();
            if tree.is_empty() { Value::Null } else { Value::Object(tree) }
        }
    }
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<DomainId>,
    Json(ProjectRequest { project: change }): Json<ProjectRequest<ProjectUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    let description = change.description.map(Option::unwrap_or_default);
    let (name, enabled, options) = (change.name, change.enabled, change.options);
    let extra = Some(super::extra(change.extra));
    if app.identity.is_domain(id).await? {
        let change = DomainChange { name, description, enabled, extra, options };
        let domain = app.identity.domain_update(&ctx, id, change).await?;
        return Ok(axum::Json(json!({ "project": body_of_domain(&app, &domain) })));
    }
    let id = ProjectId(id.0);
    if change.is_domain == Some(true) {
        return Err(ApiError::bad_request("A project cannot become a domain."));
    }
    if change.domain_id.is_some() || change.parent_id.is_some() {
        let project = app.identity.project_get(&ctx, id).await?;
        super::same_domain(project.domain_id, change.domain_id.unwrap_or(project.domain_id))?;
        let parent = project.parent_id.map_or_else(|| project.domain_id.to_string(), |id| id.to_string());
        if change.parent_id.is_some_and(|wanted| wanted != parent) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "The parent of a project cannot be changed."));
        }
    }
    let change = ProjectChange { name, description, enabled, tags: change.tags, extra, options };
    Ok(one(&app, &app.identity.project_update(&ctx, id, change).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<DomainId>) -> Result<StatusCode, ApiError> {
    if app.identity.is_domain(id).await? {
        app.identity.domain_delete(&ctx, id).await?;
    } else {
        app.identity.project_delete(&ctx, ProjectId(id.0)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
