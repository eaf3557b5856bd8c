//! Networks: layer-2 segments.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Json, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::NodeFacts;
use arcus_types::{
    AddressScopeId, MacAddr, NetworkId, NodeId, PortId, ProjectId, QosPolicyId, SecurityGroupId, SubnetId, Timestamp,
};
use std::collections::HashMap;
use std::net::IpAddr;

/// A layer-2 segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// Who owns it.
    pub project_id: ProjectId,
    /// Its name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it shall carry traffic.
    pub admin_up: bool,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether it leads out of the cloud: routers' gateways and floating IPs are on such a network.
    pub external: bool,
    /// Whether it is the external network to take where none is named.
    pub is_default: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether new ports have filters and anti-spoofing.
    pub port_security: bool,
    /// Its number on the wire between nodes.
    pub segment: u32,
    /// What its ports may send and receive, unless they say otherwise.
    pub qos_policy_id: Option<QosPolicyId>,
    /// The domain that completes its ports' names; may be empty.
    pub dns_domain: String,
    /// The zones that its owner named.
    pub zone_hints: Vec<String>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Its address ranges.
    pub subnets: Vec<SubnetId>,
    /// The space that its IPv4 addresses are in.
    pub ipv4_address_scope: Option<AddressScopeId>,
    /// The space that its IPv6 addresses are in.
    pub ipv6_address_scope: Option<AddressScopeId>,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// What nodes must know of a port that lives on another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortElsewhere {
    /// The port.
    pub id: PortId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// The node that it lives on.
    pub node_id: NodeId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its host name; may be empty.
    pub dns_name: String,
    /// The domain that completes the name; empty is the network's.
    pub dns_domain: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a list of networks can be filtered and sorted by.
pub const NETWORK_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("project_id", "project_id"),
    Field::id("tenant_id", "project_id"),
    Field::flag("admin_state_up", "admin_up"),
    // Nodes make a network when they need it: it has no other status.
    Field::text("status", "'ACTIVE'").or_null(),
    Field::shared(),
    Field::flag("router:external", "external"),
    Field::flag("is_default", "is_default"),
    Field::number("mtu", "mtu"),
    Field::flag("port_security_enabled", "port_security"),
    Field::number("provider:segmentation_id", "segment"),
    Field::text("provider:network_type", "CASE WHEN external THEN 'flat' ELSE 'vxlan' END").or_null(),
    Field::id("qos_policy_id", "qos_policy_id").or_null(),
    Field::text("dns_domain", "dns_domain"),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

/// What a project sees: its own, and what is shared with it or a way out for it.
pub(crate) const NETWORK_VISIBLE: &str = "(project_id = ? OR id IN (SELECT object_id FROM rbac_policies WHERE everyone
     UNION ALL SELECT object_id FROM rbac_policies WHERE target_id = ?))";

const NETWORKS: ListOf = ListOf {
    table: "networks",
    columns: "id, project_id, name, description, admin_up, shared, external, is_default, mtu, port_security, segment, \
              qos_policy_id, dns_domain, zone_hints, tags, revision, created_at, updated_at",
    visible: NETWORK_VISIBLE,
};

