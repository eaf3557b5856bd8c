//! What the administrator adds to the catalogue: regions, services and endpoints beside our own.

use crate::roles::json_text;
use crate::sql::{Json, Row, Where, params};
use crate::text_tests::Extra;
use crate::{Db, StoreError, Tx};
use arcus_types::{EndpointId, ServiceId};

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionEntry {
    /// Its id, which somebody chose.
    pub id: String,
    /// The region that it is part of.
    pub parent_id: Option<String>,
    /// What it is.
    pub description: String,
    /// Attributes of the client's own.
    pub extra: Extra,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Its id.
    pub id: ServiceId,
    /// Its type.
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: String,
    /// Whether the catalogue of tokens shows it.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointEntry {
    /// Its id.
    pub id: EndpointId,
    /// The service, perhaps one of our own.
    pub service_id: ServiceId,
    /// The region.
    pub region_id: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    /// The URL; `$(project_id)s` stands for the project of a token.
    pub url: String,
    /// Whether the catalogue of tokens shows it.
    pub enabled: bool,
    /// Attributes of the client's own.
    pub extra: Extra,
}

/// Which endpoints to list.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    /// Of this service.
    pub service_id: Option<ServiceId>,
    /// In this region.
    pub region_id: Option<String>,
    /// At most so many.
    pub limit: u32,
}

fn region(row: &Row) -> Result<RegionEntry, StoreError> {
    Ok(RegionEntry {
        id: row.get("id")?,
        parent_id: row.opt("parent_id")?,
        description: row.get("description")?,
        extra: row.json("extra")?,
    })
}

fn service(row: &Row) -> Result<ServiceEntry, StoreError> {
    Ok(ServiceEntry {
        id: row.get("id")?,
        kind: row.get("kind")?,
        name: row.opt("name")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        extra: row.json("extra")?,
    })
}

fn endpoint(row: &Row) -> Result<EndpointEntry, StoreError> {
    Ok(EndpointEntry {
        id: row.get("id")?,
        service_id: row.get("service_id")?,
        region_id: row.opt("region_id")?,
        interface: row.get("interface")?,
        url: row.get("url")?,
        enabled: row.get("enabled")?,
        extra: row.json("extra")?,
    })
}

impl Db {
    /// The first `limit` regions that were added.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn region_list(&self, limit: u32) -> Result<Vec<RegionEntry>, StoreError> {
        let sql = format!("SELECT id, parent_id, description, extra FROM regions ORDER BY id LIMIT {limit}");
        self.all(sql, vec![]).await?.iter().map(region).collect()
    }

    /// The first `limit` services that were added.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_service_list(&self, limit: u32) -> Result<Vec<ServiceEntry>, StoreError> {
        let sql = format!(
            "SELECT id, kind, name, description, enabled, extra FROM catalog_services ORDER BY id LIMIT {limit}"
        );
        self.all(sql, vec![]).await?.iter().map(service).collect()
    }

    /// Endpoints that were added.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_endpoint_list(&self, wanted: &EndpointFilter) -> Result<Vec<EndpointEntry>, StoreError> {
        let mut filter = Where::default();
        if let Some(id) = wanted.service_id {
            filter.and("service_id = ?", params![id]);
        }
        if let Some(id) = &wanted.region_id {
            filter.and("region_id = ?", params![id]);
        }
        let sql = format!(
            "SELECT id, service_id, region_id, interface, url, enabled, extra FROM catalog_endpoints{}
             ORDER BY id LIMIT {}",
            filter.sql(),
            wanted.limit
        );
        self.all(sql, filter.params).await?.iter().map(endpoint).collect()
    }
}

impl Tx {
    /// Adds a region.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if there is one with this id.
    pub async fn region_insert(&self, new: &RegionEntry) -> Result<(), StoreError> {
        let sql = "INSERT INTO regions (id, parent_id, description, extra) VALUES ($1, $2, $3, $4)";
        self.exec(sql, params![&new.id, &new.parent_id, &new.description, Json(&new.extra)]).await?;
        Ok(())
    }

    /// Changes a region that was added; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn region_update(&self, now: &RegionEntry) -> Result<bool, StoreError> {
        let sql = "UPDATE regions SET parent_id = $2, description = $3, extra = $4 WHERE id = $1";
        Ok(self.exec(sql, params![&now.id, &now.parent_id, &now.description, json_text(&now.extra)]).await? == 1)
    }

    /// Deletes a region that was added; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn region_delete(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM regions WHERE id = $1", params![id]).await? == 1)
    }

    /// Adds a service.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_service_insert(&self, new: &ServiceEntry) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO catalog_services (id, kind, name, description, enabled, extra) VALUES ($1, $2, $3, $4, $5, $6)",
            params![new.id, &new.kind, &new.name, &new.description, new.enabled, Json(&new.extra)],
        )
        .await?;
        Ok(())
    }

    /// Changes a service that was added; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_service_update(&self, now: &ServiceEntry) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE catalog_services SET kind = $2, name = $3, description = $4, enabled = $5, extra = $6
                 WHERE id = $1",
                params![now.id, &now.kind, &now.name, &now.description, now.enabled, Json(&now.extra)],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes a service that was added, with its endpoints; `false` if there is none with this id. Two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_service_delete(&self, id: ServiceId) -> Result<bool, StoreError> {
        if self.exec("DELETE FROM catalog_services WHERE id = $1", params![id]).await? == 0 {
            return Ok(false);
        }
        self.exec("DELETE FROM catalog_endpoints WHERE service_id = $1", params![id]).await?;
        Ok(true)
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_endpoint_insert(&self, new: &EndpointEntry) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO catalog_endpoints (id, service_id, region_id, interface, url, enabled, extra)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![new.id, new.service_id, &new.region_id, &new.interface, &new.url, new.enabled, Json(&new.extra)],
        )
        .await?;
        Ok(())
    }

    /// Changes an endpoint that was added; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_endpoint_update(&self, now: &EndpointEntry) -> Result<bool, StoreError> {
        let changed = self
            .exec(
                "UPDATE catalog_endpoints SET service_id = $2, region_id = $3, interface = $4, url = $5, enabled = $6,
                 extra = $7 WHERE id = $1",
                params![
                    now.id,
                    now.service_id,
                    &now.region_id,
                    &now.interface,
                    &now.url,
                    now.enabled,
                    Json(&now.extra)
                ],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Deletes an endpoint that was added; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn catalog_endpoint_delete(&self, id: EndpointId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM catalog_endpoints WHERE id = $1", params![id]).await? == 1)
    }
}
