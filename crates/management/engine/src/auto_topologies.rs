//! What a project gets that asks for no more than any network: a network with subnets from the default pools, behind a
//! router with a gateway to the default external network.

use crate::networks::NetworkNew;
use crate::routers::{GatewayWish, InterfaceOf, RouterNew};
use crate::subnets::SubnetNew;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Tx};
use arcus_types::policy::{Target, authorize, network as policy};
use arcus_types::{NetworkId, OpCtx, ProjectId};
use serde_json::json;

/// The name of the network.
const NETWORK_NAME: &str = "auto_allocated_network";
/// The name of the router.
const ROUTER_NAME: &str = "auto_allocated_router";

fn cannot(why: &str) -> EngineError {
    EngineError::Conflict { code: "AutoAllocationFailure", message: format!("Deployment error: {why}") }
}

impl Engine {
    /// A project's own topology, made now if there is none.
    ///
    /// # Errors
    /// `AutoAllocationFailure` where the cloud has no default external network or default subnet pool; quotas.
    pub async fn auto_topology_get(&self, ctx: &OpCtx, project: ProjectId) -> Result<NetworkId, EngineError> {
        authorize(ctx, policy::AUTO_TOPOLOGY_GET, &Target::project(project))?;
        if let Some((network, _)) = self.store().auto_topology_get(project).await? {
            return Ok(network);
        }
        authorize(ctx, policy::AUTO_TOPOLOGY_CREATE, &Target::project(project))?;
        let tx = self.store().begin(ctx).await?;
        let network = self.auto_topology_in(&tx, project).await?;
        self.commit(tx).await?;
        Ok(network)
    }

    /// Whether a topology could be made.
    ///
    /// # Errors
    /// `AutoAllocationFailure` says what is missing.
    pub async fn auto_topology_check(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, policy::AUTO_TOPOLOGY_GET, &Target::project(project))?;
        let db = self.store();
        if db.subnet_pools_default().await?.is_empty() {
            return Err(cannot(
                "No default pools available: an administrator makes one with `subnet pool create --default`.",
            ));
        }
        if db.network_external_default().await?.is_none() {
            return Err(cannot("No default router:external network."));
        }
        Ok(())
    }

    /// A project's own topology inside the caller's transaction, made if there is none. Leaves an audit record of its own.
    ///
    /// # Errors
    /// As [`Engine::auto_topology_get`].
    pub(crate) async fn auto_topology_in(&self, tx: &Tx, project: ProjectId) -> Result<NetworkId, EngineError> {
        if let Some((network, _)) = tx.auto_topology_get(project).await? {
            return Ok(network);
        }
        let ctx = *tx.ctx();
        self.auto_topology_check(&ctx, project).await?;
        let external = tx.network_external_default().await?;
        let external = external.ok_or_else(|| cannot("No default router:external network."))?;
        let new = NetworkNew { project_id: Some(project), name: NETWORK_NAME.into(), ..NetworkNew::default() };
        let network = self.network_create_in(tx, new).await?;
        let gateway = GatewayWish { network_id: external, ..GatewayWish::default() };
        let router = RouterNew {
            project_id: Some(project),
            name: ROUTER_NAME.into(),
            gateway: Some(gateway),
            ..RouterNew::default()
        };
        let router = self.router_create_in(tx, router).await?;
        let mut versions = Vec::new();
        for (version, pool) in tx.subnet_pools_default().await? {
            if versions.contains(&version) {
                continue;
            }
            versions.push(version);
            let subnet = SubnetNew {
                network_id: network.id,
                project_id: Some(project),
                name: format!("auto_allocated_subnet_v{version}"),
                subnet_pool_id: Some(pool),
                ip_version: Some(version),
                ..SubnetNew::default()
            };
            let subnet = self.subnet_create_in(tx, subnet).await?;
            self.router_interface_add_in(tx, &router, InterfaceOf::Subnet(subnet.id)).await?;
        }
        if !tx.auto_topology_insert(project, network.id, router.id).await? {
            return Err(arcus_store::StoreError::Stale("auto-allocated topology").into());
        }
        let entry = AuditEntry {
            action: policy::AUTO_TOPOLOGY_CREATE,
            kind: "auto_topology",
            id: project.to_string(),
            project_id: Some(project),
            detail: &json!({ "network_id": network.id, "router_id": router.id }),
        };
        tx.audit(entry).await?;
        Ok(network.id)
    }

    /// Takes a project's topology away: router, network and subnets.
    ///
    /// # Errors
    /// `AutoAllocatedTopologyNotFound`; 409 while something uses it.
    pub async fn auto_topology_delete(&self, ctx: &OpCtx, project: ProjectId) -> Result<(), EngineError> {
        authorize(ctx, policy::AUTO_TOPOLOGY_DELETE, &Target::project(project))?;
        let tx = self.store().begin(ctx).await?;
        let Some((network, router)) = tx.auto_topology_get(project).await? else {
            return Err(EngineError::not_found(
                "AutoAllocatedTopologyNotFound",
                "Auto-allocated topology of project",
                project,
            ));
        };
        tx.auto_topology_delete(project).await?;
        let subnets = tx.subnet_list_by_networks(&[network]).await?;
        if let Some(mut held) = tx.router_lock(router).await? {
            for subnet in subnets {
                if tx.router_interface_by_subnet(router, subnet.id).await?.is_some() {
                    let (_, after) = self.router_interface_remove_in(&tx, held, InterfaceOf::Subnet(subnet.id)).await?;
                    held = after;
                }
            }
            self.router_delete_in(&tx, held).await?;
        }
        if tx.network_lock(network).await?
            && let Some(network) = tx.network_get_bare(network).await?
        {
            self.network_delete_in(&tx, network).await?;
        }
        let entry = AuditEntry {
            action: policy::AUTO_TOPOLOGY_DELETE,
            kind: "auto_topology",
            id: project.to_string(),
            project_id: Some(project),
            detail: &json!({}),
        };
        tx.audit(entry).await?;
        self.commit(tx).await?;
        Ok(())
    }
}
