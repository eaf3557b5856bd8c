//! Security groups as the compute API has shown them since before there was a network API; gone from 2.36 on.

use super::fields::Fields;
use super::{Answer, before};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_engine::security_groups::SecurityGroupNew;
use arcus_store::{Listing, SecurityGroup, SecurityGroupRule};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::{OpCtx, ProjectId, SecurityGroupId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The groups that rules let in: whose they are, and their names.
pub type Remotes = HashMap<SecurityGroupId, (ProjectId, String)>;

/// What is to be told of the groups that these rules let in.
pub async fn remotes(app: &App, ctx: &OpCtx, rules: &[SecurityGroupRule]) -> Result<Remotes, ApiError> {
    let mut found = Remotes::new();
    for id in rules.iter().filter_map(|r| r.remote_group_id) {
        if let Entry::Vacant(place) = found.entry(id)
            && let Ok(group) = app.engine.security_group_get(ctx, id).await
        {
            place.insert((group.project_id, group.name));
        }
    }
    Ok(found)
}

async fn shown(app: &App, ctx: &OpCtx, found: &SecurityGroup) -> Result<Value, ApiError> {
    Ok(group(found, &remotes(app, ctx, &found.rules).await?))
}

/// A group; only rules that let packets in have a place here.
pub fn group(group: &SecurityGroup, remotes: &Remotes) -> Value {
    let rules: Vec<Value> =
        group.rules.iter().filter(|r| r.direction == Direction::Ingress).map(|r| rule(r, remotes)).collect();
    json!({
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": rules,
    })
}

/// A rule.
pub fn rule(rule: &SecurityGroupRule, remotes: &Remotes) -> Value {
    let everywhere = match rule.ethertype {
        EtherType::V4 => "0.0.0.0/0",
        EtherType::V6 => "::/0",
    };
    let range = match (rule.remote_cidr, rule.remote_group_id) {
        (Some(cidr), _) => json!({ "cidr": cidr }),
        (None, Some(_)) => json!({}),
        (None, None) => json!({ "cidr": everywhere }),
    };
    let remote = rule.remote_group_id.and_then(|id| remotes.get(&id));
    json!({
        "id": rule.id,
        "parent_group_id": rule.security_group_id,
        "ip_protocol": rule.protocol,
        "from_port": rule.port_min.map_or(-1, i64::from),
        "to_port": rule.port_max.map_or(-1, i64::from),
        "ip_range": range,
        "group": remote.map_or(json!({}), |(project, name)| json!({ "tenant_id": project, "name": name })),
    })
}

/// `GET /os-security-groups`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    before(version, 36)?;
    let mut listing = Listing::default();
    let all = ctx.is_admin() && query.first("all_tenants").is_some();
    if !all {
        listing.viewer = ctx.project_id();
    }
    let page = app.engine.security_group_list(&ctx, listing).await?;
    // Groups let in others of their project, so the page has nearly all that rules name.
    let known: Remotes = page.rows.iter().map(|g| (g.id, (g.project_id, g.name.clone()))).collect();
    let own = page.rows.iter().filter(|g| all || Some(g.project_id) == ctx.project_id());
    let list: Vec<Value> = own.map(|g| group(g, &known)).collect();
    Ok(axum::Json(json!({ "security_groups": list })))
}

/// `GET /os-security-groups/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<SecurityGroupId>) -> Answer {
    before(version, 36)?;
    let found = app.engine.security_group_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "security_group": shown(&app, &ctx, &found).await? })))
}

fn name_and_description(body: &Value) -> Result<(String, String), ApiError> {
    let mut fields = Fields::of(body, "security_group", &[])?;
    let name = fields.text_required("name", 1, 255)?.to_owned();
    let description = fields.text("description", 0, 255)?.unwrap_or_default().to_owned();
    fields.end()?;
    if name.trim().is_empty() {
        return Err(ApiError::bad_request("Security group name cannot be empty."));
    }
    Ok((name, description))
}

/// `POST /os-security-groups`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Answer {
    before(version, 36)?;
    let (name, description) = name_and_description(&body)?;
    let wish = SecurityGroupNew { name, description, ..SecurityGroupNew::default() };
    let made = app.engine.security_groups_create(&ctx, vec![wish]).await?;
    match made.first() {
        Some(made) => Ok(axum::Json(json!({ "security_group": group(made, &Remotes::new()) }))),
        None => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "No security group was made.")),
    }
}

/// `PUT /os-security-groups/{id}`
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<SecurityGroupId>,
    Json(body): Json<Value>,
) -> Answer {
    before(version, 36)?;
    let (name, description) = name_and_description(&body)?;
    let changed = app.engine.security_group_update(&ctx, id, Some(name), Some(description), None).await;
    let changed = changed.map_err(old_error)?;
    Ok(axum::Json(json!({ "security_group": shown(&app, &ctx, &changed).await? })))
}

/// `DELETE /os-security-groups/{id}`
pub async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    version: Microversion,
    Id(id): Id<SecurityGroupId>,
) -> Result<StatusCode, ApiError> {
    before(version, 36)?;
    app.engine.security_group_delete(&ctx, id, None).await.map_err(old_error)?;
    Ok(StatusCode::ACCEPTED)
}

/// Here, what stands in the way has always been called a bad request.
fn old_error(error: arcus_engine::EngineError) -> ApiError {
    match error {
        arcus_engine::EngineError::Conflict { message, .. } => ApiError::bad_request(message),
        other => other.into(),
    }
}
