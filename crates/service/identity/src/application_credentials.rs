//! Application credentials.

use crate::access_rules::{self, RULES_MAX};
use crate::auth::ALLOW_EXPIRED_S;
use crate::passwords::{check_length, random_secret};
use crate::{Identity, IdentityError, REVOCATION_SLACK_S, TOKEN_TTL_S_MAX, text_check};
use arcus_store::{AccessRule, ApplicationCredential, ApplicationCredentialKey, RoleTarget};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{AccessRuleId, Actor, ApplicationCredentialId, Name, OpCtx, RoleId, Timestamp, UserId};
use serde_json::json;

/// A role as somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRef {
    /// By id.
    Id(RoleId),
    /// By name.
    Name(String),
}

/// An application credential that somebody wants.
#[derive(Clone)]
pub struct ApplicationCredentialNew {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub description: Option<String>,
    /// Its secret; one is drawn unless given.
    pub secret: Option<String>,
    /// The roles that it carries; unless given, all that the caller holds.
    pub roles: Option<Vec<RoleRef>>,
    /// Whether it may be used to make and delete application credentials.
    pub unrestricted: bool,
    /// From then on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// What it may call; `None`: everything that its roles allow.
    pub access_rules: Option<Vec<AccessRuleNew>>,
}

/// An access rule as somebody names it.
#[derive(Debug, Clone)]
pub enum AccessRuleNew {
    /// One that the user has already.
    Known(AccessRuleId),
    /// A new one: service type, method and path.
    New(String, String, String),
}

/// An application credential with the names of its roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationCredentialView {
    /// The credential.
    pub credential: ApplicationCredential,
    /// Its roles.
    pub roles: Vec<(RoleId, Name)>,
    /// What it may call, if rules say so.
    pub access_rules: Option<Vec<AccessRule>>,
}

