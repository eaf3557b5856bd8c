//! Subnets: address ranges on networks.

use crate::addresses::position;
use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::{NetworkId, ProjectId, SubnetId, SubnetPoolId, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A range of addresses that ports get theirs from, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// The first address.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
}

/// A route that guests are told, or that a router has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where packets go.
    pub destination: ipnet::IpNet,
    /// Through whom.
    pub nexthop: IpAddr,
}

/// How guests on an IPv6 subnet get addresses or routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipv6Mode {
    /// From the router's announcements, by the guest itself.
    #[serde(rename = "slaac")]
    Slaac,
    /// From DHCP.
    #[serde(rename = "dhcpv6-stateful")]
    Stateful,
    /// Addresses as with `slaac`, the rest from DHCP.
    #[serde(rename = "dhcpv6-stateless")]
    Stateless,
}

impl Ipv6Mode {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slaac => "slaac",
            Self::Stateful => "dhcpv6-stateful",
            Self::Stateless => "dhcpv6-stateless",
        }
    }

    /// Whether a guest's address follows from its Ethernet address.
    pub const fn is_automatic(self) -> bool {
        match self {
            Self::Slaac | Self::Stateless => true,
            Self::Stateful => false,
        }
    }
}

impl std::str::FromStr for Ipv6Mode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Slaac, Self::Stateful, Self::Stateless].into_iter().find(|m| m.as_str() == text).ok_or(())
    }
}

/// An address range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The range.
    pub cidr: ipnet::IpNet,
    /// The router's address that guests are told.
    pub gateway: Option<IpAddr>,
    /// Whether DHCP answers.
    pub dhcp: bool,
    /// Where ports' addresses come from.
    pub pools: Vec<AllocationPool>,
    /// Name servers that guests are told.
    pub dns_servers: Vec<IpAddr>,
    /// Routes that guests are told.
    pub host_routes: Vec<HostRoute>,
    /// Who announces the router, on IPv6.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How guests get addresses, on IPv6.
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// The pool that the range came from.
    pub subnet_pool_id: Option<SubnetPoolId>,
    /// Whether its network leads out of the cloud.
    pub external: bool,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Subnet {
    /// 4 or 6.
    pub const fn ip_version(&self) -> u32 {
        match self.cidr {
            ipnet::IpNet::V4(_) => 4,
            ipnet::IpNet::V6(_) => 6,
        }
    }

    /// Whether ports' addresses follow from their Ethernet addresses.
    pub fn is_automatic(&self) -> bool {
        self.ipv6_address_mode.is_some_and(Ipv6Mode::is_automatic)
    }
}

/// What a list of subnets can be filtered and sorted by.
pub const SUBNET_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("network_id", "network_id"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::number("ip_version", "ip_version"),
    Field::text("cidr", "cidr"),
    Field::text("gateway_ip", "gateway").or_null(),
    Field::flag("enable_dhcp", "dhcp"),
    Field::text("ipv6_ra_mode", "ipv6_ra_mode").or_null(),
    Field::text("ipv6_address_mode", "ipv6_address_mode").or_null(),
    Field::id("subnetpool_id", "subnet_pool_id").or_null(),
    Field::flag("router:external", "(SELECT n.external FROM networks n WHERE n.id = subnets.network_id)").or_null(),
    Field::flag("shared", "(SELECT n.shared FROM networks n WHERE n.id = subnets.network_id)").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const SUBNETS: ListOf = ListOf {
    table: "subnets",
    columns: "id, network_id, project_id, name, description, ip_version, cidr, gateway, dhcp, pools, dns_servers, \
              host_routes, ipv6_ra_mode, ipv6_address_mode, subnet_pool_id, tags, revision, created_at, updated_at, \
              (SELECT n.external FROM networks n WHERE n.id = subnets.network_id) AS external",
    visible: "(project_id = ? OR network_id IN (SELECT id FROM networks WHERE project_id = ?
              UNION ALL SELECT object_id FROM rbac_policies WHERE everyone
              UNION ALL SELECT object_id FROM rbac_policies WHERE target_id = ?))",
};

