//! Why a server is where it is, why it is not elsewhere, and where one could go.
//!
//! Owners are told counts, sums and what their node is called for them (`host_id`); names of nodes are for administrators.

use crate::auth::Ctx;
use crate::body::{Id, Json, Pairs};
use crate::compute::host_id;
use crate::{ApiError, App, query};
use arcus_engine::servers::{ExplainWish, Explained, NodeAnswer, PlacementView};
use arcus_store::PlacementDecision;
use arcus_types::placement::{DecisionRecord, FilterCount, NodeLooked, Score};
use arcus_types::{ImageId, ServerGroupId, ServerId};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// `GET /arcus/v1/servers/{id}/placement`; with `node=NAME`, also why it is not there.
pub async fn show(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ServerId>,
    query: Pairs,
) -> Result<axum::Json<Value>, ApiError> {
    query::known(&query, &["node"])?;
    let admin = ctx.is_admin();
    let Some(node) = query.first("node") else {
        let view = app.engine.placement_get(&ctx, id).await?;
        return Ok(axum::Json(json!({ "placement": shown(&view, admin) })));
    };
    let (view, answer) = app.engine.placement_on(&ctx, id, node).await?;
    let mut placement = shown(&view, admin);
    placement["why_not"] = why_not(node, &answer);
    Ok(axum::Json(json!({ "placement": placement })))
}

fn shown(view: &PlacementView, admin: bool) -> Value {
    let project = view.server.project_id;
    let last = view.decisions.first();
    let host = |name: Option<&str>| name.map(|name| host_id(project, name));
    let mut out = json!({
        "server_id": view.server.id,
        "host_id": host(view.node.as_deref()),
        "history": view.decisions.iter().map(|d| past(d, project, admin)).collect::<Vec<_>>(),
    });
    if let Some(last) = last {
        out["occasion"] = json!(last.occasion);
        out["decided_at"] = json!(last.decided_at.to_string());
        merge(&mut out, decided(&last.record, admin));
    } else {
        out["text"] = json!("No decision about this server is on record: it was placed before decisions were kept.");
    }
    if admin {
        out["node"] = json!(view.node);
    }
    out
}

fn past(d: &PlacementDecision, project: arcus_types::ProjectId, admin: bool) -> Value {
    let name = d.node.as_ref().map(|(_, name)| name.as_str());
    let mut out = json!({
        "occasion": d.occasion,
        "decided_at": d.decided_at.to_string(),
        "host_id": name.map(|name| host_id(project, name)),
        "text": d.record.words(),
    });
    if admin {
        out["node"] = json!(name);
    }
    out
}

fn merge(out: &mut Value, more: Value) {
    if let (Value::Object(out), Value::Object(more)) = (out, more) {
        out.extend(more);
    }
}

/// A decision: what was asked, what was found.
fn decided(record: &DecisionRecord, admin: bool) -> Value {
    let refused = record.refused.iter().map(|count: &FilterCount| {
        let mut out = json!({ "filter": count.filter, "nodes": count.nodes, "text": count.words() });
        if count.asked.is_some() {
            out["asked"] = json!(count.asked);
            out["free_max"] = json!(count.free_max);
        }
        out
    });
    let mut out = json!({
        "asked": {
            "vcpus": record.vcpus, "memory_mib": record.memory_mib, "disk_gib": record.disk_gib,
            "availability_zone": record.zone, "group_policy": record.group, "one_node": record.one_node,
        },
        "text": record.words(),
        "nodes": record.nodes,
        "fit": record.fit,
        "refused": refused.collect::<Vec<_>>(),
        "weights": record.score.map(weights),
    });
    if admin {
        out["looked_at"] = record.looked_at.iter().map(looked).collect();
    }
    out
}

fn weights(score: Score) -> Value {
    json!({ "memory": score.memory, "vcpus": score.vcpus, "image": score.image, "group": score.group,
        "total": score.total() })
}

fn looked(node: &NodeLooked) -> Value {
    json!({ "node": node.node, "weights": weights(node.score), "refusals": node.refusals })
}

fn why_not(name: &str, answer: &NodeAnswer) -> Value {
    let refusals: Vec<Value> =
        answer.now.refusals.iter().map(|r| json!({ "filter": r.filter, "text": r.words })).collect();
    let text = match (answer.here, answer.now.refusals.as_slice()) {
        (true, _) => format!("It is on {name}."),
        (false, []) => {
            format!("Now {name} could take it; another node suited better, or it was not so when it was placed.")
        }
        (false, refusals) => {
            let reasons: Vec<&str> = refusals.iter().map(|r| r.words.as_str()).collect();
            format!("{name} could not take it now: {}.", reasons.join("; "))
        }
    };
    json!({
        "node": name,
        "here": answer.here,
        "text": text,
        "refusals": refusals,
        "weights": weights(answer.now.score),
        "when_placed": answer.recorded.as_ref().map(looked),
        "live_migration_blocker": answer.live_blocker,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    placement: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Id or name.
    flavor: Option<String>,
    vcpus: Option<u64>,
    memory_mib: Option<u64>,
    disk_gib: Option<u64>,
    availability_zone: Option<String>,
    group: Option<ServerGroupId>,
    image: Option<ImageId>,
    /// For administrators.
    node: Option<String>,
}

/// `POST /arcus/v1/placement/explain`: reserves nothing.
pub async fn explain(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<Body>,
) -> Result<axum::Json<Value>, ApiError> {
    let wish = body.placement;
    let wish = ExplainWish {
        flavor: wish.flavor,
        vcpus: wish.vcpus,
        memory_mib: wish.memory_mib,
        disk_gib: wish.disk_gib,
        zone: wish.availability_zone,
        group_id: wish.group,
        image_id: wish.image,
        node: wish.node,
    };
    let Explained { record, decision } = app.engine.placement_explain(&ctx, &wish).await?;
    let mut out = decided(&record, false);
    if ctx.is_admin() {
        let fits = |r: &arcus_placement::Ranked| json!({ "node": &*r.candidate.name, "availability_zone": &*r.candidate.zone, "weights": weights(r.score) });
        out["candidates"] = decision.ranked.iter().map(fits).collect();
        out["refused_nodes"] = decision.verdicts.iter().map(|v| looked(&v.looked_at())).collect();
    }
    Ok(axum::Json(json!({ "placement": out })))
}
