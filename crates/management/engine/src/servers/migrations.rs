//! What is recorded of servers that go to other nodes or flavors, and what cannot be done.

use super::migrate::elsewhere;
use super::{admit, no_server};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerMigration, ServerMigrationFilter, Tx};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{ServerEvent, ServerRequest, ServerTask};
use arcus_types::{MigrationId, NodeId, OpCtx, ServerId, Timestamp};

impl Engine {
    /// Records that a server begins to get another flavor or node; the caller has noted both in the row.
    pub(super) async fn migration_begun(&self, tx: &Tx, server: &Server, kind: &str) -> Result<(), EngineError> {
        let name = async |id: Option<NodeId>| match id {
            Some(id) => Ok::<_, EngineError>(tx.node_get(id).await?.map(|n| n.name.to_string()).unwrap_or_default()),
            None => Ok(String::new()),
        };
        let source_node = name(server.node_id).await?;
        let dest_node = match elsewhere(server) {
            Some(place) => name(Some(place.node_id)).await?,
            None => source_node.clone(),
        };
        let now = Timestamp::now();
        let other = server.details.resize.as_ref().map_or(&server.flavor.id, |r| &r.other.id);
        tx.server_migration_insert(&ServerMigration {
            id: MigrationId::new(),
            number: 0,
            server_id: server.id,
            project_id: server.project_id,
            user_id: tx.ctx().user_id(),
            kind: kind.to_owned(),
            status: "migrating".to_owned(),
            source_node,
            dest_node,
            old_flavor: server.flavor.id.to_string(),
            new_flavor: other.to_string(),
            created_at: now,
            updated_at: now,
        })
        .await?;
        Ok(())
    }

    /// Notes what an observation means for the migration that is under way.
    pub(super) async fn migration_moved(
        &self,
        tx: &Tx,
        server: &Server,
        event: ServerEvent,
    ) -> Result<(), EngineError> {
        let task = match server.task {
            Some(
                task @ (ServerTask::ResizeStopping
                | ServerTask::ResizeFinishing
                | ServerTask::RevertStopping
                | ServerTask::RevertFinishing),
            ) => task,
            Some(_) | None => return Ok(()),
        };
        let status = match event {
            ServerEvent::Failed => "error",
            ServerEvent::Resized => "finished",
            // One that nobody asked for ends a move that has failed.
            _ if task == ServerTask::RevertFinishing && server.request_id.is_some() => "reverted",
            _ => return Ok(()),
        };
        Ok(tx.server_migration_moved(server.id, status, Timestamp::now()).await?)
    }

    /// Migrations, the newest first, and whether more follow.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a marker that is none, or a refusal: only administrators may see them.
    pub async fn migration_list(
        &self,
        ctx: &OpCtx,
        mut filter: ServerMigrationFilter,
        marker: Option<MigrationId>,
    ) -> Result<(Vec<ServerMigration>, bool), EngineError> {
        authorize(ctx, compute::MIGRATION_LIST, &Target::default())?;
        if let Some(id) = marker {
            let found = self.store().server_migration_get(id).await?;
            filter.marker =
                Some(found.ok_or_else(|| EngineError::invalid(format!("Marker {id} could not be found.")))?.number);
        }
        let mut found = self.store().server_migration_list(&filter).await?;
        let keep = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let more = found.len() > keep;
        found.truncate(keep);
        Ok((found, more))
    }

    /// Asks to bring a deleted server back. Servers are deleted at once here, so there is nothing to bring back.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] always, or [`EngineError::NotFound`], or a refusal.
    pub async fn server_restore(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let server = self.server_seen(self.store(), ctx, compute::SERVER_RESTORE, id, false).await?;
        if server.deleted_at.is_some() {
            return Err(no_server(id));
        }
        admit(ctx, &server, ServerRequest::Restore)
    }
}
