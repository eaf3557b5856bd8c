//! The metadata of volumes and snapshots, which have the same calls.

use super::Answer;
use crate::auth::Ctx;
use crate::body::{Id, Json};
use crate::fields::{Fields, refused, required, texts};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_types::{OpCtx, VolumeId, VolumeSnapshotId};
use aws_lc_rs::digest;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Texts = BTreeMap<String, String>;

/// The name of what the metadata is now, from 3.15 on.
fn etag(all: &Texts) -> String {
    let text = serde_json::to_string(all).unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hex::encode(hash.as_ref().get(..16).unwrap_or_default())
}

/// What a client knows of the metadata that it changes: the request's `If-Match`.
#[derive(Debug, Clone, Default)]
struct Seen(Option<String>);

impl Seen {
    /// Of volumes, from 3.15 on.
    fn of(of: Of, version: Microversion, headers: &HeaderMap) -> Self {
        let volume = match of {
            Of::Volume(_) => version.at_least(15),
            Of::Snapshot(_) => false,
        };
        let value = headers.get(header::IF_MATCH).filter(|_| volume).and_then(|v| v.to_str().ok());
        Self(value.map(str::to_owned))
    }

    /// Refuses a change of what is no longer as the client has seen it.
    fn holds(&self, all: &Texts) -> Result<(), EngineError> {
        let Some(seen) = &self.0 else { return Ok(()) };
        let now = etag(all);
        if seen.split(',').map(|tag| tag.trim().trim_matches('"')).any(|tag| tag == "*" || tag == now) {
            return Ok(());
        }
        let message = "The metadata changed since it was read: read it again.".to_owned();
        Err(EngineError::Precondition { code: "PreconditionFailed", message })
    }
}

/// Whose metadata it is.
#[derive(Debug, Clone, Copy)]
enum Of {
    Volume(VolumeId),
    Snapshot(VolumeSnapshotId),
}

impl Of {
    async fn read(self, app: &App, ctx: &OpCtx) -> Result<Texts, ApiError> {
        Ok(match self {
            Self::Volume(id) => app.engine.volume_metadata(ctx, id).await?,
            Self::Snapshot(id) => app.engine.volume_snapshot_metadata(ctx, id).await?,
        })
    }

