//! What a node must bring about on the network: whole, in a bounded number of queries.
//!
//! A router is carried by every node with a port on one of its networks. So a node gets the networks of its own ports,
//! the routers with a leg on one of them, and the other networks of those routers, each with the peers that carry it too.

use crate::{Engine, EngineError};
use arcus_store::{
    DhcpOption, FloatingIp, Ipv6Mode, Network, OWNER_ROUTER_GATEWAY, OWNER_ROUTER_INTERFACE, Port, PortElsewhere,
    PortForwarding, PortMoving, QosRuleKind, Router, SecurityGroupRule, Subnet,
};
use arcus_types::agent::{
    self, AddressGroupSpec, BandwidthLimit, DhcpOptionSpec, Direction, ExternalSpec, FilterRule, FixedIp,
    FloatingIpSpec, NetworkSpec, PeerPort, PeerSpec, PortForwardingSpec, PortMove, PortSpec, QosSpec,
    RouterGatewaySpec, RouterInterfaceSpec, RouterSpec, SecurityGroupSpec, SubnetSpec,
};
use arcus_types::{
    AddressGroupId, MacAddr, NetworkId, NodeId, PortId, QosPolicyId, RouterId, SecurityGroupId, SubnetId,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

type Specs = (Vec<NetworkSpec>, Vec<RouterSpec>, Vec<SecurityGroupSpec>);

impl Engine {
    /// The networks, routers and rule sets that a node must carry. At most 18 statements.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn network_specs(&self, node: NodeId) -> Result<Specs, EngineError> {
        let db = self.store();
        let moving = db.ports_moving().await?;
        let mut ports = db.port_list_by_node(node).await?;
        let coming: Vec<PortId> = moving.iter().filter(|m| m.dest_id == node).map(|m| m.port_id).collect();
        if !coming.is_empty() {
            ports.extend(db.port_list_by_ids(&coming).await?);
        }
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
        let networks = db.network_list_bare(&all).await?;
        let subnets = db.subnet_list_by_networks(&all).await?;
        let peers = self.peers(&networks, node, &moving).await?;
        let groups = self.group_specs(&ports).await?;
        // Addresses without a port are those whose ports are forwarded one by one.
        let parted = floating.iter().any(|ip| ip.port_id.is_none());
        let forwardings = if parted { db.port_forwardings_by_routers(&router_ids).await? } else { Vec::new() };
        let qos = self.qos_specs(&ports, &floating).await?;
        let mut routers = router_specs(&routers, &legs, &floating, &subnets, &qos);
        for router in &mut routers {
            let own = forwardings.iter().filter(|(of, _, _)| *of == router.id);
            router.port_forwardings = own.filter_map(|(_, external, one)| forwarding_spec(*external, one)).collect();
        }
        let mut networks = network_specs(&networks, &subnets, &ports, peers, &qos);
        for port in networks.iter_mut().flat_map(|network| &mut network.ports) {
            let Some(m) = moving.iter().find(|m| m.port_id == port.id) else { continue };
            let how = port_move(m, node);
            if how == PortMove::Arriving {
                port.flows.clone_from(&m.flows);
            }
            port.moving = Some(how);
        }
        Ok((networks, routers, groups))
    }

    /// What each policy on these ports and floating IPs says: one statement, none where there is no policy.
    async fn qos_specs(&self, ports: &[Port], floating: &[FloatingIp]) -> Result<QosSpecs, EngineError> {
        let of_ports = ports.iter().filter_map(|port| port.qos_policy_id.or(port.qos_network_policy_id));
        let policies: BTreeSet<QosPolicyId> =
            of_ports.chain(floating.iter().filter_map(|ip| ip.qos_policy_id)).collect();
        let policies: Vec<QosPolicyId> = policies.into_iter().collect();
        let mut specs = QosSpecs::new();
        for rule in self.store().qos_rules(&policies).await? {
            let spec = specs.entry(rule.policy_id).or_default();
            match rule.kind {
                QosRuleKind::BandwidthLimit { direction, max_kbps, max_burst_kbps } => {
                    let limit = Some(BandwidthLimit { rate_kbit: max_kbps, burst_kbit: max_burst_kbps });
                    match direction {
                        Direction::Ingress => spec.ingress = limit,
                        Direction::Egress => spec.egress = limit,
                    }
                }
                QosRuleKind::DscpMarking { mark } => spec.dscp_mark = Some(mark),
            }
        }
        Ok(specs)
    }

    async fn peers(&self, networks: &[Network], node: NodeId, moving: &[PortMoving]) -> Result<Peers, EngineError> {
        let db = self.store();
        let ids: Vec<NetworkId> = networks.iter().map(|network| network.id).collect();
        let found = db.network_peers(&ids, node).await?;
        let moving = || moving.iter().filter(|m| ids.contains(&m.network_id));
        let ends = |m: &PortMoving| [m.source_id, m.dest_id].into_iter().filter(|end| *end != node);
        let nodes: BTreeSet<NodeId> = found.iter().map(|port| port.node_id).chain(moving().flat_map(ends)).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        if nodes.is_empty() {
            return Ok(Peers::new());
        }
        let underlays: HashMap<NodeId, IpAddr> = db.node_underlays(&nodes).await?.into_iter().collect();
        let mut peers = Peers::new();
        for port in found {
            if let Some(underlay) = underlays.get(&port.node_id) {
                peers.entry(port.network_id).or_default().entry(*underlay).or_default().ports.push(port);
            }
        }
        for m in moving() {
            for underlay in ends(m).filter_map(|end| underlays.get(&end)) {
                let peer = peers.entry(m.network_id).or_default().entry(*underlay).or_default();
                peer.moving.push(m.mac);
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
        let named: BTreeSet<AddressGroupId> =
            specs.values().flat_map(|spec| &spec.rules).filter_map(|rule| rule.remote_address_group).collect();
        let named: Vec<AddressGroupId> = named.into_iter().collect();
        let address_groups = db.address_group_list_by_ids(&named).await?;
        for spec in specs.values_mut() {
            let uses = |id: AddressGroupId| spec.rules.iter().any(|rule| rule.remote_address_group == Some(id));
            spec.address_groups = address_groups
                .iter()
                .filter(|group| uses(group.id))
                .map(|group| AddressGroupSpec { id: group.id, addresses: group.addresses.clone() })
                .collect();
        }
        Ok(specs.into_values().collect())
    }
}

/// By network and the other node's underlay address: what is there.
type Peers = HashMap<NetworkId, BTreeMap<IpAddr, Peer>>;

/// What another node has of a network.
#[derive(Default)]
struct Peer {
    ports: Vec<PortElsewhere>,
    /// Ethernet addresses of guests on their way there or from there.
    moving: Vec<MacAddr>,
}

/// How a node's port takes part in its guest's move.
fn port_move(of: &PortMoving, node: NodeId) -> PortMove {
    match (of.dest_id == node, of.ready) {
        (false, _) => PortMove::Leaving,
        (true, false) => PortMove::Expected,
        (true, true) => PortMove::Arriving,
    }
}

/// What policies say.
type QosSpecs = HashMap<QosPolicyId, QosSpec>;

fn qos_of(policy: Option<QosPolicyId>, specs: &QosSpecs) -> QosSpec {
    policy.and_then(|id| specs.get(&id)).copied().unwrap_or_default()
}

fn peer_spec(network: &Network, underlay: IpAddr, peer: Peer) -> PeerSpec {
    let Peer { ports, moving } = peer;
    // A guest on its way is not there for certain.
    let macs = ports.iter().map(|port| port.mac).filter(|mac| !moving.contains(mac)).collect();
    let spec = |port: PortElsewhere| PeerPort {
        mac: port.mac,
        hostname: name_or(&port.dns_name, port.addresses.first().copied()),
        dns_domain: domain(&port.dns_domain, network),
        addresses: port.addresses,
    };
    PeerSpec { underlay, macs, ports: ports.into_iter().map(spec).collect(), moving }
}

/// A port's own domain, else its network's.
fn domain(own: &str, network: &Network) -> String {
    if own.is_empty() { network.dns_domain.clone() } else { own.to_owned() }
}

fn forwarding_spec(external: IpAddr, of: &PortForwarding) -> Option<PortForwardingSpec> {
    // Numbers as IANA has assigned them.
    let protocol = match of.protocol.as_str() {
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "sctp" => 132,
        _ => return None,
    };
    Some(PortForwardingSpec {
        protocol,
        external,
        external_ports: of.external_ports,
        internal: of.address,
        internal_ports: of.internal_ports,
    })
}

const fn mode_spec(mode: Ipv6Mode) -> agent::Ipv6Mode {
    match mode {
        Ipv6Mode::Slaac => agent::Ipv6Mode::Slaac,
        Ipv6Mode::Stateful => agent::Ipv6Mode::DhcpStateful,
        Ipv6Mode::Stateless => agent::Ipv6Mode::DhcpStateless,
    }
}

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
        remote_cidr: rule.normalized_cidr(),
        remote_group: rule.remote_group_id,
        remote_address_group: rule.remote_address_group_id,
    }
}

