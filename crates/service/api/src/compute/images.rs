//! Images as the compute API has shown them since before there was an image API; gone from 2.36 on.

use super::links::{self, limit, parsed};
use super::{Answer, before};
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::images::ImageQuery;
use arcus_store::{Image, ImageFilter, ImageVisible};
use arcus_types::ImageId;
use arcus_types::images::ImageStatus;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn brief(app: &App, image: &Image) -> Value {
    let id = image.id.to_string();
    let url = &app.endpoint.url;
    json!({
        "id": id,
        "name": image.name,
        "links": [
            { "rel": "self", "href": format!("{url}/compute/v2.1/images/{id}") },
            { "rel": "bookmark", "href": format!("{url}/compute/images/{id}") },
            { "rel": "alternate", "type": "application/vnd.openstack.image", "href": format!("{url}/image/v2/images/{id}") },
        ],
    })
}

fn full(app: &App, image: &Image) -> Value {
    let (status, progress) = match image.status {
        ImageStatus::Active => ("ACTIVE", 100),
        ImageStatus::Queued => ("SAVING", 25),
        ImageStatus::Saving => ("SAVING", 50),
        ImageStatus::Uploading => ("SAVING", 75),
        ImageStatus::Deactivated => ("UNKNOWN", 0),
    };
    let mut out = brief(app, image);
    out["status"] = json!(status);
    out["progress"] = json!(progress);
    out["created"] = json!(image.created_at.iso_seconds());
    out["updated"] = json!(image.updated_at.iso_seconds());
    out["minDisk"] = json!(image.min_disk_gib);
    out["minRam"] = json!(image.min_ram_mib);
    out["metadata"] = json!(image.properties);
    out["OS-EXT-IMG-SIZE:size"] = json!(match (&image.content, image.status) {
        (Some(content), _) => Some(content.size_bytes),
        // All that it is, its properties say.
        (None, ImageStatus::Active | ImageStatus::Deactivated) => Some(0),
        (None, ImageStatus::Queued | ImageStatus::Saving | ImageStatus::Uploading) => None,
    });
    if let Some(server) = image.properties.get("instance_uuid") {
        out["server"] = json!({ "id": server, "links": links::links(app, "servers", server) });
    }
    out
}

async fn list_as(app: &App, ctx: &arcus_types::OpCtx, query: &Pairs, show: fn(&App, &Image) -> Value) -> Answer {
    let mut filter = ImageFilter::new(ImageVisible::ToAll, limit(query)?);
    if let Some(name) = query.first("name") {
        filter.names = Some(vec![name.to_owned()]);
    }
    if let Some(kind) = query.first("type") {
        filter.properties.push(("image_type".to_owned(), kind.to_owned()));
    }
    // A server is named by its id or its address.
    if let Some(server) = query.first("server").and_then(|s| s.rsplit('/').next()) {
        filter.properties.push(("instance_uuid".to_owned(), server.to_owned()));
    }
    if let Some(status) = query.first("status") {
        filter.statuses = Some(match status.to_ascii_uppercase().as_str() {
            "ACTIVE" => vec![ImageStatus::Active],
            "SAVING" => vec![ImageStatus::Queued, ImageStatus::Saving, ImageStatus::Uploading],
            _ => Vec::new(),
        });
    }
    let asked = ImageQuery { filter, community: false, member_status: None, marker: parsed(query, "marker")? };
    let (images, _) = app.engine.image_list(ctx, asked).await?;
    Ok(axum::Json(json!({ "images": images.iter().map(|i| show(app, i)).collect::<Vec<_>>() })))
}

/// `GET /images`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    before(version, 36)?;
    list_as(&app, &ctx, &query, brief).await
}

/// `GET /images/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    before(version, 36)?;
    list_as(&app, &ctx, &query, full).await
}

/// `GET /images/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ImageId>) -> Answer {
    before(version, 36)?;
    let image = app.engine.image_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "image": full(&app, &image) })))
}

/// `DELETE /images/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ImageId>,
) -> Result<StatusCode, ApiError> {
    before(version, 36)?;
    app.engine.image_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
