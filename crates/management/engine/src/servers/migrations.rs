//! Servers on their way to other nodes or flavors: what is recorded of it, and what cannot be done.

use super::{admit, no_server};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerMigration, ServerMigrationFilter, Tx};
use arcus_types::policy::{Target, authorize, compute};
use arcus_types::servers::{ServerEvent, ServerRequest, ServerTask};
use arcus_types::{MigrationId, OpCtx, ServerId, Timestamp};

impl Engine {
    /// Records that a server begins to get another flavor on its node; the caller has noted the flavor in the row.
    pub(super) async fn migration_begun(&self, tx: &Tx, server: &Server, kind: &str) -> Result<(), EngineError> {
        let node = match server.node_id {
            Some(id) => tx.node_get(id).await?.map(|n| n.name.to_string()).unwrap_or_default(),
            None => String::new(),
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
            source_node: node.clone(),
            dest_node: node,
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
            _ if task == ServerTask::RevertFinishing => "reverted",
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

    /// Asks to take a server to another node by stopping and starting it. Its disk lies on its node, so no other node can
    /// take it so yet: the answer always says so.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, else [`EngineError::Invalid`] with what to do;
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_migrate(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let server = self.server_seen(self.store(), ctx, compute::SERVER_MIGRATE, id, false).await?;
        authorize(ctx, compute::SERVER_MIGRATE, &Target::default())?;
        admit(ctx, &server, ServerRequest::Migrate)?;
        let others = self.store().node_list().await?.into_iter().filter(|n| Some(n.id) != server.node_id).count();
        let why = if others == 0 {
            "The cloud has no other node."
        } else {
            "The server's disk lies on its node: migrate it live, or shelve and unshelve it."
        };
        Err(EngineError::Invalid { code: "NoValidHost", message: format!("No valid host was found. {why}") })
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
