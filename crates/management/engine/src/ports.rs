//! Ports: virtual interfaces.
//!
//! Transactions of the network take their locks in one order: quotas, then what they change, then nodes' generations
//! (`port_touch` and the like come last). So two of them never wait for each other.
//!
//! The functions whose names end in `_in` work inside the caller's transaction: they claim and
//! record, and leave policy, the audit record and the commit to the caller. Commit with [`Engine::commit`]: it wakes the
//! nodes that must know, which are more than the port's own.

use crate::networks::{found, over_quota, own_project, unchanged};
use crate::port_addresses::FixedIpWish;
use crate::{Engine, EngineError};
use arcus_store::{
    AllowedPair, AuditEntry, DhcpOption, Listing, Network, OWNER_FLOATING_IP, Page, Port, PortFilter, PortStatus,
    QuotaResource, RbacAction, SecurityGroup, StoreError, Subnet, Tx,
};
use arcus_types::agent::DhcpOptionSpec;
use arcus_types::policy::{Target, authorize, network as policy};
use arcus_types::{
    MacAddr, NetworkId, NodeId, OpCtx, PortId, ProjectId, QosPolicyId, RouterId, SecurityGroupId, ServerId, Timestamp,
};
use serde_json::json;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// How often a random Ethernet address is drawn before giving up: each network has 16 million of them.
const MAC_DRAWS_MAX: u32 = 16;
/// The most allowed address pairs of a port.
const ALLOWED_PAIRS_MAX: usize = 10;
/// The most options that DHCP tells a port besides.
const DHCP_OPTIONS_MAX: usize = 32;

/// A port to make.
#[derive(Debug, Clone, Default)]
pub struct PortNew {
    /// The network that it is on.
    pub network_id: NetworkId,
    /// Who owns it; `None` if it is part of the cloud itself, and then no quota is claimed.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its Ethernet address; `None` draws one.
    pub mac: Option<MacAddr>,
    /// Its addresses; `None` takes one of each IP version that the network has.
    pub fixed_ips: Option<Vec<FixedIpWish>>,
    /// Whether it shall carry traffic; `None` is yes.
    pub admin_up: Option<bool>,
    /// What uses it.
    pub device_id: String,
    /// What kind of thing uses it.
    pub device_owner: String,
    /// The server that uses it.
    pub server_id: Option<ServerId>,
    /// The router that uses it.
    pub router_id: Option<RouterId>,
    /// The node that it lives on.
    pub node_id: Option<NodeId>,
    /// The node's name, for administrators to read.
    pub binding_host: String,
    /// Free settings of an administrator.
    pub binding_profile: Option<serde_json::Value>,
    /// The rule sets; `None` is the project's default group.
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// Whether filters and anti-spoofing apply; `None` is what the network says.
    pub port_security: Option<bool>,
    /// Further sources that the guest may use.
    pub allowed_pairs: Vec<AllowedPair>,
    /// The host name that DHCP tells.
    pub dns_name: String,
    /// The domain that completes the name; empty is the network's.
    pub dns_domain: String,
    /// What DHCP tells besides.
    pub dhcp_options: Vec<DhcpOption>,
    /// What it may send and receive; `None` is what its network says.
    pub qos_policy_id: Option<QosPolicyId>,
    /// Words of its owner.
    pub tags: Vec<String>,
    /// Whether it goes away with its server.
    pub delete_with_server: bool,
}

/// A change of what DHCP tells a port besides: a new value for an option, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpOptionChange {
    /// The option's name or number.
    pub name: String,
    /// Its value; `None` takes the option away.
    pub value: Option<String>,
    /// 4 or 6.
    pub ip_version: u8,
}

