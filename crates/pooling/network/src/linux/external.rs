//! External networks: bridges in the agent's own namespace, and the guard that keeps guests' packets off the machine.

use super::names::{DeviceName, Tag};
use super::plan::{Link, LinkKind, Plan};
use arcus_types::agent::{NetworkSpec, RouterSpec};
use arcus_types::text::MacAddr;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Where an address range is in use on the machine already: the device and its address there.
pub fn taken<'a>(range: &IpNet, foreign: &'a BTreeSet<(String, IpNet)>) -> Option<&'a (String, IpNet)> {
    foreign.iter().find(|(_, other)| other.trunc().contains(range) || range.contains(&other.trunc()))
}

/// Plans what of ours is in the agent's own namespace.
pub fn plan<'a>(
    networks: impl Iterator<Item = &'a NetworkSpec>,
    routers: &[RouterSpec],
    tag: &Tag,
    uplink: Option<&DeviceName>,
) -> Plan {
    let mut plan = Plan::default();
    let mut bridges = BTreeMap::new();
    for network in networks {
        let Some(external) = &network.external else { continue };
        let bridge = tag.external_bridge(network.id);
        let mut link = Link::new(LinkKind::Bridge, network.mtu);
        // Of its own, or it would change with what is plugged into the bridge, and neighbours would lose it.
        let id = network.id.0.as_bytes();
        link.mac = Some(MacAddr([0x02, 0xa7, id[12], id[13], id[14], id[15]]));
        link.addresses.insert(external.gateway);
        plan.links.insert(bridge.clone(), link);
        if external.gateway.addr().is_ipv4() {
            plan.device_settings.push((format!("ipv6/conf/{bridge}/disable_ipv6"), "1".to_owned()));
        }
        plan.device_settings.push((format!("ipv4/conf/{bridge}/send_redirects"), "0".to_owned()));
        for leg in routers.iter().filter_map(|r| r.gateway.as_ref()).filter(|leg| leg.network_id == network.id) {
            let name = tag.external_leg(leg.port_id);
            let mut link = Link::new(LinkKind::CableEnd, network.mtu);
            link.master = Some(bridge.clone());
            plan.device_settings.push((format!("ipv6/conf/{name}/disable_ipv6"), "1".to_owned()));
            plan.links.insert(name, link);
        }
        if let Some(uplink) = uplink {
            let version = if external.gateway.addr().is_ipv4() { "ipv4" } else { "ipv6" };
            for device in [bridge.as_str(), uplink.as_str()] {
                plan.device_settings.push((format!("{version}/conf/{device}/forwarding"), "1".to_owned()));
            }
        }
        bridges.insert(bridge, external.gateway.trunc());
    }
    plan.tables = vec![("inet", tag.guard_table())];
    plan.rules = guard(tag, &bridges, uplink);
    plan
}

/// The text for `nft -f`; without external networks there is no table.
fn guard(tag: &Tag, bridges: &BTreeMap<String, IpNet>, uplink: Option<&DeviceName>) -> String {
    if bridges.is_empty() {
        return String::new();
    }
    let mut out = format!("table inet {} {{\n", tag.guard_table());
    // Before anything that the machine's owner may have: a verdict to accept elsewhere does not undo a drop here.
    let _ = writeln!(out, "chain forward {{\ntype filter hook forward priority -5; policy accept;");
    for bridge in bridges.keys() {
        // The machine may show bridged frames to this chain.
        let _ = writeln!(out, "iifname \"{bridge}\" oifname \"{bridge}\" accept");
        if let Some(uplink) = uplink {
            let _ = writeln!(out, "iifname \"{bridge}\" oifname \"{uplink}\" accept");
            let _ = writeln!(out, "iifname \"{uplink}\" oifname \"{bridge}\" ct state established,related accept");
        }
        let _ = writeln!(out, "iifname \"{bridge}\" drop\noifname \"{bridge}\" drop");
    }
    let _ = writeln!(out, "}}\nchain input {{\ntype filter hook input priority -5; policy accept;");
    for bridge in bridges.keys() {
        let _ = writeln!(out, "iifname \"{bridge}\" ct state established,related accept");
        let _ = writeln!(out, "iifname \"{bridge}\" icmp type echo-request accept");
        let _ = writeln!(
            out,
            "iifname \"{bridge}\" icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert }} accept"
        );
        let _ = writeln!(out, "iifname \"{bridge}\" drop");
    }
    // Also when a bridge is gone and its route with it, what is meant for guests goes nowhere else.
    let _ = writeln!(out, "}}\nchain departure {{\ntype filter hook postrouting priority 50; policy accept;");
    for (bridge, range) in bridges {
        let family = family(range);
        let _ = writeln!(out, "oifname != {{ \"{bridge}\", \"lo\" }} {family} daddr {range} drop");
    }
    out.push_str("}\n");
    if let Some(uplink) = uplink {
        let _ = writeln!(out, "chain translate {{\ntype nat hook postrouting priority 100; policy accept;");
        for range in bridges.values() {
            let _ = writeln!(out, "oifname \"{uplink}\" {} saddr {range} masquerade", family(range));
        }
        out.push_str("}\n");
    }
    out.push_str("}\n");
    out
}

fn family(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}
