//! The packet filter of a segment, as nftables text: anti-spoofing, security groups, and the way to our own services.
//!
//! ```text
//! bridge prerouting   who sent it: number of the port -> upper half of the packet's mark; forged sources are dropped;
//!                     packets to the metadata address are turned to this node
//! bridge input        only DHCP, router solicitations, DNS and metadata, only from guests of this node, at a bounded rate
//! bridge forward      whom it reaches: number of the port -> lower half of the mark; routers' legs speak on this node
//!                     only, each node has its own with the same addresses
//! bridge output       our services speak to this node's guests only
//! inet forward        (called by the bridge, after connection tracking) leaves: may the sender send this?
//!                     enters: may the receiver get this? Both must say yes.
//! ```
//! The kernel may lack connection tracking in the bridge family, hence the split in two families; both tables are
//! replaced in one transaction. A connection records the two numbers in its mark, so that its packets stop when a rule
//! goes (see `flows`).

use super::{names, packet};
use arcus_types::agent::{AddressGroupSpec, Direction, EtherType, FilterRule, SecurityGroupSpec};
use arcus_types::ids::{AddressGroupId, SecurityGroupId};
use arcus_types::text::MacAddr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

/// The address of the metadata service and the DHCP server's identifier.
pub const SERVICE_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 169, 254);

/// The address of the metadata service and the DHCP server in IPv6. Source: the one that OpenStack's metadata service has.
pub const SERVICE_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// The Ethernet address of [`SERVICE_ADDRESS`]: the same on each segment and node, so a guest that moved finds it again.
pub const SERVICE_MAC: MacAddr = MacAddr([0x02, 0x00, 0xa9, 0xfe, 0xa9, 0xfe]);

/// A guest's port as its filter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFilter {
    /// The port's number in the segment: 1 to 65535.
    pub number: u16,
    /// The device.
    pub device: String,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// Whether there is a filter at all.
    pub secured: bool,
    /// The port's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Further sources: a range and the Ethernet address that goes with it.
    pub pairs: Vec<(IpNet, MacAddr)>,
    /// The rule sets that apply.
    pub groups: Vec<SecurityGroupId>,
    /// The mark that its packets get, 0 to 63.
    pub dscp: Option<u8>,
}

/// A guest that is on its way from or to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingGuest {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its device.
    pub device: String,
    /// Whether nothing is kept for it yet.
    pub expected: bool,
}

/// The whole filter of a segment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SegmentFilter {
    /// The guests' ports on this node.
    pub ports: Vec<PortFilter>,
    /// Those of them whose guests move. Frames for them are flooded by the bridge.
    pub moving: Vec<MovingGuest>,
    /// Devices that lead to routers.
    pub legs: Vec<String>,
    /// The device that leads to other nodes.
    pub tunnel: Option<String>,
    /// The rule sets that the ports name and the members of those that rules name.
    pub groups: BTreeMap<SecurityGroupId, SecurityGroupSpec>,
}

impl SegmentFilter {
    /// The tables that it consists of.
    pub fn tables() -> Vec<(&'static str, String)> {
        vec![("bridge", names::TABLE.to_owned()), ("inet", names::TABLE.to_owned())]
    }

