//! Ports: virtual interfaces of servers and routers, and the reservations behind floating IPs.

use crate::listing::{Field, ListOf, Listing, Page};
use crate::sql::{Json, Param, Row, Where, params};
use crate::{Db, StoreError, Tx};
use arcus_types::agent::FixedIp;
use arcus_types::{
    MacAddr, NetworkId, NodeId, PortId, ProjectId, QosPolicyId, RouterId, SecurityGroupId, ServerId, SubnetId,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;

/// A router's leg on a tenant's network.
pub const OWNER_ROUTER_INTERFACE: &str = "network:router_interface";
/// A router's leg on an external network.
pub const OWNER_ROUTER_GATEWAY: &str = "network:router_gateway";
/// What holds the address of a floating IP.
pub const OWNER_FLOATING_IP: &str = "network:floatingip";

/// Whether a port carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortStatus {
    /// Its node says that it does, or it is a router's.
    Active,
    /// It does not.
    Down,
    /// It only holds an address.
    NotApplicable,
}

impl PortStatus {
    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
            Self::NotApplicable => "N/A",
        }
    }
}

impl std::str::FromStr for PortStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Active, Self::Down, Self::NotApplicable].into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// A further source that a guest may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedPair {
    /// The range.
    pub cidr: ipnet::IpNet,
    /// The Ethernet address, if not the port's own.
    pub mac: Option<MacAddr>,
}

/// An option that DHCP tells a port besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Its name or number.
    pub name: String,
    /// Its value, as it was written.
    pub value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

/// A virtual interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Who owns it; `None` if it is part of the cloud itself.
    pub project_id: Option<ProjectId>,
    /// Its name; may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its Ethernet address, unique on the network.
    pub mac: MacAddr,
    /// Its addresses, in the order asked for.
    pub fixed_ips: Vec<FixedIp>,
    /// Whether it shall carry traffic.
    pub admin_up: bool,
    /// Whether it does.
    pub status: PortStatus,
    /// What uses it: a server's or router's id, or free text.
    pub device_id: String,
    /// What kind of thing uses it, such as `compute:nova`.
    pub device_owner: String,
    /// The server that uses it.
    pub server_id: Option<ServerId>,
    /// The router that uses it.
    pub router_id: Option<RouterId>,
    /// The node that it lives on.
    pub node_id: Option<NodeId>,
    /// The node's name, as an administrator or the server create wrote it.
    pub binding_host: String,
    /// Free settings of an administrator.
    pub binding_profile: serde_json::Value,
    /// The kind of virtual interface; `normal` is the only one that nodes make.
    pub vnic_type: String,
    /// The rule sets that apply.
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether filters and anti-spoofing apply at all.
    pub port_security: bool,
    /// Further sources that the guest may use.
    pub allowed_pairs: Vec<AllowedPair>,
    /// The host name that DHCP tells; may be empty.
    pub dns_name: String,
    /// The domain that completes the name; empty is the network's.
    pub dns_domain: String,
    /// What DHCP tells besides.
    pub dhcp_options: Vec<DhcpOption>,
    /// What it may send and receive; `None` is what its network says.
    pub qos_policy_id: Option<QosPolicyId>,
    /// Its network's policy, which applies where it has none of its own.
    pub qos_network_policy_id: Option<QosPolicyId>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Whether it goes away with its server, because the server create made it.
    pub delete_with_server: bool,
    /// Rises with every change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Further conditions of a list of ports.
#[derive(Debug, Clone, Default)]
pub struct PortFilter {
    /// With an address from one of these subnets.
    pub subnets: Vec<SubnetId>,
    /// With one of these addresses.
    pub addresses: Vec<IpAddr>,
    /// With an address that holds one of these texts.
    pub address_parts: Vec<String>,
    /// With one of these security groups.
    pub security_groups: Vec<SecurityGroupId>,
}

/// What a list of ports can be filtered and sorted by.
pub const PORT_FIELDS: &[Field] = &[
    Field::id("id", "id"),
    Field::text("name", "name"),
    Field::text("description", "description"),
    Field::id("network_id", "network_id"),
    Field::id("project_id", "project_id").or_null(),
    Field::id("tenant_id", "project_id").or_null(),
    Field::text("mac_address", "mac"),
    Field::flag("admin_state_up", "admin_up"),
    Field::text("status", "status"),
    Field::text("device_id", "device_id"),
    Field::text("device_owner", "device_owner"),
    Field::text("binding:host_id", "binding_host"),
    Field::text("binding:vnic_type", "vnic_type"),
    Field::flag("port_security_enabled", "port_security"),
    Field::text("dns_name", "dns_name"),
    Field::id("qos_policy_id", "qos_policy_id").or_null(),
    Field::number("revision_number", "revision"),
    Field::time("created_at", "created_at"),
    Field::time("updated_at", "updated_at"),
];

