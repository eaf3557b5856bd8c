//! What a node must bring about on the network: whole, in a bounded number of queries.
//!
//! A router is carried by every node with a port on one of its networks. So a node gets the networks of its own ports,
//! the routers with a leg on one of them, and the other networks of those routers, each with the peers that carry it too.

use crate::{Engine, EngineError};
use arcus_store::{
    FloatingIp, Network, OWNER_ROUTER_GATEWAY, OWNER_ROUTER_INTERFACE, Port, Router, SecurityGroupRule, Subnet,
};
use arcus_types::agent::{
    ExternalSpec, FilterRule, FixedIp, FloatingIpSpec, NetworkSpec, PeerSpec, PortSpec, QosSpec, RouterGatewaySpec,
    RouterInterfaceSpec, RouterSpec, SecurityGroupSpec, SubnetSpec,
};
use arcus_types::{MacAddr, NetworkId, NodeId, RouterId, SecurityGroupId, SubnetId};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

type Specs = (Vec<NetworkSpec>, Vec<RouterSpec>, Vec<SecurityGroupSpec>);

impl Engine {
    /// The networks, routers and rule sets that a node must carry. At most 14 statements.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn network_specs(&self, node: NodeId) -> Result<Specs, EngineError> {
        let db = self.store();
        let ports = db.port_list_by_node(node).await?;
        if ports.is_empty() {
            return Ok((Vec::new(), Vec::new(), Vec::new()));
        }
        let own: BTreeSet<NetworkId> = ports.iter().map(|p| p.network_id).collect();
        let own: Vec<NetworkId> = own.into_iter().collect();
        let routers = db.router_list_by_networks(&own).await?;
        let router_ids: Vec<RouterId> = routers.iter().map(|r| r.id).collect();
        let legs = db.port_list_by_routers(&router_ids).await?;
        let floating = db.floating_ips_by_routers(&router_ids).await?;
        let all: BTreeSet<NetworkId> = own.into_iter().chain(legs.iter().map(|leg| leg.network_id)).collect();
        let all: Vec<NetworkId> = all.into_iter().collect();
        let networks = db.network_list_by_ids(&all).await?;
        let subnets = db.subnet_list_by_networks(&all).await?;
        let peers = self.peers(&all, node).await?;
        let groups = self.group_specs(&ports).await?;
        let routers = router_specs(&routers, &legs, &floating, &subnets);
        Ok((network_specs(&networks, &subnets, &ports, peers), routers, groups))
    }

    async fn peers(&self, networks: &[NetworkId], node: NodeId) -> Result<Peers, EngineError> {
        let db = self.store();
        let found = db.network_peers(networks, node).await?;
        let nodes: BTreeSet<NodeId> = found.iter().map(|(_, node, _)| *node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        if nodes.is_empty() {
            return Ok(Peers::new());
        }
        let underlays: HashMap<NodeId, IpAddr> = db.node_underlays(&nodes).await?.into_iter().collect();
        let mut peers = Peers::new();
        for (network, node, mac) in found {
            if let Some(underlay) = underlays.get(&node) {
                peers.entry(network).or_default().entry(*underlay).or_default().push(mac);
            }
        }
        Ok(peers)
    }

    /// The rule sets of these ports with what they allow, and those that their rules refer to with their members.
    async fn group_specs(&self, ports: &[Port]) -> Result<Vec<SecurityGroupSpec>, EngineError> {
        let db = self.store();
        let own: BTreeSet<SecurityGroupId> = ports.iter().flat_map(|p| p.security_groups.iter().copied()).collect();
        let own: Vec<SecurityGroupId> = own.into_iter().collect();
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let mut specs: BTreeMap<SecurityGroupId, SecurityGroupSpec> = BTreeMap::new();
        for group in db.security_group_list_by_ids(&own).await? {
            let rules = group.rules.iter().map(filter_rule).collect();
            specs.insert(group.id, group_spec(group.id, rules));
        }
        let remote: BTreeSet<SecurityGroupId> =
            specs.values().flat_map(|spec| &spec.rules).filter_map(|rule| rule.remote_group).collect();
        for id in &remote {
            specs.entry(*id).or_insert(group_spec(*id, Vec::new()));
        }
        let remote: Vec<SecurityGroupId> = remote.into_iter().collect();
        if !remote.is_empty() {
            for (group, address) in db.security_group_members(&remote).await? {
                if let Some(spec) = specs.get_mut(&group) {
                    spec.members.push(address);
                }
            }
        }
        Ok(specs.into_values().collect())
    }
}

/// By network and the other node's underlay address: the Ethernet addresses there.
type Peers = HashMap<NetworkId, BTreeMap<IpAddr, Vec<MacAddr>>>;

fn group_spec(id: SecurityGroupId, rules: Vec<FilterRule>) -> SecurityGroupSpec {
    SecurityGroupSpec { id, rules, members: Vec::new(), address_groups: Vec::new() }
}

fn filter_rule(rule: &SecurityGroupRule) -> FilterRule {
    FilterRule {
        direction: rule.direction,
        ethertype: rule.ethertype,
        protocol: rule.protocol_number,
        port_min: rule.port_min,
        port_max: rule.port_max,
        remote_cidr: rule.remote_cidr,
        remote_group: rule.remote_group_id,
        remote_address_group: None,
    }
}

