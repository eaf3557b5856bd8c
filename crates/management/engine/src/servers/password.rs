//! A new password for a server's login user, set once by the guest's agent and forgotten here afterwards.

use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Server, Tx};
use arcus_types::policy::compute;
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{OpCtx, ServerId};
use serde_json::json;

impl Engine {
    /// Asks a server's guest agent to set a password. A guest without an agent keeps its password, and the server's
    /// history says so.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::NotFound`], or a refusal.
    pub async fn server_password_change(&self, ctx: &OpCtx, id: ServerId, password: &str) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_PASSWORD, id).await?;
            admit(ctx, &server, ServerRequest::ChangePassword)?;
            super::actions::on_a_node(&server, ServerRequest::ChangePassword)?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.password_wish = Some(password.to_owned());
            tx.server_secrets_set(id, &secrets).await?;
            server.details.passwords += 1;
            let event = Some("compute_set_admin_password");
            self.server_record(&tx, &server, compute::SERVER_PASSWORD, "changePassword", event, &json!({})).await?;
            self.server_wish(&tx, &mut server, Some(ServerTask::UpdatingPassword)).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// The node has acted on the password, well or not: it is forgotten, and when it was set so is the first one, which a
    /// config drive would tell the guest again.
    pub(super) async fn password_done(&self, tx: &Tx, server: &mut Server, set: bool) -> Result<(), EngineError> {
        let mut secrets = tx.server_secrets(&[server.id]).await?.remove(&server.id).unwrap_or_default();
        secrets.password_wish = None;
        if set {
            secrets.admin_password = None;
        }
        tx.server_secrets_set(server.id, &secrets).await?;
        self.server_touch(tx, server).await
    }
}