const PORTS: ListOf = ListOf {
    table: "ports",
    columns: "id, network_id, project_id, name, description, mac, admin_up, status, device_id, device_owner, server_id, \
              router_id, node_id, binding_host, binding_profile, vnic_type, port_security, allowed_pairs, dns_name, \
              dns_domain, dhcp_options, qos_policy_id, tags, delete_with_server, revision, created_at, updated_at, \
              (SELECT n.qos_policy_id FROM networks n WHERE n.id = ports.network_id) AS qos_network_policy_id",
    visible: "(project_id = ? OR network_id IN (SELECT id FROM networks WHERE project_id = ?))",
};

fn port(row: &Row) -> Result<Port, StoreError> {
    Ok(Port {
        id: row.get("id")?,
        network_id: row.get("network_id")?,
        project_id: row.opt("project_id")?,
        name: row.get("name")?,
        description: row.get("description")?,
        mac: row.get("mac")?,
        fixed_ips: Vec::new(),
        admin_up: row.get("admin_up")?,
        status: row.text("status")?,
        device_id: row.get("device_id")?,
        device_owner: row.get("device_owner")?,
        server_id: row.opt("server_id")?,
        router_id: row.opt("router_id")?,
        node_id: row.opt("node_id")?,
        binding_host: row.get("binding_host")?,
        binding_profile: row.json("binding_profile")?,
        vnic_type: row.get("vnic_type")?,
        security_groups: Vec::new(),
        port_security: row.get("port_security")?,
        allowed_pairs: row.json("allowed_pairs")?,
        dns_name: row.get("dns_name")?,
        dns_domain: row.get("dns_domain")?,
        dhcp_options: row.json("dhcp_options")?,
        qos_policy_id: row.opt("qos_policy_id")?,
        qos_network_policy_id: row.opt("qos_network_policy_id")?,
        tags: row.json("tags")?,
        delete_with_server: row.get("delete_with_server")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

impl Db {
    /// The port with this id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_get(&self, id: PortId) -> Result<Option<Port>, StoreError> {
        Ok(self.ports_where("id", vec![id]).await?.pop())
    }

    /// The ports with these ids, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list_by_ids(&self, ids: &[PortId]) -> Result<Vec<Port>, StoreError> {
        self.ports_where("id", ids.to_vec()).await
    }

    /// The ports of these servers, in the order in which they were made.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list_by_servers(&self, servers: &[ServerId]) -> Result<Vec<Port>, StoreError> {
        self.ports_where("server_id", servers.to_vec()).await
    }

    /// The legs of these routers, which have no security groups: two statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list_by_routers(&self, routers: &[RouterId]) -> Result<Vec<Port>, StoreError> {
        let mut legs = self.ports_bare("router_id", routers.to_vec()).await?;
        let of = of_ports(&legs);
        self.ports_fill_addresses(&mut legs, &of).await?;
        Ok(legs)
    }

    /// The ports that live on a node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list_by_node(&self, node: NodeId) -> Result<Vec<Port>, StoreError> {
        let mut ports = self.ports_bare("node_id", vec![node]).await?;
        // The same statements whatever the node holds: they are prepared once.
        let mut of = Where::default();
        of.and("port_id IN (SELECT id FROM ports WHERE node_id = ?)", params![node]);
        self.ports_fill_of(&mut ports, &of).await?;
        Ok(ports)
    }

    /// Servers' ports that live on a node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn server_ports_by_node(&self, node: NodeId) -> Result<Vec<(ServerId, PortId)>, StoreError> {
        let sql = "SELECT server_id, id FROM ports WHERE node_id = $1 AND server_id IS NOT NULL ORDER BY id";
        self.all(sql, params![node]).await?.iter().map(|r| Ok((r.get("server_id")?, r.get("id")?))).collect()
    }

    /// The ports on a network.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list_by_network(&self, network: NetworkId) -> Result<Vec<Port>, StoreError> {
        self.ports_where("network_id", vec![network]).await
    }

    /// Which of a node's ports are recorded as carrying traffic.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_status_list(&self, node: NodeId) -> Result<Vec<(PortId, PortStatus)>, StoreError> {
        let rows = self.all("SELECT id, status FROM ports WHERE node_id = $1 ORDER BY id", params![node]).await?;
        rows.iter().map(|r| Ok((r.get("id")?, r.text("status")?))).collect()
    }

    async fn ports_where<T: Param>(&self, column: &str, values: Vec<T>) -> Result<Vec<Port>, StoreError> {
        let mut ports = self.ports_bare(column, values).await?;
        self.ports_fill(&mut ports).await?;
        Ok(ports)
    }

    async fn ports_bare<T: Param>(&self, column: &str, values: Vec<T>) -> Result<Vec<Port>, StoreError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let mut filter = Where::default();
        filter.and_in(column, values);
        let sql = format!("SELECT {} FROM ports{} ORDER BY id", PORTS.columns, filter.sql());
        self.all(sql, filter.params).await?.iter().map(port).collect()
    }

    /// A page of ports: three statements.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn port_list(&self, listing: &Listing, more: &PortFilter) -> Result<Page<Port>, StoreError> {
        let mut page = self.page(&PORTS, listing, |filter| narrow(filter, more), port).await?;
        self.ports_fill(&mut page.rows).await?;
        Ok(page)
    }

    /// Adds addresses and security groups: two statements for any number of ports.
    async fn ports_fill(&self, ports: &mut [Port]) -> Result<(), StoreError> {
        self.ports_fill_of(ports, &of_ports(ports)).await
    }

    /// The same for ports whose ids `of` finds in the column `port_id`.
    async fn ports_fill_of(&self, ports: &mut [Port], of: &Where) -> Result<(), StoreError> {
        self.ports_fill_addresses(ports, of).await?;
        self.ports_fill_groups(ports, of).await
    }

    async fn ports_fill_addresses(&self, ports: &mut [Port], of: &Where) -> Result<(), StoreError> {
        if ports.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT port_id, subnet_id, address FROM addresses{} ORDER BY port_id, ordinal, position",
            of.sql()
        );
        let mut addresses: HashMap<PortId, Vec<FixedIp>> = HashMap::new();
        for row in self.all(sql, of.params.clone()).await? {
            let fixed = FixedIp { subnet_id: row.get("subnet_id")?, address: row.get("address")? };
            addresses.entry(row.get("port_id")?).or_default().push(fixed);
        }
        for port in ports {
            port.fixed_ips = addresses.remove(&port.id).unwrap_or_default();
        }
        Ok(())
    }

    async fn ports_fill_groups(&self, ports: &mut [Port], of: &Where) -> Result<(), StoreError> {
        if ports.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT port_id, security_group_id FROM port_security_groups{} ORDER BY port_id, security_group_id",
            of.sql()
        );
        let mut groups: HashMap<PortId, Vec<SecurityGroupId>> = HashMap::new();
        for row in self.all(sql, of.params.clone()).await? {
            groups.entry(row.get("port_id")?).or_default().push(row.get("security_group_id")?);
        }
        for port in ports {
            port.security_groups = groups.remove(&port.id).unwrap_or_default();
        }
        Ok(())
    }
}