    async fn change(
        self,
        app: &App,
        ctx: &OpCtx,
        change: impl Fn(&mut Texts) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<Texts, ApiError> {
        Ok(match self {
            Self::Volume(id) => app.engine.volume_metadata_change(ctx, id, change).await?,
            Self::Snapshot(id) => app.engine.volume_snapshot_metadata_change(ctx, id, change).await?,
        })
    }

    async fn list(self, app: &App, ctx: &OpCtx, version: Microversion) -> Result<Response, ApiError> {
        let all = self.read(app, ctx).await?;
        let answer = axum::Json(json!({ "metadata": all }));
        Ok(match self {
            Self::Volume(_) if version.at_least(15) => ([(header::ETAG, etag(&all))], answer).into_response(),
            Self::Volume(_) | Self::Snapshot(_) => answer.into_response(),
        })
    }

    /// Adds the given pairs; with `whole` they are all that is left.
    async fn set(self, app: &App, ctx: &OpCtx, body: &Value, whole: bool, seen: Seen) -> Answer {
        self.read(app, ctx).await?;
        let mut fields = Fields::object(body, "body")?;
        let given = fields.raw("metadata").ok_or_else(|| required("body", "metadata"))?;
        let given = texts("metadata", given)?;
        fields.end()?;
        let change = move |all: &mut Texts| {
            seen.holds(all)?;
            if whole {
                all.clear();
            }
            all.extend(given.clone());
            Ok(())
        };
        Ok(axum::Json(json!({ "metadata": self.change(app, ctx, change).await? })))
    }

    async fn item(self, app: &App, ctx: &OpCtx, key: &str) -> Answer {
        let all = self.read(app, ctx).await?;
        let value = all.get(key).ok_or_else(|| no_item(key))?;
        Ok(axum::Json(json!({ "meta": { key: value } })))
    }

    async fn item_set(self, app: &App, ctx: &OpCtx, key: &str, body: &Value, seen: Seen) -> Answer {
        self.read(app, ctx).await?;
        let mut fields = Fields::object(body, "body")?;
        let given = fields.raw("meta").ok_or_else(|| required("body", "meta"))?;
        let given = texts("meta", given)?;
        fields.end()?;
        if given.len() != 1 {
            return Err(refused("meta", &body["meta"], "It holds not exactly one item."));
        }
        if !given.contains_key(key) {
            return Err(ApiError::bad_request("Request body and URI mismatch."));
        }
        let answer = json!({ "meta": given });
        let change = move |all: &mut Texts| {
            seen.holds(all)?;
            all.extend(given.clone());
            Ok(())
        };
        self.change(app, ctx, change).await?;
        Ok(axum::Json(answer))
    }

    async fn item_delete(self, app: &App, ctx: &OpCtx, key: &str) -> Result<StatusCode, ApiError> {
        let change = |all: &mut Texts| match all.remove(key) {
            Some(_) => Ok(()),
            None => Err(EngineError::not_found("MetadataItemNotFound", "Metadata item", key)),
        };
        self.change(app, ctx, change).await?;
        Ok(StatusCode::OK)
    }
}

fn no_item(key: &str) -> ApiError {
    ApiError::not_found("Metadata item", key.chars().take(255).collect::<String>())
}

fn volume(id: &str) -> Result<Of, ApiError> {
    let shown = || id.chars().take(64).collect::<String>();
    id.parse().map(Of::Volume).map_err(|_| ApiError::not_found("Volume", shown()))
}

fn snapshot(id: &str) -> Result<Of, ApiError> {
    let shown = || id.chars().take(64).collect::<String>();
    id.parse().map(Of::Snapshot).map_err(|_| ApiError::not_found("Snapshot", shown()))
}

macro_rules! calls {
    ($of:ident, $id:ty, $variant:ident, $path:literal) => {
        #[doc = concat!("`GET ", $path, "/metadata`")]
        pub async fn list(
            Ctx(ctx): Ctx,
            State(app): State<App>,
            version: Microversion,
            Id(id): Id<$id>,
        ) -> Result<Response, ApiError> {
            Of::$variant(id).list(&app, &ctx, version).await
        }

        #[doc = concat!("`POST ", $path, "/metadata`: adds and replaces")]
        pub async fn update(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<$id>, Json(body): Json<Value>) -> Answer {
            Of::$variant(id).set(&app, &ctx, &body, false, Seen::default()).await
        }

        #[doc = concat!("`PUT ", $path, "/metadata`: replaces all")]
        pub async fn replace(
            Ctx(ctx): Ctx,
            State(app): State<App>,
            version: Microversion,
            headers: HeaderMap,
            Id(id): Id<$id>,
            Json(body): Json<Value>,
        ) -> Answer {
            let seen = Seen::of(Of::$variant(id), version, &headers);
            Of::$variant(id).set(&app, &ctx, &body, true, seen).await
        }

        #[doc = concat!("`GET ", $path, "/metadata/{key}`")]
        pub async fn item(Ctx(ctx): Ctx, State(app): State<App>, Path((id, key)): Path<(String, String)>) -> Answer {
            super::$of(&id)?.item(&app, &ctx, &key).await
        }

        #[doc = concat!("`PUT ", $path, "/metadata/{key}`")]
        pub async fn item_set(
            Ctx(ctx): Ctx,
            State(app): State<App>,
            version: Microversion,
            headers: HeaderMap,
            Path((id, key)): Path<(String, String)>,
            Json(body): Json<Value>,
        ) -> Answer {
            let of = super::$of(&id)?;
            of.item_set(&app, &ctx, &key, &body, Seen::of(of, version, &headers)).await
        }

        #[doc = concat!("`DELETE ", $path, "/metadata/{key}`")]
        pub async fn item_delete(
            Ctx(ctx): Ctx,
            State(app): State<App>,
            Path((id, key)): Path<(String, String)>,
        ) -> Result<StatusCode, ApiError> {
            super::$of(&id)?.item_delete(&app, &ctx, &key).await
        }
    };
}

/// The calls for volumes.
pub mod of_volumes {
    use super::*;
    calls!(volume, VolumeId, Volume, "/volumes/{id}");
}

/// The calls for snapshots.
pub mod of_snapshots {
    use super::*;
    calls!(snapshot, VolumeSnapshotId, Snapshot, "/snapshots/{id}");
}
