//! Router advertisements (RFC 4861): how guests learn prefixes, their IPv6 router and its name servers.
//!
//! They are sent by this process in the name of the routers' legs, and not by the routers: so a node tells only its own
//! guests, and a guest hears of its router also while that is being rebuilt. On a segment without a router the prefixes
//! are told all the same, under the address of our own services and without offering a way out.

use super::filter::{SERVICE_ADDRESS6, SERVICE_MAC};
use super::packet;
use arcus_types::agent::{Ipv6Mode, RouterInterfaceSpec, SubnetSpec};
use arcus_types::text::MacAddr;
use ipnet::{IpNet, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How long guests keep the router and its name servers, in seconds: the longest that RFC 4861 has, as guests shall keep
/// their way out while no agent runs. A leg that goes is called back.
pub const LIFETIME_S: u16 = 9000;

/// How long guests keep addresses under a prefix, in seconds, and how long they prefer them. Source: radvd's defaults.
const PREFIX_VALID_S: u32 = 86_400;
const PREFIX_PREFERRED_S: u32 = 14_400;

/// Between unsolicited advertisements, in seconds. Source: what OpenStack configures radvd with.
pub const INTERVAL_S: std::ops::RangeInclusive<u64> = 30..=100;

/// After a change, so many advertisements follow each other quickly: one may be lost.
pub const FIRST_COUNT: u32 = 3;
/// How quickly.
pub const FIRST_INTERVAL: Duration = Duration::from_secs(2);

/// The smallest packet size that IPv6 works with, in bytes. Source: RFC 8200, section 5.
pub const MTU_MIN: u32 = 1280;

/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The Ethernet address of [`ALL_NODES`].
pub const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// What one router tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Who tells it: Ethernet and link-local address.
    pub source: (MacAddr, Ipv6Addr),
    /// Whether it leads anywhere.
    pub routes: bool,
    /// Whether addresses come by DHCPv6.
    pub managed: bool,
    /// Whether all else comes by DHCPv6.
    pub other: bool,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Prefixes, and whether guests make addresses under them.
    pub prefixes: BTreeMap<Ipv6Net, bool>,
    /// Name servers.
    pub dns_servers: Vec<Ipv6Addr>,
}

/// What is told on a segment with these subnets and routers' legs; with each leg, whether its router forwards.
pub fn plan(subnets: &[SubnetSpec], legs: &[(&RouterInterfaceSpec, bool)], mtu: u32) -> Vec<Advertisement> {
    let mut told: BTreeMap<(MacAddr, Ipv6Addr), Advertisement> = BTreeMap::new();
    if mtu < MTU_MIN {
        return Vec::new();
    }
    for subnet in subnets {
        let (IpNet::V6(range), Some(mode)) = (subnet.cidr, subnet.ipv6_ra_mode) else { continue };
        let leads = |leg: &RouterInterfaceSpec| leg.addresses.iter().any(|own| subnet.cidr.contains(&own.addr()));
        let mut sources: Vec<((MacAddr, Ipv6Addr), bool)> = legs
            .iter()
            .filter(|(leg, _)| leads(leg))
            .map(|(leg, up)| ((leg.mac, packet::link_local(leg.mac)), *up))
            .collect();
        if sources.is_empty() {
            sources.push(((SERVICE_MAC, SERVICE_ADDRESS6), false));
        }
        for (source, routes) in sources {
            let advertisement = told.entry(source).or_insert_with(|| Advertisement {
                source,
                routes,
                managed: false,
                other: false,
                mtu,
                prefixes: BTreeMap::new(),
                dns_servers: Vec::new(),
            });
            advertisement.managed |= mode == Ipv6Mode::DhcpStateful;
            advertisement.other |= mode == Ipv6Mode::DhcpStateless;
            advertisement.prefixes.insert(range.trunc(), mode != Ipv6Mode::DhcpStateful);
            for server in &subnet.dns_servers {
                if let IpAddr::V6(server) = server
                    && !advertisement.dns_servers.contains(server)
                {
                    advertisement.dns_servers.push(*server);
                }
            }
        }
    }
    told.into_values().collect()
}

impl Advertisement {
    /// The same router, called back: it leads nowhere any more.
    pub fn called_back(&self) -> Self {
        Self { routes: false, prefixes: BTreeMap::new(), dns_servers: Vec::new(), ..self.clone() }
    }

