//! Subnets: address ranges on networks.

pub mod ranges;

use crate::networks::{found, guard, no_network, over_quota, own_project, seen_by, unchanged};
use crate::port_addresses::automatic_address;
use crate::{Engine, EngineError};
use arcus_store::{
    AllocationPool, AuditEntry, Db, HostRoute, Ipv6Mode, Listing, Network, Page, QuotaResource, StoreError, Subnet, Tx,
};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{NetworkId, OpCtx, ProjectId, SubnetId, SubnetPoolId, Timestamp};
use ipnet::IpNet;
use serde_json::json;
use std::net::IpAddr;

/// The most name servers of a subnet.
const DNS_SERVERS_MAX: usize = 5;
/// The most routes that guests are told.
pub(crate) const HOST_ROUTES_MAX: usize = 20;

/// A subnet to make.
#[derive(Debug, Clone, Default)]
pub struct SubnetNew {
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The range; `None` cuts one from the pool.
    pub cidr: Option<IpNet>,
    /// The length of the prefix that is cut from the pool.
    pub prefix_len: Option<u8>,
    /// The pool that the range comes from.
    pub subnet_pool_id: Option<SubnetPoolId>,
    /// 4 or 6, where no range is named.
    pub ip_version: Option<u32>,
    /// Whether the range comes from the default pool of that IP version.
    pub use_default_pool: bool,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// The router's address: `None` takes the range's first one, `Some(None)` is none.
    pub gateway: Option<Option<IpAddr>>,
    /// Whether DHCP answers; `None` is yes.
    pub dhcp: Option<bool>,
    /// Where ports' addresses come from; `None` takes all but the gateway.
    pub pools: Option<Vec<AllocationPool>>,
    /// Name servers.
    pub dns_servers: Vec<IpAddr>,
    /// Routes that guests are told.
    pub host_routes: Vec<HostRoute>,
    /// Who announces the router, on IPv6.
    pub ipv6_ra_mode: Option<Ipv6Mode>,
    /// How guests get addresses, on IPv6.
    pub ipv6_address_mode: Option<Ipv6Mode>,
}

/// What of a subnet may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct SubnetChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// The router's address; `Some(None)` is none.
    pub gateway: Option<Option<IpAddr>>,
    /// Whether DHCP answers.
    pub dhcp: Option<bool>,
    /// Where ports' addresses come from.
    pub pools: Option<Vec<AllocationPool>>,
    /// Name servers, all of them.
    pub dns_servers: Option<Vec<IpAddr>>,
    /// Routes, all of them.
    pub host_routes: Option<Vec<HostRoute>>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

const SUBNET: (&str, &str) = ("SubnetNotFound", "Subnet");

pub(crate) fn no_subnet(id: SubnetId) -> EngineError {
    EngineError::not_found(SUBNET.0, SUBNET.1, id)
}

fn input(message: String) -> EngineError {
    EngineError::Invalid { code: "InvalidInput", message: format!("Invalid input for operation: {message}") }
}

fn lists_checked(subnet: &Subnet) -> Result<(), EngineError> {
    if subnet.dns_servers.len() > DNS_SERVERS_MAX {
        return Err(EngineError::Invalid {
            code: "DNSNameServersExhausted",
            message: format!(
                "Unable to complete operation for {}. The number of DNS nameservers exceeds the limit {DNS_SERVERS_MAX}.",
                subnet.id
            ),
        });
    }
    if subnet.host_routes.len() > HOST_ROUTES_MAX {
        return Err(EngineError::Invalid {
            code: "HostRoutesExhausted",
            message: format!(
                "Unable to complete operation for {}. The number of host routes exceeds the limit {HOST_ROUTES_MAX}.",
                subnet.id
            ),
        });
    }
    let is_v4 = subnet.ip_version() == 4;
    for address in &subnet.dns_servers {
        if address.is_ipv4() != is_v4 {
            return Err(input(format!(
                "dns_nameserver {address} does not match the ip_version {}",
                subnet.ip_version()
            )));
        }
    }
    for route in &subnet.host_routes {
        if route.nexthop.is_ipv4() != is_v4 || route.destination.addr().is_ipv4() != is_v4 {
            return Err(input(format!(
                "host route {} does not match the ip_version {}",
                route.destination,
                subnet.ip_version()
            )));
        }
    }
    Ok(())
}

