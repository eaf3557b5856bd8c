//! Power, restarts, locks and states that operators declare.

use super::{Act, retried};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerFault};
use arcus_types::agent::Power;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerEvent, ServerRequest, ServerTask};
use arcus_types::{OpCtx, ServerId, Timestamp};
use base64::Engine as _;
use serde_json::json;

impl Engine {
    /// Restarts a server: politely, or as by the reset button. A hard restart also wakes one that is stopped, paused,
    /// suspended or in error.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_reboot(&self, ctx: &OpCtx, id: ServerId, hard: bool) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_REBOOT,
            request: if hard { ServerRequest::RebootHard } else { ServerRequest::RebootSoft },
            name: "reboot",
            event: "compute_reboot_instance",
            task: if hard { ServerTask::RebootingHard } else { ServerTask::Rebooting },
        };
        self.server_act(ctx, id, act, move |server| {
            on_a_node(server, act.request)?;
            // A guest that does not run now starts fresh: a restart on top would only repeat that.
            if server.power == Power::Running || server.power == Power::Paused {
                server.restarts += 1;
                server.restart_hard = hard;
            }
            server.power = Power::Running;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Starts a stopped server.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_start(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_START,
            request: ServerRequest::Start,
            name: "start",
            event: "compute_start_instance",
            task: ServerTask::PoweringOn,
        };
        self.server_power(ctx, id, act, Power::Running).await
    }

    /// Shuts a server down: the guest is asked first, and ended after a grace period.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_stop(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_STOP,
            request: ServerRequest::Stop,
            name: "stop",
            event: "compute_stop_instance",
            task: ServerTask::PoweringOff,
        };
        self.server_power(ctx, id, act, Power::Stopped).await
    }

    /// Freezes a server in memory.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_pause(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_PAUSE,
            request: ServerRequest::Pause,
            name: "pause",
            event: "compute_pause_instance",
            task: ServerTask::Pausing,
        };
        self.server_power(ctx, id, act, Power::Paused).await
    }

    /// Thaws a server.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_unpause(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_PAUSE,
            request: ServerRequest::Unpause,
            name: "unpause",
            event: "compute_unpause_instance",
            task: ServerTask::Unpausing,
        };
        self.server_power(ctx, id, act, Power::Running).await
    }

    /// Saves a server's memory on its node and ends it.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_suspend(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_SUSPEND,
            request: ServerRequest::Suspend,
            name: "suspend",
            event: "compute_suspend_instance",
            task: ServerTask::Suspending,
        };
        self.server_power(ctx, id, act, Power::Suspended).await
    }

    /// Loads a server's memory and lets it run.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`].
    pub async fn server_resume(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let act = Act {
            action: compute::SERVER_SUSPEND,
            request: ServerRequest::Resume,
            name: "resume",
            event: "compute_resume_instance",
            task: ServerTask::Resuming,
        };
        self.server_power(ctx, id, act, Power::Running).await
    }

    async fn server_power(&self, ctx: &OpCtx, id: ServerId, act: Act, power: Power) -> Result<(), EngineError> {
        self.server_act(ctx, id, act, move |server| {
            on_a_node(server, act.request)?;
            server.power = power;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Lets only administrators, or only its owner and administrators, change a server.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_lock(&self, ctx: &OpCtx, id: ServerId, reason: Option<String>) -> Result<(), EngineError> {
        self.server_mark(ctx, id, "lock", move |server| {
            server.details.locked_by_admin = ctx.is_admin();
            server.details.locked_reason.clone_from(&reason);
            server.locked = true;
            Ok(())
        })
        .await
    }

    /// Takes a lock away. What an administrator locked only an administrator unlocks.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`], [`EngineError::NotFound`] or a refusal.
    pub async fn server_unlock(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        self.server_mark(ctx, id, "unlock", move |server| {
            if server.locked && server.details.locked_by_admin && !ctx.is_admin() {
                return Err(EngineError::Forbidden(
                    "An administrator has locked this server; only an administrator unlocks it.".into(),
                ));
            }
            server.locked = false;
            server.details.locked_by_admin = false;
            server.details.locked_reason = None;
            Ok(())
        })
        .await
    }

    /// A change of the record that the node need not know.
    async fn server_mark(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        name: &str,
        change: impl Fn(&mut Server) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_LOCK, id).await?;
            change(&mut server)?;
            server.updated_at = Timestamp::now();
            self.server_record(&tx, &server, compute::SERVER_LOCK, name, None, &json!({})).await?;
            tx.server_update(&mut server).await?;
            Ok(tx.commit().await?)
        })
    }

    /// Declares a server to be well or in error, whatever its node says; ends any task.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal: only administrators may.
    pub async fn server_reset_state(&self, ctx: &OpCtx, id: ServerId, active: bool) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESET_STATE, id).await?;
            let event = if active { ServerEvent::ResetActive } else { ServerEvent::Failed };
            if active && server.node_id.is_none() {
                return Err(EngineError::conflict(format!(
                    "Instance {id} is on no node: unshelve it, or delete it and create it again."
                )));
            }
            server.state = server.state.after(event).map_err(|e| EngineError::conflict(e.to_string()))?;
            server.details.rescue = None;
            if self.rebuild_give_up(&tx, &mut server).await? && active {
                server.power = Power::Running;
                server.version += 1;
            }
            self.server_touch(&tx, &mut server).await?;
            server.task = None;
            server.task_deadline = None;
            server.updated_at = Timestamp::now();
            server.fault = (!active).then(|| ServerFault {
                code: 500,
                message: "An administrator has set this server to ERROR.".into(),
                details: String::new(),
                at: Timestamp::now(),
                transient: false,
            });
            let detail = json!({ "state": server.state.text() });
            self.server_record(&tx, &server, compute::SERVER_RESET_STATE, "reset_state", None, &detail).await?;
            tx.server_update(&mut server).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }
}

/// A server that no node holds has nothing that could run: it can only be deleted.
pub(super) fn on_a_node(server: &Server, request: ServerRequest) -> Result<(), EngineError> {
    if server.node_id.is_some() {
        return Ok(());
    }
    Err(EngineError::Conflict {
        code: "InstanceNotReady",
        message: format!(
            "Cannot '{request}' instance {}: it was never placed on a node. Delete it and create it again.",
            server.id
        ),
    })
}

/// The largest user data that is kept, in characters of base64.
pub const USER_DATA_CHARS_MAX: usize = 65_535;

/// User data must be base64 and of limited length.
pub(super) fn user_data_checked(text: &str) -> Result<(), EngineError> {
    if text.len() > USER_DATA_CHARS_MAX {
        return Err(EngineError::invalid(format!(
            "User data too large. User data must be no larger than {USER_DATA_CHARS_MAX} bytes once base64 encoded."
        )));
    }
    let tight: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    match base64::engine::general_purpose::STANDARD.decode(tight) {
        Ok(_) => Ok(()),
        Err(_) => Err(EngineError::invalid("User data needs to be valid base 64.")),
    }
}
