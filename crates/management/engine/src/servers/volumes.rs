//! A server's volumes: given to it and taken from it while it runs or rests, and let go when it is removed.

use super::{admit, retried};
use crate::volume_attachments::attachment_begun;
use crate::volumes::invalid_volume;
use crate::{Engine, EngineError};
use arcus_store::{Server, Tx, Volume, VolumeAttachment};
use arcus_types::policy::{Action, compute, volume as policy};
use arcus_types::servers::{ServerRequest, ServerState};
use arcus_types::volumes::{AttachmentStatus, SERVER_VOLUMES_MAX, VolumeRequest, VolumeStatus};
use arcus_types::{NodeId, OpCtx, ServerId, Timestamp, VolumeId};
use serde_json::json;

/// A volume that a server shall have.
#[derive(Debug, Clone, Default)]
pub struct AttachWish {
    /// The device that the user would like, such as `/dev/vdc`.
    pub device: Option<String>,
    /// What the guest may know the disk by.
    pub tag: Option<String>,
    /// Whether the volume goes with the server.
    pub delete_on_termination: bool,
    /// Its place in the boot order; 0 is the root disk.
    pub boot_index: Option<u32>,
    /// Whether a server may get it while it is shelved.
    pub while_shelved: bool,
}

fn no_attachment(server: ServerId, volume: VolumeId) -> EngineError {
    EngineError::not_found(
        "VolumeAttachmentNotFound",
        "Volume attachment",
        format!("of volume {volume} to server {server}"),
    )
}

