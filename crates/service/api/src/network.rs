//! The network API (Neutron v2.0).

mod discovery;
mod floating_ips;
mod lists;
mod networks;
mod ports;
mod quotas;
mod routers;
mod security_groups;
mod subnet_pools;
mod subnets;
mod wire;

use crate::Route;

/// The routes of the network API.
pub fn routes() -> Vec<Route> {
    let mut routes = discovery::routes();
    routes.extend(networks::routes());
    routes.extend(subnets::routes());
    routes.extend(subnet_pools::routes());
    routes.extend(ports::routes());
    routes.extend(routers::routes());
    routes.extend(floating_ips::routes());
    routes.extend(security_groups::routes());
    routes.extend(quotas::routes());
    routes
}
