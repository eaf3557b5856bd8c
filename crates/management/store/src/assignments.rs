//! Who holds which role where.

use crate::sql::{Column, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, GroupId, Name, ProjectId, RoleId, UserId};
use uuid::Uuid;

/// Who holds a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleActor {
    /// A user.
    User(UserId),
    /// Every user of a group.
    Group(GroupId),
}

/// Where a role is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleTarget {
    /// On a project.
    Project(ProjectId),
    /// On a domain.
    Domain(DomainId),
    /// On the whole system.
    System,
}

impl RoleActor {
    fn id(self) -> Uuid {
        match self {
            Self::User(id) => id.0,
            Self::Group(id) => id.0,
        }
    }
}

impl RoleTarget {
    /// The value of `target_id`: all ones for the system.
    fn id(self) -> Uuid {
        match self {
            Self::Project(id) => id.0,
            Self::Domain(id) => id.0,
            Self::System => Uuid::max(),
        }
    }

    fn project_id(self) -> Option<ProjectId> {
        match self {
            Self::Project(id) => Some(id),
            Self::Domain(_) | Self::System => None,
        }
    }

    fn domain_id(self) -> Option<DomainId> {
        match self {
            Self::Domain(id) => Some(id),
            Self::Project(_) | Self::System => None,
        }
    }
}

/// An id with its name and the domain that the name is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T> {
    /// The id.
    pub id: T,
    /// The name.
    pub name: String,
    /// The domain, by id and name.
    pub domain: (DomainId, String),
}

/// Who holds a role, with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentActor {
    /// A user.
    User(Named<UserId>),
    /// A group.
    Group(Named<GroupId>),
}

/// Where a role is held, with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentTarget {
    /// On a project.
    Project(Named<ProjectId>),
    /// On a domain.
    Domain(DomainId, String),
    /// On the whole system.
    System,
}

/// One role that somebody holds somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The role.
    pub role_id: RoleId,
    /// Its name.
    pub role_name: Name,
    /// Who holds it.
    pub actor: AssignmentActor,
    /// Where.
    pub target: AssignmentTarget,
    /// The group through which a user holds it, if groups were asked to be expanded.
    pub through: Option<GroupId>,
}

/// Which assignments to list.
#[derive(Debug, Clone, Default)]
pub struct AssignmentFilter {
    /// Held by this user.
    pub user_id: Option<UserId>,
    /// Held by this group.
    pub group_id: Option<GroupId>,
    /// Held there.
    pub target: Option<RoleTarget>,
    /// Held on this domain or on projects in it.
    pub within: Option<DomainId>,
    /// Of this role.
    pub role_id: Option<RoleId>,
    /// Whether a group's assignment is listed once for each of its users instead.
    pub expand_groups: bool,
    /// At most so many.
    pub limit: u32,
}

/// Every assignment of a group, once for each of its users, beside those of users.
const EXPANDED: &str = "(SELECT a.role_id, a.target_id, a.user_id, a.group_id, a.project_id, a.domain_id,
     a.group_id AS through FROM role_assignments a WHERE a.user_id IS NOT NULL
     UNION ALL SELECT a.role_id, a.target_id, m.user_id, CAST(NULL AS UUID), a.project_id, a.domain_id, a.group_id
     FROM role_assignments a JOIN user_group_members m ON m.group_id = a.group_id)";
const PLAIN: &str =
    "(SELECT role_id, target_id, user_id, group_id, project_id, domain_id, CAST(NULL AS UUID) AS through
     FROM role_assignments)";

fn named<T: Column<Sql = Uuid>>(row: &Row, kind: &str) -> Result<Option<Named<T>>, StoreError> {
    let Some(id) = row.opt(&format!("{kind}_id"))? else { return Ok(None) };
    Ok(Some(Named {
        id,
        name: row.opt(&format!("{kind}_name"))?.unwrap_or_default(),
        domain: (
            row.opt(&format!("{kind}_domain_id"))?.unwrap_or(DomainId::DEFAULT),
            row.opt(&format!("{kind}_domain_name"))?.unwrap_or_default(),
        ),
    }))
}

fn assignment(row: &Row) -> Result<Assignment, StoreError> {
    let actor = match (named(row, "user")?, named(row, "group")?) {
        (Some(user), _) => AssignmentActor::User(user),
        (None, Some(group)) => AssignmentActor::Group(group),
        (None, None) => {
            return Err(StoreError::Corrupt {
                column: "user_id".to_owned(),
                value: "neither user nor group".to_owned(),
            });
        }
    };
    let target = match (named(row, "project")?, row.opt("domain_id")?) {
        (Some(project), _) => AssignmentTarget::Project(project),
        (None, Some(id)) => AssignmentTarget::Domain(id, row.opt("domain_name")?.unwrap_or_default()),
        (None, None) => AssignmentTarget::System,
    };
    Ok(Assignment {
        role_id: row.get("role_id")?,
        role_name: row.get("role_name")?,
        actor,
        target,
        through: row.opt("through")?,
    })
}

