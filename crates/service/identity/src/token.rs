//! What a token says. It holds all that an operation's context needs, so that whoever has the keys can verify it
//! without asking anybody; names are not in it.

use crate::keys::Keys;
use crate::revoked::Revoked;
use crate::{IdentityError, access_rules};
use arcus_store::RevocationKind;
use arcus_types::{
    Actor, ApplicationCredentialId, DomainId, OpCtx, ProjectId, RequestId, RoleId, RoleSet, Scope, Timestamp, TrustId,
    UserId,
};
use base64::Engine;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The form of the payload; another one is refused.
const VERSION: u8 = 2;

/// The token is not valid: not ours, changed, expired or revoked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the token is not valid")]
pub struct NotAToken;

/// How somebody showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodName {
    /// By a password.
    Password,
    /// By another token.
    Token,
    /// By an application credential.
    ApplicationCredential,
}

impl MethodName {
    const ALL: [MethodName; 3] = [Self::Password, Self::Token, Self::ApplicationCredential];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::ApplicationCredential => "application_credential",
        }
    }

    /// The method with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    pub(crate) const fn bit(self) -> u8 {
        match self {
            Self::Password => 1,
            Self::Token => 2,
            Self::ApplicationCredential => 4,
        }
    }
}

/// Something that a token names, with its epoch when the token was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject(pub Uuid, pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scoped {
    /// Unscoped.
    #[serde(rename = "u")]
    Unscoped,
    /// A project and its domain.
    #[serde(rename = "p")]
    Project(Subject, Subject),
    /// A domain.
    #[serde(rename = "d")]
    Domain(Subject),
    /// The system.
    #[serde(rename = "s")]
    System,
}

/// A kind of call that a token is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub service: String,
    pub method: String,
    pub path: String,
}

/// The trust that a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trusted {
    pub id: Uuid,
    /// The other user of the trust, beside the one whom the token is for.
    pub other: Subject,
    pub other_domain: Subject,
}

/// The content of a token, in this order in MessagePack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub version: u8,
    pub user: Subject,
    pub user_domain: Subject,
    pub scope: Scoped,
    /// Given and implied.
    pub roles: Vec<Uuid>,
    pub rights: RoleSet,
    pub methods: u8,
    pub audit_id: Uuid,
    pub parent_audit_id: Option<Uuid>,
    pub application_credential_id: Option<Uuid>,
    /// What may be called with it; `None`: everything that its roles allow.
    pub rules: Option<Vec<Rule>>,
    pub trusted: Option<Trusted>,
    /// Whose roles in which place these are.
    pub stay: Option<Subject>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Payload {
    pub(crate) const VERSION: u8 = VERSION;

    /// The text of a token that says this.
    pub(crate) fn seal(&self, keys: &Keys) -> Result<String, IdentityError> {
        let bytes = rmp_serde::to_vec(self).map_err(|e| IdentityError::Corrupt(format!("token payload: {e}")))?;
        keys.seal(&bytes)
    }

    /// Everything that this token can be void because of, with the epoch that it holds.
    fn subjects(&self) -> impl Iterator<Item = (RevocationKind, Subject)> {
        let (project, domain) = match self.scope {
            Scoped::Project(project, domain) => (Some(project), Some(domain)),
            Scoped::Domain(domain) => (None, Some(domain)),
            Scoped::Unscoped | Scoped::System => (None, None),
        };
        [
            Some((RevocationKind::Token, Subject(self.audit_id, 0))),
            Some((RevocationKind::User, self.user)),
            Some((RevocationKind::Domain, self.user_domain)),
            project.map(|p| (RevocationKind::Project, p)),
            domain.map(|d| (RevocationKind::Domain, d)),
            self.application_credential_id.map(|id| (RevocationKind::ApplicationCredential, Subject(id, 0))),
            self.trusted.map(|t| (RevocationKind::Trust, Subject(t.id, 0))),
            self.trusted.map(|t| (RevocationKind::User, t.other)),
            self.stay.map(|stay| (RevocationKind::Stay, stay)),
            self.trusted.map(|t| (RevocationKind::Domain, t.other_domain)),
        ]
        .into_iter()
        .flatten()
    }
}

/// A token that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(pub(crate) Payload);

impl Token {
    /// Opens a token and checks that it is still good at `now`.
    pub(crate) fn open(text: &str, keys: &Keys, revoked: &Revoked, now: Timestamp) -> Result<Self, NotAToken> {
        let bytes = keys.unseal(text).ok_or(NotAToken)?;
        let payload: Payload = rmp_serde::from_slice(&bytes).map_err(|_| NotAToken)?;
        if payload.version != VERSION || payload.expires_at <= now || revoked.any(payload.subjects()) {
            return Err(NotAToken);
        }
        Ok(Self(payload))
    }

    /// Opens a token that may have expired, if not before `oldest`.
    pub(crate) fn open_expired(
        text: &str,
        keys: &Keys,
        revoked: &Revoked,
        oldest: Timestamp,
    ) -> Result<Self, NotAToken> {
        Self::open(text, keys, revoked, oldest)
    }

    /// Whether it is good for a call. One with access rules is good only for what they name.
    pub fn allows(&self, method: &str, path: &str) -> bool {
        self.0.rules.as_ref().is_none_or(|rules| {
            rules.iter().any(|rule| access_rules::covers(&rule.service, &rule.method, &rule.path, method, path))
        })
    }

    /// The trust that it came from.
    pub fn trust_id(&self) -> Option<TrustId> {
        self.0.trusted.map(|t| TrustId(t.id))
    }

