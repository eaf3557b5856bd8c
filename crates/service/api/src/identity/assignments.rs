//! Who holds which role where, on the wire.

use super::listing::Listing;
use super::roles::brief;
use crate::auth::Ctx;
use crate::{ApiError, App, Route};
use arcus_identity::{Grant, Held, LIST_MAX};
use arcus_store::{Assignment, AssignmentActor, AssignmentFilter, AssignmentTarget, RoleActor, RoleTarget};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, GroupId, ProjectId, RoleId, UserId};
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::{Value, json};

macro_rules! inherited_routes { ($($path:literal),* $(,)?) => { vec![$(
    Route::get(
        concat!("/identity/v3/OS-INHERIT/", $path, "/roles/inherited_to_projects"), policy::ASSIGNMENT_CHECK, roles
    ),
    Route::get(
        concat!("/identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        policy::ASSIGNMENT_CHECK,
        check
    ),
    Route::put(
        concat!("/identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        policy::ASSIGNMENT_CREATE,
        create
    ),
    Route::delete(
        concat!("/identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        policy::ASSIGNMENT_DELETE,
        delete
    ),
)*] }; }

macro_rules! assignment_routes { ($($path:literal),* $(,)?) => { vec![
    Route::get("/identity/v3/role_assignments", policy::ASSIGNMENT_LIST, list),
    $(
        Route::get(concat!("/identity/v3/", $path, "/roles"), policy::ASSIGNMENT_CHECK, roles),
        Route::get(concat!("/identity/v3/", $path, "/roles/{role_id}"), policy::ASSIGNMENT_CHECK, check),
        Route::put(concat!("/identity/v3/", $path, "/roles/{role_id}"), policy::ASSIGNMENT_CREATE, create),
        Route::delete(concat!("/identity/v3/", $path, "/roles/{role_id}"), policy::ASSIGNMENT_DELETE, delete),
    )*
] }; }

pub fn routes() -> Vec<Route> {
    let mut routes = inherited_routes!(
        "projects/{project_id}/users/{user_id}",
        "projects/{project_id}/groups/{group_id}",
        "domains/{domain_id}/users/{user_id}",
        "domains/{domain_id}/groups/{group_id}",
    );
    routes.extend(assignment_routes!(
        "projects/{project_id}/users/{user_id}",
        "projects/{project_id}/groups/{group_id}",
        "domains/{domain_id}/users/{user_id}",
        "domains/{domain_id}/groups/{group_id}",
        "system/users/{user_id}",
        "system/groups/{group_id}",
    ));
    routes
}

/// What the path of an assignment names. An extractor.
struct Named {
    grant: Grant,
    role_id: Option<RoleId>,
}

impl<S: Sync + Send> FromRequestParts<S> for Named {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let lost = || ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.");
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| lost())?;
        let (mut actor, mut target, mut role_id) = (None, RoleTarget::System, None);
        for (key, text) in &params {
            match key {
                "user_id" => actor = Some(RoleActor::User(super::id::<UserId>(text)?)),
                "group_id" => actor = Some(RoleActor::Group(super::id::<GroupId>(text)?)),
                "project_id" => target = RoleTarget::Project(super::id::<ProjectId>(text)?),
                "domain_id" => target = RoleTarget::Domain(super::id::<DomainId>(text)?),
                "role_id" => role_id = Some(super::id::<RoleId>(text)?),
                _ => return Err(lost()),
            }
        }
        let inherited = parts.uri.path().starts_with("/identity/v3/OS-INHERIT/");
        Ok(Self { grant: Grant { actor: actor.ok_or_else(lost)?, target, inherited }, role_id })
    }
}

impl Named {
    fn role(&self) -> Result<RoleId, ApiError> {
        self.role_id.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found."))
    }
}

async fn roles(Ctx(ctx): Ctx, State(app): State<App>, named: Named) -> Result<axum::Json<Value>, ApiError> {
    let found = app.identity.assignment_roles(&ctx, named.grant).await?;
    let items: Vec<Value> = found.iter().map(|(id, name)| brief(&app, *id, name.as_str())).collect();
    let path = path_of(named.grant);
    Ok(super::list(&app, &path, "roles", items, None))
}

async fn check(Ctx(ctx): Ctx, State(app): State<App>, named: Named) -> Result<StatusCode, ApiError> {
    let role_id = named.role()?;
    let found = app.identity.assignment_roles(&ctx, named.grant).await?;
    if found.iter().any(|(id, _)| *id == role_id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("Role assignment", role_id))
    }
}

