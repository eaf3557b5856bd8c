//! The compute API: Nova v2.1 with microversions, as conversions at the edge.

mod aggregates;
mod flavors;
mod hypervisors;
mod images;
mod keypairs;
mod limits;
mod links;
mod migrations;
mod node_admin;
pub mod paths;
mod proxies;
mod security_groups;
mod server_actions;
mod server_extras;
mod server_groups;
mod server_interfaces;
mod server_metadata;
mod server_volumes;
mod servers;
mod usage;
mod versions;

pub(crate) use servers::view::host_id;

use crate::microversion::Microversion;
use crate::{ApiError, Route, fields};
use arcus_types::ServerId;
use arcus_types::policy::compute as policy;
use axum::http::StatusCode;
use serde_json::Value;

/// What most handlers answer.
type Answer = Result<axum::Json<Value>, ApiError>;

fn gone() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

/// Refuses a call that came with `2.minor` when the request speaks an older microversion.
fn since(version: Microversion, minor: u16) -> Result<(), ApiError> {
    if version.at_least(minor) { Ok(()) } else { Err(gone()) }
}

/// Refuses a call that went with `2.minor` when the request speaks that or a newer microversion.
fn before(version: Microversion, minor: u16) -> Result<(), ApiError> {
    if version.at_least(minor) { Err(gone()) } else { Ok(()) }
}

/// Whether a path is of those that every version of the compute API answers as gone.
///
/// Source: the compute API guide, "Obsolete APIs": those that its reference implementation answers with 410.
pub fn removed(path: &str) -> bool {
    const WORDS: [&str; 9] = [
        "os-agents",
        "os-cells",
        "os-certificates",
        "os-cloudpipe",
        "os-fixed-ips",
        "os-floating-ip-dns",
        "os-floating-ips-bulk",
        "os-fping",
        "os-security-group-default-rules",
    ];
    let Some(rest) = path.strip_prefix("/compute/v2.1/") else { return false };
    let mut words = rest.split('/');
    match (words.next(), words.next(), words.next()) {
        (Some("servers"), Some(_), Some(part)) => matches!(part, "os-virtual-interfaces" | "consoles"),
        (Some(word), _, _) => WORDS.contains(&word),
        (None, _, _) => false,
    }
}

/// A server's id from a path of several parts.
fn server_id(text: &str) -> Result<ServerId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("Instance", text.chars().take(64).collect::<String>()))
}

/// Every route of the compute API.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/compute", policy::VERSIONS, versions::list),
        Route::get("/compute/", policy::VERSIONS, versions::list),
        Route::get("/compute/v2", policy::VERSIONS, versions::show_old),
        Route::get("/compute/v2/", policy::VERSIONS, versions::show_old),
        Route::get("/compute/v2.1", policy::VERSIONS, versions::show),
        Route::get("/compute/v2.1/", policy::VERSIONS, versions::show),
        Route::get("/compute/v2.1/extensions", policy::EXTENSIONS, versions::extensions),
        Route::get("/compute/v2.1/extensions/{alias}", policy::EXTENSIONS, versions::extension_show),
        Route::get("/compute/v2.1/limits", policy::LIMITS, limits::limits),
    ];
    routes.extend(server_routes());
    routes.extend(server_part_routes());
    routes.extend(flavor_routes());
    routes.extend(project_routes());
    routes.extend(node_routes());
    routes.extend(aggregate_routes());
    routes.extend(proxy_routes());
    routes
}

