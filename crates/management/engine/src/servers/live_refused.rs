//! Live migrations that cannot be, asked for by those who do not wait for the answer: from 2.34 of the compute API on, what is
//! in the way is found in the server's history and among the migrations.

use super::LiveMigrationWish;
use crate::{Engine, EngineError};
use arcus_store::ServerMigration;
use arcus_types::policy::compute;
use arcus_types::{MigrationId, OpCtx, ServerId, Timestamp};
use serde_json::json;

/// What stands in the way of a move, not of the request.
const IN_THE_WAY: [&str; 4] =
    ["MigrationPreCheckError", "NoValidHost", "UnableToMigrateToSelf", "ComputeServiceUnavailable"];

impl Engine {
    /// As [`Engine::server_migrate_live`], but a move that something is in the way of is recorded as one that failed.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Invalid`] for a node that there is not,
    /// [`EngineError::NotFound`], or a refusal.
    pub async fn server_migrate_live_later(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &LiveMigrationWish,
    ) -> Result<(), EngineError> {
        match self.server_migrate_live(ctx, id, wish).await {
            Err(EngineError::Invalid { code, message }) if IN_THE_WAY.contains(&code) => {
                self.live_refusal_recorded(ctx, id, wish, &message).await
            }
            other => other,
        }
    }

    async fn live_refusal_recorded(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        wish: &LiveMigrationWish,
        why: &str,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let server = self.server_held(&tx, ctx, compute::SERVER_MIGRATE, id).await?;
        let source = match server.node_id {
            Some(node) => tx.node_get(node).await?.map(|n| n.name.to_string()).unwrap_or_default(),
            None => String::new(),
        };
        let (now, flavor) = (Timestamp::now(), server.flavor.id.to_string());
        tx.server_migration_insert(&ServerMigration {
            id: MigrationId::new(),
            number: 0,
            server_id: id,
            project_id: server.project_id,
            user_id: ctx.user_id(),
            kind: "live-migration".to_owned(),
            status: "error".to_owned(),
            source_node: source,
            dest_node: wish.node.clone().unwrap_or_default(),
            old_flavor: flavor.clone(),
            new_flavor: flavor,
            created_at: now,
            updated_at: now,
        })
        .await?;
        let event = Some("conductor_live_migrate_instance");
        let detail = json!({ "refused": why });
        self.server_record(&tx, &server, compute::SERVER_MIGRATE, "live-migration", event, &detail).await?;
        tx.server_action_finish(id, ctx.request_id, now, Some(why)).await?;
        Ok(tx.commit().await?)
    }
}
