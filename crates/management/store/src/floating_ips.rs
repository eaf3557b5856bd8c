//! Floating IPs: external addresses that follow a port.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::port_forwardings::PortForwarding;
use crate::sql::{Json, Param, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{FloatingIpId, NetworkId, PortId, ProjectId, QosPolicyId, RouterId, SubnetId, Timestamp};
use std::net::IpAddr;

/// An external address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloatingIp {
    /// Its id.
    pub id: FloatingIpId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Free text.
    pub description: String,
    /// The external network.
    pub network_id: NetworkId,
    /// The port that holds the address there.
    pub holder_id: PortId,
    /// The address.
    pub address: IpAddr,
    /// The port that it leads to.
    pub port_id: Option<PortId>,
    /// Which of that port's addresses.
    pub fixed_address: Option<IpAddr>,
    /// The router that translates.
    pub router_id: Option<RouterId>,
    /// A name for it; may be empty.
    pub dns_name: String,
    /// The domain that completes the name; may be empty.
    pub dns_domain: String,
    /// What may pass under the address.
    pub qos_policy_id: Option<QosPolicyId>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Ports that lead to guests, where the address as a whole does not.
    pub forwardings: Vec<PortForwarding>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What a list of floating IPs can be filtered and sorted by.
pub const FLOATING_IP_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::text("description", "description"),
    Field::id("floating_network_id", "network_id"),
    Field::text("floating_ip_address", "address"),
    Field::id("port_id", "port_id").or_null(),
    Field::text("fixed_ip_address", "fixed_address").or_null(),
    Field::id("router_id", "router_id").or_null(),
    Field::text("status", "CASE WHEN router_id IS NULL THEN 'DOWN' ELSE 'ACTIVE' END"),
    Field::id("qos_policy_id", "qos_policy_id").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const FLOATING_IPS: ListOf = ListOf {
    table: "floating_ips",
    columns: "id, project_id, description, network_id, holder_id, address, port_id, fixed_address, router_id, dns_name, \
              dns_domain, qos_policy_id, tags, revision, created_at, updated_at",
    visible: "project_id = ?",
};

fn floating_ip(row: &Row) -> Result<FloatingIp, StoreError> {
    Ok(FloatingIp {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        description: row.get("description")?,
        network_id: row.get("network_id")?,
        holder_id: row.get("holder_id")?,
        address: row.get("address")?,
        port_id: row.opt("port_id")?,
        fixed_address: row.opt("fixed_address")?,
        router_id: row.opt("router_id")?,
        dns_name: row.get("dns_name")?,
        dns_domain: row.get("dns_domain")?,
        qos_policy_id: row.opt("qos_policy_id")?,
        tags: row.json("tags")?,
        forwardings: Vec::new(),
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The floating IP with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ip_get(&self, id: FloatingIpId) -> Result<Option<FloatingIp>, StoreError> {
        let mut found = self.floating_ips_where("id", vec![id]).await?;
        self.floating_ips_fill(&mut found).await?;
        Ok(found.pop())
    }

    /// The floating IPs that lead to one of these ports.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ips_by_ports(&self, ports: &[PortId]) -> Result<Vec<FloatingIp>, StoreError> {
        self.floating_ips_where("port_id", ports.to_vec()).await
    }

    /// The floating IPs that one of these routers translates.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ips_by_routers(&self, routers: &[RouterId]) -> Result<Vec<FloatingIp>, StoreError> {
        self.floating_ips_where("router_id", routers.to_vec()).await
    }

    async fn floating_ips_where<T: Param>(&self, column: &str, values: Vec<T>) -> Result<Vec<FloatingIp>, StoreError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in(column, values);
        let sql = format!("SELECT {} FROM floating_ips{} ORDER BY id", FLOATING_IPS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(floating_ip).collect()
    }

    /// A page of floating IPs: two statements at most.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ip_list(&self, listing: &Listing) -> Result<Page<FloatingIp>, StoreError> {
        let mut page = self.page(&FLOATING_IPS, listing, |_| {}, floating_ip).await?;
        self.floating_ips_fill(&mut page.rows).await?;
        Ok(page)
    }

    /// Adds forwardings: one statement for any number of floating IPs, none where all lead somewhere whole or nowhere.
    async fn floating_ips_fill(&self, ips: &mut [FloatingIp]) -> Result<(), StoreError> {
        let shared: Vec<FloatingIpId> =
            ips.iter().filter(|ip| ip.port_id.is_none() && ip.router_id.is_some()).map(|ip| ip.id).collect();
        for forwarding in self.port_forwardings_by_floating_ips(&shared).await? {
            if let Some(ip) = ips.iter_mut().find(|ip| ip.id == forwarding.floating_ip_id) {
                ip.forwardings.push(forwarding);
            }
        }
        Ok(())
    }

    /// The floating IPs of an external network that lead nowhere.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ips_idle_by_network(&self, network: NetworkId) -> Result<Vec<FloatingIp>, StoreError> {
        let sql = format!(
            "SELECT {} FROM floating_ips WHERE network_id = $1 AND router_id IS NULL ORDER BY id",
            FLOATING_IPS.columns
        );
        self.all(sql, params![network]).await?.iter().map(floating_ip).collect()
    }

    /// How many floating IPs a router translates for addresses from this subnet.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ip_count(&self, router: RouterId, subnet: Option<SubnetId>) -> Result<u64, StoreError> {
        let mut filter = Where::default();
        filter.and("router_id = ?", params![router]);
        if let Some(subnet) = subnet {
            filter.and(
                "(EXISTS (SELECT 1 FROM addresses a WHERE a.subnet_id = ? AND a.port_id = floating_ips.port_id
                 AND a.address = floating_ips.fixed_address) OR EXISTS (SELECT 1 FROM port_forwardings f
                 JOIN addresses a ON a.port_id = f.port_id AND a.address = f.address
                 WHERE f.floating_ip_id = floating_ips.id AND a.subnet_id = ?))",
                params![subnet, subnet],
            );
        }
        let sql = format!("SELECT COUNT(*) AS count FROM floating_ips{}", filter.sql());
        let row = self.one(sql, filter.params).await?;
        row.map_or(Ok(0), |r| r.get("count"))
    }
}

