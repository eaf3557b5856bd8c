//! Who acts, where, and with which rights: the first argument of every entry point of the engine.

use crate::ids::{ApplicationCredentialId, DomainId, NodeId, ProjectId, RequestId, TrustId, UserId};
use serde::{Deserialize, Serialize};

/// A right that the policy table knows. Custom roles may exist; they grant nothing by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees what its scope holds. Implied by `Member`.
    Reader,
    /// Creates, changes and deletes what belongs to its project. Implied by `Manager`.
    Member,
    /// Manages users and assignments of its domain or project. Implied by `Admin`.
    Manager,
    /// May do all, everywhere, as OpenStack's `admin` role does.
    Admin,
    /// A service acting for itself.
    Service,
}

impl Role {
    /// The role with this name, if it is one that the policy table knows.
    pub fn from_name(name: &str) -> Option<Role> {
        match name {
            "reader" => Some(Role::Reader),
            "member" => Some(Role::Member),
            "manager" => Some(Role::Manager),
            "admin" => Some(Role::Admin),
            "service" => Some(Role::Service),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Role::Reader => 0b0_0001,
            Role::Member => 0b0_0011,
            Role::Manager => 0b0_0111,
            Role::Admin => 0b0_1111,
            Role::Service => 0b1_0000,
        }
    }
}

/// A set of roles, closed under implication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleSet(u8);

impl RoleSet {
    /// No role.
    pub const EMPTY: RoleSet = RoleSet(0);

    /// This set with `role` and all that it implies.
    #[must_use]
    pub const fn with(self, role: Role) -> RoleSet {
        RoleSet(self.0 | role.bits())
    }

    /// Whether `role` is in the set, given or implied.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bits() == role.bits()
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(RoleSet::EMPTY, RoleSet::with)
    }
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Only to learn where one may go.
    Unscoped,
    /// One project.
    Project {
        /// The project.
        project_id: ProjectId,
        /// The domain that the project is in.
        domain_id: DomainId,
    },
    /// One domain.
    Domain {
        /// The domain.
        domain_id: DomainId,
    },
    /// The whole system.
    System,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Nobody has been recognised.
    Anonymous,
    /// A user, perhaps through an application credential.
    User {
        /// The user.
        user_id: UserId,
        /// The user's domain.
        domain_id: DomainId,
        /// The application credential that was used, if one was.
        application_credential_id: Option<ApplicationCredentialId>,
        /// The trust that was used, if one was: then somebody else may act here in this user's name.
        trust_id: Option<TrustId>,
    },
    /// A node, over its own certificate.
    Node {
        /// The node.
        node_id: NodeId,
    },
    /// Arcus itself, in the background.
    System,
}

/// The context of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpCtx {
    /// The request that this operation serves.
    pub request_id: RequestId,
    /// Who acts.
    pub actor: Actor,
    /// What the actor's token is good for.
    pub scope: Scope,
    /// The roles that the actor holds in that scope.
    pub roles: RoleSet,
}

impl OpCtx {
    /// A request that nobody has signed.
    pub fn anonymous(request_id: RequestId) -> Self {
        Self { request_id, actor: Actor::Anonymous, scope: Scope::Unscoped, roles: RoleSet::EMPTY }
    }

    /// Background work of Arcus itself: may do all.
    pub fn system() -> Self {
        Self {
            request_id: RequestId::new(),
            actor: Actor::System,
            scope: Scope::System,
            roles: RoleSet::EMPTY.with(Role::Admin),
        }
    }

    /// The project that the operation acts in, if it is scoped to one.
    pub fn project_id(&self) -> Option<ProjectId> {
        match self.scope {
            Scope::Project { project_id, .. } => Some(project_id),
            Scope::Unscoped | Scope::Domain { .. } | Scope::System => None,
        }
    }

    /// The user who acts, if it is one.
    pub fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User { user_id, .. } => Some(user_id),
            Actor::Anonymous | Actor::Node { .. } | Actor::System => None,
        }
    }

    /// The trust by which the actor acts, if there is one.
    pub fn trust_id(&self) -> Option<TrustId> {
        match self.actor {
            Actor::User { trust_id, .. } => trust_id,
            Actor::Anonymous | Actor::Node { .. } | Actor::System => None,
        }
    }

    /// Whether the actor sees and changes every project's resources.
    pub fn is_admin(&self) -> bool {
        self.roles.has(Role::Admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_brings_those_it_implies_and_no_more() {
        let member = RoleSet::from_iter([Role::Member]);
        assert!(member.has(Role::Reader) && member.has(Role::Member));
        assert!(!member.has(Role::Manager) && !member.has(Role::Admin) && !member.has(Role::Service));
        let admin = RoleSet::from_iter([Role::Admin]);
        assert!(admin.has(Role::Manager) && admin.has(Role::Reader) && !admin.has(Role::Service));
        assert!(!RoleSet::EMPTY.has(Role::Reader));
    }
}
