//! Projects.

use crate::domains::domain_of;
use crate::options::{self, PLACE_OPTIONS, extra_check, merged, options_check, options_merged};
use crate::{Identity, IdentityError, short_name_check, text_check};
use arcus_store::{DomainKey, Extra, Project, ProjectChange, ProjectFilter, ProjectKey, Revoked};
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
    /// Words by which it can be found.
    pub tags: Vec<String>,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options.
    pub options: Extra,
}

/// Which way from a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// Up to the domain.
    Above,
    /// Down to the last.
    Below,
}

/// The most tags of one project. Source: Keystone's schema of projects.
const TAGS_MAX: usize = 80;

/// Refuses tags that Keystone would not take.
fn tags_check(tags: &[String]) -> Result<(), IdentityError> {
    let invalid = |text: String| Err(IdentityError::Invalid(text));
    if tags.len() > TAGS_MAX {
        return invalid(format!("A project has at most {TAGS_MAX} tags."));
    }
    for (at, tag) in tags.iter().enumerate() {
        if tag.is_empty() || tag.chars().count() > 255 || tag.contains([',', '/']) || tag.chars().any(char::is_control)
        {
            return invalid("A tag holds 1 to 255 characters, no commas, slashes or control characters.".to_owned());
        }
        if tags[..at].contains(tag) {
            return invalid(format!("The tag {tag} is there twice."));
        }
    }
    Ok(())
}

impl Identity {
    /// Makes a project.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken in its domain,
    /// [`IdentityError::NotFound`] or [`IdentityError::Invalid`] for a domain or parent that cannot be.
    pub async fn project_create(&self, ctx: &OpCtx, new: ProjectNew) -> Result<Project, IdentityError> {
        text_check(Some(&new.description))?;
        short_name_check(Some(&new.name))?;
        tags_check(&new.tags)?;
        extra_check(&new.extra)?;
        options_check(&new.options, PLACE_OPTIONS)?;
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
            tags: new.tags,
            extra: new.extra,
            options: new.options,
            token_epoch: 0,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.project_insert(&project).await?;
        let detail = json!({ "name": project.name, "domain_id": domain_id });
        self.audit(&tx, policy::PROJECT_CREATE, "project", &project.id, &detail).await?;
        self.commit(tx, &[]).await?;
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

    /// The projects above one, nearest first; or those below it, each after its parent.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn project_kin(&self, ctx: &OpCtx, id: ProjectId, kin: Kin) -> Result<Vec<Project>, IdentityError> {
        self.project_get(ctx, id).await?;
        Ok(match kin {
            Kin::Above => self.store().project_parents(id).await?,
            Kin::Below => self.store().project_subtree(id, crate::LIST_MAX).await?,
        })
    }

    /// Those of these projects in which the caller holds a role; all of them for administrators and within the domain
    /// that the caller's token is for.
    ///
    /// # Errors
    /// [`IdentityError::Store`].
    pub async fn projects_seen(&self, ctx: &OpCtx, found: Vec<Project>) -> Result<Vec<Project>, IdentityError> {
        if ctx.is_admin() || matches!(ctx.scope, Scope::Domain { .. }) {
            return Ok(found);
        }
        let own = self.own_projects(ctx).await?;
        Ok(found.into_iter().filter(|p| own.iter().any(|o| o.id == p.id)).collect())
    }

    /// Replaces a project's tags.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`], [`IdentityError::Invalid`].
    pub async fn project_tags_set(
        &self,
        ctx: &OpCtx,
        id: ProjectId,
        tags: Vec<String>,
    ) -> Result<Project, IdentityError> {
        self.project_update(ctx, id, ProjectChange { tags: Some(tags), ..ProjectChange::default() }).await
    }

    /// Adds a tag to a project, or takes one away.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] also for a tag that is not there, [`IdentityError::Denied`],
    /// [`IdentityError::Invalid`].
    pub async fn project_tag_change(
        &self,
        ctx: &OpCtx,
        id: ProjectId,
        tag: String,
        add: bool,
    ) -> Result<Project, IdentityError> {
        let mut tags = self.project_reachable(ctx, policy::PROJECT_UPDATE, id).await?.tags;
        let before = tags.len();
        if add {
            tags.retain(|known| *known != tag);
            tags.push(tag);
        } else {
            tags.retain(|known| *known != tag);
            if tags.len() == before {
                return Err(IdentityError::not_found("project tag", tag));
            }
        }
        self.project_tags_set(ctx, id, tags).await
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
        mut change: ProjectChange,
    ) -> Result<Project, IdentityError> {
        let before = self.project_reachable(ctx, policy::PROJECT_UPDATE, id).await?;
        change.extra = merged(before.extra, change.extra)?;
        change.options = options_merged(before.options, change.options, PLACE_OPTIONS)?;
        if let Some(tags) = &change.tags {
            tags_check(tags)?;
        }
        if change.enabled == Some(true) && self.store().project_parents(id).await?.iter().any(|p| !p.enabled) {
            let reason = "Cannot enable a project while one above it is disabled.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        text_check(change.description.as_deref())?;
        short_name_check(change.name.as_ref())?;
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
        options::immutable_check(&found.options)?;
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
