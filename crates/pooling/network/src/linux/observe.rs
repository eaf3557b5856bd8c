//! Reads what a namespace holds, from the JSON that `ip` and `bridge` print.

use super::filter::SERVICE_ADDRESS6;
use super::plan::{Forward, LinkState, Neighbour, ROUTE_PROTOCOL, Route, State, Tunnel};
use super::programs::{self, Program};
use crate::NetworkError;
use arcus_types::text::MacAddr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Deserialize)]
struct LinkJson {
    ifname: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    group: String,
    address: Option<String>,
    master: Option<String>,
    linkinfo: Option<LinkInfoJson>,
    #[serde(default)]
    addr_info: Vec<AddressJson>,
}

#[derive(Deserialize)]
struct LinkInfoJson {
    #[serde(default)]
    info_kind: String,
    info_data: Option<InfoDataJson>,
    info_slave_data: Option<SlaveJson>,
}

#[derive(Deserialize)]
struct InfoDataJson {
    id: Option<u32>,
    local: Option<IpAddr>,
    local6: Option<IpAddr>,
}

#[derive(Deserialize)]
struct SlaveJson {
    learning: Option<bool>,
}

#[derive(Deserialize)]
struct AddressJson {
    local: Option<IpAddr>,
    prefixlen: Option<u8>,
    #[serde(default)]
    scope: String,
}

#[derive(Deserialize)]
struct RouteJson {
    dst: String,
    gateway: Option<IpAddr>,
    dev: Option<String>,
    prefsrc: Option<IpAddr>,
}

#[derive(Deserialize)]
struct NeighbourJson {
    dst: IpAddr,
    dev: String,
    lladdr: Option<String>,
}

#[derive(Deserialize)]
struct ForwardJson {
    mac: String,
    ifname: String,
    dst: Option<IpAddr>,
    #[serde(default)]
    state: String,
    master: Option<String>,
}

/// What is looked at besides devices, addresses, IPv4 routes and neighbours: each takes a process more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Forwarding tables.
    pub forwards: bool,
    /// IPv6 routes.
    pub routes6: bool,
}

/// What the calling thread's namespace holds. Devices whose name does not begin with `prefix` are not ours and left out.
pub fn state(place: &str, prefix: &str, wanted: Wanted) -> Result<State, NetworkError> {
    let mut state = State::default();
    let shown = programs::ask(
        place,
        Program::Ip,
        &["-j", "-d", "-batch", "-"],
        &format!("addr show\nroute show proto {ROUTE_PROTOCOL}\nneigh show nud permanent\n"),
    )?;
    let mut documents = serde_json::Deserializer::from_str(&shown).into_iter::<serde_json::Value>();
    let mut next = || documents.next().and_then(Result::ok).unwrap_or_default();
    let (links, routes, neighbours) = (next(), next(), next());
    for link in rows::<LinkJson>(place, links)? {
        let name = link.ifname.clone();
        if name == "lo" || !name.starts_with(prefix) {
            state.foreign.extend(link_state(link).addresses.into_iter().map(|address| (name.clone(), address)));
        } else {
            state.links.insert(name, link_state(link));
        }
    }
    routes_add(rows(place, routes)?, &mut state);
    if wanted.routes6 {
        let protocol = ROUTE_PROTOCOL.to_string();
        let shown = programs::ask(place, Program::Ip, &["-6", "-j", "route", "show", "proto", &protocol], "")?;
        routes_add(parse(place, &shown)?, &mut state);
    }
    for NeighbourJson { dst, dev, lladdr } in rows(place, neighbours)? {
        if let Some(mac) = lladdr.and_then(|text| text.parse().ok())
            && state.links.contains_key(&dev)
        {
            state.neighbours.insert(Neighbour { address: dst, mac, device: dev });
        }
    }
    if wanted.forwards {
        let shown = programs::ask(place, Program::Bridge, &["-j", "fdb", "show"], "")?;
        forwards_add(parse(place, &shown)?, &mut state);
    }
    Ok(state)
}

