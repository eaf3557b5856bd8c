//! Segments: DHCP, metadata, separation, anti-spoofing, security groups.

use crate::lab::*;
use arcus_types::agent::*;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

#[test]
fn a_guest_gets_its_address_by_dhcp_and_its_own_metadata() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        assert_eq!(lab.settle().await, [a, b]);
        let (guest_a, guest_b) = (lab.plug(a).await, lab.guest(b).await);
        let script = dhcp_script();
        let told = guest_a.run(&format!("busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 -s {script}"));
        std::fs::remove_file(&script).unwrap();
        for expected in [
            "ip='10.0.0.5'",
            "mask='24'",
            "router='10.0.0.1'",
            "dns='9.9.9.9'",
            "mtu='1450'",
            "hostname='guest-0'",
            "lease='86400'",
            "serverid='169.254.169.254'",
            "staticroutes='169.254.169.254/32 0.0.0.0 0.0.0.0/0 10.0.0.1'",
        ] {
            assert!(told.contains(expected), "{expected} in {told}");
        }
        assert!(guest_a.reaches(ip("10.0.0.6")));
        // By the route that DHCP told, and by a default route through whatever gateway.
        guest_b.run("ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev eth0");
        for (guest, port) in [(&guest_a, a), (&guest_b, b)] {
            let (status, body) = metadata(guest, "GET /openstack/latest?x=1").unwrap();
            assert_eq!((status.as_str(), body), ("HTTP/1.1 200 OK", format!("{port} /openstack/latest")));
        }
        assert_eq!(metadata(&guest_a, "GET /none").unwrap().0, "HTTP/1.1 404 Not Found");
        assert_eq!(metadata(&guest_a, "PUT /x").unwrap().0, "HTTP/1.1 405 Method Not Allowed");
    });
}

#[test]
fn names_of_a_networks_ports_are_answered_and_no_others() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        lab.networks[net].subnets[0].dns_servers.clear();
        let (a, b) = (lab.port(net, "10.0.0.5", &[]), lab.port(net, "10.0.0.6", &[]));
        lab.port_mut(b).dns_domain = "example.org".into();
        lab.settle().await;
        let guest = lab.guest(a).await;
        guest.run("ip route add 169.254.169.254/32 dev eth0");
        let plugged = lab.plug(b).await;
        let script = dhcp_script();
        let told = plugged.run(&format!("busybox udhcpc -i eth0 -f -q -n -t 20 -T 1 -s {script}"));
        std::fs::remove_file(&script).unwrap();
        assert!(told.contains("dns='169.254.169.254'"), "{told}");
        let ask = |name: &str| {
            let answer = guest.try_run(&format!("busybox nslookup -type=a {name} 169.254.169.254"));
            String::from_utf8_lossy(&answer.stdout).into_owned() + &String::from_utf8_lossy(&answer.stderr)
        };
        assert!(eventually(|| ask("guest-1.example.org").contains("Address: 10.0.0.6")));
        assert!(ask("nobody.example.org").contains("NXDOMAIN"));
        assert!(ask("www.example.com").contains("REFUSED"), "{}", ask("www.example.com"));
        lab.port_mut(b).hostname = "renamed".into();
        lab.settle().await;
        assert!(eventually(|| ask("renamed.example.org").contains("Address: 10.0.0.6")));
        assert!(ask("guest-1.example.org").contains("NXDOMAIN"));
    });
}

#[test]
fn a_subnet_without_dhcp_is_silent() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        lab.networks[net].subnets[0].dhcp = false;
        let port = lab.port(net, "10.0.0.5", &[]);
        lab.settle().await;
        let guest = lab.plug(port).await;
        assert!(!guest.try_run("busybox udhcpc -i eth0 -f -q -n -t 2 -T 1 -s /bin/true").status.success());
    });
}

#[test]
fn two_segments_with_the_same_addresses_do_not_see_each_other() {
    lab(async |lab| {
        let all = lab.open_group();
        let (red, blue) = (lab.network("10.0.0.0/24"), lab.network("10.0.0.0/24"));
        let red_a = lab.port(red, "10.0.0.5", &[all]);
        let red_b = lab.port(red, "10.0.0.6", &[all]);
        let blue_a = lab.port(blue, "10.0.0.5", &[all]);
        let blue_c = lab.port(blue, "10.0.0.7", &[all]);
        lab.settle().await;
        let (red_a_ns, _red_b) = (lab.guest(red_a).await, lab.guest(red_b).await);
        let (blue_a_ns, _blue_c) = (lab.guest(blue_a).await, lab.guest(blue_c).await);
        assert!(red_a_ns.reaches(ip("10.0.0.6")) && blue_a_ns.reaches(ip("10.0.0.7")));
        assert!(red_a_ns.misses(ip("10.0.0.7")) && blue_a_ns.misses(ip("10.0.0.6")));
        for (guest, port) in [(&red_a_ns, red_a), (&blue_a_ns, blue_a)] {
            guest.run("ip route add 169.254.169.254/32 dev eth0");
            assert_eq!(metadata(guest, "GET /x").unwrap().1, format!("{port} /x"));
        }
    });
}

