//! Routers: their legs on tenants' networks and their gateway to an external one. Each node with a port near a router
//! carries the router itself, so there is no node to lose.

mod gateway;
mod interfaces;

pub use gateway::GatewayWish;
pub use interfaces::{Interface, InterfaceOf};

use crate::networks::{found, guard, over_quota, own_project, seen_by, unchanged};
use crate::{Engine, EngineError};
use arcus_store::{
    AuditEntry, Db, HostRoute, Listing, OWNER_ROUTER_INTERFACE, Page, Port, QuotaResource, Router, StoreError, Tx,
};
use arcus_types::policy::{Action, Target, authorize, network as policy};
use arcus_types::{NetworkId, OpCtx, ProjectId, RouterId, SubnetId, Timestamp};
use serde_json::json;

/// The most further routes of a router.
const ROUTES_MAX: usize = 30;

/// A router to make.
#[derive(Debug, Clone, Default)]
pub struct RouterNew {
    /// Who shall own it; `None` is the caller's project.
    pub project_id: Option<ProjectId>,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it forwards; `None` is yes.
    pub admin_up: Option<bool>,
    /// Its way out.
    pub gateway: Option<GatewayWish>,
    /// The zones that it should be in: a router is in all of them, so they need only be there.
    pub zone_hints: Vec<String>,
    /// Words of its owner.
    pub tags: Vec<String>,
}

/// What of a router may change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct RouterChange {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether it forwards.
    pub admin_up: Option<bool>,
    /// Its way out; `Some(None)` takes it away.
    pub gateway: Option<Option<GatewayWish>>,
    /// Further routes, all of them.
    pub routes: Option<Vec<HostRoute>>,
    /// The revision that it must have.
    pub if_match: Option<u64>,
}

/// What to do with some of a router's further routes, whatever the others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutesChange {
    /// These as well.
    Add(Vec<HostRoute>),
    /// These no longer.
    Remove(Vec<HostRoute>),
}

const ROUTER: (&str, &str) = ("RouterNotFound", "Router");

fn bad_router(message: String) -> EngineError {
    EngineError::Invalid { code: "BadRequest", message: format!("Bad router request: {message}.") }
}

fn invalid_routes(route: &HostRoute, why: &str) -> EngineError {
    EngineError::Invalid {
        code: "InvalidRoutes",
        message: format!("Invalid format for routes: {} via {}, {why}", route.destination, route.nexthop),
    }
}

impl Engine {
    /// Makes a router.
    ///
    /// # Errors
    /// `OverQuota`, and what a gateway may answer.
    pub async fn router_create(&self, ctx: &OpCtx, new: RouterNew) -> Result<Router, EngineError> {
        authorize(ctx, policy::ROUTER_CREATE, &Target::own(ctx))?;
        let tx = self.store().begin(ctx).await?;
        let router = self.router_create_in(&tx, new).await?;
        self.commit(tx).await?;
        Ok(router)
    }

    /// Makes a router inside the caller's transaction.
    pub(crate) async fn router_create_in(&self, tx: &Tx, new: RouterNew) -> Result<Router, EngineError> {
        let project_id = own_project(tx.ctx(), new.project_id)?;
        self.zones_checked(tx, &new.zone_hints).await?;
        if !tx.quota_claim(project_id, QuotaResource::Routers, 1).await? {
            return Err(over_quota("router"));
        }
        let now = Timestamp::now();
        let router = Router {
            id: RouterId::new(),
            project_id,
            name: new.name,
            description: new.description,
            admin_up: new.admin_up.unwrap_or(true),
            gateway_network_id: None,
            snat: true,
            gateway_addresses: Vec::new(),
            routes: Vec::new(),
            zone_hints: new.zone_hints,
            tags: new.tags,
            revision: 1,
            created_at: now,
            updated_at: now,
        };
        tx.router_insert(&router).await?;
        if let Some(wish) = new.gateway {
            let changed = self.gateway_set(tx, router.clone(), Some(wish)).await?;
            tx.router_update(&changed).await?;
        }
        self.router_audit(tx, policy::ROUTER_CREATE, &router).await?;
        found(tx.router_get(router.id).await?, ROUTER.0, ROUTER.1, router.id)
    }

    async fn router_audit(&self, tx: &Tx, action: Action, router: &Router) -> Result<(), EngineError> {
        let detail = json!({ "name": router.name });
        let (id, project_id) = (router.id.to_string(), Some(router.project_id));
        Ok(tx.audit(AuditEntry { action, kind: "router", id, project_id, detail: &detail }).await?)
    }

    async fn router_owned(&self, db: &Db, ctx: &OpCtx, action: Action, id: RouterId) -> Result<Router, EngineError> {
        let router = found(db.router_get(id).await?, ROUTER.0, ROUTER.1, id)?;
        guard(ctx, action, router.project_id, ROUTER, id)?;
        Ok(router)
    }

    /// The router with this id.
    ///
    /// # Errors
    /// `RouterNotFound`.
    pub async fn router_get(&self, ctx: &OpCtx, id: RouterId) -> Result<Router, EngineError> {
        self.router_owned(self.store(), ctx, policy::ROUTER_GET, id).await
    }

    /// A page of routers.
    ///
    /// # Errors
    /// Policy, or [`EngineError::Store`].
    pub async fn router_list(&self, ctx: &OpCtx, listing: Listing) -> Result<Page<Router>, EngineError> {
        authorize(ctx, policy::ROUTER_LIST, &Target::own(ctx))?;
        Ok(self.store().router_list(&seen_by(ctx, listing)?).await?)
    }

