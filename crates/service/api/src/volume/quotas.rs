//! Limits, quotas of projects, and the quotas that projects have unless they have their own.

use super::{Answer, page};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::fields::Fields;
use crate::query::parsed;
use crate::{ApiError, App};
use arcus_engine::volume_quotas::{VOLUME_QUOTAS, VolumeCaps, VolumeQuotas};
use arcus_store::{Quota, QuotaResource, TypeQuotaKind};
use arcus_types::ProjectId;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

const QUOTA_MAX: i64 = 0x7FFF_FFFF;

/// `GET /limits`
pub async fn limits(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Answer {
    let project: Option<ProjectId> = match parsed(&query, "project_id")? {
        Some(project) => Some(project),
        None => parsed(&query, "tenant_id")?,
    };
    let quotas = app.engine.volume_limits(&ctx, project).await?;
    let get = |resource: QuotaResource| {
        let found = quotas.iter().find(|q| q.resource == resource).copied();
        found.unwrap_or(Quota { resource, cap: resource.default_cap(), used: 0 })
    };
    let (volumes, gigabytes) = (get(QuotaResource::Volumes), get(QuotaResource::VolumeGigabytes));
    let snapshots = get(QuotaResource::VolumeSnapshots);
    let (backups, backup_gigabytes) = (get(QuotaResource::VolumeBackups), get(QuotaResource::VolumeBackupGigabytes));
    Ok(axum::Json(json!({ "limits": { "rate": [], "absolute": {
        "maxTotalVolumes": volumes.cap,
        "maxTotalVolumeGigabytes": gigabytes.cap,
        "maxTotalSnapshots": snapshots.cap,
        "maxTotalBackups": backups.cap,
        "maxTotalBackupGigabytes": backup_gigabytes.cap,
        "totalVolumesUsed": volumes.used,
        "totalGigabytesUsed": gigabytes.used,
        "totalSnapshotsUsed": snapshots.used,
        "totalBackupsUsed": backups.used,
        "totalBackupGigabytesUsed": backup_gigabytes.used,
    } } })))
}

/// The caps of a quota set, or with `usage` also what is used of them.
fn shown(quotas: &VolumeQuotas, usage: bool) -> Map<String, Value> {
    let value = |cap: i64, used: i64| match usage {
        true => json!({ "limit": cap, "in_use": used, "reserved": 0, "allocated": 0 }),
        false => json!(cap),
    };
    let all = quotas.all.iter().map(|q| (q.resource.name().to_owned(), value(q.cap, q.used)));
    let by_type = quotas.by_type.iter().map(|q| (format!("{}_{}", q.kind.name(), q.type_name), value(q.cap, q.used)));
    all.chain(by_type).collect()
}

/// The caps that a client asks for.
fn caps(body: &Value, key: &str) -> Result<VolumeCaps, ApiError> {
    let mut caps = VolumeCaps::default();
    let mut plain = Map::new();
    let given = Fields::of(body, key, &[]).map(|_| body.get(key).and_then(Value::as_object))?;
    for (name, value) in given.into_iter().flatten() {
        let of_type = name
            .split_once('_')
            .and_then(|(word, of)| TypeQuotaKind::ALL.iter().find(|kind| kind.name() == word).map(|kind| (*kind, of)));
        let Some((kind, of)) = of_type else {
            plain.insert(name.clone(), value.clone());
            continue;
        };
        let one = json!({ "limit": value });
        let cap = Fields::object(&one, name)?.integer("limit", -1, QUOTA_MAX)?;
        caps.by_type.extend(cap.map(|cap| (kind, of.to_owned(), cap)));
    }
    let plain = Value::Object(plain);
    let mut fields = Fields::object(&plain, key)?;
    // Old clients repeat the project or the class here.
    for known in ["tenant_id", "id", "class_name", "force"] {
        fields.raw(known);
    }
    for &resource in VOLUME_QUOTAS {
        if let Some(cap) = fields.integer(resource.name(), -1, QUOTA_MAX)? {
            caps.all.push((resource, cap));
        }
    }
    fields.end()?;
    Ok(caps)
}

/// `GET /os-quota-sets/{project_id}?usage=`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>, query: Pairs) -> Answer {
    let usage = page::flag(&query, "usage")?.unwrap_or(false);
    let mut out = shown(&app.engine.volume_quota_show(&ctx, id).await?, usage);
    out.insert("id".into(), json!(id));
    Ok(axum::Json(json!({ "quota_set": out })))
}

/// `GET /os-quota-sets/{project_id}/defaults`
pub async fn defaults(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Answer {
    let mut out = shown(&app.engine.volume_quota_defaults(&ctx, id).await?, false);
    out.insert("id".into(), json!(id));
    Ok(axum::Json(json!({ "quota_set": out })))
}

/// `PUT /os-quota-sets/{project_id}`
pub async fn update(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>, Json(body): Json<Value>) -> Answer {
    let quotas = app.engine.volume_quota_update(&ctx, id, &caps(&body, "quota_set")?).await?;
    Ok(axum::Json(json!({ "quota_set": shown(&quotas, false) })))
}

/// `DELETE /os-quota-sets/{project_id}`
pub async fn reset(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ProjectId>) -> Result<StatusCode, ApiError> {
    app.engine.volume_quota_reset(&ctx, id).await?;
    Ok(StatusCode::OK)
}

/// There is one class of quotas: the one that every project is in.
fn class_checked(name: &str) -> Result<(), ApiError> {
    if name == "default" {
        return Ok(());
    }
    Err(ApiError::not_found("Quota class", name.chars().take(64).collect::<String>()))
}

/// `GET /os-quota-class-sets/{class}`
pub async fn class_show(Ctx(ctx): Ctx, State(app): State<App>, Path(class): Path<String>) -> Answer {
    class_checked(&class)?;
    let mut out = shown(&app.engine.volume_quota_class_show(&ctx).await?, false);
    out.insert("id".into(), json!(class));
    Ok(axum::Json(json!({ "quota_class_set": out })))
}

/// `PUT /os-quota-class-sets/{class}`
pub async fn class_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(class): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    class_checked(&class)?;
    let quotas = app.engine.volume_quota_class_update(&ctx, &caps(&body, "quota_class_set")?).await?;
    Ok(axum::Json(json!({ "quota_class_set": shown(&quotas, false) })))
}