impl Engine {
    /// A server's volumes, in the order in which it got them.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_volumes(&self, ctx: &OpCtx, id: ServerId) -> Result<Vec<VolumeAttachment>, EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_VOLUMES_READ, id, false).await?;
        Ok(self.store().volume_attachments_by_servers(&[id]).await?)
    }

    /// One volume of a server.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_volume(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        volume: VolumeId,
    ) -> Result<VolumeAttachment, EngineError> {
        let all = self.server_volumes(ctx, id).await?;
        all.into_iter().find(|a| a.volume_id == volume).ok_or_else(|| no_attachment(id, volume))
    }

    /// Gives a volume to a server; a running guest gets it while it runs.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, under a lock, or for a volume in another pool;
    /// [`EngineError::Invalid`] for a volume or device that is in use; [`EngineError::NotFound`], or a refusal.
    pub async fn server_volume_attach(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        volume_id: VolumeId,
        wish: &AttachWish,
    ) -> Result<VolumeAttachment, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_VOLUMES_WRITE, id).await?;
            admit(ctx, &server, ServerRequest::AttachVolume)?;
            let away = shelved_away(&server, ServerRequest::AttachVolume, wish.while_shelved)?;
            if !away {
                super::actions::on_a_node(&server, ServerRequest::AttachVolume)?;
            }
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_ATTACH, volume_id).await?;
            if volume.project_id != server.project_id {
                return Err(crate::volumes::no_volume(volume_id));
            }
            if !VolumeRequest::Reserve.admits(volume.status) {
                return Err(invalid_volume(format!(
                    "volume '{volume_id}' status must be 'available'. Currently in '{}'",
                    volume.status
                )));
            }
            self.same_node(&tx, &server, &volume).await?;
            let attachment = self.server_volume_give(&tx, &mut server, &mut volume, wish).await?;
            let detail = json!({ "volume_id": volume_id, "attachment_id": attachment.id });
            let action = compute::SERVER_VOLUMES_WRITE;
            self.server_record(&tx, &server, action, "attach_volume", None, &detail).await?;
            self.server_touch_again(&tx, &mut server).await?;
            let mut attachment = attachment;
            attachment.node_generation = server.node_generation;
            if away {
                // No node has to do anything until the server is back.
                let now = Timestamp::now();
                attachment.status = AttachmentStatus::Attached;
                attachment.deadline = None;
                (attachment.attached_at, attachment.updated_at) = (Some(now), Some(now));
            }
            tx.volume_attachment_update(&mut attachment).await?;
            self.volume_rest(&tx, &mut volume).await?;
            self.commit(tx).await?;
            Ok(attachment)
        })
    }

    /// The node that a server must go to because its volumes are there.
    pub(super) async fn volumes_node(&self, tx: &Tx, server: &Server) -> Result<Option<NodeId>, EngineError> {
        let attachments = tx.volume_attachments_by_servers(&[server.id]).await?;
        let Some(first) = attachments.first() else { return Ok(None) };
        Ok(tx.volume_get(first.volume_id).await?.and_then(|volume| volume.node_id))
    }

    /// Refuses a volume that is not in the pool of the server's node; one without a node is where its volumes are.
    async fn same_node(&self, tx: &Tx, server: &Server, volume: &Volume) -> Result<(), EngineError> {
        let at = match (server.node_id, server.state) {
            (None, ServerState::ShelvedOffloaded) => match self.volumes_node(tx, server).await? {
                Some(node) => Some(node),
                None => return Ok(()),
            },
            (node, _) => node,
        };
        if at.is_some() && at == volume.node_id {
            return Ok(());
        }
        let mut names = Vec::new();
        for node in [volume.node_id, at] {
            names.push(match node {
                Some(id) => tx.node_get(id).await?.map(|n| n.name.to_string()).unwrap_or_default(),
                None => "no node".to_owned(),
            });
        }
        Err(EngineError::Conflict {
            code: "VolumeElsewhere",
            message: format!(
                "Volume {} is in the pool of {}; server {} runs on {}. A server can have volumes of its own node only: make a volume there, or a server on the volume's node.",
                volume.id, names[0], server.id, names[1]
            ),
        })
    }

    /// Records that a server shall have a volume. The caller holds both, has checked their states, and touches the node.
    pub(super) async fn server_volume_give(
        &self,
        tx: &Tx,
        server: &mut Server,
        volume: &mut Volume,
        wish: &AttachWish,
    ) -> Result<VolumeAttachment, EngineError> {
        let known = tx.volume_attachments_by_servers(&[server.id]).await?;
        if known.len() >= SERVER_VOLUMES_MAX {
            return Err(EngineError::Forbidden(format!(
                "The maximum allowed number of volumes is {SERVER_VOLUMES_MAX}."
            )));
        }
        let device = device_free(server, &known, wish)?;
        let now = Timestamp::now();
        let user = tx.ctx().user_id().unwrap_or(server.user_id);
        let status = AttachmentStatus::Attaching;
        let mut attachment = attachment_begun(volume, user, status);
        attachment.server_id = Some(server.id);
        attachment.by_server = true;
        attachment.deadline = status.deadline_s().map(|s| now.plus_seconds(s));
        attachment.read_only = Some(volume.read_only);
        attachment.device = Some(device);
        attachment.boot_index = wish.boot_index;
        attachment.tag.clone_from(&wish.tag);
        attachment.delete_on_termination = wish.delete_on_termination;
        tx.volume_attachment_insert(&attachment).await?;
        if volume.made {
            self.volume_set(tx, volume, VolumeStatus::Attaching).await?;
        }
        let detail = json!({ "attachment_id": attachment.id, "server_id": server.id });
        self.volume_audit(tx, volume, policy::VOLUME_ATTACH, &detail).await?;
        Ok(attachment)
    }

    /// Takes a volume from a server, from one that is shelved only `while_shelved`. It is available again when the guest has
    /// let it go.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it or under a lock, [`EngineError::Invalid`] for the disk
    /// that it boots from, [`EngineError::NotFound`], or a refusal.
    pub async fn server_volume_detach(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        volume_id: VolumeId,
        while_shelved: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_VOLUMES_WRITE, id).await?;
            let found = tx.volume_attachments_by_servers(&[id]).await?;
            let found = found.into_iter().find(|a| a.volume_id == volume_id);
            let mut attachment = found.ok_or_else(|| no_attachment(id, volume_id))?;
            admit(ctx, &server, ServerRequest::DetachVolume)?;
            let away = shelved_away(&server, ServerRequest::DetachVolume, while_shelved)?;
            if attachment.boot_index == Some(0) {
                return Err(EngineError::invalid("Cannot detach a root device volume"));
            }
            let mut volume = self.volume_held(&tx, ctx, policy::VOLUME_DETACH, volume_id).await?;
            if !matches!(attachment.status, AttachmentStatus::Attached | AttachmentStatus::Attaching) {
                return Err(invalid_volume(format!(
                    "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach. Currently: status: '{}', attach_status: '{}.'",
                    volume.status, attachment.status
                )));
            }
            let now = Timestamp::now();
            attachment.status = AttachmentStatus::Detaching;
            attachment.deadline = attachment.status.deadline_s().map(|s| now.plus_seconds(s));
            attachment.updated_at = Some(now);
            let detail = json!({ "volume_id": volume_id, "attachment_id": attachment.id });
            let action = compute::SERVER_VOLUMES_WRITE;
            self.server_record(&tx, &server, action, "detach_volume", None, &detail).await?;
            if away {
                self.attachment_end_in(&tx, &mut volume, &attachment).await?;
                return self.commit(tx).await;
            }
            self.server_touch_again(&tx, &mut server).await?;
            attachment.node_generation = server.node_generation;
            tx.volume_attachment_update(&mut attachment).await?;
            self.volume_rest(&tx, &mut volume).await?;
            self.volume_audit(&tx, &volume, policy::VOLUME_DETACH, &detail).await?;
            self.commit(tx).await
        })
    }

    /// Says whether a volume goes with its server.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_volume_keep(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        volume: VolumeId,
        delete_on_termination: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let server = self.server_held(&tx, ctx, compute::SERVER_VOLUMES_WRITE, id).await?;
            let found = tx.volume_attachments_by_servers(&[id]).await?;
            let found = found.into_iter().find(|a| a.volume_id == volume);
            let mut attachment = found.ok_or_else(|| no_attachment(id, volume))?;
            attachment.delete_on_termination = delete_on_termination;
            attachment.updated_at = Some(Timestamp::now());
            tx.volume_attachment_update(&mut attachment).await?;
            let detail = json!({ "volume_id": volume, "delete_on_termination": delete_on_termination });
            self.server_audit(&tx, &server, compute::SERVER_VOLUMES_WRITE, &detail).await?;
            self.commit(tx).await
        })
    }

    /// A wish for a server that is no task: its node acts on it, and whatever is under way goes on.
    pub(crate) async fn server_touch_again(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        server.version += 1;
        server.updated_at = Timestamp::now();
        self.server_touch(tx, server).await?;
        Ok(tx.server_update(server).await?)
    }

    /// Lets go the volumes of a server that is gone; those that go with it are removed.
    pub(super) async fn server_volumes_release(&self, tx: &Tx, server: &mut Server) -> Result<(), EngineError> {
        self.rebuild_give_up(tx, server).await?;
        for attachment in tx.volume_attachments_by_servers(&[server.id]).await? {
            let Some(mut volume) = tx.volume_lock(attachment.volume_id).await? else { continue };
            self.attachment_end_in(tx, &mut volume, &attachment).await?;
            if attachment.delete_on_termination {
                self.volume_goes_too(tx, &mut volume, policy::VOLUME_OBSERVE).await?;
            }
        }
        Ok(())
    }

    /// A volume that goes with its server, unless something else still needs it: then it stays, for its owner to see.
    async fn volume_goes_too(&self, tx: &Tx, volume: &mut Volume, action: Action) -> Result<(), EngineError> {
        match self.volume_delete_in(tx, volume, action, false).await {
            Err(EngineError::Invalid { message, .. }) => {
                tracing::warn!(volume.id = %volume.id, why = message, "a volume stays although its server is gone");
                Ok(())
            }
            other => other,
        }
    }
}

