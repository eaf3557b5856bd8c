//! Users and their passwords.

use crate::auth::option;
use crate::domains::domain_of;
use crate::options::{USER_OPTIONS, extra_check, merged, options_check, options_merged};
use crate::passwords::check_length;
use crate::{Identity, IdentityError, text_check};
use arcus_store::{Extra, Login, Revoked, RoleActor, StoreError, User, UserChange, UserFilter, UserKey};
use arcus_types::policy::{Action, Denied, Target, authorize, identity as policy};
use arcus_types::{DomainId, Name, OpCtx, ProjectId, Timestamp, UserId};
use serde_json::json;

const DAY_S: i64 = 86_400;

/// A user that somebody wants.
#[derive(Clone)]
pub struct UserNew {
    /// Its name.
    pub name: Name,
    /// The domain; unless given, the caller's.
    pub domain_id: Option<DomainId>,
    /// Who it is.
    pub description: Option<String>,
    /// Its mail address.
    pub email: Option<String>,
    /// Whether it may log in.
    pub enabled: bool,
    /// Where it is taken to when it logs in without saying where.
    pub default_project_id: Option<ProjectId>,
    /// Its password; without one it cannot log in with a password.
    pub password: Option<String>,
    /// Attributes of the client's own.
    pub extra: Extra,
    /// Options.
    pub options: Extra,
}

