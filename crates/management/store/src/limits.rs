//! Unified limits: defaults that are registered, and limits of single projects and domains.

use crate::sql::{Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{DomainId, LimitId, ProjectId, RegisteredLimitId, ServiceId};

/// A limit's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredLimit {
    /// Its id.
    pub id: RegisteredLimitId,
    /// The service that it is for.
    pub service_id: ServiceId,
    /// The region that it is for; `None`: every one.
    pub region_id: Option<String>,
    /// What is limited.
    pub resource_name: String,
    /// How much; -1: no limit.
    pub default_limit: i64,
    /// What it is for.
    pub description: Option<String>,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOwner {
    /// A project's.
    Project(ProjectId),
    /// A domain's.
    Domain(DomainId),
}

/// A limit of one project or domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitEntry {
    /// Its id.
    pub id: LimitId,
    /// The default that it takes the place of.
    pub registered: RegisteredLimit,
    /// Whose.
    pub owner: LimitOwner,
    /// How much; -1: no limit.
    pub resource_limit: i64,
    /// What it is for.
    pub description: Option<String>,
}

/// Which limits to list.
#[derive(Debug, Clone, Default)]
pub struct LimitFilter {
    /// Of this service.
    pub service_id: Option<ServiceId>,
    /// Of this region.
    pub region_id: Option<String>,
    /// Of this resource.
    pub resource_name: Option<String>,
    /// Of this project; for defaults without effect.
    pub project_id: Option<ProjectId>,
    /// Of this domain; for defaults without effect.
    pub domain_id: Option<DomainId>,
    /// At most so many.
    pub limit: u32,
}

const COLUMNS: &str = "r.id, r.service_id, r.region_id, r.resource_name, r.default_limit, r.description";

fn registered(row: &Row) -> Result<RegisteredLimit, StoreError> {
    Ok(RegisteredLimit {
        id: row.get("id")?,
        service_id: row.get("service_id")?,
        region_id: row.opt("region_id")?,
        resource_name: row.get("resource_name")?,
        default_limit: row.get("default_limit")?,
        description: row.opt("description")?,
    })
}

fn limit(row: &Row) -> Result<LimitEntry, StoreError> {
    let owner = match (row.opt("project_id")?, row.opt("domain_id")?) {
        (Some(id), _) => LimitOwner::Project(id),
        (None, Some(id)) => LimitOwner::Domain(id),
        (None, None) => {
            return Err(StoreError::Corrupt { column: "project_id".to_owned(), value: "no owner".to_owned() });
        }
    };
    Ok(LimitEntry {
        id: row.get("limit_id")?,
        registered: registered(row)?,
        owner,
        resource_limit: row.get("resource_limit")?,
        description: row.opt("limit_description")?,
    })
}

fn conditions(wanted: &LimitFilter) -> Where {
    let mut filter = Where::default();
    if let Some(id) = wanted.service_id {
        filter.and("r.service_id = ?", params![id]);
    }
    if let Some(id) = &wanted.region_id {
        filter.and("r.region_id = ?", params![id]);
    }
    if let Some(name) = &wanted.resource_name {
        filter.and("r.resource_name = ?", params![name]);
    }
    filter
}

impl Db {
    /// Defaults, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn registered_limit_list(&self, wanted: &LimitFilter) -> Result<Vec<RegisteredLimit>, StoreError> {
        let filter = conditions(wanted);
        let sql =
            format!("SELECT {COLUMNS} FROM registered_limits r{} ORDER BY r.id LIMIT {}", filter.sql(), wanted.limit);
        self.all(sql, filter.params).await?.iter().map(registered).collect()
    }

    /// The default with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn registered_limit_get(&self, id: RegisteredLimitId) -> Result<Option<RegisteredLimit>, StoreError> {
        let row = self.one(format!("SELECT {COLUMNS} FROM registered_limits r WHERE r.id = $1"), params![id]).await?;
        row.as_ref().map(registered).transpose()
    }

    /// Limits, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn limit_list(&self, wanted: &LimitFilter) -> Result<Vec<LimitEntry>, StoreError> {
        let mut filter = conditions(wanted);
        if let Some(id) = wanted.project_id {
            filter.and("l.project_id = ?", params![id]);
        }
        if let Some(id) = wanted.domain_id {
            filter.and("l.domain_id = ?", params![id]);
        }
        self.limits(filter, wanted.limit).await
    }

    /// The limit with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn limit_get(&self, id: LimitId) -> Result<Option<LimitEntry>, StoreError> {
        let mut filter = Where::default();
        filter.and("l.id = ?", params![id]);
        Ok(self.limits(filter, 1).await?.pop())
    }

    async fn limits(&self, filter: Where, most: u32) -> Result<Vec<LimitEntry>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, l.id AS limit_id, l.project_id, l.domain_id, l.resource_limit,
             l.description AS limit_description
             FROM limits l JOIN registered_limits r ON r.id = l.registered_limit_id{} ORDER BY l.id LIMIT {most}",
            filter.sql()
        );
        self.all(sql, filter.params).await?.iter().map(limit).collect()
    }
}

impl Tx {
    /// Records a default.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if there is one for the same resource, service and region.
    pub async fn registered_limit_insert(&self, new: &RegisteredLimit) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO registered_limits (id, service_id, region_id, resource_name, default_limit, description)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.id, new.service_id, &new.region_id, &new.resource_name, new.default_limit, &new.description],
        )
        .await?;
        Ok(())
    }

    /// Changes a default; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if there is one for the same resource, service and region.
    pub async fn registered_limit_update(&self, now: &RegisteredLimit) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE registered_limits SET service_id = $2, region_id = $3, resource_name = $4, default_limit = $5,
                 description = $6 WHERE id = $1",
                params![
                    now.id,
                    now.service_id,
                    &now.region_id,
                    &now.resource_name,
                    now.default_limit,
                    &now.description
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a default; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] while limits take its place.
    pub async fn registered_limit_delete(&self, id: RegisteredLimitId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM registered_limits WHERE id = $1", params![id]).await? == 1)
    }

    /// Records a limit.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if its owner has one for the same default.
    pub async fn limit_insert(&self, new: &LimitEntry) -> Result<(), StoreError> {
        let (project_id, domain_id) = match new.owner {
            LimitOwner::Project(id) => (Some(id), None),
            LimitOwner::Domain(id) => (None, Some(id)),
        };
        let owner_id = match new.owner {
            LimitOwner::Project(id) => id.0,
            LimitOwner::Domain(id) => id.0,
        };
        self.exec(
            "INSERT INTO limits (id, registered_limit_id, owner_id, project_id, domain_id, resource_limit, description)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![new.id, new.registered.id, owner_id, project_id, domain_id, new.resource_limit, &new.description],
        )
        .await?;
        Ok(())
    }

    /// Changes how much, and the description if there is a new one; `false` if there is no limit with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn limit_update(
        &self,
        id: LimitId,
        resource_limit: Option<i64>,
        description: Option<&str>,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE limits SET resource_limit = COALESCE($2, resource_limit),
             description = COALESCE($3, description) WHERE id = $1";
        Ok(self.exec(sql, params![id, resource_limit, description]).await? == 1)
    }

    /// Deletes a limit; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn limit_delete(&self, id: LimitId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM limits WHERE id = $1", params![id]).await? == 1)
    }
}
