//! A router's namespace: legs, routes, address translation.

use super::names::{self, TABLE, Tag};
use super::plan::{Link, LinkKind, Neighbour, Plan, Route};
use super::queues;
use arcus_types::agent::{
    NetworkSpec, PortForwardingSpec, QosSpec, RouterGatewaySpec, RouterInterfaceSpec, RouterSpec,
};
use arcus_types::ids::NetworkId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// A router as it shall be on this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Router {
    /// The namespace.
    pub plan: Plan,
    /// Which translations of addresses are right.
    pub translations: Translations,
    /// What of the specification cannot be done.
    pub faults: Vec<String>,
}

/// Which translations of addresses are right: connections under others must end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translations {
    /// From a floating address to the port's own.
    pub floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The router's own external address, if it lends it to guests.
    pub shared: Option<Ipv4Addr>,
    /// The same for connections between guests of this router by floating addresses.
    pub hairpin: Option<Ipv4Addr>,
    /// Services under external addresses, port by port.
    pub forwardings: Vec<Forwarding>,
}

/// One port of an external address that leads to one of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forwarding {
    /// The IP protocol's number.
    pub protocol: u8,
    /// The external address.
    pub external: Ipv4Addr,
    /// Its port.
    pub external_port: u16,
    /// The guest's address.
    pub internal: Ipv4Addr,
    /// Its port.
    pub internal_port: u16,
}

impl Translations {
    /// From a port's own address to its (first) floating one.
    fn outward(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let mut out = BTreeMap::new();
        for (floating, fixed) in &self.floating {
            out.entry(*fixed).or_insert(*floating);
        }
        out
    }
}

/// Plans a router. `node` is a path to the agent's own namespace, where external bridges are.
pub fn plan(spec: &RouterSpec, networks: &BTreeMap<NetworkId, &NetworkSpec>, tag: &Tag, node: &str) -> Router {
    let mut out = Router::default();
    settings(spec.admin_up, &mut out.plan);
    for interface in &spec.interfaces {
        let Some(network) = networks.get(&interface.network_id) else {
            out.faults.push(format!("router {}: network {} is not on this node", spec.id, interface.network_id));
            continue;
        };
        let peer = names::leg_outer(interface.port_id);
        let mut link = Link::new(LinkKind::Cable { peer, place: tag.segment(network.id) }, network.mtu);
        link.mac = Some(interface.mac);
        link.addresses = interface.addresses.iter().copied().collect();
        out.plan.links.insert(names::leg_inner(interface.port_id), link);
        neighbours(interface, network, &mut out.plan);
    }
    let mut gateway = None;
    if let Some(leg) = &spec.gateway {
        match networks.get(&leg.network_id).filter(|network| network.external.is_some()) {
            Some(network) => {
                let device = names::gateway(leg.port_id);
                gateway_plan(spec, leg, network, (tag, node), &device, &mut out);
                gateway = Some(device);
            }
            None => {
                out.faults.push(format!("router {}: external network {} is not on this node", spec.id, leg.network_id))
            }
        }
    } else if !spec.floating_ips.is_empty() || !spec.port_forwardings.is_empty() {
        out.faults.push(format!("router {} has floating IPs but no external leg", spec.id));
    }
    for (destination, hop) in &spec.routes {
        let device =
            out.plan.links.iter().find(|(_, l)| l.addresses.iter().any(|a| a.contains(hop))).map(|(n, _)| n.clone());
        match device {
            Some(device) => {
                let route = Route { destination: destination.trunc(), via: Some(*hop), device, source: None };
                out.plan.routes.insert(route);
            }
            None => out.faults.push(format!("router {}: no leg leads to the next hop {hop}", spec.id)),
        }
    }
    out.plan.tables = vec![("inet", TABLE.to_owned())];
    out.plan.rules = rules(spec.admin_up, gateway.as_deref(), &out.translations);
    out
}