/// What of a port may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct PortChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its Ethernet address; for administrators, and only while nothing is bound.
    pub mac: Option<MacAddr>,
    /// Its addresses, all of them.
    pub fixed_ips: Option<Vec<FixedIpWish>>,
    /// Whether it shall carry traffic.
    pub admin_up: Option<bool>,
    /// What uses it.
    pub device_id: Option<String>,
    /// What kind of thing uses it.
    pub device_owner: Option<String>,
    /// The node's name.
    pub binding_host: Option<String>,
    /// Free settings of an administrator.
    pub binding_profile: Option<serde_json::Value>,
    /// The rule sets, all of them.
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// Whether filters and anti-spoofing apply.
    pub port_security: Option<bool>,
    /// Further sources, all of them.
    pub allowed_pairs: Option<Vec<AllowedPair>>,
    /// The host name that DHCP tells.
    pub dns_name: Option<String>,
    /// The domain that completes the name.
    pub dns_domain: Option<String>,
    /// What becomes of options that DHCP tells; those not named stay.
    pub dhcp_options: Vec<DhcpOptionChange>,
    /// What it may send and receive; `Some(None)` is what its network says.
    pub qos_policy_id: Option<Option<QosPolicyId>>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

/// The network that a port is made on, with its subnets: read once for any number of ports.
struct Site {
    network: Network,
    subnets: Vec<Subnet>,
}

/// The options that DHCP tells, after changes. Pure.
fn options_changed(present: &[DhcpOption], changes: Vec<DhcpOptionChange>) -> Result<Vec<DhcpOption>, EngineError> {
    let mut options = present.to_vec();
    for change in changes {
        options.retain(|o| o.name != change.name || o.ip_version != change.ip_version);
        if let Some(value) = change.value {
            options.push(DhcpOption { name: change.name, value, ip_version: change.ip_version });
        }
    }
    options_checked(&options)?;
    Ok(options)
}

fn options_checked(options: &[DhcpOption]) -> Result<(), EngineError> {
    if options.len() > DHCP_OPTIONS_MAX {
        return Err(EngineError::invalid(format!("A port has at most {DHCP_OPTIONS_MAX} DHCP options.")));
    }
    for option in options {
        let is_v6 = option.ip_version == 6;
        match DhcpOptionSpec::parse(is_v6, &option.name, &option.value) {
            Ok(_) => {}
            // Clients leave the version out, which means 4, and write addresses of version 6: kept, and told to nobody.
            Err(_) if option.value.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() != is_v6) => {}
            Err(refused) => {
                return Err(EngineError::invalid(format!("Invalid input for extra_dhcp_opts. Reason: {refused}.")));
            }
        }
    }
    Ok(())
}

pub(crate) fn no_port(id: PortId) -> EngineError {
    EngineError::not_found("PortNotFound", "Port", id)
}

fn port_in_use(port: &Port) -> EngineError {
    EngineError::Conflict {
        code: "PortInUse",
        message: format!(
            "Unable to complete operation on port {} for network {}. Port already has an attached device {}.",
            port.id, port.network_id, port.device_id
        ),
    }
}

fn pairs_checked(pairs: &[AllowedPair], port_security: bool) -> Result<(), EngineError> {
    if pairs.len() > ALLOWED_PAIRS_MAX {
        return Err(EngineError::Invalid {
            code: "AllowedAddressPairExhausted",
            message: format!("The number of allowed address pairs exceeds the maximum {ALLOWED_PAIRS_MAX}."),
        });
    }
    if !pairs.is_empty() && !port_security {
        return Err(EngineError::Conflict {
            code: "AddressPairAndPortSecurityRequired",
            message: "Port Security must be enabled in order to have allowed address pairs on a port.".into(),
        });
    }
    for (index, pair) in pairs.iter().enumerate() {
        if pairs[..index].contains(pair) {
            return Err(EngineError::Invalid {
                code: "DuplicateAddressPairInRequest",
                message: format!("Request contains duplicate address pair: ip_address {}.", pair.cidr),
            });
        }
    }
    Ok(())
}

