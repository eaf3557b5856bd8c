//! Who holds which role where.

use crate::revocations::stay_id;
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
    pub(crate) fn id(self) -> Uuid {
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

/// What a user holds in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The id under which tokens for it are revoked.
    pub id: Uuid,
    /// Tokens that hold a lower epoch are void.
    pub epoch: u64,
    /// The roles, by name.
    pub roles: Vec<(RoleId, Name)>,
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
    /// The domain that the role belongs to, if it is not the whole cloud's.
    pub role_domain_id: Option<DomainId>,
    /// Who holds it.
    pub actor: AssignmentActor,
    /// Where.
    pub target: AssignmentTarget,
    /// Whether it is held not there but on every project below.
    pub inherited: bool,
    /// The group through which a user holds it, if effective assignments were asked for.
    pub through: Option<GroupId>,
    /// Where an inherited assignment was given that has an effect here: a project, or the domain.
    pub inherited_from: Option<RoleTarget>,
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
    /// Also on the projects below the target, which is a project.
    pub subtree: bool,
    /// Only inherited ones, or only others.
    pub inherited: Option<bool>,
    /// What has an effect: a group's assignment is listed once for each of its users instead, and an inherited one once
    /// for each project below.
    pub effective: bool,
    /// At most so many.
    pub limit: u32,
}

/// What has an effect: users instead of groups, projects below instead of what is inherited.
const EFFECTIVE: &str = "(SELECT a.role_id, e.target_id, COALESCE(a.user_id, m.user_id) AS user_id,
     CAST(NULL AS UUID) AS group_id, e.project_id, e.domain_id, FALSE AS inherited, a.group_id AS through,
     e.from_project, e.from_domain
     FROM role_assignments a LEFT JOIN user_group_members m ON m.group_id = a.group_id
     JOIN (SELECT t.actor_id, t.role_id, t.target_id AS given_id, t.inherited, t.target_id, t.project_id, t.domain_id,
       CAST(NULL AS UUID) AS from_project, CAST(NULL AS UUID) AS from_domain
       FROM role_assignments t WHERE NOT t.inherited
       UNION ALL SELECT t.actor_id, t.role_id, t.target_id, t.inherited, p.id, p.id, CAST(NULL AS UUID),
       CAST(NULL AS UUID), t.domain_id
       FROM role_assignments t JOIN projects p ON p.domain_id = t.domain_id WHERE t.inherited
       UNION ALL SELECT t.actor_id, t.role_id, t.target_id, t.inherited, b.id, b.id, CAST(NULL AS UUID),
       t.project_id, CAST(NULL AS UUID)
       FROM role_assignments t JOIN beneath b ON b.top = t.project_id WHERE t.inherited) e
     ON e.actor_id = a.actor_id AND e.role_id = a.role_id AND e.given_id = a.target_id AND e.inherited = a.inherited
     WHERE COALESCE(a.user_id, m.user_id) IS NOT NULL)";
/// The projects below those on which something inherited was given.
const BENEATH: &str = "WITH RECURSIVE beneath(top, id) AS (SELECT p.parent_id, p.id FROM projects p
     WHERE p.parent_id IN (SELECT i.project_id FROM role_assignments i WHERE i.inherited AND i.project_id IS NOT NULL)
     UNION SELECT b.top, c.id FROM beneath b JOIN projects c ON c.parent_id = b.id) ";
const PLAIN: &str = "(SELECT role_id, target_id, user_id, group_id, project_id, domain_id, inherited,
     CAST(NULL AS UUID) AS through, CAST(NULL AS UUID) AS from_project, CAST(NULL AS UUID) AS from_domain
     FROM role_assignments)";
/// A project, by `?`, and all below it.
const SUBTREE: &str = "a.project_id IN (WITH RECURSIVE tree(id) AS (SELECT t.id FROM projects t WHERE t.id = ?
     UNION SELECT c.id FROM projects c JOIN tree ON c.parent_id = tree.id) SELECT id FROM tree)";
