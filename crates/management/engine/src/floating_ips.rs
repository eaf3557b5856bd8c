//! Floating IPs: external addresses that follow a port.

use crate::networks::{found, guard, over_quota, own_project, seen_by, unchanged};
use crate::port_addresses::FixedIpWish;
use crate::ports::{PortNew, no_port};
use crate::{Engine, EngineError};
use arcus_store::{
    AuditEntry, Db, FloatingIp, Listing, Network, OWNER_FLOATING_IP, Page, Port, QuotaResource, StoreError, Tx,
    UsageEntry,
};
use arcus_types::agent::FixedIp;
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{FloatingIpId, NetworkId, OpCtx, PortId, ProjectId, QosPolicyId, SubnetId, Timestamp};
use serde_json::json;
use std::net::IpAddr;

/// A floating IP to make.
#[derive(Debug, Clone, Default)]
pub struct FloatingIpNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Free text.
    pub description: String,
    /// The external network.
    pub network_id: NetworkId,
    /// The subnet that the address is drawn from.
    pub subnet_id: Option<SubnetId>,
    /// The address; for administrators.
    pub address: Option<IpAddr>,
    /// The port that it shall lead to.
    pub port_id: Option<PortId>,
    /// Which of that port's addresses.
    pub fixed_address: Option<IpAddr>,
    /// A name for it.
    pub dns_name: String,
    /// The domain that completes the name.
    pub dns_domain: String,
    /// What may pass under the address.
    pub qos_policy_id: Option<QosPolicyId>,
    /// Words of its owner.
    pub tags: Vec<String>,
}

/// What of a floating IP may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct FloatingIpChange {
    /// Free text.
    pub description: Option<String>,
    /// The port that it leads to; `Some(None)` is none.
    pub port_id: Option<Option<PortId>>,
    /// Which of that port's addresses.
    pub fixed_address: Option<IpAddr>,
    /// What may pass under the address; `Some(None)` takes the policy away.
    pub qos_policy_id: Option<Option<QosPolicyId>>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

const FLOATING_IP: (&str, &str) = ("FloatingIPNotFound", "Floating IP");

fn bad_request(message: String) -> EngineError {
    EngineError::Invalid { code: "BadRequest", message: format!("Bad floatingip request: {message}.") }
}

/// Which address of a port a floating IP leads to. Pure.
fn fixed_address(port: &Port, asked: Option<IpAddr>) -> Result<FixedIp, EngineError> {
    let v4: Vec<FixedIp> = port.fixed_ips.iter().filter(|ip| ip.address.is_ipv4()).copied().collect();
    match (asked, v4.as_slice()) {
        (Some(asked), all) => all
            .iter()
            .find(|ip| ip.address == asked)
            .copied()
            .ok_or_else(|| bad_request(format!("Port {} does not have fixed ip {asked}", port.id))),
        (None, []) => {
            Err(bad_request(format!("Cannot add floating IP to port {} that has no fixed IPv4 addresses", port.id)))
        }
        (None, [one]) => Ok(*one),
        (None, _) => Err(bad_request(format!(
            "Port {} has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP",
            port.id
        ))),
    }
}

