//! Clusters: administrators put nodes together between which guests move, say what may be claimed of them and how they are
//! filled, and are told what a node would cost a cluster before it is in it.

mod likeness;

pub use likeness::{ClusterCandidate, FeatureLost, Hindrance, Pair, PairSums};

use crate::fleet::Member;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Cluster, ClusterUse, Node, StoreError, Tx};
use arcus_types::clusters::{Baseline, OVERCOMMIT_PERCENT_MAX, Overcommit, baseline};
use arcus_types::placement::Filling;
use arcus_types::policy::{Action, Target, arcus, authorize};
use arcus_types::{ClusterId, Name, OpCtx, Timestamp};
use likeness::Shapes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// The longest description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// What is wished of a cluster; what is `None` stays, or is as in the default cluster of a new cloud.
#[derive(Debug, Clone, Default)]
pub struct ClusterWish {
    /// Its name.
    pub name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// What may be claimed of its nodes' threads, in percent.
    pub vcpus_percent: Option<u64>,
    /// The same of their memory.
    pub memory_percent: Option<u64>,
    /// The same of their disk.
    pub disk_percent: Option<u64>,
    /// How it is filled.
    pub filling: Option<Filling>,
}

/// A cluster with what its nodes have.
pub type ClusterView = (Cluster, ClusterUse);

/// All that is told of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterDetail {
    /// The cluster.
    pub cluster: Cluster,
    /// What its nodes have.
    pub used: ClusterUse,
    /// What its nodes have in common.
    pub baseline: Baseline,
    /// Between how many of its nodes guests can move.
    pub pairs: PairSums,
}

impl ClusterWish {
    fn apply(&self, cluster: &mut Cluster) -> Result<(), EngineError> {
        if let Some(name) = &self.name {
            cluster.name = name.parse::<Name>()?.as_str().to_owned();
        }
        if let Some(zone) = &self.zone {
            cluster.zone = zone.parse::<Name>()?.as_str().to_owned();
        }
        if let Some(text) = &self.description {
            if text.chars().count() > DESCRIPTION_CHARS_MAX || text.chars().any(|c| c.is_control() && c != '\n') {
                return Err(EngineError::invalid(format!(
                    "A description has at most {DESCRIPTION_CHARS_MAX} printable characters."
                )));
            }
            cluster.description.clone_from(text);
        }
        let percent = |what: &str, wished: Option<u64>, now: u64| match wished {
            None => Ok(now),
            Some(percent) if (1..=OVERCOMMIT_PERCENT_MAX).contains(&percent) => Ok(percent),
            Some(_) => Err(EngineError::invalid(format!("{what} must be from 1 to {OVERCOMMIT_PERCENT_MAX}."))),
        };
        let now = cluster.overcommit;
        cluster.overcommit = Overcommit {
            vcpus_percent: percent("vcpus_percent", self.vcpus_percent, now.vcpus_percent)?,
            memory_percent: percent("memory_percent", self.memory_percent, now.memory_percent)?,
            disk_percent: percent("disk_percent", self.disk_percent, now.disk_percent)?,
        };
        cluster.filling = self.filling.unwrap_or(cluster.filling);
        cluster.updated_at = Timestamp::now();
        Ok(())
    }
}

fn not_found(id: impl ToString) -> EngineError {
    EngineError::NotFound { code: "ClusterNotFound", kind: "Cluster", id: id.to_string() }
}

fn no_node(name: &str) -> EngineError {
    EngineError::not_found("NodeNotFound", "Node", name.chars().take(64).collect::<String>())
}

fn named(error: StoreError, name: &str) -> EngineError {
    match error {
        StoreError::Duplicate(_) => {
            let message = format!("A cluster called {name} is there already.");
            EngineError::Conflict { code: "ClusterNameExists", message }
        }
        other => other.into(),
    }
}

impl Engine {
    /// Clusters by name with what their nodes have, those after `marker`, and whether more follow; only the one called `name`, if
    /// one is named.
    ///
    /// # Errors
    /// A refusal.
    pub async fn cluster_page(
        &self,
        ctx: &OpCtx,
        name: Option<&str>,
        marker: Option<&str>,
        limit: u64,
    ) -> Result<(Vec<ClusterView>, bool), EngineError> {
        authorize(ctx, arcus::CLUSTER_LIST, &Target::default())?;
        let mut found = self.store().cluster_page(name, marker, limit.saturating_add(1)).await?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        found.truncate(keep);
        let ids: Vec<ClusterId> = found.iter().map(|cluster| cluster.id).collect();
        let uses: HashMap<ClusterId, ClusterUse> = self.store().cluster_uses(&ids).await?.into_iter().collect();
        let with_use = |cluster: Cluster| (uses.get(&cluster.id).copied().unwrap_or_default(), cluster);
        Ok((found.into_iter().map(with_use).map(|(used, cluster)| (cluster, used)).collect(), more))
    }

