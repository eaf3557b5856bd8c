//! Address scopes: spaces in which no address is given twice, because no two of their subnet pools overlap.

use crate::networks::{found, own_project, seen_by};
use crate::subnets::ranges::overlap;
use crate::{Engine, EngineError};
use arcus_store::{AddressScope, AuditEntry, Db, Listing, Page, RbacAction, RbacType, StoreError, SubnetPool, Tx};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{AddressScopeId, OpCtx, ProjectId};
use serde_json::json;

/// An address scope to make.
#[derive(Debug, Clone, Default)]
pub struct AddressScopeNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// 4 or 6.
    pub ip_version: u32,
    /// Whether every project may use it.
    pub shared: bool,
}

/// What of an address scope may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct AddressScopeChange {
    /// Its name.
    pub name: Option<String>,
    /// Whether every project may use it; that cannot end.
    pub shared: Option<bool>,
}

const SCOPE: (&str, &str) = ("AddressScopeNotFound", "Address scope");

impl Engine {
    /// Makes an address scope.
    ///
    /// # Errors
    /// 400 for an IP version that is none, 403 for what only administrators may ask for.
    pub async fn address_scope_create(&self, ctx: &OpCtx, new: AddressScopeNew) -> Result<AddressScope, EngineError> {
        authorize(ctx, policy::ADDRESS_SCOPE_CREATE, &Target::own(ctx))?;
        if new.shared {
            authorize(ctx, policy::ADDRESS_SCOPE_CREATE_SHARED, &Target::default())?;
        }
        if !matches!(new.ip_version, 4 | 6) {
            return Err(EngineError::invalid(format!(
                "Invalid input for ip_version. Reason: '{}' is not in [4, 6].",
                new.ip_version
            )));
        }
        let project_id = own_project(ctx, new.project_id)?;
        let scope = AddressScope {
            id: AddressScopeId::new(),
            project_id,
            name: new.name,
            ip_version: new.ip_version,
            shared: new.shared,
        };
        let tx = self.store().begin(ctx).await?;
        tx.address_scope_insert(&scope).await?;
        if scope.shared {
            self.share_with_all(&tx, RbacType::AddressScope, scope.id.0, project_id, RbacAction::Shared).await?;
        }
        self.address_scope_audit(&tx, policy::ADDRESS_SCOPE_CREATE, &scope).await?;
        self.commit(tx).await?;
        Ok(scope)
    }

