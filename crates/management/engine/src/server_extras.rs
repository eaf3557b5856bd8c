//! What clients ask about a server beside its record: how it runs, the password that its guest left, events from outside.

use crate::servers::ServerView;
use crate::{Engine, EngineError};
use arcus_store::AuditEntry;
use arcus_types::agent::RelayKind;
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::ServerState;
use arcus_types::{NodeId, OpCtx, ServerId};
use serde_json::json;

/// An event that another service tells of.
#[derive(Debug, Clone)]
pub struct ExternalEvent {
    /// What happened, such as `network-changed`.
    pub name: String,
    /// To which server.
    pub server_id: ServerId,
    /// Which part of it.
    pub tag: Option<String>,
    /// How it ended.
    pub status: String,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFate {
    /// It was recorded.
    Recorded,
    /// There is no such server.
    NoServer,
    /// The server is on no node.
    NoNode,
}

impl Engine {
    /// A server that is asked how it runs.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if it is on no node or has never run, [`EngineError::NotFound`], or a refusal.
    pub async fn server_diagnostics(&self, ctx: &OpCtx, id: ServerId) -> Result<ServerView, EngineError> {
        authorize(ctx, compute::SERVER_DIAGNOSTICS, &Target::default())?;
        let view = self.server_show(ctx, id, false).await?;
        let state = view.server.state;
        let ran = view.server.launched_at.is_some() && view.server.node_id.is_some();
        if ran && state != ServerState::Deleted {
            return Ok(view);
        }
        Err(EngineError::Conflict {
            code: "InstanceInvalidState",
            message: format!("Cannot 'get_diagnostics' instance {id} while it is in vm_state {state}"),
        })
    }

    /// Tells a guest about its network again: its metadata always do, so there is nothing left to do.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_network_inject(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        self.server_readable(ctx, compute::SERVER_NETWORK_INJECT, id).await
    }

    /// Takes in events that other services tell of. They are recorded; what follows from them this cloud sees by itself.
    ///
    /// # Errors
    /// A refusal.
    pub async fn server_events(&self, ctx: &OpCtx, events: &[ExternalEvent]) -> Result<Vec<EventFate>, EngineError> {
        authorize(ctx, compute::SERVER_EVENTS, &Target::default())?;
        let mut fates = Vec::new();
        let tx = self.store().begin(ctx).await?;
        for event in events {
            let server = tx.server_get(event.server_id).await?.filter(|s| s.deleted_at.is_none());
            let fate = match &server {
                None => EventFate::NoServer,
                Some(server) if server.node_id.is_none() => EventFate::NoNode,
                Some(server) => {
                    tx.audit(AuditEntry {
                        action: compute::SERVER_EVENTS,
                        kind: "server",
                        id: server.id.to_string(),
                        project_id: Some(server.project_id),
                        detail: &json!({ "event": event.name, "tag": event.tag, "status": event.status }),
                    })
                    .await?;
                    EventFate::Recorded
                }
            };
            fates.push(fate);
        }
        tx.commit().await?;
        Ok(fates)
    }

    /// Which server and node a console's token is for.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a token that is unknown, used or too old, or a refusal.
    pub fn console_token_show(&self, ctx: &OpCtx, token: &str) -> Result<(ServerId, NodeId, RelayKind), EngineError> {
        authorize(ctx, compute::SERVER_CONSOLE_TOKEN, &Target::default())?;
        self.console_peek(token).ok_or_else(|| EngineError::not_found("TokenNotFound", "Token", "of a console"))
    }
}
