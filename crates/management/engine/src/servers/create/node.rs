//! The node of a new server: placement proposes, a conditional write decides.

use super::ZoneWish;
use crate::{Engine, EngineError};
use arcus_placement::{Around, Candidate, Decision, GroupRule, Needs, image_mark};
use arcus_store::{Db, GroupPolicy, Node, PlacementDecision, Server, ServerFault, ServerGroup, Tx};
use arcus_types::placement::DecisionRecord;
use arcus_types::servers::ServerState;
use arcus_types::{NodeId, ProjectId, ServerId, Timestamp};
use serde_json::Value;

/// The node that a server goes to.
pub(in crate::servers) struct NodeChosen {
    /// The node.
    pub node_id: NodeId,
    /// Its zone.
    pub zone: String,
}

/// How often a decision is made anew because others took the room on all the nodes that were proposed.
const ROUNDS_MAX: usize = 4;

/// A decision, and what came of it.
pub(in crate::servers) struct Placed {
    /// The decision.
    pub decision: Decision,
    /// As it is kept.
    pub record: DecisionRecord,
    /// The node whose room is claimed, if there is one.
    pub node: Option<Candidate>,
}

impl Engine {
    /// What a request about this group knows of single nodes.
    pub(in crate::servers) async fn around(&self, db: &Db, group: Option<&ServerGroup>) -> Result<Around, EngineError> {
        let mut around = Around::default();
        if let Some(group) = group {
            for (_, _, node) in db.server_group_members(&[group.id]).await? {
                if let Some(node) = node {
                    *around.group_members.entry(node).or_default() += 1;
                }
            }
        }
        Ok(around)
    }

    /// The same for a server that is in the group already and looks for another node: it counts without it.
    pub(in crate::servers) async fn around_without(
        &self,
        db: &Db,
        server: &Server,
        group: Option<&ServerGroup>,
    ) -> Result<Around, EngineError> {
        let mut around = self.around(db, group).await?;
        if let Some(members) = server.node_id.and_then(|node| around.group_members.get_mut(&node)) {
            *members = members.saturating_sub(1);
        }
        Ok(around)
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
        db: &Db,
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
                let server = db.server_get(id).await?.filter(|s| s.project_id == project && s.deleted_at.is_none());
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

    /// A node for a server that exists and has none, with its room claimed and the decision recorded; `occasion` says what it
    /// is for, such as `unshelve`.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if no node can take it.
    pub(in crate::servers) async fn node_for(
        &self,
        tx: &Tx,
        server: &Server,
        occasion: &str,
        needs: Needs,
    ) -> Result<NodeChosen, EngineError> {
        let group = self.group_of(tx, server).await?;
        let mut needs = self.hinted(tx, needs, server.project_id, &server.details.scheduler_hints).await?;
        // Its volumes stay where they are.
        if let Some(attachment) = tx.volume_attachments_by_servers(&[server.id]).await?.first()
            && let Some(node) = tx.volume_get(attachment.volume_id).await?.and_then(|v| v.node_id)
        {
            needs.node = tx.node_get(node).await?.map(|n| n.name.to_string());
        }
        let mut around = self.around_without(tx, server, group.as_ref()).await?;
        if let Some(pool) = server.details.disk_pool {
            let unseeing = |n: &Node| (n.facts.disk_pool != Some(pool)).then_some(n.id);
            let nodes = self.fleet_known(usize::MAX, |m| unseeing(m.node.as_ref()?));
            let why = "it does not see the shared folder of the server's disks";
            around.unsuited = nodes.into_iter().map(|id| (id, why.to_owned())).collect();
        }
        let placed = self.node_claimed(tx, &needs, group.as_ref(), &mut around).await?;
        self.placement_recorded(tx, server.id, occasion, &placed).await?;
        match placed.node {
            Some(chosen) => Ok(NodeChosen { node_id: chosen.node_id, zone: chosen.zone.to_string() }),
            None => Err(EngineError::Conflict {
                code: "NoValidHost",
                message: format!("No valid host was found. {}", placed.decision.summary()),
            }),
        }
    }

    /// The group of a server.
    pub(in crate::servers) async fn group_of(
        &self,
        db: &Db,
        server: &Server,
    ) -> Result<Option<ServerGroup>, EngineError> {
        Ok(match server.server_group_id {
            Some(id) => db.server_group_get(id).await?,
            None => None,
        })
    }

    /// The best node that still has room, with that room claimed.
    pub(in crate::servers) async fn node_claimed(
        &self,
        tx: &Tx,
        needs: &Needs,
        group: Option<&ServerGroup>,
        around: &mut Around,
    ) -> Result<Placed, EngineError> {
        let needs = Needs { group: group_rule(group, around), ..needs.clone() };
        let mut decision = self.fleet_decide(&needs, around);
        for _ in 0..ROUNDS_MAX {
            while let Some(best) = decision.ranked.first() {
                let node_id = best.candidate.node_id;
                if tx.node_claim(node_id, needs.vcpus, needs.memory_mib, needs.disk_gib).await? {
                    around.claim(node_id, &needs, group.is_some());
                    let node = Some(best.candidate.clone());
                    return Ok(Placed { record: decision.record(&needs, Some(node_id)), decision, node });
                }
                around.taken.insert(node_id);
                decision.taken(node_id);
            }
            if decision.fit == 0 {
                break;
            }
            decision = self.fleet_decide(&needs, around);
        }
        Ok(Placed { record: decision.record(&needs, None), decision, node: None })
    }

    /// Records where a server goes, or why nowhere.
    pub(in crate::servers) async fn placement_recorded(
        &self,
        tx: &Tx,
        server_id: ServerId,
        occasion: &str,
        placed: &Placed,
    ) -> Result<(), EngineError> {
        let decision = PlacementDecision {
            server_id,
            request_id: tx.ctx().request_id,
            occasion: occasion.to_owned(),
            node: placed.node.as_ref().map(|node| (node.node_id, node.name.to_string())),
            record: placed.record.clone(),
            decided_at: Timestamp::now(),
        };
        Ok(tx.placement_decision_insert(&decision, occasion == "create").await?)
    }
}

/// What a server that exists needs of a node: what it has claimed, or would again.
pub(in crate::servers) fn needs_of(server: &Server, node: Option<String>) -> Needs {
    let sha256 = server.details.disk_source.as_ref().map_or(&server.image.sha256, |source| &source.sha256);
    let (vcpus, memory_mib) = match server.node_id {
        Some(_) => (server.vcpus, server.memory_mib),
        None => (u64::from(server.flavor.vcpus), server.flavor.memory_mib),
    };
    Needs {
        vcpus,
        memory_mib,
        disk_gib: server.disk_gib,
        zone: server.details.zone_asked.clone(),
        node,
        image: image_mark(sha256),
        ..Needs::default()
    }
}

/// The rule of a group, as its servers live now.
pub(in crate::servers) fn group_rule(group: Option<&ServerGroup>, around: &Around) -> GroupRule {
    let Some(group) = group else { return GroupRule::None };
    let placed = around.group_members.values().sum::<u64>();
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
    server.details.local_gib = 0;
    server.fault = Some(ServerFault {
        code: 500,
        message: format!("No valid host was found. {}", decision.summary()),
        details: decision.explanation(),
        at: server.created_at,
        transient: false,
    });
}