impl Engine {
    /// Makes ports, all or none.
    ///
    /// # Errors
    /// 404 for a network or group that the caller does not see, 409 where a quota, address or range stands in the way.
    pub async fn ports_create(&self, ctx: &OpCtx, wishes: Vec<PortNew>) -> Result<Vec<Port>, EngineError> {
        authorize(ctx, policy::PORT_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut ports = Vec::with_capacity(wishes.len());
        let mut sites: HashMap<NetworkId, Site> = HashMap::new();
        for mut new in wishes {
            let project = own_project(ctx, new.project_id)?;
            new.project_id = Some(project);
            let site = match sites.entry(new.network_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let network = self.network_usable(&tx, ctx, new.network_id).await?;
                    let subnets = tx.subnet_list_by_networks(&[network.id]).await?;
                    place.insert(Site { network, subnets })
                }
            };
            let network = &site.network;
            let owner = network.project_id == project || ctx.is_admin();
            if new.device_owner.starts_with("network:") {
                authorize(ctx, policy::PORT_DEVICE_OWNER, &Target::default())?;
            }
            if !owner && (new.mac.is_some() || new.port_security == Some(false) || !new.allowed_pairs.is_empty()) {
                authorize(ctx, policy::PORT_BINDING, &Target::default())?;
            }
            if !owner && new.fixed_ips.iter().flatten().any(|wish| wish.address.is_some()) {
                authorize(ctx, policy::PORT_BINDING, &Target::default())?;
            }
            if !new.binding_host.is_empty() || new.binding_profile.is_some() {
                authorize(ctx, policy::PORT_BINDING, &Target::default())?;
            }
            let port = self.port_create_on(&tx, site, new).await?;
            let detail = json!({ "network_id": port.network_id, "name": port.name });
            self.port_audit(&tx, policy::PORT_CREATE, &port, &detail).await?;
            ports.push(port);
        }
        self.commit(tx).await?;
        Ok(ports)
    }

    pub(crate) async fn port_audit(
        &self,
        tx: &Tx,
        action: arcus_types::policy::Action,
        port: &Port,
        detail: &serde_json::Value,
    ) -> Result<(), EngineError> {
        let entry = AuditEntry { action, kind: "port", id: port.id.to_string(), project_id: port.project_id, detail };
        Ok(tx.audit(entry).await?)
    }

    /// Makes a port inside the caller's transaction: claims quota, Ethernet address and addresses.
    ///
    /// # Errors
    /// `NetworkNotFound`, `OverQuota`, `IpAddressGenerationFailure`, `IpAddressAlreadyAllocated`, `MacAddressInUse`,
    /// `SecurityGroupNotFound`, and 400 for addresses that are not the network's.
    pub async fn port_create_in(&self, tx: &Tx, new: PortNew) -> Result<Port, EngineError> {
        let network = tx.network_get_bare(new.network_id).await?;
        let network = found(network, "NetworkNotFound", "Network", new.network_id)?;
        let subnets = tx.subnet_list_by_networks(&[network.id]).await?;
        self.port_create_on(tx, &Site { network, subnets }, new).await
    }

    async fn port_create_on(&self, tx: &Tx, site: &Site, new: PortNew) -> Result<Port, EngineError> {
        let network = &site.network;
        if let Some(project) = new.project_id
            && !tx.quota_claim(project, QuotaResource::Ports, 1).await?
        {
            return Err(over_quota("port"));
        }
        let port_security = new.port_security.unwrap_or(network.port_security);
        pairs_checked(&new.allowed_pairs, port_security)?;
        options_checked(&new.dhcp_options)?;
        self.qos_policy_usable(tx, new.qos_policy_id).await?;
        let groups = self.port_groups(tx, &new, port_security).await?;
        let wishes = new.fixed_ips.clone();
        let mut port = self.port_record(tx, network, new, port_security).await?;
        self.addresses_assign(tx, &mut port, &site.subnets, wishes).await?;
        tx.port_security_groups_add(port.id, &groups).await?;
        port.security_groups = groups;
        self.port_touch(tx, &port).await?;
        Ok(port)
    }