fn gateway_plan(
    spec: &RouterSpec,
    leg: &RouterGatewaySpec,
    network: &NetworkSpec,
    (tag, node): (&Tag, &str),
    device: &str,
    out: &mut Router,
) {
    let kind = LinkKind::Cable { peer: tag.external_leg(leg.port_id), place: node.to_owned() };
    let mut link = Link::new(kind, network.mtu);
    link.mac = Some(leg.mac);
    link.addresses = leg.addresses.iter().copied().collect();
    let own = leg.addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    out.translations.shared = own.filter(|_| leg.snat);
    out.translations.hairpin = own;
    for floating in &spec.floating_ips {
        match (floating.floating, floating.fixed) {
            (IpAddr::V4(external), IpAddr::V4(fixed)) => {
                if !leg.addresses.iter().any(|own| own.addr() == floating.floating) {
                    link.addresses.insert(IpNet::from(floating.floating));
                }
                out.translations.floating.insert(external, fixed);
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => {
                out.faults.push(format!("floating IP {} is not IPv4: left out", floating.id));
            }
        }
    }
    for forwarding in &spec.port_forwardings {
        match forwardings(forwarding) {
            Ok(ports) => {
                if !leg.addresses.iter().any(|own| own.addr() == forwarding.external) {
                    link.addresses.insert(IpNet::from(forwarding.external));
                }
                out.translations.forwardings.extend(ports);
            }
            Err(why) => {
                out.faults.push(format!("router {}: port forwarding of {}: {why}", spec.id, forwarding.external))
            }
        }
    }
    let all = &mut out.translations.forwardings;
    all.sort();
    all.dedup_by_key(|one| (one.protocol, one.external, one.external_port));
    if all.len() > FORWARDED_PORTS_MAX {
        out.faults.push(format!(
            "router {} forwards {} ports: only the first {FORWARDED_PORTS_MAX} are in force",
            spec.id,
            all.len()
        ));
        all.truncate(FORWARDED_PORTS_MAX);
    }
    limits(spec, leg, network.mtu, device, &mut out.plan);
    out.plan.links.insert(device.to_owned(), link);
    for v6 in [false, true] {
        if let Some(hop) = leg.next_hops.iter().find(|hop| hop.is_ipv6() == v6) {
            let everywhere =
                if v6 { IpNet::V6(ipnet::Ipv6Net::default()) } else { IpNet::V4(ipnet::Ipv4Net::default()) };
            let route = Route { destination: everywhere, via: Some(*hop), device: device.to_owned(), source: None };
            out.plan.routes.insert(route);
        }
    }
}

/// How many ports a router may forward: each is an entry in the kernel.
const FORWARDED_PORTS_MAX: usize = 16_384;

/// Port by port, as the kernel's ranges do not keep the distance from the first port.
fn forwardings(spec: &PortForwardingSpec) -> Result<Vec<Forwarding>, &'static str> {
    let (IpAddr::V4(external), IpAddr::V4(internal)) = (spec.external, spec.internal) else {
        return Err("only IPv4 is translated");
    };
    if !matches!(spec.protocol, 6 | 17 | 33 | 132) {
        return Err("only TCP, UDP, DCCP and SCTP have ports");
    }
    let (outer, inner) = (spec.external_ports, spec.internal_ports);
    let one = inner.0 == inner.1;
    let as_many = outer.1.checked_sub(outer.0).is_some_and(|count| inner.1.checked_sub(inner.0) == Some(count));
    if outer.0 == 0 || inner.0 == 0 || outer.0 > outer.1 || !(one || as_many) {
        return Err("the ranges of ports do not match");
    }
    let ports = outer.0..=outer.1;
    let to = |port: u16| if one { inner.0 } else { inner.0 + (port - outer.0) };
    Ok(ports
        .map(|port| Forwarding {
            protocol: spec.protocol,
            external,
            external_port: port,
            internal,
            internal_port: to(port),
        })
        .collect())
}

/// Ports that live on other nodes have no way to answer this router: their answers go to their own node's. So their
/// Ethernet addresses are told and need not be asked for.
fn neighbours(leg: &RouterInterfaceSpec, network: &NetworkSpec, plan: &mut Plan) {
    let here = |address: &IpAddr| network.ports.iter().flat_map(|port| &port.addresses).any(|a| a.address == *address);
    let device = names::leg_inner(leg.port_id);
    let mut told: BTreeMap<IpAddr, Neighbour> = BTreeMap::new();
    for port in network.peers.iter().flat_map(|peer| &peer.ports) {
        let on_link = |address: &&IpAddr| leg.addresses.iter().any(|own| own.contains(*address));
        for address in port.addresses.iter().filter(on_link).filter(|address| !here(address)) {
            let neighbour = Neighbour { address: *address, mac: port.mac, device: device.clone() };
            told.entry(*address).or_insert(neighbour);
        }
    }
    plan.neighbours.extend(told.into_values());
}

/// What may pass under floating addresses, as queues of the external leg.
fn limits(spec: &RouterSpec, leg: &RouterGatewaySpec, mtu: u32, device: &str, plan: &mut Plan) {
    let limited = |qos: &QosSpec| qos.ingress.is_some() || qos.egress.is_some();
    let limits: Vec<(Ipv4Addr, QosSpec)> = spec
        .floating_ips
        .iter()
        .filter(|floating| limited(&floating.qos))
        .filter_map(|floating| match floating.floating {
            IpAddr::V4(address) => Some((address, floating.qos)),
            IpAddr::V6(_) => None,
        })
        .collect();
    let detour = names::gateway_detour(leg.port_id);
    if limits.iter().any(|(_, qos)| qos.ingress.is_some()) {
        plan.links.insert(detour.clone(), Link::new(LinkKind::Detour, mtu));
    }
    queues::of_gateway(device, &detour, &limits, &mut plan.queues);
}

