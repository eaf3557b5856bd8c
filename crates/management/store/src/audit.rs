//! The audit log and usage events: written in the transaction that they tell of, never changed.

use crate::sql::{Json, params};
use crate::{StoreError, Tx};
use arcus_types::policy::Action;
use arcus_types::{Actor, AuditId, ProjectId, Timestamp, UsageEventId};
use std::sync::atomic::Ordering;
use uuid::Uuid;

/// What was done, for the audit log.
#[derive(Debug, Clone)]
pub struct AuditEntry<'a> {
    /// The action, as the policy table names it.
    pub action: Action,
    /// What kind of thing it was done to, such as `server`.
    pub kind: &'static str,
    /// Which one.
    pub id: String,
    /// The project that owns it.
    pub project_id: Option<ProjectId>,
    /// What changed; never a secret.
    pub detail: &'a serde_json::Value,
}

/// What is used from now on, for metering.
#[derive(Debug, Clone)]
pub struct UsageEntry<'a> {
    /// Who pays.
    pub project_id: ProjectId,
    /// What kind of thing is used, such as `server`.
    pub kind: &'static str,
    /// Which one.
    pub id: Uuid,
    /// Quantities by unit, such as `{"vcpus": 2, "memory_mib": 512}`; an empty object ends the use.
    pub uses: &'a serde_json::Value,
}

impl Tx {
    /// Records what this transaction does and on whose behalf.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn audit(&self, entry: AuditEntry<'_>) -> Result<(), StoreError> {
        let actor = match self.ctx.actor {
            Actor::Anonymous => "anonymous".to_owned(),
            Actor::User { user_id, .. } => format!("user:{user_id}"),
            Actor::Node { node_id } => format!("node:{node_id}"),
            Actor::System => "system".to_owned(),
        };
        let project_id = entry.project_id.or(self.ctx.project_id());
        self.exec(
            "INSERT INTO audit_events (id, at, request_id, actor, user_id, project_id, action, target_kind, target_id, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            params![
                AuditId::new(), Timestamp::now(), self.ctx.request_id, actor, self.ctx.user_id(), project_id,
                entry.action.name, entry.kind, entry.id, Json(entry.detail)
            ],
        )
        .await?;
        self.audited.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Records that from now on something is used, or no longer.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn usage(&self, entry: UsageEntry<'_>) -> Result<(), StoreError> {
        self.exec(
            "INSERT INTO usage_events (id, at, project_id, resource_kind, resource_id, uses)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![UsageEventId::new(), Timestamp::now(), entry.project_id, entry.kind, entry.id, Json(entry.uses)],
        )
        .await?;
        Ok(())
    }
}
