//! Lists of volumes.

use super::VolumeView;
use crate::{Engine, EngineError};
use arcus_store::{VolumeCounts, VolumeFilter};
use arcus_types::policy::{Target, authorize, volume as policy};
use arcus_types::{OpCtx, ProjectId};

/// The most pairs of metadata that a summary of volumes holds.
pub const SUMMARY_PAIRS_MAX: u32 = 1_000;

/// Which volumes a list holds.
#[derive(Debug, Clone, Default)]
pub struct VolumeQuery {
    /// What the database filters by; the project is set by the engine unless an administrator asks for all.
    pub filter: VolumeFilter,
    /// Those of every project: administrators only, ignored for others.
    pub all_projects: bool,
    /// With this name or id of a type.
    pub volume_type: Option<String>,
    /// In the pool of the node with this name.
    pub node: Option<String>,
    /// Whether all volumes that match are counted.
    pub count: bool,
}

/// The project that a list is limited to: the caller's own, unless an administrator asks for all of them.
pub(crate) fn viewer(ctx: &OpCtx, all_projects: bool, asked: Option<ProjectId>) -> Option<ProjectId> {
    if ctx.is_admin() && (all_projects || asked.is_some()) {
        return asked;
    }
    Some(ctx.project_id().unwrap_or(ProjectId(uuid::Uuid::nil())))
}

impl Engine {
    /// A page of volumes, whether it is full, and how many there are in all if that was asked for.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a marker that is no volume of the caller, or a refusal.
    pub async fn volume_list(
        &self,
        ctx: &OpCtx,
        mut query: VolumeQuery,
    ) -> Result<(Vec<VolumeView>, bool, Option<VolumeCounts>), EngineError> {
        authorize(ctx, policy::VOLUME_LIST, &Target::own(ctx))?;
        query.filter.project_id = viewer(ctx, query.all_projects, query.filter.project_id);
        let nothing = (Vec::new(), false, query.count.then(VolumeCounts::default));
        if let Some(name) = &query.node {
            let Some(node) = self.store().node_by_name(name).await? else { return Ok(nothing) };
            query.filter.node_id = Some(node.id);
        }
        if let Some(asked) = &query.volume_type {
            let id = match asked.parse() {
                Ok(id) => Some(id),
                Err(_) => self.store().volume_type_by_name(asked).await?.map(|t| t.id),
            };
            let Some(id) = id else { return Ok(nothing) };
            query.filter.volume_type_id = Some(id);
        }
        if let Some(marker) = query.filter.marker {
            self.volume_seen(self.store(), ctx, policy::VOLUME_SHOW, marker).await?;
        }
        let counts = if query.count { Some(self.store().volume_count(&query.filter).await?) } else { None };
        let limit = usize::try_from(query.filter.limit).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok((Vec::new(), false, counts));
        }
        let mut volumes = self.store().volume_list(&query.filter).await?;
        let full = volumes.len() >= limit;
        volumes.truncate(limit);
        Ok((self.volume_views(volumes).await?, full, counts))
    }

    /// How many volumes match, how large they are together, and the pairs in their metadata: at most
    /// [`SUMMARY_PAIRS_MAX`] of them.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_summary(
        &self,
        ctx: &OpCtx,
        mut query: VolumeQuery,
    ) -> Result<(VolumeCounts, Vec<(String, String)>), EngineError> {
        authorize(ctx, policy::VOLUME_LIST, &Target::own(ctx))?;
        query.filter.project_id = viewer(ctx, query.all_projects, query.filter.project_id);
        let counts = self.store().volume_count(&query.filter).await?;
        Ok((counts, self.store().volume_metadata_pairs(&query.filter, SUMMARY_PAIRS_MAX).await?))
    }
}
