//! Which volume is on which server.
//!
//! ```text
//! reserved --> attaching --(in the machine)--> attached --> detaching --(the guest let go)--> gone
//! ```
//! A server's own attachments are made and ended by the compute API ([`crate::servers`]), and move on when the server's
//! node says so. Others are only notes of the volume API's clients about machines that are not this cloud's.

mod actions;

pub use actions::{AttachNote, VolumeNote};

use crate::servers::retried;
use crate::volumes::{allowed, invalid_volume};
use crate::{Engine, EngineError};
use arcus_store::{Db, Tx, Volume, VolumeAttachment, VolumeAttachmentFilter};
use arcus_types::agent::{NodeReport, Observed, ServerReport};
use arcus_types::policy::{Action, Target, authorize, volume as policy};
use arcus_types::volumes::{AttachmentStatus, VolumeEvent, VolumeRequest, VolumeStatus};
use arcus_types::{AttachmentId, NodeId, OpCtx, ServerId, Timestamp, UserId, VolumeId};
use serde_json::{Value, json};
use std::collections::HashMap;

/// What a new attachment is made of.
#[derive(Debug, Clone)]
pub struct AttachmentNew {
    /// The volume.
    pub volume_id: VolumeId,
    /// The machine that shall have it.
    pub server_id: Option<ServerId>,
    /// What a client says of its side; without it the volume is only kept for the machine.
    pub connector: Option<Value>,
    /// Whether the machine shall only read.
    pub read_only: Option<bool>,
}

/// Which attachments a list holds.
#[derive(Debug, Clone, Default)]
pub struct AttachmentQuery {
    /// What the database filters by; the project is set by the engine unless an administrator asks for all.
    pub filter: VolumeAttachmentFilter,
    /// Those of every project: administrators only, ignored for others.
    pub all_projects: bool,
}

fn no_attachment(id: AttachmentId) -> EngineError {
    EngineError::not_found("VolumeAttachmentNotFound", "Volume attachment", id)
}

/// An attachment as it begins.
pub(crate) fn attachment_begun(volume: &Volume, user_id: UserId, status: AttachmentStatus) -> VolumeAttachment {
    let now = Timestamp::now();
    VolumeAttachment {
        id: AttachmentId::random(),
        volume_id: volume.id,
        project_id: volume.project_id,
        user_id,
        server_id: None,
        by_server: false,
        status,
        deadline: None,
        read_only: None,
        device: None,
        host_name: None,
        connector: json!({}),
        bdm_id: uuid::Uuid::new_v4(),
        boot_index: None,
        tag: None,
        delete_on_termination: false,
        node_generation: 0,
        generation: 1,
        created_at: now,
        updated_at: None,
        attached_at: None,
    }
}

impl Engine {
    /// Puts a volume into the state that its attachments make of it, unless something else is being done to it.
    pub(crate) async fn volume_rest(&self, tx: &Tx, volume: &mut Volume) -> Result<(), EngineError> {
        let follows = volume.status.follows_attachments() && volume.made;
        let resting = self.volume_resting(tx, volume.id).await?;
        let status = if follows { resting } else { volume.status };
        let deadline = volume.deadline;
        self.volume_set(tx, volume, status).await?;
        if !follows {
            volume.deadline = deadline;
            tx.volume_update(volume).await?;
        }
        Ok(())
    }

