//! Transfers: `os-volume-transfer`, and from 3.55 on `volume-transfers`, which tell more.

use super::links::{links, next};
use super::{Answer, page, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::{Fields, required};
use crate::microversion::Microversion;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_store::{VolumeTransfer, VolumeTransferFilter, VolumeTransferSort};
use arcus_types::{OpCtx, TransferId, VolumeId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

/// The two spellings of these calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// `os-volume-transfer`.
    Old,
    /// `volume-transfers`.
    New,
}

impl Spelling {
    const fn word(self) -> &'static str {
        match self {
            Self::Old => "os-volume-transfer",
            Self::New => "volume-transfers",
        }
    }

    /// Whether answers tell if the snapshots go along.
    fn tells_snapshots(self, version: Microversion) -> bool {
        self == Self::New && version.at_least(55)
    }

    /// Whether answers tell between whom it is.
    fn tells_projects(self, version: Microversion) -> bool {
        self == Self::New && version.at_least(57)
    }
}

fn brief(app: &App, ctx: &OpCtx, spelling: Spelling, transfer: &VolumeTransfer) -> Value {
    json!({
        "id": transfer.id,
        "name": transfer.name,
        "volume_id": transfer.volume_id,
        "links": links(app, ctx, spelling.word(), transfer.id),
    })
}

fn full(app: &App, ctx: &OpCtx, version: Microversion, spelling: Spelling, transfer: &VolumeTransfer) -> Value {
    let mut out = brief(app, ctx, spelling, transfer);
    out["created_at"] = json!(transfer.created_at.iso_naive());
    if spelling.tells_snapshots(version) {
        out["no_snapshots"] = json!(transfer.no_snapshots);
    }
    if spelling.tells_projects(version) {
        out["source_project_id"] = json!(transfer.source_project_id);
        out["destination_project_id"] = Value::Null;
        out["accepted"] = json!(false);
    }
    out
}

async fn listed(
    app: &App,
    ctx: &OpCtx,
    query: &Pairs,
    spelling: Spelling,
    path: &str,
    show: impl Fn(&VolumeTransfer) -> Value,
) -> Answer {
    let sort = page::sort(query, |key| {
        Some(match key {
            "created_at" => VolumeTransferSort::CreatedAt,
            "name" | "display_name" => VolumeTransferSort::Name,
            "id" => VolumeTransferSort::Id,
            _ => return None,
        })
    })?;
    let filter = VolumeTransferFilter {
        project_id: parsed(query, "project_id")?,
        name: query.first("name").map(str::to_owned),
        volume_id: parsed(query, "volume_id")?,
        sort,
        marker: parsed(query, "marker")?,
        offset: page::offset(query)?,
        limit: page::limit(query)?,
    };
    let all = page::flag(query, "all_tenants")?.unwrap_or(false);
    let (found, is_full) = app.engine.volume_transfer_list(ctx, all, filter).await?;
    let mut out = json!({ "transfers": found.iter().map(show).collect::<Vec<_>>() });
    if let (true, Some(last)) = (is_full, found.last()) {
        out["transfers_links"] = next(app, ctx, &format!("/{}{path}", spelling.word()), query, last.id);
    }
    Ok(axum::Json(out))
}

async fn created(app: &App, ctx: &OpCtx, version: Microversion, spelling: Spelling, body: &Value) -> Made {
    let mut fields = Fields::of(body, "transfer", &[])?;
    let volume: VolumeId = fields.parsed("volume_id")?.ok_or_else(|| required("transfer", "volume_id"))?;
    let name = fields.text("name", 0, 255)?.map(str::to_owned);
    let no_snapshots = match spelling.tells_snapshots(version) {
        true => fields.boolean("no_snapshots")?.unwrap_or(false),
        false => false,
    };
    fields.end()?;
    let (transfer, key) = app.engine.volume_transfer_create(ctx, volume, name, no_snapshots).await?;
    let mut out = full(app, ctx, version, spelling, &transfer);
    out["auth_key"] = json!(key);
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "transfer": out }))))
}

async fn accepted(app: &App, ctx: &OpCtx, spelling: Spelling, id: TransferId, body: &Value) -> Made {
    let mut fields = Fields::of(body, "accept", &[])?;
    let key = fields.text_required("auth_key", 1, 255)?;
    fields.end()?;
    let transfer = app.engine.volume_transfer_accept(ctx, id, key).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "transfer": brief(app, ctx, spelling, &transfer) }))))
}

/// An answer that something was begun.
type Made = Result<(StatusCode, axum::Json<Value>), ApiError>;

/// `GET /os-volume-transfer`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Answer {
    listed(&app, &ctx, &query, Spelling::Old, "", |t| brief(&app, &ctx, Spelling::Old, t)).await
}

/// `GET /os-volume-transfer/detail`
pub async fn detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    let show = |t: &VolumeTransfer| full(&app, &ctx, version, Spelling::Old, t);
    listed(&app, &ctx, &query, Spelling::Old, "/detail", show).await
}

/// `GET /os-volume-transfer/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<TransferId>) -> Answer {
    let found = app.engine.volume_transfer_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "transfer": full(&app, &ctx, version, Spelling::Old, &found) })))
}

/// `POST /os-volume-transfer`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Made {
    created(&app, &ctx, version, Spelling::Old, &body).await
}

/// `POST /os-volume-transfer/{id}/accept`
pub async fn accept(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TransferId>, Json(body): Json<Value>) -> Made {
    accepted(&app, &ctx, Spelling::Old, id, &body).await
}

/// `DELETE /os-volume-transfer/{id}` and `DELETE /volume-transfers/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TransferId>) -> Result<StatusCode, ApiError> {
    app.engine.volume_transfer_delete(&ctx, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /volume-transfers`, from 3.55 on
pub async fn new_list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 55)?;
    listed(&app, &ctx, &query, Spelling::New, "", |t| brief(&app, &ctx, Spelling::New, t)).await
}

/// `GET /volume-transfers/detail`, from 3.55 on
pub async fn new_detail(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    since(version, 55)?;
    let show = |t: &VolumeTransfer| full(&app, &ctx, version, Spelling::New, t);
    listed(&app, &ctx, &query, Spelling::New, "/detail", show).await
}

/// `GET /volume-transfers/{id}`, from 3.55 on
pub async fn new_show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<TransferId>) -> Answer {
    since(version, 55)?;
    let found = app.engine.volume_transfer_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "transfer": full(&app, &ctx, version, Spelling::New, &found) })))
}

/// `POST /volume-transfers`, from 3.55 on
pub async fn new_create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Made {
    since(version, 55)?;
    created(&app, &ctx, version, Spelling::New, &body).await
}

/// `POST /volume-transfers/{id}/accept`, from 3.55 on
pub async fn new_accept(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<TransferId>,
    Json(body): Json<Value>,
) -> Made {
    since(version, 55)?;
    accepted(&app, &ctx, Spelling::New, id, &body).await
}
