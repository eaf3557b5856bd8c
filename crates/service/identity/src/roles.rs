//! Roles, and which of them imply others. The built-in ones carry rights and stay as they are; others may be made, of the
//! whole cloud or of one domain, and grant what they imply.

use crate::builtin::{BUILTIN, IMPLIED, id_of};
use crate::options::{self, PLACE_OPTIONS, options_check, options_merged};
use crate::{Identity, IdentityError, LIST_MAX, text_check};
use arcus_store::{Extra, Implication, Revoked, RoleChange, RoleEntry, RoleFilter};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{DomainId, Name, OpCtx, RoleId, Timestamp};
use serde_json::json;

/// A role that somebody wants.
#[derive(Debug, Clone)]
pub struct RoleNew {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub description: Option<String>,
    /// The domain that it belongs to; `None`: the whole cloud.
    pub domain_id: Option<DomainId>,
    /// Options.
    pub options: Extra,
}

impl Identity {
    /// Makes a role.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken, [`IdentityError::NotFound`] for a
    /// domain that is not there.
    pub async fn role_create(&self, ctx: &OpCtx, new: RoleNew) -> Result<RoleEntry, IdentityError> {
        authorize(ctx, policy::ROLE_CREATE, &Target::default())?;
        text_check(new.description.as_deref())?;
        options_check(&new.options, PLACE_OPTIONS)?;
        if let Some(id) = new.domain_id {
            self.domain_find(id).await?;
        }
        let role = RoleEntry {
            id: RoleId::new(),
            domain_id: new.domain_id,
            name: new.name,
            description: new.description,
            builtin: false,
            options: new.options,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.role_insert(&role).await?;
        let detail = json!({ "name": role.name, "domain_id": role.domain_id });
        self.audit(&tx, policy::ROLE_CREATE, "role", &role.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(role)
    }

    /// Roles.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn role_list(&self, ctx: &OpCtx, filter: &RoleFilter) -> Result<Vec<RoleEntry>, IdentityError> {
        authorize(ctx, policy::ROLE_LIST, &Target::default())?;
        Ok(self.store().role_list(filter).await?)
    }

    /// A role.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn role_get(&self, ctx: &OpCtx, id: RoleId) -> Result<RoleEntry, IdentityError> {
        authorize(ctx, policy::ROLE_GET, &Target::default())?;
        self.role_find(id).await
    }

    pub(crate) async fn role_find(&self, id: RoleId) -> Result<RoleEntry, IdentityError> {
        self.store().role_get(id).await?.ok_or_else(|| IdentityError::not_found("role", id))
    }

    /// Changes a role.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken,
    /// [`IdentityError::Forbidden`] for a built-in or immutable role.
    pub async fn role_update(
        &self,
        ctx: &OpCtx,
        id: RoleId,
        mut change: RoleChange,
    ) -> Result<RoleEntry, IdentityError> {
        authorize(ctx, policy::ROLE_UPDATE, &Target::default())?;
        text_check(change.description.as_ref().and_then(|d| d.as_deref()))?;
        builtin_check(id)?;
        let before = self.role_find(id).await?;
        change.options = options_merged(before.options, change.options, PLACE_OPTIONS)?;
        let tx = self.store().begin(ctx).await?;
        if !tx.role_update(id, &change).await? {
            return Err(IdentityError::not_found("role", id));
        }
        self.audit(&tx, policy::ROLE_UPDATE, "role", &id, &json!({ "name": change.name })).await?;
        self.commit(tx, &[]).await?;
        self.role_find(id).await
    }

    /// Deletes a role with its assignments; tokens of all who hold it become void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] for a built-in or immutable
    /// role.
    pub async fn role_delete(&self, ctx: &OpCtx, id: RoleId) -> Result<(), IdentityError> {
        authorize(ctx, policy::ROLE_DELETE, &Target::default())?;
        builtin_check(id)?;
        options::immutable_check(&self.role_find(id).await?.options)?;
        let tx = self.store().begin(ctx).await?;
        let revocations = self.revoke(&tx, Revoked::RoleHolders(id)).await?;
        if !tx.role_delete(id).await? {
            return Err(IdentityError::not_found("role", id));
        }
        self.audit(&tx, policy::ROLE_DELETE, "role", &id, &json!({})).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// Which roles a role directly implies; without a role, all pairs.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn implications(&self, ctx: &OpCtx, prior: Option<RoleId>) -> Result<Vec<Implication>, IdentityError> {
        authorize(ctx, policy::ROLE_LIST, &Target::default())?;
        Ok(self.store().implication_list(prior, LIST_MAX).await?)
    }

    /// Lets whoever holds one role hold another one too.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] for a role of the cloud that
    /// would imply one of a domain, [`IdentityError::Invalid`] for a circle.
    pub async fn implication_create(
        &self,
        ctx: &OpCtx,
        prior: RoleId,
        implied: RoleId,
    ) -> Result<Implication, IdentityError> {
        authorize(ctx, policy::ROLE_UPDATE, &Target::default())?;
        let (above, below) = (self.role_find(prior).await?, self.role_find(implied).await?);
        if above.domain_id.is_none() && below.domain_id.is_some() {
            let reason = "A role of the whole cloud cannot imply a role of one domain.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let admin = BUILTIN.iter().any(|b| b.id == implied && b.role == arcus_types::Role::Admin);
        if admin {
            return Err(IdentityError::Forbidden("No role can imply admin.".to_owned()));
        }
        if prior == implied || self.store().role_leads_to(implied, prior).await? {
            return Err(IdentityError::Invalid("Roles cannot imply each other in a circle.".to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        tx.implication_insert(prior, implied).await?;
        self.audit(&tx, policy::ROLE_UPDATE, "role", &prior, &json!({ "implies": implied })).await?;
        self.commit(tx, &[]).await?;
        let side = |role: RoleEntry| (role.id, role.name, role.domain_id);
        Ok(Implication { prior: side(above), implied: side(below) })
    }

    /// Ends that; tokens of all who hold the first role become void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] for what is built in.
    pub async fn implication_delete(&self, ctx: &OpCtx, prior: RoleId, implied: RoleId) -> Result<(), IdentityError> {
        authorize(ctx, policy::ROLE_UPDATE, &Target::default())?;
        if IMPLIED.iter().any(|(a, b)| (id_of(*a), id_of(*b)) == (prior, implied)) {
            return Err(IdentityError::Forbidden("What built-in roles imply is immutable.".to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        if !tx.implication_delete(prior, implied).await? {
            return Err(IdentityError::not_found("role inference", format!("{prior} implies {implied}")));
        }
        let revocations = self.revoke(&tx, Revoked::RoleHolders(prior)).await?;
        self.audit(&tx, policy::ROLE_UPDATE, "role", &prior, &json!({ "implies_no_more": implied })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }
}

fn builtin_check(id: RoleId) -> Result<(), IdentityError> {
    match BUILTIN.iter().find(|b| b.id == id) {
        Some(role) => Err(IdentityError::Forbidden(format!("The role {} is immutable.", role.name))),
        None => Ok(()),
    }
}