/// The roles that the user `$1` holds on `$2`, with all that they imply; those of a domain have no effect by themselves.
const HELD: &str = "WITH RECURSIVE above(id) AS (
       SELECT p.parent_id FROM projects p WHERE p.id = $2 AND p.parent_id IS NOT NULL
       UNION SELECT p.parent_id FROM projects p JOIN above a ON p.id = a.id WHERE p.parent_id IS NOT NULL),
     held(id) AS (
       SELECT a.role_id FROM role_assignments a
       WHERE (a.user_id = $1 OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = $1))
       AND (a.target_id = $2 AND NOT a.inherited OR a.inherited AND (
         a.domain_id IN (SELECT p.domain_id FROM projects p WHERE p.id = $2)
         OR a.project_id IN (SELECT id FROM above)))
       UNION SELECT i.implied_id FROM role_implications i JOIN held h ON i.prior_id = h.id)
     SELECT r.id, r.name, (SELECT v.epoch FROM revocations v WHERE v.kind = 'stay' AND v.subject_id = $3) AS epoch
     FROM roles r JOIN held h ON h.id = r.id WHERE r.domain_id IS NULL ORDER BY r.name";
/// The projects on which the user `?`, `?` holds a role, itself or through groups, given there or inherited: three
/// conditions on `p`, each of which has the user twice.
pub(crate) const MEMBER_OF_PROJECT: &str = "(p.id IN (SELECT a.project_id FROM role_assignments a
       WHERE a.project_id IS NOT NULL AND NOT a.inherited AND (a.user_id = ?
       OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?)))
     OR p.domain_id IN (SELECT a.domain_id FROM role_assignments a
       WHERE a.domain_id IS NOT NULL AND a.inherited AND (a.user_id = ?
       OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?)))
     OR p.id IN (WITH RECURSIVE below(id) AS (SELECT c.id FROM projects c JOIN role_assignments a
       ON a.project_id = c.parent_id WHERE a.inherited AND (a.user_id = ?
       OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?))
       UNION SELECT c.id FROM projects c JOIN below ON c.parent_id = below.id) SELECT id FROM below))";

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
        role_domain_id: row.opt("role_domain_id")?,
        actor,
        target,
        inherited: row.get("inherited")?,
        through: row.opt("through")?,
        inherited_from: match (row.opt("from_project")?, row.opt("from_domain")?) {
            (Some(id), _) => Some(RoleTarget::Project(id)),
            (None, Some(id)) => Some(RoleTarget::Domain(id)),
            (None, None) => None,
        },
    })
}

