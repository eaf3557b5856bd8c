//! Which attributes lists can be filtered by; from 3.33 on.

use super::{Answer, since};
use crate::ApiError;
use crate::auth::Ctx;
use crate::body::Pairs;
use crate::microversion::Microversion;
use arcus_types::OpCtx;
use arcus_types::policy::{Target, authorize, volume as policy};
use serde_json::{Value, json};

/// The filters of each kind of resource, `~` being a part of the text.
const FILTERS: &[(&str, &[&str])] = &[
    (
        "volume",
        &[
            "name",
            "name~",
            "description",
            "status",
            "metadata",
            "glance_metadata",
            "bootable",
            "multiattach",
            "availability_zone",
            "volume_type",
            "volume_type_id",
            "group_id",
            "user_id",
            "size",
            "created_at",
            "updated_at",
            "consumes_quota",
        ],
    ),
    (
        "snapshot",
        &[
            "name",
            "name~",
            "description",
            "status",
            "volume_id",
            "volume_size",
            "metadata",
            "created_at",
            "updated_at",
            "consumes_quota",
        ],
    ),
    ("group", &["name", "name~", "description", "status", "group_type_id", "availability_zone"]),
    ("group_snapshot", &["name", "name~", "description", "status", "group_id", "group_type_id"]),
    ("attachment", &["volume_id", "status", "instance_id", "attach_status"]),
    ("message", &["resource_uuid", "resource_type", "event_id", "message_level"]),
    ("pool", &["name", "volume_type"]),
    ("volume_type", &["extra_specs", "is_public", "name", "description"]),
];
/// What a query holds besides filters, and the old names of filters.
const BESIDE: &[&str] = &[
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "all_projects",
    "with_count",
    "list_volume",
    "detail",
    "id",
    "display_name",
    "display_name~",
    "display_description",
    "instance_uuid",
    "project_id",
    "tenant_id",
    "host",
];

/// Refuses, from 3.31 on, filters that a list does not have; administrators may name what they like, except for pools.
///
/// # Errors
/// 400.
pub fn admitted(ctx: &OpCtx, version: Microversion, query: &Pairs, resource: &str) -> Result<(), ApiError> {
    if !version.at_least(31) || (ctx.is_admin() && resource != "pool") {
        return Ok(());
    }
    let known = FILTERS.iter().find(|(name, _)| *name == resource).map(|(_, filters)| *filters).unwrap_or_default();
    let strange = |key: &&String| !BESIDE.contains(&key.as_str()) && !known.contains(&key.as_str());
    match query.0.iter().map(|(key, _)| key).find(strange) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(64).collect();
            Err(ApiError::bad_request(format!("Invalid filters {key} are found in query options.")))
        }
    }
}

/// `GET /resource_filters?resource=`
pub async fn list(Ctx(ctx): Ctx, version: Microversion, query: Pairs) -> Answer {
    since(version, 33)?;
    authorize(&ctx, policy::RESOURCE_FILTERS, &Target::own(&ctx))?;
    let wanted = FILTERS.iter().filter(|(resource, _)| query.first("resource").is_none_or(|only| only == *resource));
    let list: Vec<Value> = wanted.map(|(name, filters)| json!({ "resource": name, "filters": filters })).collect();
    Ok(axum::Json(json!({ "resource_filters": list })))
}
