//! What other clouds need for several services that share a backend: clusters, from 3.7 on, and clean-ups after services
//! that died, from 3.24 on. Here a pool is served by its own node, which goes on by itself when it is back.

use super::{Answer, since};
use crate::auth::Ctx;
use crate::body::Json;
use crate::fields::{Fields, required};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_types::policy::{Target, authorize, volume as policy};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn no_cluster(name: &str) -> ApiError {
    ApiError::not_found("Cluster", name.chars().take(255).collect::<String>())
}

/// `GET /clusters` and `GET /clusters/detail`: there is none
pub async fn list(Ctx(ctx): Ctx, version: Microversion) -> Answer {
    since(version, 7)?;
    authorize(&ctx, policy::CLUSTER_READ, &Target::default())?;
    Ok(axum::Json(json!({ "clusters": [] })))
}

/// `GET /clusters/{name}`: there is none
pub async fn show(Ctx(ctx): Ctx, version: Microversion, Path(name): Path<String>) -> Answer {
    since(version, 7)?;
    authorize(&ctx, policy::CLUSTER_READ, &Target::default())?;
    Err(no_cluster(&name))
}

/// `PUT /clusters/{verb}`: `enable` or `disable`; there is none
pub async fn update(Ctx(ctx): Ctx, version: Microversion, Path(verb): Path<String>, Json(body): Json<Value>) -> Answer {
    since(version, 7)?;
    authorize(&ctx, policy::CLUSTER_WRITE, &Target::default())?;
    if verb != "enable" && verb != "disable" {
        return Err(ApiError::not_found("Action", verb.chars().take(64).collect::<String>()));
    }
    let mut fields = Fields::object(&body, "body")?;
    let name = fields.text_required("name", 1, 255)?;
    Err(no_cluster(name))
}

/// `POST /workers/cleanup`: nothing waits for one
pub async fn cleanup(
    Ctx(ctx): Ctx,
    version: Microversion,
    Json(body): Json<Value>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    since(version, 24)?;
    authorize(&ctx, policy::WORKER_CLEANUP, &Target::default())?;
    Fields::object(&body, "body")?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "cleaning": [], "unavailable": [] }))))
}

/// `GET /manageable_volumes?host=` and its kin, from 3.8 on: a node removes what it does not know, so that there is never
/// anything in a pool that could be taken over
pub async fn manageable(
    kind: &'static str,
    app: &App,
    ctx: &arcus_types::OpCtx,
    version: Microversion,
    host: Option<&str>,
) -> Answer {
    since(version, 8)?;
    let host = host.ok_or_else(|| ApiError::bad_request("The host must be given, as a query parameter."))?;
    app.engine.volume_pool_get(ctx, policy::MANAGEABLE_READ, host).await?;
    Ok(axum::Json(json!({ kind: [] })))
}

/// `POST /manageable_volumes` and its kin
pub async fn manage(kind: &'static str, ctx: &arcus_types::OpCtx, version: Microversion, body: &Value) -> Answer {
    since(version, 8)?;
    authorize(ctx, policy::MANAGEABLE_WRITE, &Target::default())?;
    let mut fields = Fields::of(body, kind, &[])?;
    let reference = fields.raw("ref").ok_or_else(|| required(kind, "ref"))?.to_string();
    let reference: String = reference.chars().take(255).collect();
    Err(ApiError::bad_request(format!(
        "Failed to manage existing {kind} due to invalid backend reference {reference}: pools of this cloud hold nothing that it does not know."
    )))
}

/// The calls for volumes.
pub mod volumes {
    use super::*;
    use crate::body::Pairs;

    /// `GET /manageable_volumes` and `GET /manageable_volumes/detail`
    pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
        manageable("manageable-volumes", &app, &ctx, version, query.first("host")).await
    }

    /// `POST /manageable_volumes`
    pub async fn create(Ctx(ctx): Ctx, version: Microversion, Json(body): Json<Value>) -> Answer {
        manage("volume", &ctx, version, &body).await
    }
}

/// The calls for snapshots.
pub mod snapshots {
    use super::*;
    use crate::body::Pairs;

    /// `GET /manageable_snapshots` and `GET /manageable_snapshots/detail`
    pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
        manageable("manageable-snapshots", &app, &ctx, version, query.first("host")).await
    }

    /// `POST /manageable_snapshots`
    pub async fn create(Ctx(ctx): Ctx, version: Microversion, Json(body): Json<Value>) -> Answer {
        manage("snapshot", &ctx, version, &body).await
    }
}