fn network_specs(
    networks: &[Network],
    subnets: &[Subnet],
    ports: &[Port],
    mut peers: Peers,
    qos: &QosSpecs,
) -> Vec<NetworkSpec> {
    let spec = |network: &Network| NetworkSpec {
        id: network.id,
        segment: network.segment,
        mtu: network.mtu,
        external: if network.external { external(network, subnets) } else { None },
        subnets: subnets.iter().filter(|s| s.network_id == network.id).map(subnet_spec).collect(),
        ports: ports.iter().filter(|p| p.network_id == network.id).map(|p| port_spec(p, network, qos)).collect(),
        peers: peers
            .remove(&network.id)
            .unwrap_or_default()
            .into_iter()
            .map(|(underlay, peer)| peer_spec(network, underlay, peer))
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
        ipv6_address_mode: subnet.ipv6_address_mode.map(mode_spec),
        ipv6_ra_mode: subnet.ipv6_ra_mode.map(mode_spec),
    }
}

fn port_spec(port: &Port, network: &Network, qos: &QosSpecs) -> PortSpec {
    // What cannot be read was refused when it was written.
    let option = |o: &DhcpOption| DhcpOptionSpec::parse(o.ip_version == 6, &o.name, &o.value).ok();
    PortSpec {
        id: port.id,
        server_id: port.server_id,
        mac: port.mac,
        addresses: port.fixed_ips.clone(),
        security_groups: port.security_groups.clone(),
        port_security: port.port_security,
        allowed_pairs: port.allowed_pairs.iter().map(|pair| (pair.cidr, pair.mac)).collect(),
        admin_up: port.admin_up && network.admin_up,
        hostname: host_name(port),
        dns_domain: domain(&port.dns_domain, network),
        dhcp_options: port.dhcp_options.iter().filter_map(option).collect(),
        qos: qos_of(port.qos_policy_id.or(port.qos_network_policy_id), qos),
        moving: None,
        flows: Vec::new(),
    }
}

