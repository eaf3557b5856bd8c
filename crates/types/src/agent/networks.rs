//! Networks as a node must build them: segments, ports, filters, routers.

use super::DhcpOptionSpec;
use crate::ids::*;
use crate::text::MacAddr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A layer-2 segment as the node must build it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The network.
    pub id: NetworkId,
    /// Its number on the wire between nodes (VXLAN network identifier), unique in the cloud.
    pub segment: u32,
    /// The largest packet that guests may send, in bytes.
    pub mtu: u32,
    /// Set on an external network: the bridge that leads out of the cloud.
    #[serde(default)]
    pub external: Option<ExternalSpec>,
    /// Its address ranges.
    pub subnets: Vec<SubnetSpec>,
    /// The ports that live on this node.
    pub ports: Vec<PortSpec>,
    /// The other nodes that carry this segment, by underlay address, with the ports that live there.
    #[serde(default)]
    pub peers: Vec<PeerSpec>,
}

/// How an external network leads out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExternalSpec {
    /// The address and prefix that the node itself holds on the external bridge: the gateway of the routers.
    pub gateway: ipnet::IpNet,
}

/// Another node that carries a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// The node's underlay address.
    pub underlay: IpAddr,
    /// The Ethernet addresses of the ports that live there. Routers' legs are not among them: each node has its own.
    pub macs: Vec<MacAddr>,
    /// The same ports with their addresses and names: what this node's routers and name service must know of them.
    #[serde(default)]
    pub ports: Vec<PeerPort>,
    /// Ethernet addresses of guests that are on their way between nodes: what is for them goes to every node.
    #[serde(default)]
    pub moving: Vec<MacAddr>,
}

/// A port that lives on another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPort {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its host name; empty is none.
    #[serde(default)]
    pub hostname: String,
    /// The domain that completes its host name; empty is none.
    #[serde(default)]
    pub dns_domain: String,
}

/// An address range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// The subnet.
    pub id: SubnetId,
    /// The range.
    pub cidr: ipnet::IpNet,
    /// The router's address that guests are told.
    pub gateway: Option<IpAddr>,
    /// Whether DHCP answers.
    pub dhcp: bool,
    /// Name servers that guests are told.
    pub dns_servers: Vec<IpAddr>,
    /// Extra routes that guests are told: destination and next hop.
    pub host_routes: Vec<(ipnet::IpNet, IpAddr)>,
    /// Of an IPv6 range: how guests come by addresses; `None` leaves that to others.
    #[serde(default)]
    pub ipv6_address_mode: Option<Ipv6Mode>,
    /// Of an IPv6 range: what router advertisements say; `None` sends none.
    #[serde(default)]
    pub ipv6_ra_mode: Option<Ipv6Mode>,
}

/// How guests come by an IPv6 address and by what else they must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ipv6Mode {
    /// The guest makes its address from the advertised prefix and its Ethernet address.
    #[serde(rename = "slaac")]
    Slaac,
    /// DHCPv6 tells the address and all else.
    #[serde(rename = "dhcpv6-stateful")]
    DhcpStateful,
    /// The guest makes its address as with `slaac`; DHCPv6 tells all else.
    #[serde(rename = "dhcpv6-stateless")]
    DhcpStateless,
}

impl Ipv6Mode {
    /// The word for it in the API and in the documents for guests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slaac => "slaac",
            Self::DhcpStateful => "dhcpv6-stateful",
            Self::DhcpStateless => "dhcpv6-stateless",
        }
    }
}

