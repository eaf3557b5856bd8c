//! What is held of each node: who is heard of, who is lost, and who is back.
//!
//! A node has a lease and renews it by asking ([`Engine::node_lease`]). One that was silent for the length of a lease and a
//! margin is lost: by then it has noticed by itself that its lease is over. Silence counts only while this process listens.
//! What the states are and how they follow from each other is told in [`arcus_types::nodes`].

use crate::nodes::NodeMemory;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Node, NodeStateNew};
use arcus_types::nodes::{LEASE_MARGIN_MS, LEASE_MS, MASS_LOSS_S, NodeEvent, NodeState, is_mass_loss, node_event};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::{ClusterId, NodeId, OpCtx, Timestamp};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Where replicas share a database, a node that another one hears of was heard of up to so much later than is written.
const SHARED_AGE: Duration = Duration::from_secs(35);

/// A node as it was looked at.
struct Watched {
    id: NodeId,
    zone: String,
    state: NodeState,
    held: bool,
    /// Whether it was lost lately.
    recent: bool,
    next: NodeState,
}

impl Watched {
    fn is_silent(&self) -> bool {
        self.next == NodeState::Suspect || (self.next == NodeState::Lost && (self.state != self.next || self.recent))
    }

    fn counts(&self) -> bool {
        self.state != NodeState::Dead && (self.state != NodeState::Lost || self.recent)
    }
}

impl Engine {
    /// Looks who is heard of and who is not, and moves nodes from state to state; how many moved. To be called every second
    /// or so: a process that does not, counts as having slept.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn nodes_watch(&self, now: Instant) -> Result<usize, EngineError> {
        let awake_since = self.node_memory().awake_since(now);
        let at = Timestamp::now();
        let shared = if self.store().is_postgres() { SHARED_AGE } else { Duration::ZERO };
        let look = |node: &Node| {
            let heard = last_heard(self.node_memory(), node, shared, now, at)?.max(awake_since);
            let event = node_event(now.saturating_duration_since(heard), shared, false);
            Some(Watched {
                id: node.id,
                zone: node.availability_zone.clone(),
                state: node.state,
                held: node.held,
                recent: node.state == NodeState::Lost && node.state_at.plus_seconds(MASS_LOSS_S) >= at,
                next: node.state.after(event),
            })
        };
        let mut nodes = self.fleet_pick(usize::MAX, |member| member.node.as_ref().and_then(look)).await?;
        for node in nodes.iter_mut().filter(|node| node.next == NodeState::Back && node.state == NodeState::Back) {
            let acted = self.node_memory().heard(node.id).map_or(0, |(_, generation)| generation);
            if self.store().node_spec_generation(node.id).await?.is_some_and(|wished| acted >= wished) {
                node.next = node.state.after(NodeEvent::Settled);
            }
        }
        let mut zones: HashMap<&str, (usize, usize)> = HashMap::new();
        for node in nodes.iter().filter(|node| node.counts()) {
            let (silent, of) = zones.entry(&node.zone).or_default();
            *of += 1;
            *silent += usize::from(node.is_silent());
        }
        let mut moved = 0;
        for node in &nodes {
            let (silent, of) = zones.get(node.zone.as_str()).copied().unwrap_or_default();
            let mass = node.next == NodeState::Lost && node.is_silent() && is_mass_loss(silent, of);
            if node.next != node.state || (mass && !node.held) {
                let silence = LEASE_MS + LEASE_MARGIN_MS;
                let reason = match node.next {
                    NodeState::Lost if mass => Some(format!(
                        "{silent} of {of} nodes of zone {} fell silent together: nothing of them is started elsewhere by itself",
                        node.zone
                    )),
                    NodeState::Lost => Some(format!("it was not heard of for {} s", silence / 1_000)),
                    NodeState::Suspect => Some("it did not renew its lease".to_owned()),
                    NodeState::Back => Some("it is heard of again and catches up".to_owned()),
                    NodeState::Up | NodeState::Dead => None,
                };
                moved += usize::from(self.node_moved(node, reason.as_deref(), mass, now).await?);
            }
        }
        Ok(moved)
    }

    async fn node_moved(
        &self,
        node: &Watched,
        reason: Option<&str>,
        held: bool,
        now: Instant,
    ) -> Result<bool, EngineError> {
        // From here on it gets no lease, so none is good when it is started elsewhere.
        if node.next == NodeState::Lost && !self.node_memory().bar(node.id, now) {
            return Ok(false);
        }
        let to = NodeStateNew { state: node.next, at: Timestamp::now(), reason, held };
        let tx = self.store().begin(&OpCtx::system()).await?;
        if !tx.node_state_set(node.id, node.state, &to).await? {
            return Ok(false);
        }
        tx.audit(AuditEntry {
            action: arcus::NODE_WATCH,
            kind: "node",
            id: node.id.to_string(),
            project_id: None,
            detail: &json!({ "from": node.state.text(), "to": to.state.text(), "reason": reason, "held": held }),
        })
        .await?;
        tx.commit().await?;
        if node.next == NodeState::Back {
            self.node_memory().unbar(node.id);
        }
        match to.state {
            NodeState::Up | NodeState::Back => {
                tracing::info!(node.id = %node.id, from = %node.state, to = %to.state, "a node changed")
            }
            NodeState::Suspect | NodeState::Lost | NodeState::Dead => {
                tracing::warn!(node.id = %node.id, from = %node.state, to = %to.state, reason, held, "a node changed");
            }
        }
        Ok(true)
    }

    /// Nodes by name with what is held of them, those after `marker`, and whether more follow; only those of `cluster`, if one is
    /// named.
    ///
    /// # Errors
    /// A refusal.
    pub async fn node_page(
        &self,
        ctx: &OpCtx,
        cluster: Option<ClusterId>,
        marker: Option<&str>,
        limit: u64,
    ) -> Result<(Vec<Node>, bool), EngineError> {
        authorize(ctx, arcus::NODE_LIST, &Target::default())?;
        let mut found = self.store().node_page(cluster, marker, limit.saturating_add(1)).await?;
        let keep = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        found.truncate(keep);
        Ok((found, more))
    }
}

/// When a node was last heard of by anybody; `None` if it never was.
fn last_heard(memory: &NodeMemory, node: &Node, shared: Duration, now: Instant, at: Timestamp) -> Option<Instant> {
    let own = memory.heard(node.id).map(|(heard, _)| heard);
    if own.is_none() && node.seen_at == Timestamp(0) {
        return None;
    }
    let age_us = u64::try_from(at.0.saturating_sub(node.seen_at.0)).unwrap_or(0);
    let written = now.checked_sub(Duration::from_micros(age_us));
    // Where nobody else hears nodes, one that this process has not heard of yet is as silent as this process is awake.
    let written = if shared.is_zero() { None } else { written };
    let never = || now.checked_sub(shared + Duration::from_millis(LEASE_MS + LEASE_MARGIN_MS)).unwrap_or(now);
    Some(own.max(written).unwrap_or_else(never))
}
