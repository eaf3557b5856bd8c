//! Images that nodes make of servers' disks.

use super::upload::Then;
use super::{audit, change, node_of, not_found, policy};
use crate::{Engine, EngineError};
use arcus_store::{Image, QuotaResource, Tx};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageStatus, Visibility};
use arcus_types::policy::{Target, arcus, authorize};
use arcus_types::{ImageId, Name, NodeId, OpCtx, ProjectId, Timestamp};
use bytes::Bytes;
use futures_util::Stream;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use uuid::Uuid;

/// An image that a node will fill with what a disk holds.
#[derive(Debug, Clone)]
pub(crate) struct ImageAwaited {
    /// Who owns it.
    pub project_id: ProjectId,
    /// The node that fills it.
    pub node_id: NodeId,
    /// Its name.
    pub name: Name,
    /// How its bytes are laid out.
    pub disk_format: DiskFormat,
    /// Who sees it.
    pub visibility: Visibility,
    /// Whether it cannot be deleted.
    pub protected: bool,
    /// What is said of it.
    pub properties: BTreeMap<String, String>,
}

impl Engine {
    /// Records the image that `node` will fill with a server's disk, in the caller's transaction: quota is claimed and an
    /// audit record written.
    ///
    /// # Errors
    /// [`EngineError::OverQuota`], or a refusal.
    pub async fn image_snapshot_begin_in(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        project_id: ProjectId,
        node: NodeId,
        name: Name,
        properties: BTreeMap<String, String>,
    ) -> Result<ImageId, EngineError> {
        let image = ImageAwaited {
            project_id,
            node_id: node,
            name,
            disk_format: DiskFormat::Qcow2,
            visibility: Visibility::Private,
            protected: false,
            properties,
        };
        self.image_awaited_in(tx, ctx, image).await
    }

    /// Records an image that a node will fill, in the caller's transaction: quota is claimed and an audit record written.
    ///
    /// # Errors
    /// [`EngineError::OverQuota`], or a refusal.
    pub(crate) async fn image_awaited_in(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        awaited: ImageAwaited,
    ) -> Result<ImageId, EngineError> {
        let target = Target::project(awaited.project_id);
        authorize(ctx, policy::IMAGE_SNAPSHOT, &target)?;
        match awaited.visibility {
            Visibility::Public => authorize(ctx, policy::IMAGE_PUBLICIZE, &target)?,
            Visibility::Community => authorize(ctx, policy::IMAGE_COMMUNITIZE, &target)?,
            Visibility::Shared | Visibility::Private => {}
        }
        let base = awaited.properties.get("base_image_ref").and_then(|id| id.parse().ok());
        let (project_id, format) = (awaited.project_id, awaited.disk_format);
        let mut image = self.image_of_server(tx, project_id, awaited.name, base, format, awaited.properties).await?;
        image.visibility = awaited.visibility;
        image.protected = awaited.protected;
        image.snapshot_node_id = Some(awaited.node_id);
        change::check(&image)?;
        self.image_insert_in(tx, &image, policy::IMAGE_SNAPSHOT).await?;
        Ok(image.id)
    }

    /// Records the image that `node` will fill with the disk of a server that goes to another node, in the caller's
    /// transaction. It belongs to the cloud itself: it counts in no project's quota, and none sees it.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) async fn image_carried_begin_in(
        &self,
        tx: &Tx,
        node: NodeId,
        name: &Name,
    ) -> Result<ImageId, EngineError> {
        let (nobody, none) = (ProjectId(Uuid::nil()), BTreeMap::new());
        let mut image = self.image_of_server(tx, nobody, name.clone(), None, DiskFormat::Qcow2, none).await?;
        image.hidden = true;
        image.snapshot_node_id = Some(node);
        tx.image_insert(&image).await?;
        let detail = json!({ "name": image.name, "why": "a server goes to another node" });
        audit(tx, policy::IMAGE_SNAPSHOT, image.id, nobody, &detail).await?;
        Ok(image.id)
    }

    /// Records an image that has no bytes and never will: all that it is, its properties say. It is active at once.
    ///
    /// # Errors
    /// [`EngineError::OverQuota`], or a refusal.
    pub(crate) async fn image_byteless_in(
        &self,
        tx: &Tx,
        ctx: &OpCtx,
        project_id: ProjectId,
        name: Name,
        base: Option<ImageId>,
        properties: BTreeMap<String, String>,
    ) -> Result<ImageId, EngineError> {
        authorize(ctx, policy::IMAGE_SNAPSHOT, &Target::project(project_id))?;
        let mut image = self.image_of_server(tx, project_id, name, base, DiskFormat::Raw, properties).await?;
        image.status = ImageStatus::Active;
        change::check(&image)?;
        self.image_insert_in(tx, &image, policy::IMAGE_SNAPSHOT).await?;
        Ok(image.id)
    }

    async fn image_of_server(
        &self,
        tx: &Tx,
        project_id: ProjectId,
        name: Name,
        base: Option<ImageId>,
        disk_format: DiskFormat,
        properties: BTreeMap<String, String>,
    ) -> Result<Image, EngineError> {
        let now = Timestamp::now();
        // What the server's image needs to boot, an image of its disk needs too.
        let base = match base {
            Some(id) => tx.image_get(id).await?,
            None => None,
        };
        Ok(Image {
            id: ImageId::new(),
            project_id,
            name: Some(name),
            status: ImageStatus::Queued,
            visibility: Visibility::Private,
            protected: false,
            hidden: false,
            disk_format: Some(disk_format),
            container_format: Some(ContainerFormat::Bare),
            min_disk_gib: base.as_ref().map_or(0, |b| b.min_disk_gib),
            min_ram_mib: base.as_ref().map_or(0, |b| b.min_ram_mib),
            content: None,
            snapshot_node_id: None,
            tags: BTreeSet::new(),
            properties,
            generation: 1,
            created_at: now,
            updated_at: now,
        })
    }

    /// Takes a snapshot's bytes from the node that was told to make it. A node that sends them again is told that all is
    /// well.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if no snapshot is awaited of this node, else as an upload.
    pub async fn image_fill<S>(&self, ctx: &OpCtx, id: ImageId, stream: S) -> Result<(), EngineError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        authorize(ctx, arcus::NODE_IMAGE_WRITE, &Target::default())?;
        let image = self.store().image_get(id).await?.ok_or_else(|| not_found(id))?;
        match (image.status, image.snapshot_node_id) {
            (ImageStatus::Active | ImageStatus::Deactivated, _) => Ok(()),
            (ImageStatus::Queued | ImageStatus::Saving, node) if node.is_some() && node == node_of(ctx) => {
                self.image_receive(ctx, arcus::NODE_IMAGE_WRITE, &image, Then::Complete, None, stream).await
            }
            (ImageStatus::Queued | ImageStatus::Saving | ImageStatus::Uploading, _) => Err(not_found(id)),
        }
    }

    /// Removes a snapshot that could not be made, in the caller's transaction. One that is complete or gone stays so.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn image_snapshot_failed_in(&self, tx: &Tx, id: ImageId) -> Result<(), EngineError> {
        let Some(image) = tx.image_get(id).await? else { return Ok(()) };
        if !tx.image_snapshot_delete(id).await? {
            return Ok(());
        }
        tx.quota_release(image.project_id, QuotaResource::Images, 1).await?;
        let detail = json!({ "why": "the snapshot could not be made" });
        audit(tx, policy::IMAGE_DELETE, id, image.project_id, &detail).await
    }
}
