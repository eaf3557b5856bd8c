//! Which addresses a port gets: what was asked for is checked against the network's subnets, what was left open is drawn.

use crate::{Engine, EngineError};
use arcus_store::{OWNER_FLOATING_IP, OWNER_ROUTER_GATEWAY, OWNER_ROUTER_INTERFACE, Port, Stretch, Subnet, Tx};
use arcus_types::agent::FixedIp;
use arcus_types::{MacAddr, PortId, SubnetId};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

/// The most addresses of one port.
pub const FIXED_IPS_MAX: usize = 32;

/// An address that somebody would like for a port: any, any of a subnet, or just this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FixedIpWish {
    /// The subnet that it must be from.
    pub subnet_id: Option<SubnetId>,
    /// The address.
    pub address: Option<IpAddr>,
}

/// The address that a guest with this Ethernet address makes for itself on an IPv6 range (RFC 4291, appendix A).
pub fn automatic_address(cidr: IpNet, mac: MacAddr) -> IpAddr {
    match cidr {
        IpNet::V4(v4) => IpAddr::V4(v4.network()),
        IpNet::V6(v6) => {
            let host = u128::from(u64::from_be_bytes(mac.eui64()));
            IpAddr::V6(Ipv6Addr::from_bits(v6.network().to_bits() | host))
        }
    }
}

/// Where a subnet's addresses may be drawn from.
pub(crate) fn stretches(subnet: &Subnet) -> Vec<Stretch> {
    subnet.pools.iter().map(|pool| Stretch { first: pool.start, last: within_64(pool.start, pool.end) }).collect()
}

/// The end of a range, or of the first one's 64-bit prefix if that comes before: more than anybody can draw.
fn within_64(first: IpAddr, last: IpAddr) -> IpAddr {
    match (first, last) {
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let end = first.to_bits() | u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(last.to_bits().min(end)))
        }
        _ => last,
    }
}

/// One address to claim.
enum Pick<'a> {
    /// This one.
    Exactly(&'a Subnet, IpAddr),
    /// The next one of the first of these subnets that has one.
    AnyOf(Vec<&'a Subnet>),
}

fn invalid(code: &'static str, message: String) -> EngineError {
    EngineError::Invalid { code, message }
}

/// What to claim for a list of wishes. Pure.
fn picks<'a>(port: &Port, subnets: &'a [Subnet], wishes: Option<&[FixedIpWish]>) -> Result<Vec<Pick<'a>>, EngineError> {
    let is_router = matches!(port.device_owner.as_str(), OWNER_ROUTER_INTERFACE | OWNER_ROUTER_GATEWAY);
    let mut picks = Vec::new();
    match wishes {
        Some([]) => return Ok(picks),
        Some(wishes) => {
            if wishes.len() > FIXED_IPS_MAX {
                return Err(invalid("InvalidInput", format!("A port holds at most {FIXED_IPS_MAX} fixed IPs.")));
            }
            for wish in wishes {
                picks.push(pick(port, subnets, wish, is_router)?);
            }
        }
        None => {
            // What a floating IP holds is an IPv4 address: only those are translated.
            let versions: &[u32] = if port.device_owner == OWNER_FLOATING_IP { &[4] } else { &[4, 6] };
            for &version in versions {
                let drawn: Vec<&Subnet> =
                    subnets.iter().filter(|s| s.ip_version() == version && !s.is_automatic()).collect();
                if !drawn.is_empty() {
                    picks.push(Pick::AnyOf(drawn));
                }
            }
        }
    }
    if !is_router && port.device_owner != OWNER_FLOATING_IP {
        for subnet in subnets.iter().filter(|s| s.is_automatic()) {
            let address = automatic_address(subnet.cidr, port.mac);
            let there = |p: &Pick<'_>| matches!(p, Pick::Exactly(s, a) if s.id == subnet.id && *a == address);
            if !picks.iter().any(there) {
                picks.push(Pick::Exactly(subnet, address));
            }
        }
    }
    Ok(picks)
}

fn pick<'a>(port: &Port, subnets: &'a [Subnet], wish: &FixedIpWish, is_router: bool) -> Result<Pick<'a>, EngineError> {
    let subnet = match wish.subnet_id {
        Some(id) => Some(subnets.iter().find(|s| s.id == id).ok_or_else(|| {
            let message = format!(
                "Invalid input for operation: Failed to create port on network {}, because fixed_ips included invalid subnet {id}.",
                port.network_id
            );
            invalid("InvalidInput", message)
        })?),
        None => None,
    };
    match (subnet, wish.address) {
        (Some(subnet), Some(address)) if !holds(subnet, address) => Err(invalid(
            "InvalidIpForSubnet",
            format!("IP address {address} is not a valid IP for the specified subnet."),
        )),
        (Some(subnet), Some(address)) => exactly(port, subnet, address, is_router),
        (Some(subnet), None) if subnet.is_automatic() && !is_router => {
            Ok(Pick::Exactly(subnet, automatic_address(subnet.cidr, port.mac)))
        }
        (Some(subnet), None) => Ok(Pick::AnyOf(vec![subnet])),
        (None, Some(address)) => match subnets.iter().find(|s| holds(s, address)) {
            Some(subnet) => exactly(port, subnet, address, is_router),
            None => Err(invalid(
                "InvalidIpForNetwork",
                format!("IP address {address} is not a valid IP for any of the subnets on the specified network."),
            )),
        },
        (None, None) => Err(invalid(
            "InvalidInput",
            "Invalid input for operation: a fixed IP needs a subnet_id or an ip_address.".into(),
        )),
    }
}

