//! Bandwidth: measured with real traffic.

use crate::lab::*;
use crate::wire::Wire;
use arcus_types::agent::*;
use arcus_types::ids::*;
use arcus_types::text::MacAddr;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limit(rate_kbit: u64) -> Option<BandwidthLimit> {
    Some(BandwidthLimit { rate_kbit, burst_kbit: 400 })
}

/// How much gets through from one to the other over TCP, in thousands of bits per second, once the burst is used up.
fn measure(from: &Ns, to: &Ns, address: SocketAddr) -> u64 {
    let listener = to.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).unwrap());
    let mut out = from.connect(address, PATIENCE).unwrap();
    let (mut into, _) = listener.accept().unwrap();
    out.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    into.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let end = Instant::now() + Duration::from_millis(2500);
    let sender = std::thread::spawn(move || {
        let bytes = vec![0; 16_384];
        while Instant::now() < end {
            let _ = out.write(&bytes);
        }
    });
    let mut buffer = vec![0; 65_536];
    let (mut got, warm) = (0_u64, Instant::now() + Duration::from_millis(700));
    let mut counted_since = None;
    while Instant::now() < end {
        let n = into.read(&mut buffer).unwrap_or(0);
        if Instant::now() > warm {
            counted_since.get_or_insert_with(Instant::now);
            got += n as u64;
        }
    }
    drop(into);
    sender.join().unwrap();
    got * 8 / counted_since.unwrap().elapsed().as_millis().max(1) as u64
}

/// Within a quarter of the limit above (headers, buckets) and half below (TCP on a busy machine).
fn near(kbit: u64, limit: u64) -> bool {
    (limit / 2..limit + limit / 4).contains(&kbit)
}

#[test]
fn a_port_sends_and_receives_no_faster_than_its_limits() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        let (to_a, to_b) = (SocketAddr::new(ip("10.0.0.5"), 5001), SocketAddr::new(ip("10.0.0.6"), 5001));
        let free = measure(&guest_a, &guest_b, to_b);
        assert!(free > 20_000, "{free} kbit/s without a limit");

        // From then on both ways, each its own; it applies to running guests.
        lab.port_mut(a).qos = QosSpec { ingress: limit(6_000), egress: limit(3_000), dscp_mark: None };
        lab.settle().await;
        let (sent, received) = (measure(&guest_a, &guest_b, to_b), measure(&guest_b, &guest_a, to_a));
        println!("free {free} kbit/s; limits 3000 and 6000: sent {sent}, received {received}");
        assert!(near(sent, 3_000) && near(received, 6_000), "sent {sent}, received {received}");

        // Changed, and gone with nothing left behind.
        lab.port_mut(a).qos = QosSpec { ingress: None, egress: limit(8_000), dscp_mark: None };
        lab.settle().await;
        let sent = measure(&guest_a, &guest_b, to_b);
        assert!(near(sent, 8_000), "{sent}");
        lab.port_mut(a).qos = QosSpec::default();
        lab.settle().await;
        let (sent, received) = (measure(&guest_a, &guest_b, to_b), measure(&guest_b, &guest_a, to_a));
        assert!(sent > 20_000 && received > 20_000, "sent {sent}, received {received}");
        let segment = Ns::named(&lab.tag.segment(lab.networks[net].id));
        let queues = segment.run("tc qdisc show");
        assert!(!queues.contains("tbf") && !queues.contains("ingress"), "{queues}");
        assert!(!segment.run("ip -o link").contains("ifb"));
    });
}

#[test]
fn a_new_agent_keeps_limits_and_removes_those_that_went() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let a = lab.port(net, "10.0.0.5", &[]);
        let b = lab.port(net, "10.0.0.6", &[]);
        for port in [a, b] {
            lab.port_mut(port).qos = QosSpec { ingress: limit(6_000), egress: limit(3_000), dscp_mark: None };
        }
        lab.settle().await;
        let segment = Ns::named(&lab.tag.segment(lab.networks[net].id));
        let count = |kind: &str| segment.run("tc qdisc show").matches(kind).count();
        assert_eq!((count("tbf"), count("ingress")), (4, 2));
        lab.port_mut(b).qos = QosSpec { ingress: limit(6_000), ..QosSpec::default() };
        crate::upkeep::restart(lab).await;
        assert_eq!((count("tbf"), count("ingress")), (3, 1));
    });
}

#[test]
fn a_floating_ip_carries_no_more_than_its_limits_and_others_are_free() {
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
        let floating = |external: &str, fixed: &str, qos| FloatingIpSpec {
            id: FloatingIpId::new(),
            floating: ip(external),
            fixed: ip(fixed),
            qos,
        };
        let qos = QosSpec { ingress: limit(4_000), egress: limit(2_000), dscp_mark: None };
        lab.routers[router].floating_ips =
            vec![floating("203.0.113.20", "10.0.0.5", qos), floating("203.0.113.21", "10.0.0.6", QosSpec::default())];
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        let outside = outside(lab, external, "203.0.113.50");
        let into = |address: &str| SocketAddr::new(ip(address), 5001);
        let received = measure(&outside, &guest_a, into("203.0.113.20"));
        let sent = measure(&guest_a, &outside, SocketAddr::new(ip("203.0.113.50"), 5002));
        let free = measure(&outside, &guest_b, into("203.0.113.21"));
        println!("limits 4000 and 2000: received {received}, sent {sent}; the other {free}");
        assert!(near(received, 4_000) && near(sent, 2_000) && free > 20_000, "{received} {sent} {free}");
    });
}

/// A namespace on the external bridge: a machine that is not part of the cloud.
pub fn outside(lab: &Lab, external: usize, address: &str) -> Ns {
    let bridge = lab.tag.external_bridge(lab.networks[external].id);
    let ns = Ns::new();
    lab.own.cable("outside0", "", &ns, &format!("{address}/24"));
    lab.own.run(&format!("ip link set dev outside0 master {bridge}"));
    ns
}

#[test]
fn packets_carry_the_ports_mark_whatever_the_guest_says() {
    lab(async |lab| {
        let net = lab.network("10.0.0.0/24");
        let all = lab.open_group();
        let (a, b) = (lab.port(net, "10.0.0.5", &[all]), lab.port(net, "10.0.0.6", &[all]));
        lab.port_mut(a).qos.dscp_mark = Some(26);
        lab.settle().await;
        let guest = lab.guest(a).await;
        let mac = lab.port_mut(b).mac;
        guest.run(&format!("ip neigh replace 10.0.0.6 lladdr {mac} dev eth0"));
        let wire = Wire::at(lab, b).await;
        let mut field = None;
        assert!(eventually(|| {
            guest.try_run("ping -n -c 1 -W 0.2 -Q 0xb8 10.0.0.6");
            field = wire.hear(DOUBT, |frame| (frame[12..14] == [8, 0] && frame[23] == 1).then(|| frame[15]));
            field.is_some()
        }));
        assert_eq!(field, Some(26 << 2));
    });
}
