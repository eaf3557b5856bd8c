//! Who claims something of resource providers: consumers that others keep books of, and our servers as such.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{ConsumerId, NodeId, ProviderId, Timestamp};

/// What servers are called as consumers.
const SERVER_KIND: &str = "INSTANCE";

/// Somebody who claims resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// The id that its owner gave it.
    pub id: ConsumerId,
    /// The project that it belongs to, as its owner spells it.
    pub project: String,
    /// The user whom it belongs to, as its owner spells it.
    pub owner: String,
    /// What kind of consumer it is.
    pub kind: String,
    /// Rises whenever its claims change.
    pub generation: u64,
    /// Whether it is one of our servers, whose claims change with it and not otherwise.
    pub is_server: bool,
    /// When its record last changed.
    pub updated_at: Timestamp,
}

/// A claim of a consumer on a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocationRow {
    /// Who.
    pub consumer_id: ConsumerId,
    /// Of whom.
    pub provider_id: ProviderId,
    /// Of which class.
    pub class: String,
    /// How much.
    pub used: u64,
}

/// What consumers of one kind claim together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerUsage {
    /// The kind.
    pub kind: String,
    /// How many consumers.
    pub count: u64,
    /// Class and quantity.
    pub classes: Vec<(String, u64)>,
}

const SERVER_COLUMNS: &str = "id, project_id, user_id, node_id, vcpus, memory_mib, disk_gib, generation, updated_at";

fn server_consumer(row: &Row) -> Result<Consumer, StoreError> {
    let (project, owner): (arcus_types::ProjectId, arcus_types::UserId) = (row.get("project_id")?, row.get("user_id")?);
    Ok(Consumer {
        id: row.get("id")?,
        project: project.to_string(),
        owner: owner.to_string(),
        kind: SERVER_KIND.to_owned(),
        generation: row.get("generation")?,
        is_server: true,
        updated_at: row.get("updated_at")?,
    })
}

fn server_allocations(row: &Row) -> Result<Vec<AllocationRow>, StoreError> {
    let (consumer_id, provider_id): (ConsumerId, ProviderId) = (row.get("id")?, row.get("node_id")?);
    let mut out = Vec::new();
    for (class, column) in [("VCPU", "vcpus"), ("MEMORY_MB", "memory_mib"), ("DISK_GB", "disk_gib")] {
        let used = row.get(column)?;
        if used > 0 {
            out.push(AllocationRow { consumer_id, provider_id, class: class.to_owned(), used });
        }
    }
    Ok(out)
}

fn consumer(row: &Row) -> Result<Consumer, StoreError> {
    Ok(Consumer {
        id: row.get("id")?,
        project: row.get("project")?,
        owner: row.get("owner")?,
        kind: row.get("kind")?,
        generation: row.get("generation")?,
        is_server: false,
        updated_at: row.get("updated_at")?,
    })
}

fn allocation(row: &Row) -> Result<AllocationRow, StoreError> {
    Ok(AllocationRow {
        consumer_id: row.get("consumer_id")?,
        provider_id: row.get("provider_id")?,
        class: row.get("class")?,
        used: row.get("used")?,
    })
}

