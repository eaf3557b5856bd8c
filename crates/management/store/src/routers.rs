//! Routers; their legs are ports.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::ports::{OWNER_ROUTER_GATEWAY, OWNER_ROUTER_INTERFACE};
use crate::sql::{Json, Row, Where, params};
use crate::subnets::HostRoute;
use crate::{Db, StoreError, Tx};
use arcus_types::agent::FixedIp;
use arcus_types::{NetworkId, PortId, ProjectId, RouterId, SubnetId, Timestamp};
use std::collections::HashMap;

/// A router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Its id.
    pub id: RouterId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it forwards.
    pub admin_up: bool,
    /// The external network that its gateway is on.
    pub gateway_network_id: Option<NetworkId>,
    /// Whether guests may go out under the gateway's address.
    pub snat: bool,
    /// The gateway's addresses on that network.
    pub gateway_addresses: Vec<FixedIp>,
    /// Further routes.
    pub routes: Vec<HostRoute>,
    /// The zones that its owner named.
    pub zone_hints: Vec<String>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a list of routers can be filtered and sorted by.
pub const ROUTER_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::flag("admin_state_up", "admin_up"),
    // A router works wherever it has a leg: it has no other status.
    Field::text("status", "'ACTIVE'").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const ROUTERS: ListOf = ListOf {
    table: "routers",
    columns: "id, project_id, name, description, admin_up, gateway_network_id, snat, routes, zone_hints, tags, \
              revision, created_at, updated_at",
    visible: "project_id = ?",
};

fn router(row: &Row) -> Result<Router, StoreError> {
    Ok(Router {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        admin_up: row.get("admin_up")?,
        gateway_network_id: row.opt("gateway_network_id")?,
        snat: row.get("snat")?,
        gateway_addresses: Vec::new(),
        routes: row.json("routes")?,
        zone_hints: row.json("zone_hints")?,
        tags: row.json("tags")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The router with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_get(&self, id: RouterId) -> Result<Option<Router>, StoreError> {
        let sql = format!("SELECT {} FROM routers WHERE id = $1", ROUTERS.columns);
        let mut found: Vec<Router> =
            self.one(sql, params![id]).await?.as_ref().map(router).transpose()?.into_iter().collect();
        self.routers_fill(&mut found).await?;
        Ok(found.pop())
    }

    /// Adds the gateways' addresses: one statement for any number of routers.
    async fn routers_fill(&self, routers: &mut [Router]) -> Result<(), StoreError> {
        if routers.is_empty() {
            return Ok(());
        }
        let mut filter = Where::default();
        filter.and("p.device_owner = ?", params![OWNER_ROUTER_GATEWAY]);
        filter.and_in("p.router_id", routers.iter().map(|r| r.id).collect());
        let sql = format!(
            "SELECT p.router_id, a.subnet_id, a.address FROM ports p JOIN addresses a ON a.port_id = p.id{}
             ORDER BY p.router_id, a.ordinal",
            filter.sql()
        );
        let mut addresses: HashMap<RouterId, Vec<FixedIp>> = HashMap::new();
        for row in self.all(sql, filter.params).await? {
            let fixed = FixedIp { subnet_id: row.get("subnet_id")?, address: row.get("address")? };
            addresses.entry(row.get("router_id")?).or_default().push(fixed);
        }
        for router in routers {
            router.gateway_addresses = addresses.remove(&router.id).unwrap_or_default();
        }
        Ok(())
    }

    /// A page of routers: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_list(&self, listing: &Listing) -> Result<Page<Router>, StoreError> {
        let mut page = self.page(&ROUTERS, listing, |_| {}, router).await?;
        self.routers_fill(&mut page.rows).await?;
        Ok(page)
    }

    /// The routers with a leg on one of these networks.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_list_by_networks(&self, networks: &[NetworkId]) -> Result<Vec<Router>, StoreError> {
        let mut filter = Where::default();
        filter.and("device_owner = ?", params![OWNER_ROUTER_INTERFACE]);
        filter.and_in("network_id", networks.to_vec());
        let sql = format!(
            "SELECT {} FROM routers WHERE id IN (SELECT router_id FROM ports{}) ORDER BY id",
            ROUTERS.columns,
            filter.sql()
        );
        self.all(sql, filter.params).await?.iter().map(router).collect()
    }

    /// The router that has a leg with an address of `subnet` and a gateway on `external`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_between(&self, subnet: SubnetId, external: NetworkId) -> Result<Option<Router>, StoreError> {
        let sql = format!(
            "SELECT {} FROM routers WHERE gateway_network_id = $1 AND id IN (SELECT p.router_id FROM ports p
             JOIN addresses a ON a.port_id = p.id WHERE a.subnet_id = $2 AND p.device_owner = $3) ORDER BY id",
            ROUTERS.columns
        );
        let row = self.one(sql, params![external, subnet, OWNER_ROUTER_INTERFACE]).await?;
        row.as_ref().map(router).transpose()
    }

    /// The router leg on a network that has an address from this subnet.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_interface_by_subnet(
        &self,
        router: RouterId,
        subnet: SubnetId,
    ) -> Result<Option<PortId>, StoreError> {
        let row = self
            .one(
                "SELECT p.id FROM ports p JOIN addresses a ON a.port_id = p.id
                 WHERE p.router_id = $1 AND p.device_owner = $2 AND a.subnet_id = $3 ORDER BY p.id",
                params![router, OWNER_ROUTER_INTERFACE, subnet],
            )
            .await?;
        row.map(|r| r.get("id")).transpose()
    }
}

impl Tx {
    /// Records a router.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_insert(&self, router: &Router) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO routers (id, project_id, name, description, admin_up, gateway_network_id, snat, routes, zone_hints,
             tags, revision, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, $11)",
            params![
                router.id, router.project_id, &router.name, &router.description, router.admin_up,
                router.gateway_network_id, router.snat, Json(&router.routes), Json(&router.zone_hints), Json(&router.tags), router.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a router may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn router_update(&self, router: &Router) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE routers SET name = $3, description = $4, admin_up = $5, gateway_network_id = $6, snat = $7,
                 routes = $8, revision = revision + 1, updated_at = $9 WHERE id = $1 AND revision = $2",
                params![
                    router.id,
                    router.revision,
                    &router.name,
                    &router.description,
                    router.admin_up,
                    router.gateway_network_id,
                    router.snat,
                    Json(&router.routes),
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("router")) }
    }

    /// Says that a router's legs change and keeps others from changing them until the end of the transaction; the router.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn router_lock(&self, id: RouterId) -> Result<Option<Router>, StoreError> {
        let sql = format!("UPDATE routers SET revision = revision + 1 WHERE id = $1 RETURNING {}", ROUTERS.columns);
        self.one(sql, params![id]).await?.as_ref().map(router).transpose()
    }

    /// Removes a router; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if it still has legs or floating IPs.
    pub async fn router_delete(&self, id: RouterId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM routers WHERE id = $1", params![id]).await? == 1)
    }
}
