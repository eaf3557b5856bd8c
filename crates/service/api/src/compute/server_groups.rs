//! Server groups.

use super::fields::{Fields, refused, required, truth};
use super::{Answer, links};
use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::microversion::Microversion;
use crate::{ApiError, App};
use arcus_store::{GroupPolicy, ServerGroup};
use arcus_types::{ServerGroupId, ServerId};
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

fn shown(group: &ServerGroup, members: &[ServerId], version: Microversion) -> Value {
    let mut out = json!({ "id": group.id, "name": group.name, "members": members });
    if version.at_least(13) {
        out["project_id"] = json!(group.project_id);
        out["user_id"] = json!(group.user_id);
    }
    // From 2.64 on a group has one policy with rules.
    if version.at_least(64) {
        out["policy"] = json!(group.policy.text());
        out["rules"] = match group.policy {
            GroupPolicy::AntiAffinity => json!({ "max_server_per_host": group.servers_per_node_max }),
            GroupPolicy::Affinity | GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity => json!({}),
        };
    } else {
        out["policies"] = json!([group.policy.text()]);
        out["metadata"] = json!({});
    }
    out
}

/// `GET /os-server-groups`
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, query: Pairs) -> Answer {
    if version.at_least(75) {
        links::known(&query, &["all_projects", "limit", "offset"])?;
    }
    let all = query.first("all_projects").is_some_and(|t| t.is_empty() || truth(t) == Some(true));
    let offset = links::parsed(&query, "offset")?.unwrap_or(0);
    let groups = app.engine.server_group_list(&ctx, all, links::limit(&query)?, offset).await?;
    let list: Vec<Value> = groups.iter().map(|(g, members)| shown(g, members, version)).collect();
    Ok(axum::Json(json!({ "server_groups": list })))
}

/// `GET /os-server-groups/{id}`
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Id(id): Id<ServerGroupId>) -> Answer {
    let (group, members) = app.engine.server_group_get(&ctx, id).await?;
    Ok(axum::Json(json!({ "server_group": shown(&group, &members, version) })))
}

/// `POST /os-server-groups`
pub async fn create(Ctx(ctx): Ctx, State(app): State<App>, version: Microversion, Json(body): Json<Value>) -> Answer {
    let mut fields = Fields::of(&body, "server_group", &[])?;
    let name = fields.text_required("name", 1, 255)?;
    let mut per_node = 1;
    let text = if version.at_least(64) {
        let policy = fields.text_required("policy", 1, 32)?;
        if let Some(rules) = fields.raw("rules") {
            let mut rules = Fields::object(rules, "rules")?;
            if let Some(max) = rules.integer("max_server_per_host", 1, 1_000)? {
                if policy != "anti-affinity" {
                    return Err(ApiError::bad_request("Only anti-affinity policy supports rules."));
                }
                per_node = max;
            }
            rules.end()?;
        }
        policy
    } else {
        match fields.list("policies", 1)?.ok_or_else(|| required("server_group", "policies"))? {
            [Value::String(policy)] => policy.as_str(),
            other => return Err(refused("policies", &json!(other), "It holds not exactly one policy.")),
        }
    };
    fields.end()?;
    let policy: GroupPolicy = text.parse().map_err(|_| refused("policy", &json!(text), "It is not a policy."))?;
    let soft = matches!(policy, GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity);
    if soft && !version.at_least(15) {
        return Err(refused("policies", &json!(text), "It is known from 2.15 on."));
    }
    let per_node = u64::try_from(per_node).unwrap_or(1);
    let group = app.engine.server_group_create(&ctx, name, policy, per_node).await?;
    Ok(axum::Json(json!({ "server_group": shown(&group, &[], version) })))
}

/// `DELETE /os-server-groups/{id}`
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ServerGroupId>) -> Result<StatusCode, ApiError> {
    app.engine.server_group_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
