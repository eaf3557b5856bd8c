//! The version documents of the volume API, and the list of its extensions, which are all part of it by now.

use super::Answer;
use crate::App;
use crate::auth::Ctx;
use crate::microversion::{VOLUME_MAX, VOLUME_MIN};
use arcus_types::policy::{Target, authorize, volume};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn document(app: &App) -> Json<Value> {
    Json(json!({ "versions": [{
        "id": "v3.0",
        "status": "CURRENT",
        "version": VOLUME_MAX.to_string(),
        "min_version": VOLUME_MIN.to_string(),
        "updated": "2023-08-31T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{}/volume/v3/", app.endpoint.url) }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.volume+json;version=3" }],
    }] }))
}

/// `GET /volume`: a choice of versions, though there is one.
pub async fn list(State(app): State<App>) -> (StatusCode, Json<Value>) {
    (StatusCode::MULTIPLE_CHOICES, document(&app))
}

/// `GET /volume/v3`
pub async fn show(State(app): State<App>) -> Json<Value> {
    document(&app)
}

/// The extensions of old that are served: name, alias.
const EXTENSIONS: &[(&str, &str)] = &[
    ("AdminActions", "os-admin-actions"),
    ("AvailabilityZones", "os-availability-zone"),
    ("Capabilities", "capabilities"),
    ("ExtendedServices", "os-extended-services"),
    ("ExtendedSnapshotAttributes", "os-extended-snapshot-attributes"),
    ("Hosts", "os-hosts"),
    ("QosSpecsManage", "qos-specs"),
    ("QuotaClasses", "os-quota-class-sets"),
    ("Quotas", "os-quota-sets"),
    ("SchedulerStats", "scheduler-stats"),
    ("Services", "os-services"),
    ("SnapshotActions", "os-snapshot-actions"),
    ("TypesExtraSpecs", "os-types-extra-specs"),
    ("TypesManage", "os-types-manage"),
    ("UsedLimits", "os-used-limits"),
    ("VolumeActions", "os-volume-actions"),
    ("VolumeHostAttribute", "os-vol-host-attr"),
    ("VolumeImageMetadata", "os-vol-image-meta"),
    ("VolumeMigStatusAttribute", "os-vol-mig-status-attr"),
    ("VolumeTenantAttribute", "os-vol-tenant-attr"),
    ("VolumeTransfer", "os-volume-transfer"),
    ("VolumeTypeAccess", "os-volume-type-access"),
];

/// `GET /volume/v3/extensions`
pub async fn extensions(Ctx(ctx): Ctx) -> Answer {
    authorize(&ctx, volume::EXTENSIONS, &Target::own(&ctx))?;
    let extension = |(name, alias): &(&str, &str)| {
        json!({
            "name": name,
            "alias": alias,
            "updated": "2014-12-03T00:00:00Z",
            "description": format!("{name}, part of the API."),
            "links": [],
        })
    };
    Ok(Json(json!({ "extensions": EXTENSIONS.iter().map(extension).collect::<Vec<_>>() })))
}
