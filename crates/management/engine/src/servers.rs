//! Servers: what users ask of them, what nodes say of them.
//!
//! Every change holds the server's row, decides, writes the wish, touches the node and commits; nothing waits for a node.
//! What nodes answer comes back through [`Engine::servers_observed`]; what they fail to answer ends in
//! [`Engine::servers_sweep`].

mod actions;
mod change;
mod console;
mod create;
mod delete;
mod evacuate;
mod files;
mod history;
mod image;
mod interfaces;
mod list;
mod live;
mod live_refused;
mod local_disks;
mod migrate;
mod migrations;
mod observe;
mod password;
mod placement;
mod rebuild;
mod rescue;
mod resize;
mod shelve;
mod sweep;
mod view;
mod volume_image;
mod volumes;

pub use change::{ServerChange, TAG_CHARS_MAX, TAGS_MAX};
pub use console::ConsoleKind;
pub use create::{DiskSource, DiskWish, NetworkOrPort, NetworkWish, Networks, ServerNew, ServersCreated, ZoneWish};
pub use evacuate::EvacuateWish;
pub use files::GuestFile;
pub use image::{BackupWish, SnapshotWish};
pub use interfaces::{Interface, InterfaceWish};
pub use list::{ServerQuery, at_statuses};
pub use live::{Blocker, LiveMigrationAsked, LiveMigrationPlan, LiveMigrationView, LiveMigrationWish, Prediction};
pub use local_disks::LocalDiskWish;
pub use placement::{ExplainWish, Explained, NodeAnswer, PlacementView};
pub use rebuild::RebuildWish;
pub use shelve::UnshelveWish;
pub use view::{AddressView, NodeStanding, ServerView};
pub use volumes::AttachWish;

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Server, ServerAction, ServerActionEvent, StoreError, Tx, UsageEntry};
use arcus_types::policy::{Action, Denied, Target, authorize, compute};
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{OpCtx, ServerId, Timestamp};
use serde_json::{Value, json};

/// How often an operation is tried again when the database asks for it.
pub(crate) const TRIES_MAX: u32 = 8;
/// How long a guest may take to shut down before it is ended, in seconds, unless its image says otherwise.
pub(crate) const SHUTDOWN_GRACE_S: u32 = 60;

pub(crate) fn no_server(id: ServerId) -> EngineError {
    EngineError::not_found("InstanceNotFound", "Instance", id)
}

/// Whether the caller may do `action` to a server; what belongs to another project is not there.
fn allowed(ctx: &OpCtx, action: Action, server: &Server) -> Result<(), EngineError> {
    match authorize(ctx, action, &Target::project(server.project_id)) {
        Ok(()) => Ok(()),
        Err(Denied::Hidden) => Err(no_server(server.id)),
        Err(Denied::Forbidden(_)) if ctx.project_id() != Some(server.project_id) => Err(no_server(server.id)),
        Err(denied) => Err(denied.into()),
    }
}

/// Refuses what the server's state or its lock does not admit.
fn admit(ctx: &OpCtx, server: &Server, request: ServerRequest) -> Result<(), EngineError> {
    if server.locked && !ctx.is_admin() {
        return Err(EngineError::Conflict {
            code: "InstanceIsLocked",
            message: format!("Instance {} is locked", server.id),
        });
    }
    request.admit(server.state, server.task).map_err(|refused| EngineError::Conflict {
        code: "InstanceInvalidState",
        message: format!(
            "Cannot '{}' instance {} while it is in {} {}",
            refused.request, server.id, refused.attribute, refused.value
        ),
    })
}

/// Runs its block, whose value is a result, again while the database asks for it: two transactions that met in opposite
/// order, or a row that changed meanwhile.
macro_rules! retried {
    ($body:block) => {{
        let mut tries = 1;
        loop {
            let result: Result<_, $crate::EngineError> = async { $body }.await;
            match result {
                Err($crate::EngineError::Store(error))
                    if error.is_transient() && tries < $crate::servers::TRIES_MAX =>
                {
                    tries += 1;
                }
                other => break other,
            }
        }
    }};
}
pub(crate) use retried;

