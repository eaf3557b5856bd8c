//! Nothing stays stuck: what was not over in time is ended here.

use super::image::images_held;
use super::migrate::moves;
use super::retried;
use crate::{Engine, EngineError};
use arcus_store::ServerFault;
use arcus_types::policy::compute;
use arcus_types::servers::ServerTask;
use arcus_types::{OpCtx, ServerId, Timestamp};
use serde_json::json;

/// Servers that one sweep looks at.
const BATCH: u32 = 200;
/// How long the record of a server that is gone is kept, in seconds.
const RECORD_KEPT_S: i64 = 30 * 24 * 3600;

impl Engine {
    /// Ends tasks that were not over in time, and forgets servers that have long been gone. To be called now and then;
    /// how many tasks it ended.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn servers_sweep(&self, now: Timestamp) -> Result<u32, EngineError> {
        let mut ended = 0;
        for id in self.store().server_list_overdue(now, BATCH).await? {
            let ctx = OpCtx::system();
            if retried!({ self.server_overdue(&ctx, id, now).await })? {
                ended += 1;
            }
        }
        let tx = self.store().begin_unaudited().await?;
        tx.server_purge(now.plus_seconds(-RECORD_KEPT_S)).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn server_overdue(&self, ctx: &OpCtx, id: ServerId, now: Timestamp) -> Result<bool, EngineError> {
        let tx = self.store().begin(ctx).await?;
        let Some(mut server) = tx.server_lock(id).await?.filter(|s| s.deleted_at.is_none()) else { return Ok(false) };
        let (Some(task), Some(deadline)) = (server.task, server.task_deadline) else { return Ok(false) };
        if deadline >= now {
            return Ok(false);
        }
        tracing::warn!(server.id = %id, task = %task, "a task was not over in time");
        let held = images_held(&server);
        if moves(&server) && self.move_overdue(&tx, &mut server, now).await? {
            tx.commit().await?;
            self.images_let_go(held, &server).await;
            self.wake().all();
            return Ok(true);
        }
        match task {
            // The node does not name it in its spec any more and takes it down when it comes back.
            ServerTask::Deleting => {
                self.server_touch(&tx, &mut server).await?;
                self.server_remove_in(&tx, &mut server, compute::SERVER_DELETE).await?;
            }
            ServerTask::ImageSnapshot | ServerTask::ImageBackup | ServerTask::ShelvingSnapshot => {
                self.snapshots_give_up(&tx, &server).await?;
                if task == ServerTask::ShelvingSnapshot {
                    server.details.shelve = None;
                }
                server.task = None;
                server.task_deadline = None;
                server.updated_at = now;
                self.server_touch(&tx, &mut server).await?;
                self.server_audit(&tx, &server, compute::SERVER_SNAPSHOT, &json!({ "overdue": true })).await?;
                tx.server_update(&mut server).await?;
            }
            ServerTask::Migrating => self.live_overdue(&tx, &mut server, now).await?,
            // Its node does not answer: the image is complete, and it can be let go of later.
            ServerTask::ShelvingOffloading => {
                server.task = None;
                server.task_deadline = None;
                if let Some(request) = server.request_id.take() {
                    let why = "The node did not let go of the server in time.";
                    tx.server_action_finish(id, request, now, Some(why)).await?;
                }
                self.server_audit(&tx, &server, compute::SERVER_SHELVE, &json!({ "overdue": true })).await?;
                tx.server_update(&mut server).await?;
            }
            ServerTask::Spawning
            | ServerTask::Rebooting
            | ServerTask::RebootingHard
            | ServerTask::PoweringOn
            | ServerTask::PoweringOff
            | ServerTask::Pausing
            | ServerTask::Unpausing
            | ServerTask::Suspending
            | ServerTask::Resuming
            | ServerTask::Rebuilding
            | ServerTask::RebuildingVolume
            | ServerTask::RebuildFinishing
            | ServerTask::ResizeStopping
            | ServerTask::ResizeCopying
            | ServerTask::ResizeFinishing
            | ServerTask::RevertStopping
            | ServerTask::RevertFinishing
            | ServerTask::Rescuing
            | ServerTask::Unrescuing
            | ServerTask::Shelving
            | ServerTask::Unshelving
            | ServerTask::UpdatingPassword => {
                let fault = ServerFault {
                    code: 500,
                    message: format!(
                        "The task '{}' was not over within {} minutes. Its node may be down; the server recovers if the node comes back.",
                        task.task_state(),
                        task.deadline_s() / 60
                    ),
                    details: String::new(),
                    at: now,
                    transient: true,
                };
                self.server_failed(&tx, &mut server, fault).await?;
                self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &json!({ "overdue": task.text() })).await?;
            }
        }
        tx.commit().await?;
        self.images_let_go(held, &server).await;
        self.wake().all();
        Ok(true)
    }
}
