//! Routers, floating IPs, the external network and its guard.

use crate::lab::*;
use arcus_network::Network;
use arcus_types::agent::*;
use arcus_types::ids::*;
use arcus_types::text::MacAddr;
use std::net::{IpAddr, SocketAddr};

const OUTSIDE: &str = "203.0.113.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// An external network 203.0.113.0/24 and a router 203.0.113.2 with a leg (first address) on each of the networks.
fn router(lab: &mut Lab, networks: &[usize]) {
    let external = lab.networks.iter().find(|n| n.external.is_some()).map(|n| n.id);
    let external = external.unwrap_or_else(|| {
        let net = lab.network("203.0.113.0/24");
        lab.networks[net].external = Some(ExternalSpec { gateway: "203.0.113.1/24".parse().unwrap() });
        lab.networks[net].id
    });
    let number = lab.routers.len() as u8;
    let legs = networks.iter().map(|net| {
        let network = &lab.networks[*net];
        let (gateway, prefix) = (network.subnets[0].gateway.unwrap(), network.subnets[0].cidr.prefix_len());
        RouterInterfaceSpec {
            port_id: PortId::new(),
            network_id: network.id,
            mac: MacAddr::for_port([0xee, number, *net as u8]),
            addresses: vec![ipnet::IpNet::new(gateway, prefix).unwrap()],
        }
    });
    let interfaces = legs.collect();
    lab.routers.push(RouterSpec {
        id: RouterId::new(),
        admin_up: true,
        interfaces,
        gateway: Some(RouterGatewaySpec {
            port_id: PortId::new(),
            network_id: external,
            mac: MacAddr::for_port([0xef, 0, number]),
            addresses: vec![format!("203.0.113.{}/24", 2 + number).parse().unwrap()],
            next_hops: vec![ip(OUTSIDE)],
            snat: true,
        }),
        floating_ips: vec![],
        routes: vec![],
        port_forwardings: vec![],
    });
}

fn floating(external: &str, fixed: &str) -> FloatingIpSpec {
    FloatingIpSpec { id: FloatingIpId::new(), floating: ip(external), fixed: ip(fixed), qos: QosSpec::default() }
}

#[test]
fn an_external_range_that_the_machine_uses_is_refused() {
    lab(async |lab| {
        let red = lab.network("10.0.0.0/24");
        router(lab, &[red]);
        let world = Ns::new();
        lab.own.cable("real0", "203.0.0.7/16", &world, "");
        let outcome = lab.reconcile().await;
        assert!(outcome.faults[0].contains("203.0.0.7/16 on real0 already"), "{:?}", outcome.faults);
        drop(world);
    });
}

/// The address under which a guest shows up outside.
fn seen_as(guest: &Ns, address: SocketAddr) -> Option<String> {
    exchange(&mut guest.connect(address, PATIENCE).ok()?, PATIENCE).ok()
}

#[test]
fn guests_reach_other_segments_and_the_outside_under_the_routers_address() {
    lab(async |lab| {
        let all = lab.open_group();
        let (red, blue) = (lab.network("10.0.0.0/24"), lab.network("10.0.1.0/24"));
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(blue, "10.0.1.5", &[all]));
        router(lab, &[red, blue]);
        lab.settle().await;
        let (guest_a, _guest_b) = (lab.guest(a).await, lab.guest(b).await);
        assert!(guest_a.reaches(ip("10.0.0.1")), "the router's leg answers");
        assert!(guest_a.reaches(ip("10.0.1.5")), "the other segment");
        assert!(guest_a.reaches(ip(OUTSIDE)), "the machine answers pings");
        // The machine takes no new connections from guests, so the outside is played by one more namespace.
        let outside = outside(lab, "203.0.113.50");
        outside.serve(7000);
        assert_eq!(seen_as(&guest_a, at("203.0.113.50", 7000)).unwrap(), "203.0.113.2");
        lab.own.serve(7001);
        assert!(guest_a.connect(at(OUTSIDE, 7001), DOUBT).is_err());
        // From outside nobody reaches a guest's own address by the router.
        outside.run("ip route add 10.0.0.0/24 via 203.0.113.2");
        assert!(outside.misses(ip("10.0.0.5")));
        // The metadata service is there as well, by the default route.
        assert_eq!(metadata(&guest_a, "GET /x").unwrap().1, format!("{a} /x"));

        lab.routers[0].admin_up = false;
        lab.settle().await;
        assert!(guest_a.misses(ip("10.0.1.5")) && guest_a.misses(ip(OUTSIDE)));
    });
}

/// A namespace on the external bridge: a machine that is not part of the cloud.
fn outside(lab: &Lab, address: &str) -> Ns {
    let external = lab.networks.iter().find(|n| n.external.is_some()).unwrap();
    let bridge = lab.tag.external_bridge(external.id);
    let ns = Ns::new();
    let index = address.rsplit('.').next().unwrap();
    let near = format!("out{index}");
    lab.own.cable(&near, "", &ns, &format!("{address}/24"));
    lab.own.run(&format!("ip link set dev {near} master {bridge}"));
    ns
}