fn network(row: &Row) -> Result<Network, StoreError> {
    Ok(Network {
        id: row.get("id")?,
        project_id: row.get("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        admin_up: row.get("admin_up")?,
        shared: row.get("shared")?,
        external: row.get("external")?,
        is_default: row.get("is_default")?,
        mtu: row.get("mtu")?,
        port_security: row.get("port_security")?,
        segment: row.get("segment")?,
        qos_policy_id: row.opt("qos_policy_id")?,
        dns_domain: row.get("dns_domain")?,
        zone_hints: row.json("zone_hints")?,
        tags: row.json("tags")?,
        subnets: Vec::new(),
        ipv4_address_scope: None,
        ipv6_address_scope: None,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The network with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_get(&self, id: NetworkId) -> Result<Option<Network>, StoreError> {
        Ok(self.network_list_by_ids(&[id]).await?.pop())
    }

    /// The network with this id, without what its subnets say: one statement.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_get_bare(&self, id: NetworkId) -> Result<Option<Network>, StoreError> {
        let sql = format!("SELECT {} FROM networks WHERE id = $1", NETWORKS.columns);
        self.one(sql, params![id]).await?.as_ref().map(network).transpose()
    }

    /// The networks with these ids, without what their subnets say: one statement.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_list_bare(&self, ids: &[NetworkId]) -> Result<Vec<Network>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("id", ids.to_vec());
        let sql = format!("SELECT {} FROM networks{} ORDER BY id", NETWORKS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(network).collect()
    }

    /// The networks with these ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_list_by_ids(&self, ids: &[NetworkId]) -> Result<Vec<Network>, StoreError> {
        let mut networks = self.network_list_bare(ids).await?;
        self.networks_fill(&mut networks).await?;
        Ok(networks)
    }

    /// Adds the ids of subnets and their scopes: one statement for any number of networks.
    async fn networks_fill(&self, networks: &mut [Network]) -> Result<(), StoreError> {
        if networks.is_empty() {
            return Ok(());
        }
        let mut filter = Where::default();
        filter.and_in("s.network_id", networks.iter().map(|n| n.id).collect());
        let sql = format!(
            "SELECT s.id, s.network_id, s.ip_version, p.address_scope_id FROM subnets s
             LEFT JOIN subnet_pools p ON p.id = s.subnet_pool_id{} ORDER BY s.id",
            filter.sql()
        );
        let mut subnets: HashMap<NetworkId, Vec<Row>> = HashMap::new();
        for row in self.all(sql, filter.params).await? {
            subnets.entry(row.get("network_id")?).or_default().push(row);
        }
        for network in networks {
            for row in subnets.remove(&network.id).unwrap_or_default() {
                network.subnets.push(row.get("id")?);
                let scope: Option<AddressScopeId> = row.opt("address_scope_id")?;
                let version: u32 = row.get("ip_version")?;
                let of_version =
                    if version == 4 { &mut network.ipv4_address_scope } else { &mut network.ipv6_address_scope };
                *of_version = of_version.or(scope);
            }
        }
        Ok(())
    }

    /// A page of networks: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_list(&self, listing: &Listing) -> Result<Page<Network>, StoreError> {
        let mut page = self.page(&NETWORKS, listing, |_| {}, network).await?;
        self.networks_fill(&mut page.rows).await?;
        Ok(page)
    }

    /// The first external network with this name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_external_by_name(&self, name: &str) -> Result<Option<NetworkId>, StoreError> {
        let row = self.one("SELECT id FROM networks WHERE external AND name = $1 ORDER BY id", params![name]).await?;
        row.map(|r| r.get("id")).transpose()
    }

    /// The ports on these networks that live on other nodes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_peers(&self, networks: &[NetworkId], but: NodeId) -> Result<Vec<PortElsewhere>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("p.network_id", networks.to_vec()).and("p.node_id <> ?", params![but]);
        let sql = format!(
            "SELECT p.id, p.network_id, p.node_id, p.mac, p.dns_name, p.dns_domain, a.address FROM ports p
             LEFT JOIN addresses a ON a.port_id = p.id{} ORDER BY p.id, a.ordinal, a.position",
            filter.sql()
        );
        let mut ports: Vec<PortElsewhere> = Vec::new();
        for row in self.all(sql, filter.params).await? {
            let id: PortId = row.get("id")?;
            if ports.last().is_none_or(|last| last.id != id) {
                ports.push(PortElsewhere {
                    id,
                    network_id: row.get("network_id")?,
                    node_id: row.get("node_id")?,
                    mac: row.get("mac")?,
                    dns_name: row.get("dns_name")?,
                    dns_domain: row.get("dns_domain")?,
                    addresses: Vec::new(),
                });
            }
            let address: Option<IpAddr> = row.opt("address")?;
            if let Some(last) = ports.last_mut() {
                last.addresses.extend(address);
            }
        }
        Ok(ports)
    }
}

impl Db {
    /// Where tunnels to these nodes end; nodes that have not said so are left out.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn node_underlays(&self, nodes: &[NodeId]) -> Result<Vec<(NodeId, IpAddr)>, StoreError> {
        let mut filter = Where::default();
        filter.and_in("id", nodes.to_vec());
        let rows = self.all(format!("SELECT id, facts FROM nodes{} ORDER BY id", filter.sql()), filter.params).await?;
        let mut underlays = Vec::with_capacity(rows.len());
        for row in &rows {
            let facts: NodeFacts = row.json("facts")?;
            if let Some(underlay) = facts.underlay {
                underlays.push((row.get("id")?, underlay));
            }
        }
        Ok(underlays)
    }
}

