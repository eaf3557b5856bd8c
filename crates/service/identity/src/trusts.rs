//! Trusts: a user lets another one act in a project with some of the first one's roles, until some time, so many times,
//! and lets it be handed on so many times.

use crate::auth::{ALLOW_EXPIRED_S, ProjectRef};
use crate::{Identity, IdentityError, REVOCATION_SLACK_S, RoleRef, TOKEN_TTL_S_MAX, chosen_roles};
use arcus_store::{Trust, TrustFilter};
use arcus_types::policy::{Action, Denied, Target, authorize, identity as policy};
use arcus_types::{Name, OpCtx, ProjectId, RoleId, Timestamp, TrustId, UserId};
use serde_json::json;

/// How often a trust may be handed on at most. Source: Keystone's `max_redelegation_count`.
const REDELEGATIONS_MAX: u64 = 3;

/// A trust that somebody wants.
#[derive(Debug, Clone)]
pub struct TrustNew {
    /// Who gives: the caller, or the first trustor if the caller hands a trust on.
    pub trustor: UserId,
    /// Who may act.
    pub trustee: UserId,
    /// Where.
    pub project_id: Option<ProjectId>,
    /// Whether the trustee acts in the trustor's name.
    pub impersonation: bool,
    /// With which roles.
    pub roles: Vec<RoleRef>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// How many tokens it gives.
    pub remaining_uses: Option<u64>,
    /// Whether it may be handed on.
    pub allow_redelegation: bool,
    /// How often; unless given, as often as is possible.
    pub redelegation_count: Option<u64>,
}

/// A trust with the names of its roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustView {
    /// The trust.
    pub trust: Trust,
    /// Its roles.
    pub roles: Vec<(RoleId, Name)>,
}

fn target(user_id: UserId) -> Target {
    Target { user_id: Some(user_id), ..Target::default() }
}