fn network_specs(networks: &[Network], subnets: &[Subnet], ports: &[Port], mut peers: Peers) -> Vec<NetworkSpec> {
    let spec = |network: &Network| NetworkSpec {
        id: network.id,
        segment: network.segment,
        mtu: network.mtu,
        external: if network.external { external(network, subnets) } else { None },
        subnets: subnets.iter().filter(|s| s.network_id == network.id).map(subnet_spec).collect(),
        ports: ports
            .iter()
            .filter(|p| p.network_id == network.id)
            .map(|p| PortSpec { admin_up: p.admin_up && network.admin_up, ..port_spec(p) })
            .collect(),
        peers: peers
            .remove(&network.id)
            .unwrap_or_default()
            .into_iter()
            .map(|(underlay, macs)| PeerSpec { underlay, macs, ports: Vec::new() })
            .collect(),
    };
    networks.iter().map(spec).collect()
}

/// The node itself holds the gateway's address of an external network.
fn external(network: &Network, subnets: &[Subnet]) -> Option<ExternalSpec> {
    let mut of_network: Vec<&Subnet> = subnets.iter().filter(|s| s.network_id == network.id).collect();
    of_network.sort_by_key(|s| s.ip_version());
    of_network.into_iter().find_map(|subnet| {
        let gateway = IpNet::new(subnet.gateway?, subnet.cidr.prefix_len()).ok()?;
        Some(ExternalSpec { gateway })
    })
}

fn subnet_spec(subnet: &Subnet) -> SubnetSpec {
    SubnetSpec {
        id: subnet.id,
        cidr: subnet.cidr,
        gateway: subnet.gateway,
        dhcp: subnet.dhcp,
        dns_servers: subnet.dns_servers.clone(),
        host_routes: subnet.host_routes.iter().map(|route| (route.destination, route.nexthop)).collect(),
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
    }
}

fn port_spec(port: &Port) -> PortSpec {
    PortSpec {
        id: port.id,
        server_id: port.server_id,
        mac: port.mac,
        addresses: port.fixed_ips.clone(),
        security_groups: port.security_groups.clone(),
        port_security: port.port_security,
        allowed_pairs: port.allowed_pairs.iter().map(|pair| (pair.cidr, pair.mac)).collect(),
        admin_up: port.admin_up,
        hostname: host_name(port),
        dns_domain: String::new(),
        dhcp_options: Vec::new(),
        qos: QosSpec::default(),
    }
}

/// The name that DHCP tells: the port's own, else one made from its first address.
pub(crate) fn host_name(port: &Port) -> String {
    if !port.dns_name.is_empty() {
        return port.dns_name.clone();
    }
    match port.fixed_ips.first() {
        Some(ip) => format!("host-{}", ip.address.to_string().replace(['.', ':'], "-")),
        None => String::new(),
    }
}

fn with_prefixes(addresses: &[FixedIp], subnets: &HashMap<SubnetId, &Subnet>) -> Vec<IpNet> {
    let with_prefix = |ip: &FixedIp| IpNet::new(ip.address, subnets.get(&ip.subnet_id)?.cidr.prefix_len()).ok();
    addresses.iter().filter_map(with_prefix).collect()
}

fn router_specs(routers: &[Router], legs: &[Port], floating: &[FloatingIp], subnets: &[Subnet]) -> Vec<RouterSpec> {
    let by_id: HashMap<SubnetId, &Subnet> = subnets.iter().map(|s| (s.id, s)).collect();
    let spec = |router: &Router| {
        let own = || legs.iter().filter(|leg| leg.router_id == Some(router.id));
        let interface = |leg: &Port| RouterInterfaceSpec {
            port_id: leg.id,
            network_id: leg.network_id,
            mac: leg.mac,
            addresses: with_prefixes(&leg.fixed_ips, &by_id),
        };
        let gateway = |leg: &Port| RouterGatewaySpec {
            port_id: leg.id,
            network_id: leg.network_id,
            mac: leg.mac,
            addresses: with_prefixes(&leg.fixed_ips, &by_id),
            next_hops: leg.fixed_ips.iter().filter_map(|ip| by_id.get(&ip.subnet_id)?.gateway).collect(),
            snat: router.snat,
        };
        RouterSpec {
            id: router.id,
            admin_up: router.admin_up,
            interfaces: own().filter(|p| p.device_owner == OWNER_ROUTER_INTERFACE).map(interface).collect(),
            gateway: own().find(|p| p.device_owner == OWNER_ROUTER_GATEWAY).map(gateway),
            floating_ips: floating
                .iter()
                .filter(|ip| ip.router_id == Some(router.id))
                .filter_map(floating_spec)
                .collect(),
            routes: router.routes.iter().map(|route| (route.destination, route.nexthop)).collect(),
            port_forwardings: Vec::new(),
        }
    };
    routers.iter().map(spec).collect()
}

fn floating_spec(ip: &FloatingIp) -> Option<FloatingIpSpec> {
    Some(FloatingIpSpec { id: ip.id, floating: ip.address, fixed: ip.fixed_address?, qos: QosSpec::default() })
}
