//! A guest that pretends to be another: its packets are dropped before anybody sees them.

use crate::tenants::{Guest, Tenants};

/// An address of the range that no port has.
const FREE_ADDRESS: &str = "10.66.0.99";
const FORGED_MAC: &str = "fa:16:3e:66:66:66";

pub fn leads_nowhere(tenants: &Tenants) {
    let Tenants { red_a, red_b, .. } = tenants;
    address(red_a, red_b);
    mac(red_a, red_b);
    neighbours_address(red_a, red_b);
    // And it is itself again.
    let before = red_a.pings_received();
    assert_eq!(ping(red_b, red_a, ""), "answered");
    assert_eq!(red_a.pings_received(), before + 2);
}

/// Two pings; the counter of the receiver tells whether they came, answered or not.
fn ping(from: &Guest, to: &Guest, options: &str) -> String {
    from.answer(&ping_command(to, options))
}

fn ping_command(to: &Guest, options: &str) -> String {
    format!("ping -q -c 2 -W 2 {options} {} >/dev/null && echo answered || echo silence", to.fixed)
}

fn address(red_a: &Guest, red_b: &Guest) {
    let before = red_a.pings_received();
    red_b.answer(&format!("sudo ip addr add {FREE_ADDRESS}/32 dev eth0"));
    assert_eq!(ping(red_b, red_a, &format!("-I {FREE_ADDRESS}")), "silence");
    assert_eq!(ping(red_b, red_a, &format!("-I {}", red_b.fixed)), "answered", "its own address works meanwhile");
    red_b.answer(&format!("sudo ip addr del {FREE_ADDRESS}/32 dev eth0"));
    assert_eq!(red_a.pings_received() - before, 2, "pings with a forged address came through");
}

/// In one command, for meanwhile the guest cannot be reached. That it knows its neighbour already leaves the packets
/// themselves as what is tried.
fn mac(red_a: &Guest, red_b: &Guest) {
    let before = red_a.pings_received();
    let set = |mac: &str| format!("sudo ip link set dev eth0 address {mac}");
    let know = |word: &str| format!("sudo ip neigh {word} {} lladdr {} dev eth0", red_a.fixed, red_a.mac);
    let commands = [
        know("replace"),
        set(FORGED_MAC),
        know("replace"),
        "cat /sys/class/net/eth0/address".to_owned(),
        ping_command(red_a, ""),
        set(&red_b.mac),
        format!("sudo ip neigh del {} dev eth0", red_a.fixed),
    ];
    assert_eq!(red_b.answer(&commands.join("\n")), format!("{FORGED_MAC}\nsilence"));
    assert_eq!(red_a.pings_received(), before, "pings with a forged Ethernet address came through");
}

/// Its neighbour's own address, told to everybody: the neighbour goes on to be reached.
fn neighbours_address(red_a: &Guest, red_b: &Guest) {
    let taken = &red_a.fixed;
    red_b.answer(&format!("sudo ip addr add {taken}/32 dev eth0; sudo arping -U -c 3 -I eth0 -s {taken} 10.66.0.1"));
    assert_eq!(red_a.ssh.run("hostname"), red_a.name);
    let asked = format!("sudo arping -D -q -c 2 -w 2 -I eth0 {taken} && echo alone");
    assert_eq!(red_a.answer(&asked), "alone");
    red_b.answer(&format!("sudo ip addr del {taken}/32 dev eth0"));
}
