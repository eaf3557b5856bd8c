//! The volume API: Cinder v3 with microversions, as conversions at the edge.
//!
//! Clients write the project's id after `/volume/v3`, or leave it out, as they like. It is taken out of the path before the
//! request is routed ([`project_word`]), so that routes are declared once, without it.

mod attachments;
mod clusters;
mod filters;
mod group_types;
mod groups;
mod links;
mod messages;
mod metadata;
mod page;
mod pools;
mod qos;
mod quotas;
mod snapshots;
mod transfers;
mod types;
mod uploads;
mod versions;
mod volumes;

use crate::auth::MaybeCtx;
use crate::microversion::Microversion;
use crate::{ApiError, Route};
use arcus_types::ProjectId;
use arcus_types::policy::volume as policy;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use serde_json::Value;

/// What most handlers answer.
type Answer = Result<axum::Json<Value>, ApiError>;

/// Refuses a call that came with `3.minor` when the request speaks an older microversion.
fn since(version: Microversion, minor: u16) -> Result<(), ApiError> {
    if version.at_least(minor) {
        return Ok(());
    }
    let message = format!("This call came with microversion 3.{minor}; the request speaks {version}.");
    Err(ApiError::new(StatusCode::NOT_FOUND, message))
}

/// Every route of the volume API.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/volume", policy::VERSIONS, versions::list),
        Route::get("/volume/", policy::VERSIONS, versions::list),
        Route::get("/volume/v3", policy::VERSIONS, versions::show),
        Route::get("/volume/v3/", policy::VERSIONS, versions::show),
        Route::get("/volume/v3/extensions", policy::EXTENSIONS, versions::extensions),
        Route::get("/volume/v3/resource_filters", policy::RESOURCE_FILTERS, filters::list),
    ];
    routes.extend(volume_routes());
    routes.extend(snapshot_routes());
    routes.extend(attachment_routes());
    routes.extend(type_routes());
    routes.extend(quota_routes());
    routes.extend(pool_routes());
    routes.extend(transfer_routes());
    routes.extend(group_type_routes());
    routes.extend(group_routes());
    routes.extend(cluster_routes());
    routes
}

fn group_type_routes() -> Vec<Route> {
    use policy::{GROUP_TYPE_READ, GROUP_TYPE_SPECS, GROUP_TYPE_WRITE};
    const TYPE: &str = "/volume/v3/group_types/{id}";
    const SPECS: &str = "/volume/v3/group_types/{id}/group_specs";
    const SPEC: &str = "/volume/v3/group_types/{id}/group_specs/{key}";
    vec![
        Route::get("/volume/v3/group_types", GROUP_TYPE_READ, group_types::list),
        Route::post("/volume/v3/group_types", GROUP_TYPE_WRITE, group_types::create),
        Route::get(TYPE, GROUP_TYPE_READ, group_types::show),
        Route::put(TYPE, GROUP_TYPE_WRITE, group_types::update),
        Route::delete(TYPE, GROUP_TYPE_WRITE, group_types::delete),
        Route::get(SPECS, GROUP_TYPE_SPECS, group_types::specs),
        Route::post(SPECS, GROUP_TYPE_WRITE, group_types::specs_set),
        Route::get(SPEC, GROUP_TYPE_SPECS, group_types::spec),
        Route::put(SPEC, GROUP_TYPE_WRITE, group_types::spec_set),
        Route::delete(SPEC, GROUP_TYPE_WRITE, group_types::spec_delete),
    ]
}

