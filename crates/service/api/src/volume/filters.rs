//! Which attributes lists can be filtered by; from 3.33 on.

use super::{Answer, since};
use crate::auth::Ctx;
use crate::body::Pairs;
use crate::microversion::Microversion;
use arcus_types::policy::{Target, authorize, volume as policy};
use serde_json::{Value, json};

/// The filters of each kind of resource, `~` being a part of the text.
const FILTERS: &[(&str, &[&str])] = &[
    (
        "volume",
        &["name", "name~", "status", "metadata", "bootable", "availability_zone", "volume_type", "host", "size"],
    ),
    ("snapshot", &["name", "name~", "status", "volume_id", "metadata"]),
    ("attachment", &["volume_id", "status", "instance_id"]),
    ("message", &[]),
    ("pool", &["name"]),
];

/// `GET /resource_filters?resource=`
pub async fn list(Ctx(ctx): Ctx, version: Microversion, query: Pairs) -> Answer {
    since(version, 33)?;
    authorize(&ctx, policy::RESOURCE_FILTERS, &Target::own(&ctx))?;
    let wanted = FILTERS.iter().filter(|(resource, _)| query.first("resource").is_none_or(|only| only == *resource));
    let list: Vec<Value> = wanted.map(|(name, filters)| json!({ "resource": name, "filters": filters })).collect();
    Ok(axum::Json(json!({ "resource_filters": list })))
}
