//! Unified limits as a store: what services outside of this cloud may read. Our own quotas are set by the services' own
//! calls and do not follow from these.

use crate::{Identity, IdentityError, text_check};
use arcus_store::{LimitEntry, LimitFilter, LimitOwner, RegisteredLimit};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{DomainId, LimitId, OpCtx, ProjectId, RegisteredLimitId, Scope, ServiceId};
use serde_json::json;

/// The most of one resource. Source: Keystone's schema of limits.
const LIMIT_MAX: i64 = 0x7fff_ffff;

/// A default that somebody wants.
#[derive(Debug, Clone)]
pub struct RegisteredLimitNew {
    /// The service that it is for.
    pub service_id: ServiceId,
    /// The region.
    pub region_id: Option<String>,
    /// What is limited.
    pub resource_name: String,
    /// How much; -1: no limit.
    pub default_limit: i64,
    /// What it is for.
    pub description: Option<String>,
}

/// A limit that somebody wants.
#[derive(Debug, Clone)]
pub struct LimitNew {
    /// The service.
    pub service_id: ServiceId,
    /// The region.
    pub region_id: Option<String>,
    /// What is limited.
    pub resource_name: String,
    /// Whose; exactly one of both.
    pub project_id: Option<ProjectId>,
    /// Whose; exactly one of both.
    pub domain_id: Option<DomainId>,
    /// How much; -1: no limit.
    pub resource_limit: i64,
    /// What it is for.
    pub description: Option<String>,
}

fn number_check(limit: i64) -> Result<(), IdentityError> {
    if (-1..=LIMIT_MAX).contains(&limit) {
        return Ok(());
    }
    Err(IdentityError::Invalid(format!("A limit is between -1, which means none, and {LIMIT_MAX}.")))
}

impl Identity {
    fn registered_check(&self, limit: &RegisteredLimit) -> Result<(), IdentityError> {
        let invalid = |text: String| Err(IdentityError::Invalid(text));
        text_check(limit.description.as_deref())?;
        number_check(limit.default_limit)?;
        if limit.resource_name.is_empty() || limit.resource_name.len() > 255 {
            return invalid("A resource's name holds 1 to 255 bytes.".to_owned());
        }
        let catalog = self.catalog();
        if catalog.service(limit.service_id).is_err() {
            return invalid(format!("There is no service {}.", limit.service_id));
        }
        match &limit.region_id {
            Some(id) if catalog.region(id).is_err() => invalid(format!("There is no region {id}.")),
            Some(_) | None => Ok(()),
        }
    }

    /// Registers defaults, all or none.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] for what has a default, [`IdentityError::Invalid`].
    pub async fn registered_limits_create(
        &self,
        ctx: &OpCtx,
        new: Vec<RegisteredLimitNew>,
    ) -> Result<Vec<RegisteredLimit>, IdentityError> {
        authorize(ctx, policy::REGISTERED_LIMIT_CREATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let mut made = Vec::with_capacity(new.len());
        for RegisteredLimitNew { service_id, region_id, resource_name, default_limit, description } in new {
            let id = RegisteredLimitId::new();
            let limit = RegisteredLimit { id, service_id, region_id, resource_name, default_limit, description };
            self.registered_check(&limit)?;
            tx.registered_limit_insert(&limit).await?;
            let detail = json!({ "resource_name": limit.resource_name });
            self.audit(&tx, policy::REGISTERED_LIMIT_CREATE, "registered_limit", &id, &detail).await?;
            made.push(limit);
        }
        self.commit(tx, &[]).await?;
        Ok(made)
    }

    /// Defaults.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn registered_limit_list(
        &self,
        ctx: &OpCtx,
        filter: &LimitFilter,
    ) -> Result<Vec<RegisteredLimit>, IdentityError> {
        authorize(ctx, policy::REGISTERED_LIMIT_GET, &Target::default())?;
        Ok(self.store().registered_limit_list(filter).await?)
    }

