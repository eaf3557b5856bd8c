//! Who holds which role where.

use crate::builtin::BUILTIN;
use crate::domains::domain_of;
use crate::{Identity, IdentityError, LIST_MAX, revoked_until};
use arcus_store::{Assignment, AssignmentFilter, Implication, Revoked, RoleActor, RoleTarget};
use arcus_types::policy::{Action, Denied, Target, authorize, identity as policy};
use arcus_types::{Name, OpCtx, Role, RoleId, Scope, Timestamp};
use serde_json::json;

/// One role that somebody holds somewhere, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The assignment; its role may be one that is implied.
    pub assignment: Assignment,
    /// The role that implies it.
    pub prior_role: Option<RoleId>,
}

/// Who is given what where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub actor: RoleActor,
    /// Where.
    pub target: RoleTarget,
    /// Not there, but on every project below.
    pub inherited: bool,
}

impl Identity {
    /// Gives a role; nothing happens if it is held.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`] for a role, actor or target that is not there,
    /// [`IdentityError::Forbidden`] for what a manager of a domain may not give.
    pub async fn assignment_create(&self, ctx: &OpCtx, grant: Grant, role_id: RoleId) -> Result<(), IdentityError> {
        let Grant { actor, target, inherited } = grant;
        self.assignment_check_policy(ctx, policy::ASSIGNMENT_CREATE, actor, target).await?;
        let role = self.role_find(role_id).await?;
        role_check(ctx, role_id)?;
        if role.domain_id.is_some() && target == RoleTarget::System {
            let reason = "A role of one domain cannot be given on the system.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        tx.assignment_insert(actor, target, role_id, inherited).await?;
        let (kind, id) = subject(actor);
        let detail = json!({ "role_id": role_id, "target": format!("{target:?}"), "inherited": inherited });
        self.audit(&tx, policy::ASSIGNMENT_CREATE, kind, &id, &detail).await?;
        Ok(self.commit(tx, &[]).await?)
    }

    /// Takes a role away; tokens for that place of who held it become void, and all of their tokens if it is inherited.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`] if it is not held,
    /// [`IdentityError::Forbidden`] for what a manager of a domain may not take.
    pub async fn assignment_delete(&self, ctx: &OpCtx, grant: Grant, role_id: RoleId) -> Result<(), IdentityError> {
        let Grant { actor, target, inherited } = grant;
        self.assignment_check_policy(ctx, policy::ASSIGNMENT_DELETE, actor, target).await?;
        role_check(ctx, role_id)?;
        let tx = self.store().begin(ctx).await?;
        if !tx.assignment_delete(actor, target, role_id, inherited).await? {
            return Err(IdentityError::not_found("role assignment", role_id));
        }
        let revocations = match actor {
            RoleActor::User(id) if inherited => self.revoke(&tx, Revoked::User(id)).await?,
            RoleActor::Group(id) if inherited => self.revoke(&tx, Revoked::GroupMembers(id)).await?,
            RoleActor::User(_) | RoleActor::Group(_) => {
                let now = Timestamp::now();
                tx.revoke_stays(actor, target, now, revoked_until(now)).await?
            }
        };
        let (kind, id) = subject(actor);
        let detail = json!({ "role_id": role_id, "target": format!("{target:?}"), "inherited": inherited });
        self.audit(&tx, policy::ASSIGNMENT_DELETE, kind, &id, &detail).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// The roles that a user or group was given itself somewhere.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn assignment_roles(&self, ctx: &OpCtx, grant: Grant) -> Result<Vec<(RoleId, Name)>, IdentityError> {
        self.assignment_check_policy(ctx, policy::ASSIGNMENT_CHECK, grant.actor, grant.target).await?;
        Ok(self.store().assignment_roles(grant.actor, grant.target, grant.inherited).await?)
    }

    /// Assignments that match, at most `limit` before roles are expanded. Effective ones are users' instead of groups',
    /// on projects instead of inherited, and implied roles stand beside those given; roles of a domain have no effect.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Invalid`] for filters that exclude each other.
    pub async fn assignment_list(&self, ctx: &OpCtx, mut filter: AssignmentFilter) -> Result<Vec<Held>, IdentityError> {
        let target = Target { user_id: filter.user_id, domain_id: Some(domain_of(ctx)), project_id: None };
        authorize(ctx, policy::ASSIGNMENT_LIST, &target)?;
        let own = filter.user_id.is_some() && filter.user_id == ctx.user_id();
        if !ctx.is_admin() && !own {
            filter.within = Some(domain_of(ctx));
        }
        let invalid = |text: &str| Err(IdentityError::Invalid(text.to_owned()));
        if filter.subtree && !matches!(filter.target, Some(RoleTarget::Project(_))) {
            return invalid("include_subtree needs scope.project.id.");
        }
        if filter.user_id.is_some() && filter.group_id.is_some() {
            return invalid("Choose by user.id or by group.id, not by both.");
        }
        if !filter.effective {
            let given = self.store().assignment_list(&filter).await?;
            return Ok(given.into_iter().map(|assignment| Held { assignment, prior_role: None }).collect());
        }
        if filter.group_id.is_some() {
            return invalid("Effective assignments are users'; group.id cannot choose among them.");
        }
        let role_id = filter.role_id.take();
        let given = self.store().assignment_list(&filter).await?;
        let pairs = self.store().implication_list(None, LIST_MAX).await?;
        let mut held: Vec<Held> = Vec::with_capacity(given.len());
        for assignment in given {
            expand(&assignment, &pairs, &mut held);
        }
        held.retain(|h| role_id.is_none_or(|id| h.assignment.role_id == id));
        Ok(held)
    }

    /// The policy of one assignment: its target and its actor must both be the caller's to manage or to see.
    async fn assignment_check_policy(
        &self,
        ctx: &OpCtx,
        action: Action,
        actor: RoleActor,
        target: RoleTarget,
    ) -> Result<(), IdentityError> {
        match target {
            RoleTarget::Project(id) => drop(self.project_reachable(ctx, action, id).await?),
            RoleTarget::Domain(id) => {
                authorize(ctx, action, &Target::domain(id))?;
                self.domain_find(id).await?;
            }
            RoleTarget::System if ctx.is_admin() => {}
            RoleTarget::System => return refuse(action),
        }
        let domain_id = match actor {
            RoleActor::User(id) => self.store().user_get(id).await?.map(|user| user.domain_id),
            RoleActor::Group(id) => self.store().group_get(id).await?.map(|group| group.domain_id),
        };
        authorize(ctx, action, &Target { domain_id, ..Target::default() })?;
        let (kind, id) = subject(actor);
        domain_id.map(drop).ok_or_else(|| IdentityError::not_found(kind, id))
    }
}

/// An assignment with all that its role implies; roles of a domain are left out.
fn expand(given: &Assignment, pairs: &[Implication], held: &mut Vec<Held>) {
    let mut reached = vec![(given.role_id, given.role_name.clone(), given.role_domain_id, None)];
    let mut next = 0;
    while let Some((id, name, domain_id, prior_role)) = reached.get(next).cloned() {
        next += 1;
        for pair in pairs.iter().filter(|pair| pair.prior.0 == id) {
            if !reached.iter().any(|(known, ..)| *known == pair.implied.0) {
                reached.push((pair.implied.0, pair.implied.1.clone(), pair.implied.2, Some(given.role_id)));
            }
        }
        if domain_id.is_none() {
            let assignment = Assignment { role_id: id, role_name: name, ..given.clone() };
            held.push(Held { assignment, prior_role });
        }
    }
}

fn refuse<T>(action: Action) -> Result<T, IdentityError> {
    Err(Denied::Forbidden(action.name).into())
}

/// Managers of a domain give and take what they hold themselves, and nothing whose meaning they cannot know.
fn role_check(ctx: &OpCtx, role_id: RoleId) -> Result<(), IdentityError> {
    if ctx.is_admin() {
        return Ok(());
    }
    let inside = matches!(ctx.scope, Scope::Domain { .. });
    let known = BUILTIN.iter().find(|b| b.id == role_id);
    let own = known.is_some_and(|b| match b.role {
        Role::Reader | Role::Member | Role::Manager => ctx.roles.has(b.role),
        Role::Admin | Role::Service => false,
    });
    if inside && own {
        return Ok(());
    }
    Err(IdentityError::Forbidden("A manager of a domain gives and takes only reader, member and manager.".to_owned()))
}

fn subject(actor: RoleActor) -> (&'static str, String) {
    match actor {
        RoleActor::User(id) => ("user", id.to_string()),
        RoleActor::Group(id) => ("group", id.to_string()),
    }
}
