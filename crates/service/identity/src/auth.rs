//! Logging in: from what somebody shows to a token.

use crate::builtin;
use crate::token::{MethodName, Payload, Scoped, Subject, Token};
use crate::{Identity, IdentityError};
use arcus_store::{
    ApplicationCredential, ApplicationCredentialKey, Domain, DomainFilter, DomainKey, Login, Project, ProjectFilter,
    ProjectInDomain, ProjectKey, RoleFilter, RoleTarget, UserKey,
};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{ApplicationCredentialId, DomainId, Name, OpCtx, ProjectId, Role, RoleId, Scope, Timestamp, UserId};
use uuid::Uuid;

/// How a caller names a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// By id.
    Id(DomainId),
    /// By name.
    Name(String),
}

/// How a caller names a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By id.
    Id(UserId),
    /// By name in a domain.
    Name(String, DomainRef),
}

/// How a caller names a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectRef {
    /// By id.
    Id(ProjectId),
    /// By name in a domain.
    Name(String, DomainRef),
}

/// How a caller names an application credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplicationCredentialRef {
    /// By id.
    Id(ApplicationCredentialId),
    /// By name, of a user.
    Name(String, UserRef),
}

/// What somebody shows.
#[derive(Clone)]
pub enum Shown {
    /// A password.
    Password(UserRef, String),
    /// A token.
    Token(String),
    /// An application credential and its secret.
    ApplicationCredential(ApplicationCredentialRef, String),
}

/// Where somebody wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// To the user's default project, if there is one.
    Default,
    /// Nowhere in particular.
    Unscoped,
    /// Into a project.
    Project(ProjectRef),
    /// Into a domain.
    Domain(DomainRef),
    /// Into the whole system.
    System,
}

impl DomainRef {
    fn key(&self) -> DomainKey<'_> {
        match self {
            Self::Id(id) => DomainKey::Id(*id),
            Self::Name(name) => DomainKey::Name(name),
        }
    }
}

impl UserRef {
    fn key(&self) -> UserKey<'_> {
        match self {
            Self::Id(id) => UserKey::Id(*id),
            Self::Name(name, domain) => UserKey::Name { domain: domain.key(), name },
        }
    }
}

impl ProjectRef {
    fn key(&self) -> ProjectKey<'_> {
        match self {
            Self::Id(id) => ProjectKey::Id(*id),
            Self::Name(name, domain) => ProjectKey::Name { domain: domain.key(), name },
        }
    }
}

/// A token with the names of all that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// The token.
    pub token: Token,
    /// The user's name.
    pub user_name: Name,
    /// The user's domain.
    pub user_domain: (DomainId, Name),
    /// The project or domain that it is scoped to.
    pub place: Place,
    /// Its roles.
    pub roles: Vec<(RoleId, String)>,
    /// The application credential that it came from.
    pub application_credential: Option<ApplicationCredential>,
}

/// What a token is scoped to, with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Unscoped,
    /// A project, with its domain's name.
    Project(Project, Name),
    /// A domain.
    Domain(Domain),
    /// The system.
    System,
}

/// Somebody who has been recognised, before it is known where they may go.
struct Recognised {
    login: Login,
    method: MethodName,
    earlier_methods: u8,
    parent_audit_id: Option<Uuid>,
    expires_at: Timestamp,
    application_credential: Option<ApplicationCredential>,
}

impl Identity {
    /// Logs somebody in: the token's text, and what it says.
    ///
    /// # Errors
    /// [`IdentityError::Unauthorized`] for whatever is wrong with what was shown or wanted, the same and after the same
    /// time whether or not the user exists; [`IdentityError::NotFound`] for a token that is not valid.
    pub async fn authenticate(&self, shown: Shown, wanted: Wanted) -> Result<(String, TokenView), IdentityError> {
        let issued_at = Timestamp::now();
        let who = match shown {
            Shown::Password(user, password) => self.by_password(&user, &password, issued_at).await?,
            Shown::Token(text) => self.by_token(&text).await?,
            Shown::ApplicationCredential(credential, secret) => {
                self.by_application_credential(&credential, &secret, issued_at).await?
            }
        };
        if !who.login.user.enabled || !who.login.domain_enabled {
            return Err(IdentityError::Unauthorized);
        }
        let (place, domain_epoch, given) = self.place(&who, wanted).await?;
        let (roles, rights) = builtin::expand(&given);
        let user = &who.login.user;
        let payload = Payload {
            version: Payload::VERSION,
            user: Subject(user.id.0, user.token_epoch),
            user_domain: Subject(user.domain_id.0, who.login.domain_epoch),
            scope: scoped(&place, domain_epoch),
            roles: roles.iter().map(|(id, _)| id.0).collect(),
            rights,
            methods: who.method.bit() | who.earlier_methods,
            audit_id: Uuid::new_v4(),
            parent_audit_id: who.parent_audit_id,
            application_credential_id: who.application_credential.as_ref().map(|c| c.id.0),
            issued_at,
            expires_at: who.expires_at,
        };
        let text = payload.seal(self.keys())?;
        let view = TokenView {
            token: Token(payload),
            user_name: user.name.clone(),
            user_domain: (user.domain_id, who.login.domain_name.clone()),
            place,
            roles,
            application_credential: who.application_credential,
        };
        Ok((text, view))
    }

