//! Rescue: the server starts from another image with its own disk, or its volumes, beside that, until it is told to go back.

use super::{admit, retried};
use crate::{Engine, EngineError};
use arcus_store::{Image, Server, ServerRescue};
use arcus_types::agent::Power;
use arcus_types::policy::compute;
use arcus_types::servers::{ServerRequest, ServerTask};
use arcus_types::{ImageId, OpCtx, ServerId};
use serde_json::json;

/// What an image says of the device that it is for a rescue.
///
/// Source: the compute user guide, "Rescue an instance": with both, the server's own disks stay where they are.
const RESCUE_PROPERTIES: [&str; 2] = ["hw_rescue_device", "hw_rescue_bus"];

fn unrescuable(id: ServerId, why: &str) -> EngineError {
    EngineError::Invalid { code: "InstanceNotRescuable", message: format!("Instance {id} cannot be rescued: {why}") }
}

/// Refuses a device for the rescue that there is not.
fn rescue_device(image: &Image) -> Result<(), EngineError> {
    let known: [(&str, &[&str]); 2] = [
        ("hw_rescue_device", &["disk", "cdrom", "floppy"]),
        ("hw_rescue_bus", &["virtio", "scsi", "sata", "ide", "usb", "fdc"]),
    ];
    for (name, values) in known {
        if let Some(value) = image.properties.get(name).filter(|v| !values.contains(&v.as_str())) {
            let value: String = value.chars().take(64).collect();
            return Err(EngineError::invalid(format!(
                "Requested rescue image '{}' is not supported: its {name} is '{value}', not one of {}.",
                image.id,
                values.join(", ")
            )));
        }
    }
    Ok(())
}

impl Engine {
    /// Starts a server from a rescue image, by default the one that it was made of; the password of the rescue system.
    /// One that boots from a volume only `with_volumes`, and from an image that says which device it is for a rescue.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state or under a lock that does not admit it, [`EngineError::Invalid`] for an image
    /// that is not there or not fit, [`EngineError::NotFound`], or a refusal.
    pub async fn server_rescue(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        image: Option<ImageId>,
        password: Option<String>,
        with_volumes: bool,
    ) -> Result<String, EngineError> {
        let seen = self.server_seen(self.store(), ctx, compute::SERVER_RESCUE, id, false).await?;
        admit(ctx, &seen, ServerRequest::Rescue)?;
        let image = match image {
            None if seen.details.volume_root => {
                let began = self.root_volume_image(&seen).await?;
                began.ok_or_else(|| unrescuable(id, "Its volume was not made of an image: name the rescue image"))?
            }
            None => seen.image.id,
            Some(image) => image,
        };
        let image = self.image_for_boot(ctx, image).await?;
        let source = image.source().ok_or_else(|| {
            EngineError::invalid(format!("Requested rescue image '{}' is not supported: it has no bytes", image.id))
        })?;
        rescue_device(&image)?;
        let for_volumes = RESCUE_PROPERTIES.iter().all(|name| image.properties.contains_key(*name));
        if seen.details.volume_root && !(with_volumes && for_volumes) {
            return Err(unrescuable(id, "Cannot rescue a volume-backed instance"));
        }
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

    /// The image that the volume which a server boots from began as.
    async fn root_volume_image(&self, server: &Server) -> Result<Option<ImageId>, EngineError> {
        let attachments = self.store().volume_attachments_by_servers(&[server.id]).await?;
        let Some(root) = attachments.iter().find(|a| a.boot_index == Some(0)) else { return Ok(None) };
        let volume = self.store().volume_get(root.volume_id).await?;
        Ok(volume.and_then(|v| v.image_metadata?.get("image_id")?.parse().ok()))
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
