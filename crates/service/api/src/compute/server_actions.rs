//! What was done to a server.

use super::links::{self, instant, limit};
use super::servers::view::host_id;
use super::{Answer, server_id};
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_store::{ServerAction, ServerActionFilter};
use arcus_types::{OpCtx, RequestId, ServerId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn brief(action: &ServerAction, version: Microversion) -> Value {
    let mut out = json!({
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id.header(),
        "user_id": action.user_id.map(|u| u.to_string()).unwrap_or_default(),
        "project_id": action.project_id.map(|p| p.to_string()).unwrap_or_default(),
        "start_time": links::naive(action.started_at),
        // The node's words are in the event; here they have always been short.
        "message": action.message.as_ref().map(|_| "Error"),
    });
    if version.at_least(58) {
        out["updated_at"] = json!(links::naive(action.updated_at));
    }
    out
}

/// `GET /servers/{id}/os-instance-actions`
pub async fn list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ServerId>,
    query: Pairs,
) -> Answer {
    live(&app, &ctx, version, id).await?;
    let mut filter = ServerActionFilter { limit: links::PAGE_MAX, ..ServerActionFilter::default() };
    if version.at_least(58) {
        let before: &[&str] = if version.at_least(66) { &["changes-before"] } else { &[] };
        links::known(&query, &[&["limit", "marker", "changes-since"], before].concat())?;
        filter.limit = limit(&query)?;
        filter.marker = query.first("marker").map(request_id).transpose()?;
        filter.changes_since = instant(&query, "changes-since")?;
        if version.at_least(66) {
            filter.changes_before = instant(&query, "changes-before")?;
        }
    }
    let (actions, more) = app.engine.server_actions(&ctx, id, &filter).await?;
    let list: Vec<Value> = actions.iter().map(|a| brief(a, version)).collect();
    let mut out = json!({ "instanceActions": list });
    if let (true, true, Some(last)) = (more, version.at_least(58), actions.last()) {
        let path = format!("/servers/{id}/os-instance-actions");
        out["links"] = links::next(&app, &path, &query, &last.request_id.header());
    }
    Ok(axum::Json(out))
}

/// Before 2.21 only servers that are still there tell of themselves.
async fn live(app: &App, ctx: &OpCtx, version: Microversion, id: ServerId) -> Result<(), ApiError> {
    if !version.at_least(21) {
        app.engine.server_get(ctx, id).await?;
    }
    Ok(())
}

fn request_id(text: &str) -> Result<RequestId, ApiError> {
    text.strip_prefix("req-").unwrap_or(text).parse().map_err(|_| {
        let text: String = text.chars().take(64).collect();
        ApiError::new(StatusCode::NOT_FOUND, format!("Action for request_id {text} on this instance not found"))
    })
}

/// `GET /servers/{id}/os-instance-actions/{request_id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Path((id, request)): Path<(String, String)>,
) -> Answer {
    let id = server_id(&id)?;
    live(&app, &ctx, version, id).await?;
    let action = app.engine.server_action_get(&ctx, id, request_id(&request)?).await?;
    let mut out = brief(&action, version);
    // Before 2.51 only administrators saw events.
    if ctx.is_admin() || version.at_least(51) {
        // The newest step comes first.
        let events: Vec<Value> = action
            .event
            .iter()
            .chain(action.steps_done.iter().rev())
            .map(|e| {
                let mut event = json!({
                    "event": e.event,
                    "start_time": links::naive(e.started_at),
                    "finish_time": e.finished_at.map(links::naive),
                    "result": e.result,
                });
                if ctx.is_admin() {
                    event["traceback"] = json!(e.details);
                }
                if version.at_least(62) {
                    let host_id = e.node.as_deref().zip(action.project_id).map(|(node, id)| host_id(id, node));
                    event["hostId"] = json!(host_id.unwrap_or_default());
                    if ctx.is_admin() {
                        event["host"] = json!(e.node);
                    }
                }
                if version.at_least(84) {
                    event["details"] = json!(e.details);
                }
                event
            })
            .collect();
        out["events"] = json!(events);
    }
    Ok(axum::Json(json!({ "instanceAction": out })))
}