    async fn address_scope_audit(&self, tx: &Tx, action: Action, scope: &AddressScope) -> Result<(), EngineError> {
        let detail = json!({ "name": scope.name, "shared": scope.shared });
        let (id, project_id) = (scope.id.to_string(), Some(scope.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "address_scope", id, project_id, detail: &detail }).await?)
    }

    async fn address_scope_reached(
        &self,
        db: &Db,
        ctx: &OpCtx,
        (action, seen): (Action, bool),
        id: AddressScopeId,
    ) -> Result<AddressScope, EngineError> {
        let mut scope = found(db.address_scope_get(id).await?, SCOPE.0, SCOPE.1, id)?;
        self.reach(db, ctx, (action, seen), (scope.project_id, &mut scope.shared), SCOPE, id.0).await?;
        Ok(scope)
    }

    /// The address scope with this id.
    ///
    /// # Errors
    /// `AddressScopeNotFound`.
    pub async fn address_scope_get(&self, ctx: &OpCtx, id: AddressScopeId) -> Result<AddressScope, EngineError> {
        self.address_scope_reached(self.store(), ctx, (policy::ADDRESS_SCOPE_GET, true), id).await
    }

    /// A page of address scopes.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn address_scope_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<AddressScope>, EngineError> {
        authorize(ctx, policy::ADDRESS_SCOPE_LIST, &Target::own(ctx))?;
        let mut page = self.store().address_scope_list(&seen_by(ctx, listing)?).await?;
        let marks = page.rows.iter_mut().map(|s| (s.id.0, s.project_id, &mut s.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Changes an address scope.
    ///
    /// # Errors
    /// `AddressScopeNotFound`; `AddressScopeUpdateError` for one that shall be shared no longer.
    pub async fn address_scope_update(
        &self,
        ctx: &OpCtx,
        id: AddressScopeId,
        change: AddressScopeChange,
    ) -> Result<AddressScope, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let scope = self.address_scope_reached(&tx, ctx, (policy::ADDRESS_SCOPE_UPDATE, false), id).await?;
        match change.shared {
            Some(false) if scope.shared => {
                return Err(EngineError::Invalid {
                    code: "AddressScopeUpdateError",
                    message: format!("Unable to update address scope {id} : Shared address scope can't be unshared."),
                });
            }
            Some(true) if !scope.shared => {
                authorize(ctx, policy::ADDRESS_SCOPE_CREATE_SHARED, &Target::default())?;
                self.share_with_all(&tx, RbacType::AddressScope, id.0, scope.project_id, RbacAction::Shared).await?;
                tx.rbac_settle(RbacType::AddressScope, id.0).await?;
            }
            Some(_) | None => {}
        }
        tx.address_scope_update(id, change.name.as_deref()).await?;
        let scope = found(tx.address_scope_get(id).await?, SCOPE.0, SCOPE.1, id)?;
        self.address_scope_audit(&tx, policy::ADDRESS_SCOPE_UPDATE, &scope).await?;
        self.commit(tx).await?;
        Ok(scope)
    }

    /// Removes an address scope.
    ///
    /// # Errors
    /// `AddressScopeNotFound`; `AddressScopeInUse` while subnet pools are in it.
    pub async fn address_scope_delete(&self, ctx: &OpCtx, id: AddressScopeId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let scope = self.address_scope_reached(&tx, ctx, (policy::ADDRESS_SCOPE_DELETE, false), id).await?;
        match tx.address_scope_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "AddressScopeInUse",
                    message: format!(
                        "Unable to complete operation on address scope {id}. There are one or more subnet pools in use on the address scope."
                    ),
                });
            }
            Err(error) => return Err(error.into()),
        }
        self.shares_forget(&tx, id.0).await?;
        self.address_scope_audit(&tx, policy::ADDRESS_SCOPE_DELETE, &scope).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Whether a pool may be, or stay, in its scope: of its IP version, without an address that another pool of it holds.
    /// Nobody else joins the scope until the end of the transaction.
    pub(crate) async fn address_scope_fits(&self, tx: &Tx, pool: &SubnetPool) -> Result<(), EngineError> {
        let Some(id) = pool.address_scope_id else { return Ok(()) };
        let ctx = *tx.ctx();
        let scope = self.address_scope_reached(tx, &ctx, (policy::ADDRESS_SCOPE_GET, true), id).await?;
        if pool.shared && !scope.shared {
            return Err(refused(pool, id, "A shared subnet pool can not be associated with non-shared address scope"));
        }
        if scope.ip_version != pool.ip_version() {
            let message = format!("subnet pool {} of another IP version", pool.id);
            return Err(refused(pool, id, &message));
        }
        tx.address_scope_update(id, None).await?;
        for (other, prefixes) in tx.address_scope_prefixes(id).await? {
            if other != pool.id && prefixes.iter().any(|a| pool.prefixes.iter().any(|b| overlap(*a, *b))) {
                return Err(EngineError::Conflict {
                    code: "AddressScopePrefixConflict",
                    message: format!(
                        "Failed to associate address scope: subnetpools within an address scope must have unique prefixes; {other} overlaps."
                    ),
                });
            }
        }
        Ok(())
    }
}

fn refused(pool: &SubnetPool, scope: AddressScopeId, why: &str) -> EngineError {
    EngineError::Invalid {
        code: "IllegalSubnetPoolAssociationToAddressScope",
        message: format!(
            "Illegal subnetpool association: subnetpool {} cannot be associated with address scope {scope}: {why}.",
            pool.id
        ),
    }
}
