//! Passwords of a server's login user: a new one, set once by the guest's agent and forgotten here afterwards; and one
//! that the guest made up by itself and left for its owner, encrypted with the owner's public key.

use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Server, ServerSecrets, Tx};
use arcus_types::agent::{PASSWORD_LEFT_BYTES_MAX, PasswordLeft};
use arcus_types::policy::compute;
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{NodeId, OpCtx, ServerId};
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

    /// The password that a server's guest left, encrypted; `None` if it left none.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_password_left(&self, ctx: &OpCtx, id: ServerId) -> Result<Option<String>, EngineError> {
        self.server_readable(ctx, compute::SERVER_PASSWORD_READ, id).await?;
        let secrets = self.store().server_secrets(&[id]).await?.remove(&id);
        Ok(secrets.and_then(|secrets| secrets.password_left))
    }

    /// Throws that password away; the guest may then leave another one.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_password_left_clear(&self, ctx: &OpCtx, id: ServerId) -> Result<(), EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_PASSWORD_CLEAR, id).await?;
            let mut secrets = tx.server_secrets(&[id]).await?.remove(&id).unwrap_or_default();
            secrets.password_left = None;
            secrets.password_turn += 1;
            self.secrets_changed(&tx, &mut server, &secrets).await?;
            self.server_audit(&tx, &server, compute::SERVER_PASSWORD_CLEAR, &json!({})).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(())
        })
    }

    /// Writes secrets that the guest is told of.
    async fn secrets_changed(&self, tx: &Tx, server: &mut Server, secrets: &ServerSecrets) -> Result<(), EngineError> {
        tx.server_secrets_set(server.id, secrets).await?;
        self.server_touch(tx, server).await?;
        Ok(tx.server_update(server).await?)
    }

    /// Takes in what guests of a node have left. The first password of a turn stays.
    pub(crate) async fn passwords_left(
        &self,
        ctx: &OpCtx,
        node: NodeId,
        left: &[PasswordLeft],
    ) -> Result<(), EngineError> {
        for password in left {
            retried!({ self.password_left(ctx, node, password).await })?;
        }
        Ok(())
    }

    async fn password_left(&self, ctx: &OpCtx, node: NodeId, left: &PasswordLeft) -> Result<(), EngineError> {
        let fits = (1..=PASSWORD_LEFT_BYTES_MAX).contains(&left.text.len());
        let tx = self.store().begin(ctx).await?;
        let server = tx.server_lock(left.server_id).await?;
        let here = server.filter(|s| s.node_id == Some(node) && s.deleted_at.is_none());
        let Some(mut server) = here.filter(|_| fits && left.text.bytes().all(|b| b.is_ascii_graphic())) else {
            return Ok(());
        };
        let mut secrets = tx.server_secrets(&[server.id]).await?.remove(&server.id).unwrap_or_default();
        if secrets.password_turn != left.turn || secrets.password_left.is_some() {
            return Ok(());
        }
        secrets.password_left = Some(left.text.clone());
        self.secrets_changed(&tx, &mut server, &secrets).await?;
        self.server_audit(&tx, &server, compute::SERVER_OBSERVE, &json!({ "password": "left by the guest" })).await?;
        tx.commit().await?;
        self.server_wake(&server);
        Ok(())
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
