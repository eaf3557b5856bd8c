//! Domains on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::DomainNew;
use arcus_store::{Domain, DomainChange, DomainFilter, Extra};
use arcus_types::policy::identity as policy;
use arcus_types::{DomainId, Name};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/domains", policy::DOMAIN_LIST, list),
        Route::post("/identity/v3/domains", policy::DOMAIN_CREATE, create),
        Route::get("/identity/v3/domains/{domain_id}", policy::DOMAIN_GET, get),
        Route::patch("/identity/v3/domains/{domain_id}", policy::DOMAIN_UPDATE, update),
        Route::delete("/identity/v3/domains/{domain_id}", policy::DOMAIN_DELETE, delete),
    ]
}

#[derive(Deserialize)]
struct DomainRequest<T> {
    domain: T,
}

#[derive(Deserialize)]
struct DomainCreate {
    name: Name,
    description: Option<String>,
    enabled: Option<bool>,
    #[serde(default)]
    options: Extra,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct DomainUpdate {
    name: Option<Name>,
    #[serde(default, deserialize_with = "super::given")]
    description: Option<Option<String>>,
    enabled: Option<bool>,
    options: Option<Extra>,
    #[serde(flatten)]
    extra: Extra,
}

/// A domain's body.
pub fn body(app: &App, domain: &Domain) -> Value {
    let body = json!({
        "id": domain.id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": [],
        "options": domain.options,
        "links": { "self": super::link(app, "domains", domain.id) },
    });
    super::over(&domain.extra, body)
}

fn one(app: &App, domain: &Domain) -> axum::Json<Value> {
    axum::Json(json!({ "domain": body(app, domain) }))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let filter = DomainFilter {
        names: query.tests("name"),
        enabled: query.either("enabled"),
        marker: query.marker()?,
        limit: query.ask(),
        ..DomainFilter::default()
    };
    let found = app.identity.domain_list(&ctx, filter).await?;
    Ok(query.render(&app, "domains", "domains", found, |d| d.id, |d| body(&app, d)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(DomainRequest { domain: new }): Json<DomainRequest<DomainCreate>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let new = DomainNew {
        name: new.name,
        description: new.description.unwrap_or_default(),
        enabled: new.enabled.unwrap_or(true),
        options: new.options,
        extra: super::extra(new.extra),
    };
    let domain = app.identity.domain_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, one(&app, &domain)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<DomainId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.domain_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<DomainId>,
    Json(DomainRequest { domain: change }): Json<DomainRequest<DomainUpdate>>,
) -> Result<axum::Json<Value>, ApiError> {
    let change = DomainChange {
        name: change.name,
        description: change.description.map(Option::unwrap_or_default),
        enabled: change.enabled,
        options: change.options,
        extra: Some(super::extra(change.extra)),
    };
    Ok(one(&app, &app.identity.domain_update(&ctx, id, change).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<DomainId>) -> Result<StatusCode, ApiError> {
    app.identity.domain_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
