//! Tasks: what was asked and is not instant, for those who wait for it.
//!
//! A task's row is written in the transaction of its request and moved by the writes that note what is observed; nobody works
//! at tasks as such, but for those that move many servers ([`crate::maintenance`]). What is over is kept for a week.

use crate::maintenance::DrainWish;
use crate::{Engine, EngineError};
use arcus_store::{Task, TaskFilter};
use arcus_types::policy::{Denied, Target, arcus, authorize};
use arcus_types::tasks::TaskState;
use arcus_types::{OpCtx, ServerId, TaskId, Timestamp};

/// What is over is kept so long, in seconds.
pub const TASK_KEPT_S: i64 = 7 * 24 * 3600;
/// So many tasks are forgotten at once at most.
const PURGE_MAX: u64 = 5_000;
/// A task of a server which that server does not work at any more is ended after so long, in seconds.
const ABANDONED_S: i64 = 24 * 3600;
/// A watch is told of so many tasks at once at most.
pub const WATCH_PAGE: u64 = 200;
/// Transactions that began before others may commit after them: so far back a watch looks again, in microseconds.
const WATCH_OVERLAP_US: i64 = 2_000_000;
/// Nothing is told of how long a task will take before so much of it is done, in percent.
const ETA_PERCENT_MIN: u8 = 5;

/// When a task should be over, as far as its progress tells.
pub fn eta(task: &Task, now: Timestamp) -> Option<Timestamp> {
    let started = task.started_at?;
    if !task.state.is_active() || !(ETA_PERCENT_MIN..100).contains(&task.progress) {
        return None;
    }
    let elapsed = now.0.saturating_sub(started.0).max(0);
    let left = elapsed.saturating_mul(i64::from(100 - task.progress)) / i64::from(task.progress);
    Some(Timestamp(now.0.saturating_add(left)))
}

fn no_task(id: TaskId) -> EngineError {
    EngineError::not_found("TaskNotFound", "Task", id)
}

fn target(task: &Task) -> Target {
    task.project_id.map(Target::project).unwrap_or_default()
}

/// Why a task of this kind cannot be given up.
fn not_cancellable(task: &Task) -> EngineError {
    let instead = match task.resource_kind.as_str() {
        "server" => "wait for it, or delete the server",
        "volume" => "wait for it, or delete the volume",
        _ => "wait for it",
    };
    EngineError::Conflict {
        code: "TaskNotCancellable",
        message: format!("A task of kind {} cannot be given up half-way: {instead}.", task.kind),
    }
}

impl Engine {
    /// Tasks, the newest first, and whether more follow: those of the caller's project, or all for administrators.
    ///
    /// # Errors
    /// A refusal.
    pub async fn tasks(&self, ctx: &OpCtx, mut filter: TaskFilter) -> Result<(Vec<Task>, bool), EngineError> {
        self.tasks_own(ctx, &mut filter)?;
        let mut found = self.store().task_list(&filter).await?;
        let keep = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        found.truncate(keep);
        Ok((found, more))
    }

    /// Limits a list to what the caller may see.
    fn tasks_own(&self, ctx: &OpCtx, filter: &mut TaskFilter) -> Result<(), EngineError> {
        authorize(ctx, arcus::TASK_LIST, &Target::own(ctx))?;
        if !ctx.is_admin() {
            let own = ctx.project_id().ok_or(Denied::Forbidden(arcus::TASK_LIST.name))?;
            if filter.project_id.is_some_and(|asked| asked != own) {
                return Err(Denied::Forbidden(arcus::TASK_LIST.name).into());
            }
            filter.project_id = Some(own);
        }
        Ok(())
    }