impl Engine {
    /// The server, if the caller may do `action` to it. `gone` also finds, for administrators, one that is gone.
    async fn server_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: ServerId,
        gone: bool,
    ) -> Result<Server, EngineError> {
        let server = db.server_get(id).await?.ok_or_else(|| no_server(id))?;
        if server.deleted_at.is_some() && !(gone && ctx.is_admin()) {
            return Err(no_server(id));
        }
        allowed(ctx, action, &server)?;
        Ok(server)
    }

    /// Whether the caller may do `action`, which changes nothing, to a server.
    pub(crate) async fn server_readable(&self, ctx: &OpCtx, action: Action, id: ServerId) -> Result<(), EngineError> {
        self.server_seen(self.store(), ctx, action, id, false).await.map(drop)
    }

    /// The server, held against other writers, if the caller may do `action` to it.
    async fn server_held(&self, tx: &Tx, ctx: &OpCtx, action: Action, id: ServerId) -> Result<Server, EngineError> {
        let server = tx.server_lock(id).await?.filter(|s| s.deleted_at.is_none()).ok_or_else(|| no_server(id))?;
        allowed(ctx, action, &server)?;
        Ok(server)
    }

    /// Records a wish that the server's node must act on: the version rises, the task has a deadline, the node's spec a
    /// new generation. The caller has changed what is wished, and commits and wakes the node afterwards.
    async fn server_wish(&self, tx: &Tx, server: &mut Server, task: Option<ServerTask>) -> Result<(), EngineError> {
        let now = Timestamp::now();
        server.version += 1;
        server.task = task;
        server.task_deadline = task.map(|t| now.plus_seconds(t.deadline_s()));
        server.request_id = Some(tx.ctx().request_id);
        server.updated_at = now;
        self.server_touch(tx, server).await?;
        tx.server_update(server).await?;
        Ok(())
    }

    /// Gives the server's node a new spec generation and notes it in the row, which the caller writes.
    async fn server_touch(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        if let Some(node) = server.node_id {
            tx.node_touch(node).await?;
            server.node_generation = tx.node_spec_generation(node).await?.unwrap_or(0);
        }
        Ok(())
    }

    /// Wakes the server's node, after the commit.
    fn server_wake(&self, server: &Server) {
        if let Some(node) = server.node_id {
            self.wake().node(node);
        }
    }

    /// Records what is asked of a server: in its history and in the audit log. `event` names what its node must do; an
    /// action without one is over at once.
    async fn server_record(
        &self,
        tx: &Tx,
        server: &Server,
        action: Action,
        name: &str,
        event: Option<&str>,
        detail: &Value,
    ) -> Result<(), EngineError> {
        let ctx = tx.ctx();
        let now = Timestamp::now();
        let node = match (event, server.node_id) {
            (Some(_), Some(id)) => tx.node_get(id).await?.map(|n| n.name.to_string()),
            (Some(_), None) | (None, _) => None,
        };
        tx.server_action_insert(&ServerAction {
            server_id: server.id,
            request_id: ctx.request_id,
            action: name.to_owned(),
            user_id: ctx.user_id(),
            project_id: ctx.project_id().or(Some(server.project_id)),
            message: None,
            event: event.map(|event| ServerActionEvent {
                event: event.to_owned(),
                node,
                started_at: now,
                finished_at: None,
                result: None,
                details: None,
            }),
            steps_done: Vec::new(),
            started_at: now,
            updated_at: now,
        })
        .await?;
        self.server_audit(tx, server, action, detail).await
    }

    async fn server_audit(&self, tx: &Tx, server: &Server, action: Action, detail: &Value) -> Result<(), EngineError> {
        tx.audit(AuditEntry {
            action,
            kind: "server",
            id: server.id.to_string(),
            project_id: Some(server.project_id),
            detail,
        })
        .await?;
        Ok(())
    }

    /// Records what the server uses from now on; `false` ends the use.
    async fn server_usage(&self, tx: &Tx, server: &Server, used: bool) -> Result<(), EngineError> {
        let uses = if used {
            json!({ "vcpus": server.vcpus, "memory_mib": server.memory_mib, "disk_gib": server.disk_gib })
        } else {
            json!({})
        };
        let entry = UsageEntry { project_id: server.project_id, kind: "server", id: server.id.0, uses: &uses };
        Ok(tx.usage(entry).await?)
    }

    /// The common path of what a user asks of a server that its node must bring about: hold, check, change, record,
    /// wish, commit, wake.
    async fn server_act(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        what: Act,
        change: impl Fn(&mut Server) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<Server, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, what.action, id).await?;
            admit(ctx, &server, what.request)?;
            change(&mut server)?;
            self.server_record(&tx, &server, what.action, what.name, Some(what.event), &json!({})).await?;
            self.server_wish(&tx, &mut server, Some(what.task)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(server)
        })
    }
}

/// One thing that can be asked of a server: how policy, state, history and node see it.
#[derive(Debug, Clone, Copy)]
struct Act {
    action: Action,
    request: ServerRequest,
    /// The name in the history.
    name: &'static str,
    /// What the node does, in the history.
    event: &'static str,
    task: ServerTask,
}

/// A caller without rights on any server, for entry points that list.
fn list_target(ctx: &OpCtx) -> Result<(), EngineError> {
    Ok(authorize(ctx, compute::SERVER_LIST, &Target::own(ctx))?)
}

pub(crate) fn stale() -> EngineError {
    EngineError::Store(StoreError::Stale("server"))
}
