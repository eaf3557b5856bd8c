//! What was asked and is not instant: one row each, written with the request and moved with what is observed.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::tasks::TaskState;
use arcus_types::{ProjectId, RequestId, TaskId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Something that was asked and is not instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id; ids sort by when it was asked.
    pub id: TaskId,
    /// What is asked, such as `live-migration`.
    pub kind: String,
    /// The task that it is a part of.
    pub parent_id: Option<TaskId>,
    /// What kind of thing it is done to, such as `server`.
    pub resource_kind: String,
    /// Which one.
    pub resource_id: Uuid,
    /// What that was called.
    pub resource_name: String,
    /// Whose it is; none if only administrators see it.
    pub project_id: Option<ProjectId>,
    /// Who asked.
    pub user_id: Option<UserId>,
    /// By which request.
    pub request_id: RequestId,
    /// How far it is.
    pub state: TaskState,
    /// What is being done.
    pub step: Option<String>,
    /// What was done before that.
    pub steps: Vec<TaskStep>,
    /// From 0 to 100.
    pub progress: u8,
    /// Why it failed or was given up, in words for its owner.
    pub error: Option<String>,
    /// Which goes first where tasks wait for the same: the larger number.
    pub priority: i32,
    /// When it is given up by itself.
    pub deadline: Option<Timestamp>,
    /// Somebody asked to give it up.
    pub cancel: bool,
    /// What only this kind has.
    pub detail: Value,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When somebody began to work at it.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// A step of a task that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStep {
    /// What was done.
    pub name: String,
    /// When it was over.
    pub finished_at: Timestamp,
}

/// Which tasks a list holds; the newest comes first.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// This one.
    pub id: Option<TaskId>,
    /// Of this project.
    pub project_id: Option<ProjectId>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this resource.
    pub resource_id: Option<Uuid>,
    /// Parts of this task.
    pub parent_id: Option<TaskId>,
    /// The task after which the page begins.
    pub marker: Option<TaskId>,
    /// At most so many rows.
    pub limit: u64,
}

const COLUMNS: &str = "id, kind, parent_id, resource_kind, resource_id, resource_name, project_id, user_id, request_id, state, \
     step, steps, progress, error, priority, deadline, cancel, detail, created_at, started_at, finished_at, updated_at";
/// The condition that a task is not over.
const ACTIVE: &str = "state IN ('waiting', 'running')";

