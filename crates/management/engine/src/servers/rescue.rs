//! Rescue: the server starts from another image with its own disk as the second one, until it is told to go back.

use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::ServerRescue;
use arcus_types::agent::Power;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{ImageId, OpCtx, ServerId};
use serde_json::json;

impl Engine {
    /// Starts a server from a rescue image, by default the one that it was made of; the password of the rescue system.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::Invalid`] for an image
    /// that is not there, [`EngineError::NotFound`], or a refusal.
    pub async fn server_rescue(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        image: Option<ImageId>,
        password: Option<String>,
    ) -> Result<String, EngineError> {
        let seen = self.server_seen(self.store(), ctx, compute::SERVER_RESCUE, id, false).await?;
        admit(ctx, &seen, ServerRequest::Rescue)?;
        super::own_root(&seen, "Rescue", "attach its volume to another server instead.")?;
        let image = self.image_for_boot(ctx, image.unwrap_or(seen.image.id)).await?;
        let source = image.source().ok_or_else(|| EngineError::invalid("The rescue image has no bytes."))?;
        let password = password.unwrap_or_else(super::create::password);
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESCUE, id).await?;
            admit(ctx, &server, ServerRequest::Rescue)?;
            super::actions::on_a_node(&server, ServerRequest::Rescue)?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.rescue_password = Some(password.clone());
            tx.server_secrets_set(id, &secrets).await?;
            let incarnation = server.version + 1;
            server.details.rescue = Some(ServerRescue { image: source.clone(), incarnation });
            server.power = Power::Running;
            let detail = json!({ "image_id": source.id });
            let event = Some("compute_rescue_instance");
            self.server_record(&tx, &server, compute::SERVER_RESCUE, "rescue", event, &detail).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Rescuing)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(password.clone())
        })
    }

    /// Starts a rescued server from its own disk again.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_unrescue(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_RESCUE, id).await?;
            admit(ctx, &server, ServerRequest::Unrescue)?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.rescue_password = None;
            tx.server_secrets_set(id, &secrets).await?;
            server.details.rescue = None;
            server.power = Power::Running;
            let event = Some("compute_unrescue_instance");
            self.server_record(&tx, &server, compute::SERVER_RESCUE, "unrescue", event, &json!({})).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::Unrescuing)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }
}
