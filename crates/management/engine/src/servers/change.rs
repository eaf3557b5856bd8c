//! What owners change about a server's record: its name and texts, its metadata, its tags.

use super::{admit, no_server, retried};
use crate::{Engine, EngineError};
use arcus_store::{Db, QuotaResource, Server};
use arcus_types::policy::compute;
use arcus_types::servers::ServerRequest;
use arcus_types::{Name, OpCtx, ProjectId, ServerId, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The most tags of a server.
pub const TAGS_MAX: usize = 50;
/// The longest tag, in characters.
pub const TAG_CHARS_MAX: usize = 60;

/// What shall change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct ServerChange {
    /// The name.
    pub name: Option<Name>,
    /// The host name.
    pub hostname: Option<String>,
    /// Free text.
    pub description: Option<Option<String>>,
    /// An address that the owner notes down.
    pub access_ip_v4: Option<Option<IpAddr>>,
    /// An address that the owner notes down.
    pub access_ip_v6: Option<Option<IpAddr>>,
    /// Whether the owner partitions the disk.
    pub disk_config_manual: Option<bool>,
}

fn metadata_checked(metadata: &BTreeMap<String, String>) -> Result<(), EngineError> {
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > 255 || value.chars().count() > 255 {
            return Err(EngineError::invalid("A metadata key has 1 to 255 characters and a value at most 255."));
        }
    }
    Ok(())
}

pub(super) fn tags_checked(tags: &[String]) -> Result<(), EngineError> {
    if tags.len() > TAGS_MAX {
        return Err(EngineError::invalid(format!("The number of tags exceeded the per-server limit {TAGS_MAX}")));
    }
    for tag in tags {
        if tag.is_empty() || tag.chars().count() > TAG_CHARS_MAX || tag.contains(['/', ',']) {
            return Err(EngineError::invalid(format!(
                "Tag '{}' is invalid. It must be a string of 1 to {TAG_CHARS_MAX} characters without '/' and ','.",
                tag.chars().take(80).collect::<String>()
            )));
        }
    }
    Ok(())
}

impl Engine {
    /// Refuses metadata that is none, or more of it than the caller may give one server of a project.
    pub(super) async fn metadata_admitted(
        &self,
        db: &Db,
        ctx: &OpCtx,
        project: ProjectId,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        metadata_checked(metadata)?;
        if metadata.is_empty() {
            return Ok(());
        }
        let cap = self.measure_cap(db, Some(project), ctx.user_id(), QuotaResource::MetadataItems).await?;
        match cap {
            Some(cap) if u64::try_from(metadata.len()).unwrap_or(u64::MAX) > cap => {
                Err(EngineError::Forbidden(format!("Maximum number of metadata items exceeds {cap}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Changes a server's name and texts.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_update(&self, ctx: &OpCtx, id: ServerId, change: ServerChange) -> Result<Server, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_UPDATE, id).await?;
            let for_guest = change.name.is_some() || change.hostname.is_some();
            apply(&mut server, &change);
            server.updated_at = Timestamp::now();
            if for_guest {
                self.server_touch(&tx, &mut server).await?;
            }
            self.server_audit(&tx, &server, compute::SERVER_UPDATE, &json!({ "name": server.name })).await?;
            tx.server_update(&mut server).await?;
            tx.commit().await?;
            if for_guest {
                self.server_wake(&server);
            }
            Ok(server)
        })
    }

    /// A server's metadata.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_metadata(&self, ctx: &OpCtx, id: ServerId) -> Result<BTreeMap<String, String>, EngineError> {
        Ok(self.server_seen(self.store(), ctx, compute::SERVER_METADATA_READ, id, false).await?.metadata)
    }

    /// Changes a server's metadata; all of it afterwards. The guest sees it at once in its metadata service.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] in a state that does not admit it, [`EngineError::Forbidden`] for too many pairs,
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_metadata_change(
        &self,
        ctx: &OpCtx,
        id: ServerId,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), EngineError> + Send + Sync,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        retried!({
            let tx = self.store().begin(ctx).await?;
            let mut server = self.server_held(&tx, ctx, compute::SERVER_METADATA_WRITE, id).await?;
            admit(ctx, &server, ServerRequest::UpdateMetadata)?;
            change(&mut server.metadata)?;
            self.metadata_admitted(&tx, ctx, server.project_id, &server.metadata).await?;
            server.updated_at = Timestamp::now();
            self.server_touch(&tx, &mut server).await?;
            let detail = json!({ "keys": server.metadata.len() });
            self.server_audit(&tx, &server, compute::SERVER_METADATA_WRITE, &detail).await?;
            tx.server_update(&mut server).await?;
            tx.commit().await?;
            self.server_wake(&server);
            Ok(server.metadata)
        })
    }

    /// A server's tags, in order.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_tags(&self, ctx: &OpCtx, id: ServerId) -> Result<Vec<String>, EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_TAGS_READ, id, false).await?;
        Ok(self.store().server_tags(&[id]).await?.into_iter().map(|(_, tag)| tag).collect())
    }

