//! The node of a new server: placement proposes, a conditional write decides.

use super::ZoneWish;
use crate::{Engine, EngineError};
use arcus_placement::{Amounts, Candidate, Decision, GroupRule, Needs, decide};
use arcus_store::{GroupPolicy, Node, Server, ServerFault, ServerGroup, Tx};
use arcus_types::servers::ServerState;
use arcus_types::{NodeId, ProjectId, Timestamp};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The node that a server goes to.
pub(in crate::servers) struct NodeChosen {
    /// The node.
    pub node_id: NodeId,
    /// Its zone.
    pub zone: String,
}

impl Engine {
    /// The nodes as placement sees them: from the inventory in memory, refreshed before the transaction began.
    pub(in crate::servers) async fn candidates(
        &self,
        tx: &Tx,
        group: Option<&ServerGroup>,
        image_sha256: &str,
    ) -> Result<Vec<Candidate>, EngineError> {
        let mut members: HashMap<_, u64> = HashMap::new();
        if let Some(group) = group {
            for (_, _, node) in tx.server_group_members(&[group.id]).await? {
                if let Some(node) = node {
                    *members.entry(node).or_default() += 1;
                }
            }
        }
        let now = Timestamp::now();
        Ok(self.fleet_known(usize::MAX, |member| {
            let node = member.node.as_ref()?;
            Some(Candidate {
                node_id: node.id,
                alive: self.node_alive(node, now),
                has_image: node.facts.cached_images.iter().any(|cached| cached == image_sha256),
                group_members: members.get(&node.id).copied().unwrap_or(0),
                name: node.name.to_string(),
                zone: node.availability_zone.clone(),
                disabled: closed(node),
                cap: Amounts { vcpus: node.vcpus_cap, memory_mib: node.memory_mib_cap, disk_gib: node.disk_gib_cap },
                used: Amounts {
                    vcpus: node.vcpus_used,
                    memory_mib: node.memory_mib_used,
                    disk_gib: node.disk_gib_used,
                },
            })
        }))
    }

    /// A server's new disks are made where its node makes disks.
    pub(in crate::servers) fn disk_pool_set(&self, server: &mut Server, node: NodeId) {
        let of = |node: &Node| (!server.details.volume_root).then_some(node.facts.disk_pool).flatten();
        let found = self.fleet_known(1, |m| m.node.as_ref().filter(|n| n.id == node).map(of));
        server.details.disk_pool = found.into_iter().next().flatten();
    }

    /// Whether a node was heard of lately.
    pub(crate) fn node_alive(&self, node: &Node, now: Timestamp) -> bool {
        let limit = i64::try_from(self.config().node_down_after_s).unwrap_or(i64::MAX);
        !node.state.is_down() && node.seen_at.plus_seconds(limit) >= now
    }

    /// The needs with what the owner's hints add. A server that is gone or another project's is nowhere.
    pub(in crate::servers) async fn hinted(
        &self,
        tx: &Tx,
        mut needs: Needs,
        project: ProjectId,
        hints: &Value,
    ) -> Result<Needs, EngineError> {
        for (hint, same) in [("same_host", true), ("different_host", false)] {
            let ids = match hints.get(hint) {
                Some(Value::Array(ids)) => ids.clone(),
                Some(id @ Value::String(_)) => vec![id.clone()],
                Some(_) | None => continue,
            };
            let mut nodes = Vec::new();
            for id in ids.iter().filter_map(|id| id.as_str()?.parse().ok()) {
                let server = tx.server_get(id).await?.filter(|s| s.project_id == project && s.deleted_at.is_none());
                nodes.extend(server.and_then(|s| s.node_id));
            }
            if same {
                needs.beside = Some(nodes);
            } else {
                needs.away_from = nodes;
            }
        }
        Ok(needs)
    }

