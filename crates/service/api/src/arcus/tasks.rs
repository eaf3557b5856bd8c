//! Tasks: what was asked and is not instant, with how far it is.

use crate::auth::Ctx;
use crate::body::{self, Id, Pairs};
use crate::{ApiError, App, query};
use arcus_engine::tasks::eta;
use arcus_store::{Task, TaskFilter};
use arcus_types::{OpCtx, TaskId, Timestamp};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

/// A task as its owner sees it; administrators also see what names nodes.
pub fn view(ctx: &OpCtx, task: &Task) -> Value {
    let now = Timestamp::now();
    let mut shown = json!({
        "id": task.id,
        "kind": task.kind,
        "parent_id": task.parent_id,
        "resource": { "kind": task.resource_kind, "id": task.resource_id, "name": task.resource_name },
        "project_id": task.project_id,
        "user_id": task.user_id,
        "request_id": task.request_id.header(),
        "state": task.state.text(),
        "step": task.step,
        "steps": task.steps.iter()
            .map(|step| json!({ "name": step.name, "finished_at": step.finished_at.to_string() }))
            .collect::<Vec<_>>(),
        "progress_percent": task.progress,
        "eta": eta(task, now).map(|at| at.to_string()),
        "error": task.error,
        "priority": task.priority,
        "deadline": task.deadline.map(|at| at.to_string()),
        "cancel_requested": task.cancel,
        "created_at": task.created_at.to_string(),
        "started_at": task.started_at.map(|at| at.to_string()),
        "finished_at": task.finished_at.map(|at| at.to_string()),
        "updated_at": task.updated_at.to_string(),
    });
    if let (true, Some(fields)) = (ctx.is_admin(), shown.as_object_mut()) {
        fields.insert("detail".to_owned(), task.detail.clone());
    }
    shown
}

/// What a query asks for.
pub fn filter(query: &Pairs) -> Result<TaskFilter, ApiError> {
    Ok(TaskFilter {
        id: None,
        project_id: query::parsed(query, "project_id")?,
        state: query::parsed(query, "state")?,
        kind: query.first("kind").map(str::to_owned),
        resource_id: query::parsed(query, "resource_id")?,
        parent_id: query::parsed(query, "parent_id")?,
        marker: query::parsed(query, "marker")?,
        limit: query::limit(query)?,
    })
}

/// `GET /arcus/v1/tasks?state=&kind=&resource_id=&parent_id=&project_id=&limit=&marker=`, the newest first; `next` is the
/// marker of the next page.
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Response, ApiError> {
    query::known(&query, &["state", "kind", "resource_id", "parent_id", "project_id", "limit", "marker"])?;
    let (tasks, more) = app.engine.tasks(&ctx, filter(&query)?).await?;
    let next = tasks.last().filter(|_| more).map(|task| ("next", json!(task.id)));
    Ok(body::list("tasks", tasks.iter().map(|task| view(&ctx, task)), next))
}

/// `GET /arcus/v1/tasks/{id}`.
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<TaskId>) -> Result<axum::Json<Value>, ApiError> {
    let task = app.engine.task(&ctx, id).await?;
    Ok(axum::Json(json!({ "task": view(&ctx, &task) })))
}

/// `POST /arcus/v1/tasks/{id}/cancel`: 202, and the task is over once what it did is undone.
pub async fn cancel(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<TaskId>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let task = app.engine.task_cancel(&ctx, id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "task": view(&ctx, &task) }))))
}

/// `POST /arcus/v1/tasks/{id}/retry`: the same again, as another task.
pub async fn retry(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<TaskId>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let task = app.engine.task_retry(&ctx, id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "task": view(&ctx, &task) }))))
}
