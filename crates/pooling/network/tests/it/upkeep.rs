//! Restarts, drift, repetition, teardown.

use crate::lab::*;
use arcus_network::{Linux, LinuxConfig, Network, NetworkError, Tag};
use arcus_types::agent::{PeerSpec, PortSpec};
use arcus_types::ids::PortId;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Ends the driver and starts another one, as after a restart of the agent, until it has settled.
pub async fn restart(lab: &mut Lab) {
    restart_with(lab, None).await;
}

async fn restart_with(lab: &mut Lab, underlay: Option<IpAddr>) {
    let config = LinuxConfig { tag: lab.tag.clone(), uplink: None, underlay, directory: Arc::new(Directory) };
    lab.driver = Linux::new(config).unwrap();
    let end = Instant::now() + PATIENCE;
    // The sockets of the one before close when the runtime gets to it.
    while !lab.reconcile().await.faults.is_empty() {
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_new_agent_adopts_what_is_there_and_removes_what_nobody_names() {
    lab(async |lab| {
        let all = lab.open_group();
        let (red, blue) = (lab.network("10.0.0.0/24"), lab.network("10.0.1.0/24"));
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
        lab.port(blue, "10.0.1.5", &[all]);
        lab.settle().await;
        let (guest_a, guest_b) = (lab.guest(a).await, lab.guest(b).await);
        guest_b.serve(22);
        let mut stream = guest_a.connect("10.0.0.6:22".parse().unwrap(), PATIENCE).unwrap();
        exchange(&mut stream, PATIENCE).unwrap();
        let segment = Ns::named(&lab.tag.segment(lab.networks[red].id));
        let links_before = segment.run("ip -o link");

        lab.networks.truncate(1);
        restart(lab).await;
        assert_eq!(exchange(&mut stream, PATIENCE).unwrap(), "10.0.0.5", "the connection did not notice");
        let names = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|l| l.split_once(": "))
                .map(|(i, rest)| format!("{i} {}", rest.split(':').next().unwrap()))
                .collect()
        };
        assert_eq!(names(&segment.run("ip -o link")), names(&links_before), "no device was made anew");
        assert!(
            !lab.own.run("ip netns").contains("10.0.1")
                && lab.own.run("ip netns").matches(lab.tag.as_str()).count() == 1
        );
        guest_a.run("ip route add 169.254.169.254/32 dev eth0");
        assert_eq!(metadata(&guest_a, "GET /x").unwrap().1, format!("{a} /x"));

        // A rule that went while no agent ran takes its connections along.
        lab.group_mut(all).rules.clear();
        restart(lab).await;
        assert!(exchange(&mut stream, DOUBT).is_err());
    });
}

#[test]
fn drift_is_repaired() {
    lab(async |lab| {
        let all = lab.open_group();
        let red = lab.network("10.0.0.0/24");
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
        lab.settle().await;
        let (guest_a, _guest_b) = (lab.guest(a).await, lab.guest(b).await);
        let segment = Ns::named(&lab.tag.segment(lab.networks[red].id));
        segment.run("ip link set dev br down");
        segment.run("ip addr flush dev br");
        segment.run("nft flush ruleset");
        segment.run("ip link add name stranger type bridge");
        restart(lab).await;
        assert!(guest_a.reaches(ip("10.0.0.6")));
        guest_a.run("ip route add 169.254.169.254/32 dev eth0");
        assert!(metadata(&guest_a, "GET /x").is_some());
        assert!(!segment.run("ip -o link").contains("stranger"));
        assert!(segment.run("nft list tables").contains("bridge arcus"));
    });
}

#[test]
fn a_pass_without_changes_is_quick_and_starts_no_process() {
    lab(async |lab| {
        let all = lab.open_group();
        for number in 0..5 {
            let net = lab.network(&format!("10.0.{number}.0/24"));
            for host in 5..10 {
                lab.port(net, &format!("10.0.{number}.{host}"), &[all]);
            }
        }
        let begun = Instant::now();
        assert_eq!(lab.settle().await.len(), 25);
        println!("25 ports on 5 segments: {:?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..100 {
            lab.settle().await;
        }
        println!("100 passes without changes: {:?}", begun.elapsed());
        assert!(begun.elapsed().as_millis() < 500);
        let begun = Instant::now();
        lab.port(0, "10.0.0.77", &[all]);
        lab.settle().await;
        println!("one more port: {:?}", begun.elapsed());
    });
}