fn group_routes() -> Vec<Route> {
    use groups::snapshots;
    use policy::{GROUP_SNAPSHOT_CREATE, GROUP_SNAPSHOT_DELETE, GROUP_SNAPSHOT_READ, GROUP_SNAPSHOT_RESET_STATUS};
    const GROUP: &str = "/volume/v3/groups/{id}";
    const SNAPSHOT: &str = "/volume/v3/group_snapshots/{id}";
    vec![
        Route::get("/volume/v3/groups", policy::GROUP_READ, groups::list),
        Route::post("/volume/v3/groups", policy::GROUP_CREATE, groups::create),
        Route::get("/volume/v3/groups/detail", policy::GROUP_READ, groups::detail),
        Route::post("/volume/v3/groups/action", policy::GROUP_CREATE, groups::create_from),
        Route::get(GROUP, policy::GROUP_READ, groups::show),
        Route::put(GROUP, policy::GROUP_UPDATE, groups::update),
        Route::post("/volume/v3/groups/{id}/action", policy::GROUP_ACTION, groups::action),
        Route::get("/volume/v3/group_snapshots", GROUP_SNAPSHOT_READ, snapshots::list),
        Route::post("/volume/v3/group_snapshots", GROUP_SNAPSHOT_CREATE, snapshots::create),
        Route::get("/volume/v3/group_snapshots/detail", GROUP_SNAPSHOT_READ, snapshots::detail),
        Route::get(SNAPSHOT, GROUP_SNAPSHOT_READ, snapshots::show),
        Route::delete(SNAPSHOT, GROUP_SNAPSHOT_DELETE, snapshots::delete),
        Route::post("/volume/v3/group_snapshots/{id}/action", GROUP_SNAPSHOT_RESET_STATUS, snapshots::action),
    ]
}

fn cluster_routes() -> Vec<Route> {
    use policy::{CLUSTER_READ, CLUSTER_WRITE, MANAGEABLE_READ, MANAGEABLE_WRITE};
    vec![
        Route::get("/volume/v3/clusters", CLUSTER_READ, clusters::list),
        Route::get("/volume/v3/clusters/detail", CLUSTER_READ, clusters::list),
        Route::get("/volume/v3/clusters/{name}", CLUSTER_READ, clusters::show),
        Route::put("/volume/v3/clusters/{name}", CLUSTER_WRITE, clusters::update),
        Route::post("/volume/v3/workers/cleanup", policy::WORKER_CLEANUP, clusters::cleanup),
        Route::get("/volume/v3/manageable_volumes", MANAGEABLE_READ, clusters::volumes::list),
        Route::get("/volume/v3/manageable_volumes/detail", MANAGEABLE_READ, clusters::volumes::list),
        Route::post("/volume/v3/manageable_volumes", MANAGEABLE_WRITE, clusters::volumes::create),
        Route::get("/volume/v3/manageable_snapshots", MANAGEABLE_READ, clusters::snapshots::list),
        Route::get("/volume/v3/manageable_snapshots/detail", MANAGEABLE_READ, clusters::snapshots::list),
        Route::post("/volume/v3/manageable_snapshots", MANAGEABLE_WRITE, clusters::snapshots::create),
    ]
}

