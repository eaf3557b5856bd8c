//! Groups and who is in them.

use crate::domains::domain_of;
use crate::options::{extra_check, merged};
use crate::{Identity, IdentityError, short_name_check, text_check};
use arcus_store::{Extra, Group, GroupFilter, Revoked, RoleActor, User, UserFilter};
use arcus_types::policy::{Action, Target, authorize, identity as policy};
use arcus_types::{DomainId, GroupId, Name, OpCtx, Timestamp, UserId};
use serde_json::json;

/// A group that somebody wants.
#[derive(Debug, Clone)]
pub struct GroupNew {
    /// Its name.
    pub name: Name,
    /// The domain; unless given, the caller's.
    pub domain_id: Option<DomainId>,
    /// What it is for.
    pub description: String,
    /// Attributes of the client's own.
    pub extra: Extra,
}

impl Identity {
    /// Makes a group.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken in its domain.
    pub async fn group_create(&self, ctx: &OpCtx, new: GroupNew) -> Result<Group, IdentityError> {
        let domain_id = new.domain_id.unwrap_or(domain_of(ctx));
        authorize(ctx, policy::GROUP_CREATE, &Target::domain(domain_id))?;
        text_check(Some(&new.description))?;
        short_name_check(Some(&new.name))?;
        extra_check(&new.extra)?;
        self.domain_find(domain_id).await?;
        let group = Group {
            id: GroupId::new(),
            domain_id,
            name: new.name,
            description: new.description,
            extra: new.extra,
            created_at: Timestamp::now(),
        };
        let tx = self.store().begin(ctx).await?;
        tx.group_insert(&group).await?;
        let detail = json!({ "name": group.name, "domain_id": domain_id });
        self.audit(&tx, policy::GROUP_CREATE, "group", &group.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(group)
    }

    /// Groups: of every domain for administrators, else of the domain that the caller's token is scoped to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn group_list(&self, ctx: &OpCtx, mut filter: GroupFilter) -> Result<Vec<Group>, IdentityError> {
        if !ctx.is_admin() {
            filter.domain_id.get_or_insert(domain_of(ctx));
        }
        let target = Target { domain_id: filter.domain_id, ..Target::default() };
        authorize(ctx, policy::GROUP_LIST, &target)?;
        Ok(self.store().group_list(&filter).await?)
    }

