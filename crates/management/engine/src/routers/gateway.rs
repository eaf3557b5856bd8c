//! A router's leg on an external network.

use super::bad_router;
use crate::port_addresses::FixedIpWish;
use crate::ports::PortNew;
use crate::{Engine, EngineError};
use arcus_store::{OWNER_ROUTER_GATEWAY, Port, Router, Tx};
use arcus_types::NetworkId;
use arcus_types::policy::{Target, authorize, network as policy};

/// A way out that somebody would like for a router.
#[derive(Debug, Clone, Default)]
pub struct GatewayWish {
    /// The external network.
    pub network_id: NetworkId,
    /// Whether guests may go out under the router's address; `None` leaves it. To forbid it is for administrators.
    pub snat: Option<bool>,
    /// The router's addresses there; for administrators.
    pub fixed_ips: Option<Vec<FixedIpWish>>,
}

impl Engine {
    /// Brings a router's gateway to the wish; the caller records the router that is returned.
    pub(super) async fn gateway_set(
        &self,
        tx: &Tx,
        mut router: Router,
        wish: Option<GatewayWish>,
    ) -> Result<Router, EngineError> {
        let legs = tx.port_list_by_routers(&[router.id]).await?;
        let present = legs.into_iter().find(|p| p.device_owner == OWNER_ROUTER_GATEWAY);
        let Some(wish) = wish else {
            if let Some(port) = present {
                self.gateway_remove(tx, &router, &port).await?;
            }
            router.gateway_network_id = None;
            router.snat = true;
            return Ok(router);
        };
        self.gateway_wish_checked(tx, &wish).await?;
        router.snat = wish.snat.unwrap_or(router.snat);
        match present {
            Some(mut port) if port.network_id == wish.network_id => {
                if let Some(fixed_ips) = wish.fixed_ips {
                    self.addresses_replace(tx, &mut port, fixed_ips).await?;
                }
                return Ok(router);
            }
            Some(port) => self.gateway_remove(tx, &router, &port).await?,
            None => {}
        }
        let new = PortNew {
            network_id: wish.network_id,
            device_id: router.id.to_string(),
            device_owner: OWNER_ROUTER_GATEWAY.to_owned(),
            router_id: Some(router.id),
            fixed_ips: wish.fixed_ips,
            security_groups: Some(Vec::new()),
            port_security: Some(false),
            ..PortNew::default()
        };
        let port = self.port_create_in(tx, new).await?;
        if port.fixed_ips.is_empty() {
            return Err(bad_router(format!("No addresses are available on external network {}", wish.network_id)));
        }
        router.gateway_network_id = Some(wish.network_id);
        Ok(router)
    }

    async fn gateway_wish_checked(&self, tx: &Tx, wish: &GatewayWish) -> Result<(), EngineError> {
        let ctx = *tx.ctx();
        if wish.snat == Some(false) || wish.fixed_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
            authorize(&ctx, policy::ROUTER_GATEWAY_DETAIL, &Target::default())?;
        }
        let network = self.network_seen(tx, &ctx, wish.network_id).await?;
        if network.external {
            Ok(())
        } else {
            Err(bad_router(format!("Network {} is not an external network", network.id)))
        }
    }

    async fn gateway_remove(&self, tx: &Tx, router: &Router, port: &Port) -> Result<(), EngineError> {
        if tx.floating_ip_count(router.id, None).await? > 0 {
            return Err(EngineError::Conflict {
                code: "RouterExternalGatewayInUseByFloatingIp",
                message: format!(
                    "Gateway cannot be updated for router {}, since a gateway to external network {} is required by one or \
                     more floating IPs.",
                    router.id, port.network_id
                ),
            });
        }
        self.port_delete_in(tx, port.id).await
    }
}