    /// Makes an attachment that is only noted: the volume is kept for a machine, or given to it if the client says how.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn attachment_create(&self, ctx: &OpCtx, new: &AttachmentNew) -> Result<VolumeAttachment, EngineError> {
        authorize(ctx, policy::ATTACHMENT_WRITE, &Target::own(ctx))?;
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut volume = self.volume_held(&tx, ctx, policy::ATTACHMENT_WRITE, new.volume_id).await?;
            let kept = VolumeRequest::Reserve.admits(volume.status);
            let known = tx.volume_attachments_of(&[volume.id]).await?;
            let again = volume.status == VolumeStatus::Reserved
                && known.iter().all(|a| a.status == AttachmentStatus::Reserved && a.server_id == new.server_id);
            if !kept && !again {
                return Err(invalid_volume(format!(
                    "Volume {} status must be available or downloading to reserve, but the current status is {}.",
                    volume.id, volume.status
                )));
            }
            let status = if new.connector.is_some() { AttachmentStatus::Attaching } else { AttachmentStatus::Reserved };
            let user_id = ctx.user_id().unwrap_or(volume.user_id);
            let mut attachment = attachment_begun(&volume, user_id, status);
            attachment.server_id = new.server_id;
            attachment.read_only = new.connector.as_ref().map(|_| new.read_only.unwrap_or(volume.read_only));
            if let Some(connector) = &new.connector {
                connect(&mut attachment, connector);
            }
            tx.volume_attachment_insert(&attachment).await?;
            self.volume_rest(&tx, &mut volume).await?;
            let detail = json!({ "attachment_id": attachment.id, "server_id": new.server_id });
            self.volume_audit(&tx, &volume, policy::ATTACHMENT_WRITE, &detail).await?;
            self.commit(tx).await?;
            Ok(attachment)
        })
    }

    /// A page of attachments, and whether it is full.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a marker that is none of the caller's, or a refusal.
    pub async fn attachment_list(
        &self,
        ctx: &OpCtx,
        mut query: AttachmentQuery,
    ) -> Result<(Vec<VolumeAttachment>, bool), EngineError> {
        authorize(ctx, policy::ATTACHMENT_LIST, &Target::own(ctx))?;
        query.filter.project_id = crate::volumes::viewer(ctx, query.all_projects, query.filter.project_id);
        if let Some(marker) = query.filter.marker {
            self.attachment_seen(self.store(), ctx, policy::ATTACHMENT_SHOW, marker).await?;
        }
        let limit = usize::try_from(query.filter.limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok((Vec::new(), false));
        }
        let mut found = self.store().volume_attachment_list(&query.filter).await?;
        let full = found.len() >= limit;
        found.truncate(limit);
        Ok((found, full))
    }

    /// One attachment.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn attachment_show(&self, ctx: &OpCtx, id: AttachmentId) -> Result<VolumeAttachment, EngineError> {
        self.attachment_seen(self.store(), ctx, policy::ATTACHMENT_SHOW, id).await
    }

    async fn attachment_seen(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: AttachmentId,
    ) -> Result<VolumeAttachment, EngineError> {
        let attachment = db.volume_attachment_get(id).await?.ok_or_else(|| no_attachment(id))?;
        allowed(ctx, action, attachment.project_id, || no_attachment(id))?;
        Ok(attachment)
    }

    /// Takes in how a client connects.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for an attachment of a server, [`EngineError::NotFound`], or a refusal.
    pub async fn attachment_connect(
        &self,
        ctx: &OpCtx,
        id: AttachmentId,
        connector: &Value,
        read_only: Option<bool>,
    ) -> Result<VolumeAttachment, EngineError> {
        self.attachment_change(ctx, id, |attachment, volume| {
            if attachment.status == AttachmentStatus::Attached {
                return Err(invalid_volume("the attachment is complete already."));
            }
            connect(attachment, connector);
            attachment.status = AttachmentStatus::Attaching;
            attachment.read_only = Some(read_only.unwrap_or(volume.read_only));
            Ok(())
        })
        .await
    }

    /// Notes that a machine has the volume.
    ///
    /// # Errors
    /// As [`Engine::attachment_connect`].
    pub async fn attachment_complete(&self, ctx: &OpCtx, id: AttachmentId) -> Result<(), EngineError> {
        self.attachment_change(ctx, id, |attachment, _| {
            if attachment.status != AttachmentStatus::Attaching {
                return Err(invalid_volume(format!("the attachment is {}, not attaching.", attachment.status)));
            }
            attachment.status = AttachmentStatus::Attached;
            attachment.attached_at = Some(Timestamp::now());
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn attachment_change(
        &self,
        ctx: &OpCtx,
        id: AttachmentId,
        change: impl Fn(&mut VolumeAttachment, &Volume) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<VolumeAttachment, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let seen = self.attachment_seen(&tx, ctx, policy::ATTACHMENT_WRITE, id).await?;
            let mut volume = self.volume_again(&tx, seen.volume_id).await?;
            let mut attachment = tx.volume_attachment_get(id).await?.ok_or_else(|| no_attachment(id))?;
            noted(&attachment)?;
            change(&mut attachment, &volume)?;
            attachment.updated_at = Some(Timestamp::now());
            tx.volume_attachment_update(&mut attachment).await?;
            self.volume_rest(&tx, &mut volume).await?;
            let detail = json!({ "attachment_id": id, "status": attachment.status.as_str() });
            self.volume_audit(&tx, &volume, policy::ATTACHMENT_WRITE, &detail).await?;
            self.commit(tx).await?;
            Ok(attachment)
        })
    }

    /// Ends an attachment that is only noted; those that the volume still has.
    ///
    /// # Errors
    /// As [`Engine::attachment_connect`].
    pub async fn attachment_delete(&self, ctx: &OpCtx, id: AttachmentId) -> Result<Vec<VolumeAttachment>, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let seen = self.attachment_seen(&tx, ctx, policy::ATTACHMENT_WRITE, id).await?;
            let mut volume = self.volume_again(&tx, seen.volume_id).await?;
            noted(&seen)?;
            tx.volume_attachment_delete(id).await?;
            self.volume_rest(&tx, &mut volume).await?;
            let detail = json!({ "attachment_id": id, "gone": true });
            self.volume_audit(&tx, &volume, policy::ATTACHMENT_WRITE, &detail).await?;
            let left = tx.volume_attachments_of(&[volume.id]).await?;
            self.commit(tx).await?;
            Ok(left)
        })
    }

    /// What a node says of the volumes in its servers' machines.
    pub(crate) async fn volume_attachments_observed(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        report: &NodeReport,
    ) -> Result<(), EngineError> {
        let mut waiting = self.store().volume_attachments_by_node(node).await?;
        waiting.retain(|a| matches!(a.status, AttachmentStatus::Attaching | AttachmentStatus::Detaching));
        if waiting.is_empty() {
            return Ok(());
        }
        let versions: HashMap<ServerId, u64> =
            self.store().server_list_by_node(node).await?.into_iter().map(|s| (s.id, s.version)).collect();
        let reports: HashMap<ServerId, &ServerReport> = report.servers.iter().map(|r| (r.id, r)).collect();
        for attachment in waiting {
            let Some(server) = attachment.server_id else { continue };
            let acted = report.spec_generation >= attachment.node_generation;
            let version = versions.get(&server).copied().unwrap_or(u64::MAX);
            match judge(&attachment, reports.get(&server).copied(), acted, version) {
                Verdict::Same => {}
                Verdict::Faulty => retried!({ self.attachment_turned(ctx, &attachment, Timestamp::now()).await })?,
                Verdict::Attached => retried!({ self.attachment_reached(ctx, &attachment).await })?,
                Verdict::Detached => retried!({ self.attachment_gone(ctx, &attachment).await })?,
            }
        }
        Ok(())
    }

    async fn attachment_reached(&self, ctx: &OpCtx, seen: &VolumeAttachment) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut volume) = tx.volume_lock(seen.volume_id).await? else { return Ok(()) };
        let found = tx.volume_attachment_get(seen.id).await?;
        let Some(mut attachment) = found.filter(|a| a.generation == seen.generation) else { return Ok(()) };
        let now = Timestamp::now();
        attachment.status = AttachmentStatus::Attached;
        attachment.deadline = None;
        attachment.attached_at = attachment.attached_at.or(Some(now));
        attachment.updated_at = Some(now);
        tx.volume_attachment_update(&mut attachment).await?;
        if volume.made {
            self.volume_rest(&tx, &mut volume).await?;
        } else {
            // What is in a machine has been made.
            self.volume_happened(&tx, &mut volume, VolumeEvent::Made, None).await?;
        }
        let detail = json!({ "attachment_id": attachment.id, "server_id": attachment.server_id, "attached": true });
        self.volume_audit(&tx, &volume, policy::VOLUME_OBSERVE, &detail).await?;
        self.commit(tx).await
    }

    async fn attachment_gone(&self, ctx: &OpCtx, seen: &VolumeAttachment) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut volume) = tx.volume_lock(seen.volume_id).await? else { return Ok(()) };
        let found = tx.volume_attachment_get(seen.id).await?;
        if found.is_none_or(|a| a.generation != seen.generation) {
            return Ok(());
        }
        self.attachment_end_in(&tx, &mut volume, seen).await?;
        self.commit(tx).await
    }

    /// Ends an attachment of a server that has let the volume go. The caller holds the volume.
    pub(crate) async fn attachment_end_in(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        attachment: &VolumeAttachment,
    ) -> Result<(), EngineError> {
        tx.volume_attachment_delete(attachment.id).await?;
        self.volume_rest(tx, volume).await?;
        let detail = json!({ "attachment_id": attachment.id, "server_id": attachment.server_id, "detached": true });
        self.volume_audit(tx, volume, policy::VOLUME_OBSERVE, &detail).await
    }

    /// Ends what was not over in time.
    pub(crate) async fn volume_attachment_overdue(
        &self,
        ctx: &OpCtx,
        seen: &VolumeAttachment,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        if seen.deadline.is_none_or(|d| d >= now) {
            return Ok(false);
        }
        tracing::warn!(volume.id = %seen.volume_id, status = %seen.status, "an attachment was not settled in time");
        self.attachment_turned(ctx, seen, now).await?;
        Ok(true)
    }

    /// Turns back what does not come about: an attachment is taken back; a guest that does not let go keeps the volume.
    async fn attachment_turned(&self, ctx: &OpCtx, seen: &VolumeAttachment, now: Timestamp) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let server = match seen.server_id {
            Some(id) => tx.server_lock(id).await?,
            None => None,
        };
        let Some(mut volume) = tx.volume_lock(seen.volume_id).await? else { return Ok(()) };
        let found = tx.volume_attachment_get(seen.id).await?;
        let Some(mut attachment) = found.filter(|a| a.generation == seen.generation) else { return Ok(()) };
        attachment.status = match attachment.status {
            AttachmentStatus::Attaching => AttachmentStatus::Detaching,
            AttachmentStatus::Detaching => AttachmentStatus::Attached,
            other @ (AttachmentStatus::Reserved
            | AttachmentStatus::Attached
            | AttachmentStatus::ErrorAttaching
            | AttachmentStatus::ErrorDetaching) => other,
        };
        attachment.deadline = attachment.status.deadline_s().map(|s| now.plus_seconds(s));
        if let Some(mut server) = server {
            self.server_touch_again(&tx, &mut server).await?;
            attachment.node_generation = server.node_generation;
        }
        tx.volume_attachment_update(&mut attachment).await?;
        self.volume_rest(&tx, &mut volume).await?;
        let detail = json!({ "attachment_id": attachment.id, "turned_back": true });
        self.volume_audit(&tx, &volume, policy::VOLUME_DETACH, &detail).await?;
        self.commit(tx).await
    }
}