impl Tx {
    /// Records a network without a segment number; the claim of one comes next.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_insert(&self, network: &Network) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO networks (id, project_id, name, description, admin_up, shared, external, is_default, mtu,
             port_security, segment, qos_policy_id, dns_domain, zone_hints, tags, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $12, $13, $14, 1, $15, $15)",
            params![
                network.id,
                network.project_id,
                &network.name,
                &network.description,
                network.admin_up,
                network.shared,
                network.external,
                network.is_default,
                network.mtu,
                network.port_security,
                network.qos_policy_id,
                &network.dns_domain,
                Json(&network.zone_hints),
                Json(&network.tags),
                network.created_at
            ],
        )
        .await?;
        Ok(())
    }

    /// Records what of a network may change.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read.
    pub async fn network_update(&self, network: &Network) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE networks SET name = $3, description = $4, admin_up = $5, shared = $6, external = $7,
                 is_default = $8, mtu = $9, port_security = $10, qos_policy_id = $11, dns_domain = $12,
                 revision = revision + 1, updated_at = $13 WHERE id = $1 AND revision = $2",
                params![
                    network.id,
                    network.revision,
                    &network.name,
                    &network.description,
                    network.admin_up,
                    network.shared,
                    network.external,
                    network.is_default,
                    network.mtu,
                    network.port_security,
                    network.qos_policy_id,
                    &network.dns_domain,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("network")) }
    }

    /// Says that something on a network changes and keeps others from changing it until the end of the transaction;
    /// `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn network_lock(&self, id: NetworkId) -> Result<bool, StoreError> {
        Ok(self.exec("UPDATE networks SET revision = revision + 1 WHERE id = $1", params![id]).await? == 1)
    }

    /// Removes a network and gives its segment number back; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if subnets, ports, routers or floating IPs still need it.
    pub async fn network_delete(&self, id: NetworkId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM networks WHERE id = $1", params![id]).await? == 1)
    }

    pub(crate) async fn touch(&self, sql: String, values: Vec<sea_orm::Value>) -> Result<(), StoreError> {
        let rows = self.all(sql, values).await?;
        let nodes = rows.iter().map(|r| r.get("id")).collect::<Result<Vec<NodeId>, _>>()?;
        self.touched_add(&nodes);
        Ok(())
    }

    /// Tells every node with a port on one of these networks, or on a network that shares a router with one of them, that
    /// there is something new.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn nodes_touch_by_networks(&self, networks: &[NetworkId]) -> Result<(), StoreError> {
        if networks.is_empty() {
            return Ok(());
        }
        let marks: Vec<String> = (1..=networks.len()).map(|n| format!("${n}")).collect();
        let marks = marks.join(", ");
        let sql = format!(
            "UPDATE nodes SET spec_generation = spec_generation + 1 WHERE id IN (SELECT node_id FROM ports
             WHERE node_id IS NOT NULL AND (network_id IN ({marks}) OR network_id IN (SELECT b.network_id FROM ports a
             JOIN ports b ON b.router_id = a.router_id WHERE a.network_id IN ({marks})))) RETURNING id"
        );
        let values = networks.iter().flat_map(|id| params![*id]).collect();
        self.touch(sql, values).await
    }

    /// Tells every node with a port in one of these groups, or in a group with a rule that refers to one of them.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn nodes_touch_by_groups(&self, groups: &[SecurityGroupId]) -> Result<(), StoreError> {
        if groups.is_empty() {
            return Ok(());
        }
        let marks: Vec<String> = (1..=groups.len()).map(|n| format!("${n}")).collect();
        let marks = marks.join(", ");
        let sql = format!(
            "UPDATE nodes SET spec_generation = spec_generation + 1 WHERE id IN (SELECT p.node_id FROM ports p
             JOIN port_security_groups m ON m.port_id = p.id WHERE p.node_id IS NOT NULL AND (m.security_group_id IN ({marks})
             OR m.security_group_id IN (SELECT security_group_id FROM security_group_rules WHERE remote_group_id IN ({marks}))))
             RETURNING id"
        );
        let values = groups.iter().flat_map(|id| params![*id]).collect();
        self.touch(sql, values).await
    }
}
