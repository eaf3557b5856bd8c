//! Tracked connections that the current rules would not let begin: they must end with the rule that let them.
//!
//! An established connection passes the filter without a look at the rules, so after a change each is held against the
//! new ones, and only those that fail are ended. To end all and let them be tracked anew would cut innocent ones: of a
//! connection in mid-stream nobody can tell which side began it.

use super::filter::{PortFilter, SegmentFilter, has_ports, protocol};
use super::netlink::{self, Connection, attribute, attributes};
use super::router::{Forwarding, Translations};
use arcus_types::agent::{Direction, EtherType, FilterRule};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who began it, as the first packet came in.
    pub source: IpAddr,
    /// Whom it was meant for, as the first packet came in.
    pub destination: IpAddr,
    /// Who answers.
    pub reply_source: IpAddr,
    /// Whom the answers are sent to.
    pub reply_destination: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The destination port, or the ICMP type.
    pub port: u16,
    /// The ICMP code.
    pub code: u8,
    /// The port that answers.
    pub reply_port: u16,
    /// The numbers of the two ports: sender in the upper half, receiver in the lower.
    pub mark: u32,
}

impl Flow {
    fn read(connection: &Connection) -> Option<Self> {
        const MARK: u16 = 8;
        let all = attributes(&connection.attributes);
        let (source, destination, proto) = tuple(attribute(&all, 1)?)?;
        let (reply_source, reply_destination, reply_proto) = tuple(attribute(&all, 2)?)?;
        let reply_proto = attributes(reply_proto);
        let reply_port = attribute(&reply_proto, 2).and_then(|v| v.try_into().ok()).map_or(0, u16::from_be_bytes);
        let proto = attributes(proto);
        let number = |kind| attribute(&proto, kind);
        let byte = |kind| number(kind).and_then(|v| v.first().copied());
        let be16 = |kind| number(kind).and_then(|v| v.try_into().ok()).map(u16::from_be_bytes);
        let port = be16(3).or(byte(5).or(byte(8)).map(u16::from)).unwrap_or(0);
        Some(Self {
            source,
            destination,
            reply_source,
            reply_destination,
            protocol: byte(1)?,
            port,
            code: byte(6).or(byte(9)).unwrap_or(0),
            reply_port,
            mark: attribute(&all, MARK).and_then(|v| v.try_into().ok()).map(u32::from_be_bytes).unwrap_or(0),
        })
    }
}

/// Source, destination and protocol part of a tuple.
fn tuple(bytes: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let parts = attributes(bytes);
    let ip = attributes(attribute(&parts, 1)?);
    let v4 = |kind| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(&ip, kind)?).ok()?)));
    let v6 = |kind| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(attribute(&ip, kind)?).ok()?)));
    Some((v4(1).or_else(|| v6(3))?, v4(2).or_else(|| v6(4))?, attribute(&parts, 2)?))
}

/// Ends the connections of the calling thread's namespace for which `keep` says no; returns how many.
pub fn end_unless(keep: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut doomed = netlink::connections()?;
    doomed.retain(|connection| Flow::read(connection).is_some_and(|flow| !keep(&flow)));
    netlink::connections_end(&doomed)?;
    Ok(doomed.len())
}

impl SegmentFilter {
    /// Whether the rules would let the connection begin now.
    pub fn allows(&self, flow: &Flow) -> bool {
        let (sender, receiver) = (flow.mark >> 16, flow.mark & 0xffff);
        let gone = |number: u32| number != 0 && !self.ports.iter().any(|port| u32::from(port.number) == number);
        if gone(sender) || gone(receiver) {
            return false;
        }
        // The mark tells the two ports. A packet that passes the segment twice, by a router, has only those of its
        // second time: addresses tell the others.
        let concerned = |port: &&PortFilter, number: u32, address: IpAddr| {
            u32::from(port.number) == number || (flow.mark != 0 && port.addresses.contains(&address))
        };
        let senders = self.ports.iter().filter(|port| concerned(port, sender, flow.source));
        let receivers = self.ports.iter().filter(|port| concerned(port, receiver, flow.destination));
        senders
            .map(|port| (port, Direction::Egress, flow.destination))
            .chain(receivers.map(|port| (port, Direction::Ingress, flow.source)))
            .all(|(port, direction, other)| !port.secured || self.port_allows(port, direction, other, flow))
    }

    fn port_allows(&self, port: &PortFilter, direction: Direction, other: IpAddr, flow: &Flow) -> bool {
        let rules = port.groups.iter().filter_map(|id| self.groups.get(id)).flat_map(|group| &group.rules);
        rules.filter(|rule| rule.direction == direction).any(|rule| self.rule_allows(rule, other, flow))
    }