fn settings(forwards: bool, plan: &mut Plan) {
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let forwards = if forwards { "1" } else { "0" };
    plan.settings = vec![
        set("ipv4/ip_forward", forwards),
        set("ipv6/conf/all/forwarding", forwards),
        set("ipv6/conf/default/accept_ra", "0"),
        // A leg has the same addresses on each node that carries the router: none of them gives them up.
        set("ipv6/conf/default/accept_dad", "0"),
        set("ipv4/conf/all/rp_filter", "0"),
        set("ipv4/conf/default/rp_filter", "0"),
        set("ipv4/conf/all/send_redirects", "0"),
        set("ipv4/conf/default/send_redirects", "0"),
        // A leg speaks only for its own addresses: floating ones are not to be seen from inside.
        set("ipv4/conf/all/arp_ignore", "1"),
        set("ipv4/conf/all/arp_announce", "2"),
    ];
}

/// The text for `nft -f`.
fn rules(forwards: bool, gateway: Option<&str>, translations: &Translations) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    let policy = if forwards { "accept" } else { "drop" };
    let _ = writeln!(out, "chain forward {{\ntype filter hook forward priority 0; policy {policy};");
    if let Some(gateway) = gateway {
        // IPv6 is not translated, and nobody outside knows a way back.
        let _ = writeln!(out, "oifname \"{gateway}\" meta nfproto ipv6 reject with icmpv6 type admin-prohibited");
        // From outside, only what a floating address stands for and answers come in.
        let _ = writeln!(out, "iifname \"{gateway}\" ct state established,related accept");
        let _ = writeln!(out, "iifname \"{gateway}\" oifname != \"{gateway}\" ct status dnat accept");
        let _ = writeln!(out, "iifname \"{gateway}\" drop");
    }
    out.push_str("}\n");
    if let Some(gateway) = gateway {
        translation_chains(gateway, translations, &mut out);
    }
    out.push_str("}\n");
    out
}

fn translation_chains(gateway: &str, translations: &Translations, out: &mut String) {
    let map = |pairs: &BTreeMap<Ipv4Addr, Ipv4Addr>| {
        let pairs: Vec<String> = pairs.iter().map(|(from, to)| format!("{from} : {to}")).collect();
        pairs.join(", ")
    };
    // Which side a packet came from cannot be asked after routing: the mark carries it there.
    let _ = writeln!(out, "chain arrival {{\ntype filter hook prerouting priority -150; policy accept;");
    let _ = writeln!(out, "iifname \"{gateway}\" meta mark set 1\n}}");
    let _ = writeln!(out, "chain prerouting {{\ntype nat hook prerouting priority -100; policy accept;");
    for (protocol, word) in [(6, "tcp"), (17, "udp"), (33, "dccp"), (132, "sctp")] {
        let ports = translations.forwardings.iter().filter(|one| one.protocol == protocol);
        let entries: Vec<String> = ports
            .map(|one| {
                let Forwarding { external, external_port, internal, internal_port, .. } = one;
                format!("{external} . {external_port} : {internal} . {internal_port}")
            })
            .collect();
        if !entries.is_empty() {
            let _ = writeln!(out, "dnat ip to ip daddr . {word} dport map {{ {} }}", entries.join(", "));
        }
    }
    if !translations.floating.is_empty() {
        let _ = writeln!(out, "dnat ip to ip daddr map {{ {} }}", map(&translations.floating));
    }
    let _ = writeln!(out, "}}\nchain postrouting {{\ntype nat hook postrouting priority 100; policy accept;");
    // Between guests of this router by floating addresses: the answer must come back this way.
    let hairpin = "meta mark != 1 ct status dnat";
    if !translations.floating.is_empty() {
        let outward = map(&translations.outward());
        let _ = writeln!(out, "oifname \"{gateway}\" snat ip to ip saddr map {{ {outward} }}");
        let _ = writeln!(out, "{hairpin} snat ip to ip saddr map {{ {outward} }}");
    }
    if let Some(shared) = translations.shared {
        let _ = writeln!(out, "oifname \"{gateway}\" meta nfproto ipv4 snat ip to {shared}");
    }
    if let Some(own) = translations.hairpin {
        let _ = writeln!(out, "{hairpin} meta nfproto ipv4 snat ip to {own}");
    }
    out.push_str("}\n");
}
