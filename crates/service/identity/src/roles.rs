//! Roles. The built-in ones carry rights and stay as they are; others may be made, and grant nothing by themselves.

use crate::builtin::BUILTIN;
use crate::{Identity, IdentityError, text_check};
use arcus_store::{Revoked, RoleEntry, RoleFilter};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{Name, OpCtx, RoleId, Timestamp};
use serde_json::json;

impl Identity {
    /// Makes a role.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken.
    pub async fn role_create(
        &self,
        ctx: &OpCtx,
        name: Name,
        description: Option<String>,
    ) -> Result<RoleEntry, IdentityError> {
        authorize(ctx, policy::ROLE_CREATE, &Target::default())?;
        text_check(description.as_deref())?;
        let role = RoleEntry { id: RoleId::new(), name, description, builtin: false, created_at: Timestamp::now() };
        let tx = self.store().begin(ctx).await?;
        tx.role_insert(&role).await?;
        self.audit(&tx, policy::ROLE_CREATE, "role", &role.id, &json!({ "name": role.name })).await?;
        tx.commit().await?;
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

    /// Changes a role's name or description.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken,
    /// [`IdentityError::Forbidden`] for a built-in role.
    pub async fn role_update(
        &self,
        ctx: &OpCtx,
        id: RoleId,
        name: Option<Name>,
        description: Option<Option<String>>,
    ) -> Result<RoleEntry, IdentityError> {
        authorize(ctx, policy::ROLE_UPDATE, &Target::default())?;
        text_check(description.as_ref().and_then(|d| d.as_deref()))?;
        builtin_check(id)?;
        let tx = self.store().begin(ctx).await?;
        if !tx.role_update(id, name.as_ref(), description.as_ref().map(|d| d.as_deref())).await? {
            return Err(IdentityError::not_found("role", id));
        }
        self.audit(&tx, policy::ROLE_UPDATE, "role", &id, &json!({ "name": name })).await?;
        tx.commit().await?;
        self.role_find(id).await
    }

    /// Deletes a role with its assignments; tokens of all who hold it become void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] for a built-in role.
    pub async fn role_delete(&self, ctx: &OpCtx, id: RoleId) -> Result<(), IdentityError> {
        authorize(ctx, policy::ROLE_DELETE, &Target::default())?;
        builtin_check(id)?;
        let tx = self.store().begin(ctx).await?;
        let revocations = self.revoke(&tx, Revoked::RoleHolders(id)).await?;
        if !tx.role_delete(id).await? {
            return Err(IdentityError::not_found("role", id));
        }
        self.audit(&tx, policy::ROLE_DELETE, "role", &id, &json!({})).await?;
        Ok(self.commit(tx, &revocations).await?)
    }
}

fn builtin_check(id: RoleId) -> Result<(), IdentityError> {
    match BUILTIN.iter().find(|b| b.id == id) {
        Some(role) => Err(IdentityError::Forbidden(format!("The role {} is immutable.", role.name))),
        None => Ok(()),
    }
}
