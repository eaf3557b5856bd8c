//! Removing servers: the node takes the guest down, then the claims are given back. A node that is gone does not keep a
//! server from being removed.

use super::image::images_held;
use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{QuotaResource, Server, Tx};
use arcus_types::policy::{Action, compute};
use arcus_types::servers::{PowerState, ServerEvent, ServerRequest, ServerTask};
use arcus_types::{OpCtx, ServerId, Timestamp};
use serde_json::json;

impl Engine {
    /// Removes a server. It is gone when its node says so; at once when it has none or its node is down.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] under a lock, [`EngineError::NotFound`], or a refusal.
    pub async fn server_delete(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_DELETE, id).await?;
            admit(ctx, &server, ServerRequest::Delete)?;
            let event = Some("compute_terminate_instance");
            self.server_record(&tx, &server, compute::SERVER_DELETE, "delete", event, &json!({})).await?;
            self.snapshots_give_up(&tx, &server).await?;
            self.live_end(&tx, &server, "cancelled").await?;
            let held = images_held(&server);
            if self.server_node_alive(&tx, &server).await? {
                if server.task != Some(ServerTask::Deleting) {
                    self.server_wish(&tx, &mut server, Some(ServerTask::Deleting)).await?;
                }
            } else {
                server.request_id = Some(ctx.request_id);
                self.server_touch(&tx, &mut server).await?;
                self.server_remove_in(&tx, &mut server, compute::SERVER_DELETE).await?;
            }
            tx.commit().await?;
            self.images_let_go(held, &server).await;
            self.wake().all();
            Ok(())
        })
    }

    async fn server_node_alive(&self, tx: &Tx, server: &Server) -> Result<bool, EngineError> {
        let Some(id) = server.node_id else { return Ok(false) };
        Ok(tx.node_get(id).await?.is_some_and(|node| self.node_alive(&node, Timestamp::now())))
    }

    /// Gives back all that a server holds and keeps only its record. The caller holds the row.
    pub(super) async fn server_remove_in(
        &self,
        tx: &Tx,
        server: &mut Server,
        action: Action,
    ) -> Result<(), EngineError> {
        let now = Timestamp::now();
        for port in tx.port_list_by_servers(&[server.id]).await? {
            if port.delete_with_server {
                self.port_delete_in(tx, port.id).await?;
            } else {
                self.port_unbind_in(tx, port.id).await?;
            }
        }
        self.server_volumes_release(tx, server).await?;
        let (vcpus, memory_mib) = (u64::from(server.flavor.vcpus), server.flavor.memory_mib);
        let resize = server.details.resize.take();
        let other = resize.as_ref().map(|r| (u64::from(r.other.vcpus), r.other.memory_mib));
        let (other_vcpus, other_memory) = other.unwrap_or((0, 0));
        tx.quota_release(server.project_id, QuotaResource::Instances, 1).await?;
        tx.quota_release(server.project_id, QuotaResource::Cores, vcpus.max(other_vcpus)).await?;
        tx.quota_release(server.project_id, QuotaResource::RamMib, memory_mib.max(other_memory)).await?;
        if let Some(node) = server.node_id {
            tx.node_release(node, server.vcpus, server.memory_mib, server.disk_gib).await?;
            self.server_usage(tx, server, false).await?;
        }
        if let Some(place) = resize.and_then(|resize| resize.elsewhere) {
            self.elsewhere_release(tx, &place).await?;
        }
        self.shelved_image_remove(tx, server).await?;
        tx.server_secrets_delete(server.id).await?;
        if let Some(request) = server.request_id {
            tx.server_action_finish(server.id, request, now, None).await?;
        }
        self.interfaces_settled(tx, server.id, None, now).await?;
        tx.tasks_end_with(server.id.0, "The server was deleted.", now).await?;
        server.state = server.state.after(ServerEvent::Removed).map_err(|e| EngineError::conflict(e.to_string()))?;
        server.task = None;
        server.task_deadline = None;
        server.power_state = PowerState::NoState;
        server.details.ports.clear();
        server.details.rescue = None;
        server.server_group_id = None;
        server.updated_at = now;
        server.deleted_at = Some(now);
        self.server_audit(tx, server, action, &json!({ "gone": true })).await?;
        tx.server_update(server).await?;
        tracing::info!(server.id = %server.id, "a server is gone");
        Ok(())
    }
}
