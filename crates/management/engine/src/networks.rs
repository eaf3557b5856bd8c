//! Networks: layer-2 segments, their sharing, and the external network that bootstrap makes.

use crate::subnets::SubnetNew;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Listing, Network, Page, QuotaResource, RbacAction, RbacType, StoreError, Tx};
use arcus_types::policy::{Action, Denied, Target, authorize, network as policy};
use arcus_types::{NetworkId, OpCtx, ProjectId, QosPolicyId, Timestamp};
use ipnet::IpNet;
use serde_json::json;
use std::net::IpAddr;

/// The largest packet on a tenant's network, in bytes: an Ethernet payload of 1500 less VXLAN's 50 bytes of headers.
pub const TENANT_MTU_MAX: u32 = 1450;
/// The largest packet on an external network, in bytes: the payload of an Ethernet frame.
pub const EXTERNAL_MTU_MAX: u32 = 1500;
/// The smallest packet that IPv4 lets a network limit itself to, in bytes (RFC 791).
pub const MTU_MIN: u32 = 68;

/// A network to make.
#[derive(Debug, Clone, Default)]
pub struct NetworkNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it shall carry traffic; `None` is yes.
    pub admin_up: Option<bool>,
    /// Whether every project may use it.
    pub shared: bool,
    /// Whether it leads out of the cloud.
    pub external: bool,
    /// Whether it is the external network to take where none is named.
    pub is_default: bool,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Whether new ports have filters; `None` is yes.
    pub port_security: Option<bool>,
    /// The number on the wire; `None` takes a free one.
    pub segment: Option<u32>,
    /// The network's kind, where an administrator names it.
    pub kind: Option<String>,
    /// What its ports may send and receive; `None` is the project's default policy, `Some(None)` none.
    pub qos_policy_id: Option<Option<QosPolicyId>>,
    /// The domain that completes its ports' names.
    pub dns_domain: String,
    /// The zones that it should be in: a network is in all of them, so they need only be there.
    pub zone_hints: Vec<String>,
    /// Words of its owner.
    pub tags: Vec<String>,
}

/// What of a network may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct NetworkChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether it shall carry traffic.
    pub admin_up: Option<bool>,
    /// Whether every project may use it.
    pub shared: Option<bool>,
    /// Whether it leads out of the cloud.
    pub external: Option<bool>,
    /// Whether it is the external network to take where none is named.
    pub is_default: Option<bool>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Whether new ports have filters.
    pub port_security: Option<bool>,
    /// What its ports may send and receive; `Some(None)` takes the policy away.
    pub qos_policy_id: Option<Option<QosPolicyId>>,
    /// The domain that completes its ports' names.
    pub dns_domain: Option<String>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

/// Refuses to change what the caller has an older picture of.
pub(crate) fn unchanged(if_match: Option<u64>, revision: u64) -> Result<(), EngineError> {
    match if_match {
        Some(expected) if expected != revision => Err(EngineError::Precondition {
            code: "RevisionNumberConstraintFailed",
            message: format!("Constrained to {expected}, but current revision is {revision}"),
        }),
        Some(_) | None => Ok(()),
    }
}

/// The thing, or the answer that it is not there.
pub(crate) fn found<T>(
    thing: Option<T>,
    code: &'static str,
    kind: &'static str,
    id: impl ToString,
) -> Result<T, EngineError> {
    thing.ok_or_else(|| EngineError::not_found(code, kind, id))
}

/// The network API's answer to a quota that is used up.
pub(crate) fn over_quota(resource: &str) -> EngineError {
    EngineError::Conflict { code: "OverQuota", message: format!("Quota exceeded for resources: ['{resource}'].") }
}

/// The project that something new shall belong to: the caller's, or for administrators the one that they name.
pub(crate) fn own_project(ctx: &OpCtx, asked: Option<ProjectId>) -> Result<ProjectId, EngineError> {
    match (asked, ctx.project_id()) {
        (Some(asked), own) if ctx.is_admin() || own == Some(asked) => Ok(asked),
        (Some(_), _) => Err(Denied::Forbidden("network:project_id").into()),
        (None, Some(own)) => Ok(own),
        (None, None) => Err(EngineError::invalid("Running without a project: name the owner as project_id.")),
    }
}