/// Whether a server is shelved and on no node; refuses one that is shelved unless `admitted`.
fn shelved_away(server: &Server, request: ServerRequest, admitted: bool) -> Result<bool, EngineError> {
    let shelved = matches!(server.state, ServerState::Shelved | ServerState::ShelvedOffloaded);
    if shelved && !admitted {
        return Err(EngineError::Conflict {
            code: "InstanceInvalidState",
            message: format!(
                "Cannot '{request}' instance {} while it is in vm_state {}",
                server.id,
                server.state.text()
            ),
        });
    }
    Ok(server.state == ServerState::ShelvedOffloaded)
}

/// The device that is asked for if it is free, or the next free one.
fn device_free(server: &Server, known: &[VolumeAttachment], wish: &AttachWish) -> Result<String, EngineError> {
    if wish.boot_index == Some(0) {
        return Ok("/dev/vda".to_owned());
    }
    // Its own disks come first, in the guest too.
    let own = 1 + server.details.local_disks.len();
    let of_own =
        |device: &str| (b'a'..=b'z').take(own).any(|letter| device == format!("/dev/vd{}", char::from(letter)));
    let taken = |device: &str| of_own(device) || known.iter().any(|a| a.device.as_deref() == Some(device));
    if let Some(asked) = wish.device.as_deref().filter(|d| !d.is_empty()) {
        let letter = asked.strip_prefix("/dev/").unwrap_or(asked).trim_start_matches(|c: char| c != 'd');
        let last = letter.strip_prefix('d').filter(|l| l.len() == 1 && l.bytes().all(|b| b.is_ascii_lowercase()));
        let Some(last) = last else {
            return Err(EngineError::invalid(format!("The supplied device path ({asked}) is invalid.")));
        };
        let device = format!("/dev/vd{last}");
        if taken(&device) {
            return Err(EngineError::Conflict {
                code: "DevicePathInUse",
                message: format!("The supplied device path ({asked}) is in use."),
            });
        }
        return Ok(device);
    }
    let free = (b'b'..=b'z').map(|letter| format!("/dev/vd{}", char::from(letter))).find(|device| !taken(device));
    free.ok_or_else(|| EngineError::Forbidden(format!("Server {} has no free device name.", server.id)))
}
