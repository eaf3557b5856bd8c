//! Quotas of a user inside a project: never more than the project's.

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Quota, QuotaResource, Tx};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{OpCtx, ProjectId, UserId};
use serde_json::json;

/// A user's quota that would be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserOver {
    pub resource: QuotaResource,
    pub cap: i64,
    pub used: u64,
}

impl Engine {
    /// The quotas that count for a user in a project, and what the user has.
    ///
    /// # Errors
    /// A refusal.
    pub async fn user_quota_show(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        user: UserId,
    ) -> Result<Vec<Quota>, EngineError> {
        let mut quotas = self.quota_show(ctx, project).await?;
        let own = self.store().user_quota_list(project, user).await?;
        let uses = self.store().user_use(project, user).await?;
        for quota in &mut quotas {
            if let Some((_, cap)) = own.iter().find(|(resource, _)| *resource == quota.resource) {
                quota.cap = *cap;
            }
            if let Some(used) = uses.of(quota.resource) {
                quota.used = i64::try_from(used).unwrap_or(i64::MAX);
            }
        }
        Ok(quotas)
    }

    /// Sets quotas of a user in a project, all or none. Unless `force` is set, one below what the user has is refused;
    /// one above the project's always is.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] or a refusal.
    pub async fn user_quota_update(
        &self,
        ctx: &OpCtx,
        project: ProjectId,
        user: UserId,
        caps: &[(QuotaResource, i64)],
        force: bool,
    ) -> Result<Vec<Quota>, EngineError> {
        authorize(ctx, compute::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let uses = tx.user_use(project, user).await?;
        let of_project = tx.quota_list(project, &caps.iter().map(|(r, _)| *r).collect::<Vec<_>>()).await?;
        for ((resource, cap), of_project) in caps.iter().zip(of_project) {
            let name = resource.name();
            let Some(used) = uses.of(*resource) else {
                return Err(EngineError::invalid(format!("{name} has no quota by user: set the project's.")));
            };
            let beyond = of_project.cap >= 0 && (*cap < 0 || *cap > of_project.cap);
            if beyond {
                return Err(EngineError::invalid(format!(
                    "Quota limit {cap} for {name} must be less than or equal to {}, the project's.",
                    of_project.cap
                )));
            }
            if !force && *cap >= 0 && u64::try_from(*cap).unwrap_or(0) < used {
                return Err(EngineError::invalid(format!(
                    "Quota limit {cap} for {name} must be greater than or equal to already used and reserved {used}."
                )));
            }
            tx.user_quota_set(project, user, *resource, *cap).await?;
        }
        let caps: Vec<_> = caps.iter().map(|(resource, cap)| (resource.name(), cap)).collect();
        self.user_quota_audited(&tx, project, &json!({ "user_id": user, "caps": caps })).await?;
        tx.commit().await?;
        self.user_quota_show(ctx, project, user).await
    }

    /// Takes a user's quotas in a project away.
    ///
    /// # Errors
    /// A refusal.
    pub async fn user_quota_reset(&self, ctx: &OpCtx, project: ProjectId, user: UserId) -> Result<(), EngineError> {
        authorize(ctx, compute::QUOTA_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        tx.user_quotas_delete(project, user).await?;
        self.user_quota_audited(&tx, project, &json!({ "user_id": user, "caps": "default" })).await?;
        Ok(tx.commit().await?)
    }

    async fn user_quota_audited(
        &self,
        tx: &Tx,
        project: ProjectId,
        detail: &serde_json::Value,
    ) -> Result<(), EngineError> {
        let id = project.to_string();
        let entry = AuditEntry { action: compute::QUOTA_WRITE, kind: "quota", id, project_id: Some(project), detail };
        Ok(tx.audit(entry).await?)
    }

    /// The most that a measure may be for a user in a project; `None` is no limit. Outside of any project it is what
    /// projects have from the beginning.
    pub(crate) async fn measure_cap(
        &self,
        db: &Db,
        project: Option<ProjectId>,
        user: Option<UserId>,
        measure: QuotaResource,
    ) -> Result<Option<u64>, EngineError> {
        debug_assert!(measure.is_measure(), "{} is claimed", measure.name());
        let quotas = match project {
            Some(project) => db.quota_list(project, &[measure]).await?,
            None => db.quota_defaults(&[measure]).await?,
        };
        let of_user = match (project, user) {
            (Some(project), Some(user)) => db.user_quota_list(project, user).await?,
            (None, _) | (_, None) => Vec::new(),
        };
        let own = of_user.iter().find(|(resource, _)| *resource == measure).map(|(_, cap)| *cap);
        let cap = own.or(quotas.first().map(|quota| quota.cap)).unwrap_or(measure.default_cap());
        Ok(u64::try_from(cap).ok())
    }

    /// Which quota of the user would be exceeded by `wanted`. The caller has claimed the project's before in this
    /// transaction: that row's lock keeps the user's other claims out until the commit.
    pub(crate) async fn user_quota_over(
        &self,
        tx: &Tx,
        project: ProjectId,
        user: UserId,
        wanted: &[(QuotaResource, u64)],
    ) -> Result<Option<UserOver>, EngineError> {
        let caps = tx.user_quota_list(project, user).await?;
        if caps.is_empty() {
            return Ok(None);
        }
        let uses = tx.user_use(project, user).await?;
        let over = |&(resource, amount): &(QuotaResource, u64)| {
            let (_, cap) = *caps.iter().find(|(capped, _)| *capped == resource)?;
            let used = uses.of(resource)?;
            let room = u64::try_from(cap).map_or(u64::MAX, |cap| cap.saturating_sub(used));
            (amount > room).then_some(UserOver { resource, cap, used })
        };
        Ok(wanted.iter().find_map(over))
    }
}

impl UserOver {
    /// The refusal.
    pub fn refusal(self, wanted: u64) -> EngineError {
        let (name, used, cap) = (self.resource.name(), self.used, self.cap);
        EngineError::OverQuota {
            code: "TooManyInstances",
            message: format!(
                "Quota exceeded for {name}: Requested {wanted}, but this user already used {used} of {cap} {name}"
            ),
        }
    }
}
