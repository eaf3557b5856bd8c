//! Logging in: from what somebody shows to a token.

mod stay;

use crate::builtin;
use crate::token::{MethodName, Payload, Rule, Scoped, Subject, Token, Trusted};
use crate::{Catalog, Identity, IdentityError};
use arcus_store::{
    AccessRule, ApplicationCredential, ApplicationCredentialKey, Domain, DomainFilter, DomainKey, Login, Project,
    ProjectFilter, ProjectKey, RoleFilter, RoleTarget, Trust, User, UserKey,
};
use arcus_types::policy::{Target, authorize, identity as policy};
use arcus_types::{
    ApplicationCredentialId, DomainId, Name, OpCtx, ProjectId, Role, RoleId, Scope, Timestamp, TrustId, UserId,
};
use stay::Stay;
use std::sync::Arc;
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
    /// Into the project of a trust.
    Trust(TrustId),
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
    pub roles: Vec<(RoleId, Name)>,
    /// When the user's password expires.
    pub password_expires_at: Option<Timestamp>,
    /// The application credential that it came from.
    pub application_credential: Option<ApplicationCredential>,
    /// What that credential may call, if rules say so.
    pub access_rules: Option<Vec<AccessRule>>,
    /// The trust that it came from.
    pub trust: Option<Trust>,
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
pub(crate) struct Recognised {
    pub login: Login,
    pub methods: u8,
    pub parent_audit_id: Option<Uuid>,
    pub expires_at: Timestamp,
    pub application_credential: Option<ApplicationCredential>,
    pub access_rules: Option<Vec<AccessRule>>,
}

impl Recognised {
    fn new(login: Login, method: MethodName, expires_at: Timestamp) -> Self {
        Self {
            login,
            methods: method.bit(),
            parent_audit_id: None,
            expires_at,
            application_credential: None,
            access_rules: None,
        }
    }

    /// The same by two methods; the narrower of both.
    fn and(self, other: Self) -> Result<Self, IdentityError> {
        if self.login.user.id != other.login.user.id {
            return Err(IdentityError::Unauthorized);
        }
        Ok(Self {
            methods: self.methods | other.methods,
            parent_audit_id: self.parent_audit_id.or(other.parent_audit_id),
            expires_at: self.expires_at.min(other.expires_at),
            application_credential: self.application_credential.or(other.application_credential),
            access_rules: self.access_rules.or(other.access_rules),
            ..other
        })
    }
}

/// Whether a user has this option set to true.
pub(crate) fn option(user: &User, name: &str) -> bool {
    user.options.get(name) == Some(&serde_json::Value::Bool(true))
}

/// Whether the methods shown are enough: those of one of the user's rules, if rules are on. Methods that this cloud does
/// not know count as shown, so that such a rule locks nobody out.
fn rules_met(who: &Recognised) -> bool {
    let user = &who.login.user;
    let rules = user.options.get("multi_factor_auth_rules").and_then(|rules| rules.as_array());
    let Some(rules) = rules.filter(|rules| !rules.is_empty() && option(user, "multi_factor_auth_enabled")) else {
        return true;
    };
    let needed = |rule: &serde_json::Value| -> u8 {
        let names = rule.as_array().into_iter().flatten().filter_map(|name| name.as_str());
        names.filter_map(MethodName::from_name).fold(0, |bits, method| bits | method.bit())
    };
    rules.iter().map(needed).any(|bits| who.methods & bits == bits)
}

