//! What was done to servers, by whom, and how it ended.

use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::tasks::TaskState;
use arcus_types::{ProjectId, RequestId, ServerId, TaskId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// Something that was done to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAction {
    /// The server.
    pub server_id: ServerId,
    /// The request that asked for it.
    pub request_id: RequestId,
    /// What was asked, such as `reboot`.
    pub action: String,
    /// Who asked.
    pub user_id: Option<UserId>,
    /// In which project.
    pub project_id: Option<ProjectId>,
    /// Why it failed, in words for the owner.
    pub message: Option<String>,
    /// What its node was asked, at last.
    pub event: Option<ServerActionEvent>,
    /// What it was asked before that, in order: the steps that are over.
    pub steps_done: Vec<ServerActionEvent>,
    /// When it was asked.
    pub started_at: Timestamp,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// What a node was asked for an action, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerActionEvent {
    /// Its name, such as `compute_reboot_instance`.
    pub event: String,
    /// The node's name.
    pub node: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// `Success` or `Error`.
    pub result: Option<String>,
    /// Why it failed.
    pub details: Option<String>,
}

/// So many actions of a server that are not over are told of at once.
const OPEN_MAX: u32 = 100;

const COLUMNS: &str = "server_id, request_id, action, user_id, project_id, message, event, event_node, event_started_at, \
     event_finished_at, event_result, event_details, steps_done, started_at, updated_at";

fn action(row: &Row) -> Result<ServerAction, StoreError> {
    let event = match row.opt::<String>("event")? {
        None => None,
        Some(event) => Some(ServerActionEvent {
            event,
            node: row.opt("event_node")?,
            started_at: row.opt("event_started_at")?.unwrap_or_default(),
            finished_at: row.opt("event_finished_at")?,
            result: row.opt("event_result")?,
            details: row.opt("event_details")?,
        }),
    };
    Ok(ServerAction {
        server_id: row.get("server_id")?,
        request_id: row.get("request_id")?,
        action: row.get("action")?,
        user_id: row.opt("user_id")?,
        project_id: row.opt("project_id")?,
        message: row.opt("message")?,
        event,
        steps_done: row.opt::<Json<_>>("steps_done")?.map(|steps| steps.0).unwrap_or_default(),
        started_at: row.get("started_at")?,
        updated_at: row.get("updated_at")?,
    })
}

/// What a task is called that the history calls so: an action alone does not say what it is done to.
fn task_kind(action: &str) -> &str {
    const KINDS: &[(&str, &str)] = &[
        ("live-migration", "live-migration"),
        ("evacuate", "evacuation"),
        ("create", "server-create"),
        ("delete", "server-delete"),
        ("rebuild", "server-rebuild"),
        ("resize", "server-resize"),
        ("revertResize", "server-revert-resize"),
        ("migrate", "migration"),
        ("shelve", "server-shelve"),
        ("shelveOffload", "server-shelve-offload"),
        ("unshelve", "server-unshelve"),
        ("createImage", "server-snapshot"),
        ("createBackup", "server-backup"),
        ("rescue", "server-rescue"),
        ("unrescue", "server-unrescue"),
        ("changePassword", "server-password"),
        ("start", "server-start"),
        ("stop", "server-stop"),
        ("reboot", "server-reboot"),
        ("pause", "server-pause"),
        ("unpause", "server-unpause"),
        ("suspend", "server-suspend"),
        ("resume", "server-resume"),
    ];
    KINDS.iter().find(|(known, _)| *known == action).map_or("server-change", |(_, kind)| kind)
}

/// Which actions of a server a list holds; the newest comes first.
#[derive(Debug, Clone, Default)]
pub struct ServerActionFilter {
    /// Changed at or after.
    pub changes_since: Option<Timestamp>,
    /// Changed at or before.
    pub changes_before: Option<Timestamp>,
    /// The action after which the page begins.
    pub marker: Option<RequestId>,
    /// At most so many rows.
    pub limit: u64,
}

impl Db {
    /// What was done to a server, the newest first, at most `limit + 1`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_list(
        &self,
        server: ServerId,
        wanted: &ServerActionFilter,
    ) -> Result<Vec<ServerAction>, StoreError> {
        let mut filter = Where::default();
        filter.and("server_id = ?", params![server]);
        if let Some(at) = wanted.changes_since {
            filter.and("updated_at >= ?", params![at]);
        }
        if let Some(at) = wanted.changes_before {
            filter.and("updated_at <= ?", params![at]);
        }
        if let Some(marker) = wanted.marker {
            let at = "(SELECT m.started_at FROM server_actions m WHERE m.server_id = ? AND m.request_id = ?)";
            filter.and(
                &format!("(started_at < {at} OR (started_at = {at} AND request_id < ?))"),
                params![server, marker, server, marker, marker],
            );
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM server_actions{} ORDER BY started_at DESC, request_id DESC LIMIT {}",
            filter.sql(),
            wanted.limit.saturating_add(1).min(10_000)
        );
        self.all(sql, filter.params).await?.iter().map(action).collect()
    }

    /// One thing that was done to a server.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_get(
        &self,
        server: ServerId,
        request: RequestId,
    ) -> Result<Option<ServerAction>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM server_actions WHERE server_id = $1 AND request_id = $2");
        self.one(sql, params![server, request]).await?.as_ref().map(action).transpose()
    }
}

