//! What the network API says of itself: versions, extensions, availability zones, agents, how full networks are.

use super::lists::{answer, listing};
use crate::auth::Ctx;
use crate::body::{Id, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::network_agents::IpAvailability;
use arcus_store::{NETWORK_FIELDS, Node};
use arcus_types::policy::network as policy;
use arcus_types::{NetworkId, NodeId, Timestamp};
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

/// The routes of discovery.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network", policy::VERSIONS, versions),
        Route::get("/network/", policy::VERSIONS, versions),
        Route::get("/network/v2.0", policy::VERSIONS, resources),
        Route::get("/network/v2.0/", policy::VERSIONS, resources),
        Route::get("/network/v2.0/extensions", policy::EXTENSION_LIST, extension_list),
        Route::get("/network/v2.0/extensions/{alias}", policy::EXTENSION_LIST, extension_show),
        Route::get("/network/v2.0/availability_zones", policy::AVAILABILITY_ZONE_LIST, zone_list),
        Route::get("/network/v2.0/agents", policy::AGENT_LIST, agent_list),
        Route::get("/network/v2.0/agents/{id}", policy::AGENT_GET, agent_show),
        Route::get("/network/v2.0/service-providers", policy::SERVICE_PROVIDER_LIST, providers),
        Route::get("/network/v2.0/network-ip-availabilities", policy::IP_AVAILABILITY_LIST, availability_list),
        Route::get("/network/v2.0/network-ip-availabilities/{id}", policy::IP_AVAILABILITY_LIST, availability_show),
    ]
}

/// What is honoured: alias, name, one line. An alias is a promise to clients, so nothing is here that is not tested.
const EXTENSIONS: &[(&str, &str, &str)] = &[
    ("address-group", "Address group", "Named lists of ranges that rules refer to."),
    ("agent", "agent", "The nodes that carry networks."),
    ("allowed-address-pairs", "Allowed Address Pairs", "Further addresses that a port may use."),
    ("auto-allocated-topology", "Auto Allocated Topology Services", "A network behind a router for the asking."),
    ("availability_zone", "Availability Zone", "The zones that nodes are in."),
    ("binding", "Port Binding", "Where a port lives, for administrators."),
    ("default-subnetpools", "Default Subnetpools", "Pools to take where none is named."),
    ("empty-string-filtering", "Empty String Filtering Extension", "Filters for attributes that are empty."),
    (
        "ext-gw-mode",
        "Neutron L3 Configurable external gateway mode",
        "Whether guests go out under the router's address.",
    ),
    (
        "expose-port-forwarding-in-fip",
        "Expose Port Forwarding in Floating IPs",
        "Forwardings as a part of their floating IP.",
    ),
    ("external-net", "Neutron external network", "Networks that lead out of the cloud."),
    ("extra_dhcp_opt", "Neutron Extra DHCP options", "What DHCP tells a port besides."),
    ("extraroute", "Neutron Extra Route", "Further routes of a router."),
    ("extraroute-atomic", "Atomically add/remove extra routes", "Further routes, some at a time."),
    ("floating-ip-port-forwarding", "Floating IP Port Forwarding", "Ports of a floating IP that lead to guests."),
    (
        "floating-ip-port-forwarding-description",
        "Floating IP Port Forwarding Description",
        "Free text on each of them.",
    ),
    (
        "floating-ip-port-forwarding-port-ranges",
        "Floating IP Port Forwarding support port ranges",
        "Several ports at once.",
    ),
    ("ip-substring-filtering", "IP address substring filtering", "Ports by a part of their address."),
    ("net-mtu", "Network MTU", "The largest packet of a network."),
    ("net-mtu-writable", "Network MTU (writable)", "The largest packet of a network, chosen by its owner."),
    ("network_availability_zone", "Network Availability Zone", "The zones that networks are in."),
    ("network-ip-availability", "Network IP Availability", "How many addresses of a network are taken."),
    ("pagination", "Pagination support", "Lists in pages."),
    ("port-security", "Port Security", "Whether a port's packets are filtered."),
    ("project-id", "project_id field enabled", "The owner's name is project_id as well as tenant_id."),
    ("provider", "Provider Network", "What a network is made of, for administrators."),
    ("qos", "Quality of Service", "Limits and marks on networks and ports."),
    ("qos-bw-limit-direction", "Direction for QoS bandwidth limit rule", "Limits for each direction."),
    ("qos-default", "QoS default policy", "The policy of a project's new networks."),
    ("qos-fip", "Floating IP QoS", "Limits on floating IPs."),
    ("qos-port-network-policy", "QoS port network policy", "A port shows its network's policy."),
    ("qos-rule-type-details", "Details of QoS rule types", "What each kind of rule may say."),
    ("quota-check-limit", "Quota engine limit check", "Quotas that may not fall below what is used."),
    ("quota_details", "Quota details management support", "Quotas with what is used of them."),
    ("quotas", "Quota management support", "How much of each thing a project may have."),
    ("rbac-address-group", "Add address_group type to RBAC", "Address groups shared by policy."),
    ("rbac-policies", "RBAC Policies", "Things shared with other projects."),
    ("rbac-security-groups", "Add security_group type to network RBAC", "Security groups shared by policy."),
    ("rbac-subnetpool", "Add subnetpool type to RBAC", "Subnet pools shared by policy."),
    ("revision-if-match", "If-Match constraints based on revision_number", "Changes only to what the caller has seen."),
    ("router", "Neutron L3 Router", "Routers and floating IPs."),
    ("router_availability_zone", "Router Availability Zone", "The zones that routers are in."),
    ("security-group", "security-group", "Filters on ports."),
    (
        "security-groups-normalized-cidr",
        "Normalized CIDR field for security group rules",
        "Ranges cut to their prefix.",
    ),
    ("security-groups-default-rules", "Default rules for security groups", "What new groups begin with."),
    (
        "security-groups-remote-address-group",
        "Remote address group id field for security group rules",
        "Rules for address groups.",
    ),
    (
        "security-groups-shared-filtering",
        "Security group filtering on the shared field",
        "Groups by whether they are shared.",
    ),
    ("service-type", "Neutron Service Type Management", "The ways in which things are done."),
    ("sorting", "Sorting support", "Lists in the order asked for."),
    ("standard-attr-description", "standard-attr-description", "Free text on every thing."),
    ("standard-attr-revisions", "Resource revision numbers", "A number that rises with every change."),
    ("standard-attr-timestamp", "Resource timestamps", "When a thing was made and last changed."),
    ("standard-attr-tag", "Tag support for resources with standard attribute", "Short words on things."),
    ("subnet-external-network", "Subnet belongs to an External Network", "Whether a subnet leads out."),
    ("subnet_allocation", "Subnet Allocation", "Subnets cut from pools."),
    ("tag", "Tag support", "Short words on networks."),
    ("tag-ext", "Tag support for resources: subnet, subnetpool, port, router", "Short words on these."),
    ("tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Ports with tags from the start."),
];