fn server_routes() -> Vec<Route> {
    const VOLUMES: &str = "/compute/v2.1/servers/{id}/os-volume_attachments";
    const VOLUME: &str = "/compute/v2.1/servers/{id}/os-volume_attachments/{volume_id}";
    vec![
        Route::get("/compute/v2.1/servers", policy::SERVER_LIST, servers::list),
        Route::post("/compute/v2.1/servers", policy::SERVER_CREATE, servers::create),
        Route::get("/compute/v2.1/servers/detail", policy::SERVER_LIST, servers::detail),
        Route::get("/compute/v2.1/servers/{id}", policy::SERVER_SHOW, servers::show),
        Route::put("/compute/v2.1/servers/{id}", policy::SERVER_UPDATE, servers::update),
        Route::delete("/compute/v2.1/servers/{id}", policy::SERVER_DELETE, servers::delete),
        Route::post("/compute/v2.1/servers/{id}/action", policy::SERVER_ACTION, servers::actions::action),
        Route::post(
            "/compute/v2.1/servers/{id}/remote-consoles",
            policy::SERVER_CONSOLE,
            servers::actions::remote_console,
        ),
        Route::get("/compute/v2.1/servers/{id}/topology", policy::SERVER_SHOW, servers::topology),
        Route::get("/compute/v2.1/servers/{id}/ips", policy::SERVER_SHOW, servers::ips),
        Route::get("/compute/v2.1/servers/{id}/ips/{network}", policy::SERVER_SHOW, servers::ips_of),
        Route::get(VOLUMES, policy::SERVER_VOLUMES_READ, server_volumes::list),
        Route::post(VOLUMES, policy::SERVER_VOLUMES_WRITE, server_volumes::attach),
        Route::get(VOLUME, policy::SERVER_VOLUMES_READ, server_volumes::show),
        Route::put(VOLUME, policy::SERVER_VOLUMES_WRITE, server_volumes::update),
        Route::delete(VOLUME, policy::SERVER_VOLUMES_WRITE, server_volumes::detach),
    ]
}

fn server_part_routes() -> Vec<Route> {
    use policy::{
        SERVER_ACTIONS_READ, SERVER_INTERFACES_READ, SERVER_INTERFACES_WRITE, SERVER_METADATA_READ,
        SERVER_METADATA_WRITE, SERVER_SECURITY_GROUPS_READ, SERVER_TAGS_READ, SERVER_TAGS_WRITE,
    };
    const METADATA: &str = "/compute/v2.1/servers/{id}/metadata";
    const METADATA_ITEM: &str = "/compute/v2.1/servers/{id}/metadata/{key}";
    const TAGS: &str = "/compute/v2.1/servers/{id}/tags";
    const TAG: &str = "/compute/v2.1/servers/{id}/tags/{tag}";
    const INTERFACES: &str = "/compute/v2.1/servers/{id}/os-interface";
    const INTERFACE: &str = "/compute/v2.1/servers/{id}/os-interface/{port_id}";
    const PASSWORD: &str = "/compute/v2.1/servers/{id}/os-server-password";
    const MIGRATION: &str = "/compute/v2.1/servers/{id}/migrations/{migration_id}";
    const ACTIONS: &str = "/compute/v2.1/servers/{id}/os-instance-actions";
    vec![
        Route::get(METADATA, SERVER_METADATA_READ, server_metadata::list),
        Route::post(METADATA, SERVER_METADATA_WRITE, server_metadata::update),
        Route::put(METADATA, SERVER_METADATA_WRITE, server_metadata::replace),
        Route::get(METADATA_ITEM, SERVER_METADATA_READ, server_metadata::item),
        Route::put(METADATA_ITEM, SERVER_METADATA_WRITE, server_metadata::item_set),
        Route::delete(METADATA_ITEM, SERVER_METADATA_WRITE, server_metadata::item_delete),
        Route::get(TAGS, SERVER_TAGS_READ, server_metadata::tags),
        Route::put(TAGS, SERVER_TAGS_WRITE, server_metadata::tags_set),
        Route::delete(TAGS, SERVER_TAGS_WRITE, server_metadata::tags_clear),
        Route::get(TAG, SERVER_TAGS_READ, server_metadata::tag),
        Route::put(TAG, SERVER_TAGS_WRITE, server_metadata::tag_add),
        Route::delete(TAG, SERVER_TAGS_WRITE, server_metadata::tag_delete),
        Route::get(INTERFACES, SERVER_INTERFACES_READ, server_interfaces::list),
        Route::post(INTERFACES, SERVER_INTERFACES_WRITE, server_interfaces::attach),
        Route::get(INTERFACE, SERVER_INTERFACES_READ, server_interfaces::show),
        Route::delete(INTERFACE, SERVER_INTERFACES_WRITE, server_interfaces::detach),
        Route::get(
            "/compute/v2.1/servers/{id}/os-security-groups",
            SERVER_SECURITY_GROUPS_READ,
            server_interfaces::security_groups,
        ),
        Route::get(
            "/compute/v2.1/servers/{id}/diagnostics",
            policy::SERVER_DIAGNOSTICS,
            server_extras::diagnostics_show,
        ),
        Route::get(PASSWORD, policy::SERVER_PASSWORD_READ, server_extras::password),
        Route::delete(PASSWORD, policy::SERVER_PASSWORD_CLEAR, server_extras::password_clear),
        Route::get("/compute/v2.1/servers/{id}/migrations", policy::SERVER_MIGRATIONS, migrations::of_server),
        Route::get(MIGRATION, policy::SERVER_MIGRATIONS, migrations::of_server_one),
        Route::delete(MIGRATION, policy::SERVER_MIGRATIONS, migrations::of_server_cancel),
        Route::post(
            "/compute/v2.1/servers/{id}/migrations/{migration_id}/action",
            policy::SERVER_MIGRATIONS,
            migrations::of_server_action,
        ),
        Route::get(ACTIONS, SERVER_ACTIONS_READ, server_actions::list),
        Route::get(
            "/compute/v2.1/servers/{id}/os-instance-actions/{request_id}",
            SERVER_ACTIONS_READ,
            server_actions::show,
        ),
    ]
}

