//! `/network/v2.0/security-groups` and `/network/v2.0/security-group-rules`.

use super::lists::{answer, listing, prune};
use super::wire::{IfMatch, loose_text, made, number, one, range, some, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::security_groups::SecurityGroupNew;
use arcus_engine::security_groups::rules::RuleNew;
use arcus_store::{
    SECURITY_GROUP_FIELDS, SECURITY_GROUP_RULE_FIELDS, SecurityGroup, SecurityGroupRule, direction_text, ethertype_text,
};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::policy::network as policy;
use arcus_types::{AddressGroupId, ProjectId, SecurityGroupId, SecurityGroupRuleId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The routes of security groups and their rules.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/security-groups", policy::SECURITY_GROUP_LIST, list),
        Route::post("/network/v2.0/security-groups", policy::SECURITY_GROUP_CREATE, create),
        Route::get("/network/v2.0/security-groups/{id}", policy::SECURITY_GROUP_GET, show),
        Route::put("/network/v2.0/security-groups/{id}", policy::SECURITY_GROUP_UPDATE, update),
        Route::delete("/network/v2.0/security-groups/{id}", policy::SECURITY_GROUP_DELETE, delete),
        Route::get("/network/v2.0/security-group-rules", policy::SECURITY_GROUP_RULE_LIST, rule_list),
        Route::post("/network/v2.0/security-group-rules", policy::SECURITY_GROUP_RULE_CREATE, rule_create),
        Route::get("/network/v2.0/security-group-rules/{id}", policy::SECURITY_GROUP_RULE_GET, rule_show),
        Route::delete("/network/v2.0/security-group-rules/{id}", policy::SECURITY_GROUP_RULE_DELETE, rule_delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecurityGroupCreateRequest {
    name: Option<String>,
    description: Option<String>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
    stateful: Option<bool>,
    tags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecurityGroupUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    stateful: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCreateRequest {
    security_group_id: SecurityGroupId,
    direction: Direction,
    ethertype: Option<EtherType>,
    #[serde(default, deserialize_with = "loose_text")]
    protocol: Option<String>,
    #[serde(default, deserialize_with = "number")]
    port_range_min: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    port_range_max: Option<i64>,
    remote_ip_prefix: Option<String>,
    remote_group_id: Option<String>,
    remote_address_group_id: Option<String>,
    description: Option<String>,
    // Who owns the group owns the rule; clients send these all the same.
    #[serde(rename = "project_id")]
    _project_id: Option<String>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

fn tracked(stateful: Option<bool>) -> Result<(), ApiError> {
    match stateful {
        Some(false) => Err(ApiError::bad_request(
            "Invalid input for stateful. Reason: security groups of this cloud always track connections.",
        )),
        Some(true) | None => Ok(()),
    }
}

impl SecurityGroupCreateRequest {
    fn into_domain(self) -> Result<SecurityGroupNew, ApiError> {
        tracked(self.stateful)?;
        Ok(SecurityGroupNew {
            project_id: self.project_id.or(self.tenant_id),
            name: text("name", self.name)?.unwrap_or_default(),
            description: text("description", self.description)?.unwrap_or_default(),
            tags: tags(self.tags)?,
        })
    }
}

/// The group that a rule refers to; a text that is no id names none.
fn remote<T: std::str::FromStr>(
    id: Option<String>,
    code: &'static str,
    kind: &'static str,
) -> Result<Option<T>, ApiError> {
    let named = id.filter(|text| !text.is_empty());
    let missing = |text: &String| {
        let shown: String = text.chars().take(64).collect();
        ApiError { code, ..ApiError::not_found(kind, shown) }
    };
    named.map(|text| text.parse().map_err(|_| missing(&text))).transpose()
}

impl RuleCreateRequest {
    fn into_domain(self) -> Result<RuleNew, ApiError> {
        let prefix = self.remote_ip_prefix.filter(|text| !text.is_empty());
        Ok(RuleNew {
            security_group_id: self.security_group_id,
            description: text("description", self.description)?.unwrap_or_default(),
            direction: self.direction,
            ethertype: self.ethertype.unwrap_or(EtherType::V4),
            protocol: self.protocol.filter(|text| !text.is_empty()),
            port_min: self.port_range_min,
            port_max: self.port_range_max,
            remote_cidr: prefix.map(|text| range("remote_ip_prefix", &text)).transpose()?,
            remote_group_id: remote::<SecurityGroupId>(
                self.remote_group_id,
                "SecurityGroupNotFound",
                "Security group",
            )?,
            remote_address_group_id: remote::<AddressGroupId>(
                self.remote_address_group_id,
                "AddressGroupNotFound",
                "Address group",
            )?,
        })
    }
}

/// A security group on the wire, with its rules.
pub fn view(group: &SecurityGroup) -> Value {
    let shown = json!({
        "id": group.id,
        "name": group.name,
        "project_id": group.project_id,
        "tenant_id": group.project_id,
        "stateful": true,
        "shared": group.shared,
        "tags": group.tags,
        "security_group_rules": group.rules.iter().map(rule_view).collect::<Vec<_>>(),
    });
    with_standard(shown, &group.description, group.revision, group.created_at, group.updated_at)
}

fn rule_view(rule: &SecurityGroupRule) -> Value {
    let shown = json!({
        "id": rule.id,
        "security_group_id": rule.security_group_id,
        "project_id": rule.project_id,
        "tenant_id": rule.project_id,
        "direction": direction_text(rule.direction),
        "ethertype": ethertype_text(rule.ethertype),
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_cidr,
        "normalized_cidr": rule.normalized_cidr(),
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": rule.remote_address_group_id,
    });
    with_standard(shown, &rule.description, rule.revision, rule.created_at, rule.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.security_group_list(&ctx, listing(&query, SECURITY_GROUP_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "security_groups", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = some::<SecurityGroupCreateRequest>(body, "security_group", "security_groups")?;
    let wishes = asked.all.into_iter().map(SecurityGroupCreateRequest::into_domain).collect::<Result<_, _>>()?;
    let groups = app.engine.security_groups_create(&ctx, wishes).await?;
    let shown = groups.iter().map(view).collect();
    Ok((StatusCode::CREATED, Json(made(shown, asked.bulk, "security_group", "security_groups"))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SecurityGroupId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let group = app.engine.security_group_get(&ctx, id).await?;
    Ok(Json(json!({ "security_group": prune(&query, view(&group)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SecurityGroupId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: SecurityGroupUpdateRequest = one(body, "security_group")?;
    tracked(asked.stateful)?;
    let (name, description) = (text("name", asked.name)?, text("description", asked.description)?);
    let group = app.engine.security_group_update(&ctx, id, name, description, if_match).await?;
    Ok(Json(json!({ "security_group": view(&group) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SecurityGroupId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.security_group_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rule_list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.security_group_rule_list(&ctx, listing(&query, SECURITY_GROUP_RULE_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "security_group_rules", &page, rule_view)))
}

async fn rule_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = some::<RuleCreateRequest>(body, "security_group_rule", "security_group_rules")?;
    let wishes = asked.all.into_iter().map(RuleCreateRequest::into_domain).collect::<Result<_, _>>()?;
    let rules = app.engine.security_group_rules_create(&ctx, wishes).await?;
    let shown = rules.iter().map(rule_view).collect();
    Ok((StatusCode::CREATED, Json(made(shown, asked.bulk, "security_group_rule", "security_group_rules"))))
}

async fn rule_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SecurityGroupRuleId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let rule = app.engine.security_group_rule_get(&ctx, id).await?;
    Ok(Json(json!({ "security_group_rule": prune(&query, rule_view(&rule)) })))
}

async fn rule_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<SecurityGroupRuleId>,
) -> Result<StatusCode, ApiError> {
    app.engine.security_group_rule_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
