//! The interfaces of a server: which networks and groups are meant, and the ports on them.

use super::{NetworkOrPort, NetworkWish, Networks, Plan};
use crate::port_addresses::FixedIpWish;
use crate::ports::PortNew;
use crate::servers::stale;
use crate::{Engine, EngineError};
use arcus_placement::Candidate;
use arcus_store::{Listing, Server, Tx};
use arcus_types::{OpCtx, PortId, SecurityGroupId};

/// Security groups: their names as asked for, and their ids, or `None` for the network's own choice.
pub(super) type NamedGroups = (Vec<String>, Option<Vec<SecurityGroupId>>);

impl Engine {
    /// The security groups: names for the answer, ids for the ports (`None`: the network's own choice).
    pub(super) async fn security_groups_named(&self, tx: &Tx, plan: &Plan<'_>) -> Result<NamedGroups, EngineError> {
        let Some(asked) = &plan.new.security_groups else {
            return Ok((vec!["default".to_owned()], None));
        };
        if asked.iter().all(|name| name == "default") {
            return Ok((vec!["default".to_owned()], None));
        }
        let mut names: Vec<String> = Vec::new();
        let mut ids = Vec::new();
        for name in asked {
            let id = if name == "default" {
                self.default_security_group_in(tx, plan.project_id).await?
            } else {
                self.security_group_resolve(tx, plan.project_id, name).await.map_err(as_invalid)?
            };
            if !ids.contains(&id) {
                ids.push(id);
                names.push(name.clone());
            }
        }
        Ok((names, Some(ids)))
    }

    /// The interfaces, with implicit ones found.
    pub(super) async fn networks_resolved(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        plan: &Plan<'_>,
    ) -> Result<Vec<NetworkWish>, EngineError> {
        match &plan.new.networks {
            Networks::None => Ok(Vec::new()),
            Networks::These(wishes) => {
                for wish in wishes {
                    if let NetworkOrPort::Network(id) = wish.what {
                        let network = self.network_usable(tx, ctx, id).await.map_err(as_invalid)?;
                        if network.external && !network.shared && !ctx.is_admin() {
                            return Err(EngineError::Forbidden(format!(
                                "It is not allowed to create an interface on external network {id}"
                            )));
                        }
                        if tx.subnet_list_by_networks(&[id]).await?.is_empty() {
                            return Err(EngineError::invalid(format!(
                                "Network {id} requires a subnet in order to boot instances on."
                            )));
                        }
                    }
                }
                Ok(wishes.clone())
            }
            Networks::Implicit | Networks::Auto => {
                let listing = Listing { viewer: Some(plan.project_id), ..Listing::default() };
                let mut usable = tx.network_list(&listing).await?.rows;
                usable.retain(|n| !n.external);
                let ids: Vec<_> = usable.iter().map(|n| n.id).collect();
                let subnets = tx.subnet_list_by_networks(&ids).await?;
                let own = usable.iter().any(|n| n.project_id == plan.project_id);
                usable.retain(|n| subnets.iter().any(|s| s.network_id == n.id));
                if own && usable.iter().any(|n| n.project_id == plan.project_id) && plan.new.networks == Networks::Auto
                {
                    usable.retain(|n| n.project_id == plan.project_id);
                }
                match usable.as_slice() {
                    [] if plan.new.networks == Networks::Auto => {
                        let made = self.auto_topology_in(tx, plan.project_id).await.map_err(|error| {
                            EngineError::invalid(format!(
                                "Unable to automatically allocate a network for project {}: {error}",
                                plan.project_id
                            ))
                        })?;
                        Ok(vec![NetworkWish { what: NetworkOrPort::Network(made), fixed_ip: None, tag: None }])
                    }
                    [] => Ok(Vec::new()),
                    [one] => {
                        let what = NetworkOrPort::Network(one.id);
                        Ok(vec![NetworkWish { what, fixed_ip: None, tag: None }])
                    }
                    [..] => Err(EngineError::Conflict {
                        code: "NetworkAmbiguous",
                        message: "Multiple possible networks found, use a Network ID to be more specific.".into(),
                    }),
                }
            }
        }
    }

    /// Makes or binds the server's ports.
    pub(super) async fn ports_claimed(
        &self,
        tx: &Tx,
        server: &mut Server,
        node: &Candidate,
        wishes: &[NetworkWish],
        groups: Option<&[SecurityGroupId]>,
    ) -> Result<(), EngineError> {
        for wish in wishes {
            let port = self.port_claimed(tx, server, &node.name, wish, groups).await?;
            server.details.ports.push(port);
            if let Some(tag) = &wish.tag {
                server.details.port_tags.insert(port, tag.clone());
            }
        }
        Ok(())
    }

    /// Makes or binds one port of a server that is on a node.
    pub(in crate::servers) async fn port_claimed(
        &self,
        tx: &Tx,
        server: &Server,
        node_name: &str,
        wish: &NetworkWish,
        groups: Option<&[SecurityGroupId]>,
    ) -> Result<PortId, EngineError> {
        let Some(node_id) = server.node_id else { return Err(stale()) };
        let port = match wish.what {
            NetworkOrPort::Port(id) => {
                self.port_bind_in(tx, id, server.project_id, server.id, node_id).await.map_err(as_invalid)?
            }
            NetworkOrPort::Network(network_id) => {
                let fixed_ips = wish.fixed_ip.map(|a| vec![FixedIpWish { subnet_id: None, address: Some(a) }]);
                let new = PortNew {
                    network_id,
                    project_id: Some(server.project_id),
                    fixed_ips,
                    device_id: server.id.to_string(),
                    device_owner: format!("compute:{}", server.availability_zone),
                    server_id: Some(server.id),
                    node_id: Some(node_id),
                    binding_host: node_name.to_owned(),
                    security_groups: groups.map(<[SecurityGroupId]>::to_vec),
                    dns_name: server.details.hostname.clone(),
                    delete_with_server: true,
                    ..PortNew::default()
                };
                self.port_create_in(tx, new).await.map_err(as_invalid)?
            }
        };
        Ok(port.id)
    }
}

/// What is missing or taken in a request for a server is a mistake of that request.
pub(in crate::servers) fn as_invalid(error: EngineError) -> EngineError {
    match error {
        EngineError::NotFound { code, .. } => {
            let message = error.to_string();
            EngineError::Invalid { code, message }
        }
        EngineError::Conflict {
            code: code @ ("IpAddressAlreadyAllocated" | "IpAddressGenerationFailure"),
            message,
        } => EngineError::Invalid { code, message },
        other => other,
    }
}
