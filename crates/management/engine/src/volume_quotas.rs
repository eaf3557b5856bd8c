//! Quotas of volumes, snapshots and their size: of projects, and of everybody unless a project has its own.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Quota, QuotaResource, Tx};
use arcus_types::policy::{Action, Denied, Target, authorize, volume as policy};
use arcus_types::{OpCtx, ProjectId};
use serde_json::{Value, json};

/// The resources whose quotas the volume API keeps.
pub const VOLUME_QUOTAS: &[QuotaResource] = &[
    QuotaResource::Volumes,
    QuotaResource::VolumeSnapshots,
    QuotaResource::VolumeGigabytes,
    QuotaResource::VolumeGigabytesEach,
    QuotaResource::VolumeBackups,
    QuotaResource::VolumeBackupGigabytes,
    QuotaResource::VolumeGroups,
];

/// Another project's figures are refused, not hidden: its id is known to the caller.
fn visible(denied: Denied) -> Denied {
    match denied {
        Denied::Hidden => Denied::Forbidden(policy::QUOTA_SHOW.name),
        other @ (Denied::Anonymous | Denied::Forbidden(_)) => other,
    }
}

async fn audit(tx: &Tx, action: Action, project: Option<ProjectId>, detail: &Value) -> Result<(), EngineError> {
    let id = project.map_or_else(|| "default".to_owned(), |p| p.to_string());
    Ok(tx.audit(AuditEntry { action, kind: "quota", id, project_id: project, detail }).await?)
}

fn named(caps: &[(QuotaResource, i64)]) -> Value {
    json!({ "caps": caps.iter().map(|(r, c)| (r.name(), c)).collect::<Vec<_>>() })
}

impl Engine {
    /// A project's quotas of volumes; the caller's own project by default.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] if there is no project, or a refusal.
    pub async fn volume_limits(&self, ctx: &OpCtx, project: Option<ProjectId>) -> Result<Vec<Quota>, EngineError> {
        let Some(project) = project.or(ctx.project_id()) else {
            authorize(ctx, policy::LIMITS, &Target::own(ctx))?;
            return Err(EngineError::invalid("Limits are those of a project: use a project's token."));
        };
        authorize(ctx, policy::LIMITS, &Target::project(project)).map_err(visible)?;
        Ok(self.store().quota_list(project, VOLUME_QUOTAS).await?)
    }

    /// A project's quotas of volumes.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_show(&self, ctx: &OpCtx, project: ProjectId) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_SHOW, &Target::project(project)).map_err(visible)?;
        Ok(self.store().quota_list(project, VOLUME_QUOTAS).await?)
    }

    /// What a project has unless it has quotas of its own, for somebody who may see the project's.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_defaults(&self, ctx: &OpCtx, project: ProjectId) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_SHOW, &Target::project(project)).map_err(visible)?;
        Ok(self.store().quota_defaults(VOLUME_QUOTAS).await?)
    }

    /// Sets quotas of a project, all or none; -1 is no limit. What is used already may be more: then nothing is added.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_update(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        caps: &[(QuotaResource, i64)],
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for (resource, cap) in caps {
            tx.quota_set(project, *resource, Some(*cap)).await?;
        }
        audit(&tx, policy::QUOTA_WRITE, Some(project), &named(caps)).await?;
        tx.commit().await?;
        Ok(self.store().quota_list(project, VOLUME_QUOTAS).await?)
    }

    /// Gives a project the default quotas again.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_reset(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, policy::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for resource in VOLUME_QUOTAS {
            tx.quota_set(project, *resource, None).await?;
        }
        audit(&tx, policy::QUOTA_WRITE, Some(project), &json!({ "caps": "default" })).await?;
        Ok(tx.commit().await?)
    }

    /// The quotas that projects have unless they have their own.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_class_show(&self, ctx: &OpCtx) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_CLASS_SHOW, &Target::default())?;
        Ok(self.store().quota_defaults(VOLUME_QUOTAS).await?)
    }

    /// Sets the quotas that projects have unless they have their own.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_class_update(
        &self,
        ctx: &OpCtx,
        caps: &[(QuotaResource, i64)],
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_CLASS_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for (resource, cap) in caps {
            tx.quota_default_set(*resource, Some(*cap)).await?;
        }
        audit(&tx, policy::QUOTA_CLASS_WRITE, None, &named(caps)).await?;
        tx.commit().await?;
        Ok(self.store().quota_defaults(VOLUME_QUOTAS).await?)
    }
}
