//! Where somebody who has been recognised may go, and with which roles.

use super::{Place, ProjectRef, Recognised, Wanted};
use crate::token::{Subject, Trusted};
use crate::{Identity, IdentityError};
use arcus_store::{ProjectInDomain, RoleTarget, Stay as Held, Trust, UserKey};
use arcus_types::{Name, RoleId, Timestamp, TrustId, UserId};

/// A place, and what somebody may do there.
pub(super) struct Stay {
    pub place: Place,
    /// The epoch of a project's domain.
    pub domain_epoch: u64,
    /// Given and implied.
    pub roles: Vec<(RoleId, Name)>,
    /// By what a change of these roles is told.
    pub subject: Option<Subject>,
}

impl Stay {
    const NOWHERE: Self = Self { place: Place::Unscoped, domain_epoch: 0, roles: Vec::new(), subject: None };

    fn at(place: Place, domain_epoch: u64, held: Held) -> Self {
        Self { place, domain_epoch, subject: Some(Subject(held.id, held.epoch)), roles: held.roles }
    }

    fn project(found: ProjectInDomain, held: Held) -> Self {
        let domain_epoch = found.domain_epoch;
        Self::at(Place::Project(found.project, found.domain_name), domain_epoch, held)
    }
}

impl Identity {
    /// Where somebody goes. What holds an epoch is read before the roles, so that a change in between makes the token
    /// void and not too strong.
    pub(super) async fn stay(&self, who: &Recognised, wanted: Wanted) -> Result<Stay, IdentityError> {
        if who.application_credential.is_some() {
            return self.stay_of_application_credential(who, &wanted).await;
        }
        let user_id = who.login.user.id;
        match wanted {
            Wanted::Unscoped | Wanted::Trust(_) => Ok(Stay::NOWHERE),
            Wanted::Default => {
                let Some(id) = who.login.user.default_project_id else { return Ok(Stay::NOWHERE) };
                let found = self.project_for(&ProjectRef::Id(id), user_id).await?;
                Ok(found.map_or(Stay::NOWHERE, |(project, held)| Stay::project(project, held)))
            }
            Wanted::Project(key) => {
                let found = self.project_for(&key, user_id).await?;
                let (project, held) = found.ok_or(IdentityError::Unauthorized)?;
                Ok(Stay::project(project, held))
            }
            Wanted::Domain(key) => {
                let domain = self.store().domain_get(key.key()).await?.filter(|d| d.enabled);
                let domain = domain.ok_or(IdentityError::Unauthorized)?;
                let held = self.store().stay_of_user(user_id, RoleTarget::Domain(domain.id)).await?;
                somewhere(Stay::at(Place::Domain(domain), 0, held))
            }
            Wanted::System => {
                let held = self.store().stay_of_user(user_id, RoleTarget::System).await?;
                somewhere(Stay::at(Place::System, 0, held))
            }
        }
    }

    /// An application credential opens its project, with those of its roles that its user still holds there.
    async fn stay_of_application_credential(&self, who: &Recognised, wanted: &Wanted) -> Result<Stay, IdentityError> {
        let credential = who.application_credential.as_ref().ok_or(IdentityError::Unauthorized)?;
        let elsewhere = match wanted {
            Wanted::Default => false,
            Wanted::Project(ProjectRef::Id(id)) => *id != credential.project_id,
            Wanted::Project(ProjectRef::Name(..))
            | Wanted::Unscoped
            | Wanted::Domain(_)
            | Wanted::System
            | Wanted::Trust(_) => true,
        };
        let found = self.project_for(&ProjectRef::Id(credential.project_id), who.login.user.id).await?;
        let Some((project, held)) = found.filter(|_| !elsewhere) else { return Err(IdentityError::Unauthorized) };
        let own = held.roles.iter().map(|(id, _)| *id).filter(|id| credential.roles.contains(id));
        let ids: Vec<RoleId> = own.collect();
        let roles = self.store().roles_closure(&ids).await?;
        somewhere(Stay::project(project, Held { roles, ..held }))
    }

    /// A project that may be used and in which the user holds roles, with these.
    pub(crate) async fn project_for(
        &self,
        project: &ProjectRef,
        user_id: UserId,
    ) -> Result<Option<(ProjectInDomain, Held)>, IdentityError> {
        let found = self.store().project_get(project.key()).await?;
        let Some(found) = found.filter(|p| p.project.enabled && p.domain_enabled) else { return Ok(None) };
        let held = self.store().stay_of_user(user_id, RoleTarget::Project(found.project.id)).await?;
        Ok((!held.roles.is_empty()).then_some((found, held)))
    }

    /// Where a trust leads: its project, for the trustee or in the trustor's name. A use is taken last, when all else is
    /// well.
    pub(super) async fn by_trust(
        &self,
        who: Recognised,
        id: TrustId,
        now: Timestamp,
    ) -> Result<(Recognised, (Trust, Trusted), Stay), IdentityError> {
        let closed = || IdentityError::Forbidden("The trust opens nothing to this user.".to_owned());
        let trust = self.store().trust_get(id).await?.ok_or_else(closed)?;
        let project_id = trust.project_id.ok_or_else(closed)?;
        let own = who.application_credential.is_none() && trust.trustee == who.login.user.id;
        if !own || trust.expires_at.is_some_and(|at| at <= now) {
            return Err(closed());
        }
        let trustor = self.store().user_login(UserKey::Id(trust.trustor)).await?.ok_or_else(closed)?;
        if !trustor.user.enabled || !trustor.domain_enabled {
            return Err(closed());
        }
        let found = self.project_for(&ProjectRef::Id(project_id), trust.trustor).await?;
        let (project, held) = found.ok_or_else(closed)?;
        if !trust.roles.iter().all(|id| held.roles.iter().any(|(held, _)| held == id)) {
            return Err(closed());
        }
        let roles = self.store().roles_closure(&trust.roles).await?;
        let stay = Stay::project(project, Held { roles, ..held });
        if trust.remaining_uses.is_some() {
            let tx = self.store().begin_unaudited().await?;
            if !tx.trust_use(id).await? {
                return Err(IdentityError::Forbidden("No use of the trust is left.".to_owned()));
            }
            tx.commit().await?;
        }
        let expires_at = trust.expires_at.map_or(who.expires_at, |at| at.min(who.expires_at));
        let (login, other) = if trust.impersonation { (trustor, who.login) } else { (who.login, trustor) };
        let trusted = Trusted {
            id: id.0,
            other: Subject(other.user.id.0, other.user.token_epoch),
            other_domain: Subject(other.user.domain_id.0, other.domain_epoch),
        };
        let who = Recognised {
            login,
            methods: who.methods,
            parent_audit_id: who.parent_audit_id,
            expires_at,
            application_credential: None,
            access_rules: None,
        };
        Ok((who, (trust, trusted), stay))
    }
}

/// Nobody stays where they hold no role.
fn somewhere(stay: Stay) -> Result<Stay, IdentityError> {
    if stay.roles.is_empty() { Err(IdentityError::Unauthorized) } else { Ok(stay) }
}
