//! `/network/v2.0/auto-allocated-topology/{project}`: get me a network.

use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::{ApiError, App, Route};
use arcus_types::ProjectId;
use arcus_types::policy::network as policy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The routes of what projects get.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/auto-allocated-topology/{id}", policy::AUTO_TOPOLOGY_GET, show),
        Route::delete("/network/v2.0/auto-allocated-topology/{id}", policy::AUTO_TOPOLOGY_DELETE, delete),
    ]
}

/// With `fields=dry-run`, only says whether it could be made.
async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(project): Id<ProjectId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let id = if query.every("fields").any(|field| field == "dry-run") {
        app.engine.auto_topology_check(&ctx, project).await?;
        json!("dry-run=pass")
    } else {
        json!(app.engine.auto_topology_get(&ctx, project).await?)
    };
    Ok(Json(json!({ "auto_allocated_topology": { "id": id, "project_id": project, "tenant_id": project } })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(project): Id<ProjectId>) -> Result<StatusCode, ApiError> {
    app.engine.auto_topology_delete(&ctx, project).await?;
    Ok(StatusCode::NO_CONTENT)
}
