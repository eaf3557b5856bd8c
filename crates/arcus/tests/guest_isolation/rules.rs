//! Security groups: nothing comes in unless a rule says so, and rules count from the moment on in which they are made.

use crate::client::Client;
use crate::tenants::{Guest, Tenants};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a change of rules may take to arrive at the guests' filters.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a guest may take to answer while nothing is in its way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long silence must last to count.
const SILENCE: Duration = Duration::from_secs(2);
/// An echo server in each guest.
const ECHO_PORT: u16 = 7000;

pub fn hold_at_once(tenants: &Tenants) {
    let Tenants { red, red_a, .. } = tenants;
    // From the start on, only SSH may come in.
    assert!(!pings(red_a), "a ping came through without a rule");
    assert!(connect(red_a, SILENCE).is_none(), "a connection came through without a rule");
    let rule = allow(red, &["--protocol", "icmp"]);
    eventually("pings are let through", || pings(red_a));
    forbid(red, &rule);
    eventually("pings are no longer let through", || !pings(red_a));
    connections_end_with_their_rule(red, red_a);
    groups_name_groups(tenants);
}

/// A rule for pings of both tenants' guests, for what follows.
pub fn allow_pings(tenants: &Tenants) {
    for client in [&tenants.red, &tenants.blue] {
        allow(client, &["--protocol", "icmp"]);
    }
    for guest in tenants.guests() {
        eventually("pings are let through", || pings(guest));
    }
}

fn connections_end_with_their_rule(red: &Client, guest: &Guest) {
    let rule = allow(red, &["--protocol", "tcp", "--dst-port", &ECHO_PORT.to_string()]);
    let mut stream = None;
    eventually("connections are let through", || {
        stream = connect(guest, PATIENCE);
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    // What comes back needs no rule.
    assert!(echoes(&mut stream, PATIENCE), "the guest does not answer");
    forbid(red, &rule);
    eventually("an established connection ends with its rule", || !echoes(&mut stream, SILENCE));
    assert!(connect(guest, SILENCE).is_none(), "a connection came through after its rule went");
}

/// A rule that names another group lets that group's members in, and them only.
fn groups_name_groups(tenants: &Tenants) {
    let Tenants { red, red_a, red_b, .. } = tenants;
    let fetch = || red_b.answer(&format!("timeout 3 wget -q -O - http://{}:8080/name || echo nothing", red_a.fixed));
    red.run(&["server", "add", "security", "group", &red_a.name, "web"]);
    assert_eq!(fetch(), "nothing");
    red.run(&["server", "add", "security", "group", &red_b.name, "front"]);
    eventually("a member of the named group is let in", || fetch() == red_a.name);
    let outsider = SocketAddr::new(red_a.floating.parse().unwrap(), 8080);
    assert!(TcpStream::connect_timeout(&outsider, SILENCE).is_err(), "who is not in the group was let in");
    red.run(&["server", "remove", "security", "group", &red_b.name, "front"]);
    eventually("a former member is not let in", || fetch() == "nothing");
}

/// Adds a rule to the group that all guests of the tenant have; answers its id.
fn allow(client: &Client, what: &[&str]) -> String {
    let rule = client.show(&[&["security", "group", "rule", "create", "--ingress"], what, &["plain"]].concat());
    rule["id"].as_str().unwrap().to_owned()
}

fn forbid(client: &Client, rule: &str) {
    client.run(&["security", "group", "rule", "delete", rule]);
}

/// Whether the guest answers a ping of the machine.
fn pings(guest: &Guest) -> bool {
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "2", &guest.floating]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

fn connect(guest: &Guest, patience: Duration) -> Option<TcpStream> {
    let address = SocketAddr::new(guest.floating.parse().unwrap(), ECHO_PORT);
    TcpStream::connect_timeout(&address, patience).ok()
}

/// Whether what is sent comes back.
fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    const WORD: &[u8] = b"echo\n";
    let mut back = [0; WORD.len()];
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(WORD).is_ok() && stream.read_exact(&mut back).is_ok() && back == WORD
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < ARRIVAL_DEADLINE, "not after {ARRIVAL_DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("{what}: after {:?}", began.elapsed());
}