    fn rule_allows(&self, rule: &FilterRule, other: IpAddr, flow: &Flow) -> bool {
        let version = match rule.ethertype {
            EtherType::V4 => other.is_ipv4(),
            EtherType::V6 => other.is_ipv6(),
        };
        let (min, max) = (rule.port_min.or(rule.port_max), rule.port_max.or(rule.port_min));
        let service = match protocol(rule) {
            None => true,
            Some(wanted) if wanted != flow.protocol => false,
            Some(1 | 58) => {
                rule.port_min.is_none_or(|kind| kind == flow.port)
                    && rule.port_max.is_none_or(|code| code == u16::from(flow.code))
            }
            Some(wanted) if has_ports(wanted) => {
                min.is_none_or(|min| flow.port >= min) && max.is_none_or(|max| flow.port <= max)
            }
            Some(_) => true,
        };
        let side = rule.remote_cidr.is_none_or(|range| range.contains(&other))
            && rule
                .remote_group
                .is_none_or(|id| self.groups.get(&id).is_some_and(|group| group.members.contains(&other)));
        let listed = rule.remote_address_group.is_none_or(|id| {
            let lists = self.groups.values().flat_map(|group| &group.address_groups).filter(|list| list.id == id);
            lists.flat_map(|list| &list.addresses).any(|range| range.contains(&other))
        });
        version && service && side && listed
    }
}

impl Translations {
    /// Whether the connection's addresses are still translated so.
    pub fn allow(&self, flow: &Flow) -> bool {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (flow.source, flow.destination) else { return true };
        let (IpAddr::V4(answers), IpAddr::V4(lent)) = (flow.reply_source, flow.reply_destination) else { return true };
        let by_port = |one: &&Forwarding| {
            (one.protocol, one.external, one.external_port) == (flow.protocol, destination, flow.port)
        };
        let forwarded = answers == destination
            || self.floating.get(&destination) == Some(&answers)
            || self
                .forwardings
                .iter()
                .find(by_port)
                .is_some_and(|one| (one.internal, one.internal_port) == (answers, flow.reply_port));
        let lent_rightly = lent == source
            || self.floating.get(&lent) == Some(&source)
            || self.shared == Some(lent)
            || (answers != destination && self.hairpin == Some(lent));
        forwarded && lent_rightly
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::agent::SecurityGroupSpec;
    use arcus_types::ids::SecurityGroupId;
    use arcus_types::text::MacAddr;

    fn flow(source: &str, destination: &str, port: u16, mark: u32) -> Flow {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Flow {
            source,
            destination,
            reply_source: destination,
            reply_destination: source,
            protocol: 6,
            port,
            code: 0,
            reply_port: port,
            mark,
        }
    }

    fn filter(rules: Vec<FilterRule>) -> SegmentFilter {
        let id = SecurityGroupId::new();
        let port = PortFilter {
            number: 3,
            device: "p3".into(),
            mac: MacAddr::for_port([0, 0, 3]),
            secured: true,
            addresses: vec!["10.0.0.3".parse().unwrap()],
            pairs: vec![],
            groups: vec![id],
            dscp: None,
        };
        let group = SecurityGroupSpec { id, rules, members: vec![], address_groups: vec![] };
        SegmentFilter { ports: vec![port], moving: vec![], legs: vec![], tunnel: None, groups: [(id, group)].into() }
    }

    fn ssh() -> FilterRule {
        FilterRule {
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: Some(6),
            port_min: Some(22),
            port_max: Some(23),
            remote_cidr: Some("10.0.0.0/24".parse().unwrap()),
            remote_group: None,
            remote_address_group: None,
        }
    }

    #[test]
    fn connections_live_as_long_as_their_rule() {
        let with = filter(vec![ssh()]);
        assert!(with.allows(&flow("10.0.0.9", "10.0.0.3", 22, 3)));
        assert!(!with.allows(&flow("10.0.0.9", "10.0.0.3", 80, 3)));
        assert!(!with.allows(&flow("10.0.1.9", "10.0.0.3", 22, 3)));
        assert!(!filter(vec![]).allows(&flow("10.0.0.9", "10.0.0.3", 22, 3)));
    }

    #[test]
    fn connections_of_a_port_that_went_end() {
        assert!(!filter(vec![ssh()]).allows(&flow("10.0.0.9", "10.0.0.3", 22, 4 << 16 | 3)));
    }

    #[test]
    fn connections_that_no_guest_of_ours_takes_part_in_are_left_alone() {
        assert!(filter(vec![]).allows(&flow("10.0.0.9", "10.0.0.8", 22, 0)));
    }

    #[test]
    fn a_floating_address_that_moved_takes_its_connections_along() {
        let (external, fixed): (Ipv4Addr, Ipv4Addr) = ("203.0.113.9".parse().unwrap(), "10.0.0.3".parse().unwrap());
        let mut inward = flow("203.0.113.1", "203.0.113.9", 22, 0);
        inward.reply_source = IpAddr::V4(fixed);
        let mut outward = flow("10.0.0.3", "203.0.113.1", 80, 0);
        outward.reply_destination = IpAddr::V4(external);
        let now = Translations { floating: [(external, fixed)].into(), ..Translations::default() };
        assert!(now.allow(&inward) && now.allow(&outward));
        let other = Translations { floating: [(external, "10.0.0.4".parse().unwrap())].into(), ..now.clone() };
        assert!(!other.allow(&inward) && !other.allow(&outward));
        assert!(!Translations::default().allow(&inward) && !Translations::default().allow(&outward));
    }
}
