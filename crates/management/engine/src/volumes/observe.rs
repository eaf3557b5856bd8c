//! What a node says of its volumes, and what follows.
//!
//! [`judge`] compares one report with one record and decides, purely; the engine then holds the row, judges again and
//! writes. A report that says nothing new costs one read.

use super::fault;
use crate::servers::retried;
use crate::{Engine, EngineError};
use arcus_store::{ServerAction, ServerActionEvent, Tx, Volume, VolumeFault};
use arcus_types::agent::{NodeReport, VolumeReport, VolumeState};
use arcus_types::policy::volume as policy;
use arcus_types::volumes::{VolumeEvent, VolumeStatus};
use arcus_types::{Actor, NodeId, OpCtx, RequestId, Scope, Timestamp, VolumeId};
use serde_json::json;
use std::collections::HashMap;

const GIB: u64 = 1 << 30;

/// What a report means for a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nothing new.
    Same,
    /// It is being made, so far.
    Progress { step: String, progress_percent: u8 },
    /// Something happened.
    Event(VolumeEvent, Option<(String, String)>),
    /// The node holds nothing of it any more, as wished.
    Gone,
}

/// What `report` means; `None` for a report that does not name the volume.
fn judge(volume: &Volume, report: Option<&VolumeReport>, spec_generation: u64) -> Verdict {
    let Some(report) = report else {
        let acted = spec_generation >= volume.node_generation;
        let deleting = matches!(volume.status, VolumeStatus::Deleting);
        return if deleting && acted { Verdict::Gone } else { Verdict::Same };
    };
    match &report.state {
        VolumeState::Removing => Verdict::Same,
        VolumeState::Preparing { step, progress_percent } => {
            let waiting = !volume.made && volume.status != VolumeStatus::Deleting;
            let known =
                volume.details.step.as_deref() == Some(step) && volume.details.progress_percent == *progress_percent;
            if waiting && !known {
                Verdict::Progress { step: step.clone(), progress_percent: *progress_percent }
            } else {
                Verdict::Same
            }
        }
        VolumeState::Ready if !volume.made && volume.status != VolumeStatus::Deleting => {
            Verdict::Event(VolumeEvent::Made, None)
        }
        VolumeState::Ready if volume.details.lost && volume.status == VolumeStatus::Error => {
            Verdict::Event(VolumeEvent::Found, None)
        }
        VolumeState::Ready => match volume.status {
            VolumeStatus::Extending | VolumeStatus::ErrorExtending
                if report.version >= volume.version && report.size_bytes >= volume.size_gib.saturating_mul(GIB) =>
            {
                Verdict::Event(VolumeEvent::Extended, None)
            }
            VolumeStatus::Reverting | VolumeStatus::Downloading if report.version >= volume.version => {
                Verdict::Event(VolumeEvent::Refilled, None)
            }
            _ => Verdict::Same,
        },
        VolumeState::Failed(why) if report.version >= volume.version && !why.transient => {
            let because = Some((why.message.clone(), why.details.clone()));
            match volume.status {
                VolumeStatus::Extending => Verdict::Event(VolumeEvent::ExtendFailed, because),
                VolumeStatus::Creating | VolumeStatus::Reserved | VolumeStatus::Attaching if !volume.made => {
                    Verdict::Event(VolumeEvent::MakeFailed, because)
                }
                VolumeStatus::Reverting | VolumeStatus::Downloading => {
                    Verdict::Event(VolumeEvent::RefillFailed, because)
                }
                status if volume.made && VolumeEvent::Lost.states().contains(&status) => {
                    Verdict::Event(VolumeEvent::Lost, because)
                }
                _ => Verdict::Same,
            }
        }
        VolumeState::Failed(_) => Verdict::Same,
    }
}