/// The list as the caller may see it: administrators see every project's.
pub(crate) fn seen_by(ctx: &OpCtx, listing: Listing) -> Result<Listing, EngineError> {
    if ctx.is_admin() {
        return Ok(listing);
    }
    let viewer = ctx.project_id().ok_or(Denied::Forbidden("network:list"))?;
    Ok(Listing { viewer: Some(viewer), ..listing })
}

/// Policy for something that belongs to a project: what the caller must not know of, answers 404 under its own name.
pub(crate) fn guard(
    ctx: &OpCtx,
    action: Action,
    owner: ProjectId,
    (code, kind): (&'static str, &'static str),
    id: impl ToString,
) -> Result<(), EngineError> {
    match authorize(ctx, action, &Target::project(owner)) {
        Err(Denied::Hidden) => Err(EngineError::not_found(code, kind, id)),
        other => Ok(other?),
    }
}

const NETWORK: (&str, &str) = ("NetworkNotFound", "Network");

pub(crate) fn no_network(id: NetworkId) -> EngineError {
    EngineError::not_found(NETWORK.0, NETWORK.1, id)
}

fn mtu_checked(mtu: Option<u32>, external: bool) -> Result<u32, EngineError> {
    let max = if external { EXTERNAL_MTU_MAX } else { TENANT_MTU_MAX };
    match mtu {
        None | Some(0) => Ok(max),
        Some(mtu) if (MTU_MIN..=max).contains(&mtu) => Ok(mtu),
        Some(mtu) => Err(EngineError::Invalid {
            code: "InvalidInput",
            message: format!("Invalid input for operation: Requested MTU {mtu} is not within {MTU_MIN} and {max}."),
        }),
    }
}

fn kind_checked(new: &NetworkNew) -> Result<(), EngineError> {
    let fits = match new.kind.as_deref() {
        None => true,
        Some("vxlan") => !new.external,
        Some("flat") => new.external && new.segment.is_none(),
        Some(_) => false,
    };
    if fits {
        return Ok(());
    }
    Err(EngineError::Invalid {
        code: "InvalidInput",
        message: "Invalid input for operation: networks are 'vxlan', and external ones 'flat' without a segment."
            .into(),
    })
}

fn in_use(id: NetworkId, why: &str) -> EngineError {
    EngineError::Conflict {
        code: "NetworkInUse",
        message: format!("Unable to complete operation on network {id}. {why}"),
    }
}

