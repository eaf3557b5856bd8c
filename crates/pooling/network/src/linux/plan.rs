//! What a namespace shall hold, what it holds, and the commands that lead from one to the other.
//!
//! Pure: plans are made from the specification, states are read from the kernel, and [`steps`] compares them. Every
//! word of a command is made from a number, an address or a name that `names` made, never from text of a tenant.

use arcus_types::text::MacAddr;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The mark of our own routes in the kernel's routing tables (`rtm_protocol`).
pub const ROUTE_PROTOCOL: u8 = 97;

/// The UDP port of tunnels between nodes. Source: RFC 7348, section 5.
pub const TUNNEL_PORT: u16 = 4789;

/// The Ethernet address that stands for all unlisted ones in a tunnel's table.
pub const MAC_ANY: MacAddr = MacAddr([0; 6]);

/// What a namespace shall hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Devices by name.
    pub links: BTreeMap<String, Link>,
    /// Routes besides those that addresses bring.
    pub routes: BTreeSet<Route>,
    /// Fixed neighbours: whose IP address has which Ethernet address.
    pub neighbours: BTreeSet<Neighbour>,
    /// Fixed entries of the forwarding tables.
    pub forwards: BTreeSet<Forward>,
    /// Kernel settings below `/proc/sys/net`, written before devices are made.
    pub settings: Vec<(String, String)>,
    /// Kernel settings of devices, written once those are there.
    pub device_settings: Vec<(String, String)>,
    /// Queues that limit bandwidth, by device.
    pub queues: Queues,
    /// Our nftables tables: family and name. They are replaced in one transaction.
    pub tables: Vec<(&'static str, String)>,
    /// What the tables hold, as `nft -f` reads it.
    pub rules: String,
}

