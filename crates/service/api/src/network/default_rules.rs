//! `/network/v2.0/default-security-group-rules`: what new security groups begin with.

use super::lists::{answer, listing, prune};
use super::wire::{loose_text, number, one, range, text};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::security_groups::rules::RuleNew;
use arcus_engine::security_groups::templates::DefaultRuleNew;
use arcus_store::{DEFAULT_RULE_FIELDS, DefaultRule, direction_text, ethertype_text};
use arcus_types::agent::{Direction, EtherType};
use arcus_types::policy::network as policy;
use arcus_types::{DefaultRuleId, SecurityGroupId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// The word for the new group itself, as the other side of a rule.
const PARENT: &str = "PARENT";

/// The routes of these rules.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/network/v2.0/default-security-group-rules", policy::DEFAULT_RULE_LIST, list),
        Route::post("/network/v2.0/default-security-group-rules", policy::DEFAULT_RULE_CREATE, create),
        Route::get("/network/v2.0/default-security-group-rules/{id}", policy::DEFAULT_RULE_GET, show),
        Route::delete("/network/v2.0/default-security-group-rules/{id}", policy::DEFAULT_RULE_DELETE, delete),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultRuleCreateRequest {
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
    used_in_default_sg: Option<bool>,
    used_in_non_default_sg: Option<bool>,
    description: Option<String>,
}

impl DefaultRuleCreateRequest {
    fn into_domain(self) -> Result<DefaultRuleNew, ApiError> {
        if self.remote_address_group_id.is_some() || self.remote_group_id.as_deref().is_some_and(|id| id != PARENT) {
            return Err(ApiError::bad_request(format!(
                "Invalid input for remote_group_id. Reason: only the new group itself, '{PARENT}', can be the other side."
            )));
        }
        let prefix = self.remote_ip_prefix.filter(|text| !text.is_empty());
        Ok(DefaultRuleNew {
            rule: RuleNew {
                security_group_id: SecurityGroupId(uuid::Uuid::nil()),
                description: text("description", self.description)?.unwrap_or_default(),
                direction: self.direction,
                ethertype: self.ethertype.unwrap_or(EtherType::V4),
                protocol: self.protocol.filter(|text| !text.is_empty()),
                port_min: self.port_range_min,
                port_max: self.port_range_max,
                remote_cidr: prefix.map(|text| range("remote_ip_prefix", &text)).transpose()?,
                remote_group_id: None,
                remote_address_group_id: None,
            },
            remote_self: self.remote_group_id.is_some(),
            in_default: self.used_in_default_sg.unwrap_or(false),
            in_others: self.used_in_non_default_sg.unwrap_or(true),
        })
    }
}

fn view(rule: &DefaultRule) -> Value {
    json!({
        "id": rule.id,
        "description": rule.description,
        "direction": direction_text(rule.direction),
        "ethertype": ethertype_text(rule.ethertype),
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_cidr,
        "remote_group_id": rule.remote_self.then_some(PARENT),
        "remote_address_group_id": null,
        "used_in_default_sg": rule.in_default,
        "used_in_non_default_sg": rule.in_others,
    })
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.default_rule_list(&ctx, listing(&query, DEFAULT_RULE_FIELDS)?).await?;
    Ok(Json(answer(&app, &query, "default_security_group_rules", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: DefaultRuleCreateRequest = one(body, "default_security_group_rule")?;
    let made = app.engine.default_rule_create(&ctx, asked.into_domain()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "default_security_group_rule": view(&made) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<DefaultRuleId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let rule = app.engine.default_rule_get(&ctx, id).await?;
    Ok(Json(json!({ "default_security_group_rule": prune(&query, view(&rule)) })))
}

async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<DefaultRuleId>) -> Result<StatusCode, ApiError> {
    app.engine.default_rule_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
