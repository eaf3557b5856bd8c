//! Images: records, who may see and change them, and their bytes.
//!
//! Bytes are a file named by the image's id; the record says whether they are complete. How they arrive is in
//! `images/upload.rs`, how the folder is kept clean in `images/files.rs`.

mod change;
mod files;
mod imports;
mod members;
mod snapshots;
mod upload;
mod write;

pub use change::ImageChange;
pub use files::{ImageFile, ImagesRecovered};
pub use imports::ImageUsage;
pub(crate) use snapshots::ImageAwaited;

use crate::{Engine, EngineError};
use arcus_store::{AuditEntry, Db, Image, ImageFilter, ImageVisible, QuotaResource, StoreError, Tx, UsageEntry};
use arcus_types::agent::DiskFormat;
use arcus_types::images::{ContainerFormat, ImageEvent, ImageStatus, MemberStatus, Visibility};
use arcus_types::policy::{Action, Denied, Target, authorize, image as policy};
use arcus_types::{Actor, ImageId, Name, OpCtx, ProjectId, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Tags that an image may have.
pub const TAGS_MAX: usize = 128;
/// Characters of a tag, and of a property's name.
pub const WORD_CHARS_MAX: usize = 255;
/// Properties that an image may have.
pub const PROPERTIES_MAX: usize = 128;
/// Bytes of a property's value.
pub const PROPERTY_BYTES_MAX: usize = 65_535;
/// Projects that an image may be shared with.
pub const MEMBERS_MAX: usize = 128;
/// The largest least disk (GiB) and least memory (MiB) that an image may ask for.
pub const MINIMUM_MAX: u64 = i32::MAX as u64;
/// How often a change is tried again when somebody else changed the image at the same instant.
const UPDATE_TRIES_MAX: usize = 8;

/// An image as it is asked for.
#[derive(Debug, Clone, Default)]
pub struct ImageNew {
    /// The id that the caller chose.
    pub id: Option<ImageId>,
    /// Whose it shall be, if not the caller's project's.
    pub owner: Option<ProjectId>,
    /// Its name.
    pub name: Option<Name>,
    /// Who sees it; shared if nothing is said.
    pub visibility: Option<Visibility>,
    /// Whether deletion is refused.
    pub protected: bool,
    /// Whether lists leave it out.
    pub hidden: bool,
    /// How its bytes will be laid out.
    pub disk_format: Option<DiskFormat>,
    /// What will surround them.
    pub container_format: Option<ContainerFormat>,
    /// The smallest disk that it may boot from, in GiB.
    pub min_disk_gib: u64,
    /// The least memory that it may boot with, in MiB.
    pub min_ram_mib: u64,
    /// Words that it can be found by.
    pub tags: BTreeSet<String>,
    /// What its owner says of it.
    pub properties: BTreeMap<String, String>,
}

/// Which images to list.
#[derive(Debug, Clone)]
pub struct ImageQuery {
    /// What they must be like; who sees it is filled in by the engine.
    pub filter: ImageFilter,
    /// Whether other projects' community images are asked for.
    pub community: bool,
    /// Of images shared with the caller, those to which it said this; `None` is all of them.
    pub member_status: Option<MemberStatus>,
    /// Begin after this image.
    pub marker: Option<ImageId>,
}

fn not_found(id: ImageId) -> EngineError {
    EngineError::not_found("ImageNotFound", "Image", id)
}

impl Engine {
    /// The image, if the caller may see it and do `action` to what it sees.
    async fn image_seen(&self, db: &Db, ctx: &OpCtx, action: Action, id: ImageId) -> Result<Image, EngineError> {
        let image = db.image_get(id).await?.ok_or_else(|| not_found(id))?;
        let mine = ctx.project_id() == Some(image.project_id);
        let seen = match image.visibility {
            _ if mine || ctx.is_admin() => true,
            Visibility::Public | Visibility::Community => true,
            Visibility::Private => false,
            Visibility::Shared => match ctx.project_id() {
                Some(project_id) => db.image_member_get(id, project_id).await?.is_some(),
                None => false,
            },
        };
        let target = if seen { Target::own(ctx) } else { Target::project(image.project_id) };
        match authorize(ctx, action, &target) {
            Ok(()) => Ok(image),
            Err(Denied::Hidden) => Err(not_found(id)),
            Err(denied) => Err(denied.into()),
        }
    }

    /// The image, if the caller may do `action` to it as its owner. What it sees but does not own is forbidden; what it
    /// does not see is not there.
    async fn image_owned(&self, db: &Db, ctx: &OpCtx, action: Action, id: ImageId) -> Result<Image, EngineError> {
        let image = self.image_seen(db, ctx, policy::IMAGE_GET, id).await?;
        match authorize(ctx, action, &Target::project(image.project_id)) {
            Ok(()) => Ok(image),
            Err(Denied::Hidden) => Err(Denied::Forbidden(action.name).into()),
            Err(denied) => Err(denied.into()),
        }
    }

    /// Records an image; its bytes are uploaded afterwards.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] if the id is taken, [`EngineError::OverQuota`], or a refusal.
    pub async fn image_create(&self, ctx: &OpCtx, new: ImageNew) -> Result<Image, EngineError> {
        let own = ctx.project_id();
        if new.owner.is_some() && new.owner != own {
            authorize(ctx, policy::IMAGE_OWNER_SET, &Target::own(ctx))?;
        }
        let Some(project_id) = new.owner.or(own) else {
            authorize(ctx, policy::IMAGE_CREATE, &Target::own(ctx))?;
            return Err(EngineError::invalid("Say whose the image shall be: set owner, or use a project's token."));
        };
        authorize(ctx, policy::IMAGE_CREATE, &Target::project(project_id))?;
        let now = Timestamp::now();
        let image = Image {
            id: new.id.unwrap_or_default(),
            project_id,
            name: new.name,
            status: ImageStatus::Queued,
            visibility: new.visibility.unwrap_or(Visibility::Shared),
            protected: new.protected,
            hidden: new.hidden,
            disk_format: new.disk_format,
            container_format: new.container_format,
            min_disk_gib: new.min_disk_gib,
            min_ram_mib: new.min_ram_mib,
            content: None,
            snapshot_node_id: None,
            tags: new.tags,
            properties: new.properties,
            generation: 1,
            created_at: now,
            updated_at: now,
        };
        visibility_allowed(ctx, image.visibility, project_id)?;
        change::check(&image)?;
        let tx = self.store().begin(ctx).await?;
        self.image_insert_in(&tx, &image, policy::IMAGE_CREATE).await?;
        tx.commit().await?;
        Ok(image)
    }

    /// Claims the quota of an image and records it.
    async fn image_insert_in(&self, tx: &Tx, image: &Image, action: Action) -> Result<(), EngineError> {
        quota_claim(tx, image.project_id).await?;
        match tx.image_insert(image).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => {
                return Err(EngineError::conflict(format!("Image ID {} already exists!", image.id)));
            }
            Err(error) => return Err(error.into()),
        }
        let detail = json!({ "name": image.name, "visibility": image.visibility.as_str() });
        audit(tx, action, image.id, image.project_id, &detail).await
    }

    /// The image with this id.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or a refusal.
    pub async fn image_get(&self, ctx: &OpCtx, id: ImageId) -> Result<Image, EngineError> {
        self.image_seen(self.store(), ctx, policy::IMAGE_GET, id).await
    }

    /// A page of images, and whether more follow.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] if the marker is not an image that the caller sees, or a refusal.
    pub async fn image_list(&self, ctx: &OpCtx, query: ImageQuery) -> Result<(Vec<Image>, bool), EngineError> {
        authorize(ctx, policy::IMAGE_LIST, &Target::own(ctx))?;
        let mut filter = query.filter;
        filter.visible = if ctx.is_admin() {
            ImageVisible::ToAll
        } else {
            ImageVisible::To {
                project_id: ctx.project_id(),
                community: query.community,
                member_status: query.member_status,
            }
        };
        if let Some(marker) = query.marker {
            let image = self.image_get(ctx, marker).await;
            filter.marker =
                Some(image.map_err(|_| EngineError::invalid(format!("The marker {marker} is not an image.")))?);
        }
        let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        filter.limit = filter.limit.saturating_add(1);
        let mut images = self.store().image_list(&filter).await?;
        let more = images.len() > wanted && wanted > 0;
        images.truncate(wanted);
        Ok((images, more))
    }

    /// Changes an image, all of it or nothing.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] for what may not change, or a refusal.
    pub async fn image_update(&self, ctx: &OpCtx, id: ImageId, changes: &[ImageChange]) -> Result<Image, EngineError> {
        for _ in 0..UPDATE_TRIES_MAX {
            match self.image_update_once(ctx, id, changes).await {
                Err(EngineError::Store(StoreError::Stale(_))) => {}
                Err(error) => return Err(error),
                Ok(()) => return self.image_get(ctx, id).await,
            }
        }
        Err(EngineError::Unavailable(format!("Image {id} is changed too often at the moment; try again.")))
    }

    async fn image_update_once(&self, ctx: &OpCtx, id: ImageId, changes: &[ImageChange]) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let was = self.image_owned(&tx, ctx, policy::IMAGE_UPDATE, id).await?;
        let mut image = was.clone();
        for change in changes {
            change::apply(&mut image, change)?;
        }
        if image == was {
            return Ok(());
        }
        if image.visibility != was.visibility {
            visibility_allowed(ctx, image.visibility, was.project_id)?;
        }
        change::check(&image)?;
        tx.image_update(&was, &image).await?;
        if image.project_id != was.project_id {
            authorize(ctx, policy::IMAGE_OWNER_SET, &Target::project(was.project_id))?;
            quota_claim(&tx, image.project_id).await?;
            tx.quota_release(was.project_id, QuotaResource::Images, 1).await?;
            if let Some(content) = &was.content {
                usage(&tx, was.project_id, id, &json!({})).await?;
                usage(&tx, image.project_id, id, &json!({ "bytes": content.size_bytes })).await?;
            }
        }
        let detail = json!({ "changes": changes.iter().map(ImageChange::subject).collect::<Vec<_>>() });
        audit(&tx, policy::IMAGE_UPDATE, id, image.project_id, &detail).await?;
        Ok(tx.commit().await?)
    }

    /// Deletes an image and its bytes. Servers that run from it keep theirs, and downloads under way go on.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] if it is protected, or a refusal.
    pub async fn image_delete(&self, ctx: &OpCtx, id: ImageId) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, policy::IMAGE_DELETE, id).await?;
        if image.protected {
            return Err(EngineError::Forbidden(format!("Image {id} is protected and cannot be deleted.")));
        }
        if !tx.image_delete(id).await? {
            return Err(not_found(id));
        }
        tx.quota_release(image.project_id, QuotaResource::Images, 1).await?;
        if image.content.is_some() {
            usage(&tx, image.project_id, id, &json!({})).await?;
        }
        audit(&tx, policy::IMAGE_DELETE, id, image.project_id, &json!({ "name": image.name })).await?;
        tx.commit().await?;
        self.image_file_remove(id).await;
        Ok(())
    }

    /// Forgets an image that the cloud itself made for a server, in the caller's transaction; its bytes go after the
    /// commit with [`Engine::image_file_remove`]. Nothing happens if it is gone.
    pub(crate) async fn image_forget_in(&self, tx: &Tx, id: ImageId) -> Result<(), EngineError> {
        let Some(image) = tx.image_get(id).await? else { return Ok(()) };
        if !tx.image_delete(id).await? {
            return Ok(());
        }
        tx.quota_release(image.project_id, QuotaResource::Images, 1).await?;
        if image.content.is_some() {
            usage(tx, image.project_id, id, &json!({})).await?;
        }
        audit(tx, policy::IMAGE_DELETE, id, image.project_id, &json!({ "name": image.name })).await
    }

    /// Adds a tag.
    ///
    /// # Errors
    /// [`EngineError::TooLarge`] if it has as many as it may, or a refusal.
    pub async fn image_tag_add(&self, ctx: &OpCtx, id: ImageId, tag: &str) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let mut image = self.image_owned(&tx, ctx, policy::TAG_ADD, id).await?;
        image.tags.insert(tag.to_owned());
        change::check(&image)?;
        tx.image_tag_add(id, tag).await?;
        audit(&tx, policy::TAG_ADD, id, image.project_id, &json!({ "tag": tag })).await?;
        Ok(tx.commit().await?)
    }

    /// Removes a tag.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] if it has no such tag, or a refusal.
    pub async fn image_tag_delete(&self, ctx: &OpCtx, id: ImageId, tag: &str) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, policy::TAG_DELETE, id).await?;
        if !tx.image_tag_delete(id, tag).await? {
            return Err(EngineError::not_found("TagNotFound", "Tag", tag));
        }
        audit(&tx, policy::TAG_DELETE, id, image.project_id, &json!({ "tag": tag })).await?;
        Ok(tx.commit().await?)
    }

    /// Closes an image to downloads and new servers.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] unless it is complete, or a refusal.
    pub async fn image_deactivate(&self, ctx: &OpCtx, id: ImageId) -> Result<(), EngineError> {
        self.image_event(ctx, id, policy::IMAGE_DEACTIVATE, ImageEvent::DeactivationRequested).await
    }

    /// Opens a closed image again.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`] unless it is complete, or a refusal.
    pub async fn image_reactivate(&self, ctx: &OpCtx, id: ImageId) -> Result<(), EngineError> {
        self.image_event(ctx, id, policy::IMAGE_REACTIVATE, ImageEvent::ReactivationRequested).await
    }

    async fn image_event(
        &self,
        ctx: &OpCtx,
        id: ImageId,
        action: Action,
        event: ImageEvent,
    ) -> Result<(), EngineError> {
        let tx = self.store().begin(ctx).await?;
        let image = self.image_owned(&tx, ctx, action, id).await?;
        let Some(status) = image.status.after(event) else {
            return Err(EngineError::Forbidden(format!("This cannot be done while the image is {}.", image.status)));
        };
        if !tx.image_status_set(id, image.status, status).await? {
            return Err(StoreError::Stale("the image").into());
        }
        audit(&tx, action, id, image.project_id, &json!({ "status": status.as_str() })).await?;
        Ok(tx.commit().await?)
    }

    /// An image that a server may be made from.
    ///
    /// # Errors
    /// [`EngineError::Invalid`], saying why it cannot be booted.
    pub async fn image_for_boot(&self, ctx: &OpCtx, id: ImageId) -> Result<Image, EngineError> {
        let image = match self.image_seen(self.store(), ctx, policy::IMAGE_GET, id).await {
            Err(EngineError::NotFound { .. }) => {
                return Err(EngineError::invalid(format!("Image {id} could not be found.")));
            }
            other => other?,
        };
        if image.status != ImageStatus::Active {
            return Err(EngineError::invalid(format!("Image {id} is not active: it is {}.", image.status)));
        }
        Ok(image)
    }
}