    /// The frame for all guests, or for one.
    pub fn frame(&self, to: (MacAddr, Ipv6Addr)) -> Option<Vec<u8>> {
        packet::icmp6_frame(self.source, to, &self.message())
    }

    /// The message without its checksum. Layout: RFC 4861, 4.2 and 4.6; RFC 8106, 5.1.
    fn message(&self) -> Vec<u8> {
        const HOP_LIMIT: u8 = 64;
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let lifetime = if self.routes { LIFETIME_S } else { 0 };
        let mut out = vec![134, 0, 0, 0, HOP_LIMIT, flags];
        out.extend(lifetime.to_be_bytes());
        out.extend([0; 8]); // reachable and retransmission times: the guest's own
        out.extend([1, 1]);
        out.extend(self.source.0.0);
        out.extend([5, 1, 0, 0]);
        out.extend(self.mtu.to_be_bytes());
        for (range, autonomous) in &self.prefixes {
            const ON_LINK: u8 = 0x80;
            out.extend([3, 4, range.prefix_len(), ON_LINK | u8::from(*autonomous) << 6]);
            out.extend(PREFIX_VALID_S.to_be_bytes());
            out.extend(PREFIX_PREFERRED_S.to_be_bytes());
            out.extend([0; 4]);
            out.extend(range.network().octets());
        }
        // The length of an option is one byte, in units of eight: more servers than this nobody asks.
        let servers = &self.dns_servers[..self.dns_servers.len().min(8)];
        if let Ok(count) = u8::try_from(servers.len())
            && count > 0
        {
            out.extend([25, 1 + 2 * count, 0, 0]);
            out.extend(u32::from(LIFETIME_S).to_be_bytes());
            out.extend(servers.iter().flat_map(Ipv6Addr::octets));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcus_types::ids::{NetworkId, PortId, SubnetId};

    fn subnet(cidr: &str, mode: Option<Ipv6Mode>) -> SubnetSpec {
        SubnetSpec {
            id: SubnetId::new(),
            cidr: cidr.parse().unwrap(),
            gateway: None,
            dhcp: true,
            dns_servers: vec!["fd00::53".parse().unwrap(), "9.9.9.9".parse().unwrap()],
            host_routes: vec![],
            ipv6_address_mode: mode,
            ipv6_ra_mode: mode,
        }
    }

    fn leg(address: &str) -> RouterInterfaceSpec {
        RouterInterfaceSpec {
            port_id: PortId::new(),
            network_id: NetworkId::new(),
            mac: MacAddr::for_port([0, 0, 9]),
            addresses: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn each_mode_sets_its_flags() {
        for (mode, managed, other, autonomous) in [
            (Ipv6Mode::Slaac, false, false, true),
            (Ipv6Mode::DhcpStateless, false, true, true),
            (Ipv6Mode::DhcpStateful, true, false, false),
        ] {
            let leg = leg("fd00:a::1/64");
            let told = plan(&[subnet("fd00:a::/64", Some(mode))], &[(&leg, true)], 1450);
            let [one] = &told[..] else { panic!("{told:?}") };
            assert_eq!((one.managed, one.other, one.routes), (managed, other, true));
            assert_eq!(one.prefixes[&"fd00:a::/64".parse().unwrap()], autonomous);
            let message = one.message();
            assert_eq!(message.len() % 8, 0);
            assert_eq!(message[6..8], LIFETIME_S.to_be_bytes());
            assert_eq!(one.dns_servers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
            assert_eq!(one.called_back().message()[6..8], [0, 0]);
        }
    }

    #[test]
    fn without_a_router_only_the_prefix_is_told() {
        let told = plan(&[subnet("fd00:a::/64", Some(Ipv6Mode::Slaac))], &[(&leg("fd00:b::1/64"), true)], 1450);
        assert_eq!((told[0].source, told[0].routes), ((SERVICE_MAC, SERVICE_ADDRESS6), false));
        assert!(plan(&[subnet("fd00:a::/64", None)], &[], 1450).is_empty());
        assert!(plan(&[subnet("fd00:a::/64", Some(Ipv6Mode::Slaac))], &[], 1279).is_empty());
    }
}