/// The collections of the API.
const COLLECTIONS: &[(&str, &str)] = &[
    ("network", "networks"),
    ("subnet", "subnets"),
    ("subnetpool", "subnetpools"),
    ("port", "ports"),
    ("router", "routers"),
    ("floatingip", "floatingips"),
    ("security_group", "security-groups"),
    ("security_group_rule", "security-group-rules"),
    ("address_group", "address-groups"),
    ("address_scope", "address-scopes"),
    ("rbac_policy", "rbac-policies"),
    ("default_security_group_rule", "default-security-group-rules"),
    ("quota", "quotas"),
];

async fn versions(State(app): State<App>) -> Json<Value> {
    let link = json!({ "rel": "self", "href": format!("{}/network/v2.0/", app.endpoint.url) });
    Json(json!({ "versions": [{ "id": "v2.0", "status": "CURRENT", "links": [link] }] }))
}

async fn resources(State(app): State<App>) -> Json<Value> {
    let resource = |(name, collection): &(&str, &str)| {
        let href = format!("{}/network/v2.0/{collection}", app.endpoint.url);
        json!({ "name": name, "collection": collection.replace('-', "_"), "links": [{ "rel": "self", "href": href }] })
    };
    Json(json!({ "resources": COLLECTIONS.iter().map(resource).collect::<Vec<_>>() }))
}

fn extension_view((alias, name, description): &(&str, &str, &str)) -> Value {
    json!({ "alias": alias, "name": name, "description": description, "updated": "2026-01-01T00:00:00-00:00", "links": [] })
}

async fn extension_list(_: Ctx) -> Json<Value> {
    Json(json!({ "extensions": EXTENSIONS.iter().map(extension_view).collect::<Vec<_>>() }))
}