fn subnet(row: &Row) -> Result<Subnet, StoreError> {
    let mode = |column: &str| -> Result<Option<Ipv6Mode>, StoreError> {
        let text: Option<String> = row.opt(column)?;
        text.map(|_| row.text(column)).transpose()
    };
    Ok(Subnet {
        id: row.get("id")?,
        network_id: row.get("network_id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        cidr: row.get("cidr")?,
        gateway: row.opt("gateway")?,
        dhcp: row.get("dhcp")?,
        pools: row.json("pools")?,
        dns_servers: row.json("dns_servers")?,
        host_routes: row.json("host_routes")?,
        ipv6_ra_mode: mode("ipv6_ra_mode")?,
        ipv6_address_mode: mode("ipv6_address_mode")?,
        subnet_pool_id: row.opt("subnet_pool_id")?,
        external: row.get("external")?,
        tags: row.json("tags")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The subnet with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_get(&self, id: SubnetId) -> Result<Option<Subnet>, StoreError> {
        Ok(self.subnet_list_by_ids(&[id]).await?.pop())
    }

    /// The subnets with these ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_list_by_ids(&self, ids: &[SubnetId]) -> Result<Vec<Subnet>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        self.subnets_where(filter).await
    }

    /// The subnets on these networks, in the order in which they were made.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_list_by_networks(&self, networks: &[NetworkId]) -> Result<Vec<Subnet>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("network_id", networks.to_vec());
        self.subnets_where(filter).await
    }

    /// The subnets that were cut from a pool.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_list_by_pool(&self, pool: SubnetPoolId) -> Result<Vec<Subnet>, StoreError> {
        let mut filter = Where::default();
        filter.and("subnet_pool_id = ?", params![pool]);
        self.subnets_where(filter).await
    }

    async fn subnets_where(&self, filter: Where) -> Result<Vec<Subnet>, StoreError> {
        let sql = format!("SELECT {} FROM subnets{} ORDER BY id", SUBNETS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(subnet).collect()
    }

    /// A page of subnets.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn subnet_list(&self, listing: &Listing) -> Result<Page<Subnet>, StoreError> {
        self.page(&SUBNETS, listing, |_| {}, subnet).await
    }
}

impl Tx {
    /// Records a subnet.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the network is gone.
    pub async fn subnet_insert(&self, subnet: &Subnet) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO subnets (id, network_id, project_id, name, description, ip_version, cidr, gateway, dhcp, pools,
             dns_servers, host_routes, ipv6_ra_mode, ipv6_address_mode, subnet_pool_id, cursor, tags, revision, created_at,
             updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, 1, $18, $18)",
            params![
                subnet.id, subnet.network_id, subnet.project_id, &subnet.name, &subnet.description,
                subnet.ip_version(), subnet.cidr, subnet.gateway, subnet.dhcp, Json(&subnet.pools),
                Json(&subnet.dns_servers), Json(&subnet.host_routes), subnet.ipv6_ra_mode.map(Ipv6Mode::as_str),
                subnet.ipv6_address_mode.map(Ipv6Mode::as_str), subnet.subnet_pool_id, before_first(subnet),
                Json(&subnet.tags), subnet.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a subnet may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn subnet_update(&self, subnet: &Subnet) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE subnets SET name = $3, description = $4, gateway = $5, dhcp = $6, pools = $7, dns_servers = $8,
                 host_routes = $9, revision = revision + 1, updated_at = $10 WHERE id = $1 AND revision = $2",
                params![
                    subnet.id,
                    subnet.revision,
                    &subnet.name,
                    &subnet.description,
                    subnet.gateway,
                    subnet.dhcp,
                    Json(&subnet.pools),
                    Json(&subnet.dns_servers),
                    Json(&subnet.host_routes),
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("subnet")) }
    }

    /// Removes a subnet; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if ports still have addresses from it.
    pub async fn subnet_delete(&self, id: SubnetId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM subnets WHERE id = $1", params![id]).await? == 1)
    }
}

fn before_first(subnet: &Subnet) -> i64 {
    subnet.pools.first().map_or(i64::MIN, |pool| position(pool.start).saturating_sub(1))
}