fn narrow(filter: &mut Where, more: &PortFilter) {
    let mut among = |column: &str, values: Vec<sea_orm::Value>| {
        if !values.is_empty() {
            let marks = vec!["?"; values.len()].join(", ");
            let condition = format!("id IN (SELECT port_id FROM addresses WHERE {column} IN ({marks}))");
            filter.and(&condition, values);
        }
    };
    among("subnet_id", more.subnets.iter().map(|id| id.value()).collect());
    among("address", more.addresses.iter().map(|a| a.value()).collect());
    if !more.address_parts.is_empty() {
        let any = vec!["address LIKE ? ESCAPE '!'"; more.address_parts.len()].join(" OR ");
        let like = |part: &String| {
            let escaped = part.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            format!("%{escaped}%").value()
        };
        let condition = format!("id IN (SELECT port_id FROM addresses WHERE {any})");
        filter.and(&condition, more.address_parts.iter().map(like).collect());
    }
    if !more.security_groups.is_empty() {
        let marks = vec!["?"; more.security_groups.len()].join(", ");
        let condition =
            format!("id IN (SELECT port_id FROM port_security_groups WHERE security_group_id IN ({marks}))");
        filter.and(&condition, more.security_groups.iter().map(|id| id.value()).collect());
    }
}

/// These ports, by the column `port_id`.
fn of_ports(ports: &[Port]) -> Where {
    let mut of = Where::default();
    of.and_in("port_id", ports.iter().map(|p| p.id).collect());
    of
}

