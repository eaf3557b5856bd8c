//! Nodes as the compute API shows them: hypervisors, services and availability zones.

use crate::{Engine, EngineError};
use arcus_store::Node;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{NodeId, OpCtx, ServerId, Timestamp};

/// A node with how it is.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    /// The node.
    pub node: Node,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// How many servers live there.
    pub servers: u64,
}

/// An availability zone.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Whether a node in it takes servers.
    pub available: bool,
    /// Its nodes, each with whether it takes servers and is alive, and when it was heard of.
    pub nodes: Vec<(String, bool, bool, Timestamp)>,
}

pub(crate) fn no_node(id: NodeId) -> EngineError {
    EngineError::not_found("ComputeHostNotFound", "Compute host", id)
}

impl Engine {
    /// Every node.
    ///
    /// # Errors
    /// A refusal.
    pub async fn hypervisor_list(&self, ctx: &OpCtx) -> Result<Vec<Hypervisor>, EngineError> {
        authorize(ctx, compute::HYPERVISOR_READ, &Target::default())?;
        self.hypervisors().await
    }

    pub(crate) async fn hypervisors(&self) -> Result<Vec<Hypervisor>, EngineError> {
        let counts = self.store().server_count_by_node().await?;
        let now = Timestamp::now();
        let nodes = self.store().node_list().await?;
        Ok(nodes
            .into_iter()
            .map(|node| Hypervisor {
                alive: self.node_alive(&node, now),
                servers: counts.iter().find(|(id, _)| *id == node.id).map_or(0, |(_, n)| *n),
                node,
            })
            .collect())
    }

    /// Every node, as a host of old.
    ///
    /// # Errors
    /// A refusal.
    pub async fn host_list(&self, ctx: &OpCtx) -> Result<Vec<Hypervisor>, EngineError> {
        authorize(ctx, compute::NODE_READ, &Target::default())?;
        self.hypervisors().await
    }

    /// Every node, for the audit of usage.
    ///
    /// # Errors
    /// A refusal.
    pub async fn usage_audit(&self, ctx: &OpCtx) -> Result<Vec<Hypervisor>, EngineError> {
        authorize(ctx, compute::AUDIT_LOG, &Target::default())?;
        self.hypervisors().await
    }

    /// The servers of these nodes: id and name.
    ///
    /// # Errors
    /// A refusal.
    pub async fn hypervisor_servers(&self, ctx: &OpCtx, node: NodeId) -> Result<Vec<(ServerId, String)>, EngineError> {
        authorize(ctx, compute::HYPERVISOR_READ, &Target::default())?;
        let servers = self.store().server_list_by_node(node).await?;
        Ok(servers.into_iter().map(|s| (s.id, s.name.to_string())).collect())
    }

    /// Every node, as a compute service.
    ///
    /// # Errors
    /// A refusal.
    pub async fn service_list(&self, ctx: &OpCtx) -> Result<Vec<Hypervisor>, EngineError> {
        authorize(ctx, compute::SERVICE_READ, &Target::default())?;
        self.hypervisors().await
    }

    /// The zones, each with whether it takes servers.
    ///
    /// # Errors
    /// A refusal.
    pub async fn zone_list(&self, ctx: &OpCtx, detail: bool) -> Result<Vec<Zone>, EngineError> {
        authorize(ctx, if detail { compute::ZONE_DETAIL } else { compute::ZONE_LIST }, &Target::own(ctx))?;
        let now = Timestamp::now();
        let mut zones: Vec<Zone> = Vec::new();
        for node in self.store().node_list().await? {
            let alive = self.node_alive(&node, now);
            let entry = (node.name.to_string(), node.enabled, alive, node.seen_at);
            match zones.iter_mut().find(|z| z.name == node.availability_zone) {
                Some(zone) => {
                    zone.available |= alive && node.enabled;
                    zone.nodes.push(entry);
                }
                None => zones.push(Zone {
                    name: node.availability_zone,
                    available: alive && node.enabled,
                    nodes: vec![entry],
                }),
            }
        }
        if zones.is_empty() {
            zones.push(Zone { name: self.config().default_zone.clone(), available: false, nodes: Vec::new() });
        }
        Ok(zones)
    }
}
