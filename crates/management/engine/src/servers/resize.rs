//! Another flavor for a server: it shuts down, gets other hardware and a larger disk, and starts; then its owner confirms or
//! reverts. It stays on its node if that has room, else it goes to another one: see `migrate`.
//!
//! Between the request and the owner's word the larger of both flavors is claimed, so that reverting cannot fail. A disk
//! that grew on its node never shrinks: after a revert the server keeps it, and keeps paying for it.

use super::image::images_held;
use super::migrate::elsewhere;
use super::{admit, local_disks, retried};
use crate::{Engine, EngineError};
use arcus_store::{QuotaResource, Server, ServerFlavor, ServerPlace, ServerResize, Tx};
use arcus_types::agent::{LocalDisk, Power};
use arcus_types::flavors::FlavorId;
use arcus_types::policy::{Action, compute};
use arcus_types::servers::{ServerEvent, ServerRequest, ServerTask};
use arcus_types::{OpCtx, ServerId, Timestamp};
use serde_json::{Value, json};

/// How a resize or a move begins.
pub(super) struct Begun<'a> {
    /// By which right.
    pub action: Action,
    /// The name in the server's history.
    pub name: &'a str,
    /// The kind in the list of migrations.
    pub kind: &'a str,
    /// What the audit log keeps.
    pub detail: &'a Value,
}

impl Engine {
    /// Gives a server another flavor; its owner confirms or reverts afterwards. `disk_config_manual`, if given, says from
    /// now on who cares for the disk's partitions.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] for a flavor that does not fit
    /// or that no node has room for, [`EngineError::OverQuota`], [`EngineError::NotFound`], or a refusal.
    pub async fn server_resize(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        flavor: &FlavorId,
        disk_config_manual: Option<bool>,
    ) -> Result<(), EngineError> {
        let found = self.flavor_get(ctx, flavor).await.map_err(super::create::as_invalid);
        retried!({
            self.fleet_refresh().await?;
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESIZE, id).await?;
            admit(ctx, &server, ServerRequest::Resize)?;
            super::actions::on_a_node(&server, ServerRequest::Resize)?;
            let flavor = match &found {
                Ok(flavor) => super::create::server_flavor(flavor.clone()),
                Err(error) => return_invalid(error)?,
            };
            flavor_fits(&server, &flavor)?;
            let (have, properties) = (&server.details.local_disks, &server.details.image_properties);
            let local_disks = local_disks::resized(have, &server.flavor, &flavor, properties)?;
            let other = Other { flavor, local_disks };
            let elsewhere = self.resize_claim(&tx, &mut server, &other).await?;
            server.details.disk_config_manual = disk_config_manual.unwrap_or(server.details.disk_config_manual);
            self.server_usage(&tx, &server, true).await?;
            let detail = &json!({ "flavor": other.flavor.id });
            let begun = Begun { action: compute::SERVER_RESIZE, name: "resize", kind: "resize", detail };
            self.resize_begin(&tx, &mut server, other, elsewhere, begun).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// Begins what the caller has claimed the room for.
    pub(super) async fn resize_begin(
        &self,
        tx: &Tx,
        server: &mut Server,
        other: Other,
        elsewhere: Option<ServerPlace>,
        begun: Begun<'_>,
    ) -> Result<(), EngineError> {
        let (ran, stays) = (server.power != Power::Stopped, elsewhere.is_none());
        let Other { flavor: other, local_disks } = other;
        server.details.resize = Some(ServerResize { other, local_disks, ran, elsewhere });
        let event = Some("compute_resize_instance");
        self.server_record(tx, server, begun.action, begun.name, event, begun.detail).await?;
        self.migration_begun(tx, server, begun.kind).await?;
        let task = if ran || !stays {
            server.power = Power::Stopped;
            ServerTask::ResizeStopping
        } else {
            flavors_swap(server);
            ServerTask::ResizeFinishing
        };
        self.server_wish(tx, server, Some(task)).await
    }

    /// Keeps the other flavor; what only the old one needed is given back.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_resize_confirm(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESIZE, id).await?;
            admit(ctx, &server, ServerRequest::ConfirmResize)?;
            let held = images_held(&server);
            self.resize_settle(&tx, &mut server).await?;
            let event = if server.power == Power::Stopped { ServerEvent::StopSeen } else { ServerEvent::Started };
            server.state = server.state.after(event).map_err(|e| EngineError::conflict(e.to_string()))?;
            server.updated_at = Timestamp::now();
            let detail = json!({ "flavor": server.flavor.id });
            self.server_record(&tx, &server, compute::SERVER_RESIZE, "confirmResize", None, &detail).await?;
            tx.server_migration_moved(id, "confirmed", server.updated_at).await?;
            tx.server_update(&mut server).await?;
            tx.commit().await?;
            self.images_let_go(held, &server).await;
            Ok(())
        })
    }

    /// Gives the old flavor back, on the old node.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_resize_revert(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESIZE, id).await?;
            admit(ctx, &server, ServerRequest::RevertResize)?;
            self.move_back_possible(&tx, &server).await?;
            let event = Some("compute_revert_resize");
            self.server_record(&tx, &server, compute::SERVER_RESIZE, "revertResize", event, &json!({})).await?;
            tx.server_migration_moved(id, "reverting", Timestamp::now()).await?;
            let task = if server.power == Power::Stopped && elsewhere(&server).is_none() {
                flavors_swap(&mut server);
                ServerTask::RevertFinishing
            } else {
                server.power = Power::Stopped;
                ServerTask::RevertStopping
            };
            self.server_wish(&tx, &mut server, Some(task)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// Claims what the other flavor needs beyond what the server holds; all of it on another node if its own has no room.
    async fn resize_claim(
        &self,
        tx: &Tx,
        server: &mut Server,
        other: &Other,
    ) -> Result<Option<ServerPlace>, EngineError> {
        let to = &other.flavor;
        let more_vcpus = u64::from(to.vcpus.saturating_sub(server.flavor.vcpus));
        let more_memory = to.memory_mib.saturating_sub(server.flavor.memory_mib);
        for (resource, amount) in [(QuotaResource::Cores, more_vcpus), (QuotaResource::RamMib, more_memory)] {
            if amount > 0 && !tx.quota_claim(server.project_id, resource, amount).await? {
                let quotas = tx.quota_list(server.project_id, &[resource]).await?;
                let (cap, used) = quotas.first().map_or((0, 0), |q| (q.cap, q.used));
                let name = resource.name();
                return Err(EngineError::OverQuota {
                    code: "TooManyInstances",
                    message: format!(
                        "Quota exceeded for {name}: Requested {amount}, but already used {used} of {cap} {name}"
                    ),
                });
            }
        }
        let more = [(QuotaResource::Cores, more_vcpus), (QuotaResource::RamMib, more_memory)];
        if let Some(over) = self.user_quota_over(tx, server.project_id, server.user_id, &more).await? {
            let amount = more.iter().find(|(resource, _)| *resource == over.resource);
            return Err(over.refusal(amount.map_or(0, |(_, amount)| *amount)));
        }
        let node_vcpus = u64::from(to.vcpus).saturating_sub(server.vcpus);
        let node_memory = to.memory_mib.saturating_sub(server.memory_mib);
        // A server that boots from a volume has no disk that could grow.
        let own_disk = if server.details.volume_root { 0 } else { to.disk_gib };
        let more_local = local_disks::gib(&other.local_disks).saturating_sub(server.details.local_gib);
        let node_disk = own_disk.saturating_sub(server.root_gib()) + more_local;
        let Some(node) = server.node_id else { return Err(super::stale()) };
        if tx.node_claim(node, node_vcpus, node_memory, node_disk).await? {
            server.vcpus += node_vcpus;
            server.memory_mib += node_memory;
            server.disk_gib += node_disk;
            server.details.local_gib += more_local;
            return Ok(None);
        }
        let why = if let Some(stays) = self.stays(tx, server).await? {
            stays.to_owned()
        } else {
            match self.place_claimed(tx, server, other, None, "resize").await? {
                (Some(place), _) => return Ok(Some(place)),
                (None, decision) => decision.summary(),
            }
        };
        Err(EngineError::invalid(format!(
            "No valid host was found. The server's node has no room for {node_vcpus} more virtual CPUs, {node_memory} MiB \
             more memory and {node_disk} GiB more disk, or is closed for new servers. {why}"
        )))
    }

    /// Ends a resize: only what the present flavor needs stays claimed, and the disk as it has grown. The caller holds and
    /// writes the row.
    pub(super) async fn resize_settle(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        let Some(resize) = server.details.resize.take() else { return Ok(()) };
        let (vcpus, memory_mib) = (u64::from(server.flavor.vcpus), server.flavor.memory_mib);
        let over_vcpus = u64::from(resize.other.vcpus).saturating_sub(vcpus);
        let over_memory = resize.other.memory_mib.saturating_sub(memory_mib);
        tx.quota_release(server.project_id, QuotaResource::Cores, over_vcpus).await?;
        tx.quota_release(server.project_id, QuotaResource::RamMib, over_memory).await?;
        if let Some(place) = &resize.elsewhere {
            self.elsewhere_release(tx, place).await?;
        }
        if let Some(node) = server.node_id {
            let (less_vcpus, less_memory) =
                (server.vcpus.saturating_sub(vcpus), server.memory_mib.saturating_sub(memory_mib));
            tx.node_release(node, less_vcpus, less_memory, 0).await?;
            server.vcpus -= less_vcpus;
            server.memory_mib -= less_memory;
        }
        self.server_usage(tx, server, true).await
    }
}

