//! Volumes with what is around them, as users see them: a fixed number of queries for a whole page.

use super::no_volume;
use crate::{Engine, EngineError};
use arcus_store::{Volume, VolumeAttachment};
use arcus_types::policy::volume as policy;
use arcus_types::{NodeId, OpCtx, VolumeId};
use std::collections::HashMap;

/// A volume with what is around it.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeView {
    /// The volume.
    pub volume: Volume,
    /// The name of its type.
    pub volume_type: String,
    /// The name of the node whose pool it is in.
    pub node: Option<String>,
    /// Which servers have it, or shall have it.
    pub attachments: Vec<VolumeAttachment>,
}

impl Engine {
    /// One volume with what is around it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn volume_show(&self, ctx: &OpCtx, id: VolumeId) -> Result<VolumeView, EngineError> {
        let volume = self.volume_seen(self.store(), ctx, policy::VOLUME_SHOW, id).await?;
        self.volume_view(volume).await
    }

    /// A volume that the caller has just read or written, with what is around it.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn volume_view(&self, volume: Volume) -> Result<VolumeView, EngineError> {
        let id = volume.id;
        self.volume_views(vec![volume]).await?.pop().ok_or_else(|| no_volume(id))
    }

    pub(super) async fn volume_views(&self, volumes: Vec<Volume>) -> Result<Vec<VolumeView>, EngineError> {
        if volumes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<VolumeId> = volumes.iter().map(|v| v.id).collect();
        let mut types: Vec<_> = volumes.iter().map(|v| v.volume_type_id).collect();
        types.sort_unstable();
        types.dedup();
        let types: HashMap<_, _> = self.store().volume_type_names(&types).await?.into_iter().collect();
        let nodes: HashMap<NodeId, String> =
            self.store().node_list().await?.into_iter().map(|n| (n.id, n.name.to_string())).collect();
        let mut attachments: HashMap<VolumeId, Vec<VolumeAttachment>> = HashMap::new();
        for attachment in self.store().volume_attachments_of(&ids).await? {
            attachments.entry(attachment.volume_id).or_default().push(attachment);
        }
        Ok(volumes
            .into_iter()
            .map(|volume| VolumeView {
                volume_type: types.get(&volume.volume_type_id).cloned().unwrap_or_default(),
                node: volume.node_id.and_then(|id| nodes.get(&id).cloned()),
                attachments: attachments.remove(&volume.id).unwrap_or_default(),
                volume,
            })
            .collect())
    }
}