    /// Who acts, where and with which rights.
    pub fn ctx(&self) -> OpCtx {
        OpCtx {
            request_id: RequestId::new(),
            actor: Actor::User {
                user_id: self.user_id(),
                domain_id: DomainId(self.0.user_domain.0),
                application_credential_id: self.application_credential_id(),
                trust_id: self.trust_id(),
            },
            scope: self.scope(),
            roles: self.0.rights,
        }
    }

    /// Whose it is.
    pub fn user_id(&self) -> UserId {
        UserId(self.0.user.0)
    }

    /// What it is good for.
    pub fn scope(&self) -> Scope {
        match self.0.scope {
            Scoped::Unscoped => Scope::Unscoped,
            Scoped::Project(project, domain) => {
                Scope::Project { project_id: ProjectId(project.0), domain_id: DomainId(domain.0) }
            }
            Scoped::Domain(domain) => Scope::Domain { domain_id: DomainId(domain.0) },
            Scoped::System => Scope::System,
        }
    }

    /// The roles that it carries, given and implied.
    pub fn roles(&self) -> Vec<RoleId> {
        self.0.roles.iter().copied().map(RoleId).collect()
    }

    /// How its user showed who they are.
    pub fn methods(&self) -> impl Iterator<Item = MethodName> {
        let methods = self.0.methods;
        MethodName::ALL.into_iter().filter(move |m| methods & m.bit() != 0)
    }

    /// Its audit id, and that of the token which it was made from.
    pub fn audit_ids(&self) -> Vec<String> {
        let text = |id: Uuid| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id.as_bytes());
        [Some(self.0.audit_id), self.0.parent_audit_id].into_iter().flatten().map(text).collect()
    }

    /// The application credential that it came from.
    pub fn application_credential_id(&self) -> Option<ApplicationCredentialId> {
        self.0.application_credential_id.map(ApplicationCredentialId)
    }

    /// When it was made.
    pub fn issued_at(&self) -> Timestamp {
        self.0.issued_at
    }

    /// From then on it is not good any more.
    pub fn expires_at(&self) -> Timestamp {
        self.0.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_store::Revocation;
    use arcus_types::Role;

    fn payload(now: Timestamp) -> Payload {
        Payload {
            version: VERSION,
            user: Subject(Uuid::now_v7(), 3),
            user_domain: Subject(Uuid::nil(), 0),
            scope: Scoped::Project(Subject(Uuid::now_v7(), 1), Subject(Uuid::nil(), 0)),
            roles: vec![Uuid::now_v7(), Uuid::now_v7()],
            rights: [Role::Member].into_iter().collect(),
            methods: MethodName::Password.bit() | MethodName::Token.bit(),
            audit_id: Uuid::new_v4(),
            parent_audit_id: Some(Uuid::new_v4()),
            application_credential_id: Some(Uuid::new_v4()),
            rules: None,
            trusted: None,
            stay: Some(Subject(Uuid::new_v4(), 5)),
            issued_at: now,
            expires_at: now.plus_seconds(3600),
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let now = Timestamp::now();
        let (payload, revoked) = (payload(now), Revoked::default());
        let text = payload.seal(&keys).unwrap();
        assert!(text.len() < 512, "{} characters", text.len());
        let token = Token::open(&text, &keys, &revoked, now).unwrap();
        assert_eq!(token.0, payload);
        assert_eq!(token.methods().map(MethodName::name).collect::<Vec<_>>(), ["password", "token"]);
        assert_eq!(token.audit_ids().len(), 2);
        assert!(token.ctx().roles.has(Role::Reader) && !token.ctx().roles.has(Role::Manager));
        assert!(Token::open(&text, &keys, &revoked, now.plus_seconds(3599)).is_ok());
        assert!(Token::open(&text, &keys, &revoked, now.plus_seconds(3600)).is_err());
        let other = tempfile::tempdir().unwrap();
        assert!(Token::open(&text, &Keys::open(other.path()).unwrap(), &revoked, now).is_err());
    }

    #[test]
    fn a_payload_of_another_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let now = Timestamp::now();
        let newer = Payload { version: VERSION + 1, ..payload(now) }.seal(&keys).unwrap();
        assert!(Token::open(&newer, &keys, &Revoked::default(), now).is_err());
        let noise = keys.seal(b"noise").unwrap();
        assert!(Token::open(&noise, &keys, &Revoked::default(), now).is_err());
    }

    #[test]
    fn each_subject_voids_the_tokens_of_lower_epochs_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let now = Timestamp::now();
        let (other, other_domain) = (Subject(Uuid::now_v7(), 4), Subject(Uuid::now_v7(), 0));
        let trusted = Some(Trusted { id: Uuid::now_v7(), other, other_domain });
        let payload = Payload { trusted, ..payload(now) };
        let text = payload.seal(&keys).unwrap();
        for (kind, Subject(subject_id, epoch)) in payload.subjects() {
            let revoked = Revoked::default();
            let revocation = Revocation { kind, subject_id, epoch, recorded_at: now, expires_at: now.plus_seconds(10) };
            revoked.add(&[revocation]);
            assert!(Token::open(&text, &keys, &revoked, now).is_ok(), "{kind:?} of the same epoch");
            revoked.add(&[Revocation { epoch: epoch + 1, ..revocation }]);
            assert!(Token::open(&text, &keys, &revoked, now).is_err(), "{kind:?}");
            revoked.add(&[revocation]);
            assert!(Token::open(&text, &keys, &revoked, now).is_err(), "an older record does not bring {kind:?} back");
            let stranger = Revoked::default();
            stranger.add(&[Revocation { subject_id: Uuid::new_v4(), epoch: 9, ..revocation }]);
            assert!(Token::open(&text, &keys, &stranger, now).is_ok());
        }
    }
}