#[test]
fn a_floating_ip_works_from_the_machine_and_between_guests_and_ends_with_its_connections() {
    lab(async |lab| {
        let all = lab.open_group();
        let red = lab.network("10.0.0.0/24");
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
        router(lab, &[red]);
        lab.routers[0].floating_ips = vec![floating("203.0.113.20", "10.0.0.5")];
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        guest_a.serve(22);
        guest_b.serve(22);
        assert!(lab.own.reaches(ip("203.0.113.20")));
        let mut stream = lab.own.connect(at("203.0.113.20", 22), PATIENCE).unwrap();
        assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), OUTSIDE);

        // Outwards the guest shows its floating address, another the router's.
        let outside = outside(lab, "203.0.113.50");
        outside.serve(7000);
        assert_eq!(seen_as(&guest_a, at("203.0.113.50", 7000)).unwrap(), "203.0.113.20");
        assert_eq!(seen_as(&guest_b, at("203.0.113.50", 7000)).unwrap(), "203.0.113.2");

        // Hairpin: a guest reaches its neighbour by the floating address, and itself too.
        assert_eq!(seen_as(&guest_b, at("203.0.113.20", 22)).unwrap(), "203.0.113.2");
        assert_eq!(seen_as(&guest_a, at("203.0.113.20", 22)).unwrap(), "203.0.113.20");

        // It moves to the other guest: the machine learns at once, the old connection ends.
        lab.routers[0].floating_ips[0].fixed = ip("10.0.0.6");
        lab.settle().await;
        assert!(exchange(&mut stream, DOUBT).is_err());
        assert_eq!(seen_as(&lab.own, at("203.0.113.20", 22)).unwrap(), OUTSIDE);

        lab.routers[0].floating_ips.clear();
        lab.settle().await;
        assert!(lab.own.misses(ip("203.0.113.20")));
    });
}

#[test]
fn a_floating_ip_moves_between_routers_and_the_machine_hears_of_it() {
    lab(async |lab| {
        let all = lab.open_group();
        let (red, blue) = (lab.network("10.0.0.0/24"), lab.network("10.0.0.0/24"));
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(blue, "10.0.0.5", &[all]));
        router(lab, &[red]);
        router(lab, &[blue]);
        lab.routers[0].floating_ips = vec![floating("203.0.113.20", "10.0.0.5")];
        lab.settle().await;
        let (_a, _b) = (lab.guest(a).await, lab.guest(b).await);
        assert!(lab.own.reaches(ip("203.0.113.20")));
        let moved = lab.routers[0].floating_ips.drain(..).collect();
        lab.routers[1].floating_ips = moved;
        lab.settle().await;
        let now = lab.own.run("ip neigh show 203.0.113.20");
        assert!(now.contains("fa:16:3e:ef:00:01"), "{now}");
        assert!(lab.own.reaches(ip("203.0.113.20")));
    });
}

#[test]
fn packets_for_the_external_range_never_leave_by_the_machines_own_link() {
    lab(async |lab| {
        let red = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let port = lab.port(red, "10.0.0.5", &[all]);
        router(lab, &[red]);
        // The machine's real link, with a default route and forwarding switched on by its owner.
        lab.own.run("ip link add name real0 type veth peer name wire0");
        lab.own.run("ip link set real0 up");
        lab.own.run("ip link set wire0 up");
        lab.own.run("ip addr add 192.0.2.2/24 dev real0");
        lab.own.run("ip route add default via 192.0.2.1");
        lab.own.run("ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev real0 nud permanent");
        lab.own.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        lab.settle().await;
        let guest = lab.guest(port).await;
        assert!(guest.reaches(ip(OUTSIDE)));
        let sent = || -> u64 {
            let text = lab.own.run("ip -s -j link show dev real0");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            json[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
        };
        lab.own.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/real0/disable_ipv6", "1").unwrap());
        let before = sent();
        assert!(guest.misses(ip("198.51.100.7")), "the guest may not use the machine as a router");
        lab.own.serve(7000);
        assert!(guest.connect(at("192.0.2.2", 7000), DOUBT).is_err(), "nor reach its other addresses");
        // The bridge goes down, and with it the route: the default route would take the packets.
        let bridge = lab.tag.external_bridge(lab.networks[1].id);
        lab.own.run(&format!("ip link set {bridge} down"));
        assert!(lab.own.misses(ip("203.0.113.99")));
        assert_eq!(sent(), before);
        // The other way round: what is not for guests still goes.
        assert!(lab.own.misses(ip("198.51.100.7")));
        assert!(sent() > before);
        lab.own.run("ip link del real0");
    });
}

#[test]
fn an_uplink_lets_guests_out_and_only_answers_in() {
    lab_with(
        |config| config.uplink = Some("real0".parse().unwrap()),
        async |lab| {
            let red = lab.network("10.0.0.0/24");
            let all = lab.open_group();
            let port = lab.port(red, "10.0.0.5", &[all]);
            router(lab, &[red]);
            lab.routers[0].floating_ips = vec![floating("203.0.113.20", "10.0.0.5")];
            let world = Ns::new();
            lab.own.cable("real0", "192.0.2.2/24", &world, "192.0.2.1/24");
            world.run("ip route add 203.0.113.0/24 via 192.0.2.2");
            lab.settle().await;
            let guest = lab.guest(port).await;
            world.serve(7000);
            assert_eq!(seen_as(&guest, at("192.0.2.1", 7000)).unwrap(), "192.0.2.2");
            assert!(world.misses(ip("203.0.113.20")));
            let forwarding =
                || lab.own.inside(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/real0/forwarding").unwrap());
            assert_eq!(forwarding(), "1\n");
            lab.driver.teardown().await.unwrap();
            assert_eq!(forwarding(), "0\n");
            lab.own.run("ip link del real0");
        },
    );
}