    /// Tells every node that must know of a change to this port, after the change: the nodes of the port as it is given
    /// here, of its network, and of its groups. A port that lives nowhere is nobody's matter.
    pub(crate) async fn port_touch(&self, tx: &Tx, port: &Port) -> Result<(), EngineError> {
        if let Some(node) = port.node_id {
            tx.node_touch(node).await?;
        }
        if port.node_id.is_some() || port.router_id.is_some() {
            tx.nodes_touch_by_networks(&[port.network_id]).await?;
        }
        if port.node_id.is_some() {
            tx.nodes_touch_by_groups(&port.security_groups).await?;
        }
        Ok(())
    }

    async fn port_groups(
        &self,
        tx: &Tx,
        new: &PortNew,
        port_security: bool,
    ) -> Result<Vec<SecurityGroupId>, EngineError> {
        match (&new.security_groups, new.project_id) {
            (Some(groups), project) => {
                self.groups_checked(tx, groups, project, port_security).await?;
                Ok(groups.clone())
            }
            (None, Some(project)) if port_security && !new.device_owner.starts_with("network:") => {
                Ok(vec![self.default_security_group_in(tx, project).await?])
            }
            (None, _) => Ok(Vec::new()),
        }
    }

    async fn groups_checked(
        &self,
        tx: &Tx,
        groups: &[SecurityGroupId],
        project: Option<ProjectId>,
        port_security: bool,
    ) -> Result<(), EngineError> {
        if groups.is_empty() {
            return Ok(());
        }
        if !port_security {
            return Err(EngineError::Conflict {
                code: "PortSecurityAndIPRequiredForSecurityGroups",
                message: "Port security must be enabled on the port in order to use security groups.".into(),
            });
        }
        let known: Vec<SecurityGroup> = tx.security_group_list_by_ids(groups).await?;
        let own = |group: &SecurityGroup| tx.ctx().is_admin() || Some(group.project_id) == project;
        let foreign: Vec<_> = known.iter().filter(|g| !own(g) && !g.shared).map(|g| g.id.0).collect();
        let shared = match project {
            Some(project) => tx.rbac_shared_with(foreign, Some(RbacAction::Shared), project).await?,
            None => HashSet::new(),
        };
        let usable = |group: &SecurityGroup| own(group) || group.shared || shared.contains(&group.id.0);
        for id in groups {
            if !known.iter().any(|g| g.id == *id && usable(g)) {
                return Err(EngineError::not_found("SecurityGroupNotFound", "Security group", id));
            }
        }
        Ok(())
    }