fn exactly<'a>(port: &Port, subnet: &'a Subnet, address: IpAddr, is_router: bool) -> Result<Pick<'a>, EngineError> {
    if subnet.is_automatic() && !is_router && address != automatic_address(subnet.cidr, port.mac) {
        let message = format!(
            "Invalid input for operation: IPv6 address {address} can not be directly assigned to a port on subnet {} as \
             the subnet is configured for automatic addresses.",
            subnet.id
        );
        return Err(invalid("InvalidInput", message));
    }
    Ok(Pick::Exactly(subnet, address))
}

/// Whether a port may have this address: in the range, and neither the range's name nor its broadcast address.
pub(crate) fn holds(subnet: &Subnet, address: IpAddr) -> bool {
    let usable = match subnet.cidr {
        IpNet::V4(v4) if v4.prefix_len() < 31 => address != v4.network() && address != v4.broadcast(),
        IpNet::V4(_) => true,
        IpNet::V6(v6) => v6.prefix_len() >= 127 || address != v6.network(),
    };
    subnet.cidr.contains(&address) && usable
}

pub(crate) fn already_allocated(subnet: SubnetId, address: IpAddr) -> EngineError {
    EngineError::Conflict {
        code: "IpAddressAlreadyAllocated",
        message: format!("IP address {address} already allocated in subnet {subnet}"),
    }
}

fn exhausted(port: &Port, subnets: &[&Subnet]) -> EngineError {
    let names: Vec<String> = subnets.iter().map(|s| s.id.to_string()).collect();
    EngineError::Conflict {
        code: "IpAddressGenerationFailure",
        message: format!(
            "No more IP addresses available on network {} (subnets {}).",
            port.network_id,
            names.join(", ")
        ),
    }
}

impl Engine {
    /// Claims the addresses of a port that was just recorded.
    pub(crate) async fn addresses_assign(
        &self,
        tx: &Tx,
        port: &mut Port,
        subnets: &[Subnet],
        wishes: Option<Vec<FixedIpWish>>,
    ) -> Result<(), EngineError> {
        for pick in picks(port, subnets, wishes.as_deref())? {
            self.address_take(tx, port, pick).await?;
        }
        Ok(())
    }

    async fn address_take(&self, tx: &Tx, port: &mut Port, pick: Pick<'_>) -> Result<(), EngineError> {
        let ordinal = u64::try_from(port.fixed_ips.len()).unwrap_or(u64::MAX);
        match pick {
            Pick::Exactly(subnet, address) => {
                if !tx.address_claim(subnet.id, address, port.id, ordinal).await? {
                    return Err(already_allocated(subnet.id, address));
                }
                port.fixed_ips.push(FixedIp { subnet_id: subnet.id, address });
            }
            Pick::AnyOf(subnets) => {
                for subnet in &subnets {
                    let drawn = tx.address_claim_next(subnet.id, &stretches(subnet), port.id, ordinal).await?;
                    if let Some(address) = drawn {
                        port.fixed_ips.push(FixedIp { subnet_id: subnet.id, address });
                        return Ok(());
                    }
                }
                return Err(exhausted(port, &subnets));
            }
        }
        Ok(())
    }

    /// Makes a port's addresses those of the list: keeps what fits, gives back the rest, claims what is new.
    pub(crate) async fn addresses_replace(
        &self,
        tx: &Tx,
        port: &mut Port,
        wishes: Vec<FixedIpWish>,
    ) -> Result<(), EngineError> {
        let subnets = tx.subnet_list_by_networks(&[port.network_id]).await?;
        let mut held = std::mem::take(&mut port.fixed_ips);
        let mut plan = Vec::new();
        for pick in picks(port, &subnets, Some(&wishes))? {
            let kept = match &pick {
                Pick::Exactly(subnet, address) => {
                    held.iter().position(|ip| ip.subnet_id == subnet.id && ip.address == *address)
                }
                Pick::AnyOf(any) => held.iter().position(|ip| {
                    any.iter().any(|s| s.id == ip.subnet_id)
                        && !wishes.iter().any(|wish| wish.address == Some(ip.address))
                }),
            };
            plan.push((kept.map(|index| held.remove(index)), pick));
        }
        self.addresses_give_back(tx, port.id, &held).await?;
        for (kept, pick) in plan {
            match kept {
                Some(ip) => {
                    let ordinal = u64::try_from(port.fixed_ips.len()).unwrap_or(u64::MAX);
                    tx.address_ordinal_set(port.id, ip.subnet_id, ip.address, ordinal).await?;
                    port.fixed_ips.push(ip);
                }
                None => self.address_take(tx, port, pick).await?,
            }
        }
        Ok(())
    }

    async fn addresses_give_back(&self, tx: &Tx, port: PortId, gone: &[FixedIp]) -> Result<(), EngineError> {
        if gone.is_empty() {
            return Ok(());
        }
        let floating = tx.floating_ips_by_ports(&[port]).await?;
        let forwarded = tx.port_forwardings_by_port(port).await?;
        for ip in gone {
            if forwarded.iter().any(|forwarding| forwarding.address == ip.address) {
                return Err(EngineError::Conflict {
                    code: "PortInUse",
                    message: format!(
                        "Fixed IP {} of port {port} cannot be removed: port forwardings lead to it.",
                        ip.address
                    ),
                });
            }
            if let Some(used) = floating.iter().find(|f| f.fixed_address == Some(ip.address)) {
                return Err(EngineError::Conflict {
                    code: "PortInUse",
                    message: format!(
                        "Fixed IP {} of port {port} cannot be removed: floating IP {} leads to it.",
                        ip.address, used.address
                    ),
                });
            }
            tx.address_release(port, ip.subnet_id, ip.address).await?;
        }
        Ok(())
    }
}
