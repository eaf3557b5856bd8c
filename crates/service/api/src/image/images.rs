//! Images: list, create, show, change, delete, tags, and closing one.

use super::{STORE, imports, patch, query, wire};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::images::ImageNew;
use arcus_types::ImageId;
use arcus_types::policy::image as policy;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Map, Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/image/v2/images", policy::IMAGE_LIST, list),
        Route::post("/image/v2/images", policy::IMAGE_CREATE, create),
        Route::get("/image/v2/images/{id}", policy::IMAGE_GET, show),
        Route::patch("/image/v2/images/{id}", policy::IMAGE_UPDATE, update),
        Route::delete("/image/v2/images/{id}", policy::IMAGE_DELETE, delete),
        Route::post("/image/v2/images/{id}/actions/deactivate", policy::IMAGE_DEACTIVATE, deactivate),
        Route::post("/image/v2/images/{id}/actions/reactivate", policy::IMAGE_REACTIVATE, reactivate),
        Route::put("/image/v2/images/{id}/tags/{tag}", policy::TAG_ADD, tag_add),
        Route::delete("/image/v2/images/{id}/tags/{tag}", policy::TAG_DELETE, tag_delete),
    ]
}

async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    pairs: Pairs,
    RawQuery(raw): RawQuery,
) -> Result<axum::Json<Value>, ApiError> {
    let (images, more) = app.engine.image_list(&ctx, query::parse(&pairs)?).await?;
    let raw = raw.unwrap_or_default();
    let mut page = json!({
        "images": images.iter().map(wire::view).collect::<Vec<_>>(),
        "first": query::link(&raw, None),
        "schema": "/v2/schemas/images",
    });
    if let (true, Some(last), Value::Object(page)) = (more, images.last(), &mut page) {
        page.insert("next".to_owned(), query::link(&raw, Some(last.id)).into());
    }
    Ok(axum::Json(page))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<Map<String, Value>>,
) -> Result<(StatusCode, [(HeaderName, String); 3], axum::Json<Value>), ApiError> {
    let image = app.engine.image_create(&ctx, image_new(&body)?).await?;
    let location = format!("{}/image/v2/images/{}", app.endpoint.url, image.id);
    let headers = [
        (header::LOCATION, location),
        (HeaderName::from_static("openstack-image-import-methods"), imports::DIRECT.to_owned()),
        (HeaderName::from_static("openstack-image-store-ids"), STORE.to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, axum::Json(wire::view(&image))))
}

/// The image that a body describes: attributes by their names, everything else is a property.
fn image_new(body: &Map<String, Value>) -> Result<ImageNew, ApiError> {
    let mut new = ImageNew::default();
    for (key, value) in body {
        match key.as_str() {
            "id" => new.id = Some(image_id(value)?),
            "name" => new.name = wire::name(value)?,
            "visibility" => new.visibility = Some(wire::visibility(value)?),
            "protected" => new.protected = wire::boolean(key, value)?,
            "os_hidden" => new.hidden = wire::boolean(key, value)?,
            "disk_format" => new.disk_format = wire::disk_format(value)?,
            "container_format" => new.container_format = wire::container_format(value)?,
            "min_disk" => new.min_disk_gib = wire::quantity(key, value)?,
            "min_ram" => new.min_ram_mib = wire::quantity(key, value)?,
            "owner" => new.owner = wire::owner(value)?,
            "tags" => new.tags = wire::tags(value)?,
            _ => {
                wire::writable(key)?;
                new.properties.insert(key.clone(), wire::property(key, value)?);
            }
        }
    }
    Ok(new)
}

fn image_id(value: &Value) -> Result<ImageId, ApiError> {
    let id = value.as_str().filter(|text| text.len() == 36).and_then(|text| text.parse().ok());
    id.ok_or_else(|| ApiError::bad_request("The id of an image must be a UUID with dashes."))
}

async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(wire::view(&app.engine.image_get(&ctx, id).await?)))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<axum::Json<Value>, ApiError> {
    let dialect = patch::Dialect::of(&headers)?;
    let Json(body) = <Json<Value> as axum::extract::FromRequest<App>>::from_request(request, &app).await?;
    let changes = patch::parse(dialect, &body)?;
    Ok(axum::Json(wire::view(&app.engine.image_update(&ctx, id, &changes).await?)))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<StatusCode, ApiError> {
    app.engine.image_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn deactivate(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<StatusCode, ApiError> {
    app.engine.image_deactivate(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reactivate(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ImageId>) -> Result<StatusCode, ApiError> {
    app.engine.image_reactivate(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tag_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.engine.image_tag_add(&ctx, path_image(&id)?, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tag_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    app.engine.image_tag_delete(&ctx, path_image(&id)?, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The image that a path names; text that is no id names none.
pub fn path_image(text: &str) -> Result<ImageId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Image", text.chars().take(64).collect::<String>()))
}