fn task(row: &Row) -> Result<Task, StoreError> {
    Ok(Task {
        id: row.get("id")?,
        kind: row.get("kind")?,
        parent_id: row.opt("parent_id")?,
        resource_kind: row.get("resource_kind")?,
        resource_id: row.get("resource_id")?,
        resource_name: row.get("resource_name")?,
        project_id: row.opt("project_id")?,
        user_id: row.opt("user_id")?,
        request_id: row.get("request_id")?,
        state: row.text("state")?,
        step: row.opt("step")?,
        steps: row.json("steps")?,
        progress: row.get("progress")?,
        error: row.opt("error")?,
        priority: i32::try_from(row.get::<i64>("priority")?).unwrap_or_default(),
        deadline: row.opt("deadline")?,
        cancel: row.get("cancel")?,
        detail: row.json("detail")?,
        created_at: row.get("created_at")?,
        started_at: row.opt("started_at")?,
        finished_at: row.opt("finished_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl TaskFilter {
    fn conditions(&self) -> Where {
        let mut filter = Where::default();
        if let Some(id) = self.id {
            filter.and("id = ?", params![id]);
        }
        if let Some(project) = self.project_id {
            filter.and("project_id = ?", params![project]);
        }
        if let Some(state) = self.state {
            filter.and("state = ?", params![state.text()]);
        }
        if let Some(kind) = &self.kind {
            filter.and("kind = ?", params![kind]);
        }
        if let Some(resource) = self.resource_id {
            filter.and("resource_id = ?", params![resource]);
        }
        if let Some(parent) = self.parent_id {
            filter.and("parent_id = ?", params![parent]);
        }
        filter
    }
}

impl Db {
    /// Tasks, the newest first, at most `limit + 1`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_list(&self, wanted: &TaskFilter) -> Result<Vec<Task>, StoreError> {
        let mut filter = wanted.conditions();
        if let Some(marker) = wanted.marker {
            filter.and("id < ?", params![marker]);
        }
        let limit = wanted.limit.saturating_add(1).min(10_000);
        let sql = format!("SELECT {COLUMNS} FROM tasks{} ORDER BY id DESC LIMIT {limit}", filter.sql());
        self.all(sql, filter.params).await?.iter().map(task).collect()
    }

    /// Tasks that changed after this instant or, at it, have a larger id; in the order in which they changed, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_list_changed(
        &self,
        wanted: &TaskFilter,
        after: (Timestamp, TaskId),
    ) -> Result<Vec<Task>, StoreError> {
        let mut filter = wanted.conditions();
        filter.and("updated_at >= ?", params![after.0]);
        filter.and("(updated_at > ? OR id > ?)", params![after.0, after.1]);
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks{} ORDER BY updated_at, id LIMIT {}",
            filter.sql(),
            wanted.limit.min(10_000)
        );
        self.all(sql, filter.params).await?.iter().map(task).collect()
    }

    /// The task with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM tasks WHERE id = $1"), params![id]).await?;
        row.as_ref().map(task).transpose()
    }

    /// Tasks of these kinds that are not over, the most important first, then the oldest; at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_list_active(&self, kinds: &[&str], limit: u64) -> Result<Vec<Task>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("state", vec!["waiting", "running"]).and_in("kind", kinds.to_vec());
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks{} ORDER BY priority DESC, id LIMIT {}",
            filter.sql(),
            limit.min(10_000)
        );
        self.all(sql, filter.params).await?.iter().map(task).collect()
    }
}