async fn extension_show(_: Ctx, Path(alias): Path<String>) -> Result<Json<Value>, ApiError> {
    match EXTENSIONS.iter().find(|(name, _, _)| *name == alias) {
        Some(extension) => Ok(Json(json!({ "extension": extension_view(extension) }))),
        None => Err(ApiError::not_found("Extension with alias", alias.chars().take(64).collect::<String>())),
    }
}

/// What other clouds have plug-ins for: here one way to do each.
async fn providers(_: Ctx) -> Json<Value> {
    Json(json!({ "service_providers": [{ "service_type": "L3_ROUTER_NAT", "name": "arcus", "default": true }] }))
}

async fn zone_list(Ctx(ctx): Ctx, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let zones = app.engine.network_zone_list(&ctx).await?;
    let both = |zone: &String| {
        ["network", "router"].map(|resource| json!({ "name": zone, "resource": resource, "state": "available" }))
    };
    Ok(Json(json!({ "availability_zones": zones.iter().flat_map(both).collect::<Vec<_>>() })))
}

fn agent_view(app: &App, node: &Node) -> Value {
    let silent_s = Timestamp::now().0.saturating_sub(node.seen_at.0) / 1_000_000;
    let alive = u64::try_from(silent_s).unwrap_or_default() <= app.engine.config().node_down_after_s;
    json!({
        "id": node.id,
        "agent_type": "Arcus node agent",
        "binary": "arcus",
        "host": node.name,
        "topic": "N/A",
        "availability_zone": node.availability_zone,
        "admin_state_up": node.enabled,
        "alive": alive,
        "description": node.disabled_reason,
        "created_at": node.created_at.iso_seconds(),
        "started_at": node.created_at.iso_seconds(),
        "heartbeat_timestamp": node.seen_at.iso_seconds(),
        "configurations": {},
        "resources_synced": null,
    })
}

async fn agent_list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let nodes = app.engine.network_agent_list(&ctx).await?;
    let wanted = |shown: &Value| {
        ["host", "agent_type", "binary", "availability_zone"].iter().all(|key| {
            let mut asked = query.every(key).peekable();
            asked.peek().is_none() || asked.any(|value| shown[*key] == value)
        })
    };
    let shown: Vec<Value> = nodes.iter().map(|node| agent_view(&app, node)).filter(wanted).collect();
    Ok(Json(json!({ "agents": shown })))
}

async fn agent_show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<NodeId>) -> Result<Json<Value>, ApiError> {
    let node = app.engine.network_agent_get(&ctx, id).await?;
    Ok(Json(json!({ "agent": agent_view(&app, &node) })))
}

fn availability_view(of: &IpAvailability) -> Value {
    let subnets: Vec<Value> = of
        .subnets
        .iter()
        .map(|(subnet, total, used)| {
            json!({
                "subnet_id": subnet.id,
                "subnet_name": subnet.name,
                "cidr": subnet.cidr,
                "ip_version": subnet.ip_version(),
                "total_ips": number(*total),
                "used_ips": used,
            })
        })
        .collect();
    let total = of.subnets.iter().fold(0_u128, |sum, (_, total, _)| sum.saturating_add(*total));
    let used: u64 = of.subnets.iter().map(|(_, _, used)| used).sum();
    json!({
        "id": of.network.id,
        "network_id": of.network.id,
        "network_name": of.network.name,
        "project_id": of.network.project_id,
        "tenant_id": of.network.project_id,
        "total_ips": number(total),
        "used_ips": used,
        "subnet_ip_availability": subnets,
    })
}

/// A count as JSON, held at the largest whole number that every reader takes.
fn number(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

async fn availability_list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let mut asked = listing(&query, NETWORK_FIELDS)?;
    if let Some(field) = NETWORK_FIELDS.iter().find(|f| f.name == "id") {
        let ids: Vec<String> = query.every("network_id").map(str::to_owned).collect();
        if !ids.is_empty() {
            asked.filters.push((*field, ids));
        }
    }
    let page = app.engine.ip_availability_list(&ctx, asked).await?;
    Ok(Json(answer(&app, &query, "network_ip_availabilities", &page, availability_view)))
}

async fn availability_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<NetworkId>,
) -> Result<Json<Value>, ApiError> {
    let of = app.engine.ip_availability_get(&ctx, id).await?;
    Ok(Json(json!({ "network_ip_availability": availability_view(&of) })))
}
