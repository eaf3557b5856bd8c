//! A segment's namespace: bridge, taps, tunnel, and what DHCP and metadata must know of its guests.

use super::advertise::{self, Advertisement};
use super::dns::Names;
use super::filter::{MovingGuest, PortFilter, SERVICE_ADDRESS, SERVICE_ADDRESS6, SERVICE_MAC, SegmentFilter};
use super::names::{self, BRIDGE, TUNNEL};
use super::plan::{Forward, Link, LinkKind, MAC_ANY, Neighbour, Plan, Route, State, Tunnel};
use super::queues;
use arcus_types::agent::{
    DhcpOptionSpec, FlowSpec, Ipv6Mode, NetworkSpec, PortMove, PortSpec, RouterInterfaceSpec, SecurityGroupSpec,
};
use arcus_types::ids::{PortId, SecurityGroupId};
use arcus_types::text::MacAddr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The smallest and the largest packet size that a segment takes, in bytes: below, IPv4 ends; above, taps do.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65_521;

/// A segment as it shall be on this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Segment {
    /// The namespace.
    pub plan: Plan,
    /// The filter, from which the plan's rules were written.
    pub filter: SegmentFilter,
    /// The guests by their port's number.
    pub guests: Guests,
    /// What routers tell guests.
    pub told: Vec<Advertisement>,
    /// The names of its ports.
    pub names: Names,
    /// Connections that guests bring along, by their port.
    pub luggage: Vec<(PortId, Vec<FlowSpec>)>,
    /// What of the specification cannot be done.
    pub faults: Vec<String>,
}

/// The guests of a segment on this node, by the number of their port.
pub type Guests = BTreeMap<u16, Guest>;

/// A guest as DHCP and metadata know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its port.
    pub port: PortId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// What DHCP tells it; `None` is silence.
    pub lease: Option<Lease>,
    /// What DHCPv6 tells it; `None` is silence.
    pub lease6: Option<Lease6>,
}

/// What DHCP tells a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// The range that the address is from.
    pub range: Ipv4Net,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Further routes: destination and next hop.
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// The largest packet in bytes.
    pub mtu: u16,
    /// Its name.
    pub hostname: String,
    /// The domain of its name; empty is none.
    pub domain: String,
    /// Further options by number; they take the place of ours.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// What DHCPv6 tells a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease6 {
    /// Its addresses from ranges that have them by DHCPv6.
    pub addresses: Vec<Ipv6Addr>,
    /// Name servers.
    pub dns_servers: Vec<Ipv6Addr>,
    /// The domain of its name; empty is none.
    pub domain: String,
    /// Further options by number; they take the place of ours.
    pub options: Vec<(u16, Vec<u8>)>,
}

/// The numbers of a segment's ports. A number stays with its port for the port's life, also over a restart of the
/// agent: the kernel keeps it as the tap's group, and connections carry it in their mark.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    of: BTreeMap<PortId, u16>,
    last: u16,
}

impl Numbers {
    /// Gives each of `ports` a number and forgets the others'. Returns the ports for which none was left.
    pub fn assign(&mut self, ports: &[PortId], kernel: &State) -> Vec<PortId> {
        self.of.retain(|port, _| ports.contains(port));
        let mut used: BTreeSet<u16> = self.of.values().copied().collect();
        let groups: BTreeSet<u16> =
            kernel.links.values().filter_map(|l| u16::try_from(l.group).ok()).filter(|n| *n > 0).collect();
        let fresh: Vec<PortId> = ports.iter().copied().filter(|port| !self.of.contains_key(port)).collect();
        let mut without = Vec::new();
        // Those that the kernel knows come first, or a new port might take their number.
        let (known, new): (Vec<PortId>, Vec<PortId>) =
            fresh.into_iter().partition(|port| kernel.links.contains_key(&names::tap(*port)));
        for port in known.into_iter().chain(new) {
            let kept = kernel.links.get(&names::tap(port)).and_then(|link| u16::try_from(link.group).ok());
            let number = kept
                .filter(|number| *number > 0 && !used.contains(number))
                .or_else(|| self.next(|number| used.contains(&number) || groups.contains(&number)));
            match number {
                Some(number) => {
                    used.insert(number);
                    self.of.insert(port, number);
                }
                None => without.push(port),
            }
        }
        without
    }

    /// The number of a port.
    pub fn get(&self, port: PortId) -> Option<u16> {
        self.of.get(&port).copied()
    }

