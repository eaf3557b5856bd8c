//! `/network/v2.0/qos`: policies, their rules, and what kinds of rules there are.

use super::lists::{answer_at, listing, prune};
use super::wire::{Ids, IfMatch, number, one, tags, text, with_standard};
use crate::auth::Ctx;
use crate::body::{Id, Json as Body, Pairs};
use crate::{ApiError, App, Route};
use arcus_engine::qos::{DSCP_MARKS, KBPS_MAX, QosPolicyChange, QosPolicyNew};
use arcus_store::{QOS_POLICY_FIELDS, QosPolicy, QosRule, QosRuleKind, direction_text};
use arcus_types::agent::Direction;
use arcus_types::policy::network as policy;
use arcus_types::{ProjectId, QosPolicyId, QosRuleId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

const LIMIT: &str = "bandwidth_limit";
const MARK: &str = "dscp_marking";

/// The routes of quality of service.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/network/v2.0/qos/policies", policy::QOS_POLICY_LIST, list),
        Route::post("/network/v2.0/qos/policies", policy::QOS_POLICY_CREATE, create),
        Route::get("/network/v2.0/qos/policies/{id}", policy::QOS_POLICY_GET, show),
        Route::put("/network/v2.0/qos/policies/{id}", policy::QOS_POLICY_UPDATE, update),
        Route::delete("/network/v2.0/qos/policies/{id}", policy::QOS_POLICY_DELETE, delete),
        Route::get("/network/v2.0/qos/rule-types", policy::QOS_RULE_TYPE_LIST, type_list),
        Route::get("/network/v2.0/qos/rule-types/{type}", policy::QOS_RULE_TYPE_GET, type_show),
    ];
    macro_rules! rules {
        ($path:literal, $word:expr, $create:ident, $update:ident) => {
            routes.extend([
                Route::get(
                    concat!("/network/v2.0/qos/policies/{id}/", $path),
                    policy::QOS_RULE_LIST,
                    |ctx: Ctx, app: State<App>, id: Id<QosPolicyId>| rule_list(ctx, app, id, $word),
                ),
                Route::post(concat!("/network/v2.0/qos/policies/{id}/", $path), policy::QOS_RULE_CREATE, $create),
                Route::get(
                    concat!("/network/v2.0/qos/policies/{id}/", $path, "/{rule}"),
                    policy::QOS_RULE_LIST,
                    |ctx: Ctx, app: State<App>, ids: Ids<QosPolicyId, QosRuleId>| rule_show(ctx, app, ids, $word),
                ),
                Route::put(
                    concat!("/network/v2.0/qos/policies/{id}/", $path, "/{rule}"),
                    policy::QOS_RULE_UPDATE,
                    $update,
                ),
                Route::delete(
                    concat!("/network/v2.0/qos/policies/{id}/", $path, "/{rule}"),
                    policy::QOS_RULE_DELETE,
                    |ctx: Ctx, app: State<App>, ids: Ids<QosPolicyId, QosRuleId>| rule_delete(ctx, app, ids, $word),
                ),
            ])
        };
    }
    rules!("bandwidth_limit_rules", LIMIT, limit_create, limit_update);
    rules!("dscp_marking_rules", MARK, mark_create, mark_update);
    routes
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QosPolicyCreateRequest {
    name: String,
    description: Option<String>,
    shared: Option<bool>,
    is_default: Option<bool>,
    tags: Option<Vec<String>>,
    project_id: Option<ProjectId>,
    tenant_id: Option<ProjectId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QosPolicyUpdateRequest {
    name: Option<String>,
    description: Option<String>,
    shared: Option<bool>,
    is_default: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitRequest {
    #[serde(default, deserialize_with = "number")]
    max_kbps: Option<i64>,
    #[serde(default, deserialize_with = "number")]
    max_burst_kbps: Option<i64>,
    direction: Option<Direction>,
    // Who owns the policy owns the rule; clients send these all the same.
    #[serde(rename = "project_id")]
    _project_id: Option<String>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRequest {
    #[serde(default, deserialize_with = "number")]
    dscp_mark: Option<i64>,
    #[serde(rename = "project_id")]
    _project_id: Option<String>,
    #[serde(rename = "tenant_id")]
    _tenant_id: Option<String>,
}

fn kilobits(attribute: &str, value: Option<i64>) -> Result<Option<u64>, ApiError> {
    let wrong =
        |n| ApiError::bad_request(format!("Invalid input for {attribute}. Reason: {n} is not 0 to {KBPS_MAX}."));
    value.map(|n| u64::try_from(n).map_err(|_| wrong(n))).transpose()
}

fn mark(value: Option<i64>) -> Result<Option<u8>, ApiError> {
    let wrong =
        |n| ApiError::bad_request(format!("Invalid input for dscp_mark. Reason: '{n}' is not in {DSCP_MARKS:?}."));
    value.map(|n| u8::try_from(n).map_err(|_| wrong(n))).transpose()
}

fn missing(attribute: &str) -> ApiError {
    ApiError::bad_request(format!("Failed to parse request. Required attribute '{attribute}' not specified"))
}

fn rule_view(rule: &QosRule) -> Value {
    match rule.kind {
        QosRuleKind::BandwidthLimit { direction, max_kbps, max_burst_kbps } => json!({
            "id": rule.id,
            "qos_policy_id": rule.policy_id,
            "max_kbps": max_kbps,
            "max_burst_kbps": max_burst_kbps,
            "direction": direction_text(direction),
        }),
        QosRuleKind::DscpMarking { mark } => {
            json!({ "id": rule.id, "qos_policy_id": rule.policy_id, "dscp_mark": mark })
        }
    }
}

fn view(of: &QosPolicy) -> Value {
    let rule = |rule: &QosRule| {
        let mut shown = rule_view(rule);
        if let Value::Object(map) = &mut shown {
            map.insert("type".into(), json!(rule.kind.word()));
        }
        shown
    };
    let shown = json!({
        "id": of.id,
        "name": of.name,
        "project_id": of.project_id,
        "tenant_id": of.project_id,
        "shared": of.shared,
        "is_default": of.is_default,
        "rules": of.rules.iter().map(rule).collect::<Vec<_>>(),
        "tags": of.tags,
    });
    with_standard(shown, &of.description, of.revision, of.created_at, of.updated_at)
}

async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Json<Value>, ApiError> {
    let page = app.engine.qos_policy_list(&ctx, listing(&query, QOS_POLICY_FIELDS)?).await?;
    Ok(Json(answer_at(&app, &query, "policies", "qos/policies", &page, view)))
}

async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: QosPolicyCreateRequest = one(body, "policy")?;
    let new = QosPolicyNew {
        project_id: asked.project_id.or(asked.tenant_id),
        name: text("name", Some(asked.name))?.unwrap_or_default(),
        description: text("description", asked.description)?.unwrap_or_default(),
        shared: asked.shared.unwrap_or(false),
        is_default: asked.is_default.unwrap_or(false),
        tags: tags(asked.tags)?,
    };
    let made = app.engine.qos_policy_create(&ctx, new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "policy": view(&made) }))))
}

