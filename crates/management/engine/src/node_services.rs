//! Nodes as services that administrators open, close, declare down and forget.

use crate::hypervisors::{Hypervisor, no_node};
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, NodeStateNew, StoreError, Tx};
use arcus_types::nodes::{LEASE_MS, NodeEvent, NodeState};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::{NodeId, OpCtx, Timestamp};
use serde_json::json;
use std::time::Duration;

/// What shall change about a node; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct ServiceChange {
    /// Whether it takes new servers, and if not, why.
    pub enabled: Option<(bool, Option<String>)>,
    /// Whether it counts as down, whatever it says itself.
    pub forced_down: Option<bool>,
}

impl Engine {
    /// Opens or closes a node for new servers, or declares it down.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn service_change(
        &self,
        ctx: &OpCtx,
        id: NodeId,
        change: &ServiceChange,
    ) -> Result<Hypervisor, EngineError> {
        authorize(ctx, compute::SERVICE_WRITE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        if let Some((enabled, reason)) = &change.enabled
            && !tx.node_enable(id, *enabled, reason.as_deref()).await?
        {
            return Err(no_node(id));
        }
        let mut back = false;
        if let Some(down) = change.forced_down {
            back = self.node_declared(&tx, id, down).await?;
        }
        tx.audit(AuditEntry {
            action: compute::SERVICE_WRITE,
            kind: "node",
            id: id.to_string(),
            project_id: None,
            detail: &json!({ "enabled": change.enabled, "forced_down": change.forced_down }),
        })
        .await?;
        tx.commit().await?;
        if back {
            self.node_memory().unbar(id);
        }
        let all = self.hypervisors().await?;
        all.into_iter().find(|h| h.node.id == id).ok_or_else(|| no_node(id))
    }

    /// Declares a node dead, or takes that back; whether it counts as back.
    async fn node_declared(&self, tx: &Tx, id: NodeId, dead: bool) -> Result<bool, EngineError> {
        let node = tx.node_get(id).await?.ok_or_else(|| no_node(id))?;
        let mut state = node.state.after(if dead { NodeEvent::Declared } else { NodeEvent::TakenBack });
        let heard = self.node_memory().heard(id).is_some_and(|(at, _)| at.elapsed() < Duration::from_millis(LEASE_MS));
        if node.state == NodeState::Dead && !dead && heard {
            state = state.after(NodeEvent::Heard);
        }
        if state == node.state {
            return Ok(false);
        }
        let reason = if dead { "an operator declared it dead" } else { "an operator says that it is not dead" };
        let to = NodeStateNew { state, at: Timestamp::now(), reason: Some(reason), held: false };
        if !tx.node_state_set(id, node.state, &to).await? {
            return Err(EngineError::conflict(format!("Node {} changed meanwhile: try again.", node.name)));
        }
        tracing::warn!(node.id = %id, from = %node.state, to = %state, reason, "a node changed");
        Ok(state == NodeState::Back)
    }

    /// Forgets a node that holds nothing. A node that still reports is refused from then on: stop its agent first.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] while servers, volumes or an aggregate are on it, [`EngineError::NotFound`], or a refusal.
    pub async fn service_delete(&self, ctx: &OpCtx, id: NodeId) -> Result<(), EngineError> {
        authorize(ctx, compute::SERVICE_DELETE, &Target::default())?;
        let tx = self.store().begin(ctx).await?;
        let node = tx.node_get(id).await?.ok_or_else(|| no_node(id))?;
        let held = || {
            EngineError::conflict(format!(
                "Unable to delete compute service that is hosting instances or volumes. Remove them from {} first.",
                node.name
            ))
        };
        if !tx.server_list_by_node(id).await?.is_empty() {
            return Err(held());
        }
        tx.servers_gone_detach(id).await?;
        match tx.node_delete(id).await {
            Ok(true) => {}
            Ok(false) => return Err(no_node(id)),
            Err(StoreError::Referenced(_)) => return Err(held()),
            Err(error) => return Err(error.into()),
        }
        tx.audit(AuditEntry {
            action: compute::SERVICE_DELETE,
            kind: "node",
            id: id.to_string(),
            project_id: None,
            detail: &json!({ "name": node.name }),
        })
        .await?;
        Ok(tx.commit().await?)
    }
}