impl Identity {
    /// Makes a trust.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Forbidden`] for whoever is not the trustor, for roles that the
    /// trustor does not hold, and for a trust that may not be handed on so; [`IdentityError::Invalid`],
    /// [`IdentityError::NotFound`].
    pub async fn trust_create(&self, ctx: &OpCtx, new: TrustNew) -> Result<TrustView, IdentityError> {
        authorize(ctx, policy::TRUST_CREATE, &target(new.trustor))?;
        let now = Timestamp::now();
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(IdentityError::Invalid("A trust must expire in the future.".to_owned()));
        }
        if new.remaining_uses == Some(0) {
            return Err(IdentityError::Invalid("remaining_uses must be above 0, or null.".to_owned()));
        }
        let parent = match ctx.trust_id() {
            Some(id) => Some(self.store().trust_get(id).await?.ok_or(IdentityError::Unauthorized)?),
            None => None,
        };
        let trustor_acts = ctx.user_id() == Some(new.trustor) && parent.is_none();
        let handed_on = parent.as_ref().is_some_and(|p| p.trustor == new.trustor);
        if !trustor_acts && !handed_on {
            return Err(IdentityError::Forbidden("Only the trustor itself makes a trust.".to_owned()));
        }
        self.unrestricted_check(ctx).await?;
        self.user_find(new.trustee).await?;
        let redelegation_count = redelegations(&new, parent.as_ref())?;
        let roles = self.trust_roles(&new, parent.as_ref()).await?;
        let trust = Trust {
            id: TrustId::new(),
            trustor: new.trustor,
            trustee: new.trustee,
            project_id: new.project_id,
            impersonation: new.impersonation,
            roles: roles.iter().map(|(id, _)| *id).collect(),
            expires_at: new.expires_at.or(parent.as_ref().and_then(|p| p.expires_at)),
            remaining_uses: new.remaining_uses,
            redelegation_count,
            redelegated_from: parent.map(|p| p.id),
            created_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        tx.trust_insert(&trust).await?;
        let detail = json!({ "trustee": trust.trustee, "project_id": trust.project_id });
        self.audit(&tx, policy::TRUST_CREATE, "trust", &trust.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(TrustView { trust, roles })
    }

    /// The roles of a new trust: such as the trustor holds, or as the trust holds that is handed on.
    async fn trust_roles(&self, new: &TrustNew, parent: Option<&Trust>) -> Result<Vec<(RoleId, Name)>, IdentityError> {
        let Some(project_id) = new.project_id else {
            return if new.roles.is_empty() {
                Ok(Vec::new())
            } else {
                Err(IdentityError::Invalid("A trust with roles needs a project.".to_owned()))
            };
        };
        if new.roles.is_empty() {
            let reason = "A trust for a project needs at least one role.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let found = self.project_for(&ProjectRef::Id(project_id), new.trustor).await?;
        let mut held = found.map(|(_, held)| held.roles).unwrap_or_default();
        if let Some(parent) = parent {
            let given = self.store().roles_closure(&parent.roles).await?;
            held.retain(|role| given.contains(role));
        }
        chosen_roles(held, Some(new.roles.clone())).map_err(|_| {
            IdentityError::Forbidden("A trust gives only roles that its trustor holds in the project.".to_owned())
        })
    }

    /// Trusts: all for administrators, else those that the caller gives, or that are given to the caller.
    ///
    /// # Errors
    /// [`IdentityError::Denied`] for those of others.
    pub async fn trust_list(&self, ctx: &OpCtx, filter: &TrustFilter) -> Result<Vec<Trust>, IdentityError> {
        let own = [filter.trustor, filter.trustee].into_iter().flatten().find(|id| ctx.user_id() == Some(*id));
        authorize(ctx, policy::TRUST_LIST, &Target { user_id: own, ..Target::default() })?;
        self.in_own_name(ctx)?;
        Ok(self.store().trust_list(filter).await?)
    }

    /// A trust: for its trustor, its trustee and administrators.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn trust_get(&self, ctx: &OpCtx, id: TrustId) -> Result<TrustView, IdentityError> {
        let trust = self.trust_reachable(ctx, policy::TRUST_GET, id).await?;
        let roles = self.role_names(&trust.roles).await?;
        Ok(TrustView { trust, roles })
    }

    async fn trust_reachable(&self, ctx: &OpCtx, action: Action, id: TrustId) -> Result<Trust, IdentityError> {
        let found = self.store().trust_get(id).await?;
        let whose = found.as_ref().and_then(|t| [t.trustor, t.trustee].into_iter().find(|u| ctx.user_id() == Some(*u)));
        match authorize(ctx, action, &Target { user_id: whose, ..Target::default() }) {
            Err(Denied::Forbidden(_)) => return Err(IdentityError::not_found("trust", id)),
            other => other?,
        }
        // What has expired is as if it were not there.
        let found = found.filter(|t| t.expires_at.is_none_or(|at| Timestamp::now() < at));
        found.ok_or_else(|| IdentityError::not_found("trust", id))
    }

    /// Deletes a trust and all that were handed on from it; their tokens become void.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`] for whoever is neither the trustor nor an administrator.
    pub async fn trust_delete(&self, ctx: &OpCtx, id: TrustId) -> Result<(), IdentityError> {
        let found = self.trust_reachable(ctx, policy::TRUST_DELETE, id).await?;
        authorize(ctx, policy::TRUST_DELETE, &target(found.trustor))?;
        self.in_own_name(ctx)?;
        let now = Timestamp::now();
        let until = now.plus_seconds(TOKEN_TTL_S_MAX + REVOCATION_SLACK_S + ALLOW_EXPIRED_S);
        let tx = self.store().begin(ctx).await?;
        let mut revocations = Vec::new();
        for gone in tx.trust_descendants(id).await? {
            revocations.push(tx.revoke_trust(gone, now, until).await?);
        }
        if !tx.trust_delete(id).await? {
            return Err(IdentityError::not_found("trust", id));
        }
        self.audit(&tx, policy::TRUST_DELETE, "trust", &id, &json!({})).await?;
        Ok(self.commit(tx, &revocations).await?)
    }
}

/// How often a new trust may be handed on.
fn redelegations(new: &TrustNew, parent: Option<&Trust>) -> Result<u64, IdentityError> {
    let refuse = |reason: &str| Err(IdentityError::Forbidden(reason.to_owned()));
    let most = match parent {
        None => REDELEGATIONS_MAX,
        Some(parent) if parent.redelegation_count == 0 => {
            return refuse("The trust may not be handed on, or not once more.");
        }
        Some(parent) => {
            if new.impersonation && !parent.impersonation {
                return refuse("A trust without impersonation cannot be handed on with it.");
            }
            let later = parent.expires_at.is_some_and(|limit| new.expires_at.is_some_and(|at| at > limit));
            if later {
                return refuse("A trust that is handed on cannot outlive the one that it comes from.");
            }
            if new.remaining_uses.is_some() || parent.remaining_uses.is_some() {
                return refuse("A trust whose uses are counted is not handed on.");
            }
            parent.redelegation_count - 1
        }
    };
    if !new.allow_redelegation {
        return Ok(0);
    }
    if new.remaining_uses.is_some() {
        return Err(IdentityError::Invalid("remaining_uses must not be set if redelegation is allowed.".to_owned()));
    }
    match new.redelegation_count {
        Some(count) if count > most => refuse("redelegation_count is higher than is possible here."),
        Some(count) => Ok(count),
        None => Ok(most),
    }
}