impl Identity {
    /// Makes an application credential of the caller, in the project of the caller's token; also its secret, which
    /// cannot be learnt later.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::Forbidden`] through a restricted credential,
    /// [`IdentityError::Invalid`] for roles that the caller does not hold or an expiry in the past,
    /// [`IdentityError::Conflict`] if the caller has one with this name.
    pub async fn application_credential_create(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        new: ApplicationCredentialNew,
    ) -> Result<(ApplicationCredentialView, String), IdentityError> {
        authorize(ctx, policy::APPLICATION_CREDENTIAL_CREATE, &target(user_id))?;
        self.only_oneself(ctx, policy::APPLICATION_CREDENTIAL_CREATE, user_id)?;
        self.in_own_name(ctx)?;
        let project_id = ctx.project_id().ok_or_else(|| {
            IdentityError::Invalid("An application credential needs a token that is scoped to a project.".to_owned())
        })?;
        text_check(new.description.as_deref())?;
        let now = Timestamp::now();
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(IdentityError::Invalid("The expiry must be in the future.".to_owned()));
        }
        let through = self.unrestricted_check(ctx).await?;
        let mut holds = self.store().roles_of_user(user_id, RoleTarget::Project(project_id)).await?;
        if let Some(through) = through {
            holds.retain(|(id, _)| through.roles.contains(id));
        }
        let roles = chosen_roles(holds, new.roles)?;
        let rules = self.rules_wanted(ctx, user_id, new.access_rules).await?;
        let secret = new.secret.unwrap_or_else(random_secret);
        check_length(&secret)?;
        let credential = ApplicationCredential {
            id: ApplicationCredentialId::new(),
            user_id,
            project_id,
            name: new.name,
            description: new.description,
            secret_hash: self.passwords().hash(&secret).await?,
            roles: roles.iter().map(|(id, _)| *id).collect(),
            unrestricted: new.unrestricted,
            ruled: rules.is_some(),
            expires_at: new.expires_at,
            created_at: now,
        };
        let tx = self.store().begin(ctx).await?;
        tx.application_credential_insert(&credential).await?;
        let access_rules = match rules {
            None => None,
            Some(rules) => {
                let mut kept = Vec::with_capacity(rules.len());
                for rule in rules {
                    kept.push(tx.application_credential_rule_add(user_id, credential.id, &rule).await?);
                }
                Some(kept)
            }
        };
        let detail = json!({ "name": credential.name, "unrestricted": credential.unrestricted });
        let action = policy::APPLICATION_CREDENTIAL_CREATE;
        self.audit(&tx, action, "application_credential", &credential.id, &detail).await?;
        self.commit(tx, &[]).await?;
        Ok((ApplicationCredentialView { credential, roles, access_rules }, secret))
    }

    /// The rules of a new credential, checked.
    async fn rules_wanted(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        wanted: Option<Vec<AccessRuleNew>>,
    ) -> Result<Option<Vec<AccessRule>>, IdentityError> {
        let Some(wanted) = wanted else { return Ok(None) };
        if wanted.len() > RULES_MAX {
            let reason = format!("An application credential has at most {RULES_MAX} access rules.");
            return Err(IdentityError::Invalid(reason));
        }
        let mut rules = Vec::with_capacity(wanted.len());
        for rule in wanted {
            rules.push(match rule {
                AccessRuleNew::Known(id) => self.access_rule_get(ctx, user_id, id).await?,
                AccessRuleNew::New(service, method, path) => {
                    access_rules::check(&service, &method, &path)?;
                    AccessRule { id: AccessRuleId::new(), service, method, path }
                }
            });
        }
        Ok(Some(rules))
    }

    /// Refuses a caller who came through a restricted credential; else the credential that it came through.
    pub(crate) async fn unrestricted_check(&self, ctx: &OpCtx) -> Result<Option<ApplicationCredential>, IdentityError> {
        let id = match ctx.actor {
            Actor::User { application_credential_id: Some(id), .. } => id,
            Actor::User { application_credential_id: None, .. }
            | Actor::Anonymous
            | Actor::Node { .. }
            | Actor::System => return Ok(None),
        };
        let found = self.store().application_credential_get(ApplicationCredentialKey::Id(id)).await?;
        match found {
            Some(credential) if credential.unrestricted => Ok(Some(credential)),
            Some(_) | None => Err(IdentityError::Forbidden(
                "A restricted application credential cannot be used to manage application credentials.".to_owned(),
            )),
        }
    }

    /// A user's application credentials, at most `limit` after `marker`.
    ///
    /// # Errors
    /// [`IdentityError::Denied`].
    pub async fn application_credential_list(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        name: Option<&str>,
        marker: Option<ApplicationCredentialId>,
        limit: u32,
    ) -> Result<Vec<ApplicationCredentialView>, IdentityError> {
        authorize(ctx, policy::APPLICATION_CREDENTIAL_LIST, &target(user_id))?;
        self.in_own_name(ctx)?;
        let found = self.store().application_credential_list(user_id, name, marker, limit).await?;
        let mut ids: Vec<RoleId> = found.iter().flat_map(|c| c.roles.iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        let names = self.role_names(&ids).await?;
        let ruled = found.iter().filter(|c| c.ruled).map(|c| c.id).collect();
        let rules = self.store().application_credential_rules(ruled).await?;
        let view = |credential: ApplicationCredential| {
            let roles = names.iter().filter(|(id, _)| credential.roles.contains(id)).cloned().collect();
            let own = || rules.iter().filter(|(id, _)| *id == credential.id).map(|(_, rule)| rule.clone()).collect();
            let access_rules = credential.ruled.then(own);
            ApplicationCredentialView { credential, roles, access_rules }
        };
        Ok(found.into_iter().map(view).collect())
    }

    /// One application credential of a user.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`].
    pub async fn application_credential_get(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        id: ApplicationCredentialId,
    ) -> Result<ApplicationCredentialView, IdentityError> {
        authorize(ctx, policy::APPLICATION_CREDENTIAL_GET, &target(user_id))?;
        self.in_own_name(ctx)?;
        let found = self.store().application_credential_get(ApplicationCredentialKey::Id(id)).await?;
        let credential = found
            .filter(|c| c.user_id == user_id)
            .ok_or_else(|| IdentityError::not_found("application credential", id))?;
        let roles = self.role_names(&credential.roles).await?;
        let access_rules = if credential.ruled {
            let rules = self.store().application_credential_rules(vec![id]).await?;
            Some(rules.into_iter().map(|(_, rule)| rule).collect())
        } else {
            None
        };
        Ok(ApplicationCredentialView { credential, roles, access_rules })
    }

    /// Deletes an application credential; tokens that came from it become void.
    ///
    /// # Errors
    /// [`IdentityError::Denied`], [`IdentityError::NotFound`], [`IdentityError::Forbidden`] through a restricted one.
    pub async fn application_credential_delete(
        &self,
        ctx: &OpCtx,
        user_id: UserId,
        id: ApplicationCredentialId,
    ) -> Result<(), IdentityError> {
        authorize(ctx, policy::APPLICATION_CREDENTIAL_DELETE, &target(user_id))?;
        self.in_own_name(ctx)?;
        self.unrestricted_check(ctx).await?;
        let now = Timestamp::now();
        let tx = self.store().begin(ctx).await?;
        if !tx.application_credential_delete(user_id, id).await? {
            return Err(IdentityError::not_found("application credential", id));
        }
        let until = now.plus_seconds(TOKEN_TTL_S_MAX + REVOCATION_SLACK_S + ALLOW_EXPIRED_S);
        let revocation = tx.revoke_application_credential(id, now, until).await?;
        let action = policy::APPLICATION_CREDENTIAL_DELETE;
        self.audit(&tx, action, "application_credential", &id, &json!({ "user_id": user_id })).await?;
        Ok(self.commit(tx, &[revocation]).await?)
    }
}

fn target(user_id: UserId) -> Target {
    Target { user_id: Some(user_id), ..Target::default() }
}

/// Those of the roles that somebody holds which were asked for; all of them if none were named.
pub(crate) fn chosen_roles(
    holds: Vec<(RoleId, Name)>,
    wanted: Option<Vec<RoleRef>>,
) -> Result<Vec<(RoleId, Name)>, IdentityError> {
    let Some(wanted) = wanted.filter(|w| !w.is_empty()) else { return Ok(holds) };
    let mut roles = Vec::with_capacity(wanted.len());
    for role in &wanted {
        let found = holds.iter().find(|(id, name)| match role {
            RoleRef::Id(wanted) => wanted == id,
            RoleRef::Name(wanted) => wanted == name.as_str(),
        });
        let found = found.ok_or_else(|| {
            IdentityError::Invalid(
                "An application credential carries only roles that its user holds in the project.".to_owned(),
            )
        })?;
        if !roles.contains(found) {
            roles.push(found.clone());
        }
    }
    Ok(roles)
}
