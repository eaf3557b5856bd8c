//! Live migrations that belong to something larger: room for a server on another node, claimed before or when its move begins.

use super::{LiveMigrationWish, admit};
use crate::maintenance::{LiveBegun, LivePlace};
use crate::{Engine, EngineError};
use arcus_placement::{Amounts, Around};
use arcus_store::{Server, Tx};
use arcus_types::servers::ServerRequest;
use arcus_types::{NodeId, OpCtx, ServerId, TaskId};
use serde_json::json;
use std::collections::HashMap;

impl Engine {
    async fn node_called(&self, tx: &Tx, id: Option<NodeId>) -> Result<Option<String>, EngineError> {
        match id {
            Some(id) => Ok(tx.node_get(id).await?.map(|node| node.name.to_string())),
            None => Ok(None),
        }
    }

    /// Claims room for a server on another node that could run it; `taken` is what this transaction has claimed already.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with what keeps the server where it is.
    pub(crate) async fn live_room(
        &self,
        tx: &Tx,
        server: &Server,
        place: &LivePlace,
        taken: &HashMap<NodeId, Amounts>,
    ) -> Result<NodeId, EngineError> {
        let wish = LiveMigrationWish { node: self.node_called(tx, place.only).await?, ..Default::default() };
        let source = self.live_source(tx, server, &wish).await?;
        let known = Around {
            claimed: taken.clone(),
            // The node that is restored has been opened by this transaction.
            opened: place.only.into_iter().collect(),
            ..Around::default()
        };
        Ok(self.live_destination(tx, server, &source, wish.node.clone(), known).await?.id)
    }

    /// Begins to move a server as a part of a task. The caller holds the server's row.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] with what is in the way.
    pub(crate) async fn live_begin_for(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        server: &mut Server,
        place: &LivePlace,
        task: TaskId,
    ) -> Result<LiveBegun, EngineError> {
        admit(ctx, server, ServerRequest::LiveMigrate)?;
        let wish = LiveMigrationWish { node: self.node_called(tx, place.only).await?, ..Default::default() };
        let source = self.live_source(tx, server, &wish).await?;
        let kept = Amounts { vcpus: server.vcpus, memory_mib: server.memory_mib, disk_gib: server.disk_gib };
        // What is known of that node counts the room that was just given back.
        let known = Around { freed: place.first.map(|node| (node, kept)).into_iter().collect(), ..Around::default() };
        let first = self.node_called(tx, place.first.filter(|_| place.only.is_none())).await?;
        let planned = match first {
            Some(name) => match self.live_destination(tx, server, &source, Some(name), known.clone()).await {
                Ok(dest) => Some(dest),
                Err(EngineError::Invalid { .. }) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let dest = match planned {
            Some(dest) => dest,
            None => self.live_destination(tx, server, &source, wish.node.clone(), known).await?,
        };
        let migration = self.live_begin(tx, server, &source, &dest, &wish).await?;
        let told = json!({ "migration": migration, "source": source.name, "target": dest.name });
        tx.task_describe(server.id.0, ctx.request_id, Some(task), &told).await?;
        Ok(LiveBegun { migration, target: dest.id })
    }

    /// Gives a server's move up if that is still possible.
    pub(crate) async fn live_cancel_if_possible(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        let Some(live) = self.store().live_migration_of(id).await?.filter(|live| !live.progress.cancel) else {
            return Ok(());
        };
        let Some(record) = self.store().server_migration_get(live.id).await? else { return Ok(()) };
        match self.server_migration_change(ctx, id, record.number, false, true).await {
            Err(EngineError::Invalid { .. } | EngineError::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
