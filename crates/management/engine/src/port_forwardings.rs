//! Port forwardings: ports of a floating IP that lead to ports of a guest. A floating IP either leads to one port whole, or
//! has forwardings, all through one router.

use crate::networks::{found, seen_by};
use crate::ports::no_port;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, FloatingIp, Listing, Page, Port, PortForwarding, Tx};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{FloatingIpId, OpCtx, PortForwardingId, PortId, Timestamp};
use serde_json::json;
use std::net::IpAddr;

/// The most forwardings of one floating IP.
const FORWARDINGS_MAX: usize = 256;
/// What can be forwarded: protocols with ports.
const PROTOCOLS: &[&str] = &["tcp", "udp", "sctp", "dccp"];

/// What a forwarding shall be; for an update, `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct PortForwardingWish {
    /// The port that it leads to.
    pub port_id: Option<PortId>,
    /// Which of that port's addresses.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Option<String>,
    /// The first and the last of the guest's ports.
    pub internal_ports: Option<(u16, u16)>,
    /// The first and the last external port.
    pub external_ports: Option<(u16, u16)>,
    /// Free text.
    pub description: Option<String>,
}

const FORWARDING: (&str, &str) = ("PortForwardingNotFound", "Port Forwarding");

fn bad_request(message: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid { code: "BadRequest", message: format!("Bad port_forwarding request: {message}.") }
}

/// Refuses what cannot be, on its own and beside the others of its floating IP. Pure.
fn checked(one: &PortForwarding, others: &[PortForwarding]) -> Result<(), EngineError> {
    if !PROTOCOLS.contains(&one.protocol.as_str()) {
        return Err(EngineError::invalid(format!(
            "Invalid input for protocol. Reason: '{}' is not in {PROTOCOLS:?}.",
            one.protocol
        )));
    }
    let size = |(first, last): (u16, u16)| last.checked_sub(first);
    let (internal, external) = (size(one.internal_ports), size(one.external_ports));
    if internal.is_none() || external.is_none() || one.internal_ports.0 == 0 || one.external_ports.0 == 0 {
        return Err(EngineError::invalid("A range of ports begins at 1 or more and does not end before it begins."));
    }
    if internal != external && internal != Some(0) {
        return Err(bad_request(
            "the range of internal ports must be one port or as long as the range of external ports",
        ));
    }
    let meets = |a: (u16, u16), b: (u16, u16)| a.0 <= b.1 && b.0 <= a.1;
    let clash = others.iter().find(|other| {
        other.id != one.id && other.protocol == one.protocol && meets(other.external_ports, one.external_ports)
    });
    match clash {
        Some(other) => Err(bad_request(format!(
            "A duplicate port forwarding entry with same attributes already exists, conflicting values are external ports {}-{} of {}",
            other.external_ports.0, other.external_ports.1, other.protocol
        ))),
        None => Ok(()),
    }
}

impl Engine {
    /// The address of a port that a forwarding may lead to.
    async fn forwarding_target(
        &self,
        tx: &Tx,
        ip: &FloatingIp,
        port_id: PortId,
        asked: Option<IpAddr>,
    ) -> Result<(Port, IpAddr), EngineError> {
        let port = tx.port_get(port_id).await?.ok_or_else(|| no_port(port_id))?;
        if port.project_id != Some(ip.project_id) && !tx.ctx().is_admin() {
            return Err(no_port(port_id));
        }
        let mut fixed = port.fixed_ips.iter().filter(|ip| ip.address.is_ipv4());
        let fixed = match asked {
            Some(asked) => fixed.find(|ip| ip.address == asked),
            None => fixed.next(),
        };
        let fixed = *fixed.ok_or_else(|| match asked {
            Some(asked) => bad_request(format!("Port {port_id} does not have fixed ip {asked}")),
            None => bad_request(format!("Port {port_id} has no fixed IPv4 address")),
        })?;
        let bound = tx.floating_ips_by_ports(&[port_id]).await?;
        if let Some(bound) = bound.iter().find(|bound| bound.fixed_address == Some(fixed.address)) {
            return Err(EngineError::Conflict {
                code: "PortHasBindingFloatingIP",
                message: format!(
                    "Cannot create port forwarding to floating IP {} ({}) with port {port_id} using fixed IP {}, as that port already has a binding floating IP.",
                    bound.address, bound.id, fixed.address
                ),
            });
        }
        let router = tx.router_between(fixed.subnet_id, ip.network_id).await?;
        match router {
            Some(router) if ip.router_id.is_none_or(|present| present == router.id) => Ok((port, fixed.address)),
            Some(_) => Err(bad_request("all forwardings of a floating IP must go through one router")),
            None => Err(EngineError::NotFound {
                code: "ExternalGatewayForFloatingIPNotFound",
                kind: "A way",
                id: format!("from external network {} to subnet {}", ip.network_id, fixed.subnet_id),
            }),
        }
    }

