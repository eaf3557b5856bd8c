//! Projects: what resources belong to.

use crate::domains::DomainKey;
use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, Name, ProjectId, Timestamp, UserId};

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The domain that it is in.
    pub domain_id: DomainId,
    /// The project above it; `None` directly below the domain.
    pub parent_id: Option<ProjectId>,
    /// Its name, unique in the domain.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// Tokens that hold a lower epoch of this project are void.
    pub token_epoch: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How a caller names a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectKey<'a> {
    /// By id.
    Id(ProjectId),
    /// By name in a domain.
    Name {
        /// The domain.
        domain: DomainKey<'a>,
        /// The name.
        name: &'a str,
    },
}

/// A project with what a token needs of its domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectInDomain {
    /// The project.
    pub project: Project,
    /// The name of its domain.
    pub domain_name: Name,
    /// Whether its domain may be used.
    pub domain_enabled: bool,
    /// The domain's token epoch.
    pub domain_epoch: u64,
}

/// What to change of a project; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct ProjectChange {
    /// Its name.
    pub name: Option<Name>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it may be used.
    pub enabled: Option<bool>,
}

/// Which projects to list.
#[derive(Debug, Clone, Default)]
pub struct ProjectFilter {
    /// In this domain.
    pub domain_id: Option<DomainId>,
    /// With this name.
    pub name: Option<String>,
    /// Enabled or not.
    pub enabled: Option<bool>,
    /// Below this project; `Some(None)`: directly below the domain.
    pub parent_id: Option<Option<ProjectId>>,
    /// Where this user holds a role, directly or through a group.
    pub member: Option<UserId>,
    /// After this one.
    pub marker: Option<ProjectId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "p.id, p.domain_id, p.parent_id, p.name, p.description, p.enabled, p.token_epoch, p.created_at";

fn project(row: &Row) -> Result<Project, StoreError> {
    Ok(Project {
        id: row.get("id")?,
        domain_id: row.get("domain_id")?,
        parent_id: row.opt("parent_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        token_epoch: row.get("token_epoch")?,
        created_at: row.get("created_at")?,
    })
}

impl Db {
    /// The project that `key` names, with its domain.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn project_get(&self, key: ProjectKey<'_>) -> Result<Option<ProjectInDomain>, StoreError> {
        let mut filter = Where::default();
        match key {
            ProjectKey::Id(id) => filter.and("p.id = ?", params![id]),
            ProjectKey::Name { domain: DomainKey::Id(id), name } => {
                filter.and("p.domain_id = ?", params![id]).and("p.name = ?", params![name])
            }
            ProjectKey::Name { domain: DomainKey::Name(domain), name } => {
                filter.and("d.name = ?", params![domain]).and("p.name = ?", params![name])
            }
        };
        let sql = format!(
            "SELECT {COLUMNS}, d.name AS domain_name, d.enabled AS domain_enabled, d.token_epoch AS domain_epoch
             FROM projects p JOIN domains d ON d.id = p.domain_id{}",
            filter.sql()
        );
        let Some(row) = self.one(sql, filter.params).await? else { return Ok(None) };
        Ok(Some(ProjectInDomain {
            project: project(&row)?,
            domain_name: row.get("domain_name")?,
            domain_enabled: row.get("domain_enabled")?,
            domain_epoch: row.get("domain_epoch")?,
        }))
    }

    /// Projects, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn project_list(&self, wanted: &ProjectFilter) -> Result<Vec<Project>, StoreError> {
        let mut filter = Where::default();
        if let Some(domain_id) = wanted.domain_id {
            filter.and("p.domain_id = ?", params![domain_id]);
        }
        if let Some(name) = &wanted.name {
            filter.and("p.name = ?", params![name]);
        }
        if let Some(enabled) = wanted.enabled {
            filter.and("p.enabled = ?", params![enabled]);
        }
        match wanted.parent_id {
            Some(Some(parent_id)) => filter.and("p.parent_id = ?", params![parent_id]),
            Some(None) => filter.and("p.parent_id IS NULL", vec![]),
            None => &mut filter,
        };
        if let Some(user_id) = wanted.member {
            filter.and(
                "p.id IN (SELECT a.project_id FROM role_assignments a WHERE a.project_id IS NOT NULL AND (a.user_id = ?
                 OR a.group_id IN (SELECT m.group_id FROM user_group_members m WHERE m.user_id = ?)))",
                params![user_id, user_id],
            );
        }
        if let Some(marker) = wanted.marker {
            filter.and("p.id > ?", params![marker]);
        }
        let sql = format!("SELECT {COLUMNS} FROM projects p{} ORDER BY p.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(project).collect()
    }
}

impl Tx {
    /// Records a project.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn project_insert(&self, new: &Project) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO projects (id, domain_id, parent_id, name, description, enabled, token_epoch, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            params![
                new.id,
                new.domain_id,
                new.parent_id,
                &new.name,
                &new.description,
                new.enabled,
                new.token_epoch,
                new.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Changes a project; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the name is taken in its domain.
    pub async fn project_update(&self, id: ProjectId, change: &ProjectChange) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE projects SET name = COALESCE($2, name), description = COALESCE($3, description),
                 enabled = COALESCE($4, enabled) WHERE id = $1",
                params![id, change.name.clone(), &change.description, change.enabled],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a project with the assignments and application credentials on it; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if projects are below it.
    pub async fn project_delete(&self, id: ProjectId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM projects WHERE id = $1", params![id]).await? == 1)
    }
}