    /// The groups that a user is in: for that user, readers of its domain, and administrators.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn user_groups(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        mut filter: GroupFilter,
    ) -> Result<Vec<Group>, IdentityError> {
        self.user_reachable(ctx, policy::USER_GROUPS_LIST, user_id).await?;
        filter.user_id = Some(user_id);
        Ok(self.store().group_list(&filter).await?)
    }

    /// A group.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn group_get(&self, ctx: &OpCtx, id: GroupId) -> Result<Group, IdentityError> {
        self.group_reachable(ctx, policy::GROUP_GET, id).await
    }

    /// The group, if the caller may do this to it. Who may not is not told whether there is one.
    async fn group_reachable(&self, ctx: &OpCtx, action: Action, id: GroupId) -> Result<Group, IdentityError> {
        let found = self.store().group_get(id).await?;
        let domain_id = found.as_ref().map(|g| g.domain_id);
        authorize(ctx, action, &Target { domain_id, ..Target::default() })?;
        found.ok_or_else(|| IdentityError::not_found("group", id))
    }

    pub(crate) async fn group_find(&self, id: GroupId) -> Result<Group, IdentityError> {
        self.store().group_get(id).await?.ok_or_else(|| IdentityError::not_found("group", id))
    }

    /// A group that the caller manages: in a domain of theirs and without rights that they do not have.
    async fn group_managed(&self, ctx: &OpCtx, action: Action, id: GroupId) -> Result<Group, IdentityError> {
        let group = self.group_reachable(ctx, action, id).await?;
        self.reach_check(ctx, RoleActor::Group(id), group.domain_id).await?;
        Ok(group)
    }

    /// Changes a group's name or description.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken.
    pub async fn group_update(
        &self,
        ctx: &OpCtx,
        id: GroupId,
        name: Option<Name>,
        description: Option<String>,
        extra: Option<Extra>,
    ) -> Result<Group, IdentityError> {
        let before = self.group_managed(ctx, policy::GROUP_UPDATE, id).await?;
        let extra = merged(before.extra, extra)?;
        text_check(description.as_deref())?;
        short_name_check(name.as_ref())?;
        let tx = self.store().begin(ctx).await?;
        if !tx.group_update(id, name.as_ref(), description.as_deref(), extra.as_ref()).await? {
            return Err(IdentityError::not_found("group", id));
        }
        self.audit(&tx, policy::GROUP_UPDATE, "group", &id, &json!({ "name": name })).await?;
        self.commit(tx, &[]).await?;
        self.group_find(id).await
    }

    /// Deletes a group. Its users' tokens become void, since they may hold roles of the group.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn group_delete(&self, ctx: &OpCtx, id: GroupId) -> Result<(), IdentityError> {
        let found = self.group_managed(ctx, policy::GROUP_DELETE, id).await?;
        let tx = self.store().begin(ctx).await?;
        let revocations = self.revoke(&tx, Revoked::GroupMembers(id)).await?;
        if !tx.group_delete(id).await? {
            return Err(IdentityError::not_found("group", id));
        }
        self.audit(&tx, policy::GROUP_DELETE, "group", &id, &json!({ "name": found.name })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// The users in a group.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn group_users(
        &self,
        ctx: &OpCtx,
        id: GroupId,
        mut filter: UserFilter,
    ) -> Result<Vec<User>, IdentityError> {
        self.group_reachable(ctx, policy::GROUP_USERS_LIST, id).await?;
        filter.group_id = Some(id);
        Ok(self.store().user_list(&filter).await?)
    }

    /// Whether a user is in a group.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if it is not, or either is not there; [`IdentityError::Denied`].
    pub async fn group_user_check(&self, ctx: &OpCtx, id: GroupId, user_id: UserId) -> Result<(), IdentityError> {
        let found = self.store().group_get(id).await?;
        let domain_id = found.as_ref().map(|g| g.domain_id);
        let target = Target { user_id: Some(user_id), domain_id, project_id: None };
        authorize(ctx, policy::GROUP_USER_CHECK, &target)?;
        let inside = self.store().group_has(id, user_id).await?;
        if inside { Ok(()) } else { Err(IdentityError::not_found("user in group", user_id)) }
    }

    /// Puts a user into a group; nothing happens if it is in it.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] if the group reaches beyond
    /// what the caller manages.
    pub async fn group_user_add(&self, ctx: &OpCtx, id: GroupId, user_id: UserId) -> Result<(), IdentityError> {
        self.group_managed(ctx, policy::GROUP_USER_ADD, id).await?;
        self.user_reachable(ctx, policy::GROUP_USER_ADD, user_id).await?;
        let tx = self.store().begin(ctx).await?;
        tx.group_member_add(id, user_id).await?;
        self.audit(&tx, policy::GROUP_USER_ADD, "group", &id, &json!({ "user_id": user_id })).await?;
        Ok(self.commit(tx, &[]).await?)
    }

    /// Takes a user out of a group; its tokens become void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`] if it is not in it.
    pub async fn group_user_remove(&self, ctx: &OpCtx, id: GroupId, user_id: UserId) -> Result<(), IdentityError> {
        self.group_managed(ctx, policy::GROUP_USER_REMOVE, id).await?;
        let tx = self.store().begin(ctx).await?;
        if !tx.group_member_remove(id, user_id).await? {
            return Err(IdentityError::not_found("user in group", user_id));
        }
        let revocations = self.revoke(&tx, Revoked::User(user_id)).await?;
        self.audit(&tx, policy::GROUP_USER_REMOVE, "group", &id, &json!({ "user_id": user_id })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }
}
