//! The version documents of the compute API, and the list of its extensions, which are all part of it by now.

use super::Answer;
use crate::auth::Ctx;
use crate::microversion::{COMPUTE_MAX, COMPUTE_MIN};
use crate::{ApiError, App};
use arcus_types::policy::{Target, authorize, compute};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn version(app: &App) -> Value {
    json!({
        "id": "v2.1",
        "status": "CURRENT",
        "version": COMPUTE_MAX.to_string(),
        "min_version": COMPUTE_MIN.to_string(),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{ "rel": "self", "href": format!("{}/compute/v2.1/", app.endpoint.url) }],
    })
}

/// The API before it had microversions: the same calls under another path, always as the oldest microversion.
fn version_old(app: &App) -> Value {
    json!({
        "id": "v2.0",
        "status": "SUPPORTED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
        "links": [{ "rel": "self", "href": format!("{}/compute/v2/", app.endpoint.url) }],
    })
}

/// `GET /compute`
pub async fn list(State(app): State<App>) -> Json<Value> {
    Json(json!({ "versions": [version_old(&app), version(&app)] }))
}

/// `GET /compute/v2`
pub async fn show_old(State(app): State<App>) -> Json<Value> {
    let mut version = version_old(&app);
    version["media-types"] =
        json!([{ "base": "application/json", "type": "application/vnd.openstack.compute+json;version=2" }]);
    Json(json!({ "version": version }))
}

/// `GET /compute/v2.1`
pub async fn show(State(app): State<App>) -> Json<Value> {
    let mut version = version(&app);
    version["media-types"] =
        json!([{ "base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1" }]);
    Json(json!({ "version": version }))
}

/// The extensions of old that are served; source: the compute API's `extension_info`.
const EXTENSIONS: &[(&str, &str)] = &[
    ("ConsoleOutput", "os-console-output"),
    ("Consoles", "os-consoles"),
    ("RemoteConsoles", "os-remote-consoles"),
    ("AvailabilityZone", "os-availability-zone"),
    ("BlockDeviceMappingV2Boot", "os-block-device-mapping-v2-boot"),
    ("ConfigDrive", "os-config-drive"),
    ("ConsoleAuthTokens", "os-console-auth-tokens"),
    ("CreateServerExt", "os-create-server-ext"),
    ("DeferredDelete", "os-deferred-delete"),
    ("DiskConfig", "OS-DCF"),
    ("ExtendedAvailabilityZone", "OS-EXT-AZ"),
    ("ExtendedServerAttributes", "OS-EXT-SRV-ATTR"),
    ("ExtendedStatus", "OS-EXT-STS"),
    ("ExtendedIps", "OS-EXT-IPS"),
    ("ExtendedIpsMac", "OS-EXT-IPS-MAC"),
    ("FlavorAccess", "os-flavor-access"),
    ("FlavorExtraSpecs", "os-flavor-extra-specs"),
    ("FlavorManage", "os-flavor-manage"),
    ("Hypervisors", "os-hypervisors"),
    ("InstanceActions", "os-instance-actions"),
    ("AttachInterfaces", "os-attach-interfaces"),
    ("Keypairs", "os-keypairs"),
    ("MultipleCreate", "os-multiple-create"),
    ("Quotas", "os-quota-sets"),
    ("SchedulerHints", "OS-SCH-HNT"),
    ("SecurityGroups", "os-security-groups"),
    ("ServerGroups", "os-server-groups"),
    ("ServerUsage", "OS-SRV-USG"),
    ("Services", "os-services"),
    ("SimpleTenantUsage", "os-simple-tenant-usage"),
    ("UserData", "os-user-data"),
    ("UsedLimits", "os-used-limits"),
];

fn extension((name, alias): &(&str, &str)) -> Value {
    json!({
        "name": name,
        "alias": alias,
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
        "description": format!("{name}, part of the API."),
        "links": [],
    })
}

/// `GET /compute/v2.1/extensions`
pub async fn extensions(Ctx(ctx): Ctx) -> Answer {
    authorize(&ctx, compute::EXTENSIONS, &Target::own(&ctx))?;
    Ok(Json(json!({ "extensions": EXTENSIONS.iter().map(extension).collect::<Vec<_>>() })))
}

/// `GET /compute/v2.1/extensions/{alias}`
pub async fn extension_show(Ctx(ctx): Ctx, Path(alias): Path<String>) -> Answer {
    authorize(&ctx, compute::EXTENSIONS, &Target::own(&ctx))?;
    match EXTENSIONS.iter().find(|(_, known)| *known == alias) {
        Some(found) => Ok(Json(json!({ "extension": extension(found) }))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")),
    }
}