/// Queues by device: lines for `tc` that make them where there are none.
pub type Queues = BTreeMap<String, Vec<String>>;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` leaves the kernel's choice.
    pub mac: Option<MacAddr>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether it carries traffic.
    pub up: bool,
    /// The bridge that it is on.
    pub master: Option<String>,
    /// Whether its bridge learns from it and floods to it; tunnels do not, their tables are told.
    pub learning: bool,
    /// The number of a guest's port in filters, kept by the kernel as the device's group; else 0.
    pub group: u32,
    /// Its addresses.
    pub addresses: BTreeSet<IpNet>,
}

impl Link {
    /// A device that is up, without a fixed Ethernet address, bridge or addresses.
    pub fn new(kind: LinkKind, mtu: u32) -> Self {
        Self { kind, mac: None, mtu, up: true, master: None, learning: true, group: 0, addresses: BTreeSet::new() }
    }
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A guest's tap.
    Tap,
    /// One end of a cable; the other end is made with it.
    Cable {
        /// The other end's name.
        peer: String,
        /// The namespace of the other end.
        place: String,
    },
    /// The other end of a cable: whoever plans the first end makes it.
    CableEnd,
    /// A tunnel to other nodes.
    Tunnel(Tunnel),
    /// A device through which packets are sent that arrive at another one, to be queued: what arrives cannot wait.
    Detour,
}

impl LinkKind {
    /// The kernel's word for it.
    fn word(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Tap => "tun",
            Self::Cable { .. } | Self::CableEnd => "veth",
            Self::Tunnel(_) => "vxlan",
            Self::Detour => "ifb",
        }
    }
}

/// What is fixed when a tunnel is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// The segment's number on the wire.
    pub segment: u32,
    /// This node's underlay address.
    pub local: IpAddr,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop; `None` is on the device's own link.
    pub via: Option<IpAddr>,
    /// The device.
    pub device: String,
    /// The source address of our own packets that take it.
    pub source: Option<IpAddr>,
}

/// A fixed neighbour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The device that it is behind.
    pub device: String,
}

/// An entry of a forwarding table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The Ethernet address; [`MAC_ANY`] stands for all that are not listed, and broadcasts.
    pub mac: MacAddr,
    /// The device.
    pub device: String,
    /// On a tunnel: the other node's underlay address. `None` is an entry of the bridge that the device is on.
    pub underlay: Option<IpAddr>,
}

/// What a namespace holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Devices by name.
    pub links: BTreeMap<String, LinkState>,
    /// Our routes.
    pub routes: BTreeSet<Route>,
    /// Fixed neighbours.
    pub neighbours: BTreeSet<Neighbour>,
    /// Fixed forwarding entries.
    pub forwards: BTreeSet<Forward>,
    /// Addresses on devices that are not ours.
    pub foreign: BTreeSet<(String, IpNet)>,
}

/// A device as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The kernel's word for its kind; empty for an end of a cable that has just been made elsewhere.
    pub kind: String,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether it carries traffic.
    pub up: bool,
    /// The bridge that it is on.
    pub master: Option<String>,
    /// Whether its bridge learns from it.
    pub learning: bool,
    /// Its group.
    pub group: u32,
    /// Its addresses, without those that the kernel makes itself.
    pub addresses: BTreeSet<IpNet>,
    /// Of a tunnel.
    pub tunnel: Option<Tunnel>,
}

/// Commands, one a line, by the program that takes them and where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// For `ip` in the namespace, first: what goes away. A failure is harmless, things may be gone already.
    pub removals: Vec<String>,
    /// For `ip` in the agent's own namespace: tunnels, which keep their outer side where they are made.
    pub from_node: Vec<String>,
    /// For `ip` in the namespace.
    pub changes: Vec<String>,
    /// For `bridge` in the namespace.
    pub forwards: Vec<String>,
    /// For `ip` in the namespace, last: what is of IPv6, which settings of devices allow first.
    pub late: Vec<String>,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Self { removals, from_node, changes, forwards, late } = self;
        [removals, from_node, changes, forwards, late].iter().all(|steps| steps.is_empty())
    }
}

/// The commands that lead from `state` to `plan` in the namespace `place`.
pub fn steps(place: &str, plan: &Plan, state: &State) -> Steps {
    let mut out = Steps::default();
    links_remove(plan, state, &mut out);
    links_make(place, plan, state, &mut out);
    for (name, link) in &plan.links {
        let was = state.links.get(name).filter(|s| !must_be_made_again(link, s));
        link_change(name, link, was.unwrap_or(&LinkState { learning: true, ..LinkState::default() }), &mut out);
    }
    for route in state.routes.difference(&plan.routes) {
        // A route with the same destination is replaced, not removed: there must be no gap.
        if !plan.routes.iter().any(|r| r.destination == route.destination) {
            out.removals.push(format!("route del {} dev {} proto {ROUTE_PROTOCOL}", route.destination, route.device));
        }
    }
    for Route { destination, via, device, source } in plan.routes.difference(&state.routes) {
        let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
        let onlink = if via.is_empty() { "" } else { " onlink" };
        let source = source.map(|source| format!(" src {source}")).unwrap_or_default();
        let line = format!("route replace {destination}{via} dev {device}{source} proto {ROUTE_PROTOCOL}{onlink}");
        if destination.addr().is_ipv6() { out.late.push(line) } else { out.changes.push(line) }
    }
    for gone in state.neighbours.difference(&plan.neighbours) {
        if !plan.neighbours.iter().any(|n| n.address == gone.address && n.device == gone.device) {
            out.removals.push(format!("neigh del {} dev {}", gone.address, gone.device));
        }
    }
    for new in plan.neighbours.difference(&state.neighbours) {
        let line = format!("neigh replace {} lladdr {} dev {} nud permanent", new.address, new.mac, new.device);
        if new.address.is_ipv6() { out.late.push(line) } else { out.changes.push(line) }
    }
    for gone in state.forwards.difference(&plan.forwards) {
        if plan.links.contains_key(&gone.device) {
            out.forwards.push(forward_line("del", gone));
        }
    }
    for new in plan.forwards.difference(&state.forwards) {
        // A guest is in one place; what goes to all goes to many.
        let verb = if new.mac == MAC_ANY { "append" } else { "replace" };
        out.forwards.push(forward_line(verb, new));
    }
    out
}

fn forward_line(verb: &str, entry: &Forward) -> String {
    let Forward { mac, device, underlay } = entry;
    match underlay {
        Some(underlay) => format!("fdb {verb} {mac} dev {device} dst {underlay} self permanent"),
        None => format!("fdb {verb} {mac} dev {device} master static"),
    }
}

fn must_be_made_again(link: &Link, state: &LinkState) -> bool {
    let other_kind = !state.kind.is_empty() && state.kind != link.kind.word();
    let other_tunnel = matches!(&link.kind, LinkKind::Tunnel(tunnel) if state.tunnel != Some(*tunnel));
    other_kind || other_tunnel
}

fn links_remove(plan: &Plan, state: &State, out: &mut Steps) {
    for (name, was) in &state.links {
        let keep = plan.links.get(name).is_some_and(|link| !must_be_made_again(link, was));
        if !keep {
            out.removals.push(format!("link del dev {name}"));
        }
    }
}

fn links_make(place: &str, plan: &Plan, state: &State, out: &mut Steps) {
    let missing =
        |(name, link): &(&String, &Link)| state.links.get(*name).is_none_or(|was| must_be_made_again(link, was));
    // Bridges first: the others are put on them.
    let (bridges, others): (Vec<_>, Vec<_>) =
        plan.links.iter().filter(missing).partition(|(_, link)| link.kind == LinkKind::Bridge);
    for (name, Link { kind, mtu, mac, .. }) in bridges.into_iter().chain(others) {
        let mac = mac.map(|mac| format!(" address {mac}")).unwrap_or_default();
        match kind {
            LinkKind::Bridge => out
                .changes
                .push(format!("link add name {name} mtu {mtu}{mac} type bridge stp_state 0 mcast_snooping 0")),
            LinkKind::Tap => out.changes.push(format!("tuntap add dev {name} mode tap vnet_hdr")),
            LinkKind::Cable { peer, place } => out.changes.push(format!(
                "link add name {name} mtu {mtu}{mac} type veth peer name {peer} mtu {mtu} netns {place}"
            )),
            LinkKind::CableEnd => {}
            LinkKind::Detour => out.changes.push(format!("link add name {name} mtu {mtu} type ifb")),
            LinkKind::Tunnel(Tunnel { segment, local }) => out.from_node.push(format!(
                "link add name {name} mtu {mtu} netns {place} type vxlan id {segment} local {local} \
                 dstport {TUNNEL_PORT} nolearning"
            )),
        }
    }
}

fn link_change(name: &str, link: &Link, was: &LinkState, out: &mut Steps) {
    let mut words = String::new();
    if was.mtu != link.mtu {
        words.push_str(&format!(" mtu {}", link.mtu));
    }
    if let Some(mac) = link.mac
        && was.mac != Some(mac)
    {
        words.push_str(&format!(" address {mac}"));
    }
    if was.group != link.group {
        words.push_str(&format!(" group {}", link.group));
    }
    match &link.master {
        Some(master) if was.master.as_ref() != Some(master) => words.push_str(&format!(" master {master}")),
        None if was.master.is_some() => words.push_str(" nomaster"),
        Some(_) | None => {}
    }
    if !words.is_empty() {
        out.changes.push(format!("link set dev {name}{words}"));
    }
    if was.learning != link.learning && link.master.is_some() {
        // What was learned before is forgotten.
        let learning = if link.learning { "on" } else { "off fdb_flush" };
        out.changes.push(format!("link set dev {name} type bridge_slave learning {learning}"));
    }
    for address in was.addresses.difference(&link.addresses) {
        out.removals.push(format!("addr del {address} dev {name}"));
    }
    for address in link.addresses.difference(&was.addresses) {
        // Ours to know that nobody else has it: no probing, or it could not be used for a second.
        if address.addr().is_ipv6() {
            out.late.push(format!("addr replace {address} dev {name} nodad"));
        } else {
            out.changes.push(format!("addr replace {address} dev {name}"));
        }
    }
    if was.up != link.up {
        out.changes.push(format!("link set dev {name} {}", if link.up { "up" } else { "down" }));
    }
}

/// The state that `plan` leads to, given the one before.
pub fn reached(plan: &Plan, before: &State) -> State {
    let links = plan.links.iter().map(|(name, link)| {
        let mac = link.mac.or_else(|| before.links.get(name).and_then(|was| was.mac));
        let tunnel = match &link.kind {
            LinkKind::Tunnel(tunnel) => Some(*tunnel),
            LinkKind::Bridge | LinkKind::Tap | LinkKind::Cable { .. } | LinkKind::CableEnd | LinkKind::Detour => None,
        };
        let state = LinkState {
            kind: link.kind.word().to_owned(),
            mac,
            mtu: link.mtu,
            up: link.up,
            master: link.master.clone(),
            learning: link.learning,
            group: link.group,
            addresses: link.addresses.clone(),
            tunnel,
        };
        (name.clone(), state)
    });
    State {
        links: links.collect(),
        routes: plan.routes.clone(),
        neighbours: plan.neighbours.clone(),
        forwards: plan.forwards.clone(),
        foreign: before.foreign.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let mut plan = Plan::default();
        let mut bridge = Link::new(LinkKind::Bridge, 1450);
        bridge.addresses.insert("169.254.169.254/32".parse().unwrap());
        plan.links.insert("br".into(), bridge);
        let mut tap = Link::new(LinkKind::Tap, 1450);
        tap.master = Some("br".into());
        tap.group = 7;
        plan.links.insert("a1".into(), tap);
        plan.routes.insert(Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            via: None,
            device: "br".into(),
            source: None,
        });
        plan
    }

    #[test]
    fn nothing_is_done_when_the_plan_is_reached() {
        let plan = plan();
        assert!(steps("x", &plan, &reached(&plan, &State::default())).is_empty());
    }

    #[test]
    fn bridges_are_made_before_what_is_put_on_them() {
        let made = steps("x", &plan(), &State::default()).changes;
        let at = |part: &str| made.iter().position(|line| line.contains(part)).unwrap();
        assert!(at("type bridge") < at("tuntap add dev a1"));
        assert!(at("tuntap add dev a1") < at("master br"));
        assert!(made.contains(&"link set dev a1 mtu 1450 group 7 master br".to_owned()), "{made:?}");
    }

    #[test]
    fn what_is_of_ipv6_comes_last() {
        let mut plan = plan();
        if let Some(bridge) = plan.links.get_mut("br") {
            bridge.addresses.insert("fe80::1/64".parse().unwrap());
        }
        assert_eq!(steps("x", &plan, &State::default()).late, ["addr replace fe80::1/64 dev br nodad"]);
    }

    #[test]
    fn what_is_not_planned_goes_and_drift_is_repaired() {
        let plan = plan();
        let mut state = reached(&plan, &State::default());
        state.links.insert("a2".into(), LinkState { kind: "tun".into(), ..LinkState::default() });
        if let Some(tap) = state.links.get_mut("a1") {
            tap.up = false;
            tap.master = None;
        }
        let steps = steps("x", &plan, &state);
        assert_eq!(steps.removals, ["link del dev a2"]);
        assert_eq!(steps.changes, ["link set dev a1 master br", "link set dev a1 up"]);
    }

    #[test]
    fn a_tunnel_with_another_number_is_made_again() {
        let mut plan = Plan::default();
        let tunnel = |segment| Tunnel { segment, local: "10.9.0.1".parse().unwrap() };
        plan.links.insert("vx".into(), Link::new(LinkKind::Tunnel(tunnel(5)), 1450));
        let before = reached(&plan, &State::default());
        plan.links.insert("vx".into(), Link::new(LinkKind::Tunnel(tunnel(6)), 1450));
        let steps = steps("place", &plan, &before);
        assert_eq!(steps.removals, ["link del dev vx"]);
        assert!(steps.from_node[0].contains("netns place type vxlan id 6"), "{steps:?}");
    }
}