impl Identity {
    /// Logs somebody in: the token's text, and what it says. Whatever is shown must be the same user's.
    ///
    /// # Errors
    /// [`IdentityError::Unauthorized`] for whatever is wrong with what was shown or wanted, the same and after the same
    /// time whether or not the user exists; [`IdentityError::PasswordExpired`] for the right password that is too old;
    /// [`IdentityError::NotFound`] for a token that is not valid; [`IdentityError::Forbidden`] for a trust that opens
    /// nothing to the user.
    pub async fn authenticate(&self, shown: Vec<Shown>, wanted: Wanted) -> Result<(String, TokenView), IdentityError> {
        let issued_at = Timestamp::now();
        let mut who: Option<Recognised> = None;
        for shown in shown {
            let next = match shown {
                Shown::Password(user, password) => self.by_password(&user, &password, issued_at).await?,
                Shown::Token(text) => self.by_token(&text).await?,
                Shown::ApplicationCredential(credential, secret) => {
                    self.by_application_credential(&credential, &secret, issued_at).await?
                }
            };
            who = Some(match who {
                Some(before) => before.and(next)?,
                None => next,
            });
        }
        let who = who.ok_or(IdentityError::Unauthorized)?;
        if !who.login.user.enabled || !who.login.domain_enabled || !rules_met(&who) {
            return Err(IdentityError::Unauthorized);
        }
        let (who, trust, stay) = match wanted {
            Wanted::Trust(id) => {
                let (who, trust, stay) = self.by_trust(who, id, issued_at).await?;
                (who, Some(trust), stay)
            }
            wanted => {
                let stay = self.stay(&who, wanted).await?;
                (who, None, stay)
            }
        };
        self.token_make(who, trust, stay, issued_at)
    }

