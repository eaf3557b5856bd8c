//! Servers whose node is down start on another one, because an operator asks for it.
//!
//! A disk on the node's own storage is down with it: the server gets a new one, made of its image, as a rebuild does. One in
//! a folder that nodes share is kept, and only another node of that folder takes it. The
//! server's row moves to the other node and its epoch rises in one write, so that the old node, should it come back, finds
//! nothing of the server in its spec and removes what it has before it counts as up.

mod recover;

use super::create::NodeChosen;
use super::migrate::image_carried;
use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Node, Server, ServerMigration, Tx};
use arcus_types::agent::Power;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{PowerState, ServerRequest, ServerState, ServerTask};
use arcus_types::{MigrationId, OpCtx, ServerId, Timestamp};
use serde_json::json;
use std::time::Instant;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct EvacuateWish {
    /// The node to go to, by name.
    pub node: Option<String>,
    /// The password that the guest's administrator shall have; one is made if none is given.
    pub admin_password: Option<String>,
    /// Leave it stopped, whatever it was.
    pub stopped: bool,
}

impl Engine {
    /// Starts a server on another node because its own is down, on a new disk made of its image; answers the password that
    /// its administrator has there.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] while the node is up or with
    /// what else is in the way, [`EngineError::NotFound`] also for a node that is not there, or a refusal.
    pub async fn server_evacuate(&self, ctx: &OpCtx, id: ServerId, wish: &EvacuateWish) -> Result<String, EngineError> {
        authorize(ctx, compute::SERVER_EVACUATE, &Target::default())?;
        let password = wish.admin_password.clone().unwrap_or_else(super::create::password);
        retried!({
            self.fleet_refresh().await?;
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_EVACUATE, id).await?;
            admit(ctx, &server, ServerRequest::Evacuate)?;
            let source = self.evacuate_source(&tx, &server, wish).await?;
            let dest = self.evacuate_move(&tx, &mut server, &source, wish).await?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.admin_password = Some(password.clone());
            tx.server_secrets_set(id, &secrets).await?;
            let detail = json!({ "source": source.name, "destination": dest, "epoch": server.epoch });
            let event = Some("compute_rebuild_instance");
            self.server_record(&tx, &server, compute::SERVER_EVACUATE, "evacuate", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Rebuilding)).await?;
            tx.commit().await?;
            self.wake().all();
            tracing::warn!(server.id = %id, source = %source.name, destination = %dest, "a server was evacuated");
            Ok(password.clone())
        })
    }

    /// The node that is down, if nothing of the server's own ties it there.
    async fn evacuate_source(&self, tx: &Tx, server: &Server, wish: &EvacuateWish) -> Result<Node, EngineError> {
        let id = server.id;
        let source = match server.node_id {
            Some(node) => tx.node_get(node).await?,
            None => None,
        };
        let source = source.ok_or_else(|| EngineError::conflict(format!("Instance {id} is on no node.")))?;
        if let Some(name) = &wish.node {
            if *name == source.name.as_str() {
                let message = "The target host can't be the same one.".to_owned();
                return Err(EngineError::Invalid { code: "BadRequest", message });
            }
            if tx.node_by_name(name).await?.is_none() {
                return Err(EngineError::not_found("ComputeHostNotFound", "Compute host", name));
            }
        }
        if !source.state.is_down() {
            let message = if self.node_alive(&source, Timestamp::now()) {
                format!("Compute service of {} is still in use.", source.name)
            } else {
                format!("{} is not declared lost yet: wait, or declare it dead (forced_down).", source.name)
            };
            return Err(EngineError::Invalid { code: "ComputeServiceInUse", message });
        }
        if server.details.disk_pool.is_some() && !self.node_fenced(&source, Instant::now()) {
            let message = format!(
                "{} may still hold a lease, and its guests write to the disks that it shares: try again within half a minute.",
                source.name
            );
            return Err(EngineError::Invalid { code: "ComputeServiceInUse", message });
        }
        if server.details.volume_root || !tx.volume_attachments_by_servers(&[id]).await?.is_empty() {
            return Err(EngineError::conflict(format!(
                "Instance {id} has volumes, and they lie on {}: it goes on when that node is back.",
                source.name
            )));
        }
        Ok(source)
    }

    /// Takes the server, its claims and its ports to another node; answers that node's name.
    pub(super) async fn evacuate_move(
        &self,
        tx: &Tx,
        server: &mut Server,
        source: &Node,
        wish: &EvacuateWish,
    ) -> Result<String, EngineError> {
        let now = Timestamp::now();
        let needs = super::create::needs_of(server, wish.node.clone());
        let NodeChosen { node_id, zone } = self.node_for(tx, server, "evacuate", needs).await?;
        let dest = tx.node_get(node_id).await?.map(|node| node.name.to_string()).unwrap_or_default();
        self.evacuate_recorded(tx, server, source.name.as_str(), &dest).await?;
        tx.node_release(source.id, server.vcpus, server.memory_mib, server.disk_gib).await?;
        // The node that is down must learn that it is not its server any more.
        tx.node_touch(source.id).await?;
        server.node_id = Some(node_id);
        server.availability_zone = zone;
        server.epoch += 1;
        if server.details.disk_pool.is_none() {
            server.incarnation += 1;
            self.disk_pool_set(server, node_id);
            // The image that it was unshelved from is gone; what it was first made of is what a rebuild uses, too. One that
            // its disk travels as is there, and newer.
            if image_carried(server).is_none() {
                server.details.disk_source = None;
            }
            server.details.rescue = None;
        }
        server.details.recovery = None;
        server.power_state = PowerState::NoState;
        let ran = server.power != Power::Stopped || server.state == ServerState::Error;
        server.power = if ran && !wish.stopped { Power::Running } else { Power::Stopped };
        server.fault = None;
        server.updated_at = now;
        for port in tx.port_list_by_servers(&[server.id]).await? {
            self.port_move_in(tx, port.id, Some(node_id)).await?;
        }
        Ok(dest)
    }

    async fn evacuate_recorded(&self, tx: &Tx, server: &Server, source: &str, dest: &str) -> Result<(), EngineError> {
        let now = Timestamp::now();
        let flavor = server.flavor.id.to_string();
        tx.server_migration_insert(&ServerMigration {
            id: MigrationId::new(),
            number: 0,
            server_id: server.id,
            project_id: server.project_id,
            user_id: tx.ctx().user_id(),
            kind: "evacuation".to_owned(),
            // From here on the server is the destination's; how it starts there is told by the server itself.
            status: "done".to_owned(),
            source_node: source.to_owned(),
            dest_node: dest.to_owned(),
            old_flavor: flavor.clone(),
            new_flavor: flavor,
            created_at: now,
            updated_at: now,
        })
        .await?;
        Ok(())
    }
}
