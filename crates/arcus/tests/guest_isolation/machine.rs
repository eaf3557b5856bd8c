//! What guests can do to the machine that they run on: ping it.

use crate::cloud::{Cloud, text};
use crate::tenants::Tenants;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// An address of nobody (RFC 5737).
const OUTSIDE: &str = "198.51.100.7";

pub fn is_out_of_reach(tenants: &Tenants, cloud: &Cloud) {
    let guest = &tenants.red_a;
    let [a, b, c, _] = guest.floating.parse::<Ipv4Addr>().unwrap().octets();
    let gateway = Ipv4Addr::new(a, b, c, 1);
    let watch = Watch::new(cloud, &format!("{a}.{b}.{c}.0/24"));

    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let service = SocketAddr::new(gateway.into(), port);
    assert!(TcpStream::connect_timeout(&service, Duration::from_secs(5)).is_ok(), "the machine reaches itself");
    assert_eq!(guest.answer(&format!("ping -q -c 1 -W 5 {gateway} >/dev/null && echo answered")), "answered");
    for address in std::iter::once(IpAddr::V4(gateway)).chain(own_address()) {
        let tried = guest.answer(&format!("nc -w 2 {address} {port} </dev/null && echo reached || echo silence"));
        assert_eq!(tried, "silence", "a guest reached a service of the machine at {address}");
    }
    assert_eq!(guest.answer(&format!("ping -q -c 2 -W 1 {OUTSIDE} >/dev/null || echo silence")), "silence");
    assert!(watch.packets("to_guests") > 0, "the watch sees nothing");
    assert_eq!(watch.packets("strays"), 0, "packets of guests left by another link of the machine");
}

/// The machine's address on its own network, if it has one. Nothing is sent for that.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect((OUTSIDE, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Counts what the machine sends with addresses of guests.
struct Watch {
    table: String,
}

impl Watch {
    fn new(cloud: &Cloud, range: &str) -> Self {
        let tag = std::fs::read_to_string(cloud.home().join("agent/tag")).unwrap();
        let table = format!("test_{}", std::process::id());
        // After the cloud's own guard and before anybody translates addresses.
        let rules = format!(
            "table inet {table} {{
                counter to_guests {{ }}
                counter strays {{ }}
                chain departure {{
                    type filter hook postrouting priority 90; policy accept;
                    oifname \"lo\" accept
                    oifname \"ar{tag}*\" ip daddr {range} counter name to_guests accept
                    ip saddr {{ {range}, 10.66.0.0/24 }} counter name strays
                    ip daddr {{ {range}, 10.66.0.0/24 }} counter name strays
                }}
            }}"
        );
        nft(&[&rules]);
        Self { table }
    }

    fn packets(&self, counter: &str) -> u64 {
        let listed: serde_json::Value =
            serde_json::from_str(&nft(&["--json", "list", "counter", "inet", &self.table, counter])).unwrap();
        let counters = listed["nftables"].as_array().unwrap();
        counters.iter().find_map(|one| one["counter"]["packets"].as_u64()).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(Command::new("nft").args(["delete", "table", "inet", &self.table]).output());
    }
}

fn nft(args: &[&str]) -> String {
    let output = Command::new("nft").args(args).output().unwrap();
    assert!(output.status.success(), "nft: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}
