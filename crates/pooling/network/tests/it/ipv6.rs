//! IPv6: advertisements, addresses by guests' own making and by DHCP, routers, metadata.

use crate::lab::*;
use crate::wire::*;
use arcus_types::agent::*;
use arcus_types::text::MacAddr;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn has(guest: &Ns, command: &str, text: &str) -> bool {
    eventually(|| guest.run(command).contains(text))
}

#[test]
fn guests_make_addresses_and_reach_another_segment_by_what_their_router_tells() {
    lab(async |lab| {
        let all = lab.open_group();
        let (red, blue) = (lab.network("fd00:a::/64"), lab.network("fd00:b::/64"));
        lab.mode(red, Ipv6Mode::Slaac);
        lab.mode(blue, Ipv6Mode::Slaac);
        let ((a, a_ip), (b, b_ip)) = (lab.port_eui64(red, &[all]), lab.port_eui64(blue, &[all]));
        lab.inner_router(&[red, blue]);
        lab.settle().await;
        let (guest_a, guest_b) = (lab.plug(a).await, lab.plug(b).await);
        assert!(has(&guest_a, "ip -6 addr show dev eth0", &a_ip.to_string()), "{a_ip}");
        assert!(has(&guest_b, "ip -6 addr show dev eth0", &b_ip.to_string()));
        let router = link_local(lab.routers[0].interfaces[0].mac);
        assert!(has(&guest_a, "ip -6 route show default", &format!("via {router} dev eth0 proto ra")));
        assert!(guest_a.run("ip -6 route show default").contains("expires"));
        assert!(guest_a.reaches(b_ip) && guest_b.reaches(a_ip));
        assert!(guest_a.reaches(ip("fd00:a::1")), "the leg's own address");
        guest_b.serve6(22);
        let mut stream = guest_a.connect(SocketAddr::new(b_ip, 22), PATIENCE).unwrap();
        assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), a_ip.to_string());

        // The leg goes and is called back: the guest forgets its router and keeps its address.
        lab.routers[0].interfaces.remove(0);
        lab.settle().await;
        assert!(eventually(|| guest_a.run("ip -6 route show default").is_empty()));
        assert!(guest_a.run("ip -6 addr show dev eth0").contains(&a_ip.to_string()));
        assert!(guest_a.misses(b_ip));
    });
}

#[test]
fn an_advertisement_says_what_the_mode_says() {
    lab(async |lab| {
        for (number, mode, flags, prefix_flags) in [
            (1, Ipv6Mode::Slaac, 0x00, 0xc0),
            (2, Ipv6Mode::DhcpStateless, 0x40, 0xc0),
            (3, Ipv6Mode::DhcpStateful, 0x80, 0x80),
        ] {
            let net = lab.network(&format!("fd00:{number}::/64"));
            lab.mode(net, mode);
            let port = lab.port(net, &format!("fd00:{number}::5"), &[]);
            lab.inner_router(&[net]);
            lab.settle().await;
            let wire = Wire::at(lab, port).await;
            // Unasked, soon after the port has come.
            let unasked = wire.hear(PATIENCE, |frame| icmp6(frame).filter(|m| m[0] == 134).map(<[u8]>::to_vec));
            let mac = lab.port_mut(port).mac;
            wire.drain();
            let all_routers = "ff02::2".parse().unwrap();
            let macs = (mac, "33:33:00:00:00:02".parse().unwrap());
            wire.send(&ip6(macs, (link_local(mac), all_routers), 58, &[133, 0, 0, 0, 0, 0, 0, 0], 2));
            let asked = wire.hear(PATIENCE, |frame| {
                let to_me = frame[..6] == mac.0;
                icmp6(frame).filter(|m| to_me && m[0] == 134).map(|m| (m.to_vec(), frame[22..38].to_vec()))
            });
            let (message, source) = asked.unwrap();
            assert_eq!(unasked.unwrap()[4..], message[4..]);
            assert_eq!(source, link_local(lab.routers[number - 1].interfaces[0].mac).octets());
            assert_eq!((message[5], message[6..8].to_vec()), (flags, 9000_u16.to_be_bytes().to_vec()));
            let at = |kind: u8| {
                let mut rest = &message[16..];
                while rest[0] != kind {
                    rest = &rest[usize::from(rest[1]) * 8..];
                }
                rest[..usize::from(rest[1]) * 8].to_vec()
            };
            assert_eq!(at(5)[4..], 1450_u32.to_be_bytes());
            assert_eq!(at(3)[2..4], [64, prefix_flags]);
            assert_eq!(at(25)[8..], "fd00::53".parse::<Ipv6Addr>().unwrap().octets());
        }
    });
}

