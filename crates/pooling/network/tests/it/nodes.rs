//! Two nodes in one test: the second is a driver in a namespace of its own, a cable joins them.

use crate::lab::*;
use crate::wire::{Wire, link_local};
use arcus_network::{Linux, LinuxConfig, Network, Tag};
use arcus_types::agent::*;
use arcus_types::ids::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The second node, with the same networks, routers and groups as the first.
fn second(lab: &Lab, underlay: IpAddr) -> Lab {
    let own = Ns::new();
    lab.own.cable("under0", "192.0.2.1/24", &own, &format!("{underlay}/24"));
    let tag: Tag = uuid::Uuid::new_v4().simple().to_string()[..4].parse().unwrap();
    let config = LinuxConfig { tag, uplink: None, underlay: Some(underlay), directory: Arc::new(Directory) };
    let driver = own.inside(|| Linux::new(config.clone()).unwrap());
    let (networks, routers, groups) = (lab.networks.clone(), lab.routers.clone(), lab.groups.clone());
    Lab { own, tag: config.tag, driver, networks, routers, groups }
}

/// Keeps the ports of `here` and tells of the others as the other node's.
fn place(lab: &mut Lab, all: &[NetworkSpec], here: &[PortId], other: IpAddr) {
    lab.networks = all.to_vec();
    for network in &mut lab.networks {
        let (ours, theirs): (Vec<PortSpec>, Vec<PortSpec>) =
            network.ports.drain(..).partition(|port| here.contains(&port.id));
        network.ports = ours;
        let ports: Vec<PeerPort> = theirs
            .iter()
            .map(|port| PeerPort {
                mac: port.mac,
                addresses: port.addresses.iter().map(|fixed| fixed.address).collect(),
                hostname: port.hostname.clone(),
                dns_domain: String::new(),
            })
            .collect();
        network.peers = vec![PeerSpec {
            underlay: other,
            macs: theirs.iter().map(|port| port.mac).collect(),
            ports,
            moving: vec![],
        }];
    }
}

#[test]
fn a_router_spans_nodes_and_each_guest_uses_the_one_on_its_own() {
    let nodes = [ip("192.0.2.1"), ip("192.0.2.2")];
    lab_with(
        move |config| config.underlay = Some(nodes[0]),
        async move |lab| {
            let all = lab.open_group();
            let web = lab.group(vec![rule(Direction::Ingress, EtherType::V4, Some(6), Some(80))]);
            let (red, blue) = (lab.network("10.0.0.0/24"), lab.network("10.0.1.0/24"));
            let green = lab.network("fd00:a::/64");
            let white = lab.network("fd00:b::/64");
            lab.mode(green, Ipv6Mode::Slaac);
            lab.mode(white, Ipv6Mode::Slaac);
            let (a, a2) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
            let (b, b2) = (lab.port(blue, "10.0.1.5", &[all]), lab.port(blue, "10.0.1.6", &[web]));
            let (e, f) = (lab.port(blue, "10.0.1.7", &[all]), lab.port(blue, "10.0.1.8", &[all]));
            let (c, c_ip) = lab.port_eui64(green, &[all]);
            let (d, d_ip) = lab.port_eui64(white, &[all]);
            lab.inner_router(&[red, blue, green, white]);
            let networks = lab.networks.clone();
            let mut other = second(lab, nodes[1]);
            place(lab, &networks, &[a, b, c, e], nodes[1]);
            place(&mut other, &networks, &[a2, b2, d, f], nodes[0]);
            lab.settle().await;
            other.settle().await;
            let (guest_a, guest_b, guest_c) = (lab.guest(a).await, lab.guest(b).await, lab.plug(c).await);
            let (guest_a2, guest_b2, guest_d) = (other.guest(a2).await, other.guest(b2).await, other.plug(d).await);

            // The same segment, the same node by the router, the other node by the router; both ways.
            assert!(guest_a.reaches(ip("10.0.0.6")) && guest_a2.reaches(ip("10.0.0.5")), "segment");
            assert!(guest_a.reaches(ip("10.0.1.5")), "router on one node");
            assert!(guest_a2.reaches(ip("10.0.1.5")) && guest_b.reaches(ip("10.0.0.6")), "router between nodes");
            assert!(guest_a.reaches(ip("10.0.0.1")) && guest_a2.reaches(ip("10.0.0.1")), "each has its gateway");

            // Filters hold across nodes, and a connection too, while neighbours come and go.
            guest_b2.serve(80);
            guest_b2.serve(22);
            let mut stream = guest_a.connect(SocketAddr::new(ip("10.0.1.6"), 80), PATIENCE).unwrap();
            assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.5");
            assert!(guest_a.connect(SocketAddr::new(ip("10.0.1.6"), 22), DOUBT).is_err());
            assert!(guest_a.misses(ip("10.0.1.6")));
            guest_a.run("ip neigh flush dev eth0");
            guest_b2.run("ip neigh flush dev eth0");
            assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.5");

            // IPv6 as well: each node's guests hear their own node's advertisements.
            assert!(eventually(|| guest_d.run("ip -6 addr show dev eth0").contains(&d_ip.to_string())));
            assert!(eventually(|| guest_c.run("ip -6 addr show dev eth0").contains(&c_ip.to_string())));
            assert!(guest_c.reaches(d_ip) && guest_d.reaches(c_ip), "IPv6 between nodes");
            let router = link_local(lab.routers[0].interfaces[3].mac);
            assert!(guest_d.run("ip -6 route show default").contains(&router.to_string()));

            // What a leg asks is heard on its own node and not on the other.
            let (near, far) = (Wire::at(lab, e).await, Wire::at(&other, f).await);
            let leg = lab.routers[0].interfaces[1].mac;
            let asks = |frame: &[u8]| (frame[12..14] == [8, 6] && frame[6..12] == leg.0).then_some(());
            assert!(eventually(|| {
                guest_a.try_run("ping -n -c 1 -W 0.2 10.0.1.99");
                near.hear(DOUBT, asks).is_some()
            }));
            assert!(far.hear(DOUBT, asks).is_none());

            // A guest moves over, and the routers know where it is now.
            place(lab, &networks, &[a, a2, b, c, e], nodes[1]);
            place(&mut other, &networks, &[b2, d, f], nodes[0]);
            other.settle().await;
            lab.settle().await;
            let moved = lab.guest(a2).await;
            assert!(guest_b.reaches(ip("10.0.0.6")) && guest_b2.try_run("ip neigh flush dev eth0").status.success());
            let mut stream = moved.connect(SocketAddr::new(ip("10.0.1.6"), 80), PATIENCE).unwrap();
            assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.6");

            other.driver.teardown().await.unwrap();
            lab.own.run("ip link del dev under0");
        },
    );
}
