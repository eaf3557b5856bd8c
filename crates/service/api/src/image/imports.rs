//! Imports: bytes are staged, then imported; and what a project uses of what is limited.

use super::STORE;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_store::ImageImport;
use arcus_types::ImageId;
use arcus_types::policy::image as policy;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The import of bytes that the client staged: the one way. Arcus fetches nothing from where a client says.
pub const DIRECT: &str = "glance-direct";

/// Bytes of a MiB, in which usage is told.
const MIB: u64 = 1 << 20;

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/image/v2/info/import", policy::IMPORT_INFO, info),
        Route::get("/image/v2/info/usage", policy::USAGE_GET, usage),
        Route::post("/image/v2/images/{id}/import", policy::IMAGE_IMPORT, import),
        Route::get("/image/v2/images/{id}/tasks", policy::TASK_LIST, tasks),
    ]
}

/// How images may be imported.
async fn info() -> axum::Json<Value> {
    axum::Json(json!({
        "import-methods": { "description": "Import methods available.", "type": "array", "value": [DIRECT] }
    }))
}

/// What the caller's project uses. Only the number of images is limited.
async fn usage(Ctx(ctx): Ctx, State(app): State<App>) -> Result<axum::Json<Value>, ApiError> {
    let usage = app.engine.image_usage(&ctx).await?;
    let free = |used: u64| json!({ "limit": -1, "usage": used });
    Ok(axum::Json(json!({ "usage": {
        "image_size_total": free(usage.totals.complete_bytes / MIB),
        "image_stage_total": free(usage.totals.staged_bytes / MIB),
        "image_count_total": { "limit": usage.images.cap, "usage": usage.images.used },
        "image_count_uploading": free(usage.totals.uploads),
    } })))
}

#[derive(Deserialize, Serialize)]
struct ImportRequest {
    method: ImportMethod,
    #[serde(skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all_stores: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    all_stores_must_succeed: Option<bool>,
}

#[derive(Deserialize, Serialize)]
struct ImportMethod {
    name: String,
}

impl ImportRequest {
    fn check(&self) -> Result<(), ApiError> {
        if self.method.name != DIRECT {
            let shown: String = self.method.name.chars().take(64).collect();
            let text = format!("Unknown import method name '{shown}'. This cloud imports by {DIRECT} alone.");
            return Err(ApiError::bad_request(text));
        }
        if self.stores.is_some() && self.all_stores == Some(true) {
            return Err(ApiError::bad_request("stores and all_stores cannot be given together."));
        }
        if self.stores.iter().flatten().any(|store| store != STORE) {
            return Err(ApiError::bad_request(format!("There is one store: {STORE}.")));
        }
        Ok(())
    }
}

async fn import(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    Json(body): Json<ImportRequest>,
) -> Result<StatusCode, ApiError> {
    body.check()?;
    app.engine.image_import(&ctx, id, json!(body)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The imports of an image, as tasks: each was done when it was answered.
async fn tasks(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<axum::Json<Value>, ApiError> {
    let imports = app.engine.image_imports(&ctx, id).await?;
    Ok(axum::Json(json!({ "tasks": imports.iter().map(|import| task(&ctx, import)).collect::<Vec<_>>() })))
}

fn task(ctx: &arcus_types::OpCtx, import: &ImageImport) -> Value {
    json!({
        "id": import.id,
        "type": "api_image_import",
        "status": "success",
        "owner": ctx.project_id(),
        "message": "",
        "image_id": import.image_id,
        "user_id": import.user_id,
        "request_id": import.request_id.header(),
        "input": { "image_id": import.image_id, "import_req": import.request, "backend": [STORE] },
        "result": { "image_id": import.image_id },
        "created_at": import.created_at.iso_seconds(),
        "updated_at": import.created_at.iso_seconds(),
        "expires_at": null,
        "self": format!("/v2/tasks/{}", import.id),
        "schema": "/v2/schemas/task",
    })
}
