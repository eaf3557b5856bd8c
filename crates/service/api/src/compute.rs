//! The compute API: Nova v2.1 with microversions, as conversions at the edge.

mod flavors;
mod hypervisors;
mod images;
mod keypairs;
mod limits;
mod links;
pub mod paths;
mod security_groups;
mod server_actions;
mod server_groups;
mod server_interfaces;
mod server_metadata;
mod server_volumes;
mod servers;
mod usage;
mod versions;

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
        Route::get("/compute/v2.1/os-services", SERVICE_READ, hypervisors::services),
        Route::put("/compute/v2.1/os-services/{id}", SERVICE_WRITE, hypervisors::service_update),
        Route::get("/compute/v2.1/os-availability-zone", ZONE_LIST, hypervisors::zones),
        Route::get("/compute/v2.1/os-availability-zone/detail", ZONE_DETAIL, hypervisors::zones_detail),
    ]
}
