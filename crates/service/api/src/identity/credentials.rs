//! Secrets that users keep for other programs, on the wire.

use super::listing::Listing;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_identity::{Credential, CredentialNew};
use arcus_store::CredentialFilter;
use arcus_types::policy::identity as policy;
use arcus_types::{CredentialId, ProjectId, UserId};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/identity/v3/credentials", policy::CREDENTIAL_LIST, list),
        Route::post("/identity/v3/credentials", policy::CREDENTIAL_CREATE, create),
        Route::get("/identity/v3/credentials/{credential_id}", policy::CREDENTIAL_GET, get),
        Route::patch("/identity/v3/credentials/{credential_id}", policy::CREDENTIAL_UPDATE, update),
        Route::delete("/identity/v3/credentials/{credential_id}", policy::CREDENTIAL_DELETE, delete),
    ]
}

#[derive(Deserialize)]
struct CredentialRequest<T> {
    credential: T,
}

#[derive(Deserialize)]
struct Create {
    user_id: Option<UserId>,
    project_id: Option<ProjectId>,
    #[serde(rename = "type")]
    kind: String,
    blob: String,
}

#[derive(Deserialize)]
struct Update {
    user_id: Option<UserId>,
    project_id: Option<ProjectId>,
    #[serde(rename = "type")]
    kind: Option<String>,
    blob: Option<String>,
}

fn body(app: &App, credential: &Credential) -> Value {
    let entry = &credential.entry;
    json!({
        "id": entry.id,
        "user_id": entry.user_id,
        "project_id": entry.project_id,
        "type": entry.kind,
        "blob": credential.blob,
        "links": { "self": super::link(app, "credentials", entry.id) },
    })
}

fn one(app: &App, credential: &Credential) -> axum::Json<Value> {
    axum::Json(json!({ "credential": body(app, credential) }))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Listing) -> Result<axum::Json<Value>, ApiError> {
    let filter = CredentialFilter {
        user_id: query.id("user_id"),
        kind: query.text("type"),
        marker: query.marker()?,
        limit: query.ask(),
    };
    let found = app.identity.credential_list(&ctx, filter).await?;
    Ok(query.render(&app, "credentials", "credentials", found, |c| c.entry.id, |c| body(&app, c)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(CredentialRequest { credential: new }): Json<CredentialRequest<Create>>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let Create { user_id, project_id, kind, blob } = new;
    let credential = app.identity.credential_create(&ctx, CredentialNew { user_id, project_id, kind, blob }).await?;
    Ok((StatusCode::CREATED, one(&app, &credential)))
}

async fn get(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<CredentialId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(one(&app, &app.identity.credential_get(&ctx, id).await?))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<CredentialId>,
    Json(CredentialRequest { credential: change }): Json<CredentialRequest<Update>>,
) -> Result<axum::Json<Value>, ApiError> {
    let now = app.identity.credential_get(&ctx, id).await?.entry;
    let same = change.user_id.is_none_or(|id| id == now.user_id)
        && change.project_id.is_none_or(|id| Some(id) == now.project_id)
        && change.kind.is_none_or(|kind| kind == now.kind);
    if !same {
        return Err(ApiError::bad_request("Only the blob of a credential can be changed; make a new one instead."));
    }
    Ok(one(&app, &app.identity.credential_update(&ctx, id, change.blob).await?))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<CredentialId>) -> Result<StatusCode, ApiError> {
    app.identity.credential_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
