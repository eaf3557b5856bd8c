//! Which tokens are void: for each subject that tokens name, the lowest epoch that is still honoured.

use crate::assignments::{RoleActor, RoleTarget};
use crate::sql::{Row, Where, params};
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
    /// A user in one place: the roles that they hold there. Its id is `stay_id`.
    Stay,
}

/// The id under which a user's stay in a place is revoked. Both ids are random enough that no two pairs meet.
pub fn stay_id(user_id: UserId, target: RoleTarget) -> Uuid {
    Uuid::from_u128(user_id.0.as_u128() ^ target.id().as_u128())
}

impl RevocationKind {
    const ALL: [RevocationKind; 7] =
        [Self::Token, Self::User, Self::Project, Self::Domain, Self::ApplicationCredential, Self::Trust, Self::Stay];

    const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Project => "project",
            Self::Domain => "domain",
            Self::ApplicationCredential => "credential",
            Self::Trust => "trust",
            Self::Stay => "stay",
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

/// How many stays one statement revokes.
const STAYS_AT_ONCE: usize = 500;

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

    /// Makes the tokens void that a user, or every user of a group, holds for one place. Statements in proportion to the
    /// users: two for each `STAYS_AT_ONCE`, after one that finds them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn revoke_stays(
        &self,
        actor: RoleActor,
        target: RoleTarget,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Vec<Revocation>, StoreError> {
        let users: Vec<UserId> = match actor {
            RoleActor::User(id) => vec![id],
            RoleActor::Group(id) => {
                let sql = "SELECT user_id FROM user_group_members WHERE group_id = $1";
                let rows = self.all(sql, params![id]).await?;
                rows.iter().map(|row| row.get("user_id")).collect::<Result<_, _>>()?
            }
        };
        let mut recorded = Vec::with_capacity(users.len());
        for some in users.chunks(STAYS_AT_ONCE) {
            let ids: Vec<Uuid> = some.iter().map(|user| stay_id(*user, target)).collect();
            let rows: Vec<String> = (4..4 + ids.len()).map(|n| format!("($1, ${n}, 1, $2, $3)")).collect();
            let mut values = params![RevocationKind::Stay.name(), now, expires_at];
            values.extend(ids.iter().flat_map(|id| params![*id]));
            self.exec(
                format!(
                    "INSERT INTO revocations (kind, subject_id, epoch, recorded_at, expires_at) VALUES {}
                     ON CONFLICT (kind, subject_id) DO UPDATE SET epoch = revocations.epoch + 1,
                     recorded_at = excluded.recorded_at, expires_at = excluded.expires_at",
                    rows.join(", ")
                ),
                values,
            )
            .await?;
            let mut filter = Where::default();
            filter.and("kind = ?", params![RevocationKind::Stay.name()]).and_in("subject_id", ids);
            let sql =
                format!("SELECT kind, subject_id, epoch, recorded_at, expires_at FROM revocations{}", filter.sql());
            for row in self.all(sql, filter.params).await? {
                recorded.push(revocation(&row)?);
            }
        }
        Ok(recorded)
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