    async fn forwarding_router(&self, tx: &Tx, ip: &mut FloatingIp, one: &PortForwarding) -> Result<(), EngineError> {
        let port = tx.port_get(one.port_id).await?.ok_or_else(|| no_port(one.port_id))?;
        let subnet = port.fixed_ips.iter().find(|fixed| fixed.address == one.address).map(|fixed| fixed.subnet_id);
        if let (None, Some(subnet)) = (ip.router_id, subnet) {
            ip.router_id = tx.router_between(subnet, ip.network_id).await?.map(|router| router.id);
        }
        Ok(())
    }

    /// Makes a forwarding.
    ///
    /// # Errors
    /// `FloatingIPNotFound`, `PortNotFound`, `ExternalGatewayForFloatingIPNotFound`; 409 for an address that leads
    /// somewhere already; 400 for ranges that cannot be or are forwarded already.
    pub async fn port_forwarding_create(
        &self,
        ctx: &OpCtx,
        floating_ip: FloatingIpId,
        wish: PortForwardingWish,
    ) -> Result<PortForwarding, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut ip = self.floating_ip_owned(&tx, ctx, policy::PORT_FORWARDING_CREATE, floating_ip).await?;
        if let Some(port) = ip.port_id {
            return Err(EngineError::Conflict {
                code: "FloatingIPPortAlreadyAssociated",
                message: format!("Floating IP {} leads to port {port} already: disassociate it first.", ip.address),
            });
        }
        let missing =
            |what| EngineError::invalid(format!("Failed to parse request. Required attribute '{what}' not specified"));
        let port_id = wish.port_id.ok_or_else(|| missing("internal_port_id"))?;
        let (port, address) = self.forwarding_target(&tx, &ip, port_id, wish.address).await?;
        let made = PortForwarding {
            id: PortForwardingId::new(),
            floating_ip_id: floating_ip,
            port_id,
            address,
            protocol: wish.protocol.ok_or_else(|| missing("protocol"))?,
            internal_ports: wish.internal_ports.ok_or_else(|| missing("internal_port"))?,
            external_ports: wish.external_ports.ok_or_else(|| missing("external_port"))?,
            description: wish.description.unwrap_or_default(),
            created_at: Timestamp::now(),
        };
        // The write of the floating IP holds off every other forwarding of it until the clash is decided.
        self.forwarding_router(&tx, &mut ip, &made).await?;
        tx.floating_ip_update(&ip).await?;
        let others = tx.port_forwardings_by_floating_ips(&[floating_ip]).await?;
        if others.len() >= FORWARDINGS_MAX {
            return Err(bad_request(format!("a floating IP has at most {FORWARDINGS_MAX} port forwardings")));
        }
        checked(&made, &others)?;
        tx.port_forwarding_insert(&made).await?;
        tx.nodes_touch_by_networks(&[port.network_id]).await?;
        self.forwarding_audit(&tx, policy::PORT_FORWARDING_CREATE, &ip, &made).await?;
        self.commit(tx).await?;
        Ok(made)
    }

    async fn forwarding_audit(
        &self,
        tx: &Tx,
        action: Action,
        ip: &FloatingIp,
        of: &PortForwarding,
    ) -> Result<(), EngineError> {
        let detail = json!({ "floating_ip": ip.address, "external_ports": of.external_ports, "port_id": of.port_id });
        let (id, project_id) = (of.id.to_string(), Some(ip.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "port_forwarding", id, project_id, detail: &detail }).await?)
    }

    /// The forwarding of a floating IP with this id.
    ///
    /// # Errors
    /// `FloatingIPNotFound`, `PortForwardingNotFound`.
    pub async fn port_forwarding_get(
        &self,
        ctx: &OpCtx,
        floating_ip: FloatingIpId,
        id: PortForwardingId,
    ) -> Result<PortForwarding, EngineError> {
        self.floating_ip_owned(self.store(), ctx, policy::PORT_FORWARDING_GET, floating_ip).await?;
        let all = self.store().port_forwardings_by_floating_ips(&[floating_ip]).await?;
        found(all.into_iter().find(|one| one.id == id), FORWARDING.0, FORWARDING.1, id)
    }

    /// A page of a floating IP's forwardings.
    ///
    /// # Errors
    /// `FloatingIPNotFound`.
    pub async fn port_forwarding_list(
        &self,
        ctx: &OpCtx,
        floating_ip: FloatingIpId,
        listing: Listing,
    ) -> Result<Page<PortForwarding>, EngineError> {
        authorize(ctx, policy::PORT_FORWARDING_LIST, &Target::own(ctx))?;
        self.floating_ip_owned(self.store(), ctx, policy::PORT_FORWARDING_LIST, floating_ip).await?;
        Ok(self.store().port_forwarding_list(floating_ip, &seen_by(ctx, listing)?).await?)
    }

    /// Changes a forwarding.
    ///
    /// # Errors
    /// `PortForwardingNotFound`, and what [`Engine::port_forwarding_create`] may answer.
    pub async fn port_forwarding_update(
        &self,
        ctx: &OpCtx,
        floating_ip: FloatingIpId,
        id: PortForwardingId,
        wish: PortForwardingWish,
    ) -> Result<PortForwarding, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut ip = self.floating_ip_owned(&tx, ctx, policy::PORT_FORWARDING_UPDATE, floating_ip).await?;
        let others = tx.port_forwardings_by_floating_ips(&[floating_ip]).await?;
        let present = others.iter().find(|one| one.id == id).cloned();
        let mut of = found(present, FORWARDING.0, FORWARDING.1, id)?;
        let mut near = tx.port_forwarding_networks(floating_ip).await?;
        if wish.port_id.is_some() || wish.address.is_some() {
            let port_id = wish.port_id.unwrap_or(of.port_id);
            let alone = others.len() == 1;
            // The only one may move to another router.
            let open = FloatingIp { router_id: if alone { None } else { ip.router_id }, ..ip.clone() };
            let (port, address) = self.forwarding_target(&tx, &open, port_id, wish.address).await?;
            (of.port_id, of.address) = (port_id, address);
            near.push(port.network_id);
            ip.router_id = open.router_id;
        }
        of.protocol = wish.protocol.unwrap_or(of.protocol);
        of.internal_ports = wish.internal_ports.unwrap_or(of.internal_ports);
        of.external_ports = wish.external_ports.unwrap_or(of.external_ports);
        of.description = wish.description.unwrap_or(of.description);
        checked(&of, &others)?;
        self.forwarding_router(&tx, &mut ip, &of).await?;
        tx.floating_ip_update(&ip).await?;
        tx.port_forwarding_delete(id).await?;
        tx.port_forwarding_insert(&of).await?;
        tx.nodes_touch_by_networks(&near).await?;
        self.forwarding_audit(&tx, policy::PORT_FORWARDING_UPDATE, &ip, &of).await?;
        self.commit(tx).await?;
        Ok(of)
    }

    /// Removes a forwarding.
    ///
    /// # Errors
    /// `FloatingIPNotFound`, `PortForwardingNotFound`.
    pub async fn port_forwarding_delete(
        &self,
        ctx: &OpCtx,
        floating_ip: FloatingIpId,
        id: PortForwardingId,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut ip = self.floating_ip_owned(&tx, ctx, policy::PORT_FORWARDING_DELETE, floating_ip).await?;
        let all = tx.port_forwardings_by_floating_ips(&[floating_ip]).await?;
        let of = found(all.iter().find(|one| one.id == id), FORWARDING.0, FORWARDING.1, id)?;
        let near = tx.port_forwarding_networks(floating_ip).await?;
        tx.port_forwarding_delete(id).await?;
        if all.len() == 1 {
            ip.router_id = None;
        }
        tx.floating_ip_update(&ip).await?;
        tx.nodes_touch_by_networks(&near).await?;
        self.forwarding_audit(&tx, policy::PORT_FORWARDING_DELETE, &ip, of).await?;
        self.commit(tx).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarding(protocol: &str, external: (u16, u16), internal: (u16, u16)) -> PortForwarding {
        PortForwarding {
            id: PortForwardingId::new(),
            floating_ip_id: FloatingIpId::new(),
            port_id: PortId::new(),
            address: "10.0.0.4".parse().unwrap(),
            protocol: protocol.into(),
            internal_ports: internal,
            external_ports: external,
            description: String::new(),
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn ranges_are_as_long_as_each_other_or_lead_to_one_port() {
        assert!(checked(&forwarding("tcp", (80, 89), (8080, 8089)), &[]).is_ok());
        assert!(checked(&forwarding("tcp", (80, 89), (8080, 8080)), &[]).is_ok());
        assert!(checked(&forwarding("tcp", (80, 89), (8080, 8081)), &[]).is_err());
        assert!(checked(&forwarding("tcp", (89, 80), (8080, 8080)), &[]).is_err());
        assert!(checked(&forwarding("tcp", (0, 0), (8080, 8080)), &[]).is_err());
        assert!(checked(&forwarding("icmp", (80, 80), (8080, 8080)), &[]).is_err());
    }

    #[test]
    fn an_external_port_leads_to_one_place() {
        let there = [forwarding("tcp", (80, 89), (80, 89))];
        assert!(checked(&forwarding("tcp", (89, 90), (1, 2)), &there).is_err());
        assert!(checked(&forwarding("tcp", (90, 90), (1, 1)), &there).is_ok());
        assert!(checked(&forwarding("udp", (80, 80), (1, 1)), &there).is_ok());
        assert!(checked(&there[0], &there).is_ok());
    }
}
