//! `/network/v2.0/{collection}/{id}/tags`, the same for every collection whose things carry tags.

use super::wire::{Ids, IfMatch, tag_checked, tags};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body};
use crate::{ApiError, App, Route};
use arcus_engine::network_tags::TagChange;
use arcus_store::Tagged;
use arcus_types::OpCtx;
use arcus_types::policy::network as policy;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

macro_rules! of {
    ($($collection:literal => $kind:ident),* $(,)?) => { vec![$(
        Route::get(
            concat!("/network/v2.0/", $collection, "/{id}/tags"),
            policy::TAG_LIST,
            |Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<Uuid>| list(ctx, app, Tagged::$kind, id),
        ),
        Route::put(
            concat!("/network/v2.0/", $collection, "/{id}/tags"),
            policy::TAG_UPDATE,
            |Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<Uuid>, if_match: IfMatch, Body(body): Body<TagsRequest>| {
                replace(ctx, app, (Tagged::$kind, id), if_match, body)
            },
        ),
        Route::delete(
            concat!("/network/v2.0/", $collection, "/{id}/tags"),
            policy::TAG_UPDATE,
            |Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<Uuid>, if_match: IfMatch| {
                clear(ctx, app, Tagged::$kind, id, if_match)
            },
        ),
        Route::get(
            concat!("/network/v2.0/", $collection, "/{id}/tags/{tag}"),
            policy::TAG_LIST,
            |Ctx(ctx): Ctx, State(app): State<App>, tag: Ids<Uuid, String>| check(ctx, app, Tagged::$kind, tag),
        ),
        Route::put(
            concat!("/network/v2.0/", $collection, "/{id}/tags/{tag}"),
            policy::TAG_UPDATE,
            |Ctx(ctx): Ctx, State(app): State<App>, tag: Ids<Uuid, String>, if_match: IfMatch| {
                add(ctx, app, Tagged::$kind, tag, if_match)
            },
        ),
        Route::delete(
            concat!("/network/v2.0/", $collection, "/{id}/tags/{tag}"),
            policy::TAG_UPDATE,
            |Ctx(ctx): Ctx, State(app): State<App>, tag: Ids<Uuid, String>, if_match: IfMatch| {
                remove(ctx, app, Tagged::$kind, tag, if_match)
            },
        ),
    )*] };
}

/// The routes of tags.
pub fn routes() -> Vec<Route> {
    of! {
        "networks" => Network,
        "subnets" => Subnet,
        "subnetpools" => SubnetPool,
        "ports" => Port,
        "routers" => Router,
        "floatingips" => FloatingIp,
        "security-groups" => SecurityGroup,
        "qos/policies" => QosPolicy,
        "policies" => QosPolicy,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TagsRequest {
    tags: Vec<String>,
}

async fn list(ctx: OpCtx, app: App, kind: Tagged, id: Uuid) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "tags": app.engine.tags_get(&ctx, kind, id).await? })))
}

async fn replace(
    ctx: OpCtx,
    app: App,
    (kind, id): (Tagged, Uuid),
    IfMatch(if_match): IfMatch,
    asked: TagsRequest,
) -> Result<Json<Value>, ApiError> {
    let change = TagChange::Replace(tags(Some(asked.tags))?);
    Ok(Json(json!({ "tags": app.engine.tags_change(&ctx, kind, id, change, if_match).await? })))
}

async fn clear(
    ctx: OpCtx,
    app: App,
    kind: Tagged,
    id: Uuid,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.tags_change(&ctx, kind, id, TagChange::Replace(Vec::new()), if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn check(ctx: OpCtx, app: App, kind: Tagged, Ids(id, tag): Ids<Uuid, String>) -> Result<StatusCode, ApiError> {
    app.engine.tag_check(&ctx, kind, id, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add(
    ctx: OpCtx,
    app: App,
    kind: Tagged,
    Ids(id, tag): Ids<Uuid, String>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    tag_checked(&tag)?;
    app.engine.tags_change(&ctx, kind, id, TagChange::Add(tag), if_match).await?;
    Ok(StatusCode::CREATED)
}

async fn remove(
    ctx: OpCtx,
    app: App,
    kind: Tagged,
    Ids(id, tag): Ids<Uuid, String>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.tags_change(&ctx, kind, id, TagChange::Remove(tag), if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}