    /// What the tables hold, for `nft -f`.
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(4096 + 1024 * self.ports.len());
        self.bridge_table(&mut out);
        self.inet_table(&mut out);
        out
    }

    /// Whether `other` allows all that this one does: nothing that flows now has to stop.
    pub fn is_within(&self, other: &Self) -> bool {
        let ports = self.ports.iter().all(|port| other.ports.contains(port));
        let groups = self.groups.iter().all(|(id, group)| {
            other.groups.get(id).is_some_and(|after| {
                let rules = group.rules.iter().all(|rule| after.rules.contains(rule));
                let members = group.members.iter().all(|member| after.members.contains(member));
                rules && members && group.address_groups.iter().all(|list| after.address_groups.contains(list))
            })
        });
        ports && groups
    }

    fn bridge_table(&self, out: &mut String) {
        let _ = writeln!(out, "table bridge {} {{", names::TABLE);
        for port in &self.ports {
            source_chains(port, out);
        }
        chain(out, "steer", |out| {
            let _ = writeln!(out, "ip daddr {SERVICE_ADDRESS} ether daddr set {SERVICE_MAC} meta pkttype set host");
            out.push_str("accept\n");
        });
        chain(out, "prerouting", |out| {
            out.push_str("type filter hook prerouting priority -300; policy drop;\nmeta mark set 0\n");
            if let Some(trunks) = devices(self.legs.iter().chain(&self.tunnel)) {
                let _ = writeln!(out, "iifname {trunks} accept");
            }
            let jumps = self.ports.iter().map(|p| format!("\"{}\" : goto from_{}", p.device, p.number));
            verdicts(out, "iifname", jumps);
        });
        for port in self.ports.iter().filter(|p| p.secured) {
            chain(out, &format!("to_{}", port.number), |out| {
                let _ = writeln!(out, "meta mark set meta mark or {}", port.number);
                // Frames with a tag would pass by the filter of addresses.
                out.push_str("ether type { arp, ip, ip6 } accept\ndrop\n");
            });
        }
        chain(out, "forward", |out| {
            out.push_str("type filter hook forward priority -200; policy accept;\n");
            // The address exists on every node; nobody shall hear of another node's.
            let _ = writeln!(out, "arp daddr ip {SERVICE_ADDRESS} drop\narp saddr ip {SERVICE_ADDRESS} drop");
            let service = u128::from(SERVICE_ADDRESS6);
            let _ = writeln!(
                out,
                "icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} @th,64,128 {service:#034x} drop"
            );
            for MovingGuest { mac, device, expected } in &self.moving {
                // A flooded frame is for two devices and no other.
                let _ = match &self.tunnel {
                    Some(tunnel) => writeln!(out, "ether daddr {mac} oifname != {{ \"{device}\", \"{tunnel}\" }} drop"),
                    None => writeln!(out, "ether daddr {mac} oifname != \"{device}\" drop"),
                };
                if *expected {
                    let _ = writeln!(out, "oifname \"{device}\" drop");
                }
            }
            if let (Some(legs), Some(tunnel)) = (devices(self.legs.iter()), &self.tunnel) {
                // The same legs are on each node: what one says to all would be heard as said by the other, and what
                // is for one would be taken by both.
                let _ = writeln!(out, "iifname \"{tunnel}\" oifname {legs} drop");
                let _ = writeln!(out, "iifname {legs} oifname \"{tunnel}\" ether type arp drop");
                let _ =
                    writeln!(out, "iifname {legs} oifname \"{tunnel}\" meta pkttype {{ broadcast, multicast }} drop");
                let _ = writeln!(
                    out,
                    "iifname {legs} oifname \"{tunnel}\" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} drop"
                );
            }
            let secured = self.ports.iter().filter(|p| p.secured);
            verdicts(out, "oifname", secured.map(|p| format!("\"{}\" : goto to_{}", p.device, p.number)));
        });
        for port in &self.ports {
            chain(out, &format!("serve_{}", port.number), |out| service_rules(port.mac, out));
        }
        chain(out, "input", |out| {
            out.push_str("type filter hook input priority -200; policy drop;\n");
            let jumps = self.ports.iter().map(|p| format!("\"{}\" : goto serve_{}", p.device, p.number));
            verdicts(out, "iifname", jumps);
        });
        chain(out, "output", |out| {
            out.push_str("type filter hook output priority -200; policy accept;\n");
            if let Some(trunks) = devices(self.legs.iter().chain(&self.tunnel)) {
                let _ = writeln!(out, "oifname {trunks} drop");
            }
            out.push_str("icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } drop\n");
        });
        out.push_str("}\n");
    }

    fn inet_table(&self, out: &mut String) {
        let _ = writeln!(out, "table inet {} {{", names::TABLE);
        let used: BTreeSet<SecurityGroupId> =
            self.ports.iter().filter(|p| p.secured).flat_map(|p| p.groups.iter().copied()).collect();
        let numbers: BTreeMap<SecurityGroupId, usize> =
            self.groups.keys().enumerate().map(|(number, id)| (*id, number)).collect();
        self.member_sets(&used, &numbers, out);
        let lists = self.address_sets(&used, out);
        let directions = [(Direction::Egress, "out"), (Direction::Ingress, "in")];
        for id in &used {
            let (Some(group), Some(number)) = (self.groups.get(id), numbers.get(id)) else { continue };
            for (direction, word) in directions {
                chain(out, &format!("group_{number}_{word}"), |out| {
                    for rule in group.rules.iter().filter(|rule| rule.direction == direction) {
                        if let Some(line) = rule_line(rule, &numbers, &lists) {
                            let _ = writeln!(out, "{line}");
                        }
                    }
                });
            }
        }
        for port in self.ports.iter().filter(|p| p.secured) {
            for (_, word) in directions {
                chain(out, &format!("port_{}_{word}", port.number), |out| {
                    for number in port.groups.iter().filter_map(|id| numbers.get(id)) {
                        let _ = writeln!(out, "jump group_{number}_{word}");
                    }
                });
            }
        }
        self.base_chains(out);
        out.push_str("}\n");
    }

    fn member_sets(
        &self,
        used: &BTreeSet<SecurityGroupId>,
        numbers: &BTreeMap<SecurityGroupId, usize>,
        out: &mut String,
    ) {
        let named: BTreeSet<SecurityGroupId> = used
            .iter()
            .filter_map(|id| self.groups.get(id))
            .flat_map(|group| group.rules.iter().filter_map(|rule| rule.remote_group))
            .collect();
        for id in named {
            let (Some(group), Some(number)) = (self.groups.get(&id), numbers.get(&id)) else { continue };
            for (version, kind) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
                let members: BTreeSet<&IpAddr> =
                    group.members.iter().filter(|ip| ip.is_ipv4() == (version == 4)).collect();
                let members: Vec<String> = members.iter().map(ToString::to_string).collect();
                let _ = writeln!(out, "set members{version}_{number} {{\ntype {kind};");
                if !members.is_empty() {
                    let _ = writeln!(out, "elements = {{ {} }}", members.join(", "));
                }
                out.push_str("}\n");
            }
        }
    }

    /// Makes a set of each address group that rules in use name; returns their numbers.
    fn address_sets(&self, used: &BTreeSet<SecurityGroupId>, out: &mut String) -> BTreeMap<AddressGroupId, usize> {
        let groups = used.iter().filter_map(|id| self.groups.get(id));
        let lists: BTreeMap<AddressGroupId, &AddressGroupSpec> = groups
            .flat_map(|group| {
                let named = |id| group.rules.iter().any(|rule| rule.remote_address_group == Some(id));
                group.address_groups.iter().filter(move |list| named(list.id))
            })
            .map(|list| (list.id, list))
            .collect();
        for (number, list) in lists.values().enumerate() {
            let (v4, v6) = by_version(&list.addresses);
            for (version, kind, ranges) in [(4, "ipv4_addr", joined(&v4)), (6, "ipv6_addr", joined(&v6))] {
                let _ = writeln!(out, "set addresses{version}_{number} {{\ntype {kind};\nflags interval;");
                if !ranges.is_empty() {
                    let _ = writeln!(out, "elements = {{ {ranges} }}");
                }
                out.push_str("}\n");
            }
        }
        lists.keys().enumerate().map(|(number, id)| (*id, number)).collect()
    }

    fn base_chains(&self, out: &mut String) {
        let guards = "ct state established,related accept\nct state invalid drop\n";
        chain(out, "leaves", |out| {
            out.push_str("type filter hook forward priority -10; policy drop;\n");
            out.push_str("meta mark and 0xffff0000 == 0 accept\n");
            let open = self.ports.iter().filter(|p| !p.secured);
            verdicts(
                out,
                "meta mark and 0xffff0000",
                open.map(|p| format!("{:#x} : accept", u32::from(p.number) << 16)),
            );
            // Guests are not DHCP servers or routers, also not in fragments: those are whole again here.
            out.push_str("udp sport 67 udp dport 68 drop\nudp sport 547 udp dport 546 drop\n");
            out.push_str("icmpv6 type { nd-router-advert, nd-redirect } drop\n");
            neighbour_discovery(out);
            out.push_str(guards);
            let secured = self.ports.iter().filter(|p| p.secured);
            verdicts(
                out,
                "meta mark and 0xffff0000",
                secured.map(|p| format!("{:#x} : goto port_{}_out", u32::from(p.number) << 16, p.number)),
            );
        });
        chain(out, "enters", |out| {
            out.push_str("type filter hook forward priority 0; policy drop;\n");
            out.push_str("meta mark and 0xffff == 0 accept\n");
            neighbour_discovery(out);
            out.push_str("icmpv6 type nd-router-advert accept\n");
            out.push_str(guards);
            let secured = self.ports.iter().filter(|p| p.secured);
            verdicts(
                out,
                "meta mark and 0xffff",
                secured.map(|p| format!("{:#x} : goto port_{}_in", p.number, p.number)),
            );
        });
        chain(out, "record", |out| {
            out.push_str("type filter hook forward priority 10; policy accept;\nct state new ct mark set meta mark\n");
        });
    }
}