fn flavor_routes() -> Vec<Route> {
    use policy::{FLAVOR_ACCESS, FLAVOR_READ, FLAVOR_WRITE};
    const FLAVOR: &str = "/compute/v2.1/flavors/{id}";
    const SPECS: &str = "/compute/v2.1/flavors/{id}/os-extra_specs";
    const SPEC: &str = "/compute/v2.1/flavors/{id}/os-extra_specs/{key}";
    vec![
        Route::get("/compute/v2.1/flavors", FLAVOR_READ, flavors::list),
        Route::post("/compute/v2.1/flavors", FLAVOR_WRITE, flavors::create),
        Route::get("/compute/v2.1/flavors/detail", FLAVOR_READ, flavors::detail),
        Route::get(FLAVOR, FLAVOR_READ, flavors::show),
        Route::put(FLAVOR, FLAVOR_WRITE, flavors::update),
        Route::delete(FLAVOR, FLAVOR_WRITE, flavors::delete),
        Route::post("/compute/v2.1/flavors/{id}/action", FLAVOR_ACCESS, flavors::action),
        Route::get("/compute/v2.1/flavors/{id}/os-flavor-access", FLAVOR_ACCESS, flavors::access_list),
        Route::get(SPECS, FLAVOR_READ, flavors::extra_specs),
        Route::post(SPECS, FLAVOR_WRITE, flavors::extra_specs_set),
        Route::get(SPEC, FLAVOR_READ, flavors::extra_spec),
        Route::put(SPEC, FLAVOR_WRITE, flavors::extra_spec_set),
        Route::delete(SPEC, FLAVOR_WRITE, flavors::extra_spec_delete),
    ]
}

fn project_routes() -> Vec<Route> {
    const KEYPAIR: &str = "/compute/v2.1/os-keypairs/{name}";
    const QUOTA: &str = "/compute/v2.1/os-quota-sets/{project_id}";
    const GROUP: &str = "/compute/v2.1/os-server-groups/{id}";
    const SECURITY_GROUP: &str = "/compute/v2.1/os-security-groups/{id}";
    use arcus_types::policy::{image, network};
    vec![
        Route::get("/compute/v2.1/os-keypairs", policy::KEYPAIR_READ, keypairs::list),
        Route::post("/compute/v2.1/os-keypairs", policy::KEYPAIR_WRITE, keypairs::create),
        Route::get(KEYPAIR, policy::KEYPAIR_READ, keypairs::show),
        Route::delete(KEYPAIR, policy::KEYPAIR_WRITE, keypairs::delete),
        Route::get(QUOTA, policy::QUOTA_SHOW, limits::show),
        Route::put(QUOTA, policy::QUOTA_WRITE, limits::update),
        Route::delete(QUOTA, policy::QUOTA_WRITE, limits::reset),
        Route::get("/compute/v2.1/os-quota-sets/{project_id}/detail", policy::QUOTA_SHOW, limits::detail),
        Route::get("/compute/v2.1/os-quota-sets/{project_id}/defaults", policy::QUOTA_DEFAULTS, limits::defaults),
        Route::get("/compute/v2.1/os-simple-tenant-usage", policy::USAGE_LIST, usage::list),
        Route::get("/compute/v2.1/os-simple-tenant-usage/{project_id}", policy::USAGE_SHOW, usage::show),
        Route::get("/compute/v2.1/os-server-groups", policy::SERVER_GROUP_READ, server_groups::list),
        Route::post("/compute/v2.1/os-server-groups", policy::SERVER_GROUP_WRITE, server_groups::create),
        Route::get(GROUP, policy::SERVER_GROUP_READ, server_groups::show),
        Route::delete(GROUP, policy::SERVER_GROUP_WRITE, server_groups::delete),
        Route::get("/compute/v2.1/os-security-groups", network::SECURITY_GROUP_LIST, security_groups::list),
        Route::post("/compute/v2.1/os-security-groups", network::SECURITY_GROUP_CREATE, security_groups::create),
        Route::get(SECURITY_GROUP, network::SECURITY_GROUP_GET, security_groups::show),
        Route::put(SECURITY_GROUP, network::SECURITY_GROUP_UPDATE, security_groups::update),
        Route::delete(SECURITY_GROUP, network::SECURITY_GROUP_DELETE, security_groups::delete),
        Route::get("/compute/v2.1/images", image::IMAGE_LIST, images::list),
        Route::get("/compute/v2.1/images/detail", image::IMAGE_LIST, images::detail),
        Route::get("/compute/v2.1/images/{id}", image::IMAGE_GET, images::show),
        Route::delete("/compute/v2.1/images/{id}", image::IMAGE_DELETE, images::delete),
    ]
}

