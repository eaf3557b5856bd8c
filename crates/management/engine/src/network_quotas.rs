//! The network API's quotas.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Quota, QuotaResource};
use arcus_types::policy::{Target, authorize, network as policy};
use arcus_types::{OpCtx, ProjectId};
use serde_json::{Value, json};

/// What the network API has quotas of.
pub const NETWORK_QUOTAS: &[QuotaResource] = &[
    QuotaResource::Networks,
    QuotaResource::Subnets,
    QuotaResource::SubnetPools,
    QuotaResource::Ports,
    QuotaResource::Routers,
    QuotaResource::FloatingIps,
    QuotaResource::SecurityGroups,
    QuotaResource::SecurityGroupRules,
    QuotaResource::RbacPolicies,
];

impl Engine {
    /// A project's quotas, with what is used.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_quota_get(&self, ctx: &OpCtx, project: ProjectId) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_GET, &Target::project(project))?;
        Ok(self.store().quota_list(project, NETWORK_QUOTAS).await?)
    }

    /// The projects whose quotas differ from the cloud's, with them.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_quota_list(&self, ctx: &OpCtx) -> Result<Vec<(ProjectId, Vec<Quota>)>, EngineError> {
        authorize(ctx, policy::QUOTA_LIST, &Target::default())?;
        Ok(self.store().quota_list_of_all(NETWORK_QUOTAS).await?)
    }

    /// Sets a project's quotas; -1 is no limit. With `check_limit` none may be below what is used.
    ///
    /// # Errors
    /// Policy, 400 for a number that cannot be.
    pub async fn network_quota_update(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        caps: &[(QuotaResource, i64)],
        check_limit: bool,
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, policy::QUOTA_UPDATE, &Target::project(project))?;
        let tx = self.store().begin(ctx).await?;
        let mut detail = serde_json::Map::new();
        let present = tx.quota_list(project, NETWORK_QUOTAS).await?;
        for (resource, cap) in caps {
            let used = present.iter().find(|quota| quota.resource == *resource).map_or(0, |quota| quota.used);
            if check_limit && (0..used).contains(cap) {
                return Err(EngineError::Invalid {
                    code: "QuotaLimitBelowUsage",
                    message: format!("The quota of {} cannot be {cap}: {used} are in use.", resource.name()),
                });
            }
            if *cap < -1 {
                return Err(EngineError::invalid(format!(
                    "A quota is -1 (no limit) or more: {} is {cap}.",
                    resource.name()
                )));
            }
            tx.quota_set(project, *resource, Some(*cap)).await?;
            detail.insert(resource.name().to_owned(), json!(cap));
        }
        let entry = AuditEntry {
            action: policy::QUOTA_UPDATE,
            kind: "quota",
            id: project.to_string(),
            project_id: Some(project),
            detail: &Value::Object(detail),
        };
        tx.audit(entry).await?;
        let quotas = tx.quota_list(project, NETWORK_QUOTAS).await?;
        tx.commit().await?;
        Ok(quotas)
    }

    /// Gives a project the cloud's quotas again.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_quota_delete(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, policy::QUOTA_DELETE, &Target::project(project))?;
        let tx = self.store().begin(ctx).await?;
        for resource in NETWORK_QUOTAS {
            tx.quota_set(project, *resource, None).await?;
        }
        let entry = AuditEntry {
            action: policy::QUOTA_DELETE,
            kind: "quota",
            id: project.to_string(),
            project_id: Some(project),
            detail: &json!({}),
        };
        tx.audit(entry).await?;
        tx.commit().await?;
        Ok(())
    }
}