/// A virtual interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The port.
    pub id: PortId,
    /// The server that it belongs to.
    pub server_id: Option<ServerId>,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<FixedIp>,
    /// The rule sets that apply; what none allows is dropped.
    pub security_groups: Vec<SecurityGroupId>,
    /// Whether filters and anti-spoofing apply at all.
    pub port_security: bool,
    /// Further sources that the guest may use: an address range, with an Ethernet address if not the port's own.
    #[serde(default)]
    pub allowed_pairs: Vec<(ipnet::IpNet, Option<MacAddr>)>,
    /// Whether the interface carries traffic.
    pub admin_up: bool,
    /// The host name that DHCP tells.
    pub hostname: String,
    /// The domain that DHCP tells and that completes the host name; empty is none.
    #[serde(default)]
    pub dns_domain: String,
    /// Further DHCP options for this port; they replace what DHCP would tell otherwise.
    #[serde(default)]
    pub dhcp_options: Vec<DhcpOptionSpec>,
    /// How much the port may send and receive.
    #[serde(default)]
    pub qos: QosSpec,
    /// Set while its guest is on its way from or to this node.
    #[serde(default)]
    pub moving: Option<PortMove>,
    /// Connections that its guest brings along: they go on although no rule would let them begin.
    #[serde(default)]
    pub flows: Vec<FlowSpec>,
}

/// A tracked connection of a guest that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSpec {
    /// The guest's port.
    pub port: PortId,
    /// Whether the guest began it; else the other side did.
    pub begun: bool,
    /// The address family, as the kernel numbers it.
    pub family: u8,
    /// What the kernel told of it (netlink attributes of a tracked connection), in hexadecimal.
    pub attributes: String,
}

/// So many connections go with a guest; the rest must be let in by rules.
pub const FLOWS_MAX: usize = 1_000;

/// How a port takes part in its guest's move. Until the move is over, what is for the guest goes to both nodes: so nothing
/// is lost when the guest stops here and goes on there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortMove {
    /// The guest is still here.
    Leaving,
    /// The guest will be here; nothing is kept for it yet.
    Expected,
    /// The guest will be here in a moment: what comes for it waits in its interface's queue.
    Arriving,
}

/// Limits of bandwidth, seen from the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosSpec {
    /// To the guest; `None` is without a limit.
    #[serde(default)]
    pub ingress: Option<BandwidthLimit>,
    /// From the guest; `None` is without a limit.
    #[serde(default)]
    pub egress: Option<BandwidthLimit>,
    /// The mark that the guest's packets carry (differentiated services, 0 to 63); `None` leaves the guest's own.
    #[serde(default)]
    pub dscp_mark: Option<u8>,
}

impl QosSpec {
    /// Whether nothing is limited or marked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The most that passes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthLimit {
    /// In the long run, in thousands of bits per second; 0 is taken as 1.
    pub rate_kbit: u64,
    /// At once, in thousands of bits; 0 is a default that follows from the rate.
    pub burst_kbit: u64,
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet that it is from.
    pub subnet_id: SubnetId,
    /// The address.
    pub address: IpAddr,
}

/// A set of filter rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupSpec {
    /// The group.
    pub id: SecurityGroupId,
    /// What it allows.
    pub rules: Vec<FilterRule>,
    /// The addresses of the group's own ports, everywhere: what rules with `remote_group` stand for.
    pub members: Vec<IpAddr>,
    /// The address groups that the rules name.
    #[serde(default)]
    pub address_groups: Vec<AddressGroupSpec>,
}

/// A named set of address ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroupSpec {
    /// The set.
    pub id: AddressGroupId,
    /// Its ranges, of both IP versions; they may overlap.
    pub addresses: Vec<ipnet::IpNet>,
}

/// Which way a packet goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// The IP version of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EtherType {
    /// IP version 4.
    #[serde(rename = "IPv4")]
    V4,
    /// IP version 6.
    #[serde(rename = "IPv6")]
    V6,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FilterRule {
    /// Which way.
    pub direction: Direction,
    /// Which IP version.
    pub ethertype: EtherType,
    /// The IP protocol's number; `None` is any.
    pub protocol: Option<u8>,
    /// The first port, or the ICMP type.
    pub port_min: Option<u16>,
    /// The last port, or the ICMP code.
    pub port_max: Option<u16>,
    /// The other side's range; `None` is any, unless `remote_group` is set.
    pub remote_cidr: Option<ipnet::IpNet>,
    /// The other side is a member of this group.
    pub remote_group: Option<SecurityGroupId>,
    /// The other side is in this address group, which the rule's security group brings along.
    #[serde(default)]
    pub remote_address_group: Option<AddressGroupId>,
}

