//! Two tenants with the same range and the same addresses, with real guests: neither sees the other, rules hold as soon as
//! they are made, and guests reach nothing of the machine.

#![cfg(test)]

#[path = "../walk/client.rs"]
#[expect(dead_code, reason = "the walk needs more of it")]
mod client;
#[path = "../walk/cloud.rs"]
mod cloud;
mod machine;
mod metadata;
mod rules;
mod spoofing;
mod tenants;

use client::Client;
use cloud::Cloud;
use tenants::{Guest, Tenants};

#[test]
fn tenants_with_equal_addresses_are_apart_and_rules_hold_at_once() {
    let cloud = Cloud::up();
    let admin = Client::new(&cloud, "arcus-admin");
    let tenants = Tenants::new(&cloud, &admin);
    stage("the guests boot");
    for guest in tenants.guests() {
        // Web server and echo server run when the user data is through.
        guest.ssh.wait_for("[ -e /run/arcus-tiny/ready ] && hostname", &guest.name);
    }
    stage("metadata");
    metadata::is_of_the_guest_itself(&tenants);
    stage("rules");
    rules::hold_at_once(&tenants);
    stage("the other tenant");
    rules::allow_pings(&tenants);
    apart(&tenants);
    stage("forged sources");
    spoofing::leads_nowhere(&tenants);
    stage("the machine");
    machine::is_out_of_reach(&tenants, &cloud);
    stage("down");
    cloud.down();
}

fn stage(name: &str) {
    eprintln!("--- {name}");
}

/// What is sent to an address reaches the own tenant's guest with that address, and none of the other tenant.
fn apart(tenants: &Tenants) {
    let Tenants { red_a, red_b, blue_a, .. } = tenants;
    assert_eq!(red_a.fixed, blue_a.fixed);
    let pings = |guest: &Guest| guest.pings_received();
    let (before_a, before_blue) = (pings(red_a), pings(blue_a));
    assert_eq!(red_b.answer(&format!("ping -q -c 3 -W 3 {} >/dev/null && echo answered", red_a.fixed)), "answered");
    assert_eq!(pings(red_a) - before_a, 3, "not all pings came to the neighbour");
    assert_eq!(pings(blue_a), before_blue, "pings came to the other tenant");
    let asks = |guest: &Guest, address: &str| {
        guest.answer(&format!("sudo arping -c 2 -w 3 -I eth0 {address} | grep -o '..:..:..:..:..:..' | sort -u"))
    };
    assert_eq!(asks(red_b, &red_a.fixed), red_a.mac, "others than the neighbour say that they have its address");

    // An address that only the other tenant has: nobody answers, and nobody over there hears of it.
    let before_b = pings(red_b);
    assert_eq!(asks(blue_a, &red_b.fixed), "", "somebody has an address that only the other tenant has");
    assert_eq!(blue_a.answer(&format!("ping -q -c 2 -W 1 {} >/dev/null || echo silence", red_b.fixed)), "silence");
    assert_eq!(pings(red_b), before_b, "pings came to the other tenant");
    for red in [red_a, red_b] {
        let neighbours = red.answer("ip neigh");
        assert!(!neighbours.contains(&blue_a.mac), "a guest of the other tenant was heard: {neighbours}");
    }
}
