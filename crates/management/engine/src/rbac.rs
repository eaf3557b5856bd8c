//! Sharing by policy: who else may see and use a thing. What a thing says of itself (`shared`, and a network's `external`)
//! follows from its policies, in the same transaction.

use crate::networks::{found, guard, over_quota, own_project, seen_by};
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Listing, Page, QuotaResource, RbacAction, RbacPolicy, RbacType, StoreError, Tx};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{NetworkId, OpCtx, ProjectId, RbacPolicyId, Timestamp};
use serde_json::json;
use uuid::Uuid;

/// A policy to make.
#[derive(Debug, Clone, Copy)]
pub struct RbacNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// What kind of thing is shared.
    pub object_type: RbacType,
    /// Which one.
    pub object_id: Uuid,
    /// As what.
    pub action: RbacAction,
    /// With whom; `None` is every project.
    pub target: Option<ProjectId>,
}

const POLICY: (&str, &str) = ("RbacPolicyNotFound", "RBAC policy");

fn in_use(policy: &RbacPolicy) -> EngineError {
    EngineError::Conflict {
        code: "RbacPolicyInUse",
        message: format!(
            "RBAC policy on object {} cannot be removed because other objects depend on it.",
            policy.object_id
        ),
    }
}

impl Engine {
    /// Whether somebody shares a thing with the caller's project, as this or in any way.
    pub(crate) async fn shared_with(
        &self,
        db: &Db,
        ctx: &OpCtx,
        object: Uuid,
        action: Option<RbacAction>,
    ) -> Result<bool, EngineError> {
        let Some(project) = ctx.project_id() else { return Ok(false) };
        Ok(!db.rbac_shared_with(vec![object], action, project).await?.is_empty())
    }

    /// The policy of a thing that belongs to a project: its owner may do anything with it, and whom it is shared with may
    /// see it. `action` is what is asked for; `seen` tells whether being shared with is enough for it.
    pub(crate) async fn reach(
        &self,
        db: &Db,
        ctx: &OpCtx,
        (action, seen): (Action, bool),
        (owner, shared): (ProjectId, &mut bool),
        (code, kind): (&'static str, &'static str),
        id: Uuid,
    ) -> Result<(), EngineError> {
        match guard(ctx, action, owner, (code, kind), id) {
            Err(EngineError::NotFound { .. }) => {}
            other => return other,
        }
        *shared = *shared || self.shared_with(db, ctx, id, Some(RbacAction::Shared)).await?;
        match (*shared, seen) {
            // Another project's role counts in that project; here it is enough to have one that may do this at home.
            (true, true) => Ok(authorize(ctx, action, &Target::own(ctx))?),
            (true, false) => Err(arcus_types::policy::Denied::Forbidden(action.name).into()),
            (false, _) => Err(EngineError::not_found(code, kind, id)),
        }
    }

    /// Marks what is shared with the caller's project alone; the rest of the list says so already. One statement at most.
    pub(crate) async fn shared_marks(
        &self,
        ctx: &OpCtx,
        things: Vec<(Uuid, ProjectId, &mut bool)>,
    ) -> Result<(), EngineError> {
        let Some(viewer) = ctx.project_id() else { return Ok(()) };
        let open: Vec<_> = things.into_iter().filter(|(_, owner, shared)| *owner != viewer && !**shared).collect();
        let ids = open.iter().map(|(id, _, _)| *id).collect();
        let mine = self.store().rbac_shared_with(ids, Some(RbacAction::Shared), viewer).await?;
        for (id, _, shared) in open {
            *shared = mine.contains(&id);
        }
        Ok(())
    }