/// A router as the node must build it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterSpec {
    /// The router.
    pub id: RouterId,
    /// Whether it forwards.
    pub admin_up: bool,
    /// Its legs on tenants' networks.
    pub interfaces: Vec<RouterInterfaceSpec>,
    /// Its leg on an external network.
    pub gateway: Option<RouterGatewaySpec>,
    /// External addresses that it translates.
    pub floating_ips: Vec<FloatingIpSpec>,
    /// Further routes: destination and next hop.
    pub routes: Vec<(ipnet::IpNet, IpAddr)>,
    /// Services of guests under external addresses that are not theirs alone.
    #[serde(default)]
    pub port_forwardings: Vec<PortForwardingSpec>,
}

/// A service of a guest under an external address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortForwardingSpec {
    /// The IP protocol's number: 6 (TCP), 17 (UDP), 33 (DCCP) or 132 (SCTP).
    pub protocol: u8,
    /// The external address.
    pub external: IpAddr,
    /// The first and the last external port.
    pub external_ports: (u16, u16),
    /// The guest's own address.
    pub internal: IpAddr,
    /// The first and the last of the guest's ports: as many as external ones, or one for all.
    pub internal_ports: (u16, u16),
}

/// A router's leg on a tenant's network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterInterfaceSpec {
    /// The leg's port.
    pub port_id: PortId,
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Its Ethernet address: the same on each node that carries the router. It never leaves the node.
    pub mac: MacAddr,
    /// Its addresses with their prefixes, of both IP versions.
    pub addresses: Vec<ipnet::IpNet>,
}

/// A router's leg on an external network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterGatewaySpec {
    /// The leg's port.
    pub port_id: PortId,
    /// The external network.
    pub network_id: NetworkId,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses with their prefixes.
    pub addresses: Vec<ipnet::IpNet>,
    /// Where packets go that no other route takes.
    pub next_hops: Vec<IpAddr>,
    /// Whether guests without an external address of their own may go out under the router's.
    pub snat: bool,
}

/// An external address that follows a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FloatingIpSpec {
    /// The floating IP.
    pub id: FloatingIpId,
    /// The external address.
    pub floating: IpAddr,
    /// The port's own address.
    pub fixed: IpAddr,
    /// How much may pass under the external address; marks have no part in it.
    #[serde(default)]
    pub qos: QosSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_of_an_older_server_are_read_with_defaults() {
        let port: PortSpec = serde_json::from_value(serde_json::json!({
            "id": PortId::new(), "server_id": null, "mac": "fa:16:3e:00:00:01", "addresses": [], "security_groups": [],
            "port_security": true, "admin_up": true, "hostname": "web-1",
        }))
        .unwrap();
        assert!(port.qos.is_empty() && port.dhcp_options.is_empty() && port.dns_domain.is_empty());
        let subnet: SubnetSpec = serde_json::from_value(serde_json::json!({
            "id": SubnetId::new(), "cidr": "fd00::/64", "gateway": null, "dhcp": true, "dns_servers": [],
            "host_routes": [],
        }))
        .unwrap();
        assert_eq!((subnet.ipv6_address_mode, subnet.ipv6_ra_mode), (None, None));
        let peer: PeerSpec = serde_json::from_str(r#"{"underlay": "192.0.2.1", "macs": []}"#).unwrap();
        assert!(peer.ports.is_empty());
    }

    #[test]
    fn modes_are_spelled_as_in_the_api() {
        for mode in [Ipv6Mode::Slaac, Ipv6Mode::DhcpStateful, Ipv6Mode::DhcpStateless] {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
    }
}