    /// A default.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn registered_limit_get(
        &self,
        ctx: &OpCtx,
        id: RegisteredLimitId,
    ) -> Result<RegisteredLimit, IdentityError> {
        authorize(ctx, policy::REGISTERED_LIMIT_GET, &Target::default())?;
        let found = self.store().registered_limit_get(id).await?;
        found.ok_or_else(|| IdentityError::not_found("registered limit", id))
    }

    /// Replaces a default.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`], [`IdentityError::Invalid`].
    pub async fn registered_limit_update(
        &self,
        ctx: &OpCtx,
        now: RegisteredLimit,
    ) -> Result<RegisteredLimit, IdentityError> {
        authorize(ctx, policy::REGISTERED_LIMIT_UPDATE, &Target::default())?;
        self.registered_check(&now)?;
        let tx = self.store().begin(ctx).await?;
        if !tx.registered_limit_update(&now).await? {
            return Err(IdentityError::not_found("registered limit", now.id));
        }
        let detail = json!({ "default_limit": now.default_limit });
        self.audit(&tx, policy::REGISTERED_LIMIT_UPDATE, "registered_limit", &now.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(now)
    }

    /// Deletes a default whose place no limit takes.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] while limits take its place.
    pub async fn registered_limit_delete(&self, ctx: &OpCtx, id: RegisteredLimitId) -> Result<(), IdentityError> {
        authorize(ctx, policy::REGISTERED_LIMIT_DELETE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        match tx.registered_limit_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(IdentityError::not_found("registered limit", id)),
            Err(arcus_store::StoreError::Referenced(_)) => {
                return Err(IdentityError::Forbidden(
                    "Limits of projects or domains take the place of this default; delete them first.".to_owned(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        self.audit(&tx, policy::REGISTERED_LIMIT_DELETE, "registered_limit", &id, &json!({})).await?;
        Ok(self.commit(tx, &[]).await?)
    }

    /// Sets limits, all or none.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] for one that is there, [`IdentityError::Invalid`] for what
    /// has no default.
    pub async fn limits_create(&self, ctx: &OpCtx, new: Vec<LimitNew>) -> Result<Vec<LimitEntry>, IdentityError> {
        authorize(ctx, policy::LIMIT_CREATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let mut made = Vec::with_capacity(new.len());
        for wanted in new {
            number_check(wanted.resource_limit)?;
            text_check(wanted.description.as_deref())?;
            let owner = match (wanted.project_id, wanted.domain_id) {
                (Some(id), None) => LimitOwner::Project(id),
                (None, Some(id)) => LimitOwner::Domain(id),
                (Some(_), Some(_)) | (None, None) => {
                    let text = "A limit is either a project's or a domain's.";
                    return Err(IdentityError::Invalid(text.to_owned()));
                }
            };
            let filter = LimitFilter {
                service_id: Some(wanted.service_id),
                resource_name: Some(wanted.resource_name.clone()),
                limit: crate::LIST_MAX,
                ..LimitFilter::default()
            };
            let found = tx.registered_limit_list(&filter).await?;
            let registered = found.into_iter().find(|r| r.region_id == wanted.region_id).ok_or_else(|| {
                IdentityError::Invalid(format!("There is no registered limit for {}.", wanted.resource_name))
            })?;
            let (resource_limit, description) = (wanted.resource_limit, wanted.description);
            let limit = LimitEntry { id: LimitId::new(), registered, owner, resource_limit, description };
            tx.limit_insert(&limit).await?;
            let detail = json!({ "resource_name": limit.registered.resource_name, "limit": resource_limit });
            self.audit(&tx, policy::LIMIT_CREATE, "limit", &limit.id, &detail).await?;
            made.push(limit);
        }
        self.commit(tx, &[]).await?;
        Ok(made)
    }

    /// Limits: all for administrators, else those of the caller's project or domain.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn limit_list(&self, ctx: &OpCtx, mut filter: LimitFilter) -> Result<Vec<LimitEntry>, IdentityError> {
        authorize(ctx, policy::LIMIT_LIST, &Target::default())?;
        if !ctx.is_admin() {
            match ctx.scope {
                Scope::Project { project_id, .. } => filter.project_id = Some(project_id),
                Scope::Domain { domain_id } => filter.domain_id = Some(domain_id),
                Scope::Unscoped | Scope::System => return Ok(Vec::new()),
            }
        }
        Ok(self.store().limit_list(&filter).await?)
    }

    /// A limit: for administrators and in the project or domain that it is for.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn limit_get(&self, ctx: &OpCtx, id: LimitId) -> Result<LimitEntry, IdentityError> {
        authorize(ctx, policy::LIMIT_LIST, &Target::default())?;
        let found = self.store().limit_get(id).await?.filter(|limit| {
            ctx.is_admin()
                || match (limit.owner, ctx.scope) {
                    (LimitOwner::Project(owner), Scope::Project { project_id, .. }) => owner == project_id,
                    (LimitOwner::Domain(owner), Scope::Domain { domain_id }) => owner == domain_id,
                    (LimitOwner::Project(_) | LimitOwner::Domain(_), _) => false,
                }
        });
        found.ok_or_else(|| IdentityError::not_found("limit", id))
    }

    /// Changes how much.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Invalid`].
    pub async fn limit_update(
        &self,
        ctx: &OpCtx,
        id: LimitId,
        resource_limit: Option<i64>,
        description: Option<String>,
    ) -> Result<LimitEntry, IdentityError> {
        authorize(ctx, policy::LIMIT_UPDATE, &Target::default())?;
        number_check(resource_limit.unwrap_or_default())?;
        text_check(description.as_deref())?;
        let tx = self.store().begin(ctx).await?;
        if !tx.limit_update(id, resource_limit, description.as_deref()).await? {
            return Err(IdentityError::not_found("limit", id));
        }
        self.audit(&tx, policy::LIMIT_UPDATE, "limit", &id, &json!({ "limit": resource_limit })).await?;
        self.commit(tx, &[]).await?;
        self.limit_get(ctx, id).await
    }

    /// Deletes a limit, so that the default is meant again.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn limit_delete(&self, ctx: &OpCtx, id: LimitId) -> Result<(), IdentityError> {
        authorize(ctx, policy::LIMIT_DELETE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        if !tx.limit_delete(id).await? {
            return Err(IdentityError::not_found("limit", id));
        }
        self.audit(&tx, policy::LIMIT_DELETE, "limit", &id, &json!({})).await?;
        Ok(self.commit(tx, &[]).await?)
    }
}
