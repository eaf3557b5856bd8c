//! A router's legs on tenants' networks.

use super::{ROUTER, bad_router};
use crate::networks::found;
use crate::port_addresses::FixedIpWish;
use crate::ports::{PortNew, no_port};
use crate::subnets::ranges;
use crate::{Engine, EngineError};
use arcus_store::{OWNER_ROUTER_INTERFACE, Port, PortStatus, Router, Subnet, Tx};
use arcus_types::policy::network as policy;
use arcus_types::{NetworkId, OpCtx, PortId, RouterId, SubnetId};

/// Which leg is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterfaceOf {
    /// The one with an address from this subnet.
    Subnet(SubnetId),
    /// This port.
    Port(PortId),
    /// This port, which must have an address from this subnet.
    Both(PortId, SubnetId),
}

/// A leg that was added or removed.
#[derive(Debug, Clone)]
pub struct Interface {
    /// The router.
    pub router: Router,
    /// The leg's port.
    pub port_id: PortId,
    /// The network.
    pub network_id: NetworkId,
    /// The subnets that its addresses are from, the one that was meant first.
    pub subnet_ids: Vec<SubnetId>,
}

impl Engine {
    /// Gives a router a leg: on a subnet, under its gateway's address, or with a port that is there.
    ///
    /// # Errors
    /// `RouterNotFound`, `SubnetNotFound`, `PortNotFound`; 400 for a subnet without a gateway or one that overlaps another
    /// leg's; `IpAddressAlreadyAllocated` while something else holds the gateway's address; `PortInUse`.
    pub async fn router_interface_add(
        &self,
        ctx: &OpCtx,
        id: RouterId,
        of: InterfaceOf,
    ) -> Result<Interface, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.router_owned(&tx, ctx, policy::ROUTER_INTERFACE_ADD, id).await?;
        let router = found(tx.router_lock(id).await?, ROUTER.0, ROUTER.1, id)?;
        let port = self.router_interface_add_in(&tx, &router, of).await?;
        self.commit(tx).await?;
        let subnet_ids = port.fixed_ips.iter().map(|ip| ip.subnet_id).collect();
        Ok(Interface { router, port_id: port.id, network_id: port.network_id, subnet_ids })
    }

    /// Gives a locked router a leg inside the caller's transaction; the leg's port.
    pub(crate) async fn router_interface_add_in(
        &self,
        tx: &Tx,
        router: &Router,
        of: InterfaceOf,
    ) -> Result<Port, EngineError> {
        let ctx = *tx.ctx();
        let port = match of {
            InterfaceOf::Subnet(subnet) => self.leg_by_subnet(tx, &ctx, router, subnet).await?,
            InterfaceOf::Port(port) => self.leg_by_port(tx, router, port).await?,
            InterfaceOf::Both(..) => {
                return Err(EngineError::invalid("Cannot specify both subnet-id and port-id."));
            }
        };
        tx.nodes_touch_by_networks(&[port.network_id]).await?;
        self.router_audit(tx, policy::ROUTER_INTERFACE_ADD, router).await?;
        Ok(port)
    }

    async fn leg_by_subnet(&self, tx: &Tx, ctx: &OpCtx, router: &Router, id: SubnetId) -> Result<Port, EngineError> {
        let subnet = self.subnet_seen(tx, ctx, id).await?;
        self.network_usable(tx, ctx, subnet.network_id).await?;
        let Some(gateway) = subnet.gateway else {
            return Err(bad_router("Subnet for router interface must have a gateway IP".into()));
        };
        self.legs_stay_apart(tx, router, std::slice::from_ref(&subnet)).await?;
        let new = PortNew {
            network_id: subnet.network_id,
            project_id: Some(router.project_id),
            device_id: router.id.to_string(),
            device_owner: OWNER_ROUTER_INTERFACE.to_owned(),
            router_id: Some(router.id),
            fixed_ips: Some(vec![FixedIpWish { subnet_id: Some(id), address: Some(gateway) }]),
            security_groups: Some(Vec::new()),
            port_security: Some(false),
            ..PortNew::default()
        };
        self.port_create_in(tx, new).await
    }

    async fn leg_by_port(&self, tx: &Tx, router: &Router, id: PortId) -> Result<Port, EngineError> {
        let ctx = tx.ctx();
        let port = tx.port_get(id).await?;
        let mine = |p: &Port| ctx.is_admin() || p.project_id == Some(router.project_id);
        let mut port = port.filter(mine).ok_or_else(|| no_port(id))?;
        if port.router_id.is_some() || port.server_id.is_some() || !port.device_id.is_empty() {
            return Err(EngineError::Conflict {
                code: "PortInUse",
                message: format!(
                    "Unable to complete operation on port {id} for network {}. Port already has an attached device {}.",
                    port.network_id, port.device_id
                ),
            });
        }
        if port.fixed_ips.is_empty() {
            return Err(bad_router("Router port must have at least one fixed IP".into()));
        }
        let ids: Vec<SubnetId> = port.fixed_ips.iter().map(|ip| ip.subnet_id).collect();
        let subnets = tx.subnet_list_by_ids(&ids).await?;
        if subnets.iter().filter(|s| s.ip_version() == 4).count() > 1 {
            return Err(bad_router("Cannot have multiple IPv4 subnets on router port".into()));
        }
        self.legs_stay_apart(tx, router, &subnets).await?;
        port.device_id = router.id.to_string();
        port.device_owner = OWNER_ROUTER_INTERFACE.to_owned();
        port.router_id = Some(router.id);
        port.port_security = false;
        port.allowed_pairs.clear();
        port.status = PortStatus::Active;
        tx.port_security_groups_set(id, &[]).await?;
        tx.port_update(&port).await?;
        tx.nodes_touch_by_groups(&port.security_groups).await?;
        Ok(port)
    }

    /// Two legs of one router never lead to the same address.
    async fn legs_stay_apart(&self, tx: &Tx, router: &Router, new: &[Subnet]) -> Result<(), EngineError> {
        let legs = tx.port_list_by_routers(&[router.id]).await?;
        let ids: Vec<SubnetId> = legs.iter().flat_map(|leg| &leg.fixed_ips).map(|ip| ip.subnet_id).collect();
        for there in tx.subnet_list_by_ids(&ids).await? {
            for subnet in new {
                if subnet.id == there.id {
                    return Err(bad_router(format!("Router already has a port on subnet {}", subnet.id)));
                }
                if ranges::overlap(subnet.cidr, there.cidr) {
                    return Err(bad_router(format!(
                        "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
                        subnet.cidr, subnet.id, there.cidr, there.id
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes a leg away; its port goes with it.
    ///
    /// # Errors
    /// `RouterNotFound`, `RouterInterfaceNotFound`, `RouterInterfaceNotFoundForSubnet`;
    /// `RouterInterfaceInUseByFloatingIP` and `RouterInterfaceInUseByRoute` while something needs it.
    pub async fn router_interface_remove(
        &self,
        ctx: &OpCtx,
        id: RouterId,
        of: InterfaceOf,
    ) -> Result<Interface, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.router_owned(&tx, ctx, policy::ROUTER_INTERFACE_REMOVE, id).await?;
        let router = found(tx.router_lock(id).await?, ROUTER.0, ROUTER.1, id)?;
        let (interface, router) = self.router_interface_remove_in(&tx, router, of).await?;
        self.commit(tx).await?;
        Ok(Interface { router, ..interface })
    }

    /// Takes a leg of a locked router away inside the caller's transaction; the leg and the router.
    pub(crate) async fn router_interface_remove_in(
        &self,
        tx: &Tx,
        router: Router,
        of: InterfaceOf,
    ) -> Result<(Interface, Router), EngineError> {
        let id = router.id;
        let (mut port, meant) = self.leg(tx, id, of).await?;
        let gone: Vec<SubnetId> = match meant {
            Some(subnet) => vec![subnet],
            None => port.fixed_ips.iter().map(|ip| ip.subnet_id).collect(),
        };
        self.leg_is_free(tx, &router, &gone).await?;
        // Nodes are told last, and found by the legs as they were before.
        let legs = tx.port_list_by_routers(&[id]).await?;
        port.fixed_ips.retain(|ip| !gone.contains(&ip.subnet_id));
        if port.fixed_ips.is_empty() {
            self.port_delete_in(tx, port.id).await?;
        } else {
            let before = tx.port_get(port.id).await?.map(|p| p.fixed_ips).unwrap_or_default();
            for ip in before.iter().filter(|ip| gone.contains(&ip.subnet_id)) {
                tx.address_release(port.id, ip.subnet_id, ip.address).await?;
            }
        }
        self.router_touch(tx, &legs).await?;
        self.router_audit(tx, policy::ROUTER_INTERFACE_REMOVE, &router).await?;
        let leg = Interface { router: router.clone(), port_id: port.id, network_id: port.network_id, subnet_ids: gone };
        Ok((leg, router))
    }

    /// The leg that is meant, and the subnet if one was named.
    async fn leg(&self, tx: &Tx, id: RouterId, of: InterfaceOf) -> Result<(Port, Option<SubnetId>), EngineError> {
        let legs = tx.port_list_by_routers(&[id]).await?;
        let mut legs = legs.into_iter().filter(|p| p.device_owner == OWNER_ROUTER_INTERFACE);
        match of {
            InterfaceOf::Port(port) | InterfaceOf::Both(port, _) => {
                let leg = legs.find(|p| p.id == port).ok_or_else(|| EngineError::NotFound {
                    code: "RouterInterfaceNotFound",
                    kind: "Router interface",
                    id: format!("{port} of router {id}"),
                })?;
                if let InterfaceOf::Both(_, subnet) = of
                    && !leg.fixed_ips.iter().any(|ip| ip.subnet_id == subnet)
                {
                    return Err(EngineError::Invalid {
                        code: "SubnetMismatchForPort",
                        message: format!("Subnet on port {port} does not match the requested subnet {subnet}."),
                    });
                }
                Ok((leg, None))
            }
            InterfaceOf::Subnet(subnet) => {
                let leg = legs.find(|p| p.fixed_ips.iter().any(|ip| ip.subnet_id == subnet));
                let leg = leg.ok_or_else(|| EngineError::NotFound {
                    code: "RouterInterfaceNotFoundForSubnet",
                    kind: "Router interface",
                    id: format!("of router {id} on subnet {subnet}"),
                })?;
                Ok((leg, Some(subnet)))
            }
        }
    }

    async fn leg_is_free(&self, tx: &Tx, router: &Router, subnets: &[SubnetId]) -> Result<(), EngineError> {
        for subnet in tx.subnet_list_by_ids(subnets).await? {
            if tx.floating_ip_count(router.id, Some(subnet.id)).await? > 0 {
                return Err(EngineError::Conflict {
                    code: "RouterInterfaceInUseByFloatingIP",
                    message: format!(
                        "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more floating IPs.",
                        subnet.id, router.id
                    ),
                });
            }
            if router.routes.iter().any(|route| subnet.cidr.contains(&route.nexthop)) {
                return Err(EngineError::Conflict {
                    code: "RouterInterfaceInUseByRoute",
                    message: format!(
                        "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more routes.",
                        subnet.id, router.id
                    ),
                });
            }
        }
        Ok(())
    }
}
