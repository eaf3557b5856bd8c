//! Servers on their way to other nodes or flavors.

use super::links::{self, instant, limit, parsed};
use super::{Answer, gone, server_id, since};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::EngineError;
use arcus_engine::servers::LiveMigrationView;
use arcus_store::{ServerMigration, ServerMigrationFilter};
use arcus_types::{OpCtx, ServerId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// Before flavors had texts as ids they had numbers, which here remain: those that are none get one that stays the same.
fn flavor_number(id: &str) -> u32 {
    let hash = |text: &str| text.bytes().fold(5_381_u32, |n, b| n.wrapping_mul(33) ^ u32::from(b)) & 0x7FFF_FFFF;
    id.parse().unwrap_or_else(|_| hash(id))
}

fn shown(m: &ServerMigration, version: Microversion) -> Value {
    let mut out = json!({
        "id": m.number,
        "instance_uuid": m.server_id,
        "status": m.status,
        "source_compute": m.source_node,
        "source_node": m.source_node,
        "dest_compute": m.dest_node,
        "dest_node": m.dest_node,
        "dest_host": null,
        "old_instance_type_id": flavor_number(&m.old_flavor),
        "new_instance_type_id": flavor_number(&m.new_flavor),
        "created_at": links::naive(m.created_at),
        "updated_at": links::naive(m.updated_at),
    });
    if version.at_least(23) {
        out["migration_type"] = json!(m.kind);
    }
    if version.at_least(59) {
        out["uuid"] = json!(m.id);
    }
    if version.at_least(80) {
        out["user_id"] = json!(m.user_id);
        out["project_id"] = json!(m.project_id);
    }
    out
}

/// `GET /os-migrations`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    if version.at_least(59) {
        let mut names = vec![
            "hidden",
            "host",
            "instance_uuid",
            "source_compute",
            "status",
            "migration_type",
            "limit",
            "marker",
            "changes-since",
        ];
        for (minor, more) in [(66, "changes-before"), (80, "user_id"), (80, "project_id")] {
            if version.at_least(minor) {
                names.push(more);
            }
        }
        links::known(&query, &names)?;
    }
    let text = |key: &str| query.first(key).map(str::to_owned);
    let mut filter = ServerMigrationFilter {
        server_id: parsed(&query, "instance_uuid")?,
        kind: text("migration_type"),
        status: text("status"),
        node: text("host"),
        source_node: text("source_compute"),
        limit: links::PAGE_MAX,
        ..ServerMigrationFilter::default()
    };
    let mut marker = None;
    if version.at_least(59) {
        filter.limit = limit(&query)?;
        filter.changes_since = instant(&query, "changes-since")?;
        marker = parsed(&query, "marker")?;
    }
    if version.at_least(66) {
        filter.changes_before = instant(&query, "changes-before")?;
        if let (Some(from), Some(to)) = (filter.changes_since, filter.changes_before)
            && from > to
        {
            let message = "The value of changes-since must be less than or equal to changes-before.";
            return Err(ApiError::bad_request(message));
        }
    }
    if version.at_least(80) {
        filter.user_id = parsed(&query, "user_id")?;
        filter.project_id = parsed(&query, "project_id")?;
    }
    let (found, more) = app.engine.migration_list(&ctx, filter, marker).await?;
    let list: Vec<Value> = found.iter().map(|m| shown(m, version)).collect();
    let mut out = json!({ "migrations": list });
    if let (true, true, Some(last)) = (more, version.at_least(59), found.last()) {
        out["migrations_links"] = links::next(&app, "/os-migrations", &query, &last.id.to_string());
    }
    Ok(axum::Json(out))
}

/// A live migration that is under way.
fn shown_live(m: &LiveMigrationView, version: Microversion) -> Value {
    let (record, figures) = (&m.record, &m.progress.figures);
    let mut out = json!({
        "id": record.number,
        "server_uuid": record.server_id,
        "status": record.status,
        "source_compute": record.source_node,
        "source_node": record.source_node,
        "dest_compute": record.dest_node,
        "dest_node": record.dest_node,
        "dest_host": null,
        "memory_total_bytes": figures.memory_total,
        "memory_processed_bytes": figures.memory_sent,
        "memory_remaining_bytes": figures.memory_remaining,
        "disk_total_bytes": figures.disk_total,
        "disk_processed_bytes": figures.disk_sent,
        "disk_remaining_bytes": figures.disk_total.saturating_sub(figures.disk_sent),
        "created_at": links::naive(record.created_at),
        "updated_at": links::naive(record.updated_at),
    });
    if version.at_least(59) {
        out["uuid"] = json!(record.id);
    }
    if version.at_least(80) {
        out["user_id"] = json!(record.user_id);
        out["project_id"] = json!(record.project_id);
    }
    out
}

/// `GET /servers/{id}/migrations`, from 2.23 on: live migrations that are under way.
pub async fn of_server(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerId>) -> Answer {
    since(version, 23)?;
    let found = app.engine.server_migrations_live(&ctx, id).await?;
    let list: Vec<Value> = found.iter().map(|m| shown_live(m, version)).collect();
    Ok(axum::Json(json!({ "migrations": list })))
}

fn none(id: &str, migration: &str) -> ApiError {
    let migration: String = migration.chars().take(64).collect();
    let message = format!("Migration {migration} for server {id} could not be found.");
    ApiError::new(StatusCode::NOT_FOUND, message)
}

/// `GET /servers/{id}/migrations/{migration_id}`, from 2.23 on
pub async fn of_server_one(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, migration)): Path<(String, String)>,
) -> Answer {
    since(version, 23)?;
    let found = app.engine.server_migrations_live(&ctx, server_id(&id)?).await?;
    let found = found.filter(|m| migration.parse() == Ok(m.record.number)).ok_or_else(|| none(&id, &migration))?;
    Ok(axum::Json(json!({ "migration": shown_live(&found, version) })))
}

/// `DELETE /servers/{id}/migrations/{migration_id}`, from 2.24 on
pub async fn of_server_cancel(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, migration)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    since(version, 24)?;
    change(&ctx, &app, &id, &migration, false, version.at_least(65)).await
}

/// `POST /servers/{id}/migrations/{migration_id}/action`, from 2.22 on
pub async fn of_server_action(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, migration)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Result<StatusCode, ApiError> {
    if !version.at_least(22) {
        return Err(gone());
    }
    if body.as_object().is_none_or(|map| map.len() != 1 || !map.contains_key("force_complete")) {
        return Err(ApiError::bad_request("The body has exactly one field: force_complete."));
    }
    change(&ctx, &app, &id, &migration, true, false).await
}

async fn change(
    ctx: &OpCtx,
    app: &App,
    id: &str,
    migration: &str,
    force: bool,
    early: bool,
) -> Result<StatusCode, ApiError> {
    let server = server_id(id)?;
    // What no migration is called is looked for all the same: who may not see the server learns nothing.
    let number = migration.parse().unwrap_or(0);
    match app.engine.server_migration_change(ctx, server, number, force, early).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(EngineError::NotFound { code: "MigrationNotFoundForInstance", .. }) => Err(none(id, migration)),
        Err(error) => Err(error.into()),
    }
}