    /// A node for a server that exists and has none, with its room claimed.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if no node can take it.
    pub(in crate::servers) async fn node_for(
        &self,
        tx: &Tx,
        server: &Server,
        needs: Needs,
    ) -> Result<NodeChosen, EngineError> {
        let group = match server.server_group_id {
            Some(id) => tx.server_group_get(id).await?,
            None => None,
        };
        let needs = self.hinted(tx, needs, server.project_id, &server.details.scheduler_hints).await?;
        // Its volumes stay where they are.
        let mut needs = needs;
        if let Some(attachment) = tx.volume_attachments_by_servers(&[server.id]).await?.first()
            && let Some(node) = tx.volume_get(attachment.volume_id).await?.and_then(|v| v.node_id)
        {
            needs.node = tx.node_get(node).await?.map(|n| n.name.to_string());
        }
        let sha256 = server.details.disk_source.as_ref().map_or(&server.image.sha256, |s| &s.sha256);
        let mut candidates = self.candidates(tx, group.as_ref(), sha256).await?;
        if server.details.disk_pool.is_some() {
            let sees = |n: &Node| (n.facts.disk_pool == server.details.disk_pool).then_some(n.id);
            let seeing: HashSet<_> = self.fleet_known(usize::MAX, |m| sees(m.node.as_ref()?)).into_iter().collect();
            for candidate in candidates.iter_mut().filter(|c| !seeing.contains(&c.node_id) && c.disabled.is_none()) {
                candidate.disabled = Some("it does not see the shared folder of the server's disks".to_owned());
            }
        }
        let (decision, chosen) = self.node_claimed(tx, needs, group.as_ref(), &mut candidates).await?;
        match chosen {
            Some(chosen) => Ok(NodeChosen { node_id: chosen.node_id, zone: chosen.zone }),
            None => Err(EngineError::Conflict {
                code: "NoValidHost",
                message: format!("No valid host was found. {}", decision.summary()),
            }),
        }
    }

    /// The best node that still has room, with that room claimed.
    pub(in crate::servers) async fn node_claimed(
        &self,
        tx: &Tx,
        needs: Needs,
        group: Option<&ServerGroup>,
        candidates: &mut [Candidate],
    ) -> Result<(Decision, Option<Candidate>), EngineError> {
        let placed = candidates.iter().map(|c| c.group_members).sum::<u64>();
        let needs = Needs { group: group.map_or(GroupRule::None, |g| group_rule(g, placed)), ..needs };
        let mut decision = decide(&needs, candidates);
        let ranked: Vec<_> = decision.ranked().collect();
        for node_id in ranked {
            if tx.node_claim(node_id, needs.vcpus, needs.memory_mib, needs.disk_gib).await? {
                let chosen = candidates.iter_mut().find(|c| c.node_id == node_id);
                let Some(chosen) = chosen else { continue };
                chosen.used.vcpus += needs.vcpus;
                chosen.used.memory_mib += needs.memory_mib;
                chosen.used.disk_gib += needs.disk_gib;
                if group.is_some() {
                    chosen.group_members += 1;
                }
                let chosen = chosen.clone();
                return Ok((decision, Some(chosen)));
            }
            decision.taken(node_id);
        }
        Ok((decision, None))
    }
}

/// Why a node takes no new servers, if so.
fn closed(node: &Node) -> Option<String> {
    if !node.enabled {
        return Some(node.disabled_reason.clone().unwrap_or_default());
    }
    let why = || node.state_reason.clone().unwrap_or_else(|| node.state.to_string());
    (!node.state.takes_servers()).then(why)
}

fn group_rule(group: &ServerGroup, placed: u64) -> GroupRule {
    match group.policy {
        GroupPolicy::Affinity | GroupPolicy::SoftAffinity if placed == 0 => GroupRule::None,
        GroupPolicy::Affinity => GroupRule::Together,
        GroupPolicy::SoftAffinity => GroupRule::RatherTogether,
        GroupPolicy::AntiAffinity => GroupRule::Apart { servers_per_node_max: group.servers_per_node_max.max(1) },
        GroupPolicy::SoftAntiAffinity => GroupRule::RatherApart,
    }
}

/// Refuses a zone or node that is not there, as far as the inventory in memory knows: refresh it before.
pub(in crate::servers) fn zone_checked(engine: &Engine, wish: &ZoneWish) -> Result<(), EngineError> {
    let any = |fits: &dyn Fn(&Node) -> bool| {
        !engine.fleet_known(1, |m| m.node.as_ref().is_some_and(fits).then_some(())).is_empty()
    };
    if let Some(zone) = &wish.zone
        && !any(&|n| n.availability_zone == *zone)
    {
        return Err(EngineError::invalid("The requested availability zone is not available"));
    }
    if let Some(name) = &wish.node
        && !any(&|n| n.name.as_str() == name)
    {
        return Err(EngineError::invalid(format!("Compute host {name} could not be found.")));
    }
    Ok(())
}

/// A server that no node can take.
pub(super) fn unplaced(server: &mut Server, decision: &Decision) {
    server.state = ServerState::Error;
    server.task = None;
    server.task_deadline = None;
    server.vcpus = 0;
    server.memory_mib = 0;
    server.disk_gib = 0;
    server.fault = Some(ServerFault {
        code: 500,
        message: format!("No valid host was found. {}", decision.summary()),
        details: decision.explanation(),
        at: server.created_at,
        transient: false,
    });
}
