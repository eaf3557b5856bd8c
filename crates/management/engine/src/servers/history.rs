//! What was done to a server.

use super::{allowed, no_server};
use crate::{Engine, EngineError};
use arcus_store::{ServerAction, ServerActionFilter};
use arcus_types::policy::compute;
use arcus_types::{OpCtx, RequestId, ServerId};

impl Engine {
    /// What was done to a server, the newest first, and whether more follows. Also for a server that is gone.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Invalid`] for a marker that is none, or a refusal.
    pub async fn server_actions(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        filter: &ServerActionFilter,
    ) -> Result<(Vec<ServerAction>, bool), EngineError> {
        let server = self.store().server_get(id).await?.ok_or_else(|| no_server(id))?;
        allowed(ctx, compute::SERVER_ACTIONS_READ, &server)?;
        if let Some(marker) = filter.marker
            && self.store().server_action_get(id, marker).await?.is_none()
        {
            return Err(EngineError::invalid(format!("Marker {} not found.", marker.header())));
        }
        let mut actions = self.store().server_action_list(id, filter).await?;
        let keep = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let more = actions.len() > keep;
        actions.truncate(keep);
        Ok((actions, more))
    }

    /// One thing that was done to a server.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_action_get(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        request: RequestId,
    ) -> Result<ServerAction, EngineError> {
        let server = self.store().server_get(id).await?.ok_or_else(|| no_server(id))?;
        allowed(ctx, compute::SERVER_ACTIONS_READ, &server)?;
        let found = self.store().server_action_get(id, request).await?;
        found.ok_or_else(|| EngineError::not_found("ActionNotFound", "Action", request.header()))
    }
}