/// Refuses to touch a server's own attachment through the volume API: its guest would lose the disk without being asked.
fn noted(attachment: &VolumeAttachment) -> Result<(), EngineError> {
    match (attachment.by_server, attachment.server_id) {
        (true, Some(server)) => Err(EngineError::Conflict {
            code: "ConflictNovaUsingAttachment",
            message: format!("Detach volume from instance {server} using the Compute API"),
        }),
        (true, None) | (false, _) => Ok(()),
    }
}

fn connect(attachment: &mut VolumeAttachment, connector: &Value) {
    let text = |key: &str| connector.get(key).and_then(Value::as_str).map(|t| t.chars().take(255).collect::<String>());
    attachment.device = text("mountpoint").or_else(|| attachment.device.clone());
    attachment.host_name = text("host").or_else(|| attachment.host_name.clone());
    attachment.connector = connector.clone();
}

/// What a report means for an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Attached,
    /// It does not come about.
    Faulty,
    Detached,
}

fn judge(attachment: &VolumeAttachment, report: Option<&ServerReport>, acted: bool, version: u64) -> Verdict {
    let inside = report.is_some_and(|r| r.volumes.contains(&attachment.volume_id));
    // A server that is being prepared names what it will have: that may not even be made yet.
    let plugged = inside && report.is_some_and(|r| r.observed != Observed::Preparing);
    let faulty = report.is_some_and(|r| {
        let mine = r.volume_faults.iter().find(|f| f.volume_id == attachment.volume_id);
        r.version >= version && mine.is_some_and(|f| !f.fault.transient)
    });
    match attachment.status {
        AttachmentStatus::Attaching if plugged => Verdict::Attached,
        AttachmentStatus::Attaching | AttachmentStatus::Detaching if acted && faulty => Verdict::Faulty,
        // The node has acted on the wish, and the machine does not have the volume.
        AttachmentStatus::Detaching if acted && !inside => {
            let settled = report.is_none_or(|r| r.version >= version && r.observed != Observed::Preparing);
            if settled { Verdict::Detached } else { Verdict::Same }
        }
        AttachmentStatus::Attaching
        | AttachmentStatus::Detaching
        | AttachmentStatus::Reserved
        | AttachmentStatus::Attached
        | AttachmentStatus::ErrorAttaching
        | AttachmentStatus::ErrorDetaching => Verdict::Same,
    }
}
