//! Port forwardings, address groups, further DHCP options.

use crate::lab::*;
use crate::limits::outside;
use arcus_types::agent::*;
use arcus_types::ids::*;
use arcus_types::text::MacAddr;
use std::net::{IpAddr, SocketAddr};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

#[test]
fn ports_of_an_external_address_lead_to_guests_and_end_with_their_forwarding() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let external = lab.network("203.0.113.0/24");
        lab.networks[external].external = Some(ExternalSpec { gateway: "203.0.113.1/24".parse().unwrap() });
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        let router = lab.inner_router(&[net]);
        lab.routers[router].gateway = Some(RouterGatewaySpec {
            port_id: PortId::new(),
            network_id: lab.networks[external].id,
            mac: MacAddr::for_port([0xef, 0, 1]),
            addresses: vec!["203.0.113.2/24".parse().unwrap()],
            next_hops: vec![ip("203.0.113.1")],
            snat: true,
        });
        let forwarding = |external_ports, internal: &str, internal_ports| PortForwardingSpec {
            protocol: 6,
            external: ip("203.0.113.20"),
            external_ports,
            internal: ip(internal),
            internal_ports,
        };
        lab.routers[router].port_forwardings = vec![
            forwarding((2222, 2222), "10.0.0.5", (22, 22)),
            forwarding((8000, 8002), "10.0.0.6", (80, 82)),
            forwarding((9000, 9001), "10.0.0.6", (80, 80)),
        ];
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        guest_a.serve(22);
        for port in [80, 82] {
            guest_b.serve(port);
        }
        let outside = outside(lab, external, "203.0.113.50");
        let seen_as = |from: &Ns, port| {
            let mut stream = from.connect(at("203.0.113.20", port), DOUBT).ok()?;
            exchange(&mut stream, PATIENCE).ok()
        };
        assert!(outside.reaches(ip("203.0.113.20")));
        for port in [2222, 8000, 8002, 9000, 9001] {
            assert_eq!(seen_as(&outside, port).as_deref(), Some("203.0.113.50"), "{port}");
        }
        assert_eq!(seen_as(&outside, 8001), None, "nobody listens on 81");
        assert_eq!(seen_as(&outside, 22), None);
        // From the neighbour by the external address.
        assert_eq!(seen_as(&guest_a, 8000).as_deref(), Some("203.0.113.2"));

        let mut stream = outside.connect(at("203.0.113.20", 2222), PATIENCE).unwrap();
        exchange(&mut stream, PATIENCE).unwrap();
        let mut other = outside.connect(at("203.0.113.20", 8000), PATIENCE).unwrap();
        exchange(&mut other, PATIENCE).unwrap();
        lab.routers[router].port_forwardings.remove(0);
        lab.settle().await;
        assert!(exchange(&mut stream, DOUBT).is_err(), "the connection ends with its forwarding");
        assert_eq!(exchange(&mut other, PATIENCE).unwrap(), "203.0.113.50", "and no other does");
        assert_eq!(seen_as(&outside, 2222), None);

        // What makes no sense is told and does not hold up the rest.
        lab.routers[router].port_forwardings.push(forwarding((1, 9), "10.0.0.6", (1, 3)));
        let outcome = lab.reconcile().await;
        assert!(outcome.faults[0].contains("ranges of ports do not match"), "{:?}", outcome.faults);
        assert_eq!(seen_as(&outside, 8000).as_deref(), Some("203.0.113.50"));
    });
}

#[test]
fn an_address_group_lets_in_who_is_in_it() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let list = AddressGroupId::new();
        let mut listed = rule(Direction::Ingress, EtherType::V4, None, None);
        listed.remote_address_group = Some(list);
        let server = lab.group(vec![listed.clone(), FilterRule { ethertype: EtherType::V6, ..listed }]);
        // Ranges that overlap and both versions.
        let addresses = ["10.0.0.5/32", "10.0.0.4/31", "192.168.0.0/16", "fd00::/8"].map(|a| a.parse().unwrap());
        lab.group_mut(server).address_groups = vec![AddressGroupSpec { id: list, addresses: addresses.to_vec() }];
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        let c = lab.port(net, "10.0.0.7", &[server]);
        lab.settle().await;
        let (friend, stranger, guest) = (lab.guest(a).await, lab.guest(b).await, lab.guest(c).await);
        guest.serve(22);
        assert!(friend.reaches(ip("10.0.0.7")));
        assert!(stranger.misses(ip("10.0.0.7")));
        let mut stream = friend.connect(at("10.0.0.7", 22), PATIENCE).unwrap();
        exchange(&mut stream, PATIENCE).unwrap();
        lab.group_mut(server).address_groups[0].addresses = vec!["10.0.0.6/32".parse().unwrap()];
        lab.settle().await;
        assert!(exchange(&mut stream, DOUBT).is_err());
        assert!(stranger.reaches(ip("10.0.0.7")));
        // A list that nobody told us of has nobody in it.
        lab.group_mut(server).address_groups.clear();
        lab.settle().await;
        assert!(stranger.misses(ip("10.0.0.7")));
    });
}

#[test]
fn dhcp_tells_the_options_that_the_ports_owner_added() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let port = lab.port(net, "10.0.0.5", &[]);
        lab.port_mut(port).dns_domain = "example.org".into();
        let options = [
            ("bootfile-name", "pxelinux.0"),
            ("server-ip-address", "10.0.0.9"),
            ("tftp-server", "boot"),
            ("ntp-server", "10.0.0.8"),
            ("mtu", "1300"),
        ];
        lab.port_mut(port).dhcp_options =
            options.map(|(name, value)| DhcpOptionSpec::parse(false, name, value).unwrap()).to_vec();
        lab.settle().await;
        let guest = lab.plug(port).await;
        let script = crate::segments::dhcp_script();
        let told =
            guest.run(&format!("busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 -O bootfile -O tftp -O ntpsrv -s {script}"));
        std::fs::remove_file(&script).unwrap();
        for expected in [
            "domain='example.org'",
            "boot_file='pxelinux.0'",
            "bootfile='pxelinux.0'",
            "siaddr='10.0.0.9'",
            "tftp='boot'",
            "ntpsrv='10.0.0.8'",
            "mtu='1300'",
            "ip='10.0.0.5'",
        ] {
            assert!(told.contains(expected), "{expected} in {told}");
        }
    });
}