async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    query: Pairs,
) -> Result<Json<Value>, ApiError> {
    let of = app.engine.qos_policy_get(&ctx, id).await?;
    Ok(Json(json!({ "policy": prune(&query, view(&of)) })))
}

async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    IfMatch(if_match): IfMatch,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: QosPolicyUpdateRequest = one(body, "policy")?;
    let change = QosPolicyChange {
        name: text("name", asked.name)?,
        description: text("description", asked.description)?,
        shared: asked.shared,
        is_default: asked.is_default,
        if_match,
    };
    let of = app.engine.qos_policy_update(&ctx, id, change).await?;
    Ok(Json(json!({ "policy": view(&of) })))
}

async fn delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    IfMatch(if_match): IfMatch,
) -> Result<StatusCode, ApiError> {
    app.engine.qos_policy_delete(&ctx, id, if_match).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rule_list(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    word: &'static str,
) -> Result<Json<Value>, ApiError> {
    let of = app.engine.qos_policy_get(&ctx, id).await?;
    let rules: Vec<Value> = of.rules.iter().filter(|rule| rule.kind.word() == word).map(rule_view).collect();
    Ok(Json(json!({ format!("{word}_rules"): rules })))
}

async fn rule_show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(id, rule): Ids<QosPolicyId, QosRuleId>,
    word: &'static str,
) -> Result<Json<Value>, ApiError> {
    let rule = app.engine.qos_rule_get(&ctx, id, rule, word).await?;
    Ok(Json(json!({ format!("{word}_rule"): rule_view(&rule) })))
}

