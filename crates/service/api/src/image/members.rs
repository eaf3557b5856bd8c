//! Whom an image is shared with.

use super::images::path_image;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::{ApiError, App, Route};
use arcus_store::ImageMember;
use arcus_types::policy::image as policy;
use arcus_types::{ImageId, ProjectId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/image/v2/images/{id}/members", policy::MEMBER_LIST, list),
        Route::post("/image/v2/images/{id}/members", policy::MEMBER_ADD, add),
        Route::get("/image/v2/images/{id}/members/{member}", policy::MEMBER_GET, show),
        Route::put("/image/v2/images/{id}/members/{member}", policy::MEMBER_UPDATE, update),
        Route::delete("/image/v2/images/{id}/members/{member}", policy::MEMBER_DELETE, delete),
    ]
}

#[derive(Deserialize)]
struct MemberAddRequest {
    member: String,
}

#[derive(Deserialize)]
struct MemberUpdateRequest {
    status: String,
}

fn view(member: &ImageMember) -> Value {
    json!({
        "image_id": member.image_id,
        "member_id": member.project_id,
        "status": member.status.as_str(),
        "created_at": member.created_at.iso_seconds(),
        "updated_at": member.updated_at.iso_seconds(),
        "schema": "/v2/schemas/member",
    })
}

/// The image and project that a path names; text that is no id names none.
fn path_member((id, member): (String, String)) -> Result<(ImageId, ProjectId), ApiError> {
    let project_id = member.parse();
    let project_id = project_id.map_err(|_| ApiError::not_found("Member", member.chars().take(64).collect::<String>()));
    Ok((path_image(&id)?, project_id?))
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<axum::Json<Value>, ApiError> {
    let members = app.engine.image_member_list(&ctx, id).await?;
    let members: Vec<Value> = members.iter().map(view).collect();
    Ok(axum::Json(json!({ "members": members, "schema": "/v2/schemas/members" })))
}

async fn add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    Json(body): Json<MemberAddRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let project_id = body.member.parse::<ProjectId>().map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(axum::Json(view(&app.engine.image_member_add(&ctx, id, project_id).await?)))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let (id, project_id) = path_member(path)?;
    Ok(axum::Json(view(&app.engine.image_member_get(&ctx, id, project_id).await?)))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
    Json(body): Json<MemberUpdateRequest>,
) -> Result<axum::Json<Value>, ApiError> {
    let (id, project_id) = path_member(path)?;
    let status = body.status.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    Ok(axum::Json(view(&app.engine.image_member_update(&ctx, id, project_id, status).await?)))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, project_id) = path_member(path)?;
    app.engine.image_member_delete(&ctx, id, project_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