impl Tx {
    /// Records a port without its addresses and groups; `false` if its network has a port with this Ethernet address,
    /// and then nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if the network is gone.
    pub async fn port_insert(&self, port: &Port) -> Result<bool, StoreError> {
        let inserted = self
            .exec(
                "INSERT INTO ports (id, network_id, project_id, name, description, mac, admin_up, status, device_id,
                 device_owner, server_id, router_id, node_id, binding_host, binding_profile, vnic_type, port_security,
                 allowed_pairs, dns_name, delete_with_server, dns_domain, dhcp_options, qos_policy_id, tags, revision,
                 created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                 $23, $24, 1, $25, $25)
                 ON CONFLICT (network_id, mac) DO NOTHING",
                params![
                    port.id, port.network_id, port.project_id, &port.name, &port.description, port.mac, port.admin_up,
                    port.status.as_str(), &port.device_id, &port.device_owner, port.server_id, port.router_id,
                    port.node_id, &port.binding_host, Json(&port.binding_profile), &port.vnic_type, port.port_security,
                    Json(&port.allowed_pairs), &port.dns_name, port.delete_with_server, &port.dns_domain,
                    Json(&port.dhcp_options), port.qos_policy_id, Json(&port.tags), port.created_at
                ],
            )
            .await?;
        Ok(inserted == 1)
    }

    /// Records what of a port may change, except its addresses and groups.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if it changed since it was read, [`StoreError::Duplicate`] if the Ethernet address is taken.
    pub async fn port_update(&self, port: &Port) -> Result<(), StoreError> {
        let changed = self
            .exec(
                "UPDATE ports SET name = $3, description = $4, mac = $5, admin_up = $6, status = $7, device_id = $8,
                 device_owner = $9, server_id = $10, router_id = $11, node_id = $12, binding_host = $13,
                 binding_profile = $14, vnic_type = $15, port_security = $16, allowed_pairs = $17, dns_name = $18,
                 delete_with_server = $19, dns_domain = $20, dhcp_options = $21, qos_policy_id = $22,
                 revision = revision + 1, updated_at = $23 WHERE id = $1 AND revision = $2",
                params![
                    port.id,
                    port.revision,
                    &port.name,
                    &port.description,
                    port.mac,
                    port.admin_up,
                    port.status.as_str(),
                    &port.device_id,
                    &port.device_owner,
                    port.server_id,
                    port.router_id,
                    port.node_id,
                    &port.binding_host,
                    Json(&port.binding_profile),
                    &port.vnic_type,
                    port.port_security,
                    Json(&port.allowed_pairs),
                    &port.dns_name,
                    port.delete_with_server,
                    &port.dns_domain,
                    Json(&port.dhcp_options),
                    port.qos_policy_id,
                    Timestamp::now()
                ],
            )
            .await?;
        if changed == 1 { Ok(()) } else { Err(StoreError::Stale("port")) }
    }

    /// Replaces a port's security groups.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a group is gone.
    pub async fn port_security_groups_set(&self, port: PortId, groups: &[SecurityGroupId]) -> Result<(), StoreError> {
        self.exec("DELETE FROM port_security_groups WHERE port_id = $1", params![port]).await?;
        self.port_security_groups_add(port, groups).await
    }

    /// Records a port's security groups: one statement for any number of them.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a group is gone.
    pub async fn port_security_groups_add(&self, port: PortId, groups: &[SecurityGroupId]) -> Result<(), StoreError> {
        if groups.is_empty() {
            return Ok(());
        }
        let mut values = params![port];
        values.extend(groups.iter().map(|group| group.value()));
        let rows: Vec<String> = (2..=values.len()).map(|n| format!("($1, ${n})")).collect();
        let sql = format!(
            "INSERT INTO port_security_groups (port_id, security_group_id) VALUES {} ON CONFLICT DO NOTHING",
            rows.join(", ")
        );
        self.exec(sql, values).await?;
        Ok(())
    }

    /// Removes a port with its addresses and groups; `false` if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Referenced`] if a floating IP still needs it.
    pub async fn port_delete(&self, id: PortId) -> Result<bool, StoreError> {
        Ok(self.exec("DELETE FROM ports WHERE id = $1", params![id]).await? == 1)
    }

    /// Records which of a node's ports carry traffic; writes only what changed. How many did.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn ports_status_set(
        &self,
        node: NodeId,
        ports: &[PortId],
        status: PortStatus,
    ) -> Result<u64, StoreError> {
        let mut filter = Where::default();
        filter.params.extend(params![status.as_str(), Timestamp::now()]);
        filter.and("node_id = ?", params![node]).and("status <> ?", params![status.as_str()]);
        filter.and_in("id", ports.to_vec());
        let sql = format!("UPDATE ports SET status = $1, revision = revision + 1, updated_at = $2{}", filter.sql());
        self.exec(sql, filter.params).await
    }
}