/// Whether the caller may let so many see an image of `project_id`.
fn visibility_allowed(ctx: &OpCtx, visibility: Visibility, project_id: ProjectId) -> Result<(), EngineError> {
    match visibility {
        Visibility::Public => Ok(authorize(ctx, policy::IMAGE_PUBLICIZE, &Target::project(project_id))?),
        Visibility::Community => Ok(authorize(ctx, policy::IMAGE_COMMUNITIZE, &Target::project(project_id))?),
        Visibility::Shared | Visibility::Private => Ok(()),
    }
}

async fn quota_claim(tx: &Tx, project_id: ProjectId) -> Result<(), EngineError> {
    if tx.quota_claim(project_id, QuotaResource::Images, 1).await? {
        return Ok(());
    }
    let quotas = tx.quota_list(project_id, &[QuotaResource::Images]).await?;
    let (cap, used) = quotas.first().map_or((0, 0), |quota| (quota.cap, quota.used));
    Err(EngineError::OverQuota {
        code: "OverQuota",
        message: format!("Quota exceeded for images: {used} of {cap} are used. Delete one or ask for a larger quota."),
    })
}

async fn audit(tx: &Tx, action: Action, id: ImageId, project_id: ProjectId, detail: &Value) -> Result<(), EngineError> {
    let entry = AuditEntry { action, kind: "image", id: id.to_string(), project_id: Some(project_id), detail };
    Ok(tx.audit(entry).await?)
}

async fn usage(tx: &Tx, project_id: ProjectId, id: ImageId, uses: &Value) -> Result<(), EngineError> {
    Ok(tx.usage(UsageEntry { project_id, kind: "image", id: id.0, uses }).await?)
}

/// Whether the caller is a node; which one.
fn node_of(ctx: &OpCtx) -> Option<arcus_types::NodeId> {
    match ctx.actor {
        Actor::Node { node_id } => Some(node_id),
        Actor::Anonymous | Actor::User { .. } | Actor::System => None,
    }
}
