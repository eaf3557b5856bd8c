//! Shelving: the server shuts down, an image is made of its disk, its node lets go of it and its room is given back; later
//! it starts from that image wherever there is room. Its id, addresses and ports stay. A server on a volume needs no
//! image: it comes back to its volume.
//!
//! ```text
//!  Shelving -> ShelvingSnapshot -> ShelvingOffloading -> (ShelvedOffloaded) -> Unshelving -> (Active)
//! ```
//! Quota stays claimed meanwhile, so that coming back fails only for want of room.

use super::create::{NodeChosen, ZoneWish};
use super::image::snapshot_properties;
use super::{SnapshotWish, admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerShelve, ServerSnapshot, Tx};
use arcus_types::agent::Power;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{PowerState, ServerEvent, ServerRequest, ServerState, ServerTask};
use arcus_types::{ImageId, Name, OpCtx, ServerId, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;

/// Where a shelved server shall start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnshelveWish {
    /// `Some(None)` frees it from its zone; `Some(Some(zone))` ties it to one.
    pub zone: Option<Option<String>>,
    /// On this node; only administrators may ask for one.
    pub node: Option<String>,
}

impl Engine {
    /// Shelves a server.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::OverQuota`] if its image
    /// finds no room in the project's quota, [`EngineError::NotFound`], or a refusal.
    pub async fn server_shelve(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_SHELVE, id).await?;
            admit(ctx, &server, ServerRequest::Shelve)?;
            super::actions::on_a_node(&server, ServerRequest::Shelve)?;
            // What its volumes hold stays in them: only a disk of its own needs an image.
            let image_id = match server.details.volume_root {
                true => None,
                false => Some(self.shelve_image_begin(&tx, ctx, &server).await?),
            };
            server.details.shelve = Some(ServerShelve { image_id });
            server.power = Power::Stopped;
            let detail = json!({ "image_id": image_id });
            let event = Some("compute_shelve_instance");
            self.server_record(&tx, &server, compute::SERVER_SHELVE, "shelve", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Shelving)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// Makes room for the image of a server's disk.
    async fn shelve_image_begin(&self, tx: &Tx, ctx: &OpCtx, server: &Server) -> Result<ImageId, EngineError> {
        let Some(node_id) = server.node_id else { return Err(super::stale()) };
        let name = shelved_name(&server.name);
        let wish =
            SnapshotWish { name: name.clone(), metadata: BTreeMap::new(), metadata_counted: false, backup: None };
        let properties = snapshot_properties(server, &wish);
        self.image_snapshot_begin_in(tx, ctx, server.project_id, node_id, name, properties).await
    }

