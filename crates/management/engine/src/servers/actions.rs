//! Power, restarts, rebuilds, locks and passwords.

use super::{Act, admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerFault};
use arcus_types::agent::Power;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerEvent, ServerRequest, ServerState, ServerTask};
use arcus_types::{ImageId, Name, OpCtx, ServerId, Timestamp};
use base64::Engine as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a rebuild shall change; `None` leaves it.
#[derive(Debug, Clone)]
pub struct RebuildWish {
    /// The image that the disk begins as again.
    pub image_id: ImageId,
    /// The name.
    pub name: Option<Name>,
    /// The host name.
    pub hostname: Option<String>,
    /// All of the metadata.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// The password; `None` draws one.
    pub admin_password: Option<String>,
    /// The name of a key pair; `Some(None)` takes the key away.
    pub key_name: Option<Option<String>>,
    /// User data in base64; `Some(None)` takes it away.
    pub user_data: Option<Option<String>>,
    /// An address that the owner notes down.
    pub access_ip_v4: Option<Option<IpAddr>>,
    /// An address that the owner notes down.
    pub access_ip_v6: Option<Option<IpAddr>>,
    /// Whether the owner partitions the disk.
    pub disk_config_manual: Option<bool>,
}

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

    /// Makes a server's disk anew from an image. Its id, node, addresses and ports stay. The password to tell.
    ///
    /// # Errors
    /// As [`Engine::server_reboot`], and [`EngineError::Invalid`] for an image that does not fit.
    pub async fn server_rebuild(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: RebuildWish,
    ) -> Result<(Server, String), EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_REBUILD, id, false).await?;
        let image = self.image_for_boot(ctx, wish.image_id).await?;
        let password = wish.admin_password.clone().unwrap_or_else(super::create::password);
        let key = match &wish.key_name {
            Some(Some(name)) => Some(Some(self.keypair_of_caller(ctx, name).await?)),
            Some(None) => Some(None),
            None => None,
        };
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_REBUILD, id).await?;
            admit(ctx, &server, ServerRequest::Rebuild)?;
            on_a_node(&server, ServerRequest::Rebuild)?;
            super::own_root(&server, "Rebuild", "make a new volume of the image and a server that boots from it.")?;
            super::create::image_fits(&image, &server.flavor, Some(server.disk_gib))?;
            let source = image.source().ok_or_else(|| EngineError::invalid("The image has no bytes."))?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.admin_password = Some(password.clone());
            if let Some(user_data) = &wish.user_data {
                secrets.user_data_base64.clone_from(user_data);
            }
            if let Some(key) = &key {
                secrets.public_keys = key.iter().map(|k| (k.name.clone(), k.public_key.clone())).collect();
                server.details.key_name = key.as_ref().map(|k| k.name.clone());
            }
            tx.server_secrets_set(id, &secrets).await?;
            rebuild_apply(&mut server, &wish);
            server.details.devices = super::create::devices(&image);
            server.details.image_properties = image.properties.clone();
            server.image = source;
            server.details.disk_source = None;
            server.incarnation += 1;
            let ran = server.power != Power::Stopped || server.state == ServerState::Error;
            server.power = if ran { Power::Running } else { Power::Stopped };
            server.fault = None;
            let detail = json!({ "image_id": server.image.id });
            let event = Some("compute_rebuild_instance");
            self.server_record(&tx, &server, compute::SERVER_REBUILD, "rebuild", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Rebuilding)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok((server, password.clone()))
        })
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

fn rebuild_apply(server: &mut Server, wish: &RebuildWish) {
    if let Some(name) = &wish.name {
        server.name = name.clone();
        server.details.hostname = name.host_name();
    }
    if let Some(hostname) = &wish.hostname {
        server.details.hostname.clone_from(hostname);
    }
    if let Some(metadata) = &wish.metadata {
        server.metadata.clone_from(metadata);
    }
    if let Some(description) = &wish.description {
        server.details.description.clone_from(description);
    }
    if let Some(address) = wish.access_ip_v4 {
        server.details.access_ip_v4 = address;
    }
    if let Some(address) = wish.access_ip_v6 {
        server.details.access_ip_v6 = address;
    }
    if let Some(manual) = wish.disk_config_manual {
        server.details.disk_config_manual = manual;
    }
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