#[test]
fn without_a_router_guests_of_a_segment_still_reach_each_other() {
    lab(async |lab| {
        let all = lab.open_group();
        let net = lab.network("fd00:a::/64");
        lab.mode(net, Ipv6Mode::Slaac);
        let ((a, a_ip), (b, b_ip)) = (lab.port_eui64(net, &[all]), lab.port_eui64(net, &[all]));
        lab.settle().await;
        let (guest_a, guest_b) = (lab.plug(a).await, lab.plug(b).await);
        assert!(has(&guest_a, "ip -6 addr show dev eth0", &a_ip.to_string()));
        assert!(has(&guest_b, "ip -6 addr show dev eth0", &b_ip.to_string()));
        assert!(guest_a.reaches(b_ip));
        assert_eq!(guest_a.run("ip -6 route show default"), "");
    });
}

/// Sends a DHCPv6 message and returns the answer, as a client does.
fn dhcp6(guest: &Ns, message: &[u8]) -> Option<Vec<u8>> {
    let scope = guest.inside(|| nix::net::if_::if_nametoindex("eth0").unwrap());
    let usable = || !guest.run("ip -6 addr show dev eth0 scope link").contains("tentative");
    assert!(eventually(usable));
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 546, 0, 0);
    let socket = guest.inside(|| UdpSocket::bind(any).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let servers = SocketAddrV6::new("ff02::1:2".parse().unwrap(), 547, 0, scope);
    socket.send_to(message, servers).unwrap();
    let mut buffer = vec![0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!((from.ip(), from.port()), (ip("fe80::a9fe:a9fe"), 547));
    buffer.truncate(length);
    Some(buffer)
}

fn client() -> Vec<u8> {
    vec![0, 1, 0, 10, 0, 3, 0, 1, 2, 2, 2, 2, 2, 2]
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn dhcp_gives_the_ports_address_and_the_rest_where_the_mode_says_so() {
    lab(async |lab| {
        let all = lab.open_group();
        let (stateful, stateless) = (lab.network("fd00:a::/64"), lab.network("fd00:b::/64"));
        lab.mode(stateful, Ipv6Mode::DhcpStateful);
        lab.mode(stateless, Ipv6Mode::DhcpStateless);
        let a = lab.port(stateful, "fd00:a::5", &[all]);
        let (b, b_ip) = lab.port_eui64(stateless, &[all]);
        lab.port_mut(a).dns_domain = "example.org".into();
        lab.port_mut(b).dhcp_options = vec![DhcpOptionSpec::parse(true, "bootfile-url", "tftp://x/y").unwrap()];
        lab.inner_router(&[stateful, stateless]);
        lab.settle().await;
        let (guest_a, guest_b) = (lab.plug(a).await, lab.plug(b).await);

        let association = [0, 3, 0, 12, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];
        let solicit = [&[1, 1, 2, 3][..], &client(), &association].concat();
        let offer = dhcp6(&guest_a, &solicit).unwrap();
        assert_eq!(offer[..4], [2, 1, 2, 3]);
        let own = "fd00:a::5".parse::<Ipv6Addr>().unwrap().octets();
        assert!(find(&offer, &own) && find(&offer, b"\x07example\x03org\0"));
        let server = [0, 2, 0, 10, 0, 3, 0, 1, 2, 0, 0xa9, 0xfe, 0xa9, 0xfe];
        let request = [&[3, 1, 2, 4][..], &client(), &server, &association].concat();
        let reply = dhcp6(&guest_a, &request).unwrap();
        assert!(reply[..4] == [7, 1, 2, 4] && find(&reply, &own));
        // No address of its own making, and the router is known: with the given address it reaches the other guest.
        assert!(!guest_a.run("ip -6 addr show dev eth0").contains("global"));
        assert!(has(&guest_a, "ip -6 route show default", "proto ra"));
        guest_a.run("ip addr add fd00:a::5/128 dev eth0 nodad");
        assert!(has(&guest_b, "ip -6 addr show dev eth0", &b_ip.to_string()));
        assert!(guest_a.reaches(b_ip));

        let information = [&[11, 1, 2, 5][..], &client()].concat();
        let reply = dhcp6(&guest_b, &information).unwrap();
        let dns = "fd00::53".parse::<Ipv6Addr>().unwrap().octets();
        assert!(reply[0] == 7 && find(&reply, &dns) && find(&reply, b"tftp://x/y"));
        let offer = dhcp6(&guest_b, &solicit).unwrap();
        assert!(find(&offer, &[0, 13]) && !find(&offer, &[0, 3, 0, 40]), "no address is given there");
    });
}

#[test]
fn the_metadata_service_knows_a_guest_by_its_port_over_ipv6_too() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let (a, b) = (lab.port(net, "10.0.0.5", &[]), lab.port(net, "10.0.0.6", &[]));
        lab.settle().await;
        for port in [a, b] {
            let guest = lab.plug(port).await;
            let scope = guest.inside(|| nix::net::if_::if_nametoindex("eth0").unwrap());
            let service = SocketAddr::V6(SocketAddrV6::new("fe80::a9fe:a9fe".parse().unwrap(), 80, 0, scope));
            let mut answer = None;
            assert!(eventually(|| {
                answer = metadata_at(&guest, service, "GET /x");
                answer.is_some()
            }));
            assert_eq!(answer.unwrap().1, format!("{port} /x"));
            let other = SocketAddr::V6(SocketAddrV6::new("fe80::a9fe:a9fe".parse().unwrap(), 22, 0, scope));
            assert!(guest.connect(other, DOUBT).is_err());
        }
    });
}