    /// One task.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn task(&self, ctx: &OpCtx, id: TaskId) -> Result<Task, EngineError> {
        let task = self.store().task_get(id).await?.ok_or_else(|| no_task(id))?;
        match authorize(ctx, arcus::TASK_READ, &target(&task)) {
            Ok(()) => Ok(task),
            Err(Denied::Anonymous) => Err(Denied::Anonymous.into()),
            Err(Denied::Hidden | Denied::Forbidden(_)) => Err(no_task(id)),
        }
    }

    /// Tasks that changed since `after`, the last that the caller was told of, in the order in which they changed. Some
    /// of them the caller knows already.
    ///
    /// # Errors
    /// A refusal.
    pub async fn tasks_changed(
        &self,
        ctx: &OpCtx,
        mut filter: TaskFilter,
        after: Timestamp,
    ) -> Result<Vec<Task>, EngineError> {
        self.tasks_own(ctx, &mut filter)?;
        filter.limit = WATCH_PAGE;
        let back = if self.store().is_postgres() { WATCH_OVERLAP_US } else { 1 };
        let after = Timestamp(after.0.saturating_sub(back));
        Ok(self.store().task_list_changed(&filter, (after, TaskId(uuid::Uuid::nil()))).await?)
    }

    /// Asks to give a task up.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] with what to do where that cannot be, [`EngineError::NotFound`], or a refusal.
    pub async fn task_cancel(&self, ctx: &OpCtx, id: TaskId) -> Result<Task, EngineError> {
        let task = self.task(ctx, id).await?;
        authorize(ctx, arcus::TASK_CANCEL, &target(&task))?;
        if !task.state.is_active() {
            return Err(EngineError::Conflict {
                code: "TaskIsOver",
                message: format!("The task is over: it is {}.", task.state),
            });
        }
        match task.kind.as_str() {
            "live-migration" => {
                let server = ServerId(task.resource_id);
                let live = self.server_migrations_live(ctx, server).await?;
                let number = live.map(|live| live.record.number).ok_or_else(|| no_task(id))?;
                match self.server_migration_change(ctx, server, number, false, true).await {
                    Err(EngineError::Invalid { code, message }) => return Err(EngineError::Conflict { code, message }),
                    other => other?,
                }
            }
            "drain" | "restore" => self.maintenance_cancel(ctx, id).await?,
            _ => return Err(not_cancellable(&task)),
        }
        self.task(ctx, id).await
    }

    /// Asks for the same again as a task that failed or was given up.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] with what to do where that makes no sense, [`EngineError::NotFound`], or a refusal.
    pub async fn task_retry(&self, ctx: &OpCtx, id: TaskId) -> Result<Task, EngineError> {
        let task = self.task(ctx, id).await?;
        authorize(ctx, arcus::TASK_RETRY, &target(&task))?;
        if !matches!(task.state, TaskState::Failed | TaskState::Cancelled) {
            return Err(EngineError::Conflict {
                code: "TaskNotFailed",
                message: format!(
                    "The task is {}: only one that failed or was given up can be asked for again.",
                    task.state
                ),
            });
        }
        match task.kind.as_str() {
            "live-migration" => {
                let wish = crate::servers::LiveMigrationWish::default();
                self.server_migrate_live(ctx, ServerId(task.resource_id), &wish).await?;
            }
            "drain" | "restore" => {
                let parallel = task.detail["parallel"].as_u64().and_then(|n| u32::try_from(n).ok());
                let wish = DrainWish { parallel, deadline_s: None, plan_only: false };
                match task.kind.as_str() {
                    "drain" => self.node_drain(ctx, &task.resource_name, &wish).await?,
                    _ => self.node_restore(ctx, &task.resource_name, &wish).await?,
                };
            }
            _ => {
                return Err(EngineError::Conflict {
                    code: "TaskNotRetriable",
                    message: format!(
                        "A task of kind {} is not asked for again by itself: repeat the request that it came from.",
                        task.kind
                    ),
                });
            }
        }
        self.task_by_request(ctx, &task).await
    }

    /// The task that this request has made of the same resource.
    async fn task_by_request(&self, ctx: &OpCtx, old: &Task) -> Result<Task, EngineError> {
        let filter = TaskFilter { resource_id: Some(old.resource_id), limit: 10, ..TaskFilter::default() };
        let found = self.store().task_list(&filter).await?;
        found.into_iter().find(|task| task.request_id == ctx.request_id).ok_or_else(|| no_task(old.id))
    }

    /// Forgets tasks that have long been over, and ends those that nobody works at. To be called now and then.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn tasks_sweep(&self, now: Timestamp) -> Result<(), EngineError> {
        let tx = self.store().begin_unaudited().await?;
        tx.task_purge(now.plus_seconds(-TASK_KEPT_S), PURGE_MAX).await?;
        tx.tasks_end_abandoned(now.plus_seconds(-ABANDONED_S), now).await?;
        Ok(tx.commit().await?)
    }
}
