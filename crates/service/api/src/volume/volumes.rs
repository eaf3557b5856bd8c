//! Volumes: lists, one, create, change, remove.

pub mod actions;
pub mod query;
pub mod view;

use super::{Answer, filters, links, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, refused, required, truth};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::volumes::{VolumeChange, VolumeFrom, VolumeNew};
use arcus_types::VolumeId;
use arcus_types::volumes::{VOLUME_GIB_MAX, VOLUME_TEXT_CHARS_MAX};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `GET /volumes`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    filters::admitted(&ctx, version, &query, "volume")?;
    let asked = query::volumes(&ctx, &query, version)?;
    let (found, is_full, counts) = app.engine.volume_list(&ctx, asked).await?;
    let shown = found.iter().map(|v| {
        json!({
            "id": v.volume.id,
            "name": v.volume.name,
            "links": links::links(&app, &ctx, "volumes", v.volume.id),
        })
    });
    let mut out = json!({ "volumes": shown.collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["volumes_links"] = links::next(&app, &ctx, "/volumes", &query, last.volume.id);
    }
    if let Some(counts) = counts {
        out["count"] = json!(counts.count);
    }
    Ok(axum::Json(out))
}

/// `GET /volumes/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    filters::admitted(&ctx, version, &query, "volume")?;
    let asked = query::volumes(&ctx, &query, version)?;
    let (found, is_full, counts) = app.engine.volume_list(&ctx, asked).await?;
    let shown: Vec<Value> = found.iter().map(|v| view::volume(&app, &ctx, v, version, true)).collect();
    let mut out = json!({ "volumes": shown });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["volumes_links"] = links::next(&app, &ctx, "/volumes/detail", &query, last.volume.id);
    }
    if let Some(counts) = counts {
        out["count"] = json!(counts.count);
    }
    Ok(axum::Json(out))
}

/// `GET /volumes/summary`, from 3.12 on
pub async fn summary(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 12)?;
    let asked = query::volumes(&ctx, &query, version)?;
    let (counts, pairs) = app.engine.volume_summary(&ctx, asked).await?;
    let mut out = json!({ "total_count": counts.count, "total_size": counts.gibs });
    if version.at_least(36) {
        let mut metadata: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in pairs {
            metadata.entry(key).or_default().push(value);
        }
        out["metadata"] = json!(metadata);
    }
    Ok(axum::Json(json!({ "volume-summary": out })))
}

/// `GET /volumes/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<VolumeId>) -> Answer {
    let found = app.engine.volume_show(&ctx, id).await?;
    Ok(axum::Json(json!({ "volume": view::volume(&app, &ctx, &found, version, true) })))
}

/// A name or a description under either of its keys; white space around it goes.
pub(super) fn text(
    fields: &mut Fields<'_>,
    key: &'static str,
    old: &'static str,
) -> Result<Option<Option<String>>, ApiError> {
    let max = if key == "description" { 255 } else { VOLUME_TEXT_CHARS_MAX };
    let new = fields.text_or_null(key, max)?;
    let of_old = fields.text_or_null(old, max)?;
    Ok(new.or(of_old).map(|value| value.map(|text| text.trim().to_owned())))
}

/// `POST /volumes`
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let mut fields = Fields::of(&body, "volume", &["OS-SCH-HNT:scheduler_hints", "scheduler_hints"])?;
    let new = wish(&mut fields, version)?;
    if version.at_least(53) {
        fields.end()?;
    }
    let made = app.engine.volume_create(&ctx, &new).await?;
    let found = app.engine.volume_view(made).await?;
    let shown = view::volume(&app, &ctx, &found, version, false);
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "volume": shown }))))
}

fn wish(fields: &mut Fields<'_>, version: Microversion) -> Result<VolumeNew, ApiError> {
    let snapshot = fields.parsed("snapshot_id")?;
    let volume = fields.parsed("source_volid")?;
    let image = fields.text("imageRef", 0, 255)?.or(fields.text("image_id", 0, 255)?).filter(|t| !t.is_empty());
    let image = image.map(|text| {
        let id = text.rsplit('/').next().unwrap_or(text);
        id.parse().map_err(|_| ApiError::bad_request("Invalid image identifier or unable to access requested image."))
    });
    let from = match (snapshot, volume, image.transpose()?) {
        (None, None, None) => VolumeFrom::Nothing,
        (Some(id), None, None) => VolumeFrom::Snapshot(id),
        (None, Some(id), None) => VolumeFrom::Volume(id),
        (None, None, Some(id)) => VolumeFrom::Image(id),
        (Some(_) | None, Some(_) | None, Some(_) | None) => {
            return Err(ApiError::bad_request(
                "Invalid input received: May specify only one of snapshot, imageRef or source volume",
            ));
        }
    };
    if fields.boolean("multiattach")? == Some(true) {
        return Err(ApiError::bad_request(
            "multiattach parameter has been removed, and no volume type of this cloud lets several servers share a volume.",
        ));
    }
    // Before 3.13 there are no groups, and whatever is sent with that name is passed over.
    let group_id = match fields.raw("group_id").filter(|_| version.at_least(13)) {
        Some(_) => fields.parsed("group_id")?,
        None => None,
    };
    for absent in ["consistencygroup_id", "backup_id"] {
        if fields.raw(absent).is_some_and(|v| !v.is_null()) {
            return Err(ApiError::bad_request(format!(
                "Invalid input for field/attribute {absent}. This cloud has none."
            )));
        }
    }
    Ok(VolumeNew {
        name: text(fields, "name", "display_name")?.flatten(),
        description: text(fields, "description", "display_description")?.flatten(),
        size_gib: size(fields, "size")?,
        from,
        volume_type: fields.text("volume_type", 0, 255)?.filter(|t| !t.is_empty()).map(str::to_owned),
        zone: fields.text("availability_zone", 0, 255)?.filter(|t| !t.is_empty()).map(str::to_owned),
        metadata: fields.texts("metadata")?.unwrap_or_default(),
        group_id,
    })
}

/// A size in GiB.
pub(super) fn size(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<u64>, ApiError> {
    let max = i64::try_from(VOLUME_GIB_MAX).unwrap_or(i64::MAX);
    Ok(fields.integer(key, 1, max)?.and_then(|n| u64::try_from(n).ok()))
}

/// `PUT /volumes/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeId>,
    Json(body): Json<Value>,
) -> Answer {
    let mut fields = Fields::of(&body, "volume", &[])?;
    let change = VolumeChange {
        name: text(&mut fields, "name", "display_name")?,
        description: text(&mut fields, "description", "display_description")?,
        metadata: fields.texts("metadata")?,
    };
    // Until 3.53 what is unknown is passed over, and nothing may be changed.
    if version.at_least(53) {
        fields.end()?;
        if change.name.is_none() && change.description.is_none() && change.metadata.is_none() {
            return Err(required("volume", "name"));
        }
    }
    let changed = app.engine.volume_update(&ctx, id, &change).await?;
    let found = app.engine.volume_view(changed).await?;
    Ok(axum::Json(json!({ "volume": view::volume(&app, &ctx, &found, version, false) })))
}

/// `DELETE /volumes/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<VolumeId>,
    query: Pairs,
) -> Result<StatusCode, ApiError> {
    let flag = |key: &str| match query.first(key) {
        None => Ok(false),
        Some(text) => truth(text).ok_or_else(|| refused(key, &json!(text), "It is not a boolean.")),
    };
    let cascade = flag("cascade")?;
    let force = version.at_least(23) && flag("force")?;
    app.engine.volume_delete(&ctx, id, cascade, force).await?;
    Ok(StatusCode::ACCEPTED)
}