fn node_routes() -> Vec<Route> {
    use policy::{HYPERVISOR_READ, SERVICE_READ, SERVICE_WRITE, ZONE_DETAIL, ZONE_LIST};
    vec![
        Route::get("/compute/v2.1/os-hypervisors", HYPERVISOR_READ, hypervisors::list),
        Route::get("/compute/v2.1/os-hypervisors/detail", HYPERVISOR_READ, hypervisors::detail),
        Route::get("/compute/v2.1/os-hypervisors/statistics", HYPERVISOR_READ, hypervisors::statistics),
        Route::get("/compute/v2.1/os-hypervisors/{id}", HYPERVISOR_READ, hypervisors::show),
        Route::get("/compute/v2.1/os-hypervisors/{id}/uptime", HYPERVISOR_READ, hypervisors::uptime_show),
        Route::get("/compute/v2.1/os-hypervisors/{id}/search", HYPERVISOR_READ, hypervisors::search),
        Route::get("/compute/v2.1/os-hypervisors/{id}/servers", HYPERVISOR_READ, hypervisors::servers_of),
        Route::get("/compute/v2.1/os-services", SERVICE_READ, hypervisors::services),
        Route::put("/compute/v2.1/os-services/{id}", SERVICE_WRITE, hypervisors::service_update),
        Route::delete("/compute/v2.1/os-services/{id}", policy::SERVICE_DELETE, hypervisors::service_delete),
        Route::get("/compute/v2.1/os-availability-zone", ZONE_LIST, hypervisors::zones),
        Route::get("/compute/v2.1/os-availability-zone/detail", ZONE_DETAIL, hypervisors::zones_detail),
    ]
}

