//! Quotas of volumes, snapshots and their size: of projects, and of everybody unless a project has its own.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Quota, QuotaResource, Tx, TypeQuota, TypeQuotaKind};
use arcus_types::policy::{Action, Denied, Target, authorize, volume as policy};
use arcus_types::{OpCtx, ProjectId, VolumeTypeId};
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

/// Quotas of volumes: of all types together, and of each.
#[derive(Debug, Clone)]
pub struct VolumeQuotas {
    /// Of all types together.
    pub all: Vec<Quota>,
    /// Of each type.
    pub by_type: Vec<TypeQuota>,
}

/// Quotas that are set; -1 is no limit.
#[derive(Debug, Clone, Default)]
pub struct VolumeCaps {
    /// Of all types together.
    pub all: Vec<(QuotaResource, i64)>,
    /// Of one type, by its name.
    pub by_type: Vec<(TypeQuotaKind, String, i64)>,
}

fn named(caps: &VolumeCaps) -> Value {
    let all = caps.all.iter().map(|(r, c)| (r.name().to_owned(), *c));
    let by_type = caps.by_type.iter().map(|(kind, of, c)| (format!("{}_{of}", kind.name()), *c));
    json!({ "caps": all.chain(by_type).collect::<Vec<_>>() })
}

/// The caps of types with the types' ids.
async fn of_types(tx: &Tx, caps: &VolumeCaps) -> Result<Vec<(TypeQuotaKind, VolumeTypeId, i64)>, EngineError> {
    let mut found = Vec::new();
    for (kind, name, cap) in &caps.by_type {
        let of = tx.volume_type_by_name(name).await?;
        let of = of.ok_or_else(|| {
            let name: String = name.chars().take(64).collect();
            EngineError::invalid(format!("'{}_{name}' is no quota: there is no volume type {name}.", kind.name()))
        })?;
        found.push((*kind, of.id, *cap));
    }
    Ok(found)
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
    pub async fn volume_quota_show(&self, ctx: &OpCtx, project: ProjectId) -> Result<VolumeQuotas, EngineError> {
        authorize(ctx, policy::QUOTA_SHOW, &Target::project(project)).map_err(visible)?;
        self.volume_quotas_of(project).await
    }

    async fn volume_quotas_of(&self, project: ProjectId) -> Result<VolumeQuotas, EngineError> {
        let all = self.store().quota_list(project, VOLUME_QUOTAS).await?;
        Ok(VolumeQuotas { all, by_type: self.store().type_quota_list(project).await? })
    }

    async fn volume_quotas_of_everybody(&self) -> Result<VolumeQuotas, EngineError> {
        let all = self.store().quota_defaults(VOLUME_QUOTAS).await?;
        Ok(VolumeQuotas { all, by_type: self.store().type_quota_defaults().await? })
    }

    /// What a project has unless it has quotas of its own, for somebody who may see the project's.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_defaults(&self, ctx: &OpCtx, project: ProjectId) -> Result<VolumeQuotas, EngineError> {
        authorize(ctx, policy::QUOTA_SHOW, &Target::project(project)).map_err(visible)?;
        self.volume_quotas_of_everybody().await
    }

    /// Sets quotas of a project, all or none; -1 is no limit. What is used already may be more: then nothing is added.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a type that is not there, or a refusal.
    pub async fn volume_quota_update(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        caps: &VolumeCaps,
    ) -> Result<VolumeQuotas, EngineError> {
        authorize(ctx, policy::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for (resource, cap) in &caps.all {
            tx.quota_set(project, *resource, Some(*cap)).await?;
        }
        for (kind, id, cap) in of_types(&tx, caps).await? {
            tx.type_quota_set(Some(project), kind, id, Some(cap)).await?;
        }
        audit(&tx, policy::QUOTA_WRITE, Some(project), &named(caps)).await?;
        tx.commit().await?;
        self.volume_quotas_of(project).await
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
        tx.type_quota_reset(project).await?;
        audit(&tx, policy::QUOTA_WRITE, Some(project), &json!({ "caps": "default" })).await?;
        Ok(tx.commit().await?)
    }

    /// The quotas that projects have unless they have their own.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_class_show(&self, ctx: &OpCtx) -> Result<VolumeQuotas, EngineError> {
        authorize(ctx, policy::QUOTA_CLASS_SHOW, &Target::default())?;
        self.volume_quotas_of_everybody().await
    }

    /// Sets the quotas that projects have unless they have their own.
    ///
    /// # Errors
    /// A refusal.
    pub async fn volume_quota_class_update(&self, ctx: &OpCtx, caps: &VolumeCaps) -> Result<VolumeQuotas, EngineError> {
        authorize(ctx, policy::QUOTA_CLASS_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for (resource, cap) in &caps.all {
            tx.quota_default_set(*resource, Some(*cap)).await?;
        }
        for (kind, id, cap) in of_types(&tx, caps).await? {
            tx.type_quota_set(None, kind, id, Some(cap)).await?;
        }
        audit(&tx, policy::QUOTA_CLASS_WRITE, None, &named(caps)).await?;
        tx.commit().await?;
        self.volume_quotas_of_everybody().await
    }
}