    /// Inserts the row, with the Ethernet address asked for or one drawn at random.
    async fn port_record(
        &self,
        tx: &Tx,
        network: &Network,
        new: PortNew,
        port_security: bool,
    ) -> Result<Port, EngineError> {
        let now = Timestamp::now();
        let status = match new.device_owner.as_str() {
            OWNER_FLOATING_IP => PortStatus::NotApplicable,
            owner if owner.starts_with("network:") => PortStatus::Active,
            _ => PortStatus::Down,
        };
        let mut port = Port {
            id: PortId::new(),
            network_id: network.id,
            project_id: new.project_id,
            name: new.name,
            description: new.description,
            mac: new.mac.unwrap_or(MacAddr([0; 6])),
            fixed_ips: Vec::new(),
            admin_up: new.admin_up.unwrap_or(true),
            status,
            device_id: new.device_id,
            device_owner: new.device_owner,
            server_id: new.server_id,
            router_id: new.router_id,
            node_id: new.node_id,
            binding_host: new.binding_host,
            binding_profile: new.binding_profile.unwrap_or_else(|| json!({})),
            vnic_type: "normal".into(),
            security_groups: Vec::new(),
            port_security,
            allowed_pairs: new.allowed_pairs,
            dns_name: new.dns_name,
            dns_domain: new.dns_domain,
            dhcp_options: new.dhcp_options,
            qos_policy_id: new.qos_policy_id,
            qos_network_policy_id: network.qos_policy_id,
            tags: new.tags,
            delete_with_server: new.delete_with_server,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        if new.mac.is_some() {
            return if tx.port_insert(&port).await? { Ok(port) } else { Err(mac_in_use(&port)) };
        }
        for _ in 0..MAC_DRAWS_MAX {
            port.mac = MacAddr::for_port(rand::random());
            if tx.port_insert(&port).await? {
                return Ok(port);
            }
        }
        Err(EngineError::Unavailable(format!("Unable to generate unique mac on network {}.", network.id)))
    }

    /// Gives an unbound port of the user to a server on a node.
    ///
    /// # Errors
    /// `PortNotFound` if it is not there or another project's, `PortInUse` if something uses it.
    pub async fn port_bind_in(
        &self,
        tx: &Tx,
        port: PortId,
        project: ProjectId,
        server: ServerId,
        node: NodeId,
    ) -> Result<Port, EngineError> {
        let mut port =
            tx.port_get(port).await?.filter(|p| p.project_id == Some(project)).ok_or_else(|| no_port(port))?;
        if port.server_id.is_some() || port.router_id.is_some() || !port.device_id.is_empty() {
            return Err(port_in_use(&port));
        }
        port.device_id = server.to_string();
        port.device_owner = "compute:nova".into();
        port.server_id = Some(server);
        port.node_id = Some(node);
        port.status = PortStatus::Down;
        tx.port_update(&port).await?;
        port.revision += 1;
        self.port_touch(tx, &port).await?;
        Ok(port)
    }

    /// Moves a server's port to a node, or to none while the server has no place.
    ///
    /// # Errors
    /// `PortNotFound` if it is not there.
    pub async fn port_move_in(&self, tx: &Tx, port: PortId, node: Option<NodeId>) -> Result<Port, EngineError> {
        let before = tx.port_get(port).await?.ok_or_else(|| no_port(port))?;
        let mut port = Port { node_id: node, status: PortStatus::Down, ..before.clone() };
        tx.port_update(&port).await?;
        port.revision += 1;
        self.port_touch(tx, &before).await?;
        self.port_touch(tx, &port).await?;
        Ok(port)
    }

    /// These ports, as far as the caller may see them.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn ports_by_ids(&self, ctx: &OpCtx, ids: &[PortId]) -> Result<Vec<Port>, EngineError> {
        let mut ports = self.store().port_list_by_ids(ids).await?;
        ports.retain(|p| ctx.is_admin() || p.project_id == ctx.project_id());
        Ok(ports)
    }

