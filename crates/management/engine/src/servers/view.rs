//! A server with everything around it that its owner sees, for one or for many in a fixed number of queries.

use crate::{Engine, EngineError};
use arcus_store::{Node, Server, ServerSecrets, VolumeAttachment};
use arcus_types::nodes::NodeState;
use arcus_types::{MacAddr, NodeId, OpCtx, PortId, ProviderId, ServerId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// A server with what its owner sees around it.
#[derive(Debug, Clone)]
pub struct ServerView {
    /// The record.
    pub server: Server,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its node, for administrators.
    pub node: Option<NodeStanding>,
    /// Its addresses by network name.
    pub addresses: BTreeMap<String, Vec<AddressView>>,
    /// The names of the security groups of its ports.
    pub security_groups: Vec<String>,
    /// Its volumes, oldest first.
    pub volumes: Vec<VolumeAttachment>,
    /// What only it and its owner may see; fetched on demand.
    pub secrets: Option<ServerSecrets>,
}

/// How a server's node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStanding {
    /// The node's name.
    pub name: String,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// Whether it takes new servers.
    pub enabled: bool,
    /// What is held of it, and since when.
    pub state: NodeState,
    /// Since when.
    pub state_at: Timestamp,
}

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressView {
    /// The address.
    pub address: IpAddr,
    /// The interface's Ethernet address.
    pub mac: MacAddr,
    /// Whether it is an external address that leads here.
    pub floating: bool,
}

/// Addresses by network name, and the names of security groups.
type Networking = (BTreeMap<String, Vec<AddressView>>, Vec<String>);

impl Engine {
    /// Servers with what is around them: a fixed number of queries, however many there are.
    pub(super) async fn server_views(
        &self,
        servers: Vec<Server>,
        secrets: bool,
    ) -> Result<Vec<ServerView>, EngineError> {
        let ids: Vec<ServerId> = servers.iter().map(|s| s.id).collect();
        let mut volumes: HashMap<ServerId, Vec<VolumeAttachment>> = HashMap::new();
        for attachment in self.store().volume_attachments_by_servers(&ids).await? {
            if let Some(server) = attachment.server_id {
                volumes.entry(server).or_default().push(attachment);
            }
        }
        let mut tags: HashMap<ServerId, Vec<String>> = HashMap::new();
        for (id, tag) in self.store().server_tags(&ids).await? {
            tags.entry(id).or_default().push(tag);
        }
        let mut secrets = if secrets { self.store().server_secrets(&ids).await? } else { HashMap::new() };
        let mut on: Vec<ProviderId> = servers.iter().filter_map(|s| s.node_id.map(ProviderId::from)).collect();
        on.sort_unstable();
        on.dedup();
        let nodes = self.fleet_get(&on).await?;
        let nodes: HashMap<NodeId, &Node> = nodes.iter().filter_map(|m| m.node.as_ref()).map(|n| (n.id, n)).collect();
        let mut around = self.server_networks(&servers).await?;
        let now = Timestamp::now();
        Ok(servers
            .into_iter()
            .map(|server| {
                let node = server.node_id.and_then(|id| nodes.get(&id)).map(|n| NodeStanding {
                    name: n.name.to_string(),
                    alive: self.node_alive(n, now),
                    enabled: n.enabled,
                    state: n.state,
                    state_at: if n.state.is_down() { n.state_at } else { n.seen_at },
                });
                let (addresses, security_groups) = around.remove(&server.id).unwrap_or_default();
                let tags = tags.remove(&server.id).unwrap_or_default();
                let secrets = secrets.remove(&server.id);
                let volumes = volumes.remove(&server.id).unwrap_or_default();
                ServerView { tags, node, addresses, security_groups, volumes, secrets, server }
            })
            .collect())
    }

    /// Addresses and groups in the order of the guest's interfaces.
    async fn server_networks(&self, servers: &[Server]) -> Result<HashMap<ServerId, Networking>, EngineError> {
        let ids: Vec<ServerId> = servers.iter().map(|s| s.id).collect();
        let order: HashMap<PortId, usize> =
            servers.iter().flat_map(|s| s.details.ports.iter().enumerate().map(|(i, p)| (*p, i))).collect();
        let place = |port: &PortId| order.get(port).copied().unwrap_or(usize::MAX);
        let mut found = self.store().server_addresses(&ids).await?;
        found.sort_by_key(|a| (place(&a.port_id), a.port_id));
        let mut groups = self.store().server_security_groups(&ids).await?;
        groups.sort_by_key(|(_, port, _)| (place(port), *port));
        let mut out: HashMap<ServerId, Networking> = HashMap::with_capacity(ids.len());
        for a in found {
            let (addresses, _) = out.entry(a.server_id).or_default();
            let view = AddressView { address: a.address, mac: a.mac, floating: a.floating };
            addresses.entry(a.network).or_default().push(view);
        }
        for (server, _, name) in groups {
            let (_, names) = out.entry(server).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(out)
    }

    /// One server with what is around it. Administrators also see one that is gone.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_show(&self, ctx: &OpCtx, id: ServerId, secrets: bool) -> Result<ServerView, EngineError> {
        let action = arcus_types::policy::compute::SERVER_SHOW;
        let server = self.server_seen(self.store(), ctx, action, id, true).await?;
        self.server_view(server, secrets).await
    }

    /// A server that the caller has just read or written, with what is around it.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn server_view(&self, server: Server, secrets: bool) -> Result<ServerView, EngineError> {
        let id = server.id;
        let mut views = self.server_views(vec![server], secrets).await?;
        views.pop().ok_or_else(|| super::no_server(id))
    }
}
