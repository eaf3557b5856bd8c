//! Which addresses the default external network takes, so that they meet no other on this machine.

use anyhow::{Result, bail};
use ipnet::Ipv4Net;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::path::Path;

/// A free /24 of 172.24.0.0/16 for the external network: begins to look at a place of the home folder's own.
pub fn external_range(home: &Path) -> Result<Ipv4Net> {
    choose(&std::fs::read_to_string("/proc/net/route")?, home, 24)
}

/// A free /24 of 172.25.0.0/16 for the bridge that joins a lab's nodes.
pub fn lab_range(home: &Path) -> Result<Ipv4Net> {
    choose(&std::fs::read_to_string("/proc/net/route")?, home, 25)
}

fn choose(routes: &str, home: &Path, second: u8) -> Result<Ipv4Net> {
    let taken: Vec<Ipv4Net> = routes.lines().skip(1).filter_map(route).filter(|net| net.prefix_len() > 0).collect();
    let mut hasher = std::hash::DefaultHasher::new();
    home.hash(&mut hasher);
    let first = hasher.finish() % 256;
    for step in 0..256 {
        let third = u8::try_from((first + step) % 256).unwrap_or(0);
        let net = Ipv4Net::new_assert(Ipv4Addr::new(172, second, third, 0), 24);
        let free = !taken.iter().any(|t| t.contains(&net) || net.contains(t));
        if free {
            return Ok(net);
        }
    }
    bail!("no part of 172.{second}.0.0/16 is free: this machine has routes to all of it")
}

/// A line of the kernel's table: destination and mask as little-endian hexadecimal.
fn route(line: &str) -> Option<Ipv4Net> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |text: &str| u32::from_str_radix(text, 16).ok().map(|n| Ipv4Addr::from(n.swap_bytes()));
    Ipv4Net::with_netmask(address(fields.get(1)?)?, address(fields.get(7)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_the_machine_uses_is_left_alone() {
        let home = Path::new("/var/lib/arcus");
        let header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let first = choose(header, home, 24).unwrap();
        let [a, b, c, d] = first.network().octets();
        let line = format!("{header}br0\t{d:02X}{c:02X}{b:02X}{a:02X}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
        let second = choose(&line, home, 24).unwrap();
        assert_ne!(first, second);
        let all = format!("{header}br0\t000018AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n");
        assert!(choose(&all, home, 24).is_err());
    }
}
