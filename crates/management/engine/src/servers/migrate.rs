//! Servers that go to another node while they are shut down: an administrator asks for it, or a larger flavor has no room
//! where they are.
//!
//! ```text
//!  asked: room claimed there --> ResizeStopping --> ResizeCopying --> ResizeFinishing --> (Resized) -- confirm --> room here
//!                                   |     \  the disk is shared  ^        |                   |                    given back
//!                                   |      \____________________/         | failed            | revert
//!                                   | failed                              v                   v
//!                                   +--> runs where it was <-- RevertFinishing <------- RevertStopping
//! ```
//! Until its owner decides, both nodes' room is claimed. A disk on a node's own storage travels as an image that belongs to
//! the cloud itself; it is kept until then, so a revert finds the disk as it was when the server left, whatever has become of
//! the node that it went to. The server's row changes its node, its epoch and its ports in one write.

use super::create::needs_of;
use super::local_disks;
use super::resize::{Begun, Other, flavors_swap};
use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_placement::{Decision, Needs};
use arcus_store::{Node, Server, ServerPlace, ServerSnapshot, Tx};
use arcus_types::agent::Power;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{PowerState, ServerRequest, ServerTask};
use arcus_types::{ImageId, OpCtx, ServerId, Timestamp};
use serde_json::json;

/// The server's disk can only be made of an image, and that is gone.
const IMAGE_GONE: &str = "The image that its disk travels as is gone.";