    /// Lets the node of a shelved server go of it, if that did not happen by itself.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_shelve_offload(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_SHELVE_OFFLOAD, id).await?;
            admit(ctx, &server, ServerRequest::ShelveOffload)?;
            let event = Some("compute_shelve_offload_instance");
            let action = compute::SERVER_SHELVE_OFFLOAD;
            self.server_record(&tx, &server, action, "shelveOffload", event, &json!({})).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::ShelvingOffloading)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// Starts a shelved server, on any node that has room.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it or when no node can take it,
    /// [`EngineError::Invalid`] for a zone or node that is not there, [`EngineError::NotFound`], or a refusal.
    pub async fn server_unshelve(&self, ctx: &OpCtx, id: ServerId, wish: &UnshelveWish) -> Result<(), EngineError> {
        if wish.node.is_some() {
            authorize(ctx, compute::SERVER_UNSHELVE_TO_NODE, &Target::own(ctx))?;
        }
        retried!({
            self.fleet_refresh().await?;
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_SHELVE, id).await?;
            admit(ctx, &server, ServerRequest::Unshelve)?;
            let asked = wish.zone.is_some() || wish.node.is_some();
            if server.state == ServerState::Shelved {
                if asked {
                    return Err(EngineError::conflict(format!(
                        "Instance {id} is still on its node: a zone or node can be chosen once it is shelved_offloaded."
                    )));
                }
            } else {
                self.unshelve_place(&tx, &mut server, wish).await?;
            }
            server.power = Power::Running;
            let event = Some("compute_unshelve_instance");
            self.server_record(&tx, &server, compute::SERVER_SHELVE, "unshelve", event, &json!({})).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Unshelving)).await?;
            tx.commit().await?;
            self.wake().all();
            Ok(())
        })
    }

    /// Claims a node for a server that has none, and moves its ports there.
    async fn unshelve_place(&self, tx: &Tx, server: &mut Server, wish: &UnshelveWish) -> Result<(), EngineError> {
        if let Some(zone) = &wish.zone {
            server.details.zone_asked.clone_from(zone);
        }
        let zone = ZoneWish { zone: server.details.zone_asked.clone(), node: wish.node.clone() };
        super::create::zone_checked(self, &zone)?;
        if let Some(image) = server.details.shelve.as_ref().and_then(|s| s.image_id) {
            let image = tx.image_get(image).await?;
            let source = image.and_then(|i| i.source()).ok_or_else(|| {
                EngineError::conflict(format!(
                    "Instance {} cannot be unshelved: the image that it was shelved as is gone.",
                    server.id
                ))
            })?;
            server.details.disk_source = Some(source);
        }
        // It comes back to its volumes: they lie on their node.
        let at = match self.volumes_node(tx, server).await? {
            Some(node) => tx.node_get(node).await?.map(|n| n.name.to_string()),
            None => None,
        };
        if let (Some(at), Some(asked)) = (&at, &zone.node)
            && at != asked
        {
            return Err(EngineError::conflict(format!(
                "Instance {} cannot be unshelved on {asked}: its volumes are in the pool of {at}.",
                server.id
            )));
        }
        let needs = super::create::needs_of(server, at.or(zone.node));
        let NodeChosen { node_id, zone } = self.node_for(tx, server, "unshelve", needs).await?;
        server.node_id = Some(node_id);
        self.disk_pool_set(server, node_id);
        server.availability_zone = zone;
        server.vcpus = u64::from(server.flavor.vcpus);
        server.memory_mib = server.flavor.memory_mib;
        for port in tx.port_list_by_servers(&[server.id]).await? {
            self.port_move_in(tx, port.id, Some(node_id)).await?;
        }
        self.server_usage(tx, server, true).await
    }

    /// The guest has stopped: its node makes the image.
    pub(super) async fn shelve_snapshot(
        &self,
        tx: &Tx,
        server: &mut Server,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let image = server.details.shelve.as_ref().and_then(|s| s.image_id);
        let (Some(image_id), Some(node_id)) = (image, server.node_id) else {
            if let Ok(state) = server.state.after(ServerEvent::ShelveSeen) {
                server.state = state;
            }
            return self.server_wish_on(tx, server, ServerTask::ShelvingOffloading, now).await;
        };
        let request_id = server.request_id.unwrap_or(tx.ctx().request_id);
        let snapshot = ServerSnapshot { image_id, server_id: server.id, node_id, request_id, rotation: None };
        tx.server_snapshot_insert(&snapshot).await?;
        self.server_wish_on(tx, server, ServerTask::ShelvingSnapshot, now).await
    }

    /// The image is complete, or could not be made: then the server is stopped and stays where it is.
    pub(super) async fn shelve_image_over(
        &self,
        tx: &Tx,
        server: &mut Server,
        image: ImageId,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let detail = json!({ "image_id": image, "failure": failure });
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &detail).await?;
        let event = if failure.is_some() { ServerEvent::StopSeen } else { ServerEvent::ShelveSeen };
        if let Ok(state) = server.state.after(event) {
            server.state = state;
        }
        if let Some(failure) = failure {
            server.details.shelve = None;
            return self.server_settled(tx, server, Some(failure), now).await;
        }
        self.server_wish_on(tx, server, ServerTask::ShelvingOffloading, now).await
    }

    /// The node holds nothing of the server any more: its room is given back.
    pub(super) async fn server_offloaded(
        &self,
        tx: &Tx,
        server: &mut Server,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        for port in tx.port_list_by_servers(&[server.id]).await? {
            self.port_move_in(tx, port.id, None).await?;
        }
        if let Some(node) = server.node_id.take() {
            tx.node_release(node, server.vcpus, server.memory_mib, server.disk_gib).await?;
            self.server_usage(tx, server, false).await?;
        }
        server.state =
            server.state.after(ServerEvent::OffloadSeen).map_err(|e| EngineError::conflict(e.to_string()))?;
        server.power_state = PowerState::Shutdown;
        server.epoch += 1;
        server.updated_at = now;
        self.server_settled(tx, server, None, now).await
    }

    /// The image that a server was shelved as is not needed any more. Its bytes go after the commit, with
    /// [`Engine::images_let_go`].
    pub(super) async fn shelved_image_remove(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        let Some(image) = server.details.shelve.take().and_then(|s| s.image_id) else { return Ok(()) };
        tx.server_snapshot_delete(image).await?;
        self.image_forget_in(tx, image).await
    }

    /// Shelving failed before the image was complete.
    pub(super) async fn shelve_give_up(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        if let Some(image) = server.details.shelve.take().and_then(|s| s.image_id) {
            tx.server_snapshot_delete(image).await?;
            self.image_snapshot_failed_in(tx, image).await?;
        }
        Ok(())
    }
}

/// The name of the image that a server is shelved as, cut where it would be too long.
fn shelved_name(name: &Name) -> Name {
    let kept: String = name.as_str().chars().take(247).collect();
    format!("{kept}-shelved").parse().unwrap_or_else(|_| name.clone())
}