/// The name that DHCP tells: the port's own, else one made from its first address.
pub(crate) fn host_name(port: &Port) -> String {
    name_or(&port.dns_name, port.fixed_ips.first().map(|ip| ip.address))
}

fn name_or(dns_name: &str, first: Option<IpAddr>) -> String {
    match first {
        Some(address) if dns_name.is_empty() => format!("host-{}", address.to_string().replace(['.', ':'], "-")),
        Some(_) | None => dns_name.to_owned(),
    }
}

fn with_prefixes(addresses: &[FixedIp], subnets: &HashMap<SubnetId, &Subnet>) -> Vec<IpNet> {
    let with_prefix = |ip: &FixedIp| IpNet::new(ip.address, subnets.get(&ip.subnet_id)?.cidr.prefix_len()).ok();
    addresses.iter().filter_map(with_prefix).collect()
}

fn router_specs(
    routers: &[Router],
    legs: &[Port],
    floating: &[FloatingIp],
    subnets: &[Subnet],
    qos: &QosSpecs,
) -> Vec<RouterSpec> {
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
                .filter_map(|ip| floating_spec(ip, qos))
                .collect(),
            routes: router.routes.iter().map(|route| (route.destination, route.nexthop)).collect(),
            port_forwardings: Vec::new(),
        }
    };
    routers.iter().map(spec).collect()
}

fn floating_spec(ip: &FloatingIp, qos: &QosSpecs) -> Option<FloatingIpSpec> {
    let (floating, fixed) = (ip.address, ip.fixed_address?);
    Some(FloatingIpSpec { id: ip.id, floating, fixed, qos: qos_of(ip.qos_policy_id, qos) })
}