    /// Replaces a server's tags.
    ///
    /// # Errors
    /// [`EngineError::Invalid`], [`EngineError::NotFound`] or a refusal.
    pub async fn server_tags_set(&self, ctx: &OpCtx, id: ServerId, tags: &[String]) -> Result<(), EngineError> {
        tags_checked(tags)?;
        let tx = self.store().begin(ctx).await?;
        let server = self.server_held(&tx, ctx, compute::SERVER_TAGS_WRITE, id).await?;
        unlocked(ctx, &server)?;
        tx.server_tags_set(id, tags).await?;
        self.server_audit(&tx, &server, compute::SERVER_TAGS_WRITE, &json!({ "tags": tags })).await?;
        Ok(tx.commit().await?)
    }

    /// Adds a tag; `false` if it is there already.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for a tag that is none or one too many, [`EngineError::NotFound`] or a refusal.
    pub async fn server_tag_add(&self, ctx: &OpCtx, id: ServerId, tag: &str) -> Result<bool, EngineError> {
        tags_checked(&[tag.to_owned()])?;
        let tx = self.store().begin(ctx).await?;
        let server = self.server_held(&tx, ctx, compute::SERVER_TAGS_WRITE, id).await?;
        unlocked(ctx, &server)?;
        let new = tx.server_tag_insert(id, tag).await?;
        if tx.server_tags(&[id]).await?.len() > TAGS_MAX {
            return Err(EngineError::invalid(format!("The number of tags exceeded the per-server limit {TAGS_MAX}")));
        }
        self.server_audit(&tx, &server, compute::SERVER_TAGS_WRITE, &json!({ "tag": tag })).await?;
        tx.commit().await?;
        Ok(new)
    }

    /// Removes a tag.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_tag_delete(&self, ctx: &OpCtx, id: ServerId, tag: &str) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let server = self.server_held(&tx, ctx, compute::SERVER_TAGS_WRITE, id).await?;
        unlocked(ctx, &server)?;
        if !tx.server_tag_delete(id, tag).await? {
            let tag: String = tag.chars().take(64).collect();
            return Err(EngineError::not_found("InstanceTagNotFound", "Tag", format!("'{tag}' of instance {id}")));
        }
        self.server_audit(&tx, &server, compute::SERVER_TAGS_WRITE, &json!({ "removed": tag })).await?;
        Ok(tx.commit().await?)
    }

    /// Whether a server is there and the caller may see it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn server_get(&self, ctx: &OpCtx, id: ServerId) -> Result<Server, EngineError> {
        self.server_seen(self.store(), ctx, compute::SERVER_SHOW, id, false).await
    }
}

/// The same refusal as for actions: a locked server is changed by administrators only.
fn unlocked(ctx: &OpCtx, server: &Server) -> Result<(), EngineError> {
    if server.deleted_at.is_some() {
        return Err(no_server(server.id));
    }
    if server.locked && !ctx.is_admin() {
        return Err(EngineError::Conflict {
            code: "InstanceIsLocked",
            message: format!("Instance {} is locked", server.id),
        });
    }
    Ok(())
}

fn apply(server: &mut Server, change: &ServerChange) {
    if let Some(name) = &change.name {
        server.name = name.clone();
    }
    if let Some(hostname) = &change.hostname {
        server.details.hostname.clone_from(hostname);
    }
    if let Some(description) = &change.description {
        server.details.description.clone_from(description);
    }
    if let Some(address) = change.access_ip_v4 {
        server.details.access_ip_v4 = address;
    }
    if let Some(address) = change.access_ip_v6 {
        server.details.access_ip_v6 = address;
    }
    if let Some(manual) = change.disk_config_manual {
        server.details.disk_config_manual = manual;
    }
}
