//! The roles that the policy table knows, and what they imply.

use arcus_types::{Name, Role, RoleId, RoleSet};
use uuid::Uuid;

/// A built-in role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// The right that it gives.
    pub role: Role,
    /// Its id, the same in every cloud.
    pub id: RoleId,
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
}

macro_rules! builtins { ($($role:ident, $id:literal, $name:literal, $text:literal;)*) => {
    /// Every built-in role. Each of the first four implies the next.
    pub const BUILTIN: &[Builtin] = &[$(
        Builtin { role: Role::$role, id: id_of(Role::$role), name: $name, description: $text }
    ),*];

    /// The id of the role that gives a right.
    pub const fn id_of(role: Role) -> RoleId {
        match role { $(Role::$role => RoleId(Uuid::from_u128($id))),* }
    }
}; }

builtins! {
    Admin, 0x1c8f4e0a_5d27_4b93_8a61_0f3d72e9b401, "admin", "May do all, everywhere.";
    Manager, 0x5b02d9c7_83fe_4a16_b7d4_6e19c0a85f02, "manager", "Manages users and assignments of its domain or project.";
    Member, 0x9e6a31f4_0cb8_4d75_93e2_a47b58d1c603, "member", "Creates, changes and deletes what belongs to its project.";
    Reader, 0xd4738b15_69ea_4f02_8c5d_31e6f097a204, "reader", "Sees what its scope holds.";
    Service, 0x27f5c06e_b14d_4839_9f70_c8a2635be105, "service", "A service acting for itself.";
}

/// Which built-in role directly implies which.
pub const IMPLIED: [(Role, Role); 3] =
    [(Role::Admin, Role::Manager), (Role::Manager, Role::Member), (Role::Member, Role::Reader)];

/// The rights that roles give. Rights come from ids and not from names.
pub fn rights(roles: &[(RoleId, Name)]) -> RoleSet {
    BUILTIN.iter().filter(|b| roles.iter().any(|(id, _)| *id == b.id)).map(|b| b.role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_come_from_ids_and_not_from_names() {
        let named_admin = [(RoleId::new(), "admin".parse().unwrap())];
        assert_eq!(rights(&named_admin), RoleSet::EMPTY);
        let rights = rights(&[(id_of(Role::Member), "member".parse().unwrap())]);
        assert!(rights.has(Role::Member) && rights.has(Role::Reader) && !rights.has(Role::Manager));
    }
}