impl Db {
    /// The roles that a user holds somewhere, given there or inherited, directly or through groups, with all that they
    /// imply; and, seen at the same moment, the epoch of the user's stay there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn stay_of_user(&self, user_id: UserId, target: RoleTarget) -> Result<Stay, StoreError> {
        let id = stay_id(user_id, target);
        let rows = self.all(HELD, params![user_id, target.id(), id]).await?;
        let epoch = rows.first().map(|row| row.opt("epoch")).transpose()?.flatten().unwrap_or(0);
        let roles = rows.iter().map(|row| Ok::<_, StoreError>((row.get("id")?, row.get("name")?)));
        Ok(Stay { id, epoch, roles: roles.collect::<Result<_, _>>()? })
    }

    /// The roles of [`Db::stay_of_user`].
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn roles_of_user(&self, user_id: UserId, target: RoleTarget) -> Result<Vec<(RoleId, Name)>, StoreError> {
        Ok(self.stay_of_user(user_id, target).await?.roles)
    }

    /// The roles that were given to a user or group itself somewhere.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn assignment_roles(
        &self,
        actor: RoleActor,
        target: RoleTarget,
        inherited: bool,
    ) -> Result<Vec<(RoleId, Name)>, StoreError> {
        let rows = self
            .all(
                "SELECT r.id, r.name FROM roles r JOIN role_assignments a ON a.role_id = r.id
                 WHERE a.actor_id = $1 AND a.target_id = $2 AND a.inherited = $3 ORDER BY r.name",
                params![actor.id(), target.id(), inherited],
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
        match wanted.target {
            Some(RoleTarget::Project(id)) if wanted.subtree => filter.and(SUBTREE, params![id]),
            Some(target) => filter.and("a.target_id = ?", params![target.id()]),
            None => &mut filter,
        };
        match wanted.inherited {
            Some(true) if wanted.effective => {
                filter.and("(a.from_project IS NOT NULL OR a.from_domain IS NOT NULL)", vec![])
            }
            Some(false) if wanted.effective => filter.and("a.from_project IS NULL AND a.from_domain IS NULL", vec![]),
            Some(inherited) => filter.and("a.inherited = ?", params![inherited]),
            None => &mut filter,
        };
        if let Some(domain_id) = wanted.within {
            filter.and("(a.domain_id = ? OR p.domain_id = ?)", params![domain_id, domain_id]);
        }
        if let Some(role_id) = wanted.role_id {
            filter.and("a.role_id = ?", params![role_id]);
        }
        let (with, source) = if wanted.effective { (BENEATH, EFFECTIVE) } else { ("", PLAIN) };
        let sql = format!(
            "{with}SELECT a.role_id, r.name AS role_name, r.domain_id AS role_domain_id, a.inherited, a.through, a.from_project, a.from_domain,
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

    /// Whether a user or group holds, itself or through a group, one of these roles or what implies one anywhere, or any
    /// role outside of a domain.
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
        let high = format!(
            "WITH RECURSIVE high(id) AS (SELECT r.id FROM roles r WHERE r.id IN ({marks})
             UNION SELECT i.prior_id FROM role_implications i JOIN high ON i.implied_id = high.id) SELECT id FROM high"
        );
        let mut values = params![domain_id];
        values.extend(roles.iter().flat_map(|id| params![*id]));
        filter.and(&format!("(COALESCE(a.domain_id, p.domain_id, a.target_id) <> ? OR a.role_id IN ({high}))"), values);
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
        inherited: bool,
    ) -> Result<bool, StoreError> {
        let (user_id, group_id) = match actor {
            RoleActor::User(id) => (Some(id), None),
            RoleActor::Group(id) => (None, Some(id)),
        };
        let inserted = self
            .exec(
                "INSERT INTO role_assignments (actor_id, target_id, role_id, inherited, user_id, group_id, project_id,
                 domain_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                params![
                    actor.id(),
                    target.id(),
                    role_id,
                    inherited,
                    user_id,
                    group_id,
                    target.project_id(),
                    target.domain_id()
                ],
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
        inherited: bool,
    ) -> Result<bool, StoreError> {
        let sql = "DELETE FROM role_assignments
             WHERE actor_id = $1 AND target_id = $2 AND role_id = $3 AND inherited = $4";
        Ok(self.exec(sql, params![actor.id(), target.id(), role_id, inherited]).await? == 1)
    }
}

impl Db {
    /// Roles with all that they imply, by name; those of a domain have no effect by themselves and are left out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn roles_closure(&self, ids: &[RoleId]) -> Result<Vec<(RoleId, Name)>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("r.id", ids.to_vec());
        let sql = format!(
            "WITH RECURSIVE held(id) AS (SELECT r.id FROM roles r{}
             UNION SELECT i.implied_id FROM role_implications i JOIN held h ON i.prior_id = h.id)
             SELECT r.id, r.name FROM roles r JOIN held h ON h.id = r.id WHERE r.domain_id IS NULL ORDER BY r.name",
            filter.sql()
        );
        let rows = self.all(sql, filter.params).await?;
        rows.iter().map(|row| Ok((row.get("id")?, row.get("name")?))).collect()
    }
}