impl Engine {
    /// Makes networks, all or none.
    ///
    /// # Errors
    /// 403 for what only administrators may ask for, 409 for quotas and taken segments.
    pub async fn networks_create(&self, ctx: &OpCtx, wishes: Vec<NetworkNew>) -> Result<Vec<Network>, EngineError> {
        authorize(ctx, policy::NETWORK_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let mut networks = Vec::with_capacity(wishes.len());
        for new in wishes {
            if new.shared {
                authorize(ctx, policy::NETWORK_CREATE_SHARED, &Target::default())?;
            }
            if new.external || new.is_default {
                authorize(ctx, policy::NETWORK_CREATE_EXTERNAL, &Target::default())?;
            }
            if new.segment.is_some() || new.kind.is_some() {
                authorize(ctx, policy::NETWORK_PROVIDER, &Target::default())?;
            }
            networks.push(self.network_create_in(&tx, new).await?);
        }
        self.commit(tx).await?;
        Ok(networks)
    }

    pub(crate) async fn network_create_in(&self, tx: &Tx, new: NetworkNew) -> Result<Network, EngineError> {
        kind_checked(&new)?;
        let project_id = own_project(tx.ctx(), new.project_id)?;
        if !tx.quota_claim(project_id, QuotaResource::Networks, 1).await? {
            return Err(over_quota("network"));
        }
        self.zones_checked(tx, &new.zone_hints).await?;
        let qos_policy_id = match new.qos_policy_id {
            Some(policy) => self.qos_policy_usable(tx, policy).await?,
            None => tx.qos_policy_default(project_id).await?,
        };
        let now = Timestamp::now();
        let mut network = Network {
            id: NetworkId::new(),
            project_id,
            mtu: mtu_checked(new.mtu, new.external)?,
            name: new.name,
            description: new.description,
            admin_up: new.admin_up.unwrap_or(true),
            shared: new.shared,
            external: new.external,
            is_default: new.is_default,
            port_security: new.port_security.unwrap_or(true),
            segment: 0,
            qos_policy_id,
            dns_domain: new.dns_domain,
            zone_hints: new.zone_hints,
            tags: new.tags,
            subnets: Vec::new(),
            ipv4_address_scope: None,
            ipv6_address_scope: None,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        tx.network_insert(&network).await?;
        network.segment = self.segment_take(tx, network.id, new.segment).await?;
        for (open, action) in [(network.shared, RbacAction::Shared), (network.external, RbacAction::External)] {
            if open {
                self.share_with_all(tx, RbacType::Network, network.id.0, project_id, action).await?;
            }
        }
        self.default_security_group_in(tx, project_id).await?;
        self.network_audit(tx, policy::NETWORK_CREATE, &network).await?;
        Ok(network)
    }

    async fn segment_take(&self, tx: &Tx, network: NetworkId, asked: Option<u32>) -> Result<u32, EngineError> {
        match asked {
            Some(segment) if !(1..=arcus_store::SEGMENT_MAX).contains(&segment) => Err(EngineError::Invalid {
                code: "InvalidInput",
                message: format!(
                    "Invalid input for operation: segmentation_id out of range (1 through {}).",
                    arcus_store::SEGMENT_MAX
                ),
            }),
            Some(segment) if tx.segment_claim(network, segment).await? => Ok(segment),
            Some(segment) => Err(EngineError::Conflict {
                code: "TunnelIdInUse",
                message: format!("Unable to create the network. The tunnel ID {segment} is in use."),
            }),
            None => tx.segment_claim_next(network).await?.ok_or_else(|| EngineError::Conflict {
                code: "NoNetworkAvailable",
                message: "Unable to create the network. No tenant network is available for allocation.".into(),
            }),
        }
    }

    async fn network_audit(&self, tx: &Tx, action: Action, network: &Network) -> Result<(), EngineError> {
        let detail = json!({ "name": network.name, "shared": network.shared, "external": network.external });
        let (id, project_id) = (network.id.to_string(), Some(network.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "network", id, project_id, detail: &detail }).await?)
    }

    /// The network, if the caller may put ports on it: its owner, or anybody if it is shared; administrators always.
    pub(crate) async fn network_usable(&self, db: &Db, ctx: &OpCtx, id: NetworkId) -> Result<Network, EngineError> {
        let network = found(db.network_get_bare(id).await?, NETWORK.0, NETWORK.1, id)?;
        match guard(ctx, policy::NETWORK_USE, network.project_id, NETWORK, id) {
            Err(EngineError::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(network),
        }
        if network.shared || self.shared_with(db, ctx, id.0, Some(RbacAction::Shared)).await? {
            return Ok(network);
        }
        if self.shared_with(db, ctx, id.0, Some(RbacAction::External)).await? {
            return Err(Denied::Forbidden(policy::NETWORK_USE.name).into());
        }
        Err(no_network(id))
    }

    /// The network, if the caller may see it.
    pub(crate) async fn network_seen(&self, db: &Db, ctx: &OpCtx, id: NetworkId) -> Result<Network, EngineError> {
        authorize(ctx, policy::NETWORK_GET, &Target::own(ctx))?;
        let mut network = found(db.network_get(id).await?, NETWORK.0, NETWORK.1, id)?;
        match guard(ctx, policy::NETWORK_GET, network.project_id, NETWORK, id) {
            Err(EngineError::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(network),
        }
        network.shared = network.shared || self.shared_with(db, ctx, id.0, Some(RbacAction::Shared)).await?;
        if network.shared || self.shared_with(db, ctx, id.0, Some(RbacAction::External)).await? {
            return Ok(network);
        }
        Err(no_network(id))
    }

    /// The network, if the caller may change it; what is seen but another's answers 403.
    pub(crate) async fn network_owned(
        &self,
        db: &Db,
        ctx: &OpCtx,
        action: Action,
        id: NetworkId,
    ) -> Result<Network, EngineError> {
        let network = found(db.network_get_bare(id).await?, NETWORK.0, NETWORK.1, id)?;
        match guard(ctx, action, network.project_id, NETWORK, id) {
            Err(EngineError::NotFound { .. }) if self.shared_with(db, ctx, id.0, None).await? => {
                Err(Denied::Forbidden(action.name).into())
            }
            Err(error) => Err(error),
            Ok(()) => Ok(network),
        }
    }

    /// The network with this id.
    ///
    /// # Errors
    /// `NetworkNotFound`.
    pub async fn network_get(&self, ctx: &OpCtx, id: NetworkId) -> Result<Network, EngineError> {
        self.network_seen(self.store(), ctx, id).await
    }

    /// A page of networks.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<Network>, EngineError> {
        authorize(ctx, policy::NETWORK_LIST, &Target::own(ctx))?;
        let mut page = self.store().network_list(&seen_by(ctx, listing)?).await?;
        let marks = page.rows.iter_mut().map(|n| (n.id.0, n.project_id, &mut n.shared)).collect();
        self.shared_marks(ctx, marks).await?;
        Ok(page)
    }

    /// Changes a network.
    ///
    /// # Errors
    /// `NetworkNotFound`; 409 where the present use stands in the way.
    pub async fn network_update(
        &self,
        ctx: &OpCtx,
        id: NetworkId,
        change: NetworkChange,
    ) -> Result<Network, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.network_owned(&tx, ctx, policy::NETWORK_UPDATE, id).await?;
        tx.network_lock(id).await?;
        let mut network = found(tx.network_get(id).await?, NETWORK.0, NETWORK.1, id)?;
        // The lock has raised the revision by one.
        unchanged(change.if_match, network.revision - 1)?;
        if change.shared.is_some_and(|shared| shared != network.shared) {
            authorize(ctx, policy::NETWORK_CREATE_SHARED, &Target::default())?;
        }
        if change.external.is_some_and(|e| e != network.external)
            || change.is_default.is_some_and(|d| d != network.is_default)
        {
            authorize(ctx, policy::NETWORK_CREATE_EXTERNAL, &Target::default())?;
        }
        self.network_change_fits(&tx, &network, &change).await?;
        for (old, new, action) in [
            (network.shared, change.shared, RbacAction::Shared),
            (network.external, change.external, RbacAction::External),
        ] {
            match new {
                Some(true) if !old => {
                    self.share_with_all(&tx, RbacType::Network, id.0, network.project_id, action).await?;
                }
                Some(false) if old => self.share_with_all_end(&tx, id.0, action).await?,
                Some(_) | None => {}
            }
        }
        if let Some(policy) = change.qos_policy_id {
            network.qos_policy_id = self.qos_policy_usable(&tx, policy).await?;
        }
        network.dns_domain = change.dns_domain.unwrap_or(network.dns_domain);
        network.name = change.name.unwrap_or(network.name);
        network.description = change.description.unwrap_or(network.description);
        network.admin_up = change.admin_up.unwrap_or(network.admin_up);
        network.shared = change.shared.unwrap_or(network.shared);
        network.external = change.external.unwrap_or(network.external);
        network.is_default = change.is_default.unwrap_or(network.is_default);
        network.port_security = change.port_security.unwrap_or(network.port_security);
        network.mtu = mtu_checked(change.mtu.or(Some(network.mtu)), network.external)?;
        tx.network_update(&network).await?;
        tx.rbac_settle(RbacType::Network, id.0).await?;
        tx.nodes_touch_by_networks(&[id]).await?;
        self.network_audit(&tx, policy::NETWORK_UPDATE, &network).await?;
        let network = found(tx.network_get(id).await?, NETWORK.0, NETWORK.1, id)?;
        self.commit(tx).await?;
        Ok(network)
    }

    async fn network_change_fits(&self, tx: &Tx, network: &Network, change: &NetworkChange) -> Result<(), EngineError> {
        let closes = network.shared && change.shared == Some(false);
        let turns = change.external.is_some_and(|external| external != network.external);
        if !closes && !turns {
            return Ok(());
        }
        let ports = tx.port_list_by_network(network.id).await?;
        if closes && ports.iter().any(|p| p.project_id.is_some_and(|owner| owner != network.project_id)) {
            return Err(EngineError::Conflict {
                code: "InvalidSharedSetting",
                message: format!(
                    "Unable to reconfigure sharing settings for network {}. Multiple tenants are using it.",
                    network.name
                ),
            });
        }
        if turns && network.external && ports.iter().any(|p| p.project_id.is_none()) {
            return Err(EngineError::Conflict {
                code: "ExternalNetworkInUse",
                message: format!(
                    "External network {} cannot be updated to be made non-external, since it has existing gateway ports.",
                    network.id
                ),
            });
        }
        if turns && !network.external && !ports.is_empty() {
            return Err(in_use(network.id, "A network with ports cannot become external."));
        }
        Ok(())
    }

    /// Removes a network with its subnets.
    ///
    /// # Errors
    /// `NetworkNotFound`; `NetworkInUse` while there are ports on it.
    pub async fn network_delete(&self, ctx: &OpCtx, id: NetworkId, if_match: Option<u64>) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let network = self.network_owned(&tx, ctx, policy::NETWORK_DELETE, id).await?;
        unchanged(if_match, network.revision)?;
        tx.network_lock(id).await?;
        self.network_delete_in(&tx, network).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Removes a network that is locked, with its subnets and with floating IPs that lead nowhere.
    pub(crate) async fn network_delete_in(&self, tx: &Tx, network: Network) -> Result<(), EngineError> {
        let id = network.id;
        for ip in tx.floating_ips_idle_by_network(id).await? {
            self.floating_ip_delete_in(tx, &ip).await?;
        }
        let ports = tx.port_list_by_network(id).await?;
        if !ports.is_empty() {
            let ids: Vec<String> = ports.iter().take(20).map(|p| p.id.to_string()).collect();
            let why = format!(
                "There are one or more ports still in use on the network, id for these ports is {}.",
                ids.join(",")
            );
            return Err(in_use(id, &why));
        }
        for subnet in tx.subnet_list_by_networks(&[id]).await? {
            tx.quota_release(subnet.project_id, QuotaResource::Subnets, 1).await?;
            tx.subnet_delete(subnet.id).await?;
        }
        match tx.network_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(no_network(id)),
            Err(StoreError::Referenced(_)) => return Err(in_use(id, "Something still needs the network.")),
            Err(error) => return Err(error.into()),
        }
        tx.quota_release(network.project_id, QuotaResource::Networks, 1).await?;
        self.shares_forget(tx, id.0).await?;
        self.network_audit(tx, policy::NETWORK_DELETE, &network).await
    }

    /// Makes the cloud's external network unless there is one with this name: owned by `owner`, not shared, the default
    /// one, with one subnet whose gateway the nodes themselves hold.
    ///
    /// # Errors
    /// 400 for a range or gateway that cannot be, or [`EngineError::Store`].
    pub async fn external_network_ensure(
        &self,
        owner: ProjectId,
        name: &str,
        cidr: IpNet,
        gateway: IpAddr,
    ) -> Result<NetworkId, EngineError> {
        if let Some(id) = self.store().network_external_by_name(name).await? {
            return Ok(id);
        }
        let tx = self.store().begin(&OpCtx::system()).await?;
        let new = NetworkNew {
            project_id: Some(owner),
            name: name.to_owned(),
            external: true,
            is_default: true,
            ..NetworkNew::default()
        };
        let network = self.network_create_in(&tx, new).await?;
        let subnet = SubnetNew {
            network_id: network.id,
            project_id: Some(owner),
            name: format!("{name}-subnet"),
            cidr: Some(cidr),
            gateway: Some(Some(gateway)),
            dhcp: Some(false),
            ..SubnetNew::default()
        };
        self.subnet_create_in(&tx, subnet).await?;
        self.commit(tx).await?;
        Ok(network.id)
    }
}