impl Tx {
    /// Records a floating IP; its address is claimed by its holder port.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] if the port's address has a floating IP.
    pub async fn floating_ip_insert(&self, ip: &FloatingIp) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO floating_ips (id, project_id, description, network_id, holder_id, address, port_id, fixed_address,
             router_id, dns_name, dns_domain, qos_policy_id, tags, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1, $14, $14)",
            params![
                ip.id, ip.project_id, &ip.description, ip.network_id, ip.holder_id, ip.address, ip.port_id,
                ip.fixed_address, ip.router_id, &ip.dns_name, &ip.dns_domain, ip.qos_policy_id, Json(&ip.tags),
                ip.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a floating IP may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read, [`StoreError::Duplicate`] if the port's address has one.
    pub async fn floating_ip_update(&self, ip: &FloatingIp) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE floating_ips SET description = $3, port_id = $4, fixed_address = $5, router_id = $6, dns_name = $7,
                 qos_policy_id = $8, revision = revision + 1, updated_at = $9 WHERE id = $1 AND revision = $2",
                params![
                    ip.id, ip.revision, &ip.description, ip.port_id, ip.fixed_address, ip.router_id, &ip.dns_name, ip.qos_policy_id,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("floating IP")) }
    }

    /// Lets go of a port: its floating IPs lead nowhere, and forwardings to it end. Which those were.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ips_detach(&self, port: PortId) -> Result<Vec<FloatingIpId>, StoreError> {
        let ended =
            self.all("DELETE FROM port_forwardings WHERE port_id = $1 RETURNING floating_ip_id", params![port]).await?;
        for row in ended {
            let id: FloatingIpId = row.get("floating_ip_id")?;
            self.exec(
                "UPDATE floating_ips SET router_id = NULL, revision = revision + 1, updated_at = $2 WHERE id = $1
                 AND port_id IS NULL AND NOT EXISTS (SELECT 1 FROM port_forwardings WHERE floating_ip_id = $1)",
                params![id, Timestamp::now()],
            )
            .await?;
        }
        let rows = self
            .all(
                "UPDATE floating_ips SET port_id = NULL, fixed_address = NULL, router_id = NULL, revision = revision + 1,
                 updated_at = $2 WHERE port_id = $1 RETURNING id",
                params![port, Timestamp::now()],
            )
            .await?;
        rows.iter().map(|r| r.get("id")).collect()
    }

    /// Removes a floating IP; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn floating_ip_delete(&self, id: FloatingIpId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM floating_ips WHERE id = $1", params![id]).await? == 1)
    }
}
