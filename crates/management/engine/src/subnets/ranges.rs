//! Address ranges: what a new subnet gets where nothing is said, and what cannot be. Pure.

use crate::EngineError;
use arcus_store::{AllocationPool, Ipv6Mode, Subnet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn input(message: String) -> EngineError {
    EngineError::Invalid { code: "InvalidInput", message: format!("Invalid input for operation: {message}") }
}

/// Whether two ranges share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The address after this one.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address before this one.
fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The first and last address that ports may have: without the range's own name and its broadcast address.
fn usable(cidr: IpNet) -> (IpAddr, IpAddr) {
    match cidr {
        IpNet::V4(v4) => usable_v4(v4),
        IpNet::V6(v6) => usable_v6(v6),
    }
}

fn usable_v4(cidr: Ipv4Net) -> (IpAddr, IpAddr) {
    let (first, last) = (cidr.network().to_bits(), cidr.broadcast().to_bits());
    let (first, last) = if cidr.prefix_len() >= 31 { (first, last) } else { (first + 1, last - 1) };
    (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into())
}

fn usable_v6(cidr: Ipv6Net) -> (IpAddr, IpAddr) {
    let (first, last) = (cidr.network().to_bits(), cidr.broadcast().to_bits());
    let first = if cidr.prefix_len() >= 127 { first } else { first + 1 };
    (Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
}

/// The router's address where none is named: the first one; none on a range of one address.
pub fn default_gateway(cidr: IpNet) -> Option<IpAddr> {
    (cidr.prefix_len() < cidr.max_prefix_len()).then(|| usable(cidr).0)
}

/// Where addresses come from where nothing is named: all but the gateway.
pub fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<AllocationPool> {
    let (first, last) = usable(cidr);
    let Some(gateway) = gateway.filter(|g| first <= *g && *g <= last) else {
        return vec![AllocationPool { start: first, end: last }];
    };
    let before = previous(gateway).filter(|end| first <= *end).map(|end| AllocationPool { start: first, end });
    let after = next(gateway).filter(|start| *start <= last).map(|start| AllocationPool { start, end: last });
    before.into_iter().chain(after).collect()
}

/// Refuses what cannot be: a range, gateway, pools or modes that do not fit each other. Pools must be sorted.
///
/// # Errors
/// 400 or 409 as the network API has it.
pub fn check(subnet: &Subnet) -> Result<(), EngineError> {
    let cidr = subnet.cidr;
    if cidr.trunc() != cidr {
        return Err(input(format!(
            "Invalid input for cidr. Reason: '{cidr}' isn't a recognized IP subnet cidr, '{}' is recommended.",
            cidr.trunc()
        )));
    }
    if cidr.addr().is_multicast() || cidr.addr().is_loopback() {
        return Err(input(format!("{cidr} cannot be used on a network.")));
    }
    let longest = cidr.max_prefix_len() - 2;
    if subnet.dhcp && cidr.prefix_len() > longest {
        return Err(input(format!(
            "Subnet has a prefix length that is incompatible with DHCP service enabled: {cidr}"
        )));
    }
    if cidr.prefix_len() == 0 {
        return Err(input("0 is not allowed as CIDR prefix length".into()));
    }
    modes_checked(subnet)?;
    if let Some(gateway) = subnet.gateway {
        gateway_checked(cidr, gateway)?;
    }
    pools_checked(subnet)
}

fn modes_checked(subnet: &Subnet) -> Result<(), EngineError> {
    let (ra, address) = (subnet.ipv6_ra_mode, subnet.ipv6_address_mode);
    if ra.is_none() && address.is_none() {
        return Ok(());
    }
    if subnet.ip_version() == 4 {
        return Err(input("ipv6_ra_mode and ipv6_address_mode are valid only on IPv6 subnets".into()));
    }
    if !subnet.dhcp {
        return Err(input("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.".into()));
    }
    if let (Some(ra), Some(address)) = (ra, address)
        && ra != address
    {
        return Err(input(format!(
            "ipv6_ra_mode set to '{}' with ipv6_address_mode set to '{}' is not valid. If both attributes are set, they must be the same value",
            ra.as_str(),
            address.as_str()
        )));
    }
    let automatic = [ra, address].into_iter().flatten().any(Ipv6Mode::is_automatic);
    if automatic && subnet.cidr.prefix_len() != 64 {
        return Err(input(format!(
            "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64",
            subnet.cidr
        )));
    }
    Ok(())
}

fn gateway_checked(cidr: IpNet, gateway: IpAddr) -> Result<(), EngineError> {
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local()) && matches!(cidr, IpNet::V6(_));
    let (first, last) = usable(cidr);
    if link_local || (cidr.contains(&gateway) && first <= gateway && gateway <= last) {
        Ok(())
    } else {
        Err(input(format!("Gateway {gateway} is not valid on subnet {cidr}.")))
    }
}

fn pools_checked(subnet: &Subnet) -> Result<(), EngineError> {
    let (first, last) = usable(subnet.cidr);
    let show = |pool: &AllocationPool| format!("{}-{}", pool.start, pool.end);
    for pool in &subnet.pools {
        if pool.start.is_ipv4() != first.is_ipv4() || pool.end.is_ipv4() != first.is_ipv4() || pool.start > pool.end {
            return Err(EngineError::Invalid {
                code: "InvalidAllocationPool",
                message: format!("The allocation pool {} is not valid.", show(pool)),
            });
        }
        if pool.start < first || pool.end > last {
            return Err(EngineError::Invalid {
                code: "OutOfBoundsAllocationPool",
                message: format!("The allocation pool {} spans beyond the subnet cidr {}.", show(pool), subnet.cidr),
            });
        }
        if let Some(gateway) = subnet.gateway
            && pool.start <= gateway
            && gateway <= pool.end
        {
            return Err(EngineError::Conflict {
                code: "GatewayConflictWithAllocationPools",
                message: format!("Gateway ip {gateway} conflicts with allocation pool {}.", show(pool)),
            });
        }
    }
    for pair in subnet.pools.windows(2) {
        if let [one, two] = pair
            && two.start <= one.end
        {
            return Err(EngineError::Conflict {
                code: "OverlappingAllocationPools",
                message: format!(
                    "Found overlapping allocation pools: {} {} for subnet {}.",
                    show(one),
                    show(two),
                    subnet.cidr
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(start: &str, end: &str) -> AllocationPool {
        AllocationPool { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    #[test]
    fn a_plain_range_gives_all_but_name_gateway_and_broadcast() {
        let cidr: IpNet = "10.1.2.0/24".parse().unwrap();
        let gateway = default_gateway(cidr);
        assert_eq!(gateway, Some("10.1.2.1".parse().unwrap()));
        assert_eq!(default_pools(cidr, gateway), [pool("10.1.2.2", "10.1.2.254")]);
        assert_eq!(default_pools(cidr, None), [pool("10.1.2.1", "10.1.2.254")]);
        let middle = Some("10.1.2.9".parse().unwrap());
        assert_eq!(default_pools(cidr, middle), [pool("10.1.2.1", "10.1.2.8"), pool("10.1.2.10", "10.1.2.254")]);
    }

    #[test]
    fn ranges_of_ipv6_have_no_broadcast_address() {
        let cidr: IpNet = "fd00:1::/64".parse().unwrap();
        assert_eq!(default_gateway(cidr), Some("fd00:1::1".parse().unwrap()));
        assert_eq!(default_pools(cidr, default_gateway(cidr)), [pool("fd00:1::2", "fd00:1::ffff:ffff:ffff:ffff")]);
    }

    #[test]
    fn the_smallest_ranges_do_not_wrap() {
        for cidr in ["255.255.255.252/30", "255.255.255.254/31", "255.255.255.255/32", "0.0.0.0/30"] {
            let cidr: IpNet = cidr.parse().unwrap();
            let pools = default_pools(cidr, default_gateway(cidr));
            assert!(pools.iter().all(|p| p.start <= p.end && cidr.contains(&p.start) && cidr.contains(&p.end)));
        }
    }
}