fn link_state(link: LinkJson) -> LinkState {
    let info = link.linkinfo;
    let tunnel = info
        .as_ref()
        .and_then(|info| info.info_data.as_ref())
        .and_then(|data| Some(Tunnel { segment: data.id?, local: data.local.or(data.local6)? }));
    let learning = info.as_ref().and_then(|info| info.info_slave_data.as_ref()?.learning).unwrap_or(true);
    let kind = info.map(|info| info.info_kind).unwrap_or_default();
    LinkState {
        tunnel: tunnel.filter(|_| kind == "vxlan"),
        kind: if kind.is_empty() { "physical".to_owned() } else { kind },
        mac: link.address.and_then(|text| text.parse().ok()),
        mtu: link.mtu,
        up: link.flags.iter().any(|flag| flag == "UP"),
        master: link.master,
        learning,
        group: if link.group == "default" { 0 } else { link.group.parse().unwrap_or(u32::MAX) },
        // The kernel makes link-local addresses of its own.
        addresses: link
            .addr_info
            .iter()
            .filter(|a| a.scope != "link" || a.local.is_some_and(|ip| ip.is_ipv4() || ip == SERVICE_ADDRESS6))
            .filter_map(|a| IpNet::new(a.local?, a.prefixlen?).ok())
            .collect(),
    }
}

fn routes_add(routes: Vec<RouteJson>, state: &mut State) {
    for RouteJson { dst, gateway, dev, prefsrc } in routes {
        let Some(device) = dev.filter(|dev| state.links.contains_key(dev)) else { continue };
        let v6 = gateway.or(prefsrc).is_some_and(|a| a.is_ipv6());
        let destination = match dst.as_str() {
            "default" if v6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
            "default" => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            text => match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(destination) => destination,
                Err(_) => continue,
            },
        };
        state.routes.insert(Route { destination, via: gateway, device, source: prefsrc });
    }
}

fn forwards_add(entries: Vec<ForwardJson>, state: &mut State) {
    let mut found = BTreeSet::new();
    for ForwardJson { mac, ifname, dst, state: kind, master } in entries {
        let Ok(mac) = mac.parse::<MacAddr>() else { continue };
        let on_tunnel = dst.is_some() && kind == "permanent";
        if state.links.contains_key(&ifname) && (on_tunnel || (kind == "static" && master.is_some())) {
            found.insert(Forward { mac, device: ifname, underlay: dst });
        }
    }
    state.forwards = found;
}

fn parse<T: for<'de> Deserialize<'de>>(place: &str, text: &str) -> Result<Vec<T>, NetworkError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value = serde_json::from_str(text).map_err(|error| unreadable(place, &error))?;
    rows(place, value)
}

fn rows<T: for<'de> Deserialize<'de>>(place: &str, value: serde_json::Value) -> Result<Vec<T>, NetworkError> {
    let serde_json::Value::Array(rows) = value else { return Ok(Vec::new()) };
    rows.into_iter()
        // Older versions print empty objects for rows that they filtered out.
        .filter(|row| row.as_object().is_none_or(|o| !o.is_empty()))
        .map(|row| serde_json::from_value(row).map_err(|error| unreadable(place, &error)))
        .collect()
}

fn unreadable(place: &str, error: &serde_json::Error) -> NetworkError {
    NetworkError::Refused {
        program: "ip",
        place: place.to_owned(),
        message: format!("its answer could not be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_iproute2_prints_them() {
        let text = r#"[{},{"ifindex":2,"ifname":"p1","flags":["BROADCAST","UP"],"mtu":1450,"group":"5","master":"br",
            "address":"2a:1d:e0:48:07:af","linkinfo":{"info_kind":"tun","info_data":{"type":"tap","vnet_hdr":true},
            "info_slave_kind":"bridge","info_slave_data":{"learning":true}},"addr_info":[]},
            {"ifname":"vx","flags":[],"mtu":1450,"group":"default","linkinfo":{"info_kind":"vxlan",
            "info_data":{"id":5,"local":"127.0.0.1","port":4789},"info_slave_data":{"learning":false}},"addr_info":[
            {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"},
            {"family":"inet","local":"169.254.169.254","prefixlen":32,"scope":"link"}]}]"#;
        let links: Vec<LinkState> = parse::<LinkJson>("x", text).unwrap().into_iter().map(link_state).collect();
        assert_eq!((links[0].group, links[0].up, links[0].master.as_deref()), (5, true, Some("br")));
        assert_eq!(links[1].tunnel, Some(Tunnel { segment: 5, local: "127.0.0.1".parse().unwrap() }));
        assert!(!links[1].learning);
        assert_eq!(links[1].addresses.len(), 1);
    }
}