fn type_routes() -> Vec<Route> {
    use policy::{QOS_READ, QOS_WRITE, TYPE_ACCESS, TYPE_DEFAULT, TYPE_READ, TYPE_WRITE};
    const TYPE: &str = "/volume/v3/types/{id}";
    const SPECS: &str = "/volume/v3/types/{id}/extra_specs";
    const SPEC: &str = "/volume/v3/types/{id}/extra_specs/{key}";
    const DEFAULT: &str = "/volume/v3/default-types/{project_id}";
    const QOS: &str = "/volume/v3/qos-specs/{id}";
    vec![
        Route::get("/volume/v3/types", TYPE_READ, types::list),
        Route::post("/volume/v3/types", TYPE_WRITE, types::create),
        Route::get(TYPE, TYPE_READ, types::show),
        Route::put(TYPE, TYPE_WRITE, types::update),
        Route::delete(TYPE, TYPE_WRITE, types::delete),
        Route::get(SPECS, TYPE_READ, types::extra_specs),
        Route::post(SPECS, TYPE_WRITE, types::extra_specs_set),
        Route::get(SPEC, TYPE_READ, types::extra_spec),
        Route::put(SPEC, TYPE_WRITE, types::extra_spec_set),
        Route::delete(SPEC, TYPE_WRITE, types::extra_spec_delete),
        Route::get("/volume/v3/types/{id}/os-volume-type-access", TYPE_ACCESS, types::access_list),
        Route::post("/volume/v3/types/{id}/action", TYPE_ACCESS, types::action),
        Route::get("/volume/v3/default-types", TYPE_DEFAULT, types::defaults),
        Route::get(DEFAULT, TYPE_DEFAULT, types::default_show),
        Route::put(DEFAULT, TYPE_DEFAULT, types::default_set),
        Route::delete(DEFAULT, TYPE_DEFAULT, types::default_unset),
        Route::get("/volume/v3/qos-specs", QOS_READ, qos::list),
        Route::post("/volume/v3/qos-specs", QOS_WRITE, qos::create),
        Route::get(QOS, QOS_READ, qos::show),
        Route::put(QOS, QOS_WRITE, qos::update),
        Route::delete(QOS, QOS_WRITE, qos::delete),
        Route::put("/volume/v3/qos-specs/{id}/delete_keys", QOS_WRITE, qos::keys_delete),
        Route::get("/volume/v3/qos-specs/{id}/associations", QOS_READ, qos::associations),
        Route::get("/volume/v3/qos-specs/{id}/associate", QOS_WRITE, qos::associate),
        Route::get("/volume/v3/qos-specs/{id}/disassociate", QOS_WRITE, qos::disassociate),
        Route::get("/volume/v3/qos-specs/{id}/disassociate_all", QOS_WRITE, qos::disassociate_all),
    ]
}

fn quota_routes() -> Vec<Route> {
    const QUOTA: &str = "/volume/v3/os-quota-sets/{project_id}";
    const CLASS: &str = "/volume/v3/os-quota-class-sets/{class}";
    vec![
        Route::get("/volume/v3/limits", policy::LIMITS, quotas::limits),
        Route::get(QUOTA, policy::QUOTA_SHOW, quotas::show),
        Route::put(QUOTA, policy::QUOTA_WRITE, quotas::update),
        Route::delete(QUOTA, policy::QUOTA_WRITE, quotas::reset),
        Route::get("/volume/v3/os-quota-sets/{project_id}/defaults", policy::QUOTA_SHOW, quotas::defaults),
        Route::get(CLASS, policy::QUOTA_CLASS_SHOW, quotas::class_show),
        Route::put(CLASS, policy::QUOTA_CLASS_WRITE, quotas::class_update),
        Route::get("/volume/v3/messages", policy::MESSAGE_READ, messages::list),
        Route::get("/volume/v3/messages/{id}", policy::MESSAGE_READ, messages::show),
        Route::delete("/volume/v3/messages/{id}", policy::MESSAGE_DELETE, messages::delete),
    ]
}

fn pool_routes() -> Vec<Route> {
    vec![
        Route::get("/volume/v3/os-availability-zone", policy::ZONE_LIST, pools::zones),
        Route::get("/volume/v3/os-services", policy::SERVICE_READ, pools::services),
        Route::put("/volume/v3/os-services/{verb}", policy::SERVICE_WRITE, pools::service_update),
        Route::get("/volume/v3/scheduler-stats/get_pools", policy::POOL_READ, pools::pools),
        Route::get("/volume/v3/capabilities/{host}", policy::POOL_READ, pools::capabilities_show),
        Route::get("/volume/v3/os-hosts", policy::HOST_READ, pools::hosts),
        Route::get("/volume/v3/os-hosts/{host}", policy::HOST_READ, pools::host_show),
    ]
}