/// Ranges by version, without overlaps.
fn by_version(ranges: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for range in ranges {
        match range {
            IpNet::V4(range) => v4.push(range.trunc()),
            IpNet::V6(range) => v6.push(range.trunc()),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

/// What IPv6 cannot work without, as ARP is for IPv4; its sources are checked where packets come in.
fn neighbour_discovery(out: &mut String) {
    out.push_str("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-query, ");
    out.push_str("mld-listener-report, mld-listener-done, mld2-listener-report } accept\n");
}

/// What a guest may say to this node. Each kind has its own allowance: a guest that floods us takes nothing from others,
/// and from itself only what it floods.
fn service_rules(mac: MacAddr, out: &mut String) {
    let six = u128::from(SERVICE_ADDRESS6);
    let _ = writeln!(out, "ether saddr != {mac} drop");
    let _ = writeln!(out, "arp daddr ip {SERVICE_ADDRESS} limit rate 100/second burst 100 packets accept");
    out.push_str("udp dport { 67, 547 } limit rate 50/second burst 50 packets accept\n");
    for to in [format!("ip daddr {SERVICE_ADDRESS}"), format!("ip6 daddr {SERVICE_ADDRESS6}")] {
        let _ = writeln!(out, "{to} udp dport 53 limit rate 200/second burst 100 packets accept");
    }
    out.push_str("icmpv6 type nd-router-solicit limit rate 20/second burst 20 packets accept\n");
    let _ = writeln!(
        out,
        "icmpv6 type nd-neighbor-solicit @th,64,128 {six:#034x} limit rate 100/second burst 100 packets accept"
    );
    let _ = writeln!(
        out,
        "ip6 daddr {SERVICE_ADDRESS6} icmpv6 type nd-neighbor-advert limit rate 100/second burst 100 packets accept"
    );
    for (family, address, ping) in
        [("ip", SERVICE_ADDRESS.to_string(), "icmp"), ("ip6", SERVICE_ADDRESS6.to_string(), "icmpv6")]
    {
        let to = format!("{family} daddr {address}");
        let _ = writeln!(
            out,
            "{to} tcp dport 80 tcp flags & (syn | ack) == syn limit rate over 50/second burst 50 packets drop"
        );
        let _ = writeln!(out, "{to} tcp dport 80 accept");
        let _ = writeln!(out, "{to} {ping} type echo-request limit rate 50/second burst 50 packets accept");
    }
}

/// Devices as a set.
fn devices<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}

fn chain(out: &mut String, name: &str, body: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "chain {name} {{");
    body(out);
    out.push_str("}\n");
}

fn verdicts(out: &mut String, key: &str, entries: impl Iterator<Item = String>) {
    let entries: Vec<String> = entries.collect();
    if !entries.is_empty() {
        let _ = writeln!(out, "{key} vmap {{ {} }}", entries.join(", "));
    }
}

/// The chains that a guest's packets take first: whether their source is the guest's own.
fn source_chains(port: &PortFilter, out: &mut String) {
    let number = port.number;
    let mark = u32::from(number) << 16;
    if !port.secured {
        chain(out, &format!("from_{number}"), |out| {
            let _ = writeln!(out, "meta mark set {mark:#x}");
            dscp_rules(port, out);
            out.push_str("goto steer\n");
        });
        return;
    }
    let sources = sources(port);
    chain(out, &format!("from_{number}_arp"), |out| {
        for (mac, (v4, _)) in &sources {
            // Without an address yet, a guest asks whether one is taken from 0.0.0.0.
            let v4: Vec<String> =
                std::iter::once("0.0.0.0".to_owned()).chain(v4.iter().map(ToString::to_string)).collect();
            let v4 = v4.join(", ");
            let _ = writeln!(out, "ether saddr {mac} arp saddr ether {mac} arp saddr ip {{ {v4} }} accept");
        }
        out.push_str("drop\n");
    });
    chain(out, &format!("from_{number}_ip"), |out| {
        let mac = port.mac;
        let _ = writeln!(
            out,
            "ether saddr {mac} ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"
        );
        for (mac, (v4, _)) in sources.iter().filter(|(_, (v4, _))| !v4.is_empty()) {
            let _ = writeln!(out, "ether saddr {mac} ip saddr {{ {} }} goto steer", joined(v4));
        }
        out.push_str("drop\n");
    });
    chain(out, &format!("from_{number}_ip6"), |out| {
        let targets: Vec<String> = sources.values().flat_map(|(_, v6)| v6).map(target_range).collect();
        // An advertisement that somebody else's address is here. The target follows 8 bytes of header (RFC 4861, 4.4).
        let _ = writeln!(out, "icmpv6 type nd-neighbor-advert @th,64,128 != {{ {} }} drop", targets.join(", "));
        for (mac, (_, v6)) in sources.iter().filter(|(_, (_, v6))| !v6.is_empty()) {
            let _ = writeln!(out, "ether saddr {mac} ip6 saddr {{ {} }} accept", joined(v6));
        }
        let mac = port.mac;
        // Without an address yet, a guest asks whether one is taken. To ask so for another's address would make that
        // one give it up.
        let _ = writeln!(
            out,
            "ether saddr {mac} ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 {{ {} }} accept",
            targets.join(", ")
        );
        let _ = writeln!(
            out,
            "ether saddr {mac} ip6 saddr :: icmpv6 type {{ nd-router-solicit, mld-listener-report, \
             mld2-listener-report }} accept"
        );
        out.push_str("drop\n");
    });
    chain(out, &format!("from_{number}"), |out| {
        let _ = writeln!(out, "meta mark set {mark:#x}");
        dscp_rules(port, out);
        for (kind, next) in [("arp", "arp"), ("ip", "ip"), ("ip6", "ip6")] {
            let _ = writeln!(out, "ether type {kind} goto from_{number}_{next}");
        }
        out.push_str("drop\n");
    });
}

fn dscp_rules(port: &PortFilter, out: &mut String) {
    if let Some(mark) = port.dscp {
        let _ = writeln!(out, "ip dscp set {mark}\nip6 dscp set {mark}");
    }
}

type Sources = BTreeMap<MacAddr, (Vec<Ipv4Net>, Vec<Ipv6Net>)>;

/// Which IP sources may go with which Ethernet source, without overlaps.
fn sources(port: &PortFilter) -> Sources {
    let mut all = Sources::new();
    let own = port.addresses.iter().map(|ip| (IpNet::from(*ip), port.mac));
    for (range, mac) in own.chain(port.pairs.iter().copied()) {
        let (v4, v6) = all.entry(mac).or_default();
        match range {
            IpNet::V4(range) => v4.push(range.trunc()),
            IpNet::V6(range) => v6.push(range.trunc()),
        }
    }
    all.entry(port.mac).or_default().1.push(packet::link_local(port.mac).into());
    for (v4, v6) in all.values_mut() {
        *v4 = Ipv4Net::aggregate(v4);
        *v6 = Ipv6Net::aggregate(v6);
    }
    all
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A range as plain numbers, for fields that nftables has no name for.
fn target_range(range: &Ipv6Net) -> String {
    let (first, last) = (u128::from(range.network()), u128::from(range.broadcast()));
    if first == last { format!("{first:#034x}") } else { format!("{first:#034x}-{last:#034x}") }
}

/// The protocol of a rule: ICMP under IPv6 means ICMPv6.
pub fn protocol(rule: &FilterRule) -> Option<u8> {
    match (rule.ethertype, rule.protocol) {
        (EtherType::V6, Some(1)) => Some(58),
        (EtherType::V4 | EtherType::V6, protocol) => protocol,
    }
}

/// Whether a protocol has ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// One line of a chain, or `None` if the rule can match nothing.
fn rule_line(
    rule: &FilterRule,
    numbers: &BTreeMap<SecurityGroupId, usize>,
    lists: &BTreeMap<AddressGroupId, usize>,
) -> Option<String> {
    let (family, version) = match rule.ethertype {
        EtherType::V4 => ("ip", 4),
        EtherType::V6 => ("ip6", 6),
    };
    let mut line = format!("meta nfproto ipv{version}");
    if let Some(protocol) = protocol(rule) {
        let _ = write!(line, " meta l4proto {protocol}");
        match (protocol, rule.port_min.or(rule.port_max), rule.port_max.or(rule.port_min)) {
            (1 | 58, _, _) => {
                let word = if protocol == 1 { "icmp" } else { "icmpv6" };
                for (field, value) in [("type", rule.port_min), ("code", rule.port_max)] {
                    if let Some(value) = value {
                        let _ = write!(line, " {word} {field} {}", u8::try_from(value).ok()?);
                    }
                }
            }
            (_, Some(min), Some(max)) if has_ports(protocol) => {
                if min > max {
                    return None;
                }
                let _ = write!(line, " th dport {min}-{max}");
            }
            (_, _, _) => {}
        }
    }
    let side = match rule.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    if let Some(range) = rule.remote_cidr {
        let same_version =
            matches!((range, rule.ethertype), (IpNet::V4(_), EtherType::V4) | (IpNet::V6(_), EtherType::V6));
        if !same_version {
            return None;
        }
        if range.prefix_len() > 0 {
            let _ = write!(line, " {family} {side} {}", range.trunc());
        }
    }
    if let Some(group) = rule.remote_group {
        // A group that nobody told us of has no members.
        let _ = write!(line, " {family} {side} @members{version}_{}", numbers.get(&group)?);
    }
    if let Some(list) = rule.remote_address_group {
        let _ = write!(line, " {family} {side} @addresses{version}_{}", lists.get(&list)?);
    }
    line.push_str(" accept");
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(direction: Direction) -> FilterRule {
        FilterRule {
            direction,
            ethertype: EtherType::V4,
            protocol: Some(6),
            port_min: Some(22),
            port_max: Some(22),
            remote_cidr: Some("10.1.2.3/8".parse().unwrap()),
            remote_group: None,
            remote_address_group: None,
        }
    }

    #[test]
    fn rules_read_as_nftables_wants_them() {
        let none = BTreeMap::new();
        let ingress = rule(Direction::Ingress);
        assert_eq!(
            rule_line(&ingress, &none, &BTreeMap::new()).unwrap(),
            "meta nfproto ipv4 meta l4proto 6 th dport 22-22 ip saddr 10.0.0.0/8 accept"
        );
        let echo =
            FilterRule { protocol: Some(1), port_min: Some(8), port_max: None, remote_cidr: None, ..ingress.clone() };
        assert_eq!(
            rule_line(&echo, &none, &BTreeMap::new()).unwrap(),
            "meta nfproto ipv4 meta l4proto 1 icmp type 8 accept"
        );
        let echo6 = FilterRule { ethertype: EtherType::V6, port_min: Some(128), ..echo };
        assert_eq!(
            rule_line(&echo6, &none, &BTreeMap::new()).unwrap(),
            "meta nfproto ipv6 meta l4proto 58 icmpv6 type 128 accept"
        );
    }

    #[test]
    fn rules_that_match_nothing_are_left_out() {
        let none = BTreeMap::new();
        let mixed = FilterRule { ethertype: EtherType::V6, ..rule(Direction::Egress) };
        let backwards = FilterRule { port_max: Some(21), ..rule(Direction::Egress) };
        let unknown = FilterRule { remote_group: Some(SecurityGroupId::new()), ..rule(Direction::Egress) };
        for rule in [mixed, backwards, unknown] {
            assert_eq!(rule_line(&rule, &none, &BTreeMap::new()), None);
        }
    }

    #[test]
    fn sources_never_overlap() {
        let mac = MacAddr::for_port([0, 0, 1]);
        let port = PortFilter {
            number: 1,
            device: "p1".into(),
            mac,
            secured: true,
            addresses: vec!["10.0.0.5".parse().unwrap()],
            pairs: vec![("10.0.0.9/24".parse().unwrap(), mac), ("10.0.0.7/32".parse().unwrap(), mac)],
            groups: vec![],
            dscp: None,
        };
        assert_eq!(sources(&port)[&mac].0, ["10.0.0.0/24".parse().unwrap()]);
    }
}
