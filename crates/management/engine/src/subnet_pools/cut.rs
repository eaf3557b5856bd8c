//! Where in a pool a prefix of some length is free. Pure.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// First and last address as numbers.
fn bounds(range: IpNet) -> (u128, u128) {
    match range {
        IpNet::V4(v4) => (u128::from(v4.network().to_bits()), u128::from(v4.broadcast().to_bits())),
        IpNet::V6(v6) => (v6.network().to_bits(), v6.broadcast().to_bits()),
    }
}

/// The range of this length that begins at `first`, of the same IP version as `like`.
fn range(like: IpNet, first: u128, length: u8) -> Option<IpNet> {
    match like {
        IpNet::V4(_) => Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(first).ok()?), length).ok().map(IpNet::V4),
        IpNet::V6(_) => Ipv6Net::new(Ipv6Addr::from_bits(first), length).ok().map(IpNet::V6),
    }
}

/// Whether a range is inside the pool and shares no address with what is taken.
pub fn is_free(pool: &[IpNet], taken: &[IpNet], wanted: IpNet) -> bool {
    pool.iter().any(|prefix| prefix.contains(&wanted))
        && !taken.iter().any(|other| other.contains(&wanted) || wanted.contains(other))
}

/// The first free range of this length. Each step leaves at least one taken range behind, so it ends.
pub fn first_free(pool: &[IpNet], taken: &[IpNet], length: u8) -> Option<IpNet> {
    let mut taken: Vec<(u128, u128)> = taken.iter().copied().map(bounds).collect();
    taken.sort_unstable();
    for prefix in pool.iter().filter(|prefix| prefix.prefix_len() <= length && length <= prefix.max_prefix_len()) {
        let (begin, end) = bounds(*prefix);
        let host_bits = u32::from(prefix.max_prefix_len() - length);
        let last_of = |first: u128| first | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let mut first = begin;
        loop {
            let last = last_of(first);
            if last > end {
                break;
            }
            let Some((_, blocked_to)) = taken.iter().find(|(from, to)| *from <= last && first <= *to) else {
                return range(*prefix, first, length);
            };
            // The next multiple of the size behind whatever is in the way.
            let Some(next) = last_of(*blocked_to.max(&last)).checked_add(1) else { break };
            first = next;
        }
    }
    None
}

/// What a prefix counts against a project's share: addresses for IPv4, 64-bit prefixes for IPv6.
pub fn weight(ip_version: u32, length: u8) -> u128 {
    let unit: u8 = if ip_version == 6 { 64 } else { 32 };
    1_u128.checked_shl(u32::from(unit.saturating_sub(length))).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn prefixes_are_cut_one_behind_the_other_and_gaps_are_used() {
        let pool = nets(&["10.0.0.0/22"]);
        let mut taken = Vec::new();
        for expected in ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"] {
            let cut = first_free(&pool, &taken, 24).unwrap();
            assert_eq!(cut.to_string(), expected);
            taken.push(cut);
        }
        assert_eq!(first_free(&pool, &taken, 24), None);
        taken.remove(1);
        assert_eq!(first_free(&pool, &taken, 26), Some("10.0.1.0/26".parse().unwrap()));
        assert_eq!(first_free(&pool, &nets(&["10.0.0.4/30"]), 24), Some("10.0.1.0/24".parse().unwrap()));
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_wrap() {
        assert_eq!(first_free(&nets(&["255.255.255.0/24"]), &nets(&["255.255.255.0/24"]), 25), None);
        let all = nets(&["::/0"]);
        assert_eq!(first_free(&all, &[], 0), Some("::/0".parse().unwrap()));
        assert_eq!(first_free(&all, &all, 64), None);
        assert!(!is_free(&all, &nets(&["fd00::/8"]), "fd00::/64".parse().unwrap()));
    }
}