impl Engine {
    /// Makes a floating IP, and leads it to a port if one is named.
    ///
    /// # Errors
    /// `NetworkNotFound`, `OverQuota`, `IpAddressGenerationFailure`, `IpAddressAlreadyAllocated`, and what an association
    /// may answer.
    pub async fn floating_ip_create(&self, ctx: &OpCtx, new: FloatingIpNew) -> Result<FloatingIp, EngineError> {
        authorize(ctx, policy::FLOATING_IP_CREATE, &Target::own(ctx))?;
        let project_id = own_project(ctx, new.project_id)?;
        if new.address.is_some() {
            authorize(ctx, policy::FLOATING_IP_CHOOSE, &Target::default())?;
        }
        let tx = self.store().begin(ctx).await?;
        let network = self.network_seen(&tx, ctx, new.network_id).await?;
        if !network.external {
            return Err(bad_request(format!("Network {} is not a valid external network", network.id)));
        }
        if !tx.quota_claim(project_id, QuotaResource::FloatingIps, 1).await? {
            return Err(over_quota("floatingip"));
        }
        let id = FloatingIpId::new();
        let (holder, address) = self.floating_address_take(&tx, &network, id, &new).await?;
        let now = Timestamp::now();
        let mut ip = FloatingIp {
            id,
            project_id,
            description: new.description,
            network_id: network.id,
            holder_id: holder,
            address,
            port_id: None,
            fixed_address: None,
            router_id: None,
            dns_name: new.dns_name,
            dns_domain: new.dns_domain,
            qos_policy_id: self.qos_policy_usable(&tx, new.qos_policy_id).await?,
            tags: new.tags,
            forwardings: Vec::new(),
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        let mut near = Vec::new();
        match (new.port_id, new.fixed_address) {
            (Some(port), fixed) => near.push(self.floating_ip_lead(&tx, &mut ip, port, fixed).await?),
            (None, Some(_)) => {
                return Err(bad_request("fixed_ip_address cannot be specified without a port_id".into()));
            }
            (None, None) => {}
        }
        tx.floating_ip_insert(&ip).await.map_err(|error| taken(error, &ip))?;
        tx.nodes_touch_by_networks(&near).await?;
        self.floating_ip_audit(&tx, policy::FLOATING_IP_CREATE, &ip, true).await?;
        self.commit(tx).await?;
        Ok(ip)
    }

    /// The port that holds the external address: the claim of the address.
    async fn floating_address_take(
        &self,
        tx: &Tx,
        network: &Network,
        id: FloatingIpId,
        new: &FloatingIpNew,
    ) -> Result<(PortId, IpAddr), EngineError> {
        let wish = FixedIpWish { subnet_id: new.subnet_id, address: new.address };
        let chosen = new.subnet_id.is_some() || new.address.is_some();
        let port = PortNew {
            network_id: network.id,
            device_id: id.to_string(),
            device_owner: OWNER_FLOATING_IP.to_owned(),
            fixed_ips: chosen.then(|| vec![wish]),
            security_groups: Some(Vec::new()),
            port_security: Some(false),
            ..PortNew::default()
        };
        let port = self.port_create_in(tx, port).await?;
        match port.fixed_ips.iter().find(|ip| ip.address.is_ipv4()) {
            Some(ip) => Ok((port.id, ip.address)),
            None => Err(EngineError::Conflict {
                code: "IpAddressGenerationFailure",
                message: format!("Unable to find any IPv4 address on external network {}.", network.id),
            }),
        }
    }

    /// Leads a floating IP to a port: there must be a router between the port's subnet and the external network. The
    /// port's network, whose nodes the caller tells.
    async fn floating_ip_lead(
        &self,
        tx: &Tx,
        ip: &mut FloatingIp,
        port_id: PortId,
        asked: Option<IpAddr>,
    ) -> Result<NetworkId, EngineError> {
        let port = tx.port_get(port_id).await?.ok_or_else(|| no_port(port_id))?;
        if port.project_id != Some(ip.project_id) && !tx.ctx().is_admin() {
            return Err(no_port(port_id));
        }
        let fixed = fixed_address(&port, asked)?;
        let others = tx.floating_ips_by_ports(&[port_id]).await?;
        if others.iter().any(|other| other.id != ip.id && other.fixed_address == Some(fixed.address)) {
            return Err(associated(ip, port_id, fixed.address));
        }
        let router = tx.router_between(fixed.subnet_id, ip.network_id).await?;
        let router = router.ok_or_else(|| EngineError::NotFound {
            code: "ExternalGatewayForFloatingIPNotFound",
            kind: "A way",
            id: format!(
                "from external network {} to subnet {}, needed to associate port {port_id} with a floating IP,",
                ip.network_id, fixed.subnet_id
            ),
        })?;
        ip.port_id = Some(port_id);
        ip.fixed_address = Some(fixed.address);
        ip.router_id = Some(router.id);
        Ok(port.network_id)
    }

    async fn floating_ip_audit(&self, tx: &Tx, action: Action, ip: &FloatingIp, held: bool) -> Result<(), EngineError> {
        let detail = json!({ "address": ip.address, "port_id": ip.port_id });
        let (id, project_id) = (ip.id.to_string(), Some(ip.project_id));
        tx.audit(AuditEntry { action, kind: "floating_ip", id, project_id, detail: &detail }).await?;
        if action != policy::FLOATING_IP_UPDATE {
            let uses = if held { json!({ "floating_ips": 1 }) } else { json!({}) };
            let entry = UsageEntry { project_id: ip.project_id, kind: "floating_ip", id: ip.id.0, uses: &uses };
            tx.usage(entry).await?;
        }
        Ok(())
    }

    pub(crate) async fn floating_ip_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: FloatingIpId,
    ) -> Result<FloatingIp, EngineError> {
        let ip = found(db.floating_ip_get(id).await?, FLOATING_IP.0, FLOATING_IP.1, id)?;
        guard(ctx, action, ip.project_id, FLOATING_IP, id)?;
        Ok(ip)
    }

    /// The floating IP with this id.
    ///
    /// # Errors
    /// `FloatingIPNotFound`.
    pub async fn floating_ip_get(&self, ctx: &OpCtx, id: FloatingIpId) -> Result<FloatingIp, EngineError> {
        self.floating_ip_owned(self.store(), ctx, policy::FLOATING_IP_GET, id).await
    }

