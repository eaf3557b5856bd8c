//! What a hostile guest sends over IPv6, and what of it arrives.

use crate::lab::*;
use crate::wire::*;
use arcus_types::agent::Ipv6Mode;
use arcus_types::text::MacAddr;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn message(kind: u8, target: &str) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    out.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    out
}

#[test]
fn a_guest_is_no_router_no_server_and_nobody_else() {
    lab(async |lab| {
        let all = lab.open_group();
        let net = lab.network("fd00:a::/64");
        lab.mode(net, Ipv6Mode::DhcpStateful);
        let (bad, good) = (lab.port(net, "fd00:a::5", &[all]), lab.port(net, "fd00:a::6", &[all]));
        lab.settle().await;
        let (wire, victim) = (Wire::at(lab, bad).await, Wire::at(lab, good).await);
        let mac = lab.port_mut(bad).mac;
        let (own, here) = (link_local(mac), "fd00:a::5".parse().unwrap());
        let advert = |from: (MacAddr, Ipv6Addr)| {
            ip6((from.0, ALL_MAC), (from.1, ALL), 58, &[134, 0, 0, 0, 64, 0, 0, 90, 0, 0, 0, 0, 0, 0, 0, 0], 2)
        };
        let discovery =
            |source: Ipv6Addr, kind, target| ip6((mac, ALL_MAC), (source, ALL), 58, &message(kind, target), 2);
        let none = Ipv6Addr::UNSPECIFIED;
        let forged: Vec<(&str, Vec<u8>)> = vec![
            ("a router advertisement", advert((mac, own))),
            ("a router advertisement under the services' address", advert((mac, "fe80::a9fe:a9fe".parse().unwrap()))),
            ("a redirect", ip6((mac, ALL_MAC), (own, ALL), 58, &[message(137, "fd00:a::6"), vec![0; 16]].concat(), 2)),
            ("a DHCPv6 answer", udp6((mac, ALL_MAC), (own, ALL), (547, 546), &[7, 1, 2, 3])),
            ("a claim of the neighbour's address", discovery(own, 136, "fd00:a::6")),
            ("a claim of the router's address", discovery(own, 136, "fd00:a::1")),
            ("a claim of the services' address", discovery(own, 136, "fe80::a9fe:a9fe")),
            ("a question that makes the neighbour give up its address", discovery(none, 135, "fd00:a::6")),
            (
                "a packet under the neighbour's address",
                udp6((mac, ALL_MAC), ("fd00:a::6".parse().unwrap(), ALL), (9, 9), b"x"),
            ),
            ("a packet under another Ethernet address", udp6((MacAddr([2; 6]), ALL_MAC), (here, ALL), (9, 9), b"x")),
            ("a question for the services by their address", discovery(own, 135, "fe80::a9fe:a9fe")),
        ];
        let allowed: Vec<(&str, Vec<u8>)> = vec![
            ("a claim of its own address", discovery(own, 136, "fd00:a::5")),
            ("whether its own address is taken", discovery(none, 135, "fd00:a::5")),
            ("whether its own link-local address is taken", discovery(none, 135, &own.to_string())),
            ("a packet", udp6((mac, ALL_MAC), (here, ALL), (9, 9), b"x")),
        ];
        let arrives = |frame: &[u8], wait: Duration| {
            victim.drain();
            let end = Instant::now() + wait;
            let same = |heard: &[u8]| heard.len() >= 54 && heard[54..] == frame[54..] && heard[6..12] == frame[6..12];
            while Instant::now() < end {
                // Again and again: a bridge takes a moment to see that a device is up.
                wire.send(frame);
                if victim.hear(Duration::from_millis(50), |heard| same(heard).then_some(())).is_some() {
                    return true;
                }
            }
            false
        };
        for (what, frame) in &allowed {
            assert!(arrives(frame, PATIENCE), "{what} does not arrive");
        }
        for (what, frame) in &forged {
            assert!(!arrives(frame, Duration::from_millis(250)), "{what} arrives");
        }
        // What a port without security sends does arrive: it was the filter that kept it. A redirect never does: the
        // victim's own filter holds it.
        lab.port_mut(bad).port_security = false;
        lab.settle().await;
        for (what, frame) in
            forged.iter().filter(|(what, _)| !what.contains("the services") && !what.contains("redirect"))
        {
            assert!(arrives(frame, PATIENCE), "{what} does not arrive without port security");
        }
    });
}

#[test]
fn a_guest_that_floods_the_services_does_not_keep_others_from_them() {
    lab(async |lab| {
        let net = lab.network("fd00:a::/64");
        lab.mode(net, Ipv6Mode::Slaac);
        let (bad, good) = (lab.port(net, "fd00:a::5", &[]), lab.port(net, "fd00:a::6", &[]));
        lab.settle().await;
        let (wire, modest) = (Wire::at(lab, bad).await, Wire::at(lab, good).await);
        let solicit = |mac: MacAddr| {
            let to = ("ff02::2".parse().unwrap(), MacAddr([0x33, 0x33, 0, 0, 0, 2]));
            ip6((mac, to.1), (link_local(mac), to.0), 58, &[133, 0, 0, 0, 0, 0, 0, 0], 2)
        };
        let (bad_mac, good_mac) = (lab.port_mut(bad).mac, lab.port_mut(good).mac);
        let flood = solicit(bad_mac);
        let mut answers = 0;
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            for _ in 0..50 {
                wire.send(&flood);
                sent += 1;
            }
            let advert_to =
                |mac: MacAddr| move |frame: &[u8]| (icmp6(frame)?[0] == 134 && frame[..6] == mac.0).then_some(());
            while wire.hear(Duration::from_millis(1), advert_to(bad_mac)).is_some() {
                answers += 1;
            }
        }
        modest.drain();
        modest.send(&solicit(good_mac));
        let answered =
            modest.hear(PATIENCE, |frame| (icmp6(frame)?[0] == 134 && frame[..6] == good_mac.0).then_some(()));
        println!("{sent} solicitations, {answers} answers");
        assert!(answered.is_some());
        assert!(sent > 1000 && answers <= 80, "{answers} answers to {sent}");
    });
}
