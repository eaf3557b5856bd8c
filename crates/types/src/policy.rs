//! The policy table: one rule for each thing that can be asked, decided by one pure function.
//!
//! Every route names an [`Action`]; the engine and the identity service call [`authorize`] with the same action on every
//! entry point, so that routes, tasks and tests obey the same rules. What no rule allows is refused.

pub mod arcus;
pub mod compute;
pub mod identity;
pub mod image;
pub mod network;
pub mod placement;
pub mod volume;

use crate::ctx::{Actor, OpCtx, Role, Scope};
use crate::ids::{DomainId, ProjectId, UserId};

/// Who may do an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anybody, even without a token.
    Public,
    /// Anybody with a valid token.
    Authenticated,
    /// Readers of the project that owns the target, and administrators.
    ProjectReader,
    /// Members of the project that owns the target, and administrators.
    ProjectMember,
    /// Managers of the project or domain that owns the target, and administrators.
    Manager,
    /// The user whom the target belongs to, and administrators.
    SameUser,
    /// Readers of the target's domain, the user concerned, and administrators.
    DomainReader,
    /// Administrators.
    Admin,
    /// A node with a certificate of this cloud.
    Node,
}

/// One thing that can be asked, with its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// `service:resource:verb`, as audit records and error texts show it.
    pub name: &'static str,
    /// Who may do it.
    pub rule: Rule,
}

/// Declares the actions of one service, and `ALL`, the list of them.
#[macro_export]
macro_rules! actions {
    ($($name:ident = $text:literal, $rule:ident;)*) => {
        $(#[doc = concat!("`", $text, "`: rule `", stringify!($rule), "`.")]
        pub const $name: $crate::policy::Action =
            $crate::policy::Action { name: $text, rule: $crate::policy::Rule::$rule };)*
        /// Every action of this service.
        pub const ALL: &[$crate::policy::Action] = &[$($name),*];
    };
}

/// What an action is done to, as far as policy cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Target {
    /// The project that owns it.
    pub project_id: Option<ProjectId>,
    /// The domain that it is in.
    pub domain_id: Option<DomainId>,
    /// The user whom it belongs to.
    pub user_id: Option<UserId>,
}

impl Target {
    /// Something that belongs to a project.
    pub fn project(project_id: ProjectId) -> Self {
        Self { project_id: Some(project_id), ..Self::default() }
    }

    /// Something that belongs to a user of a domain.
    pub fn user(user_id: UserId, domain_id: DomainId) -> Self {
        Self { user_id: Some(user_id), domain_id: Some(domain_id), project_id: None }
    }

    /// Something in a domain.
    pub fn domain(domain_id: DomainId) -> Self {
        Self { domain_id: Some(domain_id), ..Self::default() }
    }

    /// Whatever the caller's own scope holds: for lists and creations, which are then limited to that scope.
    pub fn own(ctx: &OpCtx) -> Self {
        let (project_id, domain_id) = match ctx.scope {
            Scope::Project { project_id, domain_id } => (Some(project_id), Some(domain_id)),
            Scope::Domain { domain_id } => (None, Some(domain_id)),
            Scope::Unscoped | Scope::System => (None, None),
        };
        Self { project_id, domain_id, user_id: ctx.user_id() }
    }
}

/// Why an action was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody has been recognised: answer 401.
    #[error("The request you have made requires authentication.")]
    Anonymous,
    /// The target belongs to somebody else and must not be revealed: answer as if it did not exist.
    #[error("no such resource")]
    Hidden,
    /// The caller's roles do not reach: answer 403.
    #[error("Policy doesn't allow {0} to be performed.")]
    Forbidden(&'static str),
}

