//! What operators see of the network: the nodes that carry it, their zones, and how full networks are.

use crate::networks::{found, seen_by};
use crate::{Engine, EngineError};
use arcus_store::{Db, Listing, Network, Node, Page, Subnet};
use arcus_types::policy::{Target, authorize, network as policy};
use arcus_types::{NetworkId, NodeId, OpCtx, SubnetId};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// How full a network is.
#[derive(Debug, Clone, PartialEq)]
pub struct IpAvailability {
    /// The network.
    pub network: Network,
    /// Its subnets, each with how many addresses its pools hold and how many of the subnet's are taken.
    pub subnets: Vec<(Subnet, u128, u64)>,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn total(subnet: &Subnet) -> u128 {
    subnet
        .pools
        .iter()
        .fold(0, |sum, pool| sum.saturating_add(bits(pool.end).saturating_sub(bits(pool.start)).saturating_add(1)))
}

impl Engine {
    /// The nodes, as carriers of networks; there are none for those who may not know of them.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_agent_list(&self, ctx: &OpCtx) -> Result<Vec<Node>, EngineError> {
        authorize(ctx, policy::AGENT_LIST, &Target::own(ctx))?;
        if authorize(ctx, policy::AGENT_GET, &Target::default()).is_err() {
            return Ok(Vec::new());
        }
        Ok(self.store().node_list().await?)
    }

    /// One node, as a carrier of networks.
    ///
    /// # Errors
    /// `AgentNotFound`.
    pub async fn network_agent_get(&self, ctx: &OpCtx, id: NodeId) -> Result<Node, EngineError> {
        authorize(ctx, policy::AGENT_GET, &Target::default())?;
        found(self.store().node_get(id).await?, "AgentNotFound", "Agent", id)
    }

    /// The zones that nodes are in; the default one before there is a node.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn network_zone_list(&self, ctx: &OpCtx) -> Result<Vec<String>, EngineError> {
        authorize(ctx, policy::AVAILABILITY_ZONE_LIST, &Target::own(ctx))?;
        let nodes = self.store().node_list().await?;
        let zones: BTreeSet<String> = nodes.into_iter().map(|node| node.availability_zone).collect();
        if zones.is_empty() { Ok(vec![self.config().default_zone.clone()]) } else { Ok(zones.into_iter().collect()) }
    }

    /// Refuses zones that are not there.
    pub(crate) async fn zones_checked(&self, db: &Db, hints: &[String]) -> Result<(), EngineError> {
        if hints.is_empty() {
            return Ok(());
        }
        let nodes = db.node_list().await?;
        let known = |zone: &String| {
            *zone == self.config().default_zone || nodes.iter().any(|node| node.availability_zone == *zone)
        };
        match hints.iter().find(|zone| !known(zone)) {
            Some(zone) => Err(EngineError::not_found(
                "AvailabilityZoneNotFound",
                "AvailabilityZone",
                zone.chars().take(64).collect::<String>(),
            )),
            None => Ok(()),
        }
    }

    /// How full networks are: four statements for a page.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn ip_availability_list(
        &self,
        ctx: &OpCtx,
        listing: Listing,
    ) -> Result<Page<IpAvailability>, EngineError> {
        authorize(ctx, policy::IP_AVAILABILITY_LIST, &Target::default())?;
        let page = self.store().network_list(&seen_by(ctx, listing)?).await?;
        Ok(Page { rows: self.availability(page.rows).await?, more: page.more })
    }

    /// How full a network is.
    ///
    /// # Errors
    /// `NetworkNotFound`.
    pub async fn ip_availability_get(&self, ctx: &OpCtx, id: NetworkId) -> Result<IpAvailability, EngineError> {
        authorize(ctx, policy::IP_AVAILABILITY_LIST, &Target::default())?;
        let network = self.store().network_get(id).await?.into_iter().collect();
        found(self.availability(network).await?.pop(), "NetworkNotFound", "Network", id)
    }

    async fn availability(&self, networks: Vec<Network>) -> Result<Vec<IpAvailability>, EngineError> {
        let ids: Vec<NetworkId> = networks.iter().map(|n| n.id).collect();
        let subnets = self.store().subnet_list_by_networks(&ids).await?;
        let subnet_ids: Vec<SubnetId> = subnets.iter().map(|s| s.id).collect();
        let taken: HashMap<SubnetId, u64> = self.store().address_counts(&subnet_ids).await?.into_iter().collect();
        let mut by_network: HashMap<NetworkId, Vec<(Subnet, u128, u64)>> = HashMap::new();
        for subnet in subnets {
            let counts = (total(&subnet), taken.get(&subnet.id).copied().unwrap_or_default());
            by_network.entry(subnet.network_id).or_default().push((subnet, counts.0, counts.1));
        }
        let full = |network: Network| {
            let subnets = by_network.remove(&network.id).unwrap_or_default();
            IpAvailability { network, subnets }
        };
        Ok(networks.into_iter().map(full).collect())
    }
}