fn transfer_routes() -> Vec<Route> {
    use policy::{TRANSFER_ACCEPT, TRANSFER_CREATE, TRANSFER_DELETE, TRANSFER_READ};
    const OLD: &str = "/volume/v3/os-volume-transfer/{id}";
    const NEW: &str = "/volume/v3/volume-transfers/{id}";
    vec![
        Route::get("/volume/v3/os-volume-transfer", TRANSFER_READ, transfers::list),
        Route::post("/volume/v3/os-volume-transfer", TRANSFER_CREATE, transfers::create),
        Route::get("/volume/v3/os-volume-transfer/detail", TRANSFER_READ, transfers::detail),
        Route::get(OLD, TRANSFER_READ, transfers::show),
        Route::delete(OLD, TRANSFER_DELETE, transfers::delete),
        Route::post("/volume/v3/os-volume-transfer/{id}/accept", TRANSFER_ACCEPT, transfers::accept),
        Route::get("/volume/v3/volume-transfers", TRANSFER_READ, transfers::new_list),
        Route::post("/volume/v3/volume-transfers", TRANSFER_CREATE, transfers::new_create),
        Route::get("/volume/v3/volume-transfers/detail", TRANSFER_READ, transfers::new_detail),
        Route::get(NEW, TRANSFER_READ, transfers::new_show),
        Route::delete(NEW, TRANSFER_DELETE, transfers::delete),
        Route::post("/volume/v3/volume-transfers/{id}/accept", TRANSFER_ACCEPT, transfers::new_accept),
    ]
}

fn volume_routes() -> Vec<Route> {
    use metadata::of_volumes as metadata;
    const VOLUME: &str = "/volume/v3/volumes/{id}";
    const METADATA: &str = "/volume/v3/volumes/{id}/metadata";
    const ITEM: &str = "/volume/v3/volumes/{id}/metadata/{key}";
    vec![
        Route::get("/volume/v3/volumes", policy::VOLUME_LIST, volumes::list),
        Route::post("/volume/v3/volumes", policy::VOLUME_CREATE, volumes::create),
        Route::get("/volume/v3/volumes/detail", policy::VOLUME_LIST, volumes::detail),
        Route::get("/volume/v3/volumes/summary", policy::VOLUME_LIST, volumes::summary),
        Route::get(VOLUME, policy::VOLUME_SHOW, volumes::show),
        Route::put(VOLUME, policy::VOLUME_UPDATE, volumes::update),
        Route::delete(VOLUME, policy::VOLUME_DELETE, volumes::delete),
        Route::post("/volume/v3/volumes/{id}/action", policy::VOLUME_ACTION, volumes::actions::action),
        Route::get(METADATA, policy::VOLUME_METADATA_READ, metadata::list),
        Route::post(METADATA, policy::VOLUME_METADATA_WRITE, metadata::update),
        Route::put(METADATA, policy::VOLUME_METADATA_WRITE, metadata::replace),
        Route::get(ITEM, policy::VOLUME_METADATA_READ, metadata::item),
        Route::put(ITEM, policy::VOLUME_METADATA_WRITE, metadata::item_set),
        Route::delete(ITEM, policy::VOLUME_METADATA_WRITE, metadata::item_delete),
    ]
}

fn snapshot_routes() -> Vec<Route> {
    use metadata::of_snapshots as metadata;
    const SNAPSHOT: &str = "/volume/v3/snapshots/{id}";
    const METADATA: &str = "/volume/v3/snapshots/{id}/metadata";
    const ITEM: &str = "/volume/v3/snapshots/{id}/metadata/{key}";
    vec![
        Route::get("/volume/v3/snapshots", policy::SNAPSHOT_LIST, snapshots::list),
        Route::post("/volume/v3/snapshots", policy::SNAPSHOT_CREATE, snapshots::create),
        Route::get("/volume/v3/snapshots/detail", policy::SNAPSHOT_LIST, snapshots::detail),
        Route::get(SNAPSHOT, policy::SNAPSHOT_SHOW, snapshots::show),
        Route::put(SNAPSHOT, policy::SNAPSHOT_UPDATE, snapshots::update),
        Route::delete(SNAPSHOT, policy::SNAPSHOT_DELETE, snapshots::delete),
        Route::post("/volume/v3/snapshots/{id}/action", policy::SNAPSHOT_ACTION, snapshots::action),
        Route::get(METADATA, policy::SNAPSHOT_METADATA_READ, metadata::list),
        Route::post(METADATA, policy::SNAPSHOT_METADATA_WRITE, metadata::update),
        Route::put(METADATA, policy::SNAPSHOT_METADATA_WRITE, metadata::replace),
        Route::get(ITEM, policy::SNAPSHOT_METADATA_READ, metadata::item),
        Route::put(ITEM, policy::SNAPSHOT_METADATA_WRITE, metadata::item_set),
        Route::delete(ITEM, policy::SNAPSHOT_METADATA_WRITE, metadata::item_delete),
    ]
}