impl Engine {
    /// Makes subnets, all or none.
    ///
    /// # Errors
    /// `NetworkNotFound`, 400 for ranges that cannot be, 409 for quotas.
    pub async fn subnets_create(&self, ctx: &OpCtx, wishes: Vec<SubnetNew>) -> Result<Vec<Subnet>, EngineError> {
        authorize(ctx, policy::SUBNET_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut subnets = Vec::with_capacity(wishes.len());
        for new in wishes {
            self.network_owned(&tx, ctx, policy::SUBNET_CREATE, new.network_id).await?;
            subnets.push(self.subnet_create_in(&tx, new).await?);
        }
        self.commit(tx).await?;
        Ok(subnets)
    }

    pub(crate) async fn subnet_create_in(&self, tx: &Tx, mut new: SubnetNew) -> Result<Subnet, EngineError> {
        if new.use_default_pool && new.subnet_pool_id.is_none() {
            let version = new.ip_version.unwrap_or(4);
            let pools = tx.subnet_pools_default().await?;
            let pool = pools.into_iter().find(|(of, _)| *of == version).map(|(_, pool)| pool);
            new.subnet_pool_id =
                Some(pool.ok_or_else(|| input(format!("No default subnetpool defined for IPv{version}")))?);
        }
        let project_id = own_project(tx.ctx(), new.project_id)?;
        // Holds off every other subnet of this network until the overlap is decided.
        if !tx.network_lock(new.network_id).await? {
            return Err(no_network(new.network_id));
        }
        let network = found(tx.network_get_bare(new.network_id).await?, "NetworkNotFound", "Network", new.network_id)?;
        let cidr = self.subnet_range(tx, &new).await?;
        let gateway = match new.gateway {
            Some(given) => given,
            None => ranges::default_gateway(cidr),
        };
        let now = Timestamp::now();
        let pools = match new.pools {
            Some(pools) => pools,
            None => ranges::default_pools(cidr, gateway),
        };
        let mut subnet = Subnet {
            id: SubnetId::new(),
            network_id: network.id,
            project_id,
            name: new.name,
            description: new.description,
            cidr,
            gateway,
            dhcp: new.dhcp.unwrap_or(true),
            pools,
            dns_servers: new.dns_servers,
            host_routes: new.host_routes,
            ipv6_ra_mode: new.ipv6_ra_mode,
            ipv6_address_mode: new.ipv6_address_mode,
            subnet_pool_id: new.subnet_pool_id,
            external: network.external,
            tags: new.tags,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        subnet.pools.sort_by_key(|pool| pool.start);
        ranges::check(&subnet)?;
        lists_checked(&subnet)?;
        self.subnet_fits(tx, &network, &subnet).await?;
        if !tx.quota_claim(project_id, QuotaResource::Subnets, 1).await? {
            return Err(over_quota("subnet"));
        }
        tx.subnet_insert(&subnet).await?;
        if subnet.is_automatic() {
            self.automatic_addresses_add(tx, &subnet).await?;
        }
        tx.nodes_touch_by_networks(&[network.id]).await?;
        self.subnet_audit(tx, policy::SUBNET_CREATE, &subnet).await?;
        Ok(subnet)
    }

    async fn subnet_fits(&self, tx: &Tx, network: &Network, subnet: &Subnet) -> Result<(), EngineError> {
        for other in tx.subnet_list_by_networks(&[network.id]).await? {
            if ranges::overlap(other.cidr, subnet.cidr) {
                return Err(input(format!(
                    "Requested subnet with cidr: {} for network: {} overlaps with another subnet.",
                    subnet.cidr, network.id
                )));
            }
            // What a network's subnets of one IP version have in common, so that its addresses stay unique in a scope.
            if other.ip_version() == subnet.ip_version() && other.subnet_pool_id != subnet.subnet_pool_id {
                return Err(EngineError::Invalid {
                    code: "NetworkSubnetPoolAffinityError",
                    message: "Subnets hosted on the same network must be allocated from the same subnet pool.".into(),
                });
            }
        }
        if subnet.ip_version() == 6 && network.mtu < 1280 {
            return Err(EngineError::Conflict {
                code: "NetworkMTUSubnetConflict",
                message: "The requested MTU is too small for an IPv6 subnet: at least 1280 bytes are needed.".into(),
            });
        }
        Ok(())
    }

    /// Ports that are there already make themselves an address on a new range of this kind, so it is recorded for them.
    async fn automatic_addresses_add(&self, tx: &Tx, subnet: &Subnet) -> Result<(), EngineError> {
        for port in tx.port_list_by_network(subnet.network_id).await? {
            if port.device_owner.starts_with("network:") {
                continue;
            }
            let ordinal = u64::try_from(port.fixed_ips.len()).unwrap_or(u64::MAX);
            tx.address_claim(subnet.id, automatic_address(subnet.cidr, port.mac), port.id, ordinal).await?;
        }
        Ok(())
    }

    async fn subnet_audit(&self, tx: &Tx, action: Action, subnet: &Subnet) -> Result<(), EngineError> {
        let detail = json!({ "network_id": subnet.network_id, "cidr": subnet.cidr, "name": subnet.name });
        let (id, project_id) = (subnet.id.to_string(), Some(subnet.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "subnet", id, project_id, detail: &detail }).await?)
    }

    /// The subnet, if the caller may see it: its owner, its network's owner, and everybody on an open network.
    pub(crate) async fn subnet_seen(&self, db: &Db, ctx: &OpCtx, id: SubnetId) -> Result<Subnet, EngineError> {
        authorize(ctx, policy::SUBNET_GET, &Target::own(ctx))?;
        let subnet = found(db.subnet_get(id).await?, SUBNET.0, SUBNET.1, id)?;
        if ctx.is_admin() || ctx.project_id() == Some(subnet.project_id) {
            return Ok(subnet);
        }
        let network = found(db.network_get_bare(subnet.network_id).await?, SUBNET.0, SUBNET.1, id)?;
        match guard(ctx, policy::SUBNET_GET, network.project_id, SUBNET, id) {
            Err(EngineError::NotFound { .. }) if self.shared_with(db, ctx, network.id.0, None).await? => Ok(subnet),
            other => other.map(|()| subnet),
        }
    }

    async fn subnet_owned(&self, db: &Db, ctx: &OpCtx, action: Action, id: SubnetId) -> Result<Subnet, EngineError> {
        let subnet = self.subnet_seen(db, ctx, id).await?;
        let network = found(db.network_get_bare(subnet.network_id).await?, SUBNET.0, SUBNET.1, id)?;
        let by_network = authorize(ctx, action, &Target::project(network.project_id));
        if by_network.is_err() && authorize(ctx, action, &Target::project(subnet.project_id)).is_err() {
            return Err(arcus_types::policy::Denied::Forbidden(action.name).into());
        }
        Ok(subnet)
    }

    /// The subnet with this id.
    ///
    /// # Errors
    /// `SubnetNotFound`.
    pub async fn subnet_get(&self, ctx: &OpCtx, id: SubnetId) -> Result<Subnet, EngineError> {
        self.subnet_seen(self.store(), ctx, id).await
    }

    /// A page of subnets.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn subnet_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<Subnet>, EngineError> {
        authorize(ctx, policy::SUBNET_LIST, &Target::own(ctx))?;
        Ok(self.store().subnet_list(&seen_by(ctx, listing)?).await?)
    }

