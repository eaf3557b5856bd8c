//! Which tokens are void: for each subject that tokens name, the lowest epoch that is still honoured.

use crate::sql::{Row, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ApplicationCredentialId, DomainId, GroupId, ProjectId, RoleId, Timestamp, TrustId, UserId};
use uuid::Uuid;

/// What a token can be void because of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RevocationKind {
    /// The token itself, by its audit id.
    Token,
    /// Its user.
    User,
    /// The project that it is scoped to.
    Project,
    /// Its user's domain or the domain that it is scoped to.
    Domain,
    /// The application credential that it came from.
    ApplicationCredential,
    /// The trust that it came from.
    Trust,
}

impl RevocationKind {
    const ALL: [RevocationKind; 6] =
        [Self::Token, Self::User, Self::Project, Self::Domain, Self::ApplicationCredential, Self::Trust];

    const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Project => "project",
            Self::Domain => "domain",
            Self::ApplicationCredential => "credential",
            Self::Trust => "trust",
        }
    }
}

impl std::str::FromStr for RevocationKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// Tokens of a subject that are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// What kind of subject.
    pub kind: RevocationKind,
    /// Which one: an audit id or the id of a user, project, domain, application credential or trust.
    pub subject_id: Uuid,
    /// Tokens with a lower epoch are void.
    pub epoch: u64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// From then on every such token has expired anyway.
    pub expires_at: Timestamp,
}

/// Whose tokens are made void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// One user's.
    User(UserId),
    /// Those of every user in a group.
    GroupMembers(GroupId),
    /// Those of every user who holds a role or one that implies it, directly or through a group.
    RoleHolders(RoleId),
    /// Those scoped to a project.
    Project(ProjectId),
    /// Those of a domain's users, and those scoped to it or to a project in it.
    Domain(DomainId),
}

impl Revoked {
    /// Kind, table, and the condition that finds its rows by `$1`.
    fn rows(self) -> (RevocationKind, &'static str, &'static str, Uuid) {
        match self {
            Self::User(id) => (RevocationKind::User, "users", "id = $1", id.0),
            Self::GroupMembers(id) => (
                RevocationKind::User,
                "users",
                "id IN (SELECT m.user_id FROM user_group_members m WHERE m.group_id = $1)",
                id.0,
            ),
            Self::RoleHolders(id) => (
                RevocationKind::User,
                "users",
                "id IN (WITH RECURSIVE giving(id) AS (SELECT r.id FROM roles r WHERE r.id = $1
                 UNION SELECT i.prior_id FROM role_implications i JOIN giving g ON i.implied_id = g.id)
                 SELECT a.user_id FROM role_assignments a JOIN giving g ON g.id = a.role_id WHERE a.user_id IS NOT NULL
                 UNION SELECT m.user_id FROM role_assignments a JOIN giving g ON g.id = a.role_id
                 JOIN user_group_members m ON m.group_id = a.group_id)",
                id.0,
            ),
            Self::Project(id) => (RevocationKind::Project, "projects", "id = $1", id.0),
            Self::Domain(id) => (RevocationKind::Domain, "domains", "id = $1", id.0),
        }
    }
}

fn revocation(row: &Row) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        kind: row.text("kind")?,
        subject_id: row.get("subject_id")?,
        epoch: row.get("epoch")?,
        recorded_at: row.get("recorded_at")?,
        expires_at: row.get("expires_at")?,
    })
}

impl Db {
    /// Revocations that were recorded at `since` or later.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revocation_list(&self, since: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let rows = self
            .all(
                "SELECT kind, subject_id, epoch, recorded_at, expires_at FROM revocations WHERE recorded_at >= $1",
                params![since],
            )
            .await?;
        rows.iter().map(revocation).collect()
    }
}

impl Tx {
    /// Raises the token epoch of whoever is meant and records it; returns what was recorded, for the memory of this
    /// process. Call it before the rows that tell whom are deleted. Three statements: raise, record, read back.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke(
        &self,
        revoked: Revoked,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Vec<Revocation>, StoreError> {
        let (kind, table, condition, id) = revoked.rows();
        self.exec(format!("UPDATE {table} SET token_epoch = token_epoch + 1 WHERE {condition}"), params![id]).await?;
        self.exec(
            format!(
                "INSERT INTO revocations (kind, subject_id, epoch, recorded_at, expires_at)
                 SELECT $2, id, token_epoch, $3, $4 FROM {table} WHERE {condition}
                 ON CONFLICT (kind, subject_id) DO UPDATE SET epoch = excluded.epoch,
                 recorded_at = excluded.recorded_at, expires_at = excluded.expires_at"
            ),
            params![id, kind.name(), now, expires_at],
        )
        .await?;
        let rows = self
            .all(
                format!(
                    "SELECT kind, subject_id, epoch, recorded_at, expires_at FROM revocations
                     WHERE kind = $2 AND subject_id IN (SELECT id FROM {table} WHERE {condition})"
                ),
                params![id, kind.name()],
            )
            .await?;
        rows.iter().map(revocation).collect()
    }

    /// Makes one token void, by its audit id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_token(
        &self,
        audit_id: Uuid,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Revocation, StoreError> {
        self.revoke_whole(RevocationKind::Token, audit_id, now, expires_at).await
    }

    /// Makes every token void that came from an application credential.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_application_credential(
        &self,
        id: ApplicationCredentialId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Revocation, StoreError> {
        self.revoke_whole(RevocationKind::ApplicationCredential, id.0, now, expires_at).await
    }

    /// Makes every token void that came from a trust.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_trust(
        &self,
        id: TrustId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Revocation, StoreError> {
        self.revoke_whole(RevocationKind::Trust, id.0, now, expires_at).await
    }

    /// Tokens carry epoch 0 of subjects that are made void once and for all.
    async fn revoke_whole(
        &self,
        kind: RevocationKind,
        subject_id: Uuid,
        recorded_at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Revocation, StoreError> {
        self.exec(
            "INSERT INTO revocations (kind, subject_id, epoch, recorded_at, expires_at) VALUES ($1, $2, 1, $3, $4)
             ON CONFLICT DO NOTHING",
            params![kind.name(), subject_id, recorded_at, expires_at],
        )
        .await?;
        Ok(Revocation { kind, subject_id, epoch: 1, recorded_at, expires_at })
    }

    /// Forgets revocations of tokens that have all expired.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revocations_prune(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.exec("DELETE FROM revocations WHERE expires_at < $1", params![now]).await
    }
}
