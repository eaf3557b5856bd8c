//! Clusters of nodes: what may be claimed of them, what they have in common, and between which of them guests can move.

use crate::auth::Ctx;
use crate::body::{self, Id, Json, Pairs};
use crate::{ApiError, App, query};
use arcus_engine::clusters::{ClusterCandidate, ClusterDetail, ClusterWish};
use arcus_store::{Cluster, ClusterUse};
use arcus_types::ClusterId;
use arcus_types::clusters::Unlike;
use arcus_types::placement::Filling;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    cluster: Wish,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: Option<String>,
    zone: Option<String>,
    description: Option<String>,
    #[serde(default)]
    overcommit: Figures,
    /// `spread` or `pack`.
    placement: Option<Filling>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    vcpus_percent: Option<u64>,
    memory_percent: Option<u64>,
    disk_percent: Option<u64>,
}

impl From<Wish> for ClusterWish {
    fn from(wish: Wish) -> Self {
        Self {
            name: wish.name,
            zone: wish.zone,
            description: wish.description,
            vcpus_percent: wish.overcommit.vcpus_percent,
            memory_percent: wish.overcommit.memory_percent,
            disk_percent: wish.overcommit.disk_percent,
            filling: wish.placement,
        }
    }
}

fn view(cluster: &Cluster, used: &ClusterUse) -> Value {
    let both = |(cap, used): (u64, u64)| json!({ "claimable": cap, "claimed": used });
    json!({
        "id": cluster.id,
        "name": cluster.name,
        "is_default": cluster.id == ClusterId::DEFAULT,
        "zone": cluster.zone,
        "description": cluster.description,
        "overcommit": cluster.overcommit,
        "placement": cluster.filling,
        "nodes": used.nodes,
        "vcpus": both(used.vcpus),
        "memory_mib": both(used.memory_mib),
        "disk_gib": both(used.disk_gib),
        "created_at": cluster.created_at.to_string(),
        "updated_at": cluster.updated_at.to_string(),
    })
}

fn whole(detail: &ClusterDetail) -> Value {
    let mut shown = view(&detail.cluster, &detail.used);
    shown["baseline"] = json!(detail.baseline);
    let pairs = &detail.pairs;
    shown["live_migration"] = json!({ "pairs": pairs.all, "possible": pairs.possible, "hindered_by": pairs.hindered });
    json!({ "cluster": shown })
}

/// `GET /arcus/v1/clusters?name=&limit=&marker=`, by name; `marker` is the name after which to go on, told as `next`.
pub async fn list(Ctx(ctx): Ctx, State(app): State<App>, query: Pairs) -> Result<Response, ApiError> {
    query::known(&query, &["name", "limit", "marker"])?;
    let (name, marker) = (query.first("name"), query.first("marker"));
    let (found, more) = app.engine.cluster_page(&ctx, name, marker, query::limit(&query)?).await?;
    let next = found.last().filter(|_| more).map(|(cluster, _)| ("next", json!(cluster.name)));
    Ok(body::list("clusters", found.iter().map(|(cluster, used)| view(cluster, used)), next))
}

/// `GET /arcus/v1/clusters/{id}`: with what its nodes have in common, and between how many of them guests can move.
pub async fn show(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ClusterId>) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(whole(&app.engine.cluster_get(&ctx, id).await?)))
}

/// `POST /arcus/v1/clusters`.
pub async fn create(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Json(body): Json<Body>,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let made = app.engine.cluster_create(&ctx, &body.cluster.into()).await?;
    Ok((StatusCode::CREATED, axum::Json(whole(&made))))
}

/// `PATCH /arcus/v1/clusters/{id}`: what is left out stays.
pub async fn update(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ClusterId>,
    Json(body): Json<Body>,
) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(whole(&app.engine.cluster_update(&ctx, id, &body.cluster.into()).await?)))
}

/// `DELETE /arcus/v1/clusters/{id}`.
pub async fn delete(Ctx(ctx): Ctx, State(app): State<App>, Id(id): Id<ClusterId>) -> Result<StatusCode, ApiError> {
    app.engine.cluster_delete(&ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reasons(unlike: &[Unlike]) -> Vec<Value> {
    unlike.iter().map(|one| json!({ "name": one.name, "message": one.message })).collect()
}

fn cost(id: ClusterId, found: &ClusterCandidate) -> axum::Json<Value> {
    let hindrances = found.hindrances.iter().map(|one| {
        json!({ "name": one.name, "message": one.message, "forcible": one.forcible,
            "nodes": one.nodes, "nodes_count": one.nodes_count })
    });
    let lost = found
        .features_lost
        .iter()
        .map(|one| json!({ "feature": one.feature, "nodes": one.nodes, "nodes_count": one.nodes_count }));
    axum::Json(json!({ "candidate": {
        "cluster_id": id,
        "node": found.node,
        "other_nodes": found.others,
        "fits": found.hindrances.is_empty(),
        "hindrances": hindrances.collect::<Vec<_>>(),
        "features_lost": lost.collect::<Vec<_>>(),
        "features_unused": found.features_unused,
    } }))
}

/// The cluster and the node of a path.
fn ends(path: &(String, String)) -> Result<(ClusterId, &str), ApiError> {
    let shown: String = path.0.chars().take(64).collect();
    Ok((path.0.parse().map_err(|_| ApiError::not_found("Cluster", shown))?, &path.1))
}

/// `GET /arcus/v1/clusters/{id}/candidates/{node}`: what the node would cost the cluster.
pub async fn candidate(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let (id, node) = ends(&path)?;
    Ok(cost(id, &app.engine.cluster_candidate(&ctx, id, node).await?))
}

/// `PUT /arcus/v1/clusters/{id}/nodes/{node}?force=`: answers what it costs.
pub async fn node_add(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
    query: Pairs,
) -> Result<axum::Json<Value>, ApiError> {
    query::known(&query, &["force"])?;
    let force = query::parsed(&query, "force")?.unwrap_or(false);
    let (id, node) = ends(&path)?;
    Ok(cost(id, &app.engine.cluster_node_add(&ctx, id, node, force).await?))
}

/// `DELETE /arcus/v1/clusters/{id}/nodes/{node}`: the node goes to the default cluster.
pub async fn node_remove(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Path(path): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (id, node) = ends(&path)?;
    app.engine.cluster_node_remove(&ctx, id, node).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /arcus/v1/clusters/{id}/pairs?limit=&after_source=&after_dest=`: by the nodes' names; `next` tells where to go on.
pub async fn pairs(
    Ctx(ctx): Ctx,
    State(app): State<App>,
    Id(id): Id<ClusterId>,
    query: Pairs,
) -> Result<Response, ApiError> {
    query::known(&query, &["limit", "after_source", "after_dest"])?;
    let marker = query.first("after_source").map(|source| (source, query.first("after_dest").unwrap_or_default()));
    let (found, more) = app.engine.cluster_pairs(&ctx, id, marker, query::limit(&query)?).await?;
    let next = found.last().filter(|_| more);
    let next = next.map(|last| ("next", json!({ "after_source": last.source, "after_dest": last.dest })));
    let shown = found.iter().map(|pair| {
        json!({ "source": pair.source, "dest": pair.dest, "possible": pair.unlike.is_empty(),
            "reasons": reasons(&pair.unlike) })
    });
    Ok(body::list("pairs", shown, next))
}