    /// Changes a subnet.
    ///
    /// # Errors
    /// `SubnetNotFound`, 400 for ranges that cannot be, `GatewayIpInUse` while a router holds the gateway's address.
    pub async fn subnet_update(&self, ctx: &OpCtx, id: SubnetId, change: SubnetChange) -> Result<Subnet, EngineError> {
        authorize(ctx, policy::SUBNET_UPDATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut subnet = self.subnet_owned(&tx, ctx, policy::SUBNET_UPDATE, id).await?;
        unchanged(change.if_match, subnet.revision)?;
        if let Some(gateway) = change.gateway.filter(|gateway| *gateway != subnet.gateway) {
            self.gateway_is_free(&tx, &subnet).await?;
            subnet.gateway = gateway;
        }
        subnet.name = change.name.unwrap_or(subnet.name);
        subnet.description = change.description.unwrap_or(subnet.description);
        subnet.dhcp = change.dhcp.unwrap_or(subnet.dhcp);
        subnet.pools = change.pools.unwrap_or(subnet.pools);
        subnet.pools.sort_by_key(|pool| pool.start);
        subnet.dns_servers = change.dns_servers.unwrap_or(subnet.dns_servers);
        subnet.host_routes = change.host_routes.unwrap_or(subnet.host_routes);
        ranges::check(&subnet)?;
        lists_checked(&subnet)?;
        tx.subnet_update(&subnet).await?;
        tx.nodes_touch_by_networks(&[subnet.network_id]).await?;
        self.subnet_audit(&tx, policy::SUBNET_UPDATE, &subnet).await?;
        let subnet = found(tx.subnet_get(id).await?, SUBNET.0, SUBNET.1, id)?;
        self.commit(tx).await?;
        Ok(subnet)
    }

    async fn gateway_is_free(&self, tx: &Tx, subnet: &Subnet) -> Result<(), EngineError> {
        let Some(gateway) = subnet.gateway else { return Ok(()) };
        let ports = tx.port_list_by_network(subnet.network_id).await?;
        let holder = ports.iter().find(|p| p.router_id.is_some() && p.fixed_ips.iter().any(|ip| ip.address == gateway));
        match holder {
            Some(port) => Err(EngineError::Conflict {
                code: "GatewayIpInUse",
                message: format!("Current gateway ip {gateway} already in use by port {}. Unable to update.", port.id),
            }),
            None => Ok(()),
        }
    }

    /// Removes a subnet.
    ///
    /// # Errors
    /// `SubnetNotFound`; `SubnetInUse` while ports have addresses from it.
    pub async fn subnet_delete(&self, ctx: &OpCtx, id: SubnetId, if_match: Option<u64>) -> Result<(), EngineError> {
        authorize(ctx, policy::SUBNET_DELETE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let subnet = self.subnet_owned(&tx, ctx, policy::SUBNET_DELETE, id).await?;
        unchanged(if_match, subnet.revision)?;
        if subnet.is_automatic() {
            self.automatic_addresses_remove(&tx, &subnet).await?;
        }
        match tx.subnet_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(no_subnet(id)),
            Err(StoreError::Referenced(_)) => {
                return Err(EngineError::Conflict {
                    code: "SubnetInUse",
                    message: format!(
                        "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet."
                    ),
                });
            }
            Err(error) => return Err(error.into()),
        }
        tx.quota_release(subnet.project_id, QuotaResource::Subnets, 1).await?;
        tx.nodes_touch_by_networks(&[subnet.network_id]).await?;
        self.subnet_audit(&tx, policy::SUBNET_DELETE, &subnet).await?;
        self.commit(tx).await?;
        Ok(())
    }

    async fn automatic_addresses_remove(&self, tx: &Tx, subnet: &Subnet) -> Result<(), EngineError> {
        for port in tx.port_list_by_network(subnet.network_id).await? {
            if port.router_id.is_none() {
                let address = automatic_address(subnet.cidr, port.mac);
                tx.address_release(port.id, subnet.id, address).await?;
            }
        }
        Ok(())
    }
}