/// Whether `ctx` may do `action` to `target`.
///
/// # Errors
/// [`Denied`], split by what the caller should answer.
pub fn authorize(ctx: &OpCtx, action: Action, target: &Target) -> Result<(), Denied> {
    if action.rule == Rule::Public || ctx.actor == Actor::System {
        return Ok(());
    }
    if action.rule == Rule::Node {
        return match ctx.actor {
            Actor::Node { .. } => Ok(()),
            Actor::Anonymous => Err(Denied::Anonymous),
            Actor::User { .. } | Actor::System => Err(Denied::Forbidden(action.name)),
        };
    }
    match ctx.actor {
        Actor::Anonymous => return Err(Denied::Anonymous),
        Actor::Node { .. } => return Err(Denied::Forbidden(action.name)),
        Actor::User { .. } | Actor::System => {}
    }
    if ctx.is_admin() && action.rule != Rule::Node {
        return Ok(());
    }
    let forbidden = Err(Denied::Forbidden(action.name));
    let needed = match action.rule {
        Rule::Public | Rule::Authenticated => return Ok(()),
        Rule::Node | Rule::Admin => return forbidden,
        Rule::SameUser => return if same_user(ctx, target) { Ok(()) } else { forbidden },
        Rule::DomainReader => {
            let reads = same_domain(ctx, target) && ctx.roles.has(Role::Reader);
            return if reads || same_user(ctx, target) { Ok(()) } else { forbidden };
        }
        Rule::ProjectReader => Role::Reader,
        Rule::ProjectMember => Role::Member,
        Rule::Manager => Role::Manager,
    };
    let in_scope = match (ctx.scope, target.project_id) {
        (Scope::Project { project_id, .. }, Some(wanted)) => project_id == wanted,
        // A domain is managed from the domain; what a project holds is reached from inside the project alone.
        (Scope::Domain { .. }, None) if action.rule == Rule::Manager => same_domain(ctx, target),
        (Scope::Unscoped | Scope::System, Some(_)) | (Scope::Domain { .. }, _) => return forbidden,
        (Scope::Project { .. } | Scope::Unscoped | Scope::System, None) => return forbidden,
    };
    if !in_scope {
        return Err(Denied::Hidden);
    }
    if ctx.roles.has(needed) { Ok(()) } else { forbidden }
}

fn same_user(ctx: &OpCtx, target: &Target) -> bool {
    ctx.user_id().is_some() && ctx.user_id() == target.user_id
}

fn same_domain(ctx: &OpCtx, target: &Target) -> bool {
    matches!(ctx.scope, Scope::Domain { domain_id } if Some(domain_id) == target.domain_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::RoleSet;
    use crate::ids::{NodeId, RequestId};

    const fn action(rule: Rule) -> Action {
        Action { name: "test:thing:do", rule }
    }

    fn user(project_id: ProjectId, role: Role) -> OpCtx {
        OpCtx {
            request_id: RequestId::new(),
            actor: Actor::User {
                user_id: UserId::new(),
                domain_id: DomainId::DEFAULT,
                application_credential_id: None,
                trust_id: None,
            },
            scope: Scope::Project { project_id, domain_id: DomainId::DEFAULT },
            roles: RoleSet::from_iter([role]),
        }
    }

    #[test]
    fn a_project_is_closed_to_others_and_does_not_show() {
        let (mine, theirs) = (ProjectId::new(), ProjectId::new());
        let member = user(mine, Role::Member);
        assert_eq!(authorize(&member, action(Rule::ProjectMember), &Target::project(mine)), Ok(()));
        assert_eq!(authorize(&member, action(Rule::ProjectMember), &Target::project(theirs)), Err(Denied::Hidden));
        let reader = user(mine, Role::Reader);
        assert_eq!(authorize(&reader, action(Rule::ProjectReader), &Target::project(mine)), Ok(()));
        assert!(matches!(
            authorize(&reader, action(Rule::ProjectMember), &Target::project(mine)),
            Err(Denied::Forbidden(_))
        ));
    }

    #[test]
    fn a_token_for_a_domain_manages_it_and_reaches_nothing_in_projects() {
        let domain_id = DomainId::DEFAULT;
        let manager = OpCtx { scope: Scope::Domain { domain_id }, ..user(ProjectId::new(), Role::Manager) };
        assert_eq!(authorize(&manager, action(Rule::Manager), &Target::domain(domain_id)), Ok(()));
        for rule in [Rule::ProjectReader, Rule::ProjectMember] {
            for target in [Target::own(&manager), Target::project(ProjectId::new())] {
                assert!(matches!(authorize(&manager, action(rule), &target), Err(Denied::Forbidden(_))));
            }
        }
    }

    #[test]
    fn nobody_and_nodes_reach_only_what_is_theirs() {
        let nobody = OpCtx::anonymous(RequestId::new());
        assert_eq!(authorize(&nobody, action(Rule::Public), &Target::default()), Ok(()));
        assert_eq!(authorize(&nobody, action(Rule::Authenticated), &Target::default()), Err(Denied::Anonymous));
        let node = OpCtx { actor: Actor::Node { node_id: NodeId::new() }, ..nobody };
        assert_eq!(authorize(&node, action(Rule::Node), &Target::default()), Ok(()));
        assert!(authorize(&node, action(Rule::Authenticated), &Target::default()).is_err());
        let admin = user(ProjectId::new(), Role::Admin);
        assert!(authorize(&admin, action(Rule::Node), &Target::default()).is_err());
        assert_eq!(authorize(&admin, action(Rule::Admin), &Target::default()), Ok(()));
    }
}
