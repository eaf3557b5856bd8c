//! A server's interfaces and security groups.

use super::create::{NetworkOrPort, NetworkWish, as_invalid};
use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Port, SecurityGroup, Server, Tx};
use arcus_types::policy::compute;
use arcus_types::servers::ServerRequest;
use arcus_types::{OpCtx, PortId, ServerId, Timestamp};
use serde_json::json;

/// The most interfaces of a server.
const INTERFACES_MAX: usize = 16;

/// What a server's node does for another interface, in the history.
const ATTACH_EVENT: &str = "compute_attach_interface";
/// What it does for one less.
const DETACH_EVENT: &str = "compute_detach_interface";

/// An interface that is asked for: on the named network, on the only one, or a port.
#[derive(Debug, Clone)]
pub struct InterfaceWish {
    /// What it is made of; `None` takes the one network that the project can use.
    pub what: Option<NetworkOrPort>,
    /// The address of a new port.
    pub fixed_ip: Option<std::net::IpAddr>,
    /// What the guest may know the interface by.
    pub tag: Option<String>,
}

/// An interface of a server.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its port.
    pub port: Port,
    /// What the guest may know it by.
    pub tag: Option<String>,
}

impl Engine {
    /// A server's interfaces, in the guest's order.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_interfaces(&self, ctx: &OpCtx, id: ServerId) -> Result<Vec<Interface>, EngineError> {
        let server = self.server_seen(self.store(), ctx, compute::SERVER_INTERFACES_READ, id, false).await?;
        let mut ports = self.store().port_list_by_servers(&[id]).await?;
        let place = |port: &Port| server.details.ports.iter().position(|p| *p == port.id).unwrap_or(usize::MAX);
        ports.sort_by_key(place);
        Ok(ports.into_iter().map(|port| interface(&server, port)).collect())
    }

    /// One interface of a server.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_interface(&self, ctx: &OpCtx, id: ServerId, port: PortId) -> Result<Interface, EngineError> {
        let all = self.server_interfaces(ctx, id).await?;
        all.into_iter().find(|i| i.port.id == port).ok_or_else(|| no_port(id, port))
    }

    /// Gives a server another interface; a running guest gets it while it runs.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it or for a port in use, [`EngineError::Invalid`],
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_interface_attach(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &InterfaceWish,
    ) -> Result<Interface, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_INTERFACES_WRITE, id).await?;
            admit(ctx, &server, ServerRequest::AttachInterface)?;
            super::actions::on_a_node(&server, ServerRequest::AttachInterface)?;
            if server.details.ports.len() >= INTERFACES_MAX {
                return Err(EngineError::invalid(format!("A server has at most {INTERFACES_MAX} interfaces.")));
            }
            let what = match wish.what {
                Some(what) => what,
                None => self.only_network(&tx, &server).await?,
            };
            if let NetworkOrPort::Network(network) = what {
                self.network_usable(&tx, ctx, network).await.map_err(as_invalid)?;
            }
            let wish = NetworkWish { what, fixed_ip: wish.fixed_ip, tag: wish.tag.clone() };
            let node = match server.node_id {
                Some(node) => tx.node_get(node).await?.map(|n| n.name.to_string()).unwrap_or_default(),
                None => String::new(),
            };
            let port_id = self.port_claimed(&tx, &server, &node, &wish, None).await?;
            server.details.ports.push(port_id);
            if let Some(tag) = wish.tag {
                server.details.port_tags.insert(port_id, tag);
            }
            let detail = json!({ "port_id": port_id });
            let action = compute::SERVER_INTERFACES_WRITE;
            let event = server.node_id.map(|_| ATTACH_EVENT);
            self.server_record(&tx, &server, action, "attach_interface", event, &detail).await?;
            self.server_wish(&tx, &mut server, None).await?;
            let port = tx.port_get(port_id).await?.ok_or_else(|| no_port(id, port_id))?;
            tx.commit().await?;
            self.wake().all();
            Ok(interface(&server, port))
        })
    }

    async fn only_network(&self, tx: &Tx, server: &Server) -> Result<NetworkOrPort, EngineError> {
        let listing = arcus_store::Listing { viewer: Some(server.project_id), ..Default::default() };
        let mut networks = tx.network_list(&listing).await?.rows;
        networks.retain(|n| !n.external);
        match networks.as_slice() {
            [one] => Ok(NetworkOrPort::Network(one.id)),
            [] => Err(EngineError::invalid("The project can use no network: name one, or a port.")),
            [..] => Err(EngineError::Conflict {
                code: "NetworkAmbiguous",
                message: "Multiple possible networks found, use a Network ID to be more specific.".into(),
            }),
        }
    }

    /// Takes an interface from a server. A port that the server's creation made goes away.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_interface_detach(&self, ctx: &OpCtx, id: ServerId, port: PortId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_INTERFACES_WRITE, id).await?;
            admit(ctx, &server, ServerRequest::DetachInterface)?;
            let known = tx.port_list_by_servers(&[id]).await?;
            let found = known.into_iter().find(|p| p.id == port).ok_or_else(|| no_port(id, port))?;
            if found.delete_with_server {
                self.port_delete_in(&tx, port).await?;
            } else {
                self.port_unbind_in(&tx, port).await?;
            }
            server.details.ports.retain(|p| *p != port);
            server.details.port_tags.remove(&port);
            let detail = json!({ "port_id": port });
            let action = compute::SERVER_INTERFACES_WRITE;
            let event = server.node_id.map(|_| DETACH_EVENT);
            self.server_record(&tx, &server, action, "detach_interface", event, &detail).await?;
            self.server_wish(&tx, &mut server, None).await?;
            tx.commit().await?;
            self.wake().all();
            Ok(())
        })
    }

    /// Ends what the history says of interfaces and is not over: its node has acted on the server as it is wished now, or
    /// never will. Several may be open, for each wish takes the place of the one before it; `failure` says what went wrong.
    pub(super) async fn interfaces_settled(
        &self,
        tx: &Tx,
        id: ServerId,
        failure: Option<&str>,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        for request in tx.server_action_open(id, &[ATTACH_EVENT, DETACH_EVENT]).await? {
            tx.server_action_finish(id, request, now, failure).await?;
        }
        Ok(())
    }

    /// The security groups of a server's ports.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_security_groups(&self, ctx: &OpCtx, id: ServerId) -> Result<Vec<SecurityGroup>, EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_SECURITY_GROUPS_READ, id, false).await?;
        let ports = self.store().port_list_by_servers(&[id]).await?;
        let mut ids: Vec<_> = ports.into_iter().flat_map(|p| p.security_groups).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(self.store().security_group_list_by_ids(&ids).await?)
    }

    /// Adds a security group to every port of a server, or takes it from every one.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a group that is not there or not the server's, [`EngineError::Invalid`] for a server
    /// without ports that filter, [`EngineError::Conflict`] under a lock, or a refusal.
    pub async fn server_security_group_change(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        group: &str,
        add: bool,
    ) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let action = compute::SERVER_SECURITY_GROUPS_WRITE;
            let server = self.server_held(&tx, ctx, action, id).await?;
            let group_id = self.security_group_resolve(&tx, server.project_id, group).await?;
            let ports = tx.port_list_by_servers(&[id]).await?;
            let mut changed = false;
            let mut filters = false;
            for mut port in ports {
                filters |= port.port_security;
                let has = port.security_groups.contains(&group_id);
                if has == add || (add && !port.port_security) {
                    continue;
                }
                changed = true;
                self.port_touch(&tx, &port).await?;
                if add {
                    port.security_groups.push(group_id);
                } else {
                    port.security_groups.retain(|g| *g != group_id);
                }
                tx.port_security_groups_set(port.id, &port.security_groups).await?;
                self.port_touch(&tx, &port).await?;
            }
            if !filters {
                return Err(EngineError::invalid(format!(
                    "Network requires port_security_enabled and subnet associated in order to apply security groups to instance {id}."
                )));
            }
            if !changed && !add {
                let what = format!("{group} of instance {id}");
                return Err(EngineError::not_found("SecurityGroupNotFound", "Security group", what));
            }
            let name = if add { "addSecurityGroup" } else { "removeSecurityGroup" };
            let detail = json!({ "security_group_id": group_id });
            self.server_record(&tx, &server, action, name, None, &detail).await?;
            tx.commit().await?;
            self.wake().all();
            Ok(())
        })
    }
}

fn interface(server: &Server, port: Port) -> Interface {
    Interface { tag: server.details.port_tags.get(&port.id).cloned(), port }
}

fn no_port(server: ServerId, port: PortId) -> EngineError {
    EngineError::not_found("PortNotFound", "Port", format!("{port} of instance {server}"))
}
