//! Tasks as they change, as server-sent events.
//!
//! An event is a whole task as it is then: `id` is when it changed, in microseconds, and whoever says it back in
//! `Last-Event-ID` goes on from there. The same task may be told twice, and states in between may be left out. A watch waits
//! for this process's commits, not on the database, and lasts ten minutes at most: then clients ask again.

use super::tasks::view;
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::{ApiError, App, query};
use arcus_store::{Task, TaskFilter};
use arcus_types::{OpCtx, TaskId, Timestamp};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// Watches at the same time in one process.
const WATCHES_MAX: usize = 256;
/// The longest that a watch lasts, in seconds.
const WATCH_S_MAX: u64 = 600;
/// A watch that has nothing to tell says so this often, which keeps connections open.
const QUIET: Duration = Duration::from_secs(15);
/// Other replicas' changes are looked for this often where the database is shared.
const REPLICA_POLL: Duration = Duration::from_secs(1);
/// Tasks of which a watch remembers what it told last; then it begins anew, and may tell the same twice.
const TOLD_MAX: usize = 4_096;

static WATCHES: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(WATCHES_MAX)));

struct Watch {
    app: App,
    ctx: OpCtx,
    filter: TaskFilter,
    after: Timestamp,
    told: HashMap<TaskId, Timestamp>,
    waiting: VecDeque<Task>,
    changes: watch::Receiver<u64>,
    until: Instant,
    /// Ends with its one task.
    one: bool,
    over: bool,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// The next piece of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(task) = self.waiting.pop_front() {
                self.over |= self.one && !task.state.is_active();
                return Some(event(&self.ctx, &task));
            }
            if self.over {
                return None;
            }
            self.changes.mark_unchanged();
            let found = match self.app.engine.tasks_changed(&self.ctx, self.filter.clone(), self.after).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(error = %error, "a watch of tasks ended");
                    return None;
                }
            };
            if self.told.len() > TOLD_MAX {
                self.told.clear();
            }
            for task in found {
                self.after = self.after.max(task.updated_at);
                if self.told.insert(task.id, task.updated_at) != Some(task.updated_at) {
                    self.waiting.push_back(task);
                }
            }
            if !self.waiting.is_empty() {
                continue;
            }
            let now = Instant::now();
            if now >= self.until {
                return None;
            }
            if !self.wait(now).await && Instant::now() < self.until {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
        }
    }

    /// Waits until there may be news; `false` if there were none for long.
    async fn wait(&mut self, now: Instant) -> bool {
        let quiet = (now + QUIET).min(self.until);
        let look = if self.app.engine.store().is_postgres() { quiet.min(now + REPLICA_POLL) } else { quiet };
        tokio::time::timeout_at(look, self.changes.changed()).await.is_ok() || look < quiet
    }
}

fn event(ctx: &OpCtx, task: &Task) -> Bytes {
    Bytes::from(format!("id: {}\nevent: task\ndata: {}\n\n", task.updated_at.0, view(ctx, task)))
}

fn answer(watch: Watch) -> Response {
    let pieces =
        stream::unfold(watch, async |mut watch| watch.next().await.map(|piece| (Ok::<_, Infallible>(piece), watch)));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}

fn begin(app: App, ctx: OpCtx, query: &Pairs, headers: &HeaderMap) -> Result<Watch, ApiError> {
    let place = Arc::clone(&WATCHES).try_acquire_owned().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Too many clients watch tasks: try again later.")
    })?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let seconds: u64 = query::parsed(query, "max_s")?.unwrap_or(WATCH_S_MAX);
    let mut filter = super::tasks::filter(query)?;
    filter.marker = None;
    Ok(Watch {
        changes: app.engine.store().task_changes(),
        app,
        ctx,
        filter,
        after: last.map_or_else(Timestamp::now, Timestamp),
        told: HashMap::new(),
        waiting: VecDeque::new(),
        until: Instant::now() + Duration::from_secs(seconds.min(WATCH_S_MAX)),
        one: false,
        over: false,
        _place: place,
    })
}

const KNOWN: &[&str] = &["state", "kind", "resource_id", "parent_id", "project_id", "max_s"];

/// `GET /arcus/v1/tasks/watch?state=&kind=&resource_id=&parent_id=&project_id=&max_s=`: tasks from now on, or from
/// `Last-Event-ID`.
pub async fn all(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query::known(&query, KNOWN)?;
    // Refused before it begins.
    let filter = TaskFilter { limit: 0, ..super::tasks::filter(&query)? };
    app.engine.tasks(&ctx, filter).await?;
    Ok(answer(begin(app, ctx, &query, &headers)?))
}

/// `GET /arcus/v1/tasks/{id}/events?max_s=`: one task as it is now and as it changes, until it is over.
pub async fn one(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<TaskId>,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    query::known(&query, &["max_s"])?;
    let task = app.engine.task(&ctx, id).await?;
    let mut watch = begin(app, ctx, &query, &headers)?;
    watch.filter.id = Some(id);
    watch.after = task.updated_at;
    watch.told.insert(id, task.updated_at);
    watch.waiting.push_back(task);
    watch.one = true;
    Ok(answer(watch))
}