impl Identity {
    /// Makes a user.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Conflict`] if the name is taken in its domain,
    /// [`IdentityError::Invalid`] for a password that cannot be one.
    pub async fn user_create(&self, ctx: &OpCtx, new: UserNew) -> Result<User, IdentityError> {
        let domain_id = new.domain_id.unwrap_or(domain_of(ctx));
        authorize(ctx, policy::USER_CREATE, &Target::domain(domain_id))?;
        text_check(new.description.as_deref())?;
        text_check(new.email.as_deref())?;
        extra_check(&new.extra)?;
        options_check(&new.options, USER_OPTIONS)?;
        if let Some(id) = new.default_project_id {
            default_project_check(domain_id, id)?;
        }
        self.domain_find(domain_id).await?;
        let hash = match &new.password {
            Some(password) => {
                self.password_form_check(password)?;
                Some(self.passwords().hash(password).await?)
            }
            None => None,
        };
        let now = Timestamp::now();
        let user = User {
            id: UserId::new(),
            domain_id,
            name: new.name,
            description: new.description,
            email: new.email,
            enabled: new.enabled,
            default_project_id: new.default_project_id,
            extra: new.extra,
            options: new.options.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            password_set_at: if hash.is_some() { now } else { Timestamp(0) },
            token_epoch: 0,
            created_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        tx.user_insert(&user, hash.as_deref()).await?;
        let detail = json!({ "name": user.name, "domain_id": domain_id });
        self.audit(&tx, policy::USER_CREATE, "user", &user.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok(user)
    }

    /// Users: of every domain for administrators, else of the domain that the caller's token is scoped to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn user_list(&self, ctx: &OpCtx, mut filter: UserFilter) -> Result<Vec<User>, IdentityError> {
        if !ctx.is_admin() {
            filter.domain_id.get_or_insert(domain_of(ctx));
        }
        let target = Target { domain_id: filter.domain_id, ..Target::default() };
        authorize(ctx, policy::USER_LIST, &target)?;
        Ok(self.store().user_list(&filter).await?)
    }

    /// A user: for itself, readers of its domain, and administrators.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Denied`].
    pub async fn user_get(&self, ctx: &OpCtx, id: UserId) -> Result<User, IdentityError> {
        self.user_reachable(ctx, policy::USER_GET, id).await
    }

    /// The user, if the caller may do this to it. Who may not is not told whether there is one.
    pub(crate) async fn user_reachable(&self, ctx: &OpCtx, action: Action, id: UserId) -> Result<User, IdentityError> {
        let found = self.store().user_get(id).await?;
        let domain_id = found.as_ref().map(|u| u.domain_id);
        authorize(ctx, action, &Target { user_id: Some(id), domain_id, project_id: None })?;
        found.ok_or_else(|| IdentityError::not_found("user", id))
    }

    pub(crate) async fn user_find(&self, id: UserId) -> Result<User, IdentityError> {
        self.store().user_get(id).await?.ok_or_else(|| IdentityError::not_found("user", id))
    }

    /// A user that the caller manages: in a domain of theirs and without rights that they do not have.
    async fn user_managed(&self, ctx: &OpCtx, action: Action, id: UserId) -> Result<User, IdentityError> {
        let user = self.user_reachable(ctx, action, id).await?;
        self.reach_check(ctx, RoleActor::User(id), user.domain_id).await?;
        Ok(user)
    }

    /// Changes a user. A new password and disabling make all its tokens void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Conflict`] if the name is taken or the
    /// password changed meanwhile, [`IdentityError::Invalid`] for a password that cannot be one.
    pub async fn user_update(
        &self,
        ctx: &OpCtx,
        id: UserId,
        mut change: UserChange,
        password: Option<String>,
    ) -> Result<User, IdentityError> {
        let before = self.user_managed(ctx, policy::USER_UPDATE, id).await?;
        change.extra = merged(before.extra, change.extra)?;
        change.options = options_merged(before.options, change.options, USER_OPTIONS)?;
        if let Some(Some(project)) = change.default_project_id {
            default_project_check(before.domain_id, project)?;
        }
        text_check(change.description.as_ref().and_then(|d| d.as_deref()))?;
        text_check(change.email.as_ref().and_then(|e| e.as_deref()))?;
        let hash = match &password {
            Some(password) => {
                self.password_form_check(password)?;
                Some(self.passwords().hash(password).await?)
            }
            None => None,
        };
        let tx = self.store().begin(ctx).await?;
        if !tx.user_update(id, &change).await? {
            return Err(IdentityError::not_found("user", id));
        }
        if let Some(hash) = &hash {
            let login = tx.user_login(UserKey::Id(id)).await?.ok_or_else(|| IdentityError::not_found("user", id))?;
            let (old, history) = (login.password_hash.as_deref(), self.history(&login));
            if !tx.user_password_set(id, old, Some(hash), &history, Timestamp::now()).await? {
                return Err(StoreError::Stale("the user").into());
            }
        }
        let voids = hash.is_some() || change.enabled == Some(false);
        let revocations = if voids { self.revoke(&tx, Revoked::User(id)).await? } else { Vec::new() };
        let detail = json!({ "name": change.name, "enabled": change.enabled, "password": hash.is_some() });
        self.audit(&tx, policy::USER_UPDATE, "user", &id, &detail).await?;
        self.commit(tx, &revocations).await?;
        self.user_find(id).await
    }

    /// Hashes of earlier passwords that are kept when the present one is replaced.
    fn history(&self, login: &Login) -> Vec<String> {
        let earlier = login.password_hash.iter().chain(&login.password_history);
        earlier.take(self.config().password_history.saturating_sub(1)).cloned().collect()
    }

    /// Changes a user's password by who knows the present one, which may have expired: no token is asked for. All tokens
    /// of the user become void.
    ///
    /// # Errors
    /// [`IdentityError::Unauthorized`] if the original password is wrong or there is no such user that may log in,
    /// [`IdentityError::Invalid`] if the new one cannot be one or was used before, or the present one is too young.
    pub async fn user_password_change(
        &self,
        ctx: &OpCtx,
        id: UserId,
        original: &str,
        password: &str,
    ) -> Result<(), IdentityError> {
        authorize(ctx, policy::USER_PASSWORD_CHANGE, &Target::default())?;
        check_length(password)?;
        let now = Timestamp::now();
        let login = self.store().user_login(UserKey::Id(id)).await?;
        let hash = login.as_ref().and_then(|l| l.password_hash.as_deref());
        let right = self.passwords().check(original, hash).await?;
        let login = login.filter(|l| l.user.enabled && l.domain_enabled).ok_or(IdentityError::Unauthorized)?;
        if self.is_locked(&login, now) {
            return Err(IdentityError::Unauthorized);
        }
        self.count_failure(&login, right, now).await?;
        if !right {
            return Err(IdentityError::Unauthorized);
        }
        self.password_change_check(&login.user, password, now)?;
        let earlier = login.password_hash.iter().chain(&login.password_history);
        for hash in earlier.take(self.config().password_history) {
            if self.passwords().check(password, Some(hash)).await? {
                return Err(IdentityError::Invalid(
                    "The new password has been used before; choose another.".to_owned(),
                ));
            }
        }
        let hash = self.passwords().hash(password).await?;
        let tx = self.store().begin(ctx).await?;
        let (old, history) = (login.password_hash.as_deref(), self.history(&login));
        if !tx.user_password_set(id, old, Some(&hash), &history, now).await? {
            return Err(StoreError::Stale("the password").into());
        }
        let revocations = self.revoke(&tx, Revoked::User(id)).await?;
        self.audit(&tx, policy::USER_PASSWORD_CHANGE, "user", &id, &json!({})).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// Refuses a password that does not have the form which the operator wants.
    fn password_form_check(&self, password: &str) -> Result<(), IdentityError> {
        check_length(password)?;
        if self.password_pattern().is_some_and(|pattern| !pattern.is_match(password)) {
            let description = &self.config().password_pattern_text;
            return Err(IdentityError::Invalid(format!(
                "The password does not match the requirements: {description}."
            )));
        }
        Ok(())
    }

    /// Whether a user may change their own password to this one now.
    fn password_change_check(&self, user: &User, password: &str, now: Timestamp) -> Result<(), IdentityError> {
        if option(user, "lock_password") {
            let reason = "The password of this user is locked; ask an administrator to change it.";
            return Err(IdentityError::Invalid(reason.to_owned()));
        }
        let youngest = user.password_set_at.plus_seconds(self.config().password_minimum_age_days * DAY_S);
        if self.config().password_minimum_age_days > 0 && now < youngest {
            let reason = format!("The password cannot be changed before {}.", youngest.iso_seconds());
            return Err(IdentityError::Invalid(reason));
        }
        self.password_form_check(password)
    }

    /// When a user's password expires; `None`: never.
    pub fn password_expires_at(&self, user: &User) -> Option<Timestamp> {
        let days = self.config().password_expires_days;
        let ends = days > 0 && user.password_set_at.0 > 0 && !option(user, "ignore_password_expiry");
        ends.then(|| user.password_set_at.plus_seconds(days * DAY_S))
    }

    /// The time in which a password was set that expires in another one; `None` if no password expires.
    pub fn password_set_before(&self, expires: Timestamp) -> Option<Timestamp> {
        let days = self.config().password_expires_days;
        (days > 0).then(|| expires.plus_seconds(-days * DAY_S))
    }

    /// Refuses whoever acts by a trust: what is a user's own is not given away by it.
    pub(crate) fn in_own_name(&self, ctx: &OpCtx) -> Result<(), IdentityError> {
        if ctx.trust_id().is_some() {
            let reason = "This cannot be done with a token of a trust.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        Ok(())
    }

    /// Deletes a user with its memberships, assignments and application credentials.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn user_delete(&self, ctx: &OpCtx, id: UserId) -> Result<(), IdentityError> {
        let found = self.user_managed(ctx, policy::USER_DELETE, id).await?;
        let tx = self.store().begin(ctx).await?;
        let revocations = self.revoke(&tx, Revoked::User(id)).await?;
        if !tx.user_delete(id).await? {
            return Err(IdentityError::not_found("user", id));
        }
        self.audit(&tx, policy::USER_DELETE, "user", &id, &json!({ "name": found.name })).await?;
        Ok(self.commit(tx, &revocations).await?)
    }

    /// Refuses whoever is not this user itself, even administrators.
    pub(crate) fn only_oneself(&self, ctx: &OpCtx, action: Action, id: UserId) -> Result<(), IdentityError> {
        if ctx.user_id() == Some(id) { Ok(()) } else { Err(Denied::Forbidden(action.name).into()) }
    }
}

/// Refuses a domain in the place of the project that a user is taken to.
fn default_project_check(domain_id: DomainId, project_id: ProjectId) -> Result<(), IdentityError> {
    if domain_id.0 == project_id.0 {
        return Err(IdentityError::Invalid("The default project must not be a domain.".to_owned()));
    }
    Ok(())
}