impl Engine {
    /// Takes in what a node says of its volumes and their snapshots: they become available, or show what went wrong, or are
    /// gone and give back what they held.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn volumes_observed(&self, node: NodeId, report: &NodeReport) -> Result<(), EngineError> {
        let ctx =
            OpCtx { actor: Actor::Node { node_id: node }, scope: Scope::System, ..OpCtx::anonymous(RequestId::new()) };
        let reports: HashMap<VolumeId, &VolumeReport> = report.volumes.iter().map(|r| (r.id, r)).collect();
        for volume in self.store().volume_list_by_node(node).await? {
            let said = reports.get(&volume.id).copied();
            if judge(&volume, said, report.spec_generation) != Verdict::Same {
                retried!({ self.volume_observed(&ctx, volume.id, said, report.spec_generation).await })?;
                if volume.status == VolumeStatus::Downloading {
                    self.rebuild_of_volume_goes_on(&ctx, volume.id).await?;
                }
            }
        }
        self.volume_uploads_observed(&ctx, node, &report.snapshots).await?;
        self.volume_snapshots_observed(&ctx, node, report).await?;
        self.volume_attachments_observed(&ctx, node, report).await
    }

    async fn volume_observed(
        &self,
        ctx: &OpCtx,
        id: VolumeId,
        report: Option<&VolumeReport>,
        spec_generation: u64,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut volume) = tx.volume_lock(id).await? else { return Ok(()) };
        match judge(&volume, report, spec_generation) {
            Verdict::Same => return Ok(()),
            Verdict::Progress { step, progress_percent } => {
                drop(tx);
                return self.volume_figures(id, volume.generation, step, progress_percent).await;
            }
            Verdict::Gone => self.volume_remove_in(&tx, &volume, policy::VOLUME_OBSERVE).await?,
            Verdict::Event(event, why) => self.volume_happened(&tx, &mut volume, event, why).await?,
        }
        self.commit(tx).await
    }

    /// Figures are nobody's resource: no audit record.
    async fn volume_figures(
        &self,
        id: VolumeId,
        generation: u64,
        step: String,
        percent: u8,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin_unaudited().await?;
        let Some(mut volume) = tx.volume_lock(id).await?.filter(|v| v.generation == generation) else { return Ok(()) };
        tx.task_progress(id.0, None, None, percent, Some(&step)).await?;
        volume.details.step = Some(step);
        volume.details.progress_percent = percent;
        tx.volume_update(&mut volume).await?;
        Ok(tx.commit().await?)
    }

    /// Moves a volume on after an event. The caller holds the row and commits.
    pub(crate) async fn volume_happened(
        &self,
        tx: &Tx,
        volume: &mut Volume,
        event: VolumeEvent,
        why: Option<(String, String)>,
    ) -> Result<(), EngineError> {
        let resting = self.volume_resting(tx, volume.id).await?;
        if event == VolumeEvent::Made {
            volume.made = true;
            volume.launched_at = Some(Timestamp::now());
            volume.details.step = None;
            volume.details.progress_percent = 100;
        }
        if event == VolumeEvent::ExtendFailed {
            self.volume_extend_undone(tx, volume).await?;
        }
        if event == VolumeEvent::Extended {
            volume.details.size_gib_before = None;
        }
        if matches!(event, VolumeEvent::Lost | VolumeEvent::Found | VolumeEvent::Refilled) {
            volume.details.lost = event == VolumeEvent::Lost;
        }
        if matches!(event, VolumeEvent::Refilled | VolumeEvent::RefillFailed) {
            // Also after a failure: it must not come about later, when the volume is used again.
            volume.details.refill = None;
            self.volume_touch(tx, volume).await?;
        }
        let status = volume.status.after(event, resting).unwrap_or(volume.status);
        volume.fault = why.map(|(message, details)| fault(message, details));
        if let Some(VolumeFault { message, details, .. }) = &volume.fault {
            tracing::warn!(volume.id = %volume.id, fault = message, details, "a volume failed");
        }
        volume.status_before = None;
        self.volume_set(tx, volume, status).await?;
        if let Some(group) = volume.group_id {
            self.volume_group_settled(tx, group).await?;
        }
        if matches!(event, VolumeEvent::Extended | VolumeEvent::ExtendFailed) {
            self.volume_extend_noted(tx, volume).await?;
        }
        let detail = json!({ "status": status.as_str() });
        self.volume_audit(tx, volume, policy::VOLUME_OBSERVE, &detail).await?;
        tracing::info!(volume.id = %volume.id, status = %status, "a volume changed");
        Ok(())
    }

    /// Notes in the history of the servers that have a volume that it became larger under them, or did not.
    async fn volume_extend_noted(&self, tx: &Tx, volume: &Volume) -> Result<(), EngineError> {
        let attachments = tx.volume_attachments_of(&[volume.id]).await?;
        let node = match volume.node_id {
            Some(id) => tx.node_get(id).await?.map(|node| node.name.to_string()),
            None => None,
        };
        let (now, failure) = (Timestamp::now(), volume.fault.as_ref().map(|fault| fault.message.clone()));
        for server in attachments.iter().filter(|attachment| attachment.by_server).filter_map(|a| a.server_id) {
            tx.server_action_insert(&ServerAction {
                server_id: server,
                request_id: tx.ctx().request_id,
                action: "extend_volume".to_owned(),
                user_id: tx.ctx().user_id(),
                project_id: Some(volume.project_id),
                message: failure.clone(),
                event: Some(ServerActionEvent {
                    event: "compute_extend_volume".to_owned(),
                    node: node.clone(),
                    started_at: now,
                    finished_at: Some(now),
                    result: Some(if failure.is_some() { "Error" } else { "Success" }.to_owned()),
                    details: failure.clone(),
                }),
                steps_done: Vec::new(),
                started_at: now,
                updated_at: now,
            })
            .await?;
        }
        Ok(())
    }

    /// What the attachments of a volume make of it.
    pub(crate) async fn volume_resting(&self, tx: &Tx, id: VolumeId) -> Result<VolumeStatus, EngineError> {
        let attachments = tx.volume_attachments_of(&[id]).await?;
        Ok(VolumeStatus::of_attachments(attachments.iter().map(|a| a.status)))
    }

    /// Gives back what a larger size claimed: the node is told the old size again.
    async fn volume_extend_undone(&self, tx: &Tx, volume: &mut Volume) -> Result<(), EngineError> {
        let Some(before) = volume.details.size_gib_before.take() else { return Ok(()) };
        let more = volume.size_gib.saturating_sub(before);
        self.volume_quota_release(tx, volume.project_id, volume.volume_type_id, None, more).await?;
        if let Some(node) = volume.node_id {
            tx.node_release(node, 0, 0, more).await?;
        }
        volume.size_gib = before;
        self.volume_touch(tx, volume).await?;
        self.volume_usage(tx, volume, true).await
    }
}