#[test]
fn ports_come_and_go() {
    lab(async |lab| {
        let all = lab.open_group();
        let red = lab.network("10.0.0.0/24");
        let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
        lab.settle().await;
        let guest_a = lab.guest(a).await;
        let _guest_b = lab.guest(b).await;
        assert!(guest_a.reaches(ip("10.0.0.6")));
        lab.networks[red].ports.retain(|port| port.id != b);
        assert_eq!(lab.settle().await, [a]);
        assert!(guest_a.misses(ip("10.0.0.6")));
        assert!(matches!(lab.driver.tap(b).await, Err(NetworkError::PortUnknown(_))));
        assert!(matches!(lab.driver.tap(PortId::new()).await, Err(NetworkError::PortUnknown(_))));
        assert!(matches!(lab.driver.tap(a).await, Err(NetworkError::Tap { .. })), "one opener at a time");
        let c = lab.port(red, "10.0.0.6", &[all]);
        assert_eq!(lab.settle().await, [a, c]);
        let _guest_c = lab.guest(c).await;
        guest_a.run("ip neigh flush dev eth0");
        assert!(guest_a.reaches(ip("10.0.0.6")));
    });
}

#[test]
fn a_segment_spans_nodes_by_tunnels_and_follows_a_guest_that_moves() {
    // Two nodes in one test: the second is a driver in a namespace of its own, a cable joins them.
    let nodes = [ip("192.0.2.1"), ip("192.0.2.2")];
    lab_with(
        move |config| config.underlay = Some(nodes[0]),
        async move |lab| {
            let all = lab.open_group();
            let red = lab.network("10.0.0.0/24");
            let (a, b) = (lab.port(red, "10.0.0.5", &[all]), lab.port(red, "10.0.0.6", &[all]));
            let c = lab.port(red, "10.0.0.7", &[all]);
            let second = Ns::new();
            lab.own.cable("under0", "192.0.2.1/24", &second, "192.0.2.2/24");
            let tag: Tag = "zz99".parse().unwrap();
            let config = LinuxConfig { tag, uplink: None, underlay: Some(nodes[1]), directory: Arc::new(Directory) };
            let driver = second.inside(|| Linux::new(config.clone()).unwrap());
            let (networks, groups) = (lab.networks.clone(), lab.groups.clone());
            let mut other = Lab { own: second, tag: config.tag, driver, networks, routers: vec![], groups };
            let ports = lab.networks[red].ports.clone();
            let place = |lab: &mut Lab, here: &[PortId], node: usize| {
                let (ours, theirs): (Vec<PortSpec>, Vec<PortSpec>) =
                    ports.iter().cloned().partition(|port| here.contains(&port.id));
                lab.networks[0].ports = ours;
                let macs = theirs.iter().map(|port| port.mac).collect();
                lab.networks[0].peers =
                    vec![PeerSpec { underlay: nodes[1 - node], macs, ports: vec![], moving: vec![] }];
            };
            place(lab, &[a], 0);
            place(&mut other, &[b, c], 1);
            lab.settle().await;
            other.settle().await;
            let guest_a = lab.guest(a).await;
            let (_guest_b, _guest_c) = (other.guest(b).await, other.guest(c).await);
            assert!(guest_a.reaches(ip("10.0.0.6")) && guest_a.reaches(ip("10.0.0.7")));

            // The guest moves over: both tables are told.
            place(lab, &[a, b], 0);
            place(&mut other, &[c], 1);
            other.settle().await;
            lab.settle().await;
            let _moved = lab.guest(b).await;
            guest_a.run("ip neigh flush dev eth0");
            assert!(guest_a.reaches(ip("10.0.0.6")) && guest_a.reaches(ip("10.0.0.7")));
            // Metadata is this node's, whichever asks.
            guest_a.run("ip route add 169.254.169.254/32 dev eth0");
            assert_eq!(metadata(&guest_a, "GET /x").unwrap().1, format!("{a} /x"));
            // Read back from the kernel, the tables are as planned: nothing is to be done.
            restart_with(lab, Some(nodes[0])).await;
            assert!(guest_a.reaches(ip("10.0.0.7")));
            other.driver.teardown().await.unwrap();
            lab.own.run("ip link del dev under0");
        },
    );
}

#[test]
fn a_segment_that_spans_nodes_needs_an_underlay_and_says_so() {
    lab(async |lab| {
        let red = lab.network("10.0.0.0/24");
        let port = lab.port(red, "10.0.0.5", &[]);
        lab.networks[red].peers =
            vec![PeerSpec { underlay: ip("192.0.2.9"), macs: vec![], ports: vec![], moving: vec![] }];
        let outcome = lab.reconcile().await;
        assert_eq!(outcome.ports_up, [port]);
        assert!(outcome.faults[0].contains("underlay"), "{:?}", outcome.faults);
    });
}