    /// Tells every node that carries this router.
    async fn router_touch(&self, tx: &Tx, legs: &[Port]) -> Result<(), EngineError> {
        let networks: Vec<NetworkId> =
            legs.iter().filter(|p| p.device_owner == OWNER_ROUTER_INTERFACE).map(|p| p.network_id).collect();
        Ok(tx.nodes_touch_by_networks(&networks).await?)
    }

    /// Changes a router.
    ///
    /// # Errors
    /// `RouterNotFound`, `InvalidRoutes`, and what a gateway may answer.
    pub async fn router_update(&self, ctx: &OpCtx, id: RouterId, change: RouterChange) -> Result<Router, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.router_owned(&tx, ctx, policy::ROUTER_UPDATE, id).await?;
        let mut router = found(tx.router_lock(id).await?, ROUTER.0, ROUTER.1, id)?;
        // The lock has raised the revision by one.
        unchanged(change.if_match, router.revision - 1)?;
        router.name = change.name.unwrap_or(router.name);
        router.description = change.description.unwrap_or(router.description);
        router.admin_up = change.admin_up.unwrap_or(router.admin_up);
        if let Some(wish) = change.gateway {
            router = self.gateway_set(&tx, router, wish).await?;
        }
        let legs = tx.port_list_by_routers(&[id]).await?;
        if let Some(routes) = change.routes {
            self.routes_checked(&tx, &legs, &routes).await?;
            router.routes = routes;
        }
        tx.router_update(&router).await?;
        self.router_touch(&tx, &legs).await?;
        self.router_audit(&tx, policy::ROUTER_UPDATE, &router).await?;
        let router = found(tx.router_get(id).await?, ROUTER.0, ROUTER.1, id)?;
        self.commit(tx).await?;
        Ok(router)
    }

    /// Adds or removes some of a router's further routes, without a look at the others: two callers never undo each
    /// other's.
    ///
    /// # Errors
    /// `RouterNotFound`, `InvalidRoutes`, `RoutesExhausted`.
    pub async fn router_routes_change(
        &self,
        ctx: &OpCtx,
        id: RouterId,
        change: RoutesChange,
    ) -> Result<Router, EngineError> {
        let tx = self.store().begin(ctx).await?;
        self.router_owned(&tx, ctx, policy::ROUTER_UPDATE, id).await?;
        let mut router = found(tx.router_lock(id).await?, ROUTER.0, ROUTER.1, id)?;
        let legs = tx.port_list_by_routers(&[id]).await?;
        match change {
            RoutesChange::Add(more) => {
                for route in more {
                    if !router.routes.contains(&route) {
                        router.routes.push(route);
                    }
                }
                self.routes_checked(&tx, &legs, &router.routes).await?;
            }
            RoutesChange::Remove(gone) => router.routes.retain(|route| !gone.contains(route)),
        }
        tx.router_update(&router).await?;
        self.router_touch(&tx, &legs).await?;
        self.router_audit(&tx, policy::ROUTER_UPDATE, &router).await?;
        let router = found(tx.router_get(id).await?, ROUTER.0, ROUTER.1, id)?;
        self.commit(tx).await?;
        Ok(router)
    }

    async fn routes_checked(&self, tx: &Tx, legs: &[Port], routes: &[HostRoute]) -> Result<(), EngineError> {
        if routes.len() > ROUTES_MAX {
            return Err(EngineError::Invalid {
                code: "RoutesExhausted",
                message: format!(
                    "Unable to complete operation: the number of routes exceeds the maximum {ROUTES_MAX}."
                ),
            });
        }
        let addresses = || legs.iter().flat_map(|leg| &leg.fixed_ips);
        let ids: Vec<SubnetId> = addresses().map(|ip| ip.subnet_id).collect();
        let subnets = tx.subnet_list_by_ids(&ids).await?;
        for route in routes {
            if route.destination.addr().is_ipv4() != route.nexthop.is_ipv4() {
                return Err(invalid_routes(route, "the nexthop is of another IP version"));
            }
            if !subnets.iter().any(|s| s.cidr.contains(&route.nexthop)) {
                return Err(invalid_routes(route, "the nexthop is not connected with router"));
            }
            if addresses().any(|ip| ip.address == route.nexthop) {
                return Err(invalid_routes(route, "the nexthop is used by router"));
            }
        }
        Ok(())
    }

    /// Removes a router with its gateway.
    ///
    /// # Errors
    /// `RouterNotFound`; `RouterInUse` while it has legs on tenants' networks or floating IPs.
    pub async fn router_delete(&self, ctx: &OpCtx, id: RouterId, if_match: Option<u64>) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let seen = self.router_owned(&tx, ctx, policy::ROUTER_DELETE, id).await?;
        unchanged(if_match, seen.revision)?;
        let router = found(tx.router_lock(id).await?, ROUTER.0, ROUTER.1, id)?;
        self.router_delete_in(&tx, router).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Removes a locked router with its gateway.
    pub(crate) async fn router_delete_in(&self, tx: &Tx, router: Router) -> Result<(), EngineError> {
        let id = router.id;
        let in_use = |why: &str| EngineError::Conflict { code: "RouterInUse", message: format!("Router {id} {why}") };
        let legs = tx.port_list_by_routers(&[id]).await?;
        if legs.iter().any(|p| p.device_owner == OWNER_ROUTER_INTERFACE) {
            return Err(in_use("still has ports"));
        }
        let router = self.gateway_set(tx, router, None).await?;
        match tx.router_delete(id).await {
            Ok(_) => {}
            Err(StoreError::Referenced(_)) => return Err(in_use("is still needed.")),
            Err(error) => return Err(error.into()),
        }
        tx.quota_release(router.project_id, QuotaResource::Routers, 1).await?;
        self.router_audit(tx, policy::ROUTER_DELETE, &router).await
    }
}