/// What a server is resized to.
pub(super) struct Other {
    /// The flavor.
    pub flavor: ServerFlavor,
    /// The local disks that go with it.
    pub local_disks: Vec<LocalDisk>,
}

/// The flavor and the other one change places, and their local disks.
pub(super) fn flavors_swap(server: &mut Server) {
    if let Some(resize) = &mut server.details.resize {
        std::mem::swap(&mut server.flavor, &mut resize.other);
        std::mem::swap(&mut server.details.local_disks, &mut resize.local_disks);
        if resize.elsewhere.is_none() {
            local_disks::kept_grown(&resize.local_disks, &mut server.details.local_disks);
        }
        server.power = if resize.ran { Power::Running } else { Power::Stopped };
    }
}

fn flavor_fits(server: &Server, to: &ServerFlavor) -> Result<(), EngineError> {
    if to.id == server.flavor.id {
        return Err(EngineError::invalid("When resizing, instances must change flavor!"));
    }
    if to.disk_gib < server.flavor.disk_gib {
        return Err(EngineError::invalid(format!(
            "Resize error: Unable to resize disk down. The disk has {} GiB, flavor {} has {}.",
            server.root_gib(),
            to.name,
            to.disk_gib
        )));
    }
    Ok(())
}

/// The lookup's refusal once more, for each try.
fn return_invalid(error: &EngineError) -> Result<ServerFlavor, EngineError> {
    Err(EngineError::invalid(error.to_string()))
}