#[test]
fn forged_sources_are_dropped() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        assert!(guest_a.reaches(ip("10.0.0.6")));

        // An address that is not its own: neither packets nor ARP.
        guest_a.run("ip addr add 10.0.0.77/24 dev eth0");
        let mac_a = lab.port_mut(a).mac;
        guest_b.run(&format!("ip neigh replace 10.0.0.77 lladdr {mac_a} dev eth0"));
        assert!(!guest_a.try_run("ping -n -c 1 -W 0.7 -I 10.0.0.77 10.0.0.6").status.success());
        guest_b.run("ip neigh del 10.0.0.77 dev eth0");
        assert!(guest_b.misses(ip("10.0.0.77")));
        assert!(!guest_b.run("ip neigh show 10.0.0.77").contains("lladdr"));

        // With a pair it may, and no longer when the pair goes.
        lab.port_mut(a).allowed_pairs = vec![("10.0.0.77/32".parse().unwrap(), None)];
        lab.settle().await;
        assert!(guest_b.reaches(ip("10.0.0.77")));
        lab.port_mut(a).allowed_pairs = vec![];
        lab.settle().await;
        guest_b.run("ip neigh flush dev eth0");
        assert!(guest_b.misses(ip("10.0.0.77")));

        // An Ethernet address that is not its own.
        guest_a.run("ip link set eth0 address 02:00:00:00:00:05");
        assert!(guest_a.misses(ip("10.0.0.6")));

        // Without port security, all that goes.
        lab.port_mut(a).port_security = false;
        lab.settle().await;
        guest_b.run("ip neigh flush dev eth0");
        assert!(guest_a.reaches(ip("10.0.0.6")));
    });
}

#[test]
fn nothing_passes_but_what_a_rule_allows_and_only_as_long() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let client = lab.open_group();
        let server = lab.group(vec![]);
        let (a, b) = (lab.port(net, "10.0.0.5", &[client]), lab.port(net, "10.0.0.6", &[server]));
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        for port in [22, 80] {
            guest_b.serve(port);
        }
        guest_a.serve(22);
        assert!(guest_a.connect(at("10.0.0.6", 22), DOUBT).is_err());
        assert!(guest_a.misses(ip("10.0.0.6")));

        let ssh = rule(Direction::Ingress, EtherType::V4, Some(6), Some(22));
        lab.group_mut(server).rules = vec![ssh.clone()];
        lab.settle().await;
        let mut stream = guest_a.connect(at("10.0.0.6", 22), PATIENCE).unwrap();
        assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.5");
        assert!(guest_a.connect(at("10.0.0.6", 80), DOUBT).is_err());
        assert!(guest_b.connect(at("10.0.0.5", 22), DOUBT).is_err(), "the server may only answer");

        // Another rule comes and goes: the connection does not notice.
        let web = rule(Direction::Ingress, EtherType::V4, Some(6), Some(80));
        lab.group_mut(server).rules = vec![ssh.clone(), web];
        lab.settle().await;
        assert!(guest_a.connect(at("10.0.0.6", 80), PATIENCE).is_ok());
        lab.group_mut(server).rules = vec![ssh];
        lab.settle().await;
        assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.5");

        // Its own rule goes, and it with it.
        lab.group_mut(server).rules = vec![];
        lab.settle().await;
        assert!(exchange(&mut stream, DOUBT).is_err());
        assert!(guest_a.connect(at("10.0.0.6", 22), DOUBT).is_err());
    });
}

#[test]
fn members_of_a_remote_group_are_let_in_and_others_are_not() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let (friends, strangers) = (lab.open_group(), lab.open_group());
        let mut from_friends = rule(Direction::Ingress, EtherType::V4, None, None);
        from_friends.remote_group = Some(friends);
        let server = lab.group(vec![from_friends]);
        let friend = lab.port(net, "10.0.0.5", &[friends]);
        let stranger = lab.port(net, "10.0.0.6", &[strangers]);
        let port = lab.port(net, "10.0.0.7", &[server]);
        lab.group_mut(friends).members = vec![ip("10.0.0.5")];
        lab.group_mut(strangers).members = vec![ip("10.0.0.6")];
        lab.settle().await;
        let (friend_ns, stranger_ns) = (lab.guest(friend).await, lab.guest(stranger).await);
        let _server = lab.guest(port).await;
        assert!(friend_ns.reaches(ip("10.0.0.7")));
        assert!(stranger_ns.misses(ip("10.0.0.7")));
        lab.group_mut(friends).members = vec![ip("10.0.0.6")];
        lab.settle().await;
        assert!(stranger_ns.reaches(ip("10.0.0.7")));
        assert!(friend_ns.misses(ip("10.0.0.7")));
    });
}