    /// Takes a port back from its server; the port stays. Nothing happens if it is gone.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn port_unbind_in(&self, tx: &Tx, port: PortId) -> Result<(), EngineError> {
        let Some(before) = tx.port_get(port).await? else { return Ok(()) };
        let mut port = before.clone();
        port.device_id.clear();
        port.device_owner.clear();
        port.server_id = None;
        port.node_id = None;
        port.binding_host.clear();
        port.status = PortStatus::Down;
        tx.port_update(&port).await?;
        self.port_touch(tx, &before).await
    }

    /// Removes a port and gives back what it had claimed; its floating IPs lead nowhere. Nothing happens if it is gone.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn port_delete_in(&self, tx: &Tx, port: PortId) -> Result<(), EngineError> {
        let Some(port) = tx.port_get(port).await? else { return Ok(()) };
        if let Some(project) = port.project_id {
            tx.quota_release(project, QuotaResource::Ports, 1).await?;
        }
        let led = tx.floating_ips_detach(port.id).await?;
        if !tx.port_delete(port.id).await? {
            return Err(StoreError::Stale("port").into());
        }
        if !led.is_empty() {
            tx.nodes_touch_by_networks(&[port.network_id]).await?;
        }
        self.port_touch(tx, &port).await
    }

    /// The port, if the caller may see it: its owner and the owner of its network do.
    async fn port_seen(&self, tx: &Tx, ctx: &OpCtx, id: PortId) -> Result<(Port, Network), EngineError> {
        let port = tx.port_get(id).await?.ok_or_else(|| no_port(id))?;
        let network = tx.network_get_bare(port.network_id).await?;
        let network = found(network, "NetworkNotFound", "Network", port.network_id)?;
        let mine = ctx.project_id();
        if ctx.is_admin() || (mine.is_some() && (port.project_id == mine || Some(network.project_id) == mine)) {
            Ok((port, network))
        } else {
            Err(no_port(id))
        }
    }

    /// The port with this id.
    ///
    /// # Errors
    /// `PortNotFound`.
    pub async fn port_get(&self, ctx: &OpCtx, id: PortId) -> Result<Port, EngineError> {
        authorize(ctx, policy::PORT_GET, &Target::own(ctx))?;
        let port = self.store().port_get(id).await?.ok_or_else(|| no_port(id))?;
        if ctx.is_admin() || (port.project_id.is_some() && port.project_id == ctx.project_id()) {
            return Ok(port);
        }
        let network = self.store().network_get_bare(port.network_id).await?;
        let owner = network.map(|n| n.project_id);
        if owner.is_some() && owner == ctx.project_id() { Ok(port) } else { Err(no_port(id)) }
    }

    /// A page of ports.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn port_list(&self, ctx: &OpCtx, listing: Listing, more: &PortFilter) -> Result<Page<Port>, EngineError> {
        authorize(ctx, policy::PORT_LIST, &Target::own(ctx))?;
        Ok(self.store().port_list(&crate::networks::seen_by(ctx, listing)?, more).await?)
    }

    /// Changes a port.
    ///
    /// # Errors
    /// `PortNotFound`, and what [`Engine::port_create_in`] may answer.
    pub async fn port_update(&self, ctx: &OpCtx, id: PortId, change: PortChange) -> Result<Port, EngineError> {
        authorize(ctx, policy::PORT_UPDATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let (mut port, network) = self.port_seen(&tx, ctx, id).await?;
        let owner = ctx.is_admin() || Some(network.project_id) == ctx.project_id();
        unchanged(change.if_match, port.revision)?;
        self.port_change_authorized(ctx, &port, &change, owner)?;
        let before = port.clone();
        let wishes = change.fixed_ips.clone();
        let groups = change.security_groups.clone();
        if let Some(policy) = change.qos_policy_id {
            port.qos_policy_id = self.qos_policy_usable(&tx, policy).await?;
        }
        port_apply(&mut port, change)?;
        pairs_checked(&port.allowed_pairs, port.port_security)?;
        let wanted = groups.as_ref().unwrap_or(&port.security_groups);
        self.groups_checked(&tx, wanted, port.project_id, port.port_security).await?;
        tx.port_update(&port).await.map_err(|error| match error {
            StoreError::Duplicate(_) => mac_in_use(&port),
            other => other.into(),
        })?;
        if let Some(wishes) = wishes {
            self.addresses_replace(&tx, &mut port, wishes).await?;
        }
        if let Some(groups) = groups {
            tx.port_security_groups_set(port.id, &groups).await?;
            port.security_groups = groups;
        }
        self.port_touch(&tx, &before).await?;
        self.port_touch(&tx, &port).await?;
        self.port_audit(&tx, policy::PORT_UPDATE, &port, &json!({ "name": port.name })).await?;
        let port = tx.port_get(id).await?.ok_or_else(|| no_port(id))?;
        self.commit(tx).await?;
        Ok(port)
    }

    fn port_change_authorized(
        &self,
        ctx: &OpCtx,
        port: &Port,
        change: &PortChange,
        network_owner: bool,
    ) -> Result<(), EngineError> {
        let admin = Target::default();
        if change.device_owner.as_ref().is_some_and(|o| o.starts_with("network:") && *o != port.device_owner) {
            authorize(ctx, policy::PORT_DEVICE_OWNER, &admin)?;
        }
        if change.binding_host.is_some() || change.binding_profile.is_some() {
            authorize(ctx, policy::PORT_BINDING, &admin)?;
        }
        if change.mac.is_some_and(|mac| mac != port.mac) {
            authorize(ctx, policy::PORT_MAC_UPDATE, &admin)?;
            if port.node_id.is_some() {
                return Err(port_in_use(port));
            }
        }
        let filters =
            change.port_security == Some(false) || change.allowed_pairs.as_ref().is_some_and(|p| !p.is_empty());
        let chooses =
            change.fixed_ips.iter().flatten().any(|wish| {
                wish.address.is_some_and(|address| !port.fixed_ips.iter().any(|held| held.address == address))
            });
        if !network_owner && (filters || chooses) {
            authorize(ctx, policy::PORT_BINDING, &admin)?;
        }
        let taken = port.server_id.is_some() || port.router_id.is_some();
        let other_device = change.device_id.as_ref().is_some_and(|d| *d != port.device_id)
            || change.device_owner.as_ref().is_some_and(|o| *o != port.device_owner);
        if taken && other_device {
            return Err(port_in_use(port));
        }
        Ok(())
    }

    /// Removes a port.
    ///
    /// # Errors
    /// `PortNotFound`; `ServicePortInUse` for a port of a router or floating IP.
    pub async fn port_delete(&self, ctx: &OpCtx, id: PortId, if_match: Option<u64>) -> Result<(), EngineError> {
        authorize(ctx, policy::PORT_DELETE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let (port, _) = self.port_seen(&tx, ctx, id).await?;
        unchanged(if_match, port.revision)?;
        if port.router_id.is_some() || port.device_owner == OWNER_FLOATING_IP {
            return Err(EngineError::Conflict {
                code: "ServicePortInUse",
                message: format!(
                    "Port {id} cannot be deleted directly via the port API: has device owner {}.",
                    port.device_owner
                ),
            });
        }
        self.port_delete_in(&tx, id).await?;
        self.port_audit(&tx, policy::PORT_DELETE, &port, &json!({})).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Records which of a node's ports carry traffic; writes only what changed.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn ports_observed(&self, node: NodeId, up: &[PortId]) -> Result<(), EngineError> {
        let known = self.store().port_status_list(node).await?;
        let up: HashSet<PortId> = up.iter().copied().collect();
        let (mut rise, mut fall) = (Vec::new(), Vec::new());
        for (port, status) in known {
            match (up.contains(&port), status) {
                (true, PortStatus::Down | PortStatus::NotApplicable) => rise.push(port),
                (false, PortStatus::Active) => fall.push(port),
                (true, PortStatus::Active) | (false, PortStatus::Down | PortStatus::NotApplicable) => {}
            }
        }
        if rise.is_empty() && fall.is_empty() {
            return Ok(());
        }
        let tx = self.store().begin_unaudited().await?;
        for (ports, status) in [(rise, PortStatus::Active), (fall, PortStatus::Down)] {
            if !ports.is_empty() {
                tx.ports_status_set(node, &ports, status).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }
}

fn mac_in_use(port: &Port) -> EngineError {
    EngineError::Conflict {
        code: "MacAddressInUse",
        message: format!(
            "Unable to complete operation for network {}. The mac address {} is in use.",
            port.network_id, port.mac
        ),
    }
}

fn port_apply(port: &mut Port, change: PortChange) -> Result<(), EngineError> {
    fn set<T>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    set(&mut port.name, change.name);
    set(&mut port.description, change.description);
    set(&mut port.mac, change.mac);
    set(&mut port.admin_up, change.admin_up);
    set(&mut port.device_id, change.device_id);
    set(&mut port.device_owner, change.device_owner);
    set(&mut port.binding_host, change.binding_host);
    set(&mut port.binding_profile, change.binding_profile);
    set(&mut port.port_security, change.port_security);
    set(&mut port.allowed_pairs, change.allowed_pairs);
    set(&mut port.dns_name, change.dns_name);
    set(&mut port.dns_domain, change.dns_domain);
    port.dhcp_options = options_changed(&port.dhcp_options, change.dhcp_options)?;
    Ok(())
}