    /// A cluster with what its nodes have in common.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn cluster_get(&self, ctx: &OpCtx, id: ClusterId) -> Result<ClusterDetail, EngineError> {
        authorize(ctx, arcus::CLUSTER_READ, &Target::default())?;
        let cluster = self.store().cluster_get(id).await?.ok_or_else(|| not_found(id))?;
        self.cluster_told(cluster).await
    }

    async fn cluster_told(&self, cluster: Cluster) -> Result<ClusterDetail, EngineError> {
        let used = self.store().cluster_uses(&[cluster.id]).await?.first().map(|(_, used)| *used).unwrap_or_default();
        let members = self.cluster_members(cluster.id).await?;
        let nodes = || members.iter().filter_map(|member| member.node.as_ref());
        let pairs = Shapes::of(nodes()).sums();
        Ok(ClusterDetail { used, baseline: baseline(nodes().map(|node| &node.facts)), pairs, cluster })
    }

    /// The nodes of a cluster as the inventory in memory has them, by name.
    async fn cluster_members(&self, id: ClusterId) -> Result<Vec<Arc<Member>>, EngineError> {
        let inside = |m: &Arc<Member>| m.node.as_ref().is_some_and(|n| n.cluster_id == id).then(|| Arc::clone(m));
        let mut members = self.fleet_pick(usize::MAX, inside).await?;
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(members)
    }

    /// Makes a cluster without nodes.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken, [`EngineError::Invalid`] for what cannot be, or a refusal.
    pub async fn cluster_create(&self, ctx: &OpCtx, wish: &ClusterWish) -> Result<ClusterDetail, EngineError> {
        authorize(ctx, arcus::CLUSTER_CREATE, &Target::default())?;
        let now = Timestamp::now();
        let mut new = Cluster {
            id: ClusterId::new(),
            name: String::new(),
            zone: self.config().default_zone.clone(),
            description: String::new(),
            overcommit: Overcommit::default(),
            filling: Filling::default(),
            created_at: now,
            updated_at: now,
        };
        if wish.name.is_none() {
            return Err(EngineError::invalid("A cluster needs a name."));
        }
        wish.apply(&mut new)?;
        new.updated_at = now;
        let tx = self.store().begin(ctx).await?;
        tx.cluster_insert(&new).await.map_err(|e| named(e, &new.name))?;
        cluster_audit(&tx, arcus::CLUSTER_CREATE, new.id, &told(&new)).await?;
        tx.commit().await?;
        self.cluster_told(new).await
    }

    /// Changes a cluster. What may be claimed of its nodes changes with it at once; what is claimed stays, and a node of which
    /// more is claimed than that takes no new servers.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the name is taken, or the zone would change of nodes that hold servers;
    /// [`EngineError::Invalid`] for what cannot be, [`EngineError::NotFound`], or a refusal.
    pub async fn cluster_update(
        &self,
        ctx: &OpCtx,
        id: ClusterId,
        wish: &ClusterWish,
    ) -> Result<ClusterDetail, EngineError> {
        authorize(ctx, arcus::CLUSTER_UPDATE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let before = tx.cluster_hold(id).await?.ok_or_else(|| not_found(id))?;
        let mut after = before.clone();
        wish.apply(&mut after)?;
        tx.cluster_update(&after).await.map_err(|e| named(e, &after.name))?;
        if before.zone != after.zone {
            for node in tx.cluster_nodes(id).await? {
                self.node_zone_derive(&tx, &node).await?;
            }
        }
        let detail = json!({ "before": told(&before), "after": told(&after) });
        cluster_audit(&tx, arcus::CLUSTER_UPDATE, id, &detail).await?;
        tx.commit().await?;
        self.cluster_told(after).await
    }

    /// Removes a cluster without nodes.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for the default cluster and while it has nodes, [`EngineError::NotFound`], or a refusal.
    pub async fn cluster_delete(&self, ctx: &OpCtx, id: ClusterId) -> Result<(), EngineError> {
        authorize(ctx, arcus::CLUSTER_DELETE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let cluster = tx.cluster_hold(id).await?.ok_or_else(|| not_found(id))?;
        if id == ClusterId::DEFAULT {
            return Err(EngineError::conflict("The default cluster takes nodes that name none: it stays."));
        }
        if !tx.cluster_delete(id).await? {
            return Err(EngineError::Conflict {
                code: "ClusterInUse",
                message: format!("Cluster {} has nodes: put them elsewhere first.", cluster.name),
            });
        }
        cluster_audit(&tx, arcus::CLUSTER_DELETE, id, &told(&cluster)).await?;
        Ok(tx.commit().await?)
    }

    /// What a node would cost a cluster, or what it costs the one that it is in.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn cluster_candidate(
        &self,
        ctx: &OpCtx,
        id: ClusterId,
        name: &str,
    ) -> Result<ClusterCandidate, EngineError> {
        authorize(ctx, arcus::CLUSTER_READ, &Target::default())?;
        self.store().cluster_get(id).await?.ok_or_else(|| not_found(id))?;
        let node = self.store().node_by_name(name).await?.ok_or_else(|| no_node(name))?;
        let members = self.cluster_members(id).await?;
        let others = members.iter().filter_map(|m| m.node.as_ref()).filter(|member| member.id != node.id);
        Ok(Shapes::of(others).candidate(&node))
    }

    /// Puts a node into a cluster, from the one that it is in. `force` takes one whose differences may go by.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] with the name of what keeps guests from moving between it and the others, or if its zone would
    /// change while it holds servers; [`EngineError::NotFound`], or a refusal.
    pub async fn cluster_node_add(
        &self,
        ctx: &OpCtx,
        id: ClusterId,
        name: &str,
        force: bool,
    ) -> Result<ClusterCandidate, EngineError> {
        authorize(ctx, arcus::CLUSTER_NODE_SET, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        // Held, so that two nodes which are not alike are not both taken for being the first.
        let cluster = tx.cluster_hold(id).await?.ok_or_else(|| not_found(id))?;
        let node = tx.node_by_name(name).await?.ok_or_else(|| no_node(name))?;
        let others = tx.cluster_nodes(id).await?;
        let cost = Shapes::of(others.iter().filter(|other| other.id != node.id)).candidate(&node);
        let stays = node.cluster_id == id || id == ClusterId::DEFAULT;
        let hindrance = cost.hindrances.iter().find(|one| !force || !one.forcible);
        if let Some(hindrance) = hindrance.filter(|_| !stays) {
            return Err(EngineError::Conflict {
                code: "ClusterCandidateRefused",
                message: format!("Cluster {} does not take {name}: {}", cluster.name, hindrance.words()),
            });
        }
        self.cluster_node_set(tx, id, &node, force).await?;
        Ok(cost)
    }

    /// Takes a node out of a cluster: it goes to the default one.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for the default cluster, or if its zone would change while it holds servers;
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn cluster_node_remove(&self, ctx: &OpCtx, id: ClusterId, name: &str) -> Result<(), EngineError> {
        authorize(ctx, arcus::CLUSTER_NODE_SET, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        tx.cluster_get(id).await?.ok_or_else(|| not_found(id))?;
        let node = tx.node_by_name(name).await?.filter(|node| node.cluster_id == id).ok_or_else(|| no_node(name))?;
        if id == ClusterId::DEFAULT {
            let message = format!("{name} is in the default cluster: put it into another one instead.");
            return Err(EngineError::conflict(message));
        }
        self.cluster_node_set(tx, ClusterId::DEFAULT, &node, false).await
    }

    async fn cluster_node_set(&self, tx: Tx, id: ClusterId, before: &Node, force: bool) -> Result<(), EngineError> {
        let gone = || no_node(before.name.as_str());
        if !tx.node_cluster_set(before.id, id).await? {
            return Err(gone());
        }
        let node = tx.node_get(before.id).await?.ok_or_else(gone)?;
        self.node_zone_derive(&tx, &node).await?;
        let detail = json!({ "node": node.name, "from": before.cluster_id, "to": id, "force": force });
        cluster_audit(&tx, arcus::CLUSTER_NODE_SET, id, &detail).await?;
        Ok(tx.commit().await?)
    }

    /// Which nodes' guests can go to which other nodes of the cluster: pairs by name, those after `marker`, and whether more
    /// follow.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn cluster_pairs(
        &self,
        ctx: &OpCtx,
        id: ClusterId,
        marker: Option<(&str, &str)>,
        limit: u64,
    ) -> Result<(Vec<Pair>, bool), EngineError> {
        authorize(ctx, arcus::CLUSTER_READ, &Target::default())?;
        self.store().cluster_get(id).await?.ok_or_else(|| not_found(id))?;
        let members = self.cluster_members(id).await?;
        let shapes = Shapes::of(members.iter().filter_map(|member| member.node.as_ref()));
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut pairs = shapes.pairs(marker, keep.saturating_add(1));
        let more = pairs.len() > keep;
        pairs.truncate(keep);
        Ok((pairs, more))
    }

    /// The cluster that a machine which joins goes to.
    pub(crate) async fn cluster_to_join(&self, tx: &Tx, name: Option<&str>) -> Result<Cluster, EngineError> {
        let found = match name {
            None => tx.cluster_get(ClusterId::DEFAULT).await?,
            Some(name) => tx.cluster_page(Some(name), None, 1).await?.into_iter().next(),
        };
        found.ok_or_else(|| {
            let name: String = name.unwrap_or("default").chars().take(64).collect();
            EngineError::invalid(format!("There is no cluster called {name}: see arcus cluster list."))
        })
    }
}

fn told(cluster: &Cluster) -> Value {
    json!({
        "name": cluster.name, "zone": cluster.zone, "description": cluster.description,
        "overcommit": cluster.overcommit, "filling": cluster.filling,
    })
}

async fn cluster_audit(tx: &Tx, action: Action, id: ClusterId, detail: &Value) -> Result<(), EngineError> {
    tx.audit(AuditEntry { action, kind: "cluster", id: id.to_string(), project_id: None, detail }).await?;
    Ok(())
}