impl Tx {
    /// Records what is asked, and as a task what is not instant; the same request asking the same server again keeps one record.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_insert(&self, new: &ServerAction) -> Result<(), StoreError> {
        let event = new.event.as_ref();
        self.exec(
            "INSERT INTO server_actions (server_id, request_id, action, user_id, project_id, message, event, event_node,
             event_started_at, event_finished_at, event_result, event_details, started_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) ON CONFLICT DO NOTHING",
            params![
                new.server_id, new.request_id, &new.action, new.user_id, new.project_id, &new.message,
                event.map(|e| e.event.as_str()), event.and_then(|e| e.node.as_deref()), event.map(|e| e.started_at),
                event.and_then(|e| e.finished_at), event.and_then(|e| e.result.as_deref()),
                event.and_then(|e| e.details.as_deref()), new.started_at
            ],
        )
        .await?;
        match event.filter(|event| event.finished_at.is_none()) {
            Some(event) => self.server_task_insert(new, &event.event).await,
            None => Ok(()),
        }
    }

    /// What a node must do for a server is a task of the server's owner, until it is over.
    async fn server_task_insert(&self, new: &ServerAction, step: &str) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO tasks (id, kind, resource_kind, resource_id, resource_name, project_id, user_id, request_id, state, step,
             steps, progress, priority, deadline, cancel, detail, created_at, started_at, updated_at)
             SELECT $1, $2, 'server', id, name, project_id, $3, $4, 'running', $5, '[]', 0, 0, task_deadline, FALSE, '{}', $6,
             $6, $6 FROM servers WHERE id = $7 ON CONFLICT DO NOTHING",
            params![
                TaskId::new(),
                task_kind(&new.action),
                new.user_id,
                new.request_id,
                step,
                new.started_at,
                new.server_id
            ],
        )
        .await?;
        self.task_changed();
        Ok(())
    }

    /// Records that a step of an action is over and the next one begins.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_step(
        &self,
        server: ServerId,
        request: RequestId,
        next: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(action) = self.server_action_get(server, request).await? else { return Ok(()) };
        let Some(step) = action.event.filter(|event| event.finished_at.is_none()) else { return Ok(()) };
        let mut steps = action.steps_done;
        steps.push(ServerActionEvent { finished_at: Some(at), result: Some("Success".to_owned()), ..step });
        self.exec(
            "UPDATE server_actions SET steps_done = $3, event = $4, event_started_at = $5, updated_at = $5
             WHERE server_id = $1 AND request_id = $2",
            params![server, request, Json(&steps), next, at],
        )
        .await?;
        self.task_step(server.0, request, next, at).await
    }

    /// The requests that asked a server for one of `events` and are not over, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_open(&self, server: ServerId, events: &[&str]) -> Result<Vec<RequestId>, StoreError> {
        let mut filter = Where::default();
        filter.and("server_id = ? AND event_finished_at IS NULL", params![server]);
        filter.and_in("event", events.to_vec());
        let sql = format!(
            "SELECT request_id FROM server_actions{} ORDER BY started_at, request_id LIMIT {OPEN_MAX}",
            filter.sql()
        );
        self.all(sql, filter.params).await?.iter().map(|row| row.get("request_id")).collect()
    }

    /// Records how an action and its task ended: `failure` says why it failed, unless it succeeded.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_action_finish(
        &self,
        server: ServerId,
        request: RequestId,
        at: Timestamp,
        failure: Option<&str>,
    ) -> Result<(), StoreError> {
        let result = if failure.is_some() { "Error" } else { "Success" };
        self.exec(
            "UPDATE server_actions SET event_finished_at = $3, event_result = $4, event_details = $5, message = $5,
             updated_at = $3 WHERE server_id = $1 AND request_id = $2 AND event_finished_at IS NULL",
            params![server, request, at, result, failure],
        )
        .await?;
        let state = if failure.is_some() { TaskState::Failed } else { TaskState::Done };
        self.task_finish(server.0, request, state, failure, at).await
    }
}