fn aggregate_routes() -> Vec<Route> {
    use policy::{AGGREGATE_READ, AGGREGATE_WRITE, AUDIT_LOG, NODE_READ, QUOTA_CLASS, QUOTA_CLASS_WRITE};
    const AGGREGATE: &str = "/compute/v2.1/os-aggregates/{id}";
    const CLASS: &str = "/compute/v2.1/os-quota-class-sets/{id}";
    vec![
        Route::get("/compute/v2.1/os-aggregates", AGGREGATE_READ, aggregates::list),
        Route::post("/compute/v2.1/os-aggregates", AGGREGATE_WRITE, aggregates::create),
        Route::get(AGGREGATE, AGGREGATE_READ, aggregates::show),
        Route::put(AGGREGATE, AGGREGATE_WRITE, aggregates::update),
        Route::delete(AGGREGATE, AGGREGATE_WRITE, aggregates::delete),
        Route::post("/compute/v2.1/os-aggregates/{id}/action", AGGREGATE_WRITE, aggregates::action),
        Route::post("/compute/v2.1/os-aggregates/{id}/images", AGGREGATE_WRITE, aggregates::images),
        Route::get("/compute/v2.1/os-migrations", policy::MIGRATION_LIST, migrations::list),
        Route::get("/compute/v2.1/os-hosts", NODE_READ, node_admin::hosts),
        Route::get("/compute/v2.1/os-hosts/{name}", NODE_READ, node_admin::host_show),
        Route::put("/compute/v2.1/os-hosts/{name}", policy::SERVICE_WRITE, node_admin::host_update),
        Route::get("/compute/v2.1/os-hosts/{name}/startup", NODE_READ, node_admin::host_power),
        Route::get("/compute/v2.1/os-hosts/{name}/shutdown", NODE_READ, node_admin::host_power),
        Route::get("/compute/v2.1/os-hosts/{name}/reboot", NODE_READ, node_admin::host_power),
        Route::get(CLASS, QUOTA_CLASS, node_admin::quota_class),
        Route::put(CLASS, QUOTA_CLASS_WRITE, node_admin::quota_class_update),
        Route::get("/compute/v2.1/os-instance_usage_audit_log", AUDIT_LOG, node_admin::audit_log),
        Route::get("/compute/v2.1/os-instance_usage_audit_log/{before}", AUDIT_LOG, node_admin::audit_log_before),
        Route::post("/compute/v2.1/os-server-external-events", policy::SERVER_EVENTS, node_admin::events),
        Route::get(
            "/compute/v2.1/os-console-auth-tokens/{token}",
            policy::SERVER_CONSOLE_TOKEN,
            node_admin::console_token,
        ),
    ]
}

/// What the compute API once did in the place of others.
fn proxy_routes() -> Vec<Route> {
    use arcus_types::policy::image::{IMAGE_GET, IMAGE_UPDATE};
    use arcus_types::policy::network::{
        FLOATING_IP_CREATE, FLOATING_IP_DELETE, FLOATING_IP_GET, FLOATING_IP_LIST, NETWORK_GET, NETWORK_LIST,
        SECURITY_GROUP_RULE_CREATE, SECURITY_GROUP_RULE_DELETE,
    };
    const FLOATING_IP: &str = "/compute/v2.1/os-floating-ips/{id}";
    const METADATA: &str = "/compute/v2.1/images/{id}/metadata";
    const METADATA_ITEM: &str = "/compute/v2.1/images/{id}/metadata/{key}";
    vec![
        Route::get("/compute/v2.1/os-networks", NETWORK_LIST, proxies::networks),
        Route::get("/compute/v2.1/os-networks/{id}", NETWORK_GET, proxies::network),
        Route::get("/compute/v2.1/os-tenant-networks", NETWORK_LIST, proxies::tenant_networks),
        Route::get("/compute/v2.1/os-tenant-networks/{id}", NETWORK_GET, proxies::tenant_network),
        Route::get("/compute/v2.1/os-floating-ip-pools", NETWORK_LIST, proxies::floating_ip_pools),
        Route::get("/compute/v2.1/os-floating-ips", FLOATING_IP_LIST, proxies::floating_ips),
        Route::post("/compute/v2.1/os-floating-ips", FLOATING_IP_CREATE, proxies::floating_ip_create),
        Route::get(FLOATING_IP, FLOATING_IP_GET, proxies::floating_ip),
        Route::delete(FLOATING_IP, FLOATING_IP_DELETE, proxies::floating_ip_delete),
        Route::post("/compute/v2.1/os-security-group-rules", SECURITY_GROUP_RULE_CREATE, proxies::rule_create),
        Route::delete("/compute/v2.1/os-security-group-rules/{id}", SECURITY_GROUP_RULE_DELETE, proxies::rule_delete),
        Route::get(METADATA, IMAGE_GET, proxies::image_metadata),
        Route::post(METADATA, IMAGE_UPDATE, proxies::image_metadata_update),
        Route::put(METADATA, IMAGE_UPDATE, proxies::image_metadata_replace),
        Route::get(METADATA_ITEM, IMAGE_GET, proxies::image_metadata_item),
        Route::put(METADATA_ITEM, IMAGE_UPDATE, proxies::image_metadata_item_set),
        Route::delete(METADATA_ITEM, IMAGE_UPDATE, proxies::image_metadata_item_delete),
    ]
}
