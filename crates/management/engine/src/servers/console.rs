//! Consoles: the log's end, and tickets for the serial line and the screen.

use super::allowed;
use crate::relays::ConsoleTicket;
use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Server};
use arcus_types::agent::RelayKind;
use arcus_types::policy::compute;
use arcus_types::servers::ServerState;
use arcus_types::{NodeId, OpCtx, ServerId};
use serde_json::json;
use tokio::io::AsyncReadExt;

/// The most of a console log that is read, in bytes.
const LOG_BYTES_MAX: u64 = 100 << 10;

/// Which console is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleKind {
    /// The serial line.
    Serial,
    /// The screen.
    Screen,
}

fn not_ready(server: &Server) -> EngineError {
    EngineError::Conflict { code: "InstanceNotReady", message: format!("Instance {} is not ready", server.id) }
}

impl Engine {
    async fn console_node(&self, ctx: &OpCtx, id: ServerId) -> Result<(Server, NodeId), EngineError> {
        let server = self.server_seen(self.store(), ctx, compute::SERVER_CONSOLE, id, false).await?;
        allowed(ctx, compute::SERVER_CONSOLE, &server)?;
        match server.node_id {
            Some(node) => Ok((server, node)),
            None => Err(not_ready(&server)),
        }
    }

    /// The end of a server's console log: at most `lines` lines.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for a server that has not run yet, [`EngineError::Unavailable`] if its node does not
    /// answer, [`EngineError::NotFound`], or a refusal.
    pub async fn console_log(&self, ctx: &OpCtx, id: ServerId, lines: Option<usize>) -> Result<String, EngineError> {
        let (server, node) = self.console_node(ctx, id).await?;
        if server.launched_at.is_none() && server.state == ServerState::Building {
            return Err(not_ready(&server));
        }
        let kind = RelayKind::ConsoleLog { bytes_max: LOG_BYTES_MAX };
        let stream = self.relay_open(node, id, kind).await?;
        let mut bytes = Vec::new();
        stream
            .take(LOG_BYTES_MAX)
            .read_to_end(&mut bytes)
            .await
            .map_err(|source| EngineError::Io { what: format!("read the console log of server {id}"), source })?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(lines) = lines else { return Ok(text) };
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        Ok(all[all.len().saturating_sub(lines)..].concat())
    }

    /// A ticket for a console of a server, good once.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] for a server that does not run, [`EngineError::NotFound`], or a refusal.
    pub async fn console_open(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        kind: ConsoleKind,
    ) -> Result<ConsoleTicket, EngineError> {
        let (server, node) = self.console_node(ctx, id).await?;
        match server.state {
            ServerState::Active | ServerState::Paused | ServerState::Resized | ServerState::Rescued => {}
            ServerState::Building => return Err(not_ready(&server)),
            ServerState::Stopped
            | ServerState::Suspended
            | ServerState::Shelved
            | ServerState::ShelvedOffloaded
            | ServerState::Error
            | ServerState::Deleted => {
                return Err(EngineError::Conflict {
                    code: "InstanceInvalidState",
                    message: format!("Cannot 'get_console' instance {id} while it is in vm_state {}", server.state),
                });
            }
        }
        let (relay, word) = match kind {
            ConsoleKind::Serial => (RelayKind::Serial, "serial"),
            ConsoleKind::Screen => (RelayKind::Vnc, "screen"),
        };
        let tx = self.store().begin(ctx).await?;
        tx.audit(AuditEntry {
            action: compute::SERVER_CONSOLE,
            kind: "server",
            id: id.to_string(),
            project_id: Some(server.project_id),
            detail: &json!({ "console": word }),
        })
        .await?;
        tx.commit().await?;
        self.console_ticket(node, id, relay)
    }
}
