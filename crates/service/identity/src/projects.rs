//! Projects.

use crate::domains::domain_of;
use crate::{Identity, IdentityError, text_check};
use arcus_store::{DomainKey, Project, ProjectChange, ProjectFilter, ProjectKey, Revoked};
use arcus_types::policy::{Action, Target, authorize, identity as policy};
use arcus_types::{DomainId, Name, OpCtx, ProjectId, Scope, Timestamp, UserId};
use serde_json::json;

/// How deep projects may lie below their domain.
const DEPTH_MAX: usize = 5;

/// A project that somebody wants.
#[derive(Debug, Clone)]
pub struct ProjectNew {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub description: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// The domain; unless given, that of the parent, and else the caller's.
    pub domain_id: Option<DomainId>,
    /// What it is below: a project, or the domain itself by its id.
    pub parent_id: Option<ProjectId>,
}

impl Identity {
    /// Makes a project.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken in its domain,
    /// [`IdentityError::NotFound`] or [`IdentityError::Invalid`] for a domain or parent that cannot be.
    pub async fn project_create(&self, ctx: &OpCtx, new: ProjectNew) -> Result<Project, IdentityError> {
        text_check(Some(&new.description))?;
        let (domain_id, parent_id) = self.project_place(ctx, &new).await?;
        authorize(ctx, policy::PROJECT_CREATE, &Target::domain(domain_id))?;
        self.domain_find(domain_id).await?;
        let project = Project {
            id: ProjectId::new(),
            domain_id,
            parent_id,
            name: new.name,
            description: new.description,
            enabled: new.enabled,
            token_epoch: 0,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.project_insert(&project).await?;
        let detail = json!({ "name": project.name, "domain_id": domain_id });
        self.audit(&tx, policy::PROJECT_CREATE, "project", &project.id, &detail).await?;
        tx.commit().await?;
        Ok(project)
    }

    /// The domain and the parent of a new project.
    async fn project_place(
        &self,
        ctx: &OpCtx,
        new: &ProjectNew,
    ) -> Result<(DomainId, Option<ProjectId>), IdentityError> {
        let Some(parent_id) = new.parent_id else { return Ok((new.domain_id.unwrap_or(domain_of(ctx)), None)) };
        let (domain_id, parent) = match self.store().domain_get(DomainKey::Id(DomainId(parent_id.0))).await? {
            Some(domain) => {
                authorize(ctx, policy::PROJECT_CREATE, &Target::domain(domain.id))?;
                (domain.id, None)
            }
            None => {
                let parent = self.project_reachable(ctx, policy::PROJECT_CREATE, parent_id).await?;
                (parent.domain_id, Some(parent))
            }
        };
        if new.domain_id.is_some_and(|wanted| wanted != domain_id) {
            return Err(IdentityError::Invalid("A project must be in the domain of its parent.".to_owned()));
        }
        let (mut above, mut depth) = (parent.as_ref().and_then(|p| p.parent_id), 1);
        while let Some(id) = above {
            depth += 1;
            if depth >= DEPTH_MAX {
                let reason = format!("Projects may lie at most {DEPTH_MAX} deep below their domain.");
                return Err(IdentityError::Forbidden(reason));
            }
            above = self.project_find(id).await?.parent_id;
        }
        Ok((domain_id, parent.map(|p| p.id)))
    }

    /// Projects: of every domain for administrators, else of the domain that the caller's token is scoped to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn project_list(&self, ctx: &OpCtx, mut filter: ProjectFilter) -> Result<Vec<Project>, IdentityError> {
        if !ctx.is_admin() {
            filter.domain_id.get_or_insert(domain_of(ctx));
        }
        let target = Target { domain_id: filter.domain_id, ..Target::default() };
        authorize(ctx, policy::PROJECT_LIST, &target)?;
        Ok(self.store().project_list(&filter).await?)
    }