    /// Shares a thing with every project. The caller sees to what the thing says of itself.
    pub(crate) async fn share_with_all(
        &self,
        tx: &Tx,
        object_type: RbacType,
        object_id: Uuid,
        project_id: ProjectId,
        action: RbacAction,
    ) -> Result<(), EngineError> {
        let now = Timestamp::now();
        let policy = RbacPolicy {
            id: RbacPolicyId::new(),
            project_id,
            object_type,
            object_id,
            action,
            target: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        if tx.rbac_insert(&policy).await? {
            tx.quota_count(project_id, QuotaResource::RbacPolicies, 1).await?;
        }
        Ok(())
    }

    /// Shares a thing with every project no longer.
    pub(crate) async fn share_with_all_end(
        &self,
        tx: &Tx,
        object: Uuid,
        action: RbacAction,
    ) -> Result<(), EngineError> {
        for policy in tx.rbac_list_by_object(object).await? {
            // A network that is no way out any more is one for nobody.
            let ends = policy.action == action && (policy.target.is_none() || action == RbacAction::External);
            if ends && tx.rbac_delete(policy.id).await? {
                tx.quota_release(policy.project_id, QuotaResource::RbacPolicies, 1).await?;
            }
        }
        Ok(())
    }

    /// Removes the policies of a thing that goes away.
    pub(crate) async fn shares_forget(&self, tx: &Tx, object: Uuid) -> Result<(), EngineError> {
        for project in tx.rbac_delete_by_object(object).await? {
            tx.quota_release(project, QuotaResource::RbacPolicies, 1).await?;
        }
        Ok(())
    }

    /// Refuses to remove what is shared while others use it.
    pub(crate) async fn sharing_ends(&self, tx: &Tx, policy: &RbacPolicy, owner: ProjectId) -> Result<(), EngineError> {
        let others: Vec<RbacPolicy> = tx.rbac_list_by_object(policy.object_id).await?;
        let others: Vec<&RbacPolicy> =
            others.iter().filter(|p| p.id != policy.id && p.action == policy.action).collect();
        // Who is let in by another policy as well loses nothing.
        if others.iter().any(|p| p.target.is_none()) {
            return Ok(());
        }
        let but: Vec<ProjectId> = others.iter().filter_map(|p| p.target).collect();
        let (kind, action, object) = (policy.object_type, policy.action, policy.object_id);
        if tx.rbac_object_used(kind, action, object, owner, policy.target, &but).await? {
            return Err(in_use(policy));
        }
        Ok(())
    }

    /// The owner of what a policy is about; foreign things are not there.
    async fn rbac_object(&self, tx: &Tx, kind: RbacType, object: Uuid) -> Result<ProjectId, EngineError> {
        let owner = tx.rbac_object_owner(kind, object).await?;
        let mine = |owner: &ProjectId| tx.ctx().is_admin() || Some(*owner) == tx.ctx().project_id();
        let not_found = || EngineError::NotFound {
            code: "RbacObjectNotFound",
            kind: "Object",
            id: format!("{object} of type {}", kind.as_str()),
        };
        owner.filter(mine).ok_or_else(not_found)
    }

    fn rbac_allowed(&self, ctx: &OpCtx, action: RbacAction, target: Option<ProjectId>) -> Result<(), EngineError> {
        match (action, target) {
            (RbacAction::External, _) => authorize(ctx, policy::NETWORK_CREATE_EXTERNAL, &Target::default())?,
            (RbacAction::Shared, None) => authorize(ctx, policy::RBAC_EVERYONE, &Target::default())?,
            (RbacAction::Shared, Some(_)) => {}
        }
        Ok(())
    }

    /// Shares a thing.
    ///
    /// # Errors
    /// `RbacObjectNotFound`, `OverQuota`, `RbacPolicyExists`; 403 for what only administrators may share.
    pub async fn rbac_create(&self, ctx: &OpCtx, new: RbacNew) -> Result<RbacPolicy, EngineError> {
        authorize(ctx, policy::RBAC_CREATE, &Target::own(ctx))?;
        if new.action == RbacAction::External && new.object_type != RbacType::Network {
            return Err(EngineError::Invalid {
                code: "InvalidInput",
                message: "Invalid input for operation: only networks can be shared with access_as_external.".into(),
            });
        }
        let project_id = own_project(ctx, new.project_id)?;
        let tx = self.store().begin(ctx).await?;
        self.rbac_object(&tx, new.object_type, new.object_id).await?;
        self.rbac_allowed(ctx, new.action, new.target)?;
        if new.action == RbacAction::External {
            self.network_may_lead_out(&tx, NetworkId(new.object_id)).await?;
        }
        if !tx.quota_claim(project_id, QuotaResource::RbacPolicies, 1).await? {
            return Err(over_quota("rbac_policy"));
        }
        let now = Timestamp::now();
        let made = RbacPolicy {
            id: RbacPolicyId::new(),
            project_id,
            object_type: new.object_type,
            object_id: new.object_id,
            action: new.action,
            target: new.target,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        if !tx.rbac_insert(&made).await? {
            return Err(exists(&made));
        }
        tx.rbac_settle(made.object_type, made.object_id).await?;
        if made.action == RbacAction::External {
            tx.nodes_touch_by_networks(&[NetworkId(made.object_id)]).await?;
        }
        self.rbac_audit(&tx, policy::RBAC_CREATE, &made).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    /// A network becomes a way out only while nothing is on it.
    async fn network_may_lead_out(&self, tx: &Tx, id: NetworkId) -> Result<(), EngineError> {
        let external = tx.network_get_bare(id).await?.is_some_and(|network| network.external);
        if external || tx.port_list_by_network(id).await?.is_empty() {
            return Ok(());
        }
        Err(EngineError::Conflict {
            code: "NetworkInUse",
            message: format!(
                "Unable to complete operation on network {id}. A network with ports cannot become external."
            ),
        })
    }

    async fn rbac_audit(&self, tx: &Tx, action: Action, of: &RbacPolicy) -> Result<(), EngineError> {
        let detail = json!({ "object_type": of.object_type.as_str(), "object_id": of.object_id,
            "action": of.action.as_str(), "target": of.target });
        let (id, project_id) = (of.id.to_string(), Some(of.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "rbac_policy", id, project_id, detail: &detail }).await?)
    }

    async fn rbac_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: RbacPolicyId,
    ) -> Result<RbacPolicy, EngineError> {
        let found_one = found(db.rbac_get(id).await?, POLICY.0, POLICY.1, id)?;
        guard(ctx, action, found_one.project_id, POLICY, id)?;
        Ok(found_one)
    }

    /// The policy with this id.
    ///
    /// # Errors
    /// `RbacPolicyNotFound`.
    pub async fn rbac_get(&self, ctx: &OpCtx, id: RbacPolicyId) -> Result<RbacPolicy, EngineError> {
        self.rbac_owned(self.store(), ctx, policy::RBAC_GET, id).await
    }

    /// A page of policies: the caller's own.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn rbac_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<RbacPolicy>, EngineError> {
        authorize(ctx, policy::RBAC_LIST, &Target::own(ctx))?;
        Ok(self.store().rbac_list(&seen_by(ctx, listing)?).await?)
    }

