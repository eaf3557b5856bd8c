//! Limits and quotas.

use super::Answer;
use super::fields::Fields;
use super::links::{known, parsed};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_store::{Quota, QuotaResource};
use arcus_types::{OpCtx, ProjectId, UserId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

const QUOTA_MAX: i64 = 0x7FFF_FFFF;

fn quota(quotas: &[Quota], resource: QuotaResource) -> Quota {
    let found = quotas.iter().find(|q| q.resource == resource).copied();
    found.unwrap_or(Quota { resource, cap: resource.default_cap(), used: 0 })
}

/// `GET /limits`
pub async fn limits(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    if version.at_least(75) {
        known(&query, &["tenant_id"])?;
    }
    let project: Option<ProjectId> = parsed(&query, "tenant_id")?;
    let quotas = app.engine.limits(&ctx, project).await?;
    let get = |resource| quota(&quotas, resource);
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
    put("maxTotalInstances", json!(get(QuotaResource::Instances).cap));
    put("maxTotalCores", json!(get(QuotaResource::Cores).cap));
    put("maxTotalRAMSize", json!(get(QuotaResource::RamMib).cap));
    put("maxTotalKeypairs", json!(get(QuotaResource::KeyPairs).cap));
    put("maxServerMeta", json!(get(QuotaResource::MetadataItems).cap));
    put("maxServerGroups", json!(get(QuotaResource::ServerGroups).cap));
    put("maxServerGroupMembers", json!(get(QuotaResource::ServerGroupMembers).cap));
    put("totalInstancesUsed", json!(get(QuotaResource::Instances).used));
    put("totalCoresUsed", json!(get(QuotaResource::Cores).used));
    put("totalRAMUsed", json!(get(QuotaResource::RamMib).used));
    put("totalServerGroupsUsed", json!(get(QuotaResource::ServerGroups).used));
    if !version.at_least(36) {
        put("maxTotalFloatingIps", json!(get(QuotaResource::FloatingIps).cap));
        put("maxSecurityGroups", json!(get(QuotaResource::SecurityGroups).cap));
        put("maxSecurityGroupRules", json!(get(QuotaResource::SecurityGroupRules).cap));
        put("totalFloatingIpsUsed", json!(get(QuotaResource::FloatingIps).used));
        put("totalSecurityGroupsUsed", json!(get(QuotaResource::SecurityGroups).used));
    }
    if !version.at_least(39) {
        put("maxImageMeta", json!(get(QuotaResource::MetadataItems).cap));
    }
    if !version.at_least(57) {
        put("maxPersonality", json!(get(QuotaResource::InjectedFiles).cap));
        put("maxPersonalitySize", json!(get(QuotaResource::InjectedFileBytes).cap));
    }
    Ok(axum::Json(json!({ "limits": { "rate": [], "absolute": out } })))
}

/// What a quota set holds at a microversion: the name here and the resource.
fn entries(version: Microversion) -> Vec<(&'static str, QuotaResource)> {
    let mut all = vec![
        ("instances", QuotaResource::Instances),
        ("cores", QuotaResource::Cores),
        ("ram", QuotaResource::RamMib),
        ("server_groups", QuotaResource::ServerGroups),
        ("server_group_members", QuotaResource::ServerGroupMembers),
        ("metadata_items", QuotaResource::MetadataItems),
        ("key_pairs", QuotaResource::KeyPairs),
    ];
    if !version.at_least(36) {
        all.push(("floating_ips", QuotaResource::FloatingIps));
        all.push(("fixed_ips", QuotaResource::FixedIps));
        all.push(("security_groups", QuotaResource::SecurityGroups));
        all.push(("security_group_rules", QuotaResource::SecurityGroupRules));
    }
    if !version.at_least(57) {
        all.push(("injected_files", QuotaResource::InjectedFiles));
        all.push(("injected_file_content_bytes", QuotaResource::InjectedFileBytes));
        all.push(("injected_file_path_bytes", QuotaResource::InjectedFilePathBytes));
    }
    all
}

fn shown(quotas: &[Quota], version: Microversion, detail: bool) -> Map<String, Value> {
    entries(version)
        .into_iter()
        .map(|(name, resource)| {
            let Quota { cap, used, .. } = quota(quotas, resource);
            let value = if detail { json!({ "limit": cap, "in_use": used, "reserved": 0 }) } else { json!(cap) };
            (name.to_owned(), value)
        })
        .collect()
}

/// The user whose quotas inside the project are meant, if not the project's own.
fn user(query: &Pairs, version: Microversion) -> Result<Option<UserId>, ApiError> {
    if version.at_least(75) {
        known(query, &["user_id"])?;
    }
    parsed(query, "user_id")
}

/// `GET /os-quota-sets/{project_id}`
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProjectId>,
    query: Pairs,
) -> Answer {
    show_as(&app, &ctx, version, id, &query, false).await
}