impl Tx {
    /// Records a task; the same request asking the same resource again keeps one record.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_insert(&self, new: &Task) -> Result<(), StoreError> {
        self.exec(
            format!(
                "INSERT INTO tasks ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                 $17, $18, $19, $20, $21, $22) ON CONFLICT DO NOTHING"
            ),
            params![
                new.id,
                &new.kind,
                new.parent_id,
                &new.resource_kind,
                new.resource_id,
                &new.resource_name,
                new.project_id,
                new.user_id,
                new.request_id,
                new.state.text(),
                &new.step,
                Json(&new.steps),
                new.progress,
                &new.error,
                i64::from(new.priority),
                new.deadline,
                new.cancel,
                Json(&new.detail),
                new.created_at,
                new.started_at,
                new.finished_at,
                new.updated_at
            ],
        )
        .await?;
        self.task_changed();
        Ok(())
    }

    /// Notes how far the tasks of a resource are that are not over: all, or those of one request or kind.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_progress(
        &self,
        resource: Uuid,
        request: Option<RequestId>,
        kind: Option<&str>,
        progress: u8,
        step: Option<&str>,
    ) -> Result<(), StoreError> {
        self.exec(
            format!(
                "UPDATE tasks SET progress = $4, step = COALESCE($5, step), updated_at = $6 WHERE resource_id = $1
                 AND (CAST($2 AS UUID) IS NULL OR request_id = $2) AND (CAST($3 AS TEXT) IS NULL OR kind = $3) AND {ACTIVE}"
            ),
            params![resource, request, kind, progress, step, Timestamp::now()],
        )
        .await?;
        self.task_changed();
        Ok(())
    }

    /// Notes that a step of a task is over and the next one begins.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_step(
        &self,
        resource: Uuid,
        request: RequestId,
        next: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE resource_id = $1 AND request_id = $2 AND {ACTIVE}");
        let Some(row) = self.one(sql, params![resource, request]).await? else { return Ok(()) };
        let found = task(&row)?;
        let mut steps = found.steps;
        steps.extend(found.step.map(|name| TaskStep { name, finished_at: at }));
        self.exec(
            format!("UPDATE tasks SET steps = $2, step = $3, updated_at = $4 WHERE id = $1 AND {ACTIVE}"),
            params![found.id, Json(&steps), next, at],
        )
        .await?;
        self.task_changed();
        Ok(())
    }

    /// Writes a task that is not over, which the caller has read in this transaction; `false` if it is over.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_update(&self, task: &Task) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                format!(
                    "UPDATE tasks SET state = $2, step = $3, steps = $4, progress = $5, error = $6, deadline = $7, cancel = $8,
                     detail = $9, started_at = $10, finished_at = $11, updated_at = $12 WHERE id = $1 AND {ACTIVE}"
                ),
                params![
                    task.id,
                    task.state.text(),
                    &task.step,
                    Json(&task.steps),
                    task.progress,
                    &task.error,
                    task.deadline,
                    task.cancel,
                    Json(&task.detail),
                    task.started_at,
                    task.finished_at,
                    Timestamp::now()
                ],
            )
            .await?;
        self.task_changed();
        Ok(changed == 1)
    }

    /// The task with this id, held against other writers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_lock(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let hold = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let row = self.one(format!("SELECT {COLUMNS} FROM tasks WHERE id = $1{hold}"), params![id]).await?;
        row.as_ref().map(task).transpose()
    }

    /// Notes how the task ended that a request asked of a resource; what is over already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_finish(
        &self,
        resource: Uuid,
        request: RequestId,
        state: TaskState,
        error: Option<&str>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE tasks SET state = $3, error = $4, finished_at = $5, updated_at = $5,
             progress = CASE WHEN $3 = 'done' THEN 100 ELSE progress END
             WHERE resource_id = $1 AND request_id = $2 AND {ACTIVE}"
        );
        self.exec(sql, params![resource, request, state.text(), error, at]).await?;
        self.task_changed();
        Ok(())
    }

    /// Gives the task that a request asked of a resource a parent and a detail.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_describe(
        &self,
        resource: Uuid,
        request: RequestId,
        parent: Option<TaskId>,
        detail: &Value,
    ) -> Result<(), StoreError> {
        self.exec(
            "UPDATE tasks SET parent_id = COALESCE($3, parent_id), detail = $4 WHERE resource_id = $1 AND request_id = $2",
            params![resource, request, parent, Json(detail)],
        )
        .await?;
        Ok(())
    }

    /// Ends what is not over of a resource that is gone.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tasks_end_with(&self, resource: Uuid, error: &str, at: Timestamp) -> Result<(), StoreError> {
        self.tasks_finish(resource, TaskState::Cancelled, Some(error), at).await
    }

    /// Notes how all tasks of a resource ended that are not over.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tasks_finish(
        &self,
        resource: Uuid,
        state: TaskState,
        error: Option<&str>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE tasks SET state = $2, error = $3, finished_at = $4, updated_at = $4,
             progress = CASE WHEN $2 = 'done' THEN 100 ELSE progress END
             WHERE resource_id = $1 AND {ACTIVE}"
        );
        if self.exec(sql, params![resource, state.text(), error, at]).await? > 0 {
            self.task_changed();
        }
        Ok(())
    }

    /// Ends tasks of servers asked for before `before` that no server works at any more.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn tasks_end_abandoned(&self, before: Timestamp, at: Timestamp) -> Result<u64, StoreError> {
        let ended = self
            .exec(
                "UPDATE tasks SET state = 'failed', error = 'It was overtaken by something else.', finished_at = $2,
                 updated_at = $2 WHERE state = 'running' AND resource_kind = 'server' AND created_at < $1
                 AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = tasks.resource_id AND s.request_id = tasks.request_id)",
                params![before, at],
            )
            .await?;
        self.task_changed();
        Ok(ended)
    }

    /// Forgets tasks that were over before this instant, at most `limit`; how many.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn task_purge(&self, before: Timestamp, limit: u64) -> Result<u64, StoreError> {
        let sql = format!(
            "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE finished_at < $1 ORDER BY finished_at LIMIT {limit})"
        );
        self.exec(sql, params![before]).await
    }
}