#[test]
fn ipv6_passes_filters_and_forged_advertisements_do_not() {
    lab(async |lab| {
        let net = lab.network("fd00:a::/64");
        let all = lab.open_group();
        let closed = lab.group(vec![rule(Direction::Ingress, EtherType::V6, Some(58), None)]);
        let (a, b) = (lab.port(net, "fd00:a::5", &[all]), lab.port(net, "fd00:a::6", &[closed]));
        lab.networks[net].subnets[0].gateway = None;
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        assert!(guest_a.reaches(ip("fd00:a::6")));
        assert!(guest_b.misses(ip("fd00:a::5")), "no rule lets the second guest begin");
        guest_a.run("ip addr add fd00:a::77/64 dev eth0 nodad");
        guest_b.run("ip -6 neigh flush dev eth0");
        assert!(!guest_a.try_run("ping -n -c 1 -W 0.7 -I fd00:a::77 fd00:a::6").status.success());
        assert!(!guest_b.run("ip -6 neigh show fd00:a::77").contains("lladdr"));
    });
}

#[test]
fn all_that_the_specification_can_say_is_taken() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let remote = lab.group(vec![]);
        lab.group_mut(remote).members = vec![ip("10.0.0.5"), ip("10.0.0.5"), ip("fd00::5")];
        let mut rules = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            for ethertype in [EtherType::V4, EtherType::V6] {
                for protocol in [None, Some(0), Some(1), Some(6), Some(17), Some(47), Some(58), Some(132), Some(255)] {
                    for (port_min, port_max) in
                        [(None, None), (Some(0), Some(65535)), (Some(8), None), (None, Some(3)), (Some(9), Some(2))]
                    {
                        for cidr in [None, Some("0.0.0.0/0"), Some("10.1.2.3/8"), Some("::/0"), Some("fd00::1/16")] {
                            let remote_cidr = cidr.map(|cidr| cidr.parse().unwrap());
                            let remote_group = cidr.is_none().then_some(remote);
                            rules.push(FilterRule {
                                direction,
                                ethertype,
                                protocol,
                                port_min,
                                port_max,
                                remote_cidr,
                                remote_group,
                                remote_address_group: None,
                            });
                        }
                    }
                }
            }
        }
        let group = lab.group(rules);
        let wide = lab.port(net, "10.0.0.5", &[group, remote, group]);
        let pairs = ["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.5/32", "fe80::/10", "169.254.169.254/32"];
        lab.port_mut(wide).allowed_pairs = pairs.map(|pair| (pair.parse().unwrap(), None)).to_vec();
        let other = lab.port(net, "10.0.0.6", &[]);
        let mac = Some("02:00:00:00:00:07".parse().unwrap());
        lab.port_mut(other).allowed_pairs = pairs.map(|pair| (pair.parse().unwrap(), mac)).to_vec();
        let bare = lab.port(net, "10.0.0.7", &[arcus_types::ids::SecurityGroupId::new()]);
        lab.port_mut(bare).addresses.clear();
        assert_eq!(lab.settle().await.len(), 3);
    });
}

#[test]
fn a_port_that_is_down_carries_nothing_and_is_not_up() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        lab.settle().await;
        let (guest_a, _guest_b) = (lab.guest(a).await, lab.guest(b).await);
        assert!(guest_a.reaches(ip("10.0.0.6")));
        lab.port_mut(b).admin_up = false;
        assert_eq!(lab.settle().await, [a]);
        assert!(guest_a.misses(ip("10.0.0.6")));
        lab.port_mut(b).admin_up = true;
        assert_eq!(lab.settle().await, [a, b]);
        assert!(guest_a.reaches(ip("10.0.0.6")));
    });
}

#[test]
fn a_guest_holds_a_bounded_number_of_metadata_connections() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let (a, b) = (lab.port(net, "10.0.0.5", &[]), lab.port(net, "10.0.0.6", &[]));
        lab.settle().await;
        let (greedy, modest) = (lab.guest(a).await, lab.guest(b).await);
        for guest in [&greedy, &modest] {
            guest.run("ip route add 169.254.169.254/32 dev eth0");
        }
        let service = SocketAddr::from(([169, 254, 169, 254], 80));
        let held: Vec<_> = (0..40).filter_map(|_| greedy.connect(service, Duration::from_secs(3)).ok()).collect();
        assert!(held.len() >= 16);
        assert!(eventually(|| metadata(&greedy, "GET /x").is_none()));
        assert!(metadata(&modest, "GET /x").is_some());
        drop(held);
        assert!(eventually(|| metadata(&greedy, "GET /x").is_some()));
    });
}

/// A script for udhcpc that prints what it was told and takes the address.
pub fn dhcp_script() -> String {
    let path = std::env::temp_dir().join(format!("arcus-udhcpc-{}", uuid::Uuid::new_v4()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    file.write_all(b"#!/bin/sh\n[ \"$1\" = bound ] && set && ip addr add $ip/$mask dev eth0 && ip route add 169.254.169.254/32 dev eth0\nexit 0\n").unwrap();
    path.to_str().unwrap().to_owned()
}