    /// The next free number after the last one: a number that has just become free rests.
    fn next(&mut self, taken: impl Fn(u16) -> bool) -> Option<u16> {
        let found = (1..=u16::MAX).map(|step| self.last.wrapping_add(step)).find(|n| *n > 0 && !taken(*n))?;
        self.last = found;
        Some(found)
    }
}

/// A router's leg on a segment, and whether the router forwards.
pub type Leg<'a> = (&'a RouterInterfaceSpec, bool);

/// The ports of a network that get a tap: all but routers' legs, which are cables.
pub fn guest_ports<'a>(spec: &'a NetworkSpec, legs: &[Leg<'_>]) -> Vec<&'a PortSpec> {
    let is_leg = |port: &PortSpec| legs.iter().any(|(leg, _)| leg.port_id == port.id);
    let mut ports: Vec<&PortSpec> = spec.ports.iter().filter(|port| !is_leg(port)).collect();
    ports.sort_by_key(|port| port.id);
    ports.dedup_by_key(|port| port.id);
    ports
}

/// Plans a segment. `legs` are the routers' legs on it, `underlay` is this node's address for tunnels.
pub fn plan(
    spec: &NetworkSpec,
    legs: &[Leg<'_>],
    groups: &BTreeMap<SecurityGroupId, &SecurityGroupSpec>,
    numbers: &Numbers,
    underlay: Option<IpAddr>,
) -> Segment {
    let mut out = Segment::default();
    let mtu = spec.mtu.clamp(*MTU_RANGE.start(), *MTU_RANGE.end());
    settings(&mut out.plan);
    bridge(mtu, &mut out.plan);
    let mut neighbours = BTreeMap::new();
    for port in guest_ports(spec, legs) {
        let Some(number) = numbers.get(port.id) else { continue };
        let mut tap = on_bridge(LinkKind::Tap, mtu);
        tap.up = port.admin_up;
        tap.group = u32::from(number);
        if let Some(how) = port.moving {
            // Nothing may know where the guest is: what is for it goes to both nodes.
            tap.learning = false;
            let expected = match how {
                PortMove::Leaving | PortMove::Arriving => false,
                PortMove::Expected => true,
            };
            out.filter.moving.push(MovingGuest { mac: port.mac, device: names::tap(port.id), expected });
            if !port.flows.is_empty() {
                out.luggage.push((port.id, port.flows.clone()));
            }
        }
        out.plan.links.insert(names::tap(port.id), tap);
        for fixed in port.addresses.iter().filter(|fixed| fixed.address.is_ipv4()) {
            neighbours.entry(fixed.address).or_insert(port.mac);
        }
        out.filter.ports.push(port_filter(port, number));
        if port.qos.egress.is_some() {
            out.plan.links.insert(names::tap_detour(port.id), Link::new(LinkKind::Detour, mtu));
        }
        queues::of_tap(&names::tap(port.id), &names::tap_detour(port.id), &port.qos, &mut out.plan.queues);
        let (lease, lease6) = (lease(spec, port, mtu), lease6(spec, port));
        out.guests.insert(number, Guest { port: port.id, mac: port.mac, lease, lease6 });
    }
    for (leg, _) in legs {
        let name = names::leg_outer(leg.port_id);
        out.plan.links.insert(name.clone(), on_bridge(LinkKind::CableEnd, mtu));
        out.filter.legs.push(name);
    }
    out.told = advertise::plan(&spec.subnets, legs, mtu);
    out.names = Names::of(spec);
    out.plan.neighbours =
        neighbours.into_iter().map(|(address, mac)| Neighbour { address, mac, device: BRIDGE.to_owned() }).collect();
    match (spec.peers.is_empty(), underlay) {
        (true, _) => {}
        (false, Some(local)) => tunnel(spec, mtu, local, &mut out),
        (false, None) => out.faults.push(format!(
            "network {} spans nodes, but this node has no underlay address: its guests reach only each other",
            spec.id
        )),
    }
    out.filter.legs.sort();
    out.filter.groups = groups_used(&out.filter.ports, groups);
    out.plan.tables = SegmentFilter::tables();
    out.plan.rules = out.filter.text();
    out
}

fn settings(plan: &mut Plan) {
    let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    plan.settings = vec![
        // Bridged packets go through the inet tables, which know connections.
        set("bridge/bridge-nf-call-iptables", "1"),
        set("bridge/bridge-nf-call-ip6tables", "1"),
        set("bridge/bridge-nf-call-arptables", "0"),
        // Only the bridge has IPv6, and only our services: taps must neither listen to advertisements nor speak.
        set("ipv6/conf/all/disable_ipv6", "1"),
        set("ipv6/conf/default/disable_ipv6", "1"),
        set("ipv6/conf/default/accept_ra", "0"),
        set("ipv6/conf/default/accept_redirects", "0"),
        set("ipv4/ip_forward", "0"),
        set("ipv4/conf/all/rp_filter", "0"),
        set("ipv4/conf/default/rp_filter", "0"),
        // A metadata connection tells which port it came by.
        set("ipv4/tcp_fwmark_accept", "1"),
    ];
}

fn bridge(mtu: u32, plan: &mut Plan) {
    let mut bridge = Link::new(LinkKind::Bridge, mtu);
    bridge.mac = Some(SERVICE_MAC);
    bridge.addresses.insert(IpNet::from(IpAddr::V4(SERVICE_ADDRESS)));
    if mtu >= advertise::MTU_MIN {
        bridge.addresses.insert(IpNet::V6(Ipv6Net::new_assert(SERVICE_ADDRESS6, 64)));
        // No address of the kernel's own making; the last one switches IPv6 on.
        let ours = [("accept_ra", "0"), ("accept_redirects", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1")];
        for (key, value) in ours.into_iter().chain([("disable_ipv6", "0")]) {
            plan.device_settings.push((format!("ipv6/conf/{BRIDGE}/{key}"), value.to_owned()));
        }
    }
    plan.links.insert(BRIDGE.to_owned(), bridge);
    // Guests are on the link whatever their addresses are.
    plan.routes.insert(Route {
        destination: IpNet::V4(Ipv4Net::default()),
        via: None,
        device: BRIDGE.to_owned(),
        source: Some(IpAddr::V4(SERVICE_ADDRESS)),
    });
}

fn on_bridge(kind: LinkKind, mtu: u32) -> Link {
    let mut link = Link::new(kind, mtu);
    link.master = Some(BRIDGE.to_owned());
    link
}

fn tunnel(spec: &NetworkSpec, mtu: u32, local: IpAddr, out: &mut Segment) {
    let mut link = on_bridge(LinkKind::Tunnel(Tunnel { segment: spec.segment, local }), mtu);
    link.learning = false;
    out.plan.links.insert(TUNNEL.to_owned(), link);
    out.filter.tunnel = Some(TUNNEL.to_owned());
    let local_macs: BTreeSet<MacAddr> = out.filter.ports.iter().map(|port| port.mac).collect();
    for peer in &spec.peers {
        let entry = |mac, underlay| Forward { mac, device: TUNNEL.to_owned(), underlay };
        out.plan.forwards.insert(entry(MAC_ANY, Some(peer.underlay)));
        for mac in peer.macs.iter().filter(|mac| !local_macs.contains(mac)) {
            out.plan.forwards.insert(entry(*mac, Some(peer.underlay)));
            out.plan.forwards.insert(entry(*mac, None));
        }
        for mac in peer.moving.iter().filter(|mac| !local_macs.contains(mac)) {
            // Through the tunnel, which has no place for it and so sends it to every node.
            out.plan.forwards.insert(entry(*mac, None));
        }
    }
}

fn port_filter(port: &PortSpec, number: u16) -> PortFilter {
    let mut groups = port.security_groups.clone();
    groups.sort();
    groups.dedup();
    PortFilter {
        number,
        device: names::tap(port.id),
        mac: port.mac,
        secured: port.port_security,
        addresses: port.addresses.iter().map(|fixed| fixed.address).collect(),
        pairs: port.allowed_pairs.iter().map(|(range, mac)| (*range, mac.unwrap_or(port.mac))).collect(),
        groups,
        dscp: port.qos.dscp_mark.filter(|mark| *mark < 64),
    }
}

/// The groups that ports name, and those that their rules name.
fn groups_used(
    ports: &[PortFilter],
    groups: &BTreeMap<SecurityGroupId, &SecurityGroupSpec>,
) -> BTreeMap<SecurityGroupId, SecurityGroupSpec> {
    let named: BTreeSet<SecurityGroupId> =
        ports.iter().filter(|p| p.secured).flat_map(|port| port.groups.iter().copied()).collect();
    let remote =
        named.iter().filter_map(|id| groups.get(id)).flat_map(|g| g.rules.iter().filter_map(|r| r.remote_group));
    let all: BTreeSet<SecurityGroupId> = named.iter().copied().chain(remote).collect();
    all.into_iter().filter_map(|id| groups.get(&id).map(|group| (id, (*group).clone()))).collect()
}

/// What DHCP tells the port: from its first IPv4 address on a subnet that has DHCP.
fn lease(spec: &NetworkSpec, port: &PortSpec, mtu: u32) -> Option<Lease> {
    port.addresses.iter().find_map(|fixed| {
        let subnet = spec.subnets.iter().find(|subnet| subnet.id == fixed.subnet_id && subnet.dhcp)?;
        let (IpAddr::V4(address), IpNet::V4(range)) = (fixed.address, subnet.cidr) else { return None };
        Some(Lease {
            address,
            range,
            gateway: subnet.gateway.and_then(v4),
            dns_servers: name_servers(&subnet.dns_servers),
            routes: subnet
                .host_routes
                .iter()
                .filter_map(|(destination, hop)| match (destination, hop) {
                    (IpNet::V4(destination), IpAddr::V4(hop)) => Some((destination.trunc(), *hop)),
                    (IpNet::V4(_) | IpNet::V6(_), _) => None,
                })
                .collect(),
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            hostname: port.hostname.clone(),
            domain: port.dns_domain.clone(),
            options: options(port, false),
        })
    })
}

/// What DHCPv6 tells the port: if one of its addresses is on a subnet that has it.
fn lease6(spec: &NetworkSpec, port: &PortSpec) -> Option<Lease6> {
    let mut lease = None;
    for fixed in &port.addresses {
        let subnet = spec.subnets.iter().find(|subnet| subnet.id == fixed.subnet_id && subnet.dhcp);
        let Some((subnet, IpAddr::V6(address))) = subnet.map(|subnet| (subnet, fixed.address)) else { continue };
        let stateful = match subnet.ipv6_address_mode {
            Some(Ipv6Mode::DhcpStateful) => true,
            Some(Ipv6Mode::DhcpStateless) => false,
            Some(Ipv6Mode::Slaac) | None => continue,
        };
        let lease = lease.get_or_insert_with(|| Lease6 {
            addresses: Vec::new(),
            dns_servers: Vec::new(),
            domain: port.dns_domain.clone(),
            options: options(port, true),
        });
        // As many as one answer has room for.
        if stateful && lease.addresses.len() < 8 {
            lease.addresses.push(address);
        }
        for server in subnet.dns_servers.iter().copied().filter_map(v6) {
            if !lease.dns_servers.contains(&server) {
                lease.dns_servers.push(server);
            }
        }
    }
    lease
}

/// The options that the port's owner added; the API has checked them, and what the exchange hangs on is left out again.
fn options(port: &PortSpec, ipv6: bool) -> Vec<(u16, Vec<u8>)> {
    let own = port.dhcp_options.iter().filter(|option| option.ipv6 == ipv6);
    own.filter(|option| {
        let fits = (1..=DhcpOptionSpec::VALUE_BYTES_MAX).contains(&option.value.len());
        fits && DhcpOptionSpec::is_free(ipv6, option.code)
    })
    .map(|option| (option.code, option.value.clone()))
    .collect()
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

/// The subnet's name servers; where none are named, ours, which knows the ports of the network.
fn name_servers(named: &[IpAddr]) -> Vec<Ipv4Addr> {
    if named.is_empty() { vec![SERVICE_ADDRESS] } else { named.iter().copied().filter_map(v4).collect() }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::LinkState;
    use super::*;

    #[test]
    fn numbers_stay_with_their_port_over_a_restart() {
        let ports = [PortId::new(), PortId::new(), PortId::new()];
        let mut numbers = Numbers::default();
        assert!(numbers.assign(&ports[..2], &State::default()).is_empty());
        let kept = numbers.get(ports[1]);
        let mut kernel = State::default();
        for port in &ports[..2] {
            let group = u32::from(numbers.get(*port).unwrap());
            kernel.links.insert(names::tap(*port), LinkState { group, ..LinkState::default() });
        }
        let mut restarted = Numbers::default();
        restarted.assign(&[ports[2], ports[1]], &kernel);
        assert_eq!(restarted.get(ports[1]), kept);
        // The number of the port that went is still in the kernel, on connections too: it is not given away yet.
        assert_eq!(restarted.get(ports[2]), Some(3));
    }

    #[test]
    fn a_number_that_became_free_rests() {
        let ports = [PortId::new(), PortId::new()];
        let mut numbers = Numbers::default();
        numbers.assign(&ports[..1], &State::default());
        numbers.assign(&ports[1..], &State::default());
        assert_eq!(numbers.get(ports[1]), Some(2));
        assert_eq!(numbers.get(ports[0]), None);
    }
}
