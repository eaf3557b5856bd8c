//! Limits and quotas as the compute API shows them, and how much projects have used.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Quota, QuotaResource, Server, ServerFilter, ServerSort, ServerVisibility};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{OpCtx, ProjectId, ServerId, Timestamp};
use serde_json::json;

/// The resources whose quotas the compute API keeps.
pub const COMPUTE_QUOTAS: &[QuotaResource] = &[
    QuotaResource::Instances,
    QuotaResource::Cores,
    QuotaResource::RamMib,
    QuotaResource::ServerGroups,
    QuotaResource::ServerGroupMembers,
    QuotaResource::MetadataItems,
    QuotaResource::KeyPairs,
    QuotaResource::InjectedFiles,
    QuotaResource::InjectedFileBytes,
    QuotaResource::InjectedFilePathBytes,
    QuotaResource::FixedIps,
];
/// Those that it also shows, for older clients, and the network API keeps.
pub const NETWORK_QUOTAS: &[QuotaResource] =
    &[QuotaResource::FloatingIps, QuotaResource::SecurityGroups, QuotaResource::SecurityGroupRules];
impl Engine {
    /// A project's quotas of compute and network resources; the caller's own project by default.
    ///
    /// # Errors
    /// A refusal.
    pub async fn limits(&self, ctx: &OpCtx, project: Option<ProjectId>) -> Result<Vec<Quota>, EngineError> {
        let Some(project) = project.or(ctx.project_id()) else {
            authorize(ctx, compute::LIMITS, &Target::own(ctx))?;
            return Err(EngineError::invalid("Limits are those of a project: use a project's token."));
        };
        authorize(ctx, compute::LIMITS, &Target::project(project)).map_err(visible)?;
        self.quotas_of(project).await
    }

    async fn quotas_of(&self, project: ProjectId) -> Result<Vec<Quota>, EngineError> {
        let all: Vec<QuotaResource> = COMPUTE_QUOTAS.iter().chain(NETWORK_QUOTAS).copied().collect();
        Ok(self.store().quota_list(project, &all).await?)
    }

    /// A project's quotas.
    ///
    /// # Errors
    /// A refusal.
    pub async fn quota_show(&self, ctx: &OpCtx, project: ProjectId) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_SHOW, &Target::project(project)).map_err(visible)?;
        self.quotas_of(project).await
    }

    /// What a project may have unless its quota says otherwise.
    ///
    /// # Errors
    /// A refusal.
    pub async fn quota_defaults(&self, ctx: &OpCtx) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_DEFAULTS, &Target::own(ctx))?;
        self.compute_defaults().await
    }

    async fn compute_defaults(&self) -> Result<Vec<Quota>, EngineError> {
        let all: Vec<QuotaResource> = COMPUTE_QUOTAS.iter().chain(NETWORK_QUOTAS).copied().collect();
        Ok(self.store().quota_defaults(&all).await?)
    }

    /// The same, for administrators who may change it.
    ///
    /// # Errors
    /// A refusal.
    pub async fn quota_class_show(&self, ctx: &OpCtx) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_CLASS, &Target::default())?;
        self.compute_defaults().await
    }

    /// Sets what projects may have unless their quotas say otherwise.
    ///
    /// # Errors
    /// A refusal.
    pub async fn quota_class_update(
        &self,
        ctx: &OpCtx,
        caps: &[(QuotaResource, i64)],
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_CLASS_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for (resource, cap) in caps {
            tx.quota_default_set(*resource, Some(*cap)).await?;
        }
        tx.audit(AuditEntry {
            action: compute::QUOTA_CLASS_WRITE,
            kind: "quota_class",
            id: "default".to_owned(),
            project_id: None,
            detail: &json!({ "caps": caps.iter().map(|(r, c)| (r.name(), c)).collect::<Vec<_>>() }),
        })
        .await?;
        tx.commit().await?;
        self.compute_defaults().await
    }

    /// Sets quotas of a project, all or none. Unless `force` is set, one below what is used is refused.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] or a refusal.
    pub async fn quota_update(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        caps: &[(QuotaResource, i64)],
        force: bool,
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let present = tx.quota_list(project, &caps.iter().map(|(r, _)| *r).collect::<Vec<_>>()).await?;
        for (quota, (resource, cap)) in present.iter().zip(caps) {
            if *cap < -1 {
                return Err(EngineError::invalid("Quota limit must be -1 or greater."));
            }
            if !force && *cap >= 0 && *cap < quota.used {
                return Err(EngineError::invalid(format!(
                    "Quota limit {cap} for {} must be greater than or equal to already used and reserved {}.",
                    resource.name(),
                    quota.used
                )));
            }
            tx.quota_set(project, *resource, Some(*cap)).await?;
        }
        self.quota_audited(
            &tx,
            project,
            &json!({ "caps": caps.iter().map(|(r, c)| (r.name(), c)).collect::<Vec<_>>() }),
        )
        .await?;
        tx.commit().await?;
        self.quotas_of(project).await
    }

    /// Gives a project the default quotas again.
    ///
    /// # Errors
    /// A refusal.
    pub async fn quota_reset(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, compute::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        for resource in COMPUTE_QUOTAS {
            tx.quota_set(project, *resource, None).await?;
        }
        self.quota_audited(&tx, project, &json!({ "caps": "default" })).await?;
        Ok(tx.commit().await?)
    }

    async fn quota_audited(
        &self,
        tx: &arcus_store::Tx,
        project: ProjectId,
        detail: &serde_json::Value,
    ) -> Result<(), EngineError> {
        tx.audit(AuditEntry {
            action: compute::QUOTA_WRITE,
            kind: "quota",
            id: project.to_string(),
            project_id: Some(project),
            detail,
        })
        .await?;
        Ok(())
    }

    /// The servers that a project, or every project, had at some time between two instants, the oldest first, and
    /// whether more follow.
    ///
    /// # Errors
    /// A refusal.
    pub async fn usage_servers(
        &self,
        ctx: &OpCtx,
        project: Option<ProjectId>,
        from: Timestamp,
        to: Timestamp,
        (limit, marker): (u64, Option<ServerId>),
    ) -> Result<(Vec<Server>, bool), EngineError> {
        match project {
            Some(project) => {
                authorize(ctx, compute::USAGE_SHOW, &Target::project(project)).map_err(visible)?;
            }
            None => authorize(ctx, compute::USAGE_LIST, &Target::default())?,
        }
        let filter = ServerFilter {
            project_id: project,
            visibility: ServerVisibility::All,
            sort: vec![(ServerSort::CreatedAt, false)],
            existed: Some((from, to)),
            limit,
            marker,
            ..ServerFilter::default()
        };
        if let Some(marker) = marker
            && self.store().server_get(marker).await?.is_none()
        {
            return Err(EngineError::invalid(format!("marker [{marker}] not found")));
        }
        let mut servers = self.store().server_list(&filter).await?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = servers.len() > keep;
        servers.truncate(keep);
        Ok((servers, more))
    }
}

/// Another project's figures are refused, not hidden: its id is known to the caller.
fn visible(denied: arcus_types::policy::Denied) -> arcus_types::policy::Denied {
    match denied {
        arcus_types::policy::Denied::Hidden => arcus_types::policy::Denied::Forbidden("compute:quotas:show"),
        other => other,
    }
}
