//! Projects: what resources belong to.

use crate::assignments::MEMBER_OF_PROJECT;
use crate::domains::DomainKey;
use crate::roles::json_text;
use crate::sql::{Json, Row, Where, params};
use crate::text_tests::{Extra, TextTest};
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
    /// Words by which it can be found.
    pub tags: Vec<String>,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options such as `immutable`.
    pub options: Extra,
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
    /// Tags, all of them.
    pub tags: Option<Vec<String>>,
    /// Attributes of the client's own, all of them.
    pub extra: Option<Extra>,
    /// Options, all of them.
    pub options: Option<Extra>,
}

/// By which tags to choose projects; empty lists choose nothing away.
#[derive(Debug, Clone, Default)]
pub struct ProjectTags {
    /// Has all of these.
    pub all: Vec<String>,
    /// Has one of these.
    pub any: Vec<String>,
    /// Does not have all of these.
    pub not_all: Vec<String>,
    /// Has none of these.
    pub not_any: Vec<String>,
}

/// Which projects to list.
#[derive(Debug, Clone, Default)]
pub struct ProjectFilter {
    /// In this domain.
    pub domain_id: Option<DomainId>,
    /// With such a name.
    pub names: Vec<TextTest>,
    /// With such tags.
    pub tags: ProjectTags,
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

const COLUMNS: &str = "p.id, p.domain_id, p.parent_id, p.name, p.description, p.enabled, p.tags, p.extra, p.options, \
     p.token_epoch, p.created_at";

fn project(row: &Row) -> Result<Project, StoreError> {
    Ok(Project {
        id: row.get("id")?,
        domain_id: row.get("domain_id")?,
        parent_id: row.opt("parent_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        tags: row.json("tags")?,
        extra: row.json("extra")?,
        options: row.json("options")?,
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

    /// The projects above one, nearest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn project_parents(&self, id: ProjectId) -> Result<Vec<Project>, StoreError> {
        let sql = format!(
            "WITH RECURSIVE above(id, depth) AS (SELECT parent_id, 1 FROM projects WHERE id = $1
             UNION ALL SELECT q.parent_id, a.depth + 1 FROM projects q JOIN above a ON q.id = a.id)
             SELECT {COLUMNS} FROM projects p JOIN above a ON a.id = p.id ORDER BY a.depth"
        );
        self.all(sql, params![id]).await?.iter().map(project).collect()
    }

    /// The projects below one, each after its parent, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn project_subtree(&self, id: ProjectId, limit: u32) -> Result<Vec<Project>, StoreError> {
        let sql = format!(
            "WITH RECURSIVE below(id, depth) AS (SELECT id, 1 FROM projects WHERE parent_id = $1
             UNION ALL SELECT q.id, b.depth + 1 FROM projects q JOIN below b ON q.parent_id = b.id)
             SELECT {COLUMNS} FROM projects p JOIN below b ON b.id = p.id ORDER BY b.depth, p.id LIMIT {limit}"
        );
        self.all(sql, params![id]).await?.iter().map(project).collect()
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
        filter.and_texts("p.name", &wanted.names);
        for tag in &wanted.tags.all {
            filter.and_holds("p.tags", tag, true);
        }
        if !wanted.tags.any.is_empty() {
            filter.and_holds_any("p.tags", &wanted.tags.any, true);
        }
        if !wanted.tags.not_all.is_empty() {
            filter.and_lacks_one("p.tags", &wanted.tags.not_all);
        }
        if !wanted.tags.not_any.is_empty() {
            filter.and_holds_any("p.tags", &wanted.tags.not_any, false);
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
            filter.and(MEMBER_OF_PROJECT, params![user_id, user_id, user_id, user_id, user_id, user_id]);
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
            "INSERT INTO projects (id, domain_id, parent_id, name, description, enabled, tags, extra, options,
             token_epoch, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                new.id,
                new.domain_id,
                new.parent_id,
                &new.name,
                &new.description,
                new.enabled,
                Json(&new.tags),
                Json(&new.extra),
                Json(&new.options),
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
                 enabled = COALESCE($4, enabled), tags = COALESCE($5, tags), extra = COALESCE($6, extra),
                 options = COALESCE($7, options) WHERE id = $1",
                params![
                    id,
                    change.name.clone(),
                    &change.description,
                    change.enabled,
                    change.tags.as_ref().map(|tags| serde_json::to_string(tags).unwrap_or_default()),
                    change.extra.as_ref().map(json_text),
                    change.options.as_ref().map(json_text)
                ],
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
