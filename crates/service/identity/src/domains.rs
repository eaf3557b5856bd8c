//! Domains, and what a manager of one may reach.

use crate::builtin::id_of;
use crate::options::{self, PLACE_OPTIONS, extra_check, merged, options_check, options_merged};
use crate::{Identity, IdentityError, LIST_MAX, short_name_check, text_check};
use arcus_store::{Domain, DomainChange, DomainFilter, DomainKey, Extra, Revoked, RoleActor, RoleFilter};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{DomainId, Name, OpCtx, Role, Scope, Timestamp};
use serde_json::json;

/// A domain that somebody wants.
#[derive(Debug, Clone)]
pub struct DomainNew {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options.
    pub options: Extra,
}

/// The domain that a caller works in: that of its scope, or the first one.
pub(crate) fn domain_of(ctx: &OpCtx) -> DomainId {
    match ctx.scope {
        Scope::Project { domain_id, .. } | Scope::Domain { domain_id } => domain_id,
        Scope::Unscoped | Scope::System => DomainId::DEFAULT,
    }
}

impl Identity {
    /// Makes a domain.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken.
    pub async fn domain_create(&self, ctx: &OpCtx, new: DomainNew) -> Result<Domain, IdentityError> {
        authorize(ctx, policy::DOMAIN_CREATE, &Target::default())?;
        text_check(Some(&new.description))?;
        short_name_check(Some(&new.name))?;
        extra_check(&new.extra)?;
        options_check(&new.options, PLACE_OPTIONS)?;
        let domain = Domain {
            id: DomainId::new(),
            name: new.name,
            description: new.description,
            enabled: new.enabled,
            extra: new.extra,
            options: new.options,
            token_epoch: 0,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.domain_insert(&domain).await?;
        self.audit(&tx, policy::DOMAIN_CREATE, "domain", &domain.id, &json!({ "name": domain.name })).await?;
        self.commit(tx, &[]).await?;
        Ok(domain)
    }

    /// Domains: all for administrators, else the one that the caller's token is scoped to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn domain_list(&self, ctx: &OpCtx, mut filter: DomainFilter) -> Result<Vec<Domain>, IdentityError> {
        if !ctx.is_admin() {
            filter.id = Some(domain_of(ctx));
        }
        authorize(ctx, policy::DOMAIN_LIST, &Target::domain(domain_of(ctx)))?;
        Ok(self.store().domain_list(&filter).await?)
    }

    /// A domain. Whoever is in it, or in a project of it, may see it.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn domain_get(&self, ctx: &OpCtx, id: DomainId) -> Result<Domain, IdentityError> {
        let inside = matches!(ctx.scope, Scope::Project { domain_id, .. } if domain_id == id);
        if !inside {
            authorize(ctx, policy::DOMAIN_GET, &Target::domain(id))?;
        }
        self.domain_find(id).await
    }

    pub(crate) async fn domain_find(&self, id: DomainId) -> Result<Domain, IdentityError> {
        let found = self.store().domain_get(DomainKey::Id(id)).await?;
        found.ok_or_else(|| IdentityError::not_found("domain", id))
    }

    /// Whether this is the id of a domain.
    ///
    /// # Errors
    /// [`IdentityError::Store`].
    pub async fn is_domain(&self, id: DomainId) -> Result<bool, IdentityError> {
        Ok(self.store().domain_get(DomainKey::Id(id)).await?.is_some())
    }

    /// Changes a domain. Disabling it makes all tokens of its users and for its projects void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken,
    /// [`IdentityError::Forbidden`] for disabling the first domain.
    pub async fn domain_update(
        &self,
        ctx: &OpCtx,
        id: DomainId,
        mut change: DomainChange,
    ) -> Result<Domain, IdentityError> {
        authorize(ctx, policy::DOMAIN_UPDATE, &Target::domain(id))?;
        let before = self.domain_find(id).await?;
        change.extra = merged(before.extra, change.extra)?;
        change.options = options_merged(before.options, change.options, PLACE_OPTIONS)?;
        text_check(change.description.as_deref())?;
        short_name_check(change.name.as_ref())?;
        let disables = change.enabled == Some(false);
        if disables && id == DomainId::DEFAULT {
            return Err(IdentityError::Forbidden("The default domain cannot be disabled.".to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        if !tx.domain_update(id, &change).await? {
            return Err(IdentityError::not_found("domain", id));
        }
        let revocations = if disables { self.revoke(&tx, Revoked::Domain(id)).await? } else { Vec::new() };
        let detail = json!({ "name": change.name, "enabled": change.enabled });
        self.audit(&tx, policy::DOMAIN_UPDATE, "domain", &id, &detail).await?;
        self.commit(tx, &revocations).await?;
        self.domain_find(id).await
    }

    /// Deletes a disabled domain with its projects, users and groups.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] while it is enabled.
    pub async fn domain_delete(&self, ctx: &OpCtx, id: DomainId) -> Result<(), IdentityError> {
        authorize(ctx, policy::DOMAIN_DELETE, &Target::domain(id))?;
        let tx = self.store().begin(ctx).await?;
        let found = tx.domain_get(DomainKey::Id(id)).await?.ok_or_else(|| IdentityError::not_found("domain", id))?;
        options::immutable_check(&found.options)?;
        if found.enabled {
            return Err(IdentityError::Forbidden(
                "Cannot delete a domain that is enabled; disable it first.".to_owned(),
            ));
        }
        let mut revocations = self.revoke(&tx, Revoked::Domain(id)).await?;
        // Its roles go with it, which users of other domains may hold.
        let own = RoleFilter { domain_id: Some(Some(id)), limit: LIST_MAX, ..RoleFilter::default() };
        for role in tx.role_list(&own).await? {
            revocations.extend(self.revoke(&tx, Revoked::RoleHolders(role.id)).await?);
        }
        tx.domain_delete(id).await?;
        self.audit(&tx, policy::DOMAIN_DELETE, "domain", &id, &json!({ "name": found.name })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// Keeps a manager of a domain from taking over, by way of a user or group of that domain, what is not the domain's:
    /// administrators' and services' rights, and roles elsewhere.
    pub(crate) async fn reach_check(
        &self,
        ctx: &OpCtx,
        actor: RoleActor,
        domain_id: DomainId,
    ) -> Result<(), IdentityError> {
        if ctx.is_admin() {
            return Ok(());
        }
        let high = [id_of(Role::Admin), id_of(Role::Service)];
        if self.store().actor_reaches_beyond(actor, domain_id, &high).await? {
            let reason = "This user or group holds rights that a manager of its domain does not have.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        Ok(())
    }
}
