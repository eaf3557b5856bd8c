//! Messages: why something that was asked of a volume did not come about, in words. A volume has at most one, the last,
//! which is known by the volume's id.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, FaultyVolume};
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::{OpCtx, VolumeId};
use serde_json::json;

fn not_found(id: VolumeId) -> EngineError {
    EngineError::not_found("MessageNotFound", "Message", id)
}

impl Engine {
    /// A page of messages, of one volume if it is named, and whether it is full.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_message_list(
        &self,
        ctx: &OpCtx,
        only: Option<VolumeId>,
        marker: Option<VolumeId>,
        limit: u64,
    ) -> Result<(Vec<FaultyVolume>, bool), EngineError> {
        authorize(ctx, policy::MESSAGE_READ, &Target::own(ctx))?;
        let mut found = self.store().volume_faults(ctx.project_id(), only, marker, limit).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let full = found.len() >= limit;
        found.truncate(limit);
        Ok((found, full))
    }

    /// A message.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_message_get(&self, ctx: &OpCtx, id: VolumeId) -> Result<FaultyVolume, EngineError> {
        authorize(ctx, policy::MESSAGE_READ, &Target::own(ctx))?;
        let found = self.store().volume_faults(None, Some(id), None, 1).await?.into_iter().next();
        let found = found.ok_or_else(|| not_found(id))?;
        authorize(ctx, policy::MESSAGE_READ, &Target::project(found.project_id)).map_err(|_| not_found(id))?;
        Ok(found)
    }

    /// Forgets a message; the volume stays in its state.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_message_delete(&self, ctx: &OpCtx, id: VolumeId) -> Result<(), EngineError> {
        authorize(ctx, policy::MESSAGE_DELETE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut volume = tx.volume_lock(id).await?.filter(|v| v.fault.is_some()).ok_or_else(|| not_found(id))?;
        authorize(ctx, policy::MESSAGE_DELETE, &Target::project(volume.project_id)).map_err(|_| not_found(id))?;
        volume.fault = None;
        tx.volume_update(&mut volume).await?;
        tx.audit(AuditEntry {
            action: policy::MESSAGE_DELETE,
            kind: "volume",
            id: id.to_string(),
            project_id: Some(volume.project_id),
            detail: &json!({ "fault": null }),
        })
        .await?;
        Ok(tx.commit().await?)
    }
}