async fn create(Ctx(ctx): Ctx, State(app): State<App>, named: Named) -> Result<StatusCode, ApiError> {
    app.identity.assignment_create(&ctx, named.grant, named.role()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, named: Named) -> Result<StatusCode, ApiError> {
    app.identity.assignment_delete(&ctx, named.grant, named.role()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let target = if let Some(id) = query.id::<ProjectId>("scope.project.id") {
        Some(RoleTarget::Project(id))
    } else if let Some(id) = query.id::<DomainId>("scope.domain.id") {
        Some(RoleTarget::Domain(id))
    } else {
        query.text("scope.system").map(|_| RoleTarget::System)
    };
    let filter = AssignmentFilter {
        user_id: query.id("user.id"),
        group_id: query.id("group.id"),
        role_id: query.id("role.id"),
        target,
        within: None,
        subtree: query.flag("include_subtree"),
        inherited: query.text("scope.OS-INHERIT:inherited_to").map(|_| true),
        effective: query.flag("effective"),
        limit: LIST_MAX,
    };
    let found = app.identity.assignment_list(&ctx, filter).await?;
    let names = query.flag("include_names");
    let items = found.iter().map(|held| body(&app, held, names)).collect();
    Ok(super::list(&app, "role_assignments", "role_assignments", items, None))
}

fn path_of(Grant { actor, target, inherited }: Grant) -> String {
    let place = match target {
        RoleTarget::Project(id) => format!("projects/{id}"),
        RoleTarget::Domain(id) => format!("domains/{id}"),
        RoleTarget::System => "system".to_owned(),
    };
    let place = if inherited { format!("OS-INHERIT/{place}") } else { place };
    match actor {
        RoleActor::User(id) => format!("{place}/users/{id}/roles"),
        RoleActor::Group(id) => format!("{place}/groups/{id}/roles"),
    }
}

/// Where the assignment itself is: on the group through which the user holds it, with the role that was given, and where
/// it was given if it is inherited.
fn links(app: &App, held: &Held) -> Value {
    let Assignment { actor, target, through, role_id, inherited, inherited_from, .. } = &held.assignment;
    let target = match (inherited_from, target) {
        (Some(from), _) => *from,
        (None, AssignmentTarget::Project(project)) => RoleTarget::Project(project.id),
        (None, AssignmentTarget::Domain(id, _)) => RoleTarget::Domain(*id),
        (None, AssignmentTarget::System) => RoleTarget::System,
    };
    let (given_to, user_id) = match (actor, through) {
        (AssignmentActor::User(user), Some(group)) => (RoleActor::Group(*group), Some(user.id)),
        (AssignmentActor::User(user), None) => (RoleActor::User(user.id), None),
        (AssignmentActor::Group(group), _) => (RoleActor::Group(group.id), None),
    };
    let given = held.prior_role.unwrap_or(*role_id);
    let inherited = *inherited || inherited_from.is_some();
    let mut place = super::link(app, &path_of(Grant { actor: given_to, target, inherited }), given);
    if inherited {
        place.push_str("/inherited_to_projects");
    }
    let mut links = json!({ "assignment": place });
    if let (Some(group), Some(user_id)) = (through, user_id) {
        links["membership"] = json!(super::link(app, &format!("groups/{group}/users"), user_id));
    }
    if let Some(prior) = held.prior_role {
        links["prior_role"] = json!(super::link(app, "roles", prior));
    }
    links
}

fn body(app: &App, held: &Held, names: bool) -> Value {
    let assignment = &held.assignment;
    let named = |id: String, name: &str, (domain_id, domain_name): &(DomainId, String)| {
        if names {
            json!({ "id": id, "name": name, "domain": { "id": domain_id, "name": domain_name } })
        } else {
            json!({ "id": id })
        }
    };
    let role = if names {
        json!({ "id": assignment.role_id, "name": assignment.role_name })
    } else {
        json!({ "id": assignment.role_id })
    };
    let mut scope = match &assignment.target {
        AssignmentTarget::Project(p) => json!({ "project": named(p.id.to_string(), &p.name, &p.domain) }),
        AssignmentTarget::Domain(id, name) if names => json!({ "domain": { "id": id, "name": name } }),
        AssignmentTarget::Domain(id, _) => json!({ "domain": { "id": id } }),
        AssignmentTarget::System => json!({ "system": { "all": true } }),
    };
    if assignment.inherited {
        scope["OS-INHERIT:inherited_to"] = json!("projects");
    }
    let mut body = json!({ "role": role, "scope": scope, "links": links(app, held) });
    match &assignment.actor {
        AssignmentActor::User(user) => body["user"] = named(user.id.to_string(), &user.name, &user.domain),
        AssignmentActor::Group(group) => body["group"] = named(group.id.to_string(), &group.name, &group.domain),
    }
    body
}