impl Db {
    /// The roles that a user holds somewhere, directly or through groups, without those that they imply.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn roles_of_user(&self, user_id: UserId, target: RoleTarget) -> Result<Vec<(RoleId, Name)>, StoreError> {
        let rows = self
            .all(
                "SELECT r.id, r.name FROM roles r WHERE r.id IN (SELECT a.role_id FROM role_assignments a
                 WHERE a.target_id = $2 AND (a.user_id = $1
                 OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = $1)))
                 ORDER BY r.name",
                params![user_id, target.id()],
            )
            .await?;
        rows.iter().map(|row| Ok((row.get("id")?, row.get("name")?))).collect()
    }

    /// The roles that were given to a user or group itself somewhere.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn assignment_roles(
        &self,
        actor: RoleActor,
        target: RoleTarget,
    ) -> Result<Vec<(RoleId, Name)>, StoreError> {
        let rows = self
            .all(
                "SELECT r.id, r.name FROM roles r JOIN role_assignments a ON a.role_id = r.id
                 WHERE a.actor_id = $1 AND a.target_id = $2 ORDER BY r.name",
                params![actor.id(), target.id()],
            )
            .await?;
        rows.iter().map(|row| Ok((row.get("id")?, row.get("name")?))).collect()
    }

    /// Assignments with all names, in no special order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn assignment_list(&self, wanted: &AssignmentFilter) -> Result<Vec<Assignment>, StoreError> {
        let mut filter = Where::default();
        if let Some(user_id) = wanted.user_id {
            filter.and("a.user_id = ?", params![user_id]);
        }
        if let Some(group_id) = wanted.group_id {
            filter.and("a.group_id = ?", params![group_id]);
        }
        if let Some(target) = wanted.target {
            filter.and("a.target_id = ?", params![target.id()]);
        }
        if let Some(domain_id) = wanted.within {
            filter.and("(a.domain_id = ? OR p.domain_id = ?)", params![domain_id, domain_id]);
        }
        if let Some(role_id) = wanted.role_id {
            filter.and("a.role_id = ?", params![role_id]);
        }
        let source = if wanted.expand_groups { EXPANDED } else { PLAIN };
        let sql = format!(
            "SELECT a.role_id, r.name AS role_name, a.through,
             a.user_id, u.name AS user_name, ud.id AS user_domain_id, ud.name AS user_domain_name,
             a.group_id, g.name AS group_name, gd.id AS group_domain_id, gd.name AS group_domain_name,
             a.project_id, p.name AS project_name, pd.id AS project_domain_id, pd.name AS project_domain_name,
             a.domain_id, d.name AS domain_name
             FROM {source} a JOIN roles r ON r.id = a.role_id
             LEFT JOIN users u ON u.id = a.user_id LEFT JOIN domains ud ON ud.id = u.domain_id
             LEFT JOIN user_groups g ON g.id = a.group_id LEFT JOIN domains gd ON gd.id = g.domain_id
             LEFT JOIN projects p ON p.id = a.project_id LEFT JOIN domains pd ON pd.id = p.domain_id
             LEFT JOIN domains d ON d.id = a.domain_id{} LIMIT {}",
            filter.sql(),
            wanted.limit
        );
        self.all(sql, filter.params).await?.iter().map(assignment).collect()
    }

    /// Whether a user or group holds, itself or through a group, one of these roles anywhere, or any role outside of a
    /// domain.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn actor_reaches_beyond(
        &self,
        actor: RoleActor,
        domain_id: DomainId,
        roles: &[RoleId],
    ) -> Result<bool, StoreError> {
        let mut filter = Where::default();
        match actor {
            RoleActor::User(id) => filter.and(
                "(a.user_id = ? OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?))",
                params![id, id],
            ),
            RoleActor::Group(id) => filter.and("a.group_id = ?", params![id]),
        };
        let marks = vec!["?"; roles.len()].join(", ");
        let mut values = params![domain_id];
        values.extend(roles.iter().flat_map(|id| params![*id]));
        filter
            .and(&format!("(COALESCE(a.domain_id, p.domain_id, a.target_id) <> ? OR a.role_id IN ({marks}))"), values);
        let sql = format!(
            "SELECT 1 AS one FROM role_assignments a LEFT JOIN projects p ON p.id = a.project_id{} LIMIT 1",
            filter.sql()
        );
        Ok(self.one(sql, filter.params).await?.is_some())
    }
}

impl Tx {
    /// Gives a role; `false` if it was held already.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the role, the actor or the target is gone.
    pub async fn assignment_insert(
        &self,
        actor: RoleActor,
        target: RoleTarget,
        role_id: RoleId,
    ) -> Result<bool, StoreError> {
        let (user_id, group_id) = match actor {
            RoleActor::User(id) => (Some(id), None),
            RoleActor::Group(id) => (None, Some(id)),
        };
        let inserted = self
            .exec(
                "INSERT INTO role_assignments (actor_id, target_id, role_id, user_id, group_id, project_id, domain_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                params![actor.id(), target.id(), role_id, user_id, group_id, target.project_id(), target.domain_id()],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Takes a role away; `false` if it was not held.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn assignment_delete(
        &self,
        actor: RoleActor,
        target: RoleTarget,
        role_id: RoleId,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM role_assignments WHERE actor_id = $1 AND target_id = $2 AND role_id = $3";
        Ok(self.exec(sql, params![actor.id(), target.id(), role_id]).await? == 1)
    }
}