    async fn by_password(&self, user: &UserRef, password: &str, now: Timestamp) -> Result<Recognised, IdentityError> {
        let login = self.store().user_login(user.key()).await?;
        let locked = login.as_ref().is_some_and(|l| self.is_locked(l, now));
        let hash = login.as_ref().and_then(|l| l.password_hash.as_deref());
        let right = self.passwords().check(password, hash).await?;
        let Some(login) = login else { return Err(IdentityError::Unauthorized) };
        if locked {
            return Err(IdentityError::Unauthorized);
        }
        self.count_failure(&login, right, now).await?;
        if !right {
            return Err(IdentityError::Unauthorized);
        }
        Ok(Recognised {
            login,
            method: MethodName::Password,
            earlier_methods: 0,
            parent_audit_id: None,
            expires_at: now.plus_seconds(self.config().token_ttl_s),
            application_credential: None,
        })
    }

    /// A user who gave too many wrong passwords in a row is locked for a while.
    pub(crate) fn is_locked(&self, login: &Login, now: Timestamp) -> bool {
        let config = self.config();
        config.lockout_failures > 0
            && login.failures >= config.lockout_failures
            && now < login.failed_at.plus_seconds(config.lockout_s)
    }

    /// Counts a wrong password; a right one, or a lock that has ended, begins the count anew.
    pub(crate) async fn count_failure(&self, login: &Login, right: bool, now: Timestamp) -> Result<(), IdentityError> {
        let over = self.config().lockout_failures > 0 && login.failures >= self.config().lockout_failures;
        if right && login.failures == 0 {
            return Ok(());
        }
        let tx = self.store().begin_unaudited().await?;
        if right || over {
            tx.user_failures_clear(login.user.id).await?;
        }
        if !right {
            tx.user_failure_add(login.user.id, now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// A token made from another lives no longer than that one.
    async fn by_token(&self, text: &str) -> Result<Recognised, IdentityError> {
        let token = self.verify(text).map_err(|_| IdentityError::not_found("token", "given"))?;
        if token.application_credential_id().is_some() {
            let reason = "A token of an application credential cannot be exchanged for another one.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let login = self.store().user_login(UserKey::Id(token.user_id())).await?;
        Ok(Recognised {
            login: login.ok_or(IdentityError::Unauthorized)?,
            method: MethodName::Token,
            earlier_methods: token.0.methods,
            parent_audit_id: Some(token.0.audit_id),
            expires_at: token.expires_at(),
            application_credential: None,
        })
    }

    async fn by_application_credential(
        &self,
        credential: &ApplicationCredentialRef,
        secret: &str,
        now: Timestamp,
    ) -> Result<Recognised, IdentityError> {
        let found = match credential {
            ApplicationCredentialRef::Id(id) => {
                self.store().application_credential_get(ApplicationCredentialKey::Id(*id)).await?
            }
            ApplicationCredentialRef::Name(name, user) => match self.store().user_login(user.key()).await? {
                Some(Login { user, .. }) => {
                    let key = ApplicationCredentialKey::Name { user_id: user.id, name };
                    self.store().application_credential_get(key).await?
                }
                None => None,
            },
        };
        let right = self.passwords().check(secret, found.as_ref().map(|c| c.secret_hash.as_str())).await?;
        let found = found.filter(|c| right && c.expires_at.is_none_or(|at| now < at));
        let found = found.ok_or(IdentityError::Unauthorized)?;
        let login = self.store().user_login(UserKey::Id(found.user_id)).await?;
        let longest = now.plus_seconds(self.config().token_ttl_s);
        Ok(Recognised {
            login: login.ok_or(IdentityError::Unauthorized)?,
            method: MethodName::ApplicationCredential,
            earlier_methods: 0,
            parent_audit_id: None,
            expires_at: found.expires_at.map_or(longest, |at| at.min(longest)),
            application_credential: Some(found),
        })
    }

    /// Where somebody may go, the epoch of that place's domain, and the roles that were given to them there. What holds
    /// an epoch is read before the roles, so that a change in between makes the token void and not too strong.
    async fn place(
        &self,
        who: &Recognised,
        wanted: Wanted,
    ) -> Result<(Place, u64, Vec<(RoleId, Name)>), IdentityError> {
        if let Some(credential) = &who.application_credential {
            let found = self.project_for(&ProjectRef::Id(credential.project_id), who.login.user.id).await?;
            let Some((project, mut roles)) = found else { return Err(IdentityError::Unauthorized) };
            roles = builtin::expand(&roles)
                .0
                .into_iter()
                .filter(|(id, _)| credential.roles.contains(id))
                .map(|(id, name)| Ok((id, name.parse()?)))
                .collect::<Result<_, IdentityError>>()?;
            let elsewhere = match &wanted {
                Wanted::Default => false,
                Wanted::Project(ProjectRef::Id(id)) => *id != credential.project_id,
                Wanted::Project(ProjectRef::Name(..)) | Wanted::Unscoped | Wanted::Domain(_) | Wanted::System => true,
            };
            if roles.is_empty() || elsewhere {
                return Err(IdentityError::Unauthorized);
            }
            return Ok((Place::Project(project.project, project.domain_name), project.domain_epoch, roles));
        }
        match wanted {
            Wanted::Unscoped => Ok((Place::Unscoped, 0, Vec::new())),
            Wanted::Default => {
                let Some(id) = who.login.user.default_project_id else { return Ok((Place::Unscoped, 0, Vec::new())) };
                Ok(match self.project_for(&ProjectRef::Id(id), who.login.user.id).await? {
                    Some((p, roles)) => (Place::Project(p.project, p.domain_name), p.domain_epoch, roles),
                    None => (Place::Unscoped, 0, Vec::new()),
                })
            }
            Wanted::Project(key) => {
                let found = self.project_for(&key, who.login.user.id).await?;
                let (p, roles) = found.ok_or(IdentityError::Unauthorized)?;
                Ok((Place::Project(p.project, p.domain_name), p.domain_epoch, roles))
            }
            Wanted::Domain(key) => {
                let domain = self.store().domain_get(key.key()).await?.filter(|d| d.enabled);
                let domain = domain.ok_or(IdentityError::Unauthorized)?;
                let roles = self.store().roles_of_user(who.login.user.id, RoleTarget::Domain(domain.id)).await?;
                if roles.is_empty() { Err(IdentityError::Unauthorized) } else { Ok((Place::Domain(domain), 0, roles)) }
            }
            Wanted::System => {
                let roles = self.store().roles_of_user(who.login.user.id, RoleTarget::System).await?;
                if roles.is_empty() { Err(IdentityError::Unauthorized) } else { Ok((Place::System, 0, roles)) }
            }
        }
    }

    /// A project that may be used and in which the user holds roles, with these.
    async fn project_for(
        &self,
        project: &ProjectRef,
        user_id: UserId,
    ) -> Result<Option<(ProjectInDomain, Vec<(RoleId, Name)>)>, IdentityError> {
        let found = self.store().project_get(project.key()).await?;
        let Some(found) = found.filter(|p| p.project.enabled && p.domain_enabled) else { return Ok(None) };
        let roles = self.store().roles_of_user(user_id, RoleTarget::Project(found.project.id)).await?;
        Ok((!roles.is_empty()).then_some((found, roles)))
    }

    /// What a token says, with names: for its own user, services and administrators.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if it is not valid, [`IdentityError::Denied`].
    pub async fn token_get(&self, ctx: &OpCtx, text: &str) -> Result<TokenView, IdentityError> {
        let missing = || IdentityError::not_found("token", "given");
        let token = self.verify(text).map_err(|_| missing())?;
        if !ctx.roles.has(Role::Service) {
            authorize(ctx, policy::TOKEN_GET, &target_of(&token))?;
        }
        let login = self.store().user_login(UserKey::Id(token.user_id())).await?.ok_or_else(missing)?;
        let place = match token.scope() {
            Scope::Unscoped => Place::Unscoped,
            Scope::System => Place::System,
            Scope::Project { project_id, .. } => {
                let found = self.store().project_get(ProjectKey::Id(project_id)).await?.ok_or_else(missing)?;
                Place::Project(found.project, found.domain_name)
            }
            Scope::Domain { domain_id } => {
                Place::Domain(self.store().domain_get(DomainKey::Id(domain_id)).await?.ok_or_else(missing)?)
            }
        };
        let application_credential = match token.application_credential_id() {
            Some(id) => self.store().application_credential_get(ApplicationCredentialKey::Id(id)).await?,
            None => None,
        };
        Ok(TokenView {
            user_name: login.user.name,
            user_domain: (login.user.domain_id, login.domain_name),
            place,
            roles: self.role_names(&token.roles()).await?,
            application_credential,
            token,
        })
    }

    /// The names of roles, in the order given; a role that is gone is left out.
    pub(crate) async fn role_names(&self, ids: &[RoleId]) -> Result<Vec<(RoleId, String)>, IdentityError> {
        let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let filter = RoleFilter { ids: Some(ids.to_vec()), limit, ..RoleFilter::default() };
        let found = self.store().role_list(&filter).await?;
        let name = |id: &RoleId| found.iter().find(|r| r.id == *id).map(|r| (*id, r.name.to_string()));
        Ok(ids.iter().filter_map(name).collect())
    }

    /// Makes a token void.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if it is not valid, [`IdentityError::Denied`].
    pub async fn token_delete(&self, ctx: &OpCtx, text: &str) -> Result<(), IdentityError> {
        let token = self.verify(text).map_err(|_| IdentityError::not_found("token", "given"))?;
        authorize(ctx, policy::TOKEN_DELETE, &target_of(&token))?;
        let tx = self.store().begin(ctx).await?;
        let until = token.expires_at().plus_seconds(crate::REVOCATION_SLACK_S);
        let revocation = tx.revoke_token(token.0.audit_id, Timestamp::now(), until).await?;
        let detail = serde_json::json!({ "user_id": token.user_id() });
        self.audit(&tx, policy::TOKEN_DELETE, "token", &token.audit_ids()[0], &detail).await?;
        tx.commit().await?;
        self.revoked().add(&[revocation]);
        Ok(())
    }

    /// The projects that the caller may go to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`] for who is no user.
    pub async fn own_projects(&self, ctx: &OpCtx) -> Result<Vec<Project>, IdentityError> {
        authorize(ctx, policy::OWN_SCOPES_LIST, &Target::default())?;
        let filter = ProjectFilter {
            member: Some(ctx.user_id().ok_or(IdentityError::Unauthorized)?),
            enabled: Some(true),
            limit: crate::LIST_MAX,
            ..ProjectFilter::default()
        };
        Ok(self.store().project_list(&filter).await?)
    }

    /// The domains that the caller may go to.
    ///
    /// # Errors
    /// [`IdentityError::Denied`] for who is no user.
    pub async fn own_domains(&self, ctx: &OpCtx) -> Result<Vec<Domain>, IdentityError> {
        authorize(ctx, policy::OWN_SCOPES_LIST, &Target::default())?;
        let filter = DomainFilter {
            member: Some(ctx.user_id().ok_or(IdentityError::Unauthorized)?),
            enabled: Some(true),
            limit: crate::LIST_MAX,
            ..DomainFilter::default()
        };
        Ok(self.store().domain_list(&filter).await?)
    }

    /// Whether the caller may go to the whole system.
    ///
    /// # Errors
    /// [`IdentityError::Denied`] for who is no user.
    pub async fn own_system(&self, ctx: &OpCtx) -> Result<bool, IdentityError> {
        authorize(ctx, policy::OWN_SCOPES_LIST, &Target::default())?;
        let user_id = ctx.user_id().ok_or(IdentityError::Unauthorized)?;
        Ok(!self.store().roles_of_user(user_id, RoleTarget::System).await?.is_empty())
    }
}

fn target_of(token: &Token) -> Target {
    Target { user_id: Some(token.user_id()), ..Target::default() }
}

fn scoped(place: &Place, domain_epoch: u64) -> Scoped {
    match place {
        Place::Unscoped => Scoped::Unscoped,
        Place::Project(project, _) => {
            Scoped::Project(Subject(project.id.0, project.token_epoch), Subject(project.domain_id.0, domain_epoch))
        }
        Place::Domain(domain) => Scoped::Domain(Subject(domain.id.0, domain.token_epoch)),
        Place::System => Scoped::System,
    }
}
