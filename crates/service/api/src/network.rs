//! The network API (Neutron v2.0).

mod address_groups;
mod address_scopes;
mod auto_topologies;
mod default_rules;
mod discovery;
mod floating_ips;
mod lists;
mod networks;
mod port_forwardings;
mod ports;
mod qos;
mod quotas;
mod rbac;
mod routers;
mod security_groups;
mod subnet_pools;
mod subnets;
mod tags;
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
    routes.extend(default_rules::routes());
    routes.extend(address_groups::routes());
    routes.extend(address_scopes::routes());
    routes.extend(rbac::routes());
    routes.extend(qos::routes());
    routes.extend(port_forwardings::routes());
    routes.extend(auto_topologies::routes());
    routes.extend(tags::routes());
    routes.extend(quotas::routes());
    routes
}