    /// Shares the thing with another project, or all, instead.
    ///
    /// # Errors
    /// `RbacPolicyNotFound`, `RbacPolicyInUse` while the present target uses the thing, `RbacPolicyExists`.
    pub async fn rbac_update(
        &self,
        ctx: &OpCtx,
        id: RbacPolicyId,
        target: Option<ProjectId>,
    ) -> Result<RbacPolicy, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let before = self.rbac_owned(&tx, ctx, policy::RBAC_UPDATE, id).await?;
        if target == before.target {
            return Ok(before);
        }
        self.rbac_allowed(ctx, before.action, target)?;
        if target.is_some() {
            self.rbac_release(&tx, &before).await?;
        }
        let after = RbacPolicy { target, ..before };
        tx.rbac_update(&after).await.map_err(|error| match error {
            StoreError::Duplicate(_) => exists(&after),
            other => other.into(),
        })?;
        tx.rbac_settle(after.object_type, after.object_id).await?;
        self.rbac_audit(&tx, policy::RBAC_UPDATE, &after).await?;
        self.commit(tx).await?;
        Ok(after)
    }

    async fn rbac_release(&self, tx: &Tx, of: &RbacPolicy) -> Result<(), EngineError> {
        match tx.rbac_object_owner(of.object_type, of.object_id).await? {
            Some(owner) => self.sharing_ends(tx, of, owner).await,
            None => Ok(()),
        }
    }

    /// Shares the thing no longer.
    ///
    /// # Errors
    /// `RbacPolicyNotFound`, `RbacPolicyInUse` while the target uses the thing.
    pub async fn rbac_delete(&self, ctx: &OpCtx, id: RbacPolicyId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let of = self.rbac_owned(&tx, ctx, policy::RBAC_DELETE, id).await?;
        self.rbac_release(&tx, &of).await?;
        tx.quota_release(of.project_id, QuotaResource::RbacPolicies, 1).await?;
        tx.rbac_delete(id).await?;
        tx.rbac_settle(of.object_type, of.object_id).await?;
        self.rbac_audit(&tx, policy::RBAC_DELETE, &of).await?;
        self.commit(tx).await?;
        Ok(())
    }
}

fn exists(policy: &RbacPolicy) -> EngineError {
    EngineError::Conflict {
        code: "RbacPolicyExists",
        message: format!("An RBAC policy already exists with those values on object {}.", policy.object_id),
    }
}