#[test]
fn ipv6_stays_inside_the_cloud() {
    lab(async |lab| {
        let all = lab.open_group();
        let net = lab.network("fd00:a::/64");
        let external = lab.network("203.0.113.0/24");
        lab.networks[external].external = Some(ExternalSpec { gateway: "203.0.113.1/24".parse().unwrap() });
        let port = lab.port(net, "fd00:a::5", &[all]);
        let router = lab.inner_router(&[net]);
        lab.routers[router].gateway = Some(RouterGatewaySpec {
            port_id: arcus_types::ids::PortId::new(),
            network_id: lab.networks[external].id,
            mac: MacAddr::for_port([0xef, 0, 1]),
            addresses: vec!["203.0.113.2/24".parse().unwrap(), "fd00:e::2/64".parse().unwrap()],
            next_hops: vec![ip("203.0.113.1"), ip("fd00:e::1")],
            snat: true,
        });
        lab.settle().await;
        let guest = lab.guest(port).await;
        assert!(guest.reaches(ip("fd00:a::1")));
        let answer = guest.try_run("ping -n -c 1 -W 2 2001:db8::7");
        let told = String::from_utf8_lossy(&answer.stdout).into_owned();
        assert!(told.contains("prohibited"), "{told}");
    });
}

#[test]
fn a_pair_lets_a_guest_use_a_further_ipv6_address() {
    lab(async |lab| {
        let all = lab.open_group();
        let net = lab.network("fd00:a::/64");
        let (a, b) = (lab.port(net, "fd00:a::5", &[all]), lab.port(net, "fd00:a::6", &[all]));
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        guest_a.run("ip addr add fd00:a::77/64 dev eth0 nodad");
        assert!(guest_b.misses(ip("fd00:a::77")));
        lab.port_mut(a).allowed_pairs = vec![("fd00:a::77/128".parse().unwrap(), None)];
        lab.settle().await;
        guest_b.run("ip -6 neigh flush dev eth0");
        assert!(guest_b.reaches(ip("fd00:a::77")));
    });
}