async fn rule_delete(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(id, rule): Ids<QosPolicyId, QosRuleId>,
    word: &'static str,
) -> Result<StatusCode, ApiError> {
    app.engine.qos_rule_delete(&ctx, id, rule, word).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn limit_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: LimitRequest = one(body, "bandwidth_limit_rule")?;
    let kind = QosRuleKind::BandwidthLimit {
        direction: asked.direction.unwrap_or(Direction::Egress),
        max_kbps: kilobits("max_kbps", asked.max_kbps)?.ok_or_else(|| missing("max_kbps"))?,
        max_burst_kbps: kilobits("max_burst_kbps", asked.max_burst_kbps)?.unwrap_or(0),
    };
    let rule = app.engine.qos_rule_create(&ctx, id, kind).await?;
    Ok((StatusCode::CREATED, Json(json!({ "bandwidth_limit_rule": rule_view(&rule) }))))
}

async fn limit_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(id, rule): Ids<QosPolicyId, QosRuleId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: LimitRequest = one(body, "bandwidth_limit_rule")?;
    let rate = kilobits("max_kbps", asked.max_kbps)?;
    let burst = kilobits("max_burst_kbps", asked.max_burst_kbps)?;
    let change = move |kind| match kind {
        QosRuleKind::BandwidthLimit { direction, max_kbps, max_burst_kbps } => QosRuleKind::BandwidthLimit {
            direction: asked.direction.unwrap_or(direction),
            max_kbps: rate.unwrap_or(max_kbps),
            max_burst_kbps: burst.unwrap_or(max_burst_kbps),
        },
        QosRuleKind::DscpMarking { .. } => kind,
    };
    let rule = app.engine.qos_rule_update(&ctx, id, rule, LIMIT, change).await?;
    Ok(Json(json!({ "bandwidth_limit_rule": rule_view(&rule) })))
}

async fn mark_create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<QosPolicyId>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: MarkRequest = one(body, "dscp_marking_rule")?;
    let mark = mark(asked.dscp_mark)?.ok_or_else(|| missing("dscp_mark"))?;
    let rule = app.engine.qos_rule_create(&ctx, id, QosRuleKind::DscpMarking { mark }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "dscp_marking_rule": rule_view(&rule) }))))
}

async fn mark_update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Ids(id, rule): Ids<QosPolicyId, QosRuleId>,
    Body(body): Body<Value>,
) -> Result<Json<Value>, ApiError> {
    let asked: MarkRequest = one(body, "dscp_marking_rule")?;
    let new = mark(asked.dscp_mark)?;
    let change = move |kind| match kind {
        QosRuleKind::DscpMarking { mark } => QosRuleKind::DscpMarking { mark: new.unwrap_or(mark) },
        QosRuleKind::BandwidthLimit { .. } => kind,
    };
    let rule = app.engine.qos_rule_update(&ctx, id, rule, MARK, change).await?;
    Ok(Json(json!({ "dscp_marking_rule": rule_view(&rule) })))
}

async fn type_list(Ctx(ctx): Ctx, State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let types: Vec<Value> = app.engine.qos_rule_types(&ctx)?.iter().map(|word| json!({ "type": word })).collect();
    Ok(Json(json!({ "rule_types": types })))
}

async fn type_show(Ctx(ctx): Ctx, State(app): State<App>, Id(word): Id<String>) -> Result<Json<Value>, ApiError> {
    let word = app.engine.qos_rule_type(&ctx, &word)?;
    let range = json!({ "start": 0, "end": KBPS_MAX });
    let parameters = if word == LIMIT {
        json!([
            { "parameter_name": "max_kbps", "parameter_type": "range", "parameter_values": range },
            { "parameter_name": "max_burst_kbps", "parameter_type": "range", "parameter_values": range },
            { "parameter_name": "direction", "parameter_type": "choices", "parameter_values": ["ingress", "egress"] },
        ])
    } else {
        json!([{ "parameter_name": "dscp_mark", "parameter_type": "choices", "parameter_values": DSCP_MARKS }])
    };
    let drivers = json!([{ "name": "arcus", "supported_parameters": parameters }]);
    Ok(Json(json!({ "rule_type": { "type": word, "drivers": drivers } })))
}