fn attachment_routes() -> Vec<Route> {
    const ATTACHMENT: &str = "/volume/v3/attachments/{id}";
    vec![
        Route::get("/volume/v3/attachments", policy::ATTACHMENT_LIST, attachments::list),
        Route::get("/volume/v3/attachments/summary", policy::ATTACHMENT_LIST, attachments::list),
        Route::get("/volume/v3/attachments/detail", policy::ATTACHMENT_LIST, attachments::detail),
        Route::post("/volume/v3/attachments", policy::ATTACHMENT_WRITE, attachments::create),
        Route::get(ATTACHMENT, policy::ATTACHMENT_SHOW, attachments::show),
        Route::put(ATTACHMENT, policy::ATTACHMENT_WRITE, attachments::update),
        Route::delete(ATTACHMENT, policy::ATTACHMENT_WRITE, attachments::delete),
        Route::post("/volume/v3/attachments/{id}/action", policy::ATTACHMENT_WRITE, attachments::action),
    ]
}

/// The project that a path of the volume API names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathProject(ProjectId);

impl PathProject {
    /// Whether the caller may use this path: the project in it must be the one that the token is for.
    ///
    /// # Errors
    /// 404, which tells nothing of the project.
    pub fn admits(self, ctx: &MaybeCtx) -> Result<(), ApiError> {
        if ctx.acts_in(self.0) {
            return Ok(());
        }
        let message = "The project in the path is not the one that the token is for.";
        Err(ApiError::new(StatusCode::NOT_FOUND, message))
    }
}

/// Takes the project out of a path of the volume API and keeps it with the request.
pub async fn project_word(mut request: Request) -> Request {
    let Some((project, rest)) = split(request.uri().path()) else { return request };
    let path_and_query = match request.uri().query() {
        Some(query) => format!("/volume/v3/{rest}?{query}"),
        None => format!("/volume/v3/{rest}"),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = path_and_query.parse().ok();
    // The text was a valid path before the word was cut out of it, and is one after it.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(PathProject(project));
    }
    request
}

/// The project in a path of the volume API, and what follows it.
fn split(path: &str) -> Option<(ProjectId, &str)> {
    let rest = path.strip_prefix("/volume/v3/")?;
    let (word, rest) = rest.split_once('/').unwrap_or((rest, ""));
    Some((word.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    async fn routed(uri: &str) -> (String, Option<PathProject>) {
        let request = project_word(Request::builder().uri(uri).body(Body::empty()).unwrap()).await;
        (request.uri().to_string(), request.extensions().get().copied())
    }

    #[tokio::test]
    async fn the_project_is_taken_out_of_the_path() {
        let project = ProjectId::new();
        let kept = Some(PathProject(project));
        let uri = format!("/volume/v3/{project}/volumes/detail?limit=1&name=%41");
        assert_eq!(routed(&uri).await, ("/volume/v3/volumes/detail?limit=1&name=%41".into(), kept));
        assert_eq!(routed(&format!("/volume/v3/{project}")).await, ("/volume/v3/".into(), kept));
        for same in ["/volume/v3/volumes/detail", "/volume/v3/", "/volume", &format!("/compute/v2.1/{project}/x")] {
            assert_eq!(routed(same).await, (same.to_owned(), None));
        }
    }
}