    /// A project: for who is in it, for readers of its domain, and administrators.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn project_get(&self, ctx: &OpCtx, id: ProjectId) -> Result<Project, IdentityError> {
        let found = match ctx.scope {
            Scope::Project { .. } | Scope::Unscoped | Scope::System => {
                authorize(ctx, policy::PROJECT_GET, &Target::project(id))?;
                self.project_find(id).await?
            }
            // Who may list a domain's projects may see one of them.
            Scope::Domain { .. } => self.project_reachable(ctx, policy::PROJECT_LIST, id).await?,
        };
        Ok(found)
    }

    /// The project, if the caller may do this to what its domain holds. Who may not is not told whether there is one.
    pub(crate) async fn project_reachable(
        &self,
        ctx: &OpCtx,
        action: Action,
        id: ProjectId,
    ) -> Result<Project, IdentityError> {
        let found = self.store().project_get(ProjectKey::Id(id)).await?.map(|p| p.project);
        let domain_id = found.as_ref().map(|p| p.domain_id);
        authorize(ctx, action, &Target { domain_id, ..Target::default() })?;
        found.ok_or_else(|| IdentityError::not_found("project", id))
    }

    pub(crate) async fn project_find(&self, id: ProjectId) -> Result<Project, IdentityError> {
        let found = self.store().project_get(ProjectKey::Id(id)).await?;
        found.map(|p| p.project).ok_or_else(|| IdentityError::not_found("project", id))
    }

    /// Whether something lies below a project, perhaps only what is enabled.
    async fn has_children(&self, id: ProjectId, enabled: Option<bool>) -> Result<bool, IdentityError> {
        let filter = ProjectFilter { parent_id: Some(Some(id)), enabled, limit: 1, ..ProjectFilter::default() };
        Ok(!self.store().project_list(&filter).await?.is_empty())
    }

    /// Changes a project. Disabling it makes all tokens for it void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken,
    /// [`IdentityError::Forbidden`] for disabling it while projects below it are enabled.
    pub async fn project_update(
        &self,
        ctx: &OpCtx,
        id: ProjectId,
        change: ProjectChange,
    ) -> Result<Project, IdentityError> {
        self.project_reachable(ctx, policy::PROJECT_UPDATE, id).await?;
        text_check(change.description.as_deref())?;
        let disables = change.enabled == Some(false);
        if disables && self.has_children(id, Some(true)).await? {
            let reason = "Cannot disable a project while projects below it are enabled.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        if !tx.project_update(id, &change).await? {
            return Err(IdentityError::not_found("project", id));
        }
        let revocations = if disables { self.revoke(&tx, Revoked::Project(id)).await? } else { Vec::new() };
        let detail = json!({ "name": change.name, "enabled": change.enabled });
        self.audit(&tx, policy::PROJECT_UPDATE, "project", &id, &detail).await?;
        self.commit(tx, &revocations).await?;
        self.project_find(id).await
    }

    /// Deletes a project that none lies below. What it owns in other services stays until an administrator removes it.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] while others lie below it.
    pub async fn project_delete(&self, ctx: &OpCtx, id: ProjectId) -> Result<(), IdentityError> {
        let found = self.project_reachable(ctx, policy::PROJECT_DELETE, id).await?;
        if self.has_children(id, None).await? {
            return Err(IdentityError::Forbidden("Cannot delete a project while others lie below it.".to_owned()));
        }
        let tx = self.store().begin(ctx).await?;
        let revocations = self.revoke(&tx, Revoked::Project(id)).await?;
        if !tx.project_delete(id).await? {
            return Err(IdentityError::not_found("project", id));
        }
        self.audit(&tx, policy::PROJECT_DELETE, "project", &id, &json!({ "name": found.name })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// The projects in which a user holds a role: for that user, readers of its domain, and administrators.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn user_projects(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        mut filter: ProjectFilter,
    ) -> Result<Vec<Project>, IdentityError> {
        self.user_reachable(ctx, policy::USER_PROJECTS_LIST, user_id).await?;
        filter.member = Some(user_id);
        Ok(self.store().project_list(&filter).await?)
    }
}