impl Db {
    /// A consumer with its claims: a server that has a place, or one that somebody else keeps books of.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn consumer_get(&self, id: ConsumerId) -> Result<Option<(Consumer, Vec<AllocationRow>)>, StoreError> {
        let sql = format!(
            "SELECT {SERVER_COLUMNS} FROM servers WHERE id = $1 AND node_id IS NOT NULL AND deleted_at IS NULL"
        );
        if let Some(row) = self.one(sql, params![id]).await? {
            return Ok(Some((server_consumer(&row)?, server_allocations(&row)?)));
        }
        let Some(row) = self.one("SELECT * FROM consumers WHERE id = $1", params![id]).await? else {
            return Ok(None);
        };
        let sql = "SELECT * FROM allocations WHERE consumer_id = $1 ORDER BY provider_id, class";
        let rows = self.all(sql, params![id]).await?;
        Ok(Some((consumer(&row)?, rows.iter().map(allocation).collect::<Result<_, _>>()?)))
    }

    /// Every claim on a provider, with its consumer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn allocation_list(&self, id: ProviderId) -> Result<Vec<(Consumer, Vec<AllocationRow>)>, StoreError> {
        let sql = format!("SELECT {SERVER_COLUMNS} FROM servers WHERE node_id = $1 AND deleted_at IS NULL ORDER BY id");
        let mut out = Vec::new();
        for row in self.all(sql, params![NodeId(id.0)]).await? {
            out.push((server_consumer(&row)?, server_allocations(&row)?));
        }
        let sql = "SELECT c.*, a.consumer_id, a.provider_id, a.class, a.used FROM allocations a
                   JOIN consumers c ON c.id = a.consumer_id WHERE a.provider_id = $1 ORDER BY a.consumer_id, a.class";
        for row in self.all(sql, params![id]).await? {
            let one = consumer(&row)?;
            match out.last_mut() {
                Some((last, claims)) if last.id == one.id => claims.push(allocation(&row)?),
                Some(_) | None => out.push((one, vec![allocation(&row)?])),
            }
        }
        Ok(out)
    }

    /// Whether somebody claims something of a provider.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn provider_claimed(&self, id: ProviderId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM allocations WHERE provider_id = $1 LIMIT 1";
        Ok(self.one(sql, params![id]).await?.is_some())
    }

    /// What a project's consumers claim, by kind; of one user and of one kind if they are given.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn consumer_usages(
        &self,
        project: &str,
        owner: Option<&str>,
        kind: Option<&str>,
    ) -> Result<Vec<ConsumerUsage>, StoreError> {
        let mut out = Vec::new();
        if kind.is_none_or(|kind| kind == SERVER_KIND) {
            out.extend(self.server_usages(project, owner).await?);
        }
        let mut filter = Where::default();
        filter.and("c.project = ?", params![project]);
        if let Some(owner) = owner {
            filter.and("c.owner = ?", params![owner]);
        }
        if let Some(kind) = kind {
            filter.and("c.kind = ?", params![kind]);
        }
        let sql = format!(
            "SELECT c.kind, a.class, CAST(SUM(a.used) AS BIGINT) AS used, COUNT(DISTINCT c.id) AS n FROM consumers c
             JOIN allocations a ON a.consumer_id = c.id{} GROUP BY c.kind, a.class ORDER BY c.kind, a.class",
            filter.sql()
        );
        for row in self.all(sql, filter.params).await? {
            let (kind, class, used, n): (String, String, u64, u64) =
                (row.get("kind")?, row.get("class")?, row.get("used")?, row.get("n")?);
            match out.iter_mut().find(|u: &&mut ConsumerUsage| u.kind == kind) {
                Some(usage) => {
                    match usage.classes.iter_mut().find(|(known, _)| *known == class) {
                        Some((_, sum)) => *sum += used,
                        None => usage.classes.push((class, used)),
                    }
                    usage.count = usage.count.max(n);
                }
                None => out.push(ConsumerUsage { kind, count: n, classes: vec![(class, used)] }),
            }
        }
        Ok(out)
    }

    async fn server_usages(&self, project: &str, owner: Option<&str>) -> Result<Option<ConsumerUsage>, StoreError> {
        let Ok(project) = project.parse::<arcus_types::ProjectId>() else { return Ok(None) };
        let mut filter = Where::default();
        filter.and("project_id = ?", params![project]);
        filter.and("node_id IS NOT NULL AND deleted_at IS NULL", vec![]);
        if let Some(owner) = owner {
            let Ok(owner) = owner.parse::<arcus_types::UserId>() else { return Ok(None) };
            filter.and("user_id = ?", params![owner]);
        }
        let sql = format!(
            "SELECT COUNT(*) AS n, CAST(COALESCE(SUM(vcpus), 0) AS BIGINT) AS vcpus,
             CAST(COALESCE(SUM(memory_mib), 0) AS BIGINT) AS memory_mib,
             CAST(COALESCE(SUM(disk_gib), 0) AS BIGINT) AS disk_gib FROM servers{}",
            filter.sql()
        );
        let Some(row) = self.one(sql, filter.params).await? else { return Ok(None) };
        let count: u64 = row.get("n")?;
        if count == 0 {
            return Ok(None);
        }
        let mut classes = Vec::new();
        for (class, column) in [("DISK_GB", "disk_gib"), ("MEMORY_MB", "memory_mib"), ("VCPU", "vcpus")] {
            classes.push((class.to_owned(), row.get(column)?));
        }
        Ok(Some(ConsumerUsage { kind: SERVER_KIND.to_owned(), count, classes }))
    }

    /// Whether this is the id of a server, placed or not.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn consumer_is_server(&self, id: ConsumerId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 AS one FROM servers WHERE id = $1 AND deleted_at IS NULL";
        Ok(self.one(sql, params![id]).await?.is_some())
    }
}

impl Tx {
    /// Records a consumer, or what has changed of it. `generation` is the one that it had, 0 for a new one; `false` if it
    /// has another one by now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn consumer_set(&self, c: &Consumer) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "INSERT INTO consumers (id, project, owner, kind, generation, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5 + 1, $6, $6)
                 ON CONFLICT (id) DO UPDATE SET project = $2, owner = $3, kind = $4, generation = $5 + 1, updated_at = $6
                 WHERE consumers.generation = $5",
                params![c.id, &c.project, &c.owner, &c.kind, c.generation, Timestamp::now()],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Forgets a consumer and its claims; what it claimed has been given back before.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn consumer_delete(&self, id: ConsumerId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM consumers WHERE id = $1", params![id]).await? == 1)
    }

    /// Replaces the claims of a consumer by these.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn allocations_set(&self, id: ConsumerId, claims: &[AllocationRow]) -> Result<(), StoreError> {
        self.exec("DELETE FROM allocations WHERE consumer_id = $1", params![id]).await?;
        for claim in claims {
            self.exec(
                "INSERT INTO allocations (consumer_id, provider_id, class, used) VALUES ($1, $2, $3, $4)",
                params![id, claim.provider_id, &claim.class, claim.used],
            )
            .await?;
        }
        Ok(())
    }
}