    /// A page of floating IPs.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn floating_ip_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<FloatingIp>, EngineError> {
        authorize(ctx, policy::FLOATING_IP_LIST, &Target::own(ctx))?;
        Ok(self.store().floating_ip_list(&seen_by(ctx, listing)?).await?)
    }

    /// Leads a floating IP to another port, or to none.
    ///
    /// # Errors
    /// `FloatingIPNotFound`, `PortNotFound`, `ExternalGatewayForFloatingIPNotFound`, `FloatingIPPortAlreadyAssociated`.
    pub async fn floating_ip_update(
        &self,
        ctx: &OpCtx,
        id: FloatingIpId,
        change: FloatingIpChange,
    ) -> Result<FloatingIp, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut ip = self.floating_ip_owned(&tx, ctx, policy::FLOATING_IP_UPDATE, id).await?;
        unchanged(change.if_match, ip.revision)?;
        ip.description = change.description.unwrap_or(ip.description);
        let mut near = Vec::new();
        if let Some(policy) = change.qos_policy_id {
            ip.qos_policy_id = self.qos_policy_usable(&tx, policy).await?;
            near.extend(self.floating_ip_network(&tx, &ip).await?);
        }
        let target = match (change.port_id, change.fixed_address) {
            (Some(target), _) => Some(target),
            // Another address of the port that it leads to already.
            (None, Some(_)) => Some(ip.port_id),
            (None, None) => None,
        };
        if let Some(target) = target {
            in_one_piece(&ip)?;
            near.extend(self.floating_ip_network(&tx, &ip).await?);
            (ip.port_id, ip.fixed_address, ip.router_id) = (None, None, None);
            match target {
                Some(port) => near.push(self.floating_ip_lead(&tx, &mut ip, port, change.fixed_address).await?),
                None if change.fixed_address.is_some() => {
                    return Err(bad_request("fixed_ip_address cannot be specified without a port_id".into()));
                }
                None => {}
            }
        }
        tx.floating_ip_update(&ip).await.map_err(|error| taken(error, &ip))?;
        tx.nodes_touch_by_networks(&near).await?;
        self.floating_ip_audit(&tx, policy::FLOATING_IP_UPDATE, &ip, true).await?;
        let ip = found(tx.floating_ip_get(id).await?, FLOATING_IP.0, FLOATING_IP.1, id)?;
        self.commit(tx).await?;
        Ok(ip)
    }

    /// The network whose nodes translate this address now.
    async fn floating_ip_network(&self, tx: &Tx, ip: &FloatingIp) -> Result<Option<NetworkId>, EngineError> {
        let Some(port) = ip.port_id else { return Ok(None) };
        Ok(tx.port_get(port).await?.map(|port| port.network_id))
    }

    /// Removes a floating IP and gives its address back.
    ///
    /// # Errors
    /// `FloatingIPNotFound`.
    pub async fn floating_ip_delete(
        &self,
        ctx: &OpCtx,
        id: FloatingIpId,
        if_match: Option<u64>,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let ip = self.floating_ip_owned(&tx, ctx, policy::FLOATING_IP_DELETE, id).await?;
        unchanged(if_match, ip.revision)?;
        in_one_piece(&ip)?;
        self.floating_ip_delete_in(&tx, &ip).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Removes a floating IP inside the caller's transaction.
    pub(crate) async fn floating_ip_delete_in(&self, tx: &Tx, ip: &FloatingIp) -> Result<(), EngineError> {
        let id = ip.id;
        let near = self.floating_ip_network(tx, ip).await?;
        tx.quota_release(ip.project_id, QuotaResource::FloatingIps, 1).await?;
        if !tx.floating_ip_delete(id).await? {
            return Err(EngineError::not_found(FLOATING_IP.0, FLOATING_IP.1, id));
        }
        self.port_delete_in(tx, ip.holder_id).await?;
        tx.nodes_touch_by_networks(near.as_slice()).await?;
        self.floating_ip_audit(tx, policy::FLOATING_IP_DELETE, ip, false).await
    }
}

/// Refuses what concerns the address as a whole while ports of it are forwarded.
fn in_one_piece(ip: &FloatingIp) -> Result<(), EngineError> {
    if ip.forwardings.is_empty() {
        return Ok(());
    }
    Err(EngineError::Conflict {
        code: "FipInUseByPortForwarding",
        message: format!("Floating IP {} in use by Port Forwarding resources.", ip.id),
    })
}

fn associated(ip: &FloatingIp, port: PortId, fixed: IpAddr) -> EngineError {
    EngineError::Conflict {
        code: "FloatingIPPortAlreadyAssociated",
        message: format!(
            "Cannot associate floating IP {} ({}) with port {port} using fixed IP {fixed}, as that fixed IP already has a \
             floating IP on external network {}.",
            ip.address, ip.id, ip.network_id
        ),
    }
}

/// Two requests that lead floating IPs to one address at the same time: the database lets one through.
fn taken(error: StoreError, ip: &FloatingIp) -> EngineError {
    match (error, ip.port_id, ip.fixed_address) {
        (StoreError::Duplicate(_), Some(port), Some(fixed)) => associated(ip, port, fixed),
        (other, _, _) => other.into(),
    }
}
