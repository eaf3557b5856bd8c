//! The first run: what a cloud must have before anybody can log in.

use crate::builtin::{BUILTIN, IMPLIED, id_of};
use crate::passwords::{Passwords, random_secret};
use crate::{Identity, IdentityError};
use arcus_store::{
    AuditEntry, Domain, DomainKey, Extra, Project, RoleActor, RoleEntry, RoleTarget, Store, StoreError, Tx, User,
};
use arcus_types::policy::{Action, Rule};
use arcus_types::{DomainId, OpCtx, ProjectId, Role, Timestamp, UserId};

const BOOTSTRAP: Action = Action { name: "identity:bootstrap", rule: Rule::Admin };

/// The passwords of the users that bootstrap makes.
#[derive(Clone)]
pub struct BootstrapPasswords {
    /// Of `admin`: administrator of the system and of project `admin`.
    pub admin: String,
    /// Of `demo`: member of project `demo`.
    pub demo: String,
}

impl BootstrapPasswords {
    /// Two random passwords.
    pub fn random() -> Self {
        Self { admin: random_secret(), demo: random_secret() }
    }
}

impl Identity {
    /// Makes the domain `Default`, the built-in roles, project and user `admin`, project and user `demo`, in one
    /// transaction; `false` if that was done before, and then nothing changes and the passwords are not used.
    ///
    /// The caller keeps the passwords safe before it calls this: a crash in between must not lose them.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] for a password that cannot be one, [`IdentityError::Store`].
    pub async fn bootstrap(store: &Store, passwords: &BootstrapPasswords) -> Result<bool, IdentityError> {
        if is_done(store).await? {
            return Ok(false);
        }
        let hasher = Passwords::default();
        let (admin, demo) = (hasher.hash(&passwords.admin).await?, hasher.hash(&passwords.demo).await?);
        match make(store, &admin, &demo).await {
            Ok(()) => Ok(true),
            // Another replica was faster.
            Err(StoreError::Duplicate(_)) if is_done(store).await? => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

async fn is_done(store: &Store) -> Result<bool, StoreError> {
    Ok(store.domain_get(DomainKey::Id(DomainId::DEFAULT)).await?.is_some())
}

async fn make(store: &Store, admin_hash: &str, demo_hash: &str) -> Result<(), StoreError> {
    let now = Timestamp::now();
    let tx = store.begin(&OpCtx::system()).await?;
    tx.domain_insert(&Domain {
        id: DomainId::DEFAULT,
        name: name("Default")?,
        description: "The first domain.".to_owned(),
        enabled: true,
        extra: Extra::new(),
        options: Extra::new(),
        token_epoch: 0,
        created_at: now,
    })
    .await?;
    for role in BUILTIN {
        tx.role_insert(&RoleEntry {
            id: role.id,
            domain_id: None,
            name: name(role.name)?,
            description: Some(role.description.to_owned()),
            builtin: true,
            options: Extra::new(),
            created_at: now,
        })
        .await?;
    }
    for (prior, implied) in IMPLIED {
        tx.implication_insert(id_of(prior), id_of(implied)).await?;
    }
    let (admin, admin_project) = person(&tx, now, "admin", "The administrator's project.", admin_hash).await?;
    let (demo, demo_project) = person(&tx, now, "demo", "A project to begin with.", demo_hash).await?;
    for (user_id, target, role) in [
        (admin, RoleTarget::System, Role::Admin),
        (admin, RoleTarget::Project(admin_project), Role::Admin),
        (demo, RoleTarget::Project(demo_project), Role::Member),
    ] {
        tx.assignment_insert(RoleActor::User(user_id), target, id_of(role), false).await?;
    }
    let detail = serde_json::json!({ "users": ["admin", "demo"] });
    tx.audit(AuditEntry {
        action: BOOTSTRAP,
        kind: "domain",
        id: DomainId::DEFAULT.to_string(),
        project_id: None,
        detail: &detail,
    })
    .await?;
    tx.commit().await
}

/// A user and a project of the same name.
async fn person(
    tx: &Tx,
    now: Timestamp,
    both: &str,
    description: &str,
    password_hash: &str,
) -> Result<(UserId, ProjectId), StoreError> {
    let (user_id, project_id) = (UserId::new(), ProjectId::new());
    tx.project_insert(&Project {
        id: project_id,
        domain_id: DomainId::DEFAULT,
        parent_id: None,
        name: name(both)?,
        description: description.to_owned(),
        enabled: true,
        tags: Vec::new(),
        extra: Extra::new(),
        options: Extra::new(),
        token_epoch: 0,
        created_at: now,
    })
    .await?;
    let user = User {
        id: user_id,
        domain_id: DomainId::DEFAULT,
        name: name(both)?,
        description: None,
        email: None,
        enabled: true,
        default_project_id: Some(project_id),
        extra: Extra::new(),
        options: Extra::new(),
        password_set_at: now,
        token_epoch: 0,
        created_at: now,
    };
    tx.user_insert(&user, Some(password_hash)).await?;
    Ok((user_id, project_id))
}

fn name(text: &str) -> Result<arcus_types::Name, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { column: "name".to_owned(), value: text.to_owned() })
}