    fn token_make(
        &self,
        who: Recognised,
        trust: Option<(Trust, Trusted)>,
        stay: Stay,
        issued_at: Timestamp,
    ) -> Result<(String, TokenView), IdentityError> {
        let user = &who.login.user;
        let rule = |r: &AccessRule| Rule { service: r.service.clone(), method: r.method.clone(), path: r.path.clone() };
        let payload = Payload {
            version: Payload::VERSION,
            user: Subject(user.id.0, user.token_epoch),
            user_domain: Subject(user.domain_id.0, who.login.domain_epoch),
            scope: scoped(&stay.place, stay.domain_epoch),
            roles: stay.roles.iter().map(|(id, _)| id.0).collect(),
            rights: builtin::rights(&stay.roles),
            methods: who.methods,
            audit_id: Uuid::new_v4(),
            parent_audit_id: who.parent_audit_id,
            application_credential_id: who.application_credential.as_ref().map(|c| c.id.0),
            rules: who.access_rules.as_ref().map(|rules| rules.iter().map(rule).collect()),
            trusted: trust.as_ref().map(|(_, trusted)| *trusted),
            stay: stay.subject,
            issued_at,
            expires_at: who.expires_at,
        };
        let text = payload.seal(self.keys())?;
        let view = TokenView {
            token: Token(payload),
            user_name: user.name.clone(),
            user_domain: (user.domain_id, who.login.domain_name.clone()),
            password_expires_at: self.password_expires_at(user),
            place: stay.place,
            roles: stay.roles,
            application_credential: who.application_credential,
            access_rules: who.access_rules,
            trust: trust.map(|(trust, _)| trust),
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
        if self.password_expires_at(&login.user).is_some_and(|at| at <= now) {
            return Err(IdentityError::PasswordExpired(login.user.id));
        }
        Ok(Recognised::new(login, MethodName::Password, now.plus_seconds(self.config().token_ttl_s)))
    }

    /// A user who gave too many wrong passwords in a row is locked for a while.
    pub(crate) fn is_locked(&self, login: &Login, now: Timestamp) -> bool {
        let config = self.config();
        config.lockout_failures > 0
            && !option(&login.user, "ignore_lockout_failure_attempts")
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
        if token.application_credential_id().is_some() || token.trust_id().is_some() {
            let reason = "A token of an application credential or a trust cannot be exchanged for another one.";
            return Err(IdentityError::Forbidden(reason.to_owned()));
        }
        let login = self.store().user_login(UserKey::Id(token.user_id())).await?;
        let login = login.ok_or(IdentityError::Unauthorized)?;
        let who = Recognised::new(login, MethodName::Token, token.expires_at());
        Ok(Recognised { methods: who.methods | token.0.methods, parent_audit_id: Some(token.0.audit_id), ..who })
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
        let expires_at = found.expires_at.map_or(longest, |at| at.min(longest));
        let who =
            Recognised::new(login.ok_or(IdentityError::Unauthorized)?, MethodName::ApplicationCredential, expires_at);
        let access_rules = if found.ruled {
            let rules = self.store().application_credential_rules(vec![found.id]).await?;
            Some(rules.into_iter().map(|(_, rule)| rule).collect())
        } else {
            None
        };
        Ok(Recognised { application_credential: Some(found), access_rules, ..who })
    }

    /// Somebody else's token or one's own, to look at it: for its own user, services and administrators. Services and
    /// administrators may ask also for one that has expired, for `ALLOW_EXPIRED_S`. Asks no database.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if it is not valid, [`IdentityError::Denied`].
    pub fn token_get(&self, ctx: &OpCtx, text: &str, expired: bool) -> Result<Token, IdentityError> {
        let token = if expired && (ctx.roles.has(Role::Service) || ctx.is_admin()) {
            let oldest = Timestamp::now().plus_seconds(-ALLOW_EXPIRED_S);
            Token::open_expired(text, self.keys(), self.revoked(), oldest)
        } else {
            self.verify(text)
        };
        let token = token.map_err(|_| IdentityError::not_found("token", "given"))?;
        if !ctx.roles.has(Role::Service) {
            authorize(ctx, policy::TOKEN_GET, &target_of(&token))?;
        }
        Ok(token)
    }

    /// A text that shows a token, made by `make` of what it says with names, unless it was made already and nothing has
    /// changed since. `form` tells one way of showing it from another.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if what it names is gone.
    pub async fn token_shown(
        &self,
        token: Token,
        form: u8,
        make: impl FnOnce(&TokenView) -> String,
    ) -> Result<Arc<str>, IdentityError> {
        let remembered = &self.0.remembered;
        let key = (token.0.audit_id, form);
        if let Some(text) = remembered.token(&key) {
            return Ok(text);
        }
        let version = remembered.version();
        let text: Arc<str> = make(&self.token_view(token).await?).into();
        remembered.token_put(version, key, &text);
        Ok(text)
    }

    /// A text that shows the catalogue to tokens of a project, kept like that of [`Identity::token_shown`].
    pub fn catalog_shown(&self, project_id: Option<ProjectId>, make: impl FnOnce(&Catalog) -> String) -> Arc<str> {
        let remembered = &self.0.remembered;
        if let Some(text) = remembered.catalog(project_id) {
            return text;
        }
        let version = remembered.version();
        let text: Arc<str> = make(&self.catalog()).into();
        remembered.catalog_put(version, project_id, &text);
        text
    }

    /// What a token says, with names.
    async fn token_view(&self, token: Token) -> Result<TokenView, IdentityError> {
        let missing = || IdentityError::not_found("token", "given");
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
        let access_rules = match &application_credential {
            Some(credential) if credential.ruled => {
                let rules = self.store().application_credential_rules(vec![credential.id]).await?;
                Some(rules.into_iter().map(|(_, rule)| rule).collect())
            }
            Some(_) | None => None,
        };
        let trust = match token.trust_id() {
            Some(id) => self.store().trust_get(id).await?,
            None => None,
        };
        Ok(TokenView {
            password_expires_at: self.password_expires_at(&login.user),
            access_rules,
            trust,
            user_name: login.user.name,
            user_domain: (login.user.domain_id, login.domain_name),
            place,
            roles: self.role_names(&token.roles()).await?,
            application_credential,
            token,
        })
    }

    /// The names of roles, in the order given; a role that is gone is left out.
    pub(crate) async fn role_names(&self, ids: &[RoleId]) -> Result<Vec<(RoleId, Name)>, IdentityError> {
        let limit = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let filter = RoleFilter { ids: Some(ids.to_vec()), limit, ..RoleFilter::default() };
        let found = self.store().role_list(&filter).await?;
        let name = |id: &RoleId| found.iter().find(|r| r.id == *id).map(|r| (*id, r.name.clone()));
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
        let until = token.expires_at().plus_seconds(crate::REVOCATION_SLACK_S + ALLOW_EXPIRED_S);
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

/// How long after its end a token may still be looked at by those who ask so, in seconds. Source: Keystone's
/// `allow_expired_window`.
pub(crate) const ALLOW_EXPIRED_S: i64 = 172_800;

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