/// `GET /os-quota-sets/{project_id}/detail`
pub async fn detail(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProjectId>,
    query: Pairs,
) -> Answer {
    show_as(&app, &ctx, version, id, &query, true).await
}

async fn show_as(app: &App, ctx: &OpCtx, version: Microversion, id: ProjectId, query: &Pairs, detail: bool) -> Answer {
    let quotas = match user(query, version)? {
        Some(user) => app.engine.user_quota_show(ctx, id, user).await?,
        None => app.engine.quota_show(ctx, id).await?,
    };
    let mut out = shown(&quotas, version, detail);
    out.insert("id".into(), json!(id));
    Ok(axum::Json(json!({ "quota_set": out })))
}

/// `GET /os-quota-sets/{project_id}/defaults`
pub async fn defaults(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ProjectId>) -> Answer {
    let mut out = shown(&app.engine.quota_defaults(&ctx).await?, version, false);
    out.insert("id".into(), json!(id));
    Ok(axum::Json(json!({ "quota_set": out })))
}

/// `PUT /os-quota-sets/{project_id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProjectId>,
    query: Pairs,
    Json(body): Json<Value>,
) -> Answer {
    let user = user(&query, version)?;
    let mut fields = Fields::of(&body, "quota_set", &[])?;
    let force = fields.boolean("force")?.unwrap_or(false);
    // Old clients repeat the project here.
    fields.raw("tenant_id");
    let caps = caps(&mut fields, version)?;
    fields.end()?;
    let quotas = match user {
        Some(user) => app.engine.user_quota_update(&ctx, id, user, &caps, force).await?,
        None => app.engine.quota_update(&ctx, id, &caps, force).await?,
    };
    Ok(axum::Json(json!({ "quota_set": shown(&quotas, version, false) })))
}

/// The quotas that a body names.
fn caps(fields: &mut Fields<'_>, version: Microversion) -> Result<Vec<(QuotaResource, i64)>, ApiError> {
    let mut caps = Vec::new();
    for (name, resource) in entries(version) {
        if let Some(cap) = fields.integer(name, -1, QUOTA_MAX)? {
            caps.push((resource, cap));
        }
    }
    Ok(caps)
}

/// A quota class as it is shown; from 2.50 on with the quotas of server groups.
pub fn class(quotas: &[Quota], version: Microversion) -> Map<String, Value> {
    let mut out = shown(quotas, version, false);
    if !version.at_least(50) {
        out.retain(|name, _| !name.starts_with("server_group"));
    }
    // From 2.50 on, the network's quotas are not here any more.
    if version.at_least(50) {
        out.retain(|name, _| !matches!(name.as_str(), "floating_ips" | "fixed_ips") && !name.starts_with("security_"));
    }
    out
}

/// The quotas that the body of a class names.
pub fn class_caps(body: &Value, version: Microversion) -> Result<Vec<(QuotaResource, i64)>, ApiError> {
    let mut fields = Fields::of(body, "quota_class_set", &[])?;
    let caps = caps(&mut fields, version)?;
    fields.end()?;
    Ok(caps)
}

/// `DELETE /os-quota-sets/{project_id}`
pub async fn reset(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<ProjectId>,
    query: Pairs,
) -> Result<StatusCode, ApiError> {
    match user(&query, version)? {
        Some(user) => app.engine.user_quota_reset(&ctx, id, user).await?,
        None => app.engine.quota_reset(&ctx, id).await?,
    }
    Ok(StatusCode::ACCEPTED)
}
