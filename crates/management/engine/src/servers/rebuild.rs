//! Rebuilds: a server gets a disk that begins as an image again; its id, node, addresses and ports stay.
//!
//! A root disk of its own is made anew by the node in one step. A volume is refilled while the guest is stopped:
//!
//! ```text
//! asked --> RebuildingVolume: power Stopped, the volume's refill wished
//!              | the guest is seen stopped, and the volume refilled        \ refused, or not in time: ERROR, refill withdrawn
//!              v
//!           RebuildFinishing: power as it was --> Started, or StopSeen
//! ```
//! The node fetches the image while the guest shuts down, and refills only when no machine has the volume open. The guest
//! is not started before both are over, whatever the order in which they are reported.

use super::files::GuestFile;
use super::{admit, retried};
use crate::volumes::{image_metadata, invalid_volume, size_for_image};
use crate::{Engine, EngineError};
use arcus_store::{Image, Server, ServerFault, ServerRebuild, Tx, Volume, VolumeOrigin, VolumeRefillWish};
use arcus_types::agent::Power;
use arcus_types::policy::{compute, volume as policy};
use arcus_types::servers::{ServerRequest, ServerState, ServerTask};
use arcus_types::volumes::VolumeStatus;
use arcus_types::{ImageId, Name, OpCtx, ServerId, Timestamp, VolumeId};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a rebuild shall change; `None` leaves it.
#[derive(Debug, Clone)]
pub struct RebuildWish {
    /// The image that the disk begins as again.
    pub image_id: ImageId,
    /// Whether the volume that a server boots from is filled with the image. If not, the volume keeps what it holds, and
    /// the image must be the one that it began as.
    pub reimage: bool,
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
    /// Files for its guest, in place of those that it was given before.
    pub files: Vec<GuestFile>,
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
    /// Makes a server's disk anew from an image. Its id, node, addresses and ports stay. The password to tell.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::Invalid`] for an image
    /// that does not fit or a volume that cannot be refilled, [`EngineError::NotFound`], or a refusal.
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
            super::actions::on_a_node(&server, ServerRequest::Rebuild)?;
            if let Some(metadata) = &wish.metadata {
                self.metadata_admitted(&tx, ctx, server.project_id, metadata).await?;
            }
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.admin_password = Some(password.clone());
            secrets.files = self.files_admitted(&tx, ctx, server.project_id, &wish.files).await?;
            if let Some(user_data) = &wish.user_data {
                secrets.user_data_base64.clone_from(user_data);
            }
            if let Some(key) = &key {
                secrets.public_keys = key.iter().map(|k| (k.name.clone(), k.public_key.clone())).collect();
                server.details.key_name = key.as_ref().map(|k| k.name.clone());
            }
            tx.server_secrets_set(id, &secrets).await?;
            rebuild_apply(&mut server, &wish);
            server.details.devices = super::create::devices(&image.properties);
            server.details.image_properties = image.properties.clone();
            let task = if server.details.volume_root {
                self.rebuild_on_volume(&tx, &mut server, &image, wish.reimage).await?
            } else {
                rebuild_on_disk(&mut server, &image)?
            };
            server.fault = None;
            let detail = json!({ "image_id": image.id });
            let event = Some("compute_rebuild_instance");
            self.server_record(&tx, &server, compute::SERVER_REBUILD, "rebuild", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(task)).await?;
            self.commit(tx).await?;
            Ok((server, password.clone()))
        })
    }

    /// The volume that a server boots from, held.
    pub(super) async fn root_volume_held(&self, tx: &Tx, server: &Server) -> Result<Volume, EngineError> {
        let attachments = tx.volume_attachments_by_servers(&[server.id]).await?;
        let root = attachments.iter().find(|a| a.boot_index == Some(0)).map(|a| a.volume_id);
        let volume = match root {
            Some(id) => tx.volume_lock(id).await?,
            None => None,
        };
        volume.ok_or_else(|| EngineError::conflict(format!("Instance {} has no volume to boot from.", server.id)))
    }

    async fn rebuild_on_volume(
        &self,
        tx: &Tx,
        server: &mut Server,
        image: &Image,
        reimage: bool,
    ) -> Result<ServerTask, EngineError> {
        let mut volume = self.root_volume_held(tx, server).await?;
        super::create::image_fits(image, &server.flavor, Some(0))?;
        let runs = runs_after(server);
        if !reimage {
            let began = volume.image_metadata.as_ref().and_then(|m| m.get("image_id"));
            if began.is_none_or(|id| *id != image.id.to_string()) {
                return Err(EngineError::invalid(format!(
                    "Image {} is unacceptable: Unable to rebuild with a different image for a volume-backed server.",
                    image.id
                )));
            }
            if runs && matches!(server.power, Power::Running | Power::Paused) {
                server.restarts += 1;
                server.restart_hard = true;
            }
            server.power = if runs { Power::Running } else { Power::Stopped };
            return Ok(ServerTask::Rebuilding);
        }
        let usable = matches!(volume.status, VolumeStatus::InUse | VolumeStatus::Error) && volume.made;
        if !usable {
            return Err(invalid_volume(format!(
                "The status of volume {} must be in-use to rebuild server {}. Currently in '{}'.",
                volume.id, server.id, volume.status
            )));
        }
        if !tx.volume_snapshots_of(volume.id).await?.is_empty() {
            return Err(invalid_volume(format!(
                "Volume {} has snapshots, which a rebuild would remove: delete them first, or make a server of a new volume.",
                volume.id
            )));
        }
        size_for_image(image, Some(volume.size_gib))?;
        let source = image.source();
        let source = source.ok_or_else(|| EngineError::invalid(format!("Image {} has no bytes.", image.id)))?;
        volume.bootable = true;
        volume.image_metadata = Some(image_metadata(image));
        self.volume_touch(tx, &mut volume).await?;
        volume.details.refill = Some(VolumeRefillWish { number: volume.version, origin: VolumeOrigin::Image(source) });
        self.volume_set(tx, &mut volume, VolumeStatus::Downloading).await?;
        let detail = json!({ "image_id": image.id, "server_id": server.id });
        self.volume_audit(tx, &volume, policy::VOLUME_REIMAGE, &detail).await?;
        server.power = Power::Stopped;
        server.details.rebuild = Some(ServerRebuild { volume_id: volume.id, runs, stopped: false });
        Ok(ServerTask::RebuildingVolume)
    }

    /// The server that boots from a volume goes on if it waits for that.
    pub(crate) async fn rebuild_of_volume_goes_on(&self, ctx: &OpCtx, volume: VolumeId) -> Result<(), EngineError> {
        let attachments = self.store().volume_attachments_of(&[volume]).await?;
        for server in attachments.iter().filter(|a| a.boot_index == Some(0)).filter_map(|a| a.server_id) {
            self.rebuild_goes_on(ctx, server).await?;
        }
        Ok(())
    }

    /// Starts a server again whose guest has stopped and whose volume is refilled; or says why that is not to be.
    pub(super) async fn rebuild_goes_on(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let waiting = |s: &Server| s.task == Some(ServerTask::RebuildingVolume) && s.deleted_at.is_none();
            let Some(mut server) = tx.server_lock(id).await?.filter(waiting) else { return Ok(()) };
            let Some(rebuild) = server.details.rebuild.clone().filter(|r| r.stopped) else { return Ok(()) };
            let Some(volume) = tx.volume_lock(rebuild.volume_id).await? else { return Ok(()) };
            if volume.details.refill.is_some() || volume.status == VolumeStatus::Downloading {
                return Ok(());
            }
            let now = Timestamp::now();
            if volume.status == VolumeStatus::Error {
                let why = volume.fault.as_ref().map(|f| f.message.as_str()).unwrap_or("Its node did not say why.");
                let fault = ServerFault {
                    code: 500,
                    message: format!("The volume that it boots from could not be filled with the image: {why}"),
                    details: String::new(),
                    at: now,
                    transient: false,
                };
                self.server_failed(&tx, &mut server, fault).await?;
            } else {
                server.details.rebuild = None;
                server.power = if rebuild.runs { Power::Running } else { Power::Stopped };
                self.server_wish_on(&tx, &mut server, ServerTask::RebuildFinishing, now).await?;
            }
            let detail = json!({ "volume_id": volume.id, "task": server.task.map(ServerTask::text) });
            self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &detail).await?;
            self.commit(tx).await
        })
    }

    /// Withdraws what a rebuild wished of the server's volume, if it is not done yet: it must not come about later, when
    /// the volume is used again. Answers whether the server was to run afterwards. The caller writes the server's row.
    pub(super) async fn rebuild_give_up(&self, tx: &Tx, server: &mut Server) -> Result<bool, EngineError> {
        let Some(rebuild) = server.details.rebuild.take() else { return Ok(false) };
        let Some(mut volume) = tx.volume_lock(rebuild.volume_id).await? else { return Ok(rebuild.runs) };
        if volume.status != VolumeStatus::Downloading || volume.details.refill.take().is_none() {
            return Ok(rebuild.runs);
        }
        self.volume_touch(tx, &mut volume).await?;
        let resting = self.volume_resting(tx, volume.id).await?;
        self.volume_set(tx, &mut volume, resting).await?;
        self.volume_audit(tx, &volume, policy::VOLUME_REIMAGE, &json!({ "withdrawn": true })).await?;
        Ok(rebuild.runs)
    }
}

/// Whether a server runs when it is rebuilt: it did, or was meant to.
fn runs_after(server: &Server) -> bool {
    server.power != Power::Stopped || server.state == ServerState::Error
}

fn rebuild_on_disk(server: &mut Server, image: &Image) -> Result<ServerTask, EngineError> {
    super::create::image_fits(image, &server.flavor, Some(server.root_gib()))?;
    server.image = image.source().ok_or_else(|| EngineError::invalid("The image has no bytes."))?;
    server.details.disk_source = None;
    server.incarnation += 1;
    server.power = if runs_after(server) { Power::Running } else { Power::Stopped };
    Ok(ServerTask::Rebuilding)
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