impl Engine {
    /// Takes a server to another node by stopping and starting it; its owner confirms or reverts afterwards. `node` names the
    /// one to go to.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it or while its node is down, [`EngineError::Invalid`] if no
    /// node can take it, with why; [`EngineError::NotFound`] or a refusal.
    pub async fn server_migrate(&self, ctx: &OpCtx, id: ServerId, node: Option<&str>) -> Result<(), EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_MIGRATE, id, false).await?;
        authorize(ctx, compute::SERVER_MIGRATE, &Target::default())?;
        retried!({
            self.fleet_refresh().await?;
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_MIGRATE, id).await?;
            admit(ctx, &server, ServerRequest::Migrate)?;
            super::actions::on_a_node(&server, ServerRequest::Migrate)?;
            let source = self.migrate_source(&tx, &server, node).await?;
            let other = Other { flavor: server.flavor.clone(), local_disks: server.details.local_disks.clone() };
            let wanted = node.map(str::to_owned);
            let (place, decision) = self.place_claimed(&tx, &server, &other, wanted, "migration").await?;
            let place = place.ok_or_else(|| no_host(&decision.explanation()))?;
            let dest = tx.node_get(place.node_id).await?.map(|node| node.name);
            let begun = Begun {
                action: compute::SERVER_MIGRATE,
                name: "migrate",
                kind: "migration",
                detail: &json!({ "source": source.name, "destination": dest }),
            };
            self.resize_begin(&tx, &mut server, other, Some(place), begun).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// The server's node, if it can leave it and `wanted` is another one.
    async fn migrate_source(&self, tx: &Tx, server: &Server, wanted: Option<&str>) -> Result<Node, EngineError> {
        let source = match server.node_id {
            Some(id) => tx.node_get(id).await?,
            None => None,
        };
        let source = source.ok_or_else(super::stale)?;
        if let Some(name) = wanted {
            if name == source.name.as_str() {
                let message = format!("Instance {} is on {name} already: name another node.", server.id);
                return Err(EngineError::Invalid { code: "BadRequest", message });
            }
            if tx.node_by_name(name).await?.is_none() {
                let message = format!("Compute host {name} could not be found.");
                return Err(EngineError::Invalid { code: "ComputeHostNotFound", message });
            }
        }
        if !self.node_alive(&source, Timestamp::now()) {
            return Err(EngineError::conflict(format!(
                "Instance {} cannot leave {}, which is down: evacuate it, or wait until the node is back.",
                server.id, source.name
            )));
        }
        if let Some(why) = self.stays(tx, server).await? {
            return Err(no_host(why));
        }
        Ok(source)
    }

    /// Why a server cannot leave its node while it is shut down, if it cannot.
    pub(super) async fn stays(&self, tx: &Tx, server: &Server) -> Result<Option<&'static str>, EngineError> {
        if self.has_volumes(tx, server).await? {
            return Ok(Some("Its volumes lie on its node, so it cannot go to another one: detach them first."));
        }
        let kept = server.details.disk_pool.is_none() && local_disks::any_kept(&server.details.local_disks);
        let why = "Its ephemeral disk lies on its node and does not travel while it is shut down: move it live.";
        Ok(kept.then_some(why))
    }

    async fn has_volumes(&self, tx: &Tx, server: &Server) -> Result<bool, EngineError> {
        Ok(server.details.volume_root || !tx.volume_attachments_by_servers(&[server.id]).await?.is_empty())
    }

    /// Another node for a server with this flavor, with its room claimed; or why there is none. The decision is recorded.
    pub(super) async fn place_claimed(
        &self,
        tx: &Tx,
        server: &Server,
        other: &Other,
        node: Option<String>,
        occasion: &str,
    ) -> Result<(Option<ServerPlace>, Decision), EngineError> {
        let (flavor, local_gib) = (&other.flavor, local_disks::gib(&other.local_disks));
        let group = self.group_of(tx, server).await?;
        let mut around = self.around_without(tx, server, group.as_ref()).await?;
        let (here, pool) = (server.node_id, server.details.disk_pool);
        let cannot = |node: &Node| {
            if Some(node.id) == here {
                Some("the server is there now")
            } else if pool.is_some() && node.facts.disk_pool != pool {
                Some("it does not see the shared folder of the server's disks")
            } else {
                None
            }
        };
        let unsuited = self.fleet_known(usize::MAX, |member| {
            let node = member.node.as_ref()?;
            Some((node.id, cannot(node)?.to_owned()))
        });
        around.unsuited = unsuited.into_iter().collect();
        let needs = Needs {
            vcpus: u64::from(flavor.vcpus),
            memory_mib: flavor.memory_mib,
            disk_gib: server.root_gib().max(flavor.disk_gib) + local_gib,
            ..needs_of(server, node)
        };
        let needs = self.hinted(tx, needs, server.project_id, &server.details.scheduler_hints).await?;
        let placed = self.node_claimed(tx, &needs, group.as_ref(), &mut around).await?;
        self.placement_recorded(tx, server.id, occasion, &placed).await?;
        let place = placed.node.as_ref().map(|chosen| ServerPlace {
            node_id: chosen.node_id,
            vcpus: needs.vcpus,
            memory_mib: needs.memory_mib,
            disk_gib: needs.disk_gib,
            local_gib,
            image_id: None,
        });
        Ok((place, placed.decision))
    }

    /// The guest has ended on the node that it leaves: that makes an image of its disk, unless the other one sees the disk.
    pub(super) async fn move_stopped(&self, tx: &Tx, server: &mut Server, now: Timestamp) -> Result<(), EngineError> {
        if server.details.disk_pool.is_some() {
            return self.move_on(tx, server, now).await;
        }
        let Some(node_id) = server.node_id else { return Err(super::stale()) };
        let image_id = self.image_carried_begin_in(tx, node_id, &server.name).await?;
        if let Some(place) = elsewhere_mut(server) {
            place.image_id = Some(image_id);
        }
        let request_id = server.request_id.unwrap_or(tx.ctx().request_id);
        let snapshot = ServerSnapshot { image_id, server_id: server.id, node_id, request_id, rotation: None };
        tx.server_snapshot_insert(&snapshot).await?;
        self.server_wish_on(tx, server, ServerTask::ResizeCopying, now).await
    }

    /// The image of its disk is complete, or could not be made.
    pub(super) async fn move_copied(
        &self,
        tx: &Tx,
        server: &mut Server,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        let detail = json!({ "image_id": image_carried(server), "failure": failure });
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &detail).await?;
        match failure {
            Some(why) => self.move_given_up(tx, server, why, now).await,
            None => self.move_on(tx, server, now).await,
        }
    }

    /// Hands the server to the node that it goes to, if that is there.
    async fn move_on(&self, tx: &Tx, server: &mut Server, now: Timestamp) -> Result<(), EngineError> {
        let place = elsewhere(server).map(|place| place.node_id);
        let dest = match place {
            Some(id) => tx.node_get(id).await?.filter(|node| !node.state.is_down()),
            None => None,
        };
        let Some(dest) = dest else {
            return self.move_given_up(tx, server, "The node that it was to go to is down.", now).await;
        };
        if !self.places_swap(tx, server, &dest).await? {
            return self.move_given_up(tx, server, IMAGE_GONE, now).await;
        }
        flavors_swap(server);
        self.server_wish_on(tx, server, ServerTask::ResizeFinishing, now).await
    }

    /// The guest has ended on the node that it went to: the one that it came from has it back.
    pub(super) async fn move_back(&self, tx: &Tx, server: &mut Server, now: Timestamp) -> Result<(), EngineError> {
        let Some(place) = elsewhere(server).map(|place| place.node_id) else { return Err(super::stale()) };
        let dest = tx.node_get(place).await?.ok_or_else(super::stale)?;
        if !self.places_swap(tx, server, &dest).await? {
            let fault = arcus_store::ServerFault {
                code: 500,
                message: format!("{IMAGE_GONE} It stays on its node."),
                details: String::new(),
                at: now,
                transient: false,
            };
            return self.server_failed(tx, server, fault).await;
        }
        flavors_swap(server);
        self.server_wish_on(tx, server, ServerTask::RevertFinishing, now).await
    }

    /// Makes the server the other node's, with what it holds there; its ports follow. `false`, and nothing is changed, if its
    /// disk cannot be made there. The caller writes the row.
    async fn places_swap(&self, tx: &Tx, server: &mut Server, dest: &Node) -> Result<bool, EngineError> {
        let source = match (server.details.disk_pool, image_carried(server)) {
            (Some(_), _) => None,
            (None, Some(image)) => {
                let Some(source) = tx.image_get(image).await?.and_then(|image| image.source()) else {
                    return Ok(false);
                };
                Some(source)
            }
            (None, None) => return Ok(false),
        };
        let (Some(here), Some(place)) = (server.node_id, elsewhere(server).cloned()) else { return Ok(false) };
        // It has to learn that it is not its server any more.
        tx.node_touch(here).await?;
        let left = ServerPlace {
            node_id: here,
            vcpus: server.vcpus,
            memory_mib: server.memory_mib,
            disk_gib: server.disk_gib,
            local_gib: server.details.local_gib,
            image_id: place.image_id,
        };
        server.node_id = Some(place.node_id);
        (server.vcpus, server.memory_mib, server.disk_gib) = (place.vcpus, place.memory_mib, place.disk_gib);
        server.details.local_gib = place.local_gib;
        server.availability_zone.clone_from(&dest.availability_zone);
        server.epoch += 1;
        server.power_state = PowerState::NoState;
        if source.is_some() {
            server.incarnation += 1;
            server.details.disk_source = source;
        }
        if let Some(place) = elsewhere_mut(server) {
            *place = left;
        }
        for port in tx.port_list_by_servers(&[server.id]).await? {
            self.port_move_in(tx, port.id, server.node_id).await?;
        }
        self.server_usage(tx, server, true).await?;
        Ok(true)
    }

    /// A move cannot go on: the server runs again where it was, and its history says why.
    pub(super) async fn move_failed(
        &self,
        tx: &Tx,
        server: &mut Server,
        why: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        if server.task != Some(ServerTask::ResizeFinishing) {
            return self.move_given_up(tx, server, why, now).await;
        }
        // Its new node has to let go of the disk first.
        self.move_blamed(tx, server, why, now).await?;
        server.power = Power::Stopped;
        self.server_wish_on(tx, server, ServerTask::RevertStopping, now).await
    }

    /// A move was not over in time; whether it could be ended here. A node that went silent with a disk of its own is not
    /// waited for, since the image has all of it; a disk that both nodes see may still be written to.
    pub(super) async fn move_overdue(&self, tx: &Tx, server: &mut Server, now: Timestamp) -> Result<bool, EngineError> {
        if server.task != Some(ServerTask::ResizeFinishing) {
            let why = "Its node did not shut it down and copy its disk in time.";
            self.move_given_up(tx, server, why, now).await?;
            return Ok(true);
        }
        if server.details.disk_pool.is_some() || self.move_back_possible(tx, server).await.is_err() {
            return Ok(false);
        }
        self.move_blamed(tx, server, "The node that it went to did not start it in time.", now).await?;
        self.move_back(tx, server, now).await?;
        Ok(true)
    }

    /// Ends the move of a server that is still on the node that it was to leave: it runs there again, if it did.
    async fn move_given_up(&self, tx: &Tx, server: &mut Server, why: &str, now: Timestamp) -> Result<(), EngineError> {
        self.snapshots_give_up(tx, server).await?;
        self.move_blamed(tx, server, why, now).await?;
        let ran = server.details.resize.as_ref().is_some_and(|resize| resize.ran);
        self.resize_settle(tx, server).await?;
        if !ran {
            return self.server_settled(tx, server, Some(why), now).await;
        }
        server.power = Power::Running;
        self.server_wish_on(tx, server, ServerTask::PoweringOn, now).await
    }

    /// Notes in the server's history and in the list of migrations that the move failed.
    async fn move_blamed(&self, tx: &Tx, server: &mut Server, why: &str, now: Timestamp) -> Result<(), EngineError> {
        tracing::warn!(server.id = %server.id, why, "a server did not come to rest on another node");
        tx.server_migration_moved(server.id, "error", now).await?;
        if let Some(request) = server.request_id.take() {
            tx.server_action_finish(server.id, request, now, Some(why)).await?;
        }
        server.updated_at = now;
        self.server_audit(tx, server, compute::SERVER_OBSERVE, &json!({ "move": "failed", "why": why })).await
    }

    /// Whether a server can go back to the node that it came from.
    pub(super) async fn move_back_possible(&self, tx: &Tx, server: &Server) -> Result<(), EngineError> {
        let Some(place) = elsewhere(server) else { return Ok(()) };
        let id = server.id;
        let left = tx.node_get(place.node_id).await?;
        let name = left.as_ref().map(|node| node.name.to_string()).unwrap_or_default();
        if !left.is_some_and(|node| self.node_alive(&node, Timestamp::now())) {
            return Err(EngineError::conflict(format!(
                "Instance {id} cannot go back to {name}, which is down: confirm the move, or wait until the node is back."
            )));
        }
        if self.has_volumes(tx, server).await? {
            return Err(EngineError::conflict(format!(
                "Instance {id} cannot go back to {name}: it got volumes that lie on its present node. Detach them first."
            )));
        }
        Ok(())
    }

    /// Gives back what a server holds of the node that it does not use. Its image's bytes go after the commit.
    pub(super) async fn elsewhere_release(&self, tx: &Tx, place: &ServerPlace) -> Result<(), EngineError> {
        tx.node_release(place.node_id, place.vcpus, place.memory_mib, place.disk_gib).await?;
        match place.image_id {
            Some(image) => self.image_forget_in(tx, image).await,
            None => Ok(()),
        }
    }
}

/// The node that a server does not use, of the two that it can choose from.
pub(super) fn elsewhere(server: &Server) -> Option<&ServerPlace> {
    server.details.resize.as_ref()?.elsewhere.as_ref()
}

fn elsewhere_mut(server: &mut Server) -> Option<&mut ServerPlace> {
    server.details.resize.as_mut()?.elsewhere.as_mut()
}

/// The image that a server's disk travels as.
pub(super) fn image_carried(server: &Server) -> Option<ImageId> {
    elsewhere(server)?.image_id
}

/// Whether a server is on its way to another node, and has not yet been seen there.
pub(super) fn moves(server: &Server) -> bool {
    let away = matches!(
        server.task,
        Some(ServerTask::ResizeStopping | ServerTask::ResizeCopying | ServerTask::ResizeFinishing)
    );
    away && elsewhere(server).is_some()
}

fn no_host(why: &str) -> EngineError {
    EngineError::Invalid { code: "NoValidHost", message: format!("No valid host was found. {why}") }
}
